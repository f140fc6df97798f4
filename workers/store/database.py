"""One shard's database file: opening it, bringing it up to date, and the one connection to it; and how tools open one.

Everything that SQLite must be told about files, synching and transactions is here. The connection is in autocommit mode: a statement by
itself is a transaction, which needs one call into SQLite from BEGIN to fsync; `Database.transaction` puts several into one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import Connection, CursorResult, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.process.environment import ConfigurationError
from workers.store.data_directory import Mode, file_uri
from workers.store.migrations import REVISION
from workers.store.new_file import create

if TYPE_CHECKING:
    from alembic.config import Config

Durability = Literal["fsync", "os"]

#: What reading a damaged file may raise: SQLite's word for it, or that a text is none.
Unreadable: Final = (SQLAlchemyError, UnicodeDecodeError)
#: Seconds that a statement waits for somebody else's lock, such as that of an operator's tool.
_LOCK_PATIENCE: Final = 1.0
#: Seconds that a tool's statement waits for another process that has the file to itself for a moment.
_BUSY_PATIENCE: Final = 10.0
#: Memory for pages, in KiB.
_CACHE_KIB: Final = 16 * 1024
#: What a log that grew while it could not be moved into the file is cut to, in bytes; see ``workers.store.write_ahead_log``.
LOG_BYTES: Final = 64 * 1024 * 1024
_SYNCHRONOUS: Final[dict[str, str]] = {"fsync": "FULL", "os": "NORMAL"}


class Database:
    """An open file. One thread at a time may use it. Every method raises SQLAlchemyError when SQLite reports a failure."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.path = path
        self._durability = durability
        self._engine = _engine(path, create=False)
        self._connection = self._connect()
        #: Whether the log may have what the disk has not, see `settle`.
        self._in_doubt = False

    def execute(self, sql: str, *parameters: Any) -> CursorResult[Any]:
        """One statement, with ``?`` for each parameter; outside of `transaction` it is committed when this returns."""
        return self._connection.exec_driver_sql(sql, parameters)

    def value(self, sql: str, *parameters: Any) -> Any:
        """The first column of the first row; None if there is none."""
        return self.execute(sql, *parameters).scalar()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything executed within is committed at the end, or nothing of it when an exception leaves."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """End a transaction, if there is one. SQLite has ended it by itself after some failures, such as a full disk."""
        if self.driver_connection.in_transaction:
            self.execute("ROLLBACK")

    def settle(self) -> None:
        """After `reconnect`, and before anything is written: move what the log seems to have into the file, and wait until it is there.

        What was written when a sync failed may be in the system's memory only, and is read from there as if it were on the disk.
        """
        if self._in_doubt:
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            self._in_doubt = False

    def checkpoint(self) -> None:
        """Move what has been committed from the log into the file."""
        self.execute("PRAGMA wal_checkpoint(PASSIVE)").close()

    @property
    def driver_connection(self) -> sqlite3.Connection:
        """The connection as the driver has it."""
        connection = self._connection.connection.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        return connection

    def reconnect(self) -> None:
        """Close the file and open it again, after failures that may be the connection's."""
        self._in_doubt = True
        self.close()
        self._connection = self._connect()

    def close(self) -> None:
        """Close the file; the log is moved into it first, if that can be done."""
        self._connection.close()

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        try:
            for pragma in (
                f"synchronous = {_SYNCHRONOUS[self._durability]}",
                f"cache_size = -{_CACHE_KIB}",
                "foreign_keys = ON",
                # `Database.checkpoint` is called between two commits instead of in one, which somebody waits for.
                "wal_autocheckpoint = 0",
                f"journal_size_limit = {LOG_BYTES}",
            ):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection


def open_database(path: Path, durability: Durability) -> Database:
    """The database in a file, which is created or upgraded when that is necessary. Raises ConfigurationError."""
    upgrade(path)
    try:
        return Database(path, durability)
    except SQLAlchemyError as error:
        raise ConfigurationError(f"the database {path} can't be opened: {reason(error)}") from error


def upgrade(path: Path) -> None:
    """Create the tables, or bring them up to date, in one transaction: a file is as it was before until all is done.

    Costs one look at a file that is up to date. Raises ConfigurationError for a file that can't be used, that has tables of somebody
    else, or that a newer FastChat has written.
    """
    engine = _engine(path, create=True)
    try:
        with engine.connect() as connection:
            revision = _revision(connection)
            if revision is None:
                create(path)
            elif revision != REVISION:
                _check_known(revision, path)
                migrate(connection)
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise ConfigurationError(f"the database {path} can't be used: {reason(error)}") from error
    finally:
        engine.dispose()


@contextmanager
def connected(path: Path, mode: Mode) -> Iterator[Connection]:
    """A tool's connection to a file that exists, where each statement is a transaction until BEGIN is said. Raises SQLAlchemyError."""
    uri = file_uri(path, mode)

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_PATIENCE, check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


def reason(error: Exception) -> str:
    """What the driver says is wrong, without SQLAlchemy's additions (the statement, and what was sent: users' messages)."""
    if isinstance(error, DBAPIError):
        return str(error.orig)
    return str(error)


def _engine(path: Path, *, create: bool) -> Engine:
    uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_LOCK_PATIENCE, check_same_thread=False)

    return create_engine("sqlite://", creator=connect, poolclass=NullPool, isolation_level="AUTOCOMMIT")


def _revision(connection: Connection) -> str | None:
    """The revision of the file's tables; None for a file without any."""
    if not connection.exec_driver_sql(
        "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
    ).scalar():
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def _check_known(revision: str, path: Path) -> None:
    # Only here, since most starts have nothing to do and Alembic takes longer to import than all the rest.
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        ScriptDirectory.from_config(_migrations()).get_revision(revision)
    except CommandError:
        raise ConfigurationError(
            f"the database {path} has been written by a newer FastChat: its tables are of revision {revision}, "
            f"and this one knows them up to {REVISION}; start the newer one, or use another data directory"
        ) from None


def migrate(connection: Connection, target: str = "head") -> None:
    """Run the migrations up to `target`, in one transaction. Raises SQLAlchemyError."""
    from alembic import command

    config = _migrations()
    config.attributes["connection"] = connection
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        command.upgrade(config, target)
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def _migrations() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
