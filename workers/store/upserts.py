"""Users and chats into their tables, for what writes them at once and for what folds them.

A commit of which the disk said that it failed may be in the file when that is opened again. If it had somebody new, who has been given
another number since, two rows are to have one name: the one of that commit goes, with what belongs to it, since nobody was told of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from workers.store import statements
from workers.store.database import Database


def save_users(database: Database, rows: bytes) -> None:
    """Write rows of users, a JSON array, within a transaction. Raises sqlite3.Error."""
    _save(database, statements.SAVE_USERS, rows, statements.DROP_OTHER_USERS)


def save_chats(database: Database, rows: bytes) -> None:
    """Write rows of chats, whose users are there, in the same way."""
    _save(database, statements.SAVE_CHATS, rows, statements.DROP_OTHER_CHATS)


def _save(database: Database, statement: str, rows: bytes, drop_others: Sequence[str]) -> None:
    try:
        database.execute(statement, rows)
    except sqlite3.IntegrityError:
        for drop in drop_others:
            database.execute(drop, rows)
        database.execute(statement, rows)
