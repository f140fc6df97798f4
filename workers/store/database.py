"""One shard's database file: opening it, bringing it up to date, and the one connection to it.

Everything that SQLite must be told about files, synching and transactions is here. The connection is in autocommit mode: a statement by
itself is a transaction, which needs one call into SQLite from BEGIN to fsync; `Database.transaction` puts several into one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

from core.process.settings import ConfigurationError
from workers.store.data_directory import Mode, file_uri
from workers.store.migrations import REVISION, load, migrate
from workers.store.new_file import create

Durability = Literal["fsync", "os"]

#: Seconds that a statement waits for somebody else's lock, such as that of an operator's tool.
_LOCK_PATIENCE: Final = 1.0
#: Memory for pages, in KiB.
_CACHE_KIB: Final = 16 * 1024
#: What a log that grew while it could not be moved into the file is cut to, in bytes; see ``workers.store.write_ahead_log``.
LOG_BYTES: Final = 64 * 1024 * 1024
#: What an operator can do about a file that SQLite does not open.
_REMEDY: Final = "check the disk and the file permissions, or restore the data directory from a backup"
_SYNCHRONOUS: Final[dict[str, str]] = {"fsync": "FULL", "os": "NORMAL"}


class Database:
    """An open file. One thread at a time may use it. Every method raises sqlite3.Error when SQLite reports a failure."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.path = path
        self._durability = durability
        self._connection = self._connect()
        #: Whether the log may have what the disk has not, see `settle`; and whether that is because a sync has failed.
        self._in_doubt = False
        self._sync_failed = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        """Execute one statement, with ``?`` for each parameter; outside of `transaction` it is committed when this returns."""
        return self._connection.execute(sql, parameters)

    def value(self, sql: str, *parameters: Any) -> Any:
        """Return the first column of the first row; None if there is none."""
        with closing(self.execute(sql, *parameters)) as cursor:
            row = cursor.fetchone()
        return None if row is None else row[0]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything executed within at the end, or nothing of it when an exception leaves."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        try:
            self.execute("COMMIT")
        except BaseException:
            # It may have been the first sync of what folds have written, and the system reports a failure once only.
            self.doubt()
            self.rollback()
            raise

    def begin_unsynced(self) -> None:
        """Begin a transaction whose commit does not wait for the disk, since what it writes is in the commit log. `commit` ends it."""
        self._synchronise("NORMAL")
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit what `begin_unsynced` has begun. When this or anything before it raises, `abandon` must follow."""
        self.execute("COMMIT")
        self._synchronise(_SYNCHRONOUS[self._durability])

    def abandon(self) -> None:
        """End what `begin_unsynced` has begun, and leave nothing of it."""
        self.rollback()
        self._synchronise(_SYNCHRONOUS[self._durability])

    def _synchronise(self, level: str) -> None:
        self.execute(f"PRAGMA synchronous = {level}").close()

    def rollback(self) -> None:
        """End a transaction, if there is one. SQLite has ended it by itself after some failures, such as a full disk."""
        if self._connection.in_transaction:
            self.execute("ROLLBACK")

    def doubt(self) -> None:
        """Note that what was written may not be on the disk, although SQLite reads it: `settle` comes before the next write."""
        self._in_doubt = self._sync_failed = True

    def settle(self) -> None:
        """Move what the log seems to have into the file, and wait until it is there; after a failure, before anything is written.

        What was written when a sync failed may be in the system's memory only, and is read from there as if it were on the disk.
        """
        if not self._in_doubt:
            return
        with closing(self.execute("PRAGMA wal_checkpoint(TRUNCATE)")) as cursor:
            _, frames, moved = cursor.fetchone()
        if self._sync_failed and moved < frames:
            raise sqlite3.OperationalError(
                "a reader of the file keeps it from being synced again after a failure"
            )
        self._in_doubt = self._sync_failed = False

    def checkpoint(self) -> None:
        """Move what has been committed from the log into the file."""
        try:
            self.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        except sqlite3.Error:
            self.doubt()
            raise

    def reconnect(self) -> None:
        """Close the file and open it again, after failures that may be the connection's."""
        self._in_doubt = True
        self.close()
        self._connection = self._connect()

    def close(self) -> None:
        """Close the file; the log is moved into it first, if that can be done."""
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = _connect(self.path, "rw")
        try:
            for pragma in (
                f"synchronous = {_SYNCHRONOUS[self._durability]}",
                f"cache_size = -{_CACHE_KIB}",
                "foreign_keys = ON",
                # `Database.checkpoint` is called between two commits instead of in one, which somebody waits for.
                "wal_autocheckpoint = 0",
                f"journal_size_limit = {LOG_BYTES}",
            ):
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()
            raise
        return connection


def open_database(path: Path, durability: Durability) -> Database:
    """Open the database in a file, which is created or upgraded when that is necessary. Raises ConfigurationError."""
    upgrade(path)
    try:
        return Database(path, durability)
    except sqlite3.Error as error:
        raise ConfigurationError(f"the database {path} can't be opened: {error}; {_REMEDY}") from error


def prepare_upgrade(path: Path) -> None:
    """Load what `upgrade` needs for a file that is not up to date. What is wrong with the file, `upgrade` says."""
    with suppress(sqlite3.Error), closing(_connect(path, "ro")) as connection:
        if _revision(connection) not in (None, REVISION):
            load()


def upgrade(path: Path) -> None:
    """Create the tables, or bring them up to date, in one transaction: a file is as it was before until all is done.

    Costs one look at a file that is up to date. Raises ConfigurationError for a file that can't be used, that has tables of somebody
    else, or that a newer FastChat has written.
    """
    try:
        with closing(_connect(path, "rwc")) as connection:
            revision = _revision(connection)
        if revision is None:
            create(path)
        elif revision != REVISION:
            migrate(path, revision)
    except sqlite3.Error as error:
        raise ConfigurationError(f"the database {path} can't be used: {error}; {_REMEDY}") from error


def _connect(path: Path, mode: Mode) -> sqlite3.Connection:
    return sqlite3.connect(
        file_uri(path, mode),
        uri=True,
        timeout=_LOCK_PATIENCE,
        check_same_thread=False,
        isolation_level=None,
    )


def _revision(connection: sqlite3.Connection) -> str | None:
    """Return the revision of the file's tables; None for a file without any."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall():
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])
