"""Folding: what records of the commit log say is written to the tables. ``workers.store.commit_log`` has the transaction and says when."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.log_record import Changes, Record
from workers.store.rows import Row
from workers.store.upserts import save_chats, save_users

#: Of a row of a message.
_MAILBOX: Final = itemgetter(0)
#: Rows that one statement inserts: during each statement the event loop can run, and between them it may have to wait.
_MANY: Final = 256
_INSERT, _VALUES, _ROW = statements.APPEND_ROW.partition(" VALUES ")
_APPEND_MANY: Final = _INSERT + _VALUES + ", ".join([_ROW] * _MANY)


def fold(database: Database, records: Sequence[Record]) -> None:
    """Write what records say, which follow those that were written before, within a transaction. Raises sqlite3.Error."""
    changes = [Changes(*codec.from_json(record.changes)) for record in records if record.changes]
    rows: list[Row] = codec.from_json(
        b"[%b]" % b",".join(record.messages for record in records if record.count)
    )
    # A mailbox at a time, each in its order: neighbours in the indexes are written together, and lie together for who reads them.
    rows.sort(key=_MAILBOX)
    if changes:
        _write_users_and_chats(database, changes)
    if rows:
        _append(database, rows)
    if changes:
        _write_acknowledged(database, changes)
        reads = [read for change in changes for read in change.reads]
        if reads:
            database.execute(statements.SAVE_READ, codec.to_json(reads))


def _append(database: Database, rows: list[Row]) -> None:
    try:
        _insert(database, rows)
    except sqlite3.IntegrityError:
        # A commit of SQLite's of which the disk said that it failed may have come back. Its rows have positions that were given again;
        # and those of `rows` that have been written go with them.
        heads: dict[int, int] = {}
        for mailbox, seq, *_ in rows:
            heads[mailbox] = min(heads.get(mailbox, seq), seq - 1)
        database.execute(statements.DROP_BEYOND, codec.to_json(list(heads.items())))
        database.execute(statements.TRIM_MARKS)
        _insert(database, rows)


def _insert(database: Database, rows: list[Row]) -> None:
    many = len(rows) - len(rows) % _MANY
    for start in range(0, many, _MANY):
        database.execute(_APPEND_MANY, *chain.from_iterable(rows[start : start + _MANY]))
    if many < len(rows):
        database.execute(statements.APPEND, codec.to_json(rows[many:]))


def _write_users_and_chats(database: Database, changes: Sequence[Changes]) -> None:
    """Write the last that is said of each user and chat. A user is there before the chats, and before anything is acknowledged."""
    users = [user for change in changes for user in change.users]
    if users:
        save_users(database, codec.to_json(users))
    chats: dict[int, Any] = {}
    confirmed: dict[int, None] = {}
    for change in changes:
        for chat in change.chats:
            chats[chat[0]] = chat
            confirmed.pop(chat[0], None)
        confirmed.update(dict.fromkeys(change.confirmed))
    if chats:
        save_chats(database, codec.to_json(list(chats.values())))
    if confirmed:
        database.execute(statements.CONFIRM_CHATS, codec.to_json(list(confirmed)))


def _write_acknowledged(database: Database, changes: Sequence[Changes]) -> None:
    through: dict[int, int] = {}
    for change in changes:
        for mailbox, seq in change.through:
            through[mailbox] = max(seq, through.get(mailbox, 0))
    ahead = [position for change in changes for position in change.ahead]
    if ahead:
        database.execute(statements.SAVE_AHEAD, codec.to_json(ahead))
    if through:
        rows = codec.to_json(list(through.items()))
        database.execute(statements.SAVE_ACKNOWLEDGED, rows)
        database.execute(statements.FORGET_ACKNOWLEDGED, rows)
