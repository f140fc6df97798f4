"""Folding: what records of the commit log say is written to the tables. ``workers.store.commit_log`` has the transaction and says when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.log_record import Changes, Record
from workers.store.old_records import fold_old
from workers.store.rows import Row
from workers.store.upserts import save_blocks, save_chats, save_hook_calls, save_users

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
    # What is withheld from a user stays in the same order, by which the newest message of a chat is known.
    rows.sort(key=_recipient)
    if changes:
        _write_users_and_chats(database, changes)
    if rows:
        _append(database, rows)
    if changes:
        _write_acknowledged(database, changes)
        _write_blocks_and_sums(database, changes)
        fold_old(database, changes)


def _recipient(row: Row) -> int:
    """Return whose a message is, withheld or not."""
    mailbox: int = row[0]
    return abs(mailbox)


def _append(database: Database, rows: list[Row]) -> None:
    try:
        _insert(database, rows)
    except sqlite3.IntegrityError:
        # A commit of SQLite's of which the disk said that it failed may have come back. Its rows have positions that were given again;
        # and those of `rows` that have been written go with them.
        heads: dict[int, int] = {}
        for mailbox, seq, *_ in rows:
            if mailbox > 0:
                heads[mailbox] = min(heads.get(mailbox, seq), seq - 1)
        database.execute(statements.DROP_BEYOND, codec.to_json(list(heads.items())))
        # What was withheld has no positions that are given again.
        for statement in (statements.DROP_AT, statements.DROP_PLACES):
            database.execute(statement, codec.to_json(rows))
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
    for is_old in (True, False):
        chats = {
            chat[0]: chat for change in changes if (change.blocks is None) is is_old for chat in change.chats
        }
        if chats:
            save_chats(database, codec.to_json(list(chats.values())), is_old=is_old)


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


def _write_blocks_and_sums(database: Database, changes: Sequence[Changes]) -> None:
    """Write the last that is said of each pair of users, and of each user."""
    blocks = _last(row for change in changes for row in change.blocks or ())
    if blocks:
        save_blocks(database, blocks)
    hook_calls = _last(row for change in changes for row in change.hook_calls or ())
    if hook_calls:
        save_hook_calls(database, hook_calls)
    summed = {user: through for change in changes for user, through in change.summed or ()}
    if summed:
        database.execute(statements.SAVE_SUMMED, codec.to_json(list(summed.items())))


def _last(rows: Iterable[Row]) -> list[Row]:
    """Return the last row of each [user, peer, ...]."""
    return list({(row[0], row[1]): row for row in rows}.values())
