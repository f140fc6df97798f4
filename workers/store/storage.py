"""What a shard has on the disk: its SQLite file and the commit log in front of it, and what goes into which.

A commit goes into the log (``workers.store.commit_log``). Three kinds go into SQLite instead, after a fold of everything before them: one
with a message that may be there already (D10), since only SQLite knows all messages, one that forgets a user, and a step of the deletion of
one (D36). Whatever else reads or changes the tables says what must have been folded.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from core.process.settings import ConfigurationError
from core.wire import codec
from workers.store import statements
from workers.store.commit_log import CommitLog
from workers.store.database import Database, Durability, open_database
from workers.store.deletion import NOTED
from workers.store.log_record import Record
from workers.store.retention_clock import ClockState
from workers.store.writes import Batch, Numbers


def open_shard(path: Path, durability: Durability) -> tuple[Storage, Numbers, ClockState, list[str]]:
    """Open the files of a shard, and read what goes on from where it is. Raises ConfigurationError."""
    try:
        storage = Storage(path, durability)
        database = storage.database
        users, chats = database.value(statements.HIGHEST_USER), database.value(statements.HIGHEST_CHAT)
        state = ClockState(*codec.from_json(database.value(statements.LOAD_CLOCK)))
        deletions: list[str] = codec.from_json(database.value(NOTED))
    except (sqlite3.OperationalError, OSError) as error:
        raise ConfigurationError(
            f"the database {path} can't be used ({error}): check whether the disk has room and whether another program has locked"
            " the file, and start again; the commit log beside the file has messages, so keep both"
        ) from error
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"the database {path} is damaged ({error}): restore the data directory from a backup"
        ) from error
    return storage, Numbers(users or 0, chats or 0), state, deletions


class Storage:
    """The files of one shard. One thread at a time may use it. Every method raises sqlite3.Error or OSError for a failure."""

    def __init__(self, path: Path, durability: Durability) -> None:
        """Open what there is, and fold what a process before has left. Raises ConfigurationError too."""
        self.database: Database = open_database(path, durability)
        self.log = CommitLog(path, self.database, durability)
        #: Whether the log knows what the file has; not after the file was opened anew, until `settle` has looked.
        self._is_aligned = True
        try:
            self.replayed = self.log.replay()
        except BaseException:
            self.database.close()
            raise

    def write(self, batch: Batch) -> None:
        """Commit a batch, or raise and leave nothing."""
        self.settle()
        if batch.alone is not None:
            self.log.fold_all()
            self._write_over(batch)
        elif batch.forgotten or (batch.messages and self._may_have(batch)):
            self.log.fold_all()
            batch.write(self.database)
        else:
            self.log.append(batch.record())

    def _write_over(self, batch: Batch) -> None:
        """Write a batch, with zeros in place of the rows that it deletes or changes."""
        self.database.execute("PRAGMA secure_delete = ON").close()
        try:
            batch.write(self.database)
        finally:
            self.database.execute("PRAGMA secure_delete = OFF").close()

    def fold_for(self, user_ids: set[str]) -> None:
        """Fold what the log has, if something is about one of these users."""
        if self.log.is_about(user_ids):
            self.fold_all()

    def complete_fold(self) -> None:
        """End the transaction of a fold that has begun: before the tables are changed by anything that needs no fold."""
        self.settle()
        self.log.complete_fold()

    def fold(self) -> None:
        """Write a slice of what the log has to the tables."""
        self.settle()
        self.log.fold()

    def fold_all(self) -> None:
        """Fold everything that the log has: after this the tables have all that was committed."""
        self.settle()
        self.log.fold_all()

    def settle(self) -> None:
        """Make sure that after a failure what there seems to be is on the disk, before anything is written."""
        self.database.settle()
        if not self._is_aligned:
            self.log.align()
            self._is_aligned = True
        self.log.settle()

    def reconnect(self) -> None:
        """Open the database again after a failure, and see whether everything can be written."""
        self._is_aligned = False
        self.log.lose_transaction()
        self.database.reconnect()
        self.settle()
        self.database.execute(statements.PROBE)
        self.log.append(Record(0, b""))
        self.log.fold_all()

    def close(self) -> None:
        """Fold everything, remove the log, and close the file. After a failure that is not over the log stays for the next start."""
        try:
            if self._is_aligned:
                self.log.close()
        finally:
            self.database.close()

    def _may_have(self, batch: Batch) -> bool:
        """Return whether there may be a message that is one of these."""
        if batch.may_repeat or self.log.has(batch.places):
            return True
        return self.database.value(statements.IS_STORED, codec.to_json(batch.places)) is not None
