"""``python -m workers.store check``: is everything in a data directory as it should be?

It reads only. Each question is put to a file as it is at one moment, and none spans two files or moments: so what a running server
writes meanwhile makes no difference. As long as one question takes, and no longer, that file's log grows instead of beginning again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from sqlalchemy import Connection, Select, and_, exists, func, or_, select

from core.placement import Placement, slot_of
from core.process.data_directory import generations
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from workers.store.catch_up import catch_up, unfolded
from workers.store.data_directory import existing_layout, is_locked
from workers.store.migrations import REVISION
from workers.store.schema import (
    NO_CHAT,
    acknowledged,
    blocks,
    chats,
    clock,
    commit_log,
    hook_calls,
    marks,
    messages,
    metadata,
    users,
)
from workers.store.tools import Unreadable, connected, reason

#: Lines about one kind of problem in one file; more of them would not tell more.
_SHOWN: Final = 10
#: Rows of users that are in memory at once.
_BATCH: Final = 1000
#: What is left of a message whose sender has been purged (``workers.store.purge``).
_TOMBSTONE: Final = messages.c.chat == NO_CHAT
#: The number of the user to whom a message was sent, withheld or not.
_RECIPIENT: Final = func.abs(messages.c.mailbox)


class _Numbers(NamedTuple):
    users: int = 0
    chats: int = 0
    messages: int = 0
    #: Commits that are in the commit log only.
    unfolded: int = 0


def check(directory: Path, out: TextIO) -> int:
    """Write a line for each problem, then a summary; how many problems there are.

    Raises ConfigurationError when this is no data directory, or one that can't be read.
    """
    layout = existing_layout(directory)
    if is_locked(directory):
        # A server moves what was committed until now into the files; when it can't, they are checked as they are.
        with suppress(ConfigurationError):
            catch_up(directory, layout.shards())
    problems = 0
    numbers = _Numbers()
    for worker in range(layout.workers):
        name = layout.shard(worker)
        try:
            # All of it before anything is written: who reads the output slowly must not keep the file.
            for found in list(_check_file(directory / name, worker, layout)):
                if isinstance(found, _Numbers):
                    numbers = _Numbers(*map(sum, zip(numbers, found, strict=True)))
                else:
                    problems += 1
                    print(f"{name}: {_line(found)}", file=out)
        except Unreadable as error:
            problems += 1
            print(f"{name}: the file can't be read: {_line(reason(error))}", file=out)
    if existing_layout(directory) != layout:
        raise ConfigurationError(
            f"a server with another number of workers was started while {directory} was checked: check again"
        )
    if numbers.unfolded:
        print(
            f"{numbers.unfolded:,} commits are in the commit logs only and were not checked: the server, or its next start, moves them into"
            " the database",
            file=out,
        )
    left = [other for other in generations(directory) if other != layout.generation]
    print(
        f"{directory}: generation {layout.generation} for {layout.workers} workers; {numbers.users:,} users, {numbers.chats:,} chats,"
        f" {numbers.messages:,} messages; " + (f"{problems} problems" if problems else "no problem"),
        file=out,
    )
    if left:
        names = ", ".join(Layout(other, 1).directory for other in left)
        print(f"{names}: not in use, and removed at the next start", file=out)
    return problems


def _line(text: str) -> str:
    """Return what may have been read from a damaged file, as one line that a terminal can show."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _check_file(path: Path, worker: int, layout: Layout) -> Iterator[str | _Numbers]:
    try:
        if path.stat().st_size == 0:
            yield "the file is empty: all data of the file is lost"
            return
    except FileNotFoundError:
        yield "the file is missing"
        return
    except OSError as error:
        raise ConfigurationError(
            f"can't read {path}: {error.strerror}; run the command as the server's user or as root"
        ) from None
    if not os.access(path, os.R_OK):
        raise ConfigurationError(
            f"can't read {path}: permission denied; run the command as the server's user or as root"
        )
    with connected(path, "ro") as connection:
        damage = [row[0] for row in connection.exec_driver_sql(f"PRAGMA integrity_check({_SHOWN})")]
        if damage != ["ok"]:
            yield from (f"SQLite: {line}" for line in damage)
        if (problem := _revision_problem(connection)) is not None:
            # Nothing else is known about its tables.
            yield problem
            return
        if missing := _missing_indexes(connection):
            yield f"the indexes {', '.join(missing)} are missing"
        yield from _misplaced(connection, worker, layout)
        for what, rows in _PROBLEMS.items():
            yield from _shorten(connection, what, rows)
        log = unfolded(path)
        if log.lost:
            yield f"the commit log is damaged: {log.lost} commits behind the damage can't be read"
        yield _Numbers(
            *(
                connection.scalar(select(func.count()).select_from(table)) or 0
                for table in (users, chats, messages)
            )
        )._replace(unfolded=len(log.records))


def _revision_problem(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return "the file has none of FastChat's tables"
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if revision != REVISION:
        return (
            f"the tables of the file have revision {revision}, not {REVISION}: start the server, which upgrades older tables,"
            " or use the newer version of FastChat"
        )
    return None


def _missing_indexes(connection: Connection) -> list[str]:
    found = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index'").scalars())
    names = (str(index.name) for table in metadata.sorted_tables for index in table.indexes)
    return sorted(name for name in names if name not in found)


def _misplaced(connection: Connection, worker: int, layout: Layout) -> Iterator[str]:
    """List users who belong in another file, or of whom it is not known where they belong."""
    owners = Placement(layout.workers).owners
    found = 0
    rows = connection.execution_options(yield_per=_BATCH).execute(select(users.c.user_id, users.c.slot))
    for user_id, slot in rows:
        expected = slot_of(user_id)
        if slot != expected:
            problem = f"user {user_id} has slot {slot} instead of {expected}"
        elif owners[slot] != worker:
            problem = f"user {user_id} is in the wrong file and belongs in {layout.shard(owners[slot])}"
        else:
            continue
        found += 1
        if found <= _SHOWN:
            yield problem
    if found > _SHOWN:
        yield f"{found - _SHOWN} more users have a wrong slot or are in the wrong file"


def _shorten(connection: Connection, what: str, rows: Select[Any]) -> Iterator[str]:
    """Fill in `what` with each of `rows`; after some of them just how many more there are."""
    found = 0
    for row in connection.execute(rows):
        found += 1
        if found <= _SHOWN:
            yield what.format(**row._mapping)
    if found > _SHOWN:
        yield f"{found - _SHOWN} more problems like the last one"


def _problems_of_positions() -> dict[str, Select[Any]]:
    """List what is wrong with positions in mailboxes, and with what is acknowledged and counted of them.

    A row's name in a sentence -> such rows.
    """
    last = select(func.max(messages.c.seq)).where(messages.c.mailbox == users.c.number).scalar_subquery()
    head = func.max(func.coalesce(last, 0), users.c.purged_through)
    of_chats = (
        select(func.max(chats.c.summed_through)).where(chats.c.user == users.c.number).scalar_subquery()
    )
    counted = func.max(users.c.summed_through, func.coalesce(of_chats, 0))
    kept = (
        select(
            users.c.user_id,
            (users.c.purged_through + 1).label("first"),
            func.max(messages.c.seq).label("last"),
            func.count().label("rows"),
            func.count(messages.c.seq.distinct()).label("positions"),
        )
        .join(messages, messages.c.mailbox == users.c.number)
        .where(messages.c.seq > users.c.purged_through)
        .group_by(users.c.number)
        .subquery()
    )
    missing = (kept.c.last - kept.c.first + 1 - kept.c.positions).label("missing")
    return {
        "{missing} of the positions {first} to {last} are missing in the mailbox of user {user_id}": select(
            kept, missing
        ).where(missing != 0),
        "{more} positions occur more than once in the mailbox of user {user_id}": select(
            kept.c.user_id, (kept.c.rows - kept.c.positions).label("more")
        ).where(kept.c.rows != kept.c.positions),
        "positions up to {through} are acknowledged in the mailbox of user {user_id}, but the last position is {head}": select(
            users.c.user_id, users.c.acknowledged_through.label("through"), head.label("head")
        ).where(users.c.acknowledged_through > head),
        "position {seq} is acknowledged in the mailbox of user {user_id}, but the last position is {head}": select(
            users.c.user_id, acknowledged.c.seq, head.label("head")
        )
        .join(acknowledged, acknowledged.c.mailbox == users.c.number)
        .where(acknowledged.c.seq > head),
        "messages up to {through} are counted in the chats of user {user_id}, but the last position is {head}: new messages would not be"
        " counted": select(users.c.user_id, counted.label("through"), head.label("head")).where(
            counted > head
        ),
    }


def _problems_of_owners() -> dict[str, Select[Any]]:
    """List rows of a user or chat that is not there, or is purged."""
    their_chat = and_(chats.c.number == messages.c.chat, chats.c.user == _RECIPIENT)
    is_acknowledged = or_(
        messages.c.seq <= users.c.acknowledged_through,
        exists().where(acknowledged.c.mailbox == messages.c.mailbox, acknowledged.c.seq == messages.c.seq),
    )
    return {
        "{count} acknowledged positions belong to mailbox {mailbox}, whose user does not exist": select(
            func.count().label("count"), acknowledged.c.mailbox
        )
        .join(users, users.c.number == acknowledged.c.mailbox, isouter=True)
        .where(users.c.number.is_(None))
        .group_by(acknowledged.c.mailbox),
        "a chat with {peer} belongs to user number {user}, who does not exist": select(
            chats.c.peer, chats.c.user
        )
        .join(users, users.c.number == chats.c.user, isouter=True)
        .where(users.c.number.is_(None)),
        "a block of {peer} belongs to user number {user}, who does not exist": select(
            blocks.c.peer, blocks.c.user
        )
        .join(users, users.c.number == blocks.c.user, isouter=True)
        .where(users.c.number.is_(None)),
        "a call of the hook about {peer} belongs to user number {user}, who does not exist": select(
            hook_calls.c.peer, hook_calls.c.user
        )
        .join(users, users.c.number == hook_calls.c.user, isouter=True)
        .where(users.c.number.is_(None)),
        "{count} messages are in mailbox {mailbox}, whose user does not exist": select(
            func.count().label("count"), messages.c.mailbox
        )
        .join(users, users.c.number == _RECIPIENT, isouter=True)
        .where(users.c.number.is_(None))
        .group_by(messages.c.mailbox),
        "position {seq} in the mailbox of user {user_id} belongs to chat number {chat}, which is not a chat of that user": select(
            users.c.user_id, messages.c.seq, messages.c.chat
        )
        .join(messages, users.c.number == _RECIPIENT)
        .join(chats, their_chat, isouter=True)
        .where(chats.c.number.is_(None), ~_TOMBSTONE),
        "position {seq} in the mailbox of user {user_id} is from a purged user and still has content": select(
            users.c.user_id, messages.c.seq
        )
        .join(messages, messages.c.mailbox == users.c.number)
        .where(_TOMBSTONE, or_(messages.c.content != "", messages.c.message_id != "")),
        "position {seq} in the mailbox of user {user_id} is from a purged user and is not acknowledged": select(
            users.c.user_id, messages.c.seq
        )
        .join(messages, messages.c.mailbox == users.c.number)
        .where(_TOMBSTONE, ~is_acknowledged),
    }


def _problems_of_times() -> dict[str, Select[Any]]:
    """List what is wrong with what retention goes by."""
    newest = select(func.coalesce(func.max(messages.c.number), 0)).scalar_subquery()
    return {
        "the table of the commit log has {rows} rows, and must have one row": select(
            func.count().label("rows")
        )
        .select_from(commit_log)
        .having(func.count() != 1),
        "ages are known up to message {number}, but the last message is {newest}: retention would delete later messages too early": select(
            func.max(marks.c.number).label("number"), newest.label("newest")
        ).having(func.max(marks.c.number) > newest),
        "the table of the retention clock has {rows} rows, and must have one row": select(
            func.count().label("rows")
        )
        .select_from(clock)
        .having(func.count() != 1),
    }


_PROBLEMS: Final = _problems_of_positions() | _problems_of_owners() | _problems_of_times()
