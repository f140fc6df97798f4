"""What has changed in a file in use, as its worker says (``workers.store.tracking``), copied to a new file that has an older state of it.

Only keys are said. What is copied is what the rows are like when they are copied, so it does no harm if a row is said twice, or changes
again meanwhile: then it is said once more. At the end, when nothing changes any more, both files have the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Executable,
    Integer,
    MetaData,
    Select,
    Table,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from core.process.settings import ConfigurationError
from core.wire.codec import from_json, to_json
from workers.store.retention_clock import ClockState
from workers.store.row_copies import (
    Map,
    copy_acknowledged,
    copy_blocks,
    copy_chats,
    copy_hook_calls,
    copy_messages,
    copy_users,
    lives_here,
    number_chats,
    number_users,
    old_chats,
    old_messages,
    old_users,
    renumbered,
)
from workers.store.schema import NO_CHAT, acknowledged, blocks, chats, hook_calls, messages, users
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
    #: Numbers of users, of whose rows, acknowledged positions, blocks or calls of the hook some have changed, and of chats.
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


class CatchUp:
    """Copies what has changed in one file in use to one new file. The statements are made once: that takes longer than a small round."""

    def __init__(self, numbers: Map, clock: ClockState) -> None:
        """`clock` is what the copy of the file says from which the new file was filled."""
        expected, found = _counts(numbers)
        self._users_and_chats = _texts(
            [*_removed_users(numbers), *_removed_chats(numbers), *_users_and_chats(numbers, clock)]
        )
        self._gone, *self._rest = _texts(_messages_of(numbers))
        self._expected, self._found = _texts([expected, found])

    def copy(self, connection: Connection, changes: Changes) -> None:
        """Copy within a transaction what has changed in the attached file about users who go into the new one.

        Raises ConfigurationError and SQLAlchemyError.
        """
        for table, keys in ((_users, changes.users), (_chats, changes.chats), (_messages, changes.messages)):
            connection.execute(CreateTable(table, if_not_exists=True))
            connection.execute(delete(table))
            fields = "json_extract(value, '$[0]'), json_extract(value, '$[1]')"
            connection.exec_driver_sql(
                f"INSERT INTO temp.{table.name} SELECT {fields if table is _messages else 'value'}"  # noqa: S608
                " FROM json_each(CAST(? AS TEXT))",
                (to_json(keys),),
            )
        for text in self._users_and_chats:
            connection.exec_driver_sql(text)
        if connection.exec_driver_sql(self._gone).rowcount:
            connection.exec_driver_sql(TRIM_MARKS)
        for text in self._rest:
            connection.exec_driver_sql(text)
        before = connection.exec_driver_sql(self._expected).scalar()
        after = connection.exec_driver_sql(self._found).scalar()
        if before != after:
            raise ConfigurationError(
                f"messages that came meanwhile can't be copied completely: {before} before and {after} after the copy"
            )


def _texts(statements: Iterable[Executable]) -> list[str]:
    options = {"literal_binds": True}
    return [
        str(statement.compile(dialect=sqlite.dialect(), compile_kwargs=options))  # type: ignore[attr-defined]
        for statement in statements
    ]


def _removed_users(numbers: Map) -> Iterator[Executable]:
    """Remove those who are gone. Their chats are said too."""
    user = numbers.users
    gone = (user.c.old.in_(select(_users.c.number)), user.c.old.not_in(select(old_users.c.number)))
    yield delete(messages).where(messages.c.mailbox.in_(select(-user.c.new).where(*gone)))
    for column in (
        messages.c.mailbox,
        acknowledged.c.mailbox,
        blocks.c.user,
        hook_calls.c.user,
        users.c.number,
    ):
        yield delete(column.table).where(column.in_(select(user.c.new).where(*gone)))
    yield delete(user).where(*gone)


def _removed_chats(numbers: Map) -> Iterator[Executable]:
    """Remove those that are gone."""
    chat = numbers.chats
    gone = (chat.c.old.in_(select(_chats.c.number)), chat.c.old.not_in(select(old_chats.c.number)))
    # The messages, since else they would come to belong to the chat that gets the number next.
    for column in (messages.c.chat, chats.c.number):
        yield delete(column.table).where(column.in_(select(chat.c.new).where(*gone)))
    yield delete(chat).where(*gone)


def _users_and_chats(numbers: Map, clock: ClockState) -> Iterator[Executable]:
    """Copy those who are new or have changed."""
    user, chat = numbers.users, numbers.chats
    said = user.c.old.in_(select(_users.c.number))
    # Before rows are deleted, whose numbers would be given to others.
    yield number_users(
        numbers,
        old_users.c.number.in_(select(_users.c.number)),
        old_users.c.number.not_in(select(user.c.old)),
    )
    for column in (acknowledged.c.mailbox, blocks.c.user, hook_calls.c.user, users.c.number):
        yield delete(column.table).where(column.in_(select(user.c.new).where(said)))
    yield copy_users(numbers, clock, said)
    yield copy_acknowledged(numbers, said)
    yield copy_blocks(numbers, said)
    yield copy_hook_calls(numbers, said)

    said = chat.c.old.in_(select(_chats.c.number))
    yield number_chats(
        numbers,
        old_chats.c.number.in_(select(_chats.c.number)),
        old_chats.c.number.not_in(select(chat.c.old)),
    )
    yield delete(chats).where(chats.c.number.in_(select(chat.c.new).where(said)))
    yield copy_chats(numbers, said)


def _messages_of(numbers: Map) -> Iterator[Executable]:
    """Remove messages that are gone, which comes first, and append those that are new."""
    message, chat = messages, numbers.chats
    is_other = or_(
        old_messages.c.number.is_(None),
        old_messages.c.id_hash != message.c.id_hash,
        func.coalesce(chat.c.new, NO_CHAT) != message.c.chat,
    )
    # A position whose commit has failed may have been given again.
    yield delete(message).where(message.c.number.in_(_said(numbers, message.c.number, is_other)))
    is_new = (message.c.number.is_(None), old_messages.c.number.is_not(None))
    missing = _said(numbers, old_messages.c.number, *is_new)
    yield copy_messages(message, numbers, old_messages.c.number.in_(missing))


def _counts(numbers: Map) -> tuple[Executable, Executable]:
    """Count the messages that are said and belong into the new file, in the old one and in the new one."""
    said, old = _messages, old_messages
    expected = (
        select(func.count())
        .select_from(said)
        .join(old, (old.c.mailbox == said.c.mailbox) & (old.c.seq == said.c.seq))
        .join(old_users, old_users.c.number == func.abs(said.c.mailbox))
        .where(lives_here())
    )
    return expected, _said(numbers, func.count(), messages.c.number.is_not(None))


def _said(numbers: Map, column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> Select[Any]:
    """Select from the messages that are said, in the new file and in the old one, where they may be or not."""
    said, user, chat, message, old = _messages, numbers.users, numbers.chats, messages, old_messages
    return (
        select(column)
        .select_from(said)
        .join(user, user.c.old == func.abs(said.c.mailbox))
        .join(
            message,
            (message.c.mailbox == renumbered(said.c.mailbox, numbers)) & (message.c.seq == said.c.seq),
            isouter=True,
        )
        .join(old, (old.c.mailbox == said.c.mailbox) & (old.c.seq == said.c.seq), isouter=True)
        .join(chat, chat.c.old == old.c.chat, isouter=True)
        .where(*conditions)
    )
