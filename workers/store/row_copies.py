"""Copying rows of an old file, which is attached to a new one as ``old``, under the numbers that they get in the new file.

First users and chats get numbers, which a `Map` keeps; then their rows, and those of messages, are copied.
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
from workers.store.schema import NO_CHAT, acknowledged, chats, messages, users

_OLD: Final = MetaData(schema="old")
old_users, old_chats, old_messages, old_acknowledged = (
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


def number_users(connection: Connection, numbers: Map, *conditions: ColumnElement[bool]) -> None:
    """Give new numbers to users who go into the new file."""
    new = greatest(connection, users) + func.row_number().over(order_by=old_users.c.number)
    theirs = select(old_users.c.number, new).where(lives_here(), *conditions)
    connection.execute(insert(numbers.users).from_select(["old", "new"], theirs))


def lives_here() -> ColumnElement[bool]:
    """Return whether a user of the attached file goes into the new file."""
    return old_users.c.slot.in_(select(slots.c.slot))


def number_chats(connection: Connection, numbers: Map, *conditions: ColumnElement[bool]) -> None:
    """Give new numbers to chats of users who have them."""
    user = numbers.users
    new = greatest(connection, chats) + func.row_number().over(order_by=old_chats.c.number)
    theirs = select(old_chats.c.number, new).join(user, user.c.old == old_chats.c.user).where(*conditions)
    connection.execute(insert(numbers.chats).from_select(["old", "new"], theirs))


def copy_users(
    connection: Connection, numbers: Map, clock: ClockState, *conditions: ColumnElement[bool]
) -> None:
    """Copy users who have new numbers, with their acknowledged positions."""
    user = numbers.users
    _copy(
        connection,
        users,
        {"number": user.c.new, "left_at": old_users.c.left_at - clock.passed},
        user.join(old_users, old_users.c.number == user.c.old),
        user.c.new,
        *conditions,
    )
    _copy(
        connection,
        acknowledged,
        {"mailbox": user.c.new},
        old_acknowledged.join(user, user.c.old == old_acknowledged.c.mailbox),
        user.c.new,
        *conditions,
    )


def copy_chats(connection: Connection, numbers: Map, *conditions: ColumnElement[bool]) -> None:
    """Copy chats that have new numbers."""
    user, chat = numbers.users, numbers.chats
    _copy(
        connection,
        chats,
        {"number": chat.c.new, "user": user.c.new},
        chat.join(old_chats, old_chats.c.number == chat.c.old).join(user, user.c.old == old_chats.c.user),
        chat.c.new,
        *conditions,
    )


def copy_messages(
    connection: Connection,
    table: Table,
    numbers: Map,
    condition: ColumnElement[bool],
    added: Mapping[str, ColumnElement[Any]] | None = None,
) -> int:
    """Copy messages whose recipients have been copied into `table`, behind all that are there, with `added` columns; how many."""
    message, user, chat = old_messages, numbers.users, numbers.chats
    changed: dict[str, ColumnElement[Any] | None] = {
        # Without their own numbers: they get the next ones.
        "number": None,
        "mailbox": user.c.new,
        "chat": func.coalesce(chat.c.new, NO_CHAT),
        **(added or {}),
    }
    return _copy(
        connection,
        table,
        changed,
        message.join(user, user.c.old == message.c.mailbox).join(
            chat, chat.c.old == message.c.chat, isouter=True
        ),
        message.c.number,
        # One that refers to a chat that is not there stays behind, and the counts tell.
        condition,
        or_(chat.c.new.is_not(None), message.c.chat == NO_CHAT),
    )


def _copy(
    connection: Connection,
    table: Table,
    changed: Mapping[str, ColumnElement[Any] | None],
    source: FromClause,
    order: ColumnElement[int],
    *conditions: ColumnElement[bool],
) -> int:
    """Copy rows of the namesake of `table`, or messages into a temporary one, but for columns that are `changed`, or left out; how many."""
    old = _OLD.tables[f"old.{table.name if table.schema is None else messages.name}"].c
    columns = {
        column.name: changed[column.name] if column.name in changed else old[column.name]
        for column in table.columns
    }
    kept = {name: column for name, column in columns.items() if column is not None}
    rows = select(*kept.values()).select_from(source).where(*conditions).order_by(order)
    return connection.execute(insert(table).from_select(list(kept), rows)).rowcount


def greatest(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.max(table.c.number))) or 0


@contextmanager
def attached(connection: Connection, path: Path, mode: Mode) -> Iterator[None]:
    """Attach an old file under the name ``old``."""
    connection.exec_driver_sql("ATTACH DATABASE ? AS old", (file_uri(path, mode),))
    yield
    connection.exec_driver_sql("DETACH DATABASE old")
