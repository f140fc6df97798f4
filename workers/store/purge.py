"""``python -m workers.store purge``: delete a user for good, while no server runs.

What the user sent is in the mailboxes of others, and their positions must not change: clients remember them (D13), and a position that
comes again would be taken for one that is known. So such a message is replaced by a tombstone: a row that has its position and its time,
which retention needs, and nothing else: no chat (`NO_CHAT`), so no sender, no id, no content. Who reads a mailbox leaves tombstones
out, and they are acknowledged, so nobody waits for them. Retention removes them as it does all others. What is withheld from its recipient
has no position, and is deleted.

Each file that has lost something is written anew (VACUUM) and its log is emptied, or copies of deleted rows would stay between the
others. The user's own record goes last: as long as it is there, a purge that was interrupted can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, literal, select, update

from core.placement import Placement
from core.process.settings import ConfigurationError
from workers.store.catch_up import replay
from workers.store.data_directory import existing_layout, locked
from workers.store.export import check_revision, reading
from workers.store.schema import NO_CHAT, acknowledged, blocks, chats, hook_calls, messages, users
from workers.store.statements import TRIM_MARKS
from workers.store.tools import Unreadable, connected, reason


class _Counts(NamedTuple):
    """What others in a file had of a user: how many rows of each were purged."""

    chats: int
    messages: int
    blocks: int


def purge(directory: Path, user_id: str) -> str:
    """Delete the user; a sentence that says what has been deleted.

    Raises ConfigurationError while a server runs, for a user who is not there, and when a file can't be written to.
    """
    existing_layout(directory)  # before anything is made in a directory that is none
    with locked(directory):
        layout = existing_layout(directory)
        paths = [directory / name for name in layout.shards()]
        for path in paths:
            replay(path)
        try:
            # The id of a user is in lower case unless the server takes any.
            for name in dict.fromkeys((user_id, user_id.lower())):
                # All files are asked: what can't even be read must not be found out halfway through.
                known = [_is_known(path, name) for path in paths]
                if any(known):
                    break
            else:
                raise ConfigurationError(f"there is no user {user_id!r} in {directory}")
            told = sent = 0
            for path in paths:
                with _opened(path) as connection:
                    with _transaction(connection):
                        counts = _purge_sent(connection, name)
                    _clean(connection, any(counts))
                told, sent = told + counts.chats, sent + counts.messages
            with _opened(paths[Placement(layout.workers).worker_of(name)]) as connection:
                with _transaction(connection):
                    received = _purge_mailbox(connection, name)
                _clean(connection, True)
                with _transaction(connection):
                    connection.execute(delete(users).where(users.c.user_id == name))
                _clean(connection, False)
        except Unreadable as error:
            raise ConfigurationError(
                f"the files in {directory} can't be written to: {reason(error)}; correct the cause, then run `purge` again: the tool"
                " keeps the deletions made so far and continues"
            ) from None
    return f"user {name} is deleted: {received:,} messages received and {sent:,} sent; {told:,} people had a chat with this user"


def _is_known(path: Path, user_id: str) -> bool:
    with reading(path) as connection:
        found = select(users.c.number).where(users.c.user_id == user_id)
        traces = select(chats.c.number).where(chats.c.peer == user_id)
        blocked = select(blocks.c.user).where(blocks.c.peer == user_id)
        return connection.execute(found.union_all(traces, blocked).limit(1)).first() is not None


@contextmanager
def _opened(path: Path) -> Iterator[Connection]:
    with connected(path, "rw") as connection:
        check_revision(connection, path)
        for pragma in ("secure_delete = ON", "synchronous = FULL", "foreign_keys = OFF"):
            connection.exec_driver_sql(f"PRAGMA {pragma}").close()
        yield connection


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    yield  # an exception closes the connection, and that takes back everything
    connection.exec_driver_sql("COMMIT")


def _clean(connection: Connection, anew: bool) -> None:
    """Leave nothing of what was deleted beside the file, nor in it if it is written `anew`: zeros are written over a single row, but
    when rows move from page to page, copies stay."""
    if anew:
        connection.exec_driver_sql("VACUUM")
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()


def _purge_sent(connection: Connection, user_id: str) -> _Counts:
    """Purge what others in this file have of the user."""
    theirs = select(chats.c.number).where(chats.c.peer == user_id)
    waiting = (
        select(messages.c.mailbox, messages.c.seq)
        .join(users, users.c.number == messages.c.mailbox)
        .where(messages.c.chat.in_(theirs), messages.c.seq > users.c.acknowledged_through)
    )
    connection.execute(insert(acknowledged).prefix_with("OR IGNORE").from_select(["mailbox", "seq"], waiting))
    tombstone = {
        "chat": NO_CHAT,
        # One that no other row has, since (chat, id_hash) is unique.
        "id_hash": func.random(),
        "message_id": "",
        "content": "",
        "receipts": False,
    }
    withheld = delete(messages).where(messages.c.chat.in_(theirs), messages.c.mailbox < 0)
    sent = connection.execute(withheld).rowcount
    connection.exec_driver_sql(TRIM_MARKS)
    sent += connection.execute(update(messages).where(messages.c.chat.in_(theirs)).values(tombstone)).rowcount
    told = connection.execute(delete(chats).where(chats.c.peer == user_id)).rowcount
    connection.execute(delete(hook_calls).where(hook_calls.c.peer == user_id))
    stood = connection.execute(delete(blocks).where(blocks.c.peer == user_id)).rowcount
    return _Counts(told, sent, stood)


def _purge_mailbox(connection: Connection, user_id: str) -> int:
    """Purge all that belongs to the user's own record; how many messages."""
    number = connection.scalar(select(users.c.number).where(users.c.user_id == user_id))
    if number is None:
        return 0
    own = literal(number)
    received = connection.execute(delete(messages).where(messages.c.mailbox == own)).rowcount
    connection.execute(delete(messages).where(messages.c.mailbox == -own))
    connection.execute(delete(blocks).where(blocks.c.user == own))
    connection.execute(delete(hook_calls).where(hook_calls.c.user == own))
    connection.execute(delete(acknowledged).where(acknowledged.c.mailbox == own))
    connection.execute(delete(chats).where(chats.c.user == own))
    connection.exec_driver_sql(TRIM_MARKS)
    return received
