"""How tools and the re-sharding open a file, with SQLAlchemy; a worker has ``workers.store.database``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from workers.store.data_directory import Mode, file_uri

#: What reading a damaged file may raise: SQLite's word for it, or that a text is none.
Unreadable: Final = (SQLAlchemyError, UnicodeDecodeError)
#: Seconds that a statement waits for another process that has the file to itself for a moment.
_BUSY_PATIENCE: Final = 10.0


@contextmanager
def connected(path: Path, mode: Mode) -> Iterator[Connection]:
    """Open a connection to a file that exists, where each statement is a transaction until BEGIN is said. Raises SQLAlchemyError."""
    uri = file_uri(path, mode)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_PATIENCE, check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


def reason(error: Exception) -> str:
    """Return what the driver says is wrong, without SQLAlchemy's additions (the statement, and what was sent: users' messages)."""
    if isinstance(error, DBAPIError):
        return str(error.orig)
    return str(error)
