"""Copying rows of an old file, which is attached to a new one as ``old``, under the numbers that they get in the new file.

First users and chats get numbers, which a `Map` keeps; then their rows, and those of messages, are copied. The functions return the
statements for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Integer,
    MetaData,
    Table,
    func,
    insert,
    or_,
    select,
)

from workers.store.data_directory import Mode, file_uri
from workers.store.old_files import TABLES
from workers.store.retention_clock import ClockState
from workers.store.schema import NO_CHAT, acknowledged, blocks, chats, hook_calls, messages, users

_OLD: Final = MetaData(schema="old")
old_users, old_chats, old_messages, old_acknowledged, old_blocks, old_hook_calls = (
    table.to_metadata(_OLD, schema="old") for table in TABLES
)

#: The slots whose users go into the new file. A table, since to hand over hundreds of numbers takes longer than most statements.
slots: Final = Table(
    "slots", MetaData(schema="temp"), Column("slot", Integer, primary_key=True, autoincrement=False)
)


class Map:
    """Old number -> new number of users and chats of one old file in one new file: temporary tables of the new one."""

    def __init__(self, index: int) -> None:
        temporary = MetaData(schema="temp")
        self.users, self.chats = (
            Table(
                f"{kind}_of_{index}",
                temporary,
                Column("old", Integer, primary_key=True, autoincrement=False),
                Column("new", Integer, nullable=False),
            )
            for kind in ("users", "chats")
        )


def number_users(numbers: Map, *conditions: ColumnElement[bool]) -> Insert:
    """Give new numbers to users who go into the new file."""
    new = _greatest(users) + func.row_number().over(order_by=old_users.c.number)
    theirs = select(old_users.c.number, new).where(lives_here(), *conditions)
    return insert(numbers.users).from_select(["old", "new"], theirs)


def lives_here() -> ColumnElement[bool]:
    """Return whether a user of the attached file goes into the new file."""
    return old_users.c.slot.in_(select(slots.c.slot))


def number_chats(numbers: Map, *conditions: ColumnElement[bool]) -> Insert:
    """Give new numbers to chats of users who have them."""
    user = numbers.users
    new = _greatest(chats) + func.row_number().over(order_by=old_chats.c.number)
    theirs = select(old_chats.c.number, new).join(user, user.c.old == old_chats.c.user).where(*conditions)
    return insert(numbers.chats).from_select(["old", "new"], theirs)


def copy_users(numbers: Map, clock: ClockState, *conditions: ColumnElement[bool]) -> Insert:
    """Copy users who have new numbers."""
    user = numbers.users
    return _copy(
        users,
        {"number": user.c.new, "left_at": old_users.c.left_at - clock.passed},
        user.join(old_users, old_users.c.number == user.c.old),
        user.c.new,
        *conditions,
    )


def copy_acknowledged(numbers: Map, *conditions: ColumnElement[bool]) -> Insert:
    """Copy the acknowledged positions of users who have new numbers."""
    user = numbers.users
    return _copy(
        acknowledged,
        {"mailbox": user.c.new},
        old_acknowledged.join(user, user.c.old == old_acknowledged.c.mailbox),
        user.c.new,
        *conditions,
    )


def copy_blocks(numbers: Map, *conditions: ColumnElement[bool]) -> Insert:
    """Copy what stands between users who have new numbers and others."""
    user = numbers.users
    return _copy(
        blocks,
        {"user": user.c.new},
        old_blocks.join(user, user.c.old == old_blocks.c.user),
        user.c.new,
        *conditions,
    )


def copy_hook_calls(numbers: Map, *conditions: ColumnElement[bool]) -> Insert:
    """Copy what the hook is told of users who have new numbers."""
    user = numbers.users
    return _copy(
        hook_calls,
        {"user": user.c.new},
        old_hook_calls.join(user, user.c.old == old_hook_calls.c.user),
        user.c.new,
        *conditions,
    )


def copy_chats(numbers: Map, *conditions: ColumnElement[bool]) -> Insert:
    """Copy chats that have new numbers."""
    user, chat = numbers.users, numbers.chats
    return _copy(
        chats,
        {"number": chat.c.new, "user": user.c.new},
        chat.join(old_chats, old_chats.c.number == chat.c.old).join(user, user.c.old == old_chats.c.user),
        chat.c.new,
        *conditions,
    )


def copy_messages(
    table: Table,
    numbers: Map,
    condition: ColumnElement[bool],
    added: Mapping[str, ColumnElement[Any]] | None = None,
) -> Insert:
    """Copy messages whose recipients have been copied into `table`, behind all that are there, with `added` columns."""
    message, user, chat = old_messages, numbers.users, numbers.chats
    changed: dict[str, ColumnElement[Any] | None] = {
        # Without their own numbers: they get the next ones.
        "number": None,
        "mailbox": renumbered(message.c.mailbox, numbers),
        "chat": func.coalesce(chat.c.new, NO_CHAT),
        **(added or {}),
    }
    return _copy(
        table,
        changed,
        message.join(user, user.c.old == func.abs(message.c.mailbox)).join(
            chat, chat.c.old == message.c.chat, isouter=True
        ),
        message.c.number,
        # One that refers to a chat that is not there stays behind, and the counts tell.
        condition,
        or_(chat.c.new.is_not(None), message.c.chat == NO_CHAT),
    )


def renumbered(mailbox: ColumnElement[int], numbers: Map) -> ColumnElement[int]:
    """Return the new number of a mailbox, whose user has been joined; that of what is withheld is below 0 again."""
    return func.iif(mailbox < 0, -numbers.users.c.new, numbers.users.c.new)


def _copy(
    table: Table,
    changed: Mapping[str, ColumnElement[Any] | None],
    source: FromClause,
    order: ColumnElement[int],
    *conditions: ColumnElement[bool],
) -> Insert:
    """Copy rows of the namesake of `table`, or messages into a temporary one, but for columns that are `changed`, or left out."""
    old = _OLD.tables[f"old.{table.name if table.schema is None else messages.name}"].c
    columns = {
        column.name: changed[column.name] if column.name in changed else old[column.name]
        for column in table.columns
    }
    kept = {name: column for name, column in columns.items() if column is not None}
    rows = select(*kept.values()).select_from(source).where(*conditions).order_by(order)
    return insert(table).from_select(list(kept), rows)


def _greatest(table: Table) -> ColumnElement[int]:
    return func.coalesce(select(func.max(table.c.number)).scalar_subquery(), 0)


@contextmanager
def attached(connection: Connection, path: Path, mode: Mode) -> Iterator[None]:
    """Attach an old file under the name ``old``."""
    connection.exec_driver_sql("ATTACH DATABASE ? AS old", (file_uri(path, mode),))
    yield
    connection.exec_driver_sql("DETACH DATABASE old")
