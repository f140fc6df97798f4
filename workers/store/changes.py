"""What has changed in a file in use, as its worker says (``workers.store.tracking``), copied to a new file that has an older state of it.

Only keys are said. What is copied is what the rows are like when they are copied, so it does no harm if a row is said twice, or changes
again meanwhile: then it is said once more. At the end, when nothing changes any more, both files have the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Select,
    Table,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.schema import CreateTable

from core.process.settings import ConfigurationError
from core.wire.codec import from_json, to_json
from workers.store.retention_clock import ClockState
from workers.store.row_copies import (
    Map,
    copy_chats,
    copy_messages,
    copy_users,
    lives_here,
    number_chats,
    number_users,
    old_chats,
    old_messages,
    old_users,
)
from workers.store.schema import NO_CHAT, acknowledged, chats, messages, users
from workers.store.statements import TRIM_MARKS

_temporary: Final = MetaData(schema="temp")
#: The same as `Changes`, while it is copied. Without keys, so that SQLite begins with these rows, which are few.
_users: Final = Table("noted_users", _temporary, Column("number", Integer))
_chats: Final = Table("noted_chats", _temporary, Column("number", Integer))
_messages: Final = Table("noted_messages", _temporary, Column("mailbox", Integer), Column("seq", Integer))


@dataclass
class Changes:
    """Keys of rows of one file that were inserted, changed or deleted."""

    #: The name of the file, without its directory.
    file: str
    #: Numbers of users, of whose rows or acknowledged positions some have changed, and of chats.
    users: list[int]
    chats: list[int]
    #: [mailbox, seq].
    messages: list[list[int]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``workers.store.tracking.Look`` has written. Raises OSError, and ValueError."""
        return cls(**from_json(path.read_bytes()))

    def __len__(self) -> int:
        return len(self.users) + len(self.chats) + len(self.messages)


def copy_changes(connection: Connection, numbers: Map, clock: ClockState, changes: Changes) -> None:
    """Copy within a transaction what has changed in the attached file about users who go into the new one.

    `clock` is what the copy of the file said from which the new file was filled. Raises ConfigurationError and SQLAlchemyError.
    """
    for table, keys in ((_users, changes.users), (_chats, changes.chats), (_messages, changes.messages)):
        connection.execute(CreateTable(table, if_not_exists=True))
        connection.execute(delete(table))
        values = (
            "value" if table is not _messages else "json_extract(value, '$[0]'), json_extract(value, '$[1]')"
        )
        connection.exec_driver_sql(
            f"INSERT INTO temp.{table.name} SELECT {values} FROM json_each(CAST(? AS TEXT))",  # noqa: S608
            (to_json(keys),),
        )
    _remove_users(connection, numbers)
    _remove_chats(connection, numbers)
    _copy_users_and_chats(connection, numbers, clock)
    _copy_messages(connection, numbers)


def _remove_users(connection: Connection, numbers: Map) -> None:
    """Remove those who are gone. Their chats are said too."""
    user = numbers.users
    gone = (user.c.old.in_(select(_users.c.number)), user.c.old.not_in(select(old_users.c.number)))
    for column in (messages.c.mailbox, acknowledged.c.mailbox, users.c.number):
        connection.execute(delete(column.table).where(column.in_(select(user.c.new).where(*gone))))
    connection.execute(delete(user).where(*gone))


def _remove_chats(connection: Connection, numbers: Map) -> None:
    chat = numbers.chats
    gone = (chat.c.old.in_(select(_chats.c.number)), chat.c.old.not_in(select(old_chats.c.number)))
    # Else they would come to belong to the chat that gets the number next.
    for column in (messages.c.chat, chats.c.number):
        connection.execute(delete(column.table).where(column.in_(select(chat.c.new).where(*gone))))
    connection.execute(delete(chat).where(*gone))


def _copy_users_and_chats(connection: Connection, numbers: Map, clock: ClockState) -> None:
    user, chat = numbers.users, numbers.chats
    said = user.c.old.in_(select(_users.c.number))
    new = (old_users.c.number.in_(select(_users.c.number)), old_users.c.number.not_in(select(user.c.old)))
    # Before rows are deleted, whose numbers would be given to others.
    number_users(connection, numbers, *new)
    for column in (acknowledged.c.mailbox, users.c.number):
        connection.execute(delete(column.table).where(column.in_(select(user.c.new).where(said))))
    copy_users(connection, numbers, clock, said)

    said = chat.c.old.in_(select(_chats.c.number))
    new = (old_chats.c.number.in_(select(_chats.c.number)), old_chats.c.number.not_in(select(chat.c.old)))
    number_chats(connection, numbers, *new)
    connection.execute(delete(chats).where(chats.c.number.in_(select(chat.c.new).where(said))))
    copy_chats(connection, numbers, said)


def _copy_messages(connection: Connection, numbers: Map) -> None:
    """Remove messages that are gone, mark those that have been read, and append those that are new."""
    message, chat = messages, numbers.chats
    is_other = or_(
        old_messages.c.number.is_(None),
        old_messages.c.id_hash != message.c.id_hash,
        func.coalesce(chat.c.new, NO_CHAT) != message.c.chat,
    )
    # A position whose commit has failed may have been given again.
    gone = connection.execute(
        delete(message).where(message.c.number.in_(_said(numbers, message.c.number, is_other)))
    ).rowcount
    if gone:
        connection.exec_driver_sql(TRIM_MARKS)
    read = _said(numbers, message.c.number, old_messages.c.read, message.c.read.is_(False))
    connection.execute(update(message).where(message.c.number.in_(read)).values(read=True))
    missing = _said(
        numbers, old_messages.c.number, message.c.number.is_(None), old_messages.c.number.is_not(None)
    )
    copy_messages(connection, message, numbers, old_messages.c.number.in_(missing))
    expected = (
        select(func.count())
        .select_from(_messages)
        .join(
            old_messages,
            (old_messages.c.mailbox == _messages.c.mailbox) & (old_messages.c.seq == _messages.c.seq),
        )
        .join(old_users, old_users.c.number == _messages.c.mailbox)
        .where(lives_here())
    )
    found = _said(numbers, func.count(), message.c.number.is_not(None))
    if (before := connection.scalar(expected)) != (after := connection.scalar(found)):
        raise ConfigurationError(
            f"messages that came meanwhile can't be copied completely: {before} before and {after} after the copy"
        )


def _said(numbers: Map, column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Select[Any]:
    """Select from the messages that are said, in the new file and in the old one, where they may be or not."""
    said, user, chat, message, old = _messages, numbers.users, numbers.chats, messages, old_messages
    return (
        select(column)
        .select_from(said)
        .join(user, user.c.old == said.c.mailbox)
        .join(message, (message.c.mailbox == user.c.new) & (message.c.seq == said.c.seq), isouter=True)
        .join(old, (old.c.mailbox == said.c.mailbox) & (old.c.seq == said.c.seq), isouter=True)
        .join(chat, chat.c.old == old.c.chat, isouter=True)
        .where(*conditions)
    )
