"""Users, chats, blocks and calls of the hook into their tables, for what writes them at once and for what folds them.

A commit of which the disk said that it failed may be in the file when that is opened again. If it had somebody new, who has been given
another number since, two rows are to have one name: the one of that commit goes, with what belongs to it, since nobody was told of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.rows import Row

#: Fields of a row that says that there is nothing (any more): user and peer.
_NOTHING: Final = 2


def save_users(database: Database, rows: bytes) -> None:
    """Write rows of users, a JSON array, within a transaction. Raises sqlite3.Error."""
    _save(database, statements.SAVE_USERS, rows, statements.DROP_OTHER_USERS)


def save_chats(database: Database, rows: bytes, *, is_old: bool = False) -> None:
    """Write rows of chats, whose users are there, in the same way. Rows that are old leave alone what they don't say."""
    statement = statements.SAVE_OLD_CHATS if is_old else statements.SAVE_CHATS
    _save(database, statement, rows, statements.DROP_OTHER_CHATS)


def save_blocks(database: Database, rows: Sequence[Row]) -> None:
    """Write rows of ``rows.block_row``, of which no two are about the same two users, in the same way; or delete those blocks."""
    _save_pairs(database, rows, statements.SAVE_BLOCKS, statements.DROP_BLOCKS)


def save_hook_calls(database: Database, rows: Sequence[Row]) -> None:
    """Write rows of ``rows.hook_call_row``, or delete what they name, in the same way."""
    _save_pairs(database, rows, statements.SAVE_HOOK_CALLS, statements.DROP_HOOK_CALLS)


def _save_pairs(database: Database, rows: Sequence[Row], save: str, drop: str) -> None:
    gone = [row for row in rows if len(row) == _NOTHING]
    if gone:
        database.execute(drop, codec.to_json(gone))
    if len(gone) < len(rows):
        there = [row for row in rows if len(row) > _NOTHING]
        database.execute(save, codec.to_json(there))


def _save(database: Database, statement: str, rows: bytes, drop_others: Sequence[str]) -> None:
    try:
        database.execute(statement, rows)
    except sqlite3.IntegrityError:
        for drop in drop_others:
            database.execute(drop, rows)
        database.execute(statement, rows)
