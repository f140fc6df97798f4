"""``python -m workers.store export``: everything that is stored about a user, as JSON lines.

A conversation is in the mailboxes of both sides, so what the user has sent is in the files of all workers. From each, the numbers of the
messages are read at once, in the order of time, and then the messages, batch by batch, each in a transaction of its own. So whoever reads
the output may take any time: a file that is read for long beside a server could not begin its log again. What goes meanwhile is
missing; nothing is there twice, or out of order.

What the user sent is there also where it was withheld from its recipient (D32); what was withheld from the user is not, nor who has blocked
the user: these belong to others.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from heapq import merge
from pathlib import Path
from typing import Any, Final, TextIO

from sqlalchemy import ColumnElement, Connection, Row, exists, func, or_, select

from core.chat.chat import chat_id
from core.placement import Placement
from core.process.settings import ConfigurationError
from core.wire.codec import to_json
from core.wire.timestamps import format_timestamp
from workers.store.catch_up import catch_up
from workers.store.data_directory import existing_layout
from workers.store.migrations import REVISION
from workers.store.schema import acknowledged, blocks, chats, hook_calls, messages, users
from workers.store.tools import Unreadable, connected, reason

#: Messages of one file that are in memory at once.
_BATCH: Final = 200
#: What makes a terminal do something, or turns text round: DEL and the C1 controls, line separators, bidirectional formatting.
_ACTIVE: Final = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def export(directory: Path, user_id: str, out: TextIO) -> None:
    """Write the user, the chats, who is blocked, what the hook is told, and the messages.

    Raises ConfigurationError for a user who is not there, or a file that can't be read.

    May run beside a server, and be read as slowly as one likes: what the server commits or deletes meanwhile may be missing, and nothing is
    there twice.
    """
    layout = existing_layout(directory)
    catch_up(directory, layout.shards())
    placement = Placement(layout.workers)
    try:
        with ExitStack() as opened:
            files: dict[int, Connection] = {}

            def file(worker: int) -> Connection:
                if worker not in files:
                    files[worker] = opened.enter_context(reading(directory / layout.shard(worker)))
                return files[worker]

            # The id of a user is in lower case unless the server takes any.
            for name in dict.fromkeys((user_id, user_id.lower())):
                own = file(placement.worker_of(name))
                if (user := own.execute(select(users).where(users.c.user_id == name)).first()) is not None:
                    break
            else:
                raise ConfigurationError(f"there is no user {user_id!r} in {directory}")
            _write(
                out,
                type="user",
                user_id=name,
                display_name=user.display_name,
                last_seen=_time(user.seen_at),
                banned=user.banned,
            )
            opened_chats = select(chats).where(chats.c.user == user.number).order_by(chats.c.number)
            for chat in own.execute(opened_chats).all():
                _write(
                    out,
                    type="chat",
                    chat_id=chat_id(name, chat.peer),
                    with_user_id=chat.peer,
                    with_name=chat.peer_name,
                    hidden=chat.hidden,
                    muted=chat.muted,
                )
            blocked = select(blocks.c.peer).where(blocks.c.user == user.number, blocks.c.by_user)
            for peer in own.scalars(blocked.order_by(blocks.c.peer)).all():
                _write(out, type="block", blocked_user_id=peer)
            calls = select(hook_calls).where(hook_calls.c.user == user.number).order_by(hook_calls.c.peer)
            for call in own.execute(calls).all():
                due = None if call.due is None else _time(call.due)
                _write(
                    out,
                    type="hook_call",
                    with_user_id=call.peer,
                    waits_since=_time(call.since),
                    next_attempt=due,
                )
            streams = [_messages(own, messages.c.mailbox == user.number)]
            streams += [_messages(file(worker), chats.c.peer == name) for worker in range(layout.workers)]
            for message in merge(*streams, key=lambda message: message.sent_at):
                _write(out, **_message_line(message))
    except Unreadable as error:
        raise ConfigurationError(
            f"the files in {directory} can't be read: {reason(error)}; run `python -m workers.store check {directory}` for details"
        ) from None


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """Open a file, in which each statement sees what there is when it begins.

    Raises ConfigurationError when its tables are not those that this version knows.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"{path} is missing: restore the data directory from a backup, all of it at once"
        )
    with connected(path, "ro") as connection:
        check_revision(connection, path)
        yield connection


def check_revision(connection: Connection, path: Path) -> None:
    """Check the tables. Raises ConfigurationError when they are not those that this version knows."""
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if revision != REVISION:
        raise ConfigurationError(
            f"the tables in {path} have revision {revision}, and this version of FastChat expects {REVISION}:"
            " start the server, which upgrades older tables, or use the newer version of FastChat"
        )


def _messages(connection: Connection, whose: ColumnElement[bool]) -> Iterator[Row[Any]]:
    """Iterate over the messages in this file, by time of sending."""
    ahead = exists().where(acknowledged.c.mailbox == messages.c.mailbox, acknowledged.c.seq == messages.c.seq)
    rows = (
        select(
            messages,
            chats.c.peer.label("sender"),
            users.c.user_id.label("recipient"),
            or_(messages.c.seq <= users.c.acknowledged_through, ahead).label("acknowledged"),
            (messages.c.seq <= chats.c.read_through).label("read"),
        )
        .join(chats, chats.c.number == messages.c.chat)
        .join(users, users.c.number == func.abs(messages.c.mailbox))
        # Also of those whose numbers are known: the number of one that goes meanwhile may be given to another, of somebody else.
        .where(whose)
        .order_by(messages.c.sent_at, messages.c.number)
    )
    numbers = array("q", connection.scalars(rows.with_only_columns(messages.c.number)))
    for start in range(0, len(numbers), _BATCH):
        batch = numbers[start : start + _BATCH].tolist()
        yield from connection.execute(rows.where(messages.c.number.in_(batch))).all()


def _message_line(message: Row[Any]) -> dict[str, Any]:
    line = {
        "type": "message",
        "from": message.sender,
        "to": message.recipient,
        "content": message.content,
        "message_id": message.message_id,
        "timestamp": _time(message.sent_at),
    }
    if message.mailbox < 0:
        return {**line, "withheld": True}
    return {
        **line,
        "seq": message.seq,
        "acknowledged": bool(message.acknowledged),
        "read": bool(message.read),
    }


def _time(epoch_ms: int) -> str:
    return format_timestamp(epoch_ms).decode()


def _write(out: TextIO, **line: Any) -> None:
    # orjson leaves all characters as they are, and JSON has no newlines of its own. What would have a terminal do something is escaped.
    out.write(_ACTIVE.sub(_escaped, to_json(line).decode()) + "\n")


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
