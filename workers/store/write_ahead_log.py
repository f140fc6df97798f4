"""The write-ahead log beside a file: what is in it is moved into the file now and then, so that it can begin again from its start.

It can't begin again while anybody reads who began before, such as an operator's ``sqlite3`` that was left open: then it grows with each
write, and everything is read more slowly. Nothing can be done about that from here but to tell (``store_log_bytes``). When the
reader is gone a log of gigabytes is to be moved, which takes seconds: a thread of its own does that while messages go on being committed,
and the rest, which is small, is moved between two commits. The next write then cuts the log to `LOG_BYTES`.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

from workers.store.data_directory import file_uri
from workers.store.database import LOG_BYTES, Database
from workers.store.new_file import PAGE_SIZE


class WriteAheadLog:
    """The log of one file. All methods are called in the thread that has the database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        #: Its size, as of the last look.
        self.bytes = 0
        self._mover: threading.Thread | None = None
        #: Whether a mover has left so little that the rest may be moved between two commits.
        self._is_short = False

    def checkpoint(self, database: Database) -> None:
        """Move what has been committed into the file, or have it moved. Raises sqlite3.Error."""
        with suppress(OSError):
            self.bytes = self._log.stat().st_size
        if self._mover is not None and self._mover.is_alive():
            return
        if self.bytes <= LOG_BYTES or self._is_short:
            self._is_short = False
            database.checkpoint()
            return
        self._mover = threading.Thread(target=self._move, name="checkpoint", daemon=True)
        self._mover.start()

    def _move(self) -> None:
        # If it fails the log goes on growing, and the next one is tried; a full disk is noticed by the writes.
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(file_uri(self._path, "rw"), uri=True)) as connection,
        ):
            _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._is_short = (pages - moved) * PAGE_SIZE <= LOG_BYTES
