"""The commit log in front of a shard's SQLite file: a commit is one record at the end of a file and one sync, and SQLite gets many at once.

    commit -> record in a segment, synced -> answered
                 | every `FOLD_ROWS` rows, or some seconds later, or when somebody reads what has not been folded
                 v
              fold: one transaction of SQLite, not synced -> ... -> synced, when a segment is folded to its end: it may be written over

A fold is made in slices, between which commits go on: its transaction stays open until it has all records. A record has a number, one more
than the last, and each fold saves the number of its last record (``statements.SAVE_FOLDED``) in the same transaction. So a record is folded
once, whatever is killed or loses its power in between, and SQLite alone always has all that there was at one moment, a few seconds ago.

**A failure.** When a record can't be written or synced, nobody knows what the disk has of it, and its number is void: before the next
commit, everything that was answered is folded and synced together with the void number, and the segments are removed. They are never
synced again. If the process is killed before that, the record may be there at the next start, as after any commit that failed.

**At the start** the records behind the last that was folded are folded, up to the first that is not whole, and the segments are removed.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.events import fields
from workers.store import statements
from workers.store.database import Database, Durability
from workers.store.fold import fold
from workers.store.log_record import Record, encode
from workers.store.segment import Segment, read_log, segment_paths

_log = logging.getLogger("fastchat.store")

#: Rows after which the records are folded: with more of them a row costs less, since more are on the same pages.
FOLD_ROWS: Final = 4096
#: Rows of one slice: more than a commit has, and few enough that the next commit hardly waits.
SLICE_ROWS: Final = 512
#: Bytes after which a segment is full: some folds.
SEGMENT_BYTES: Final = 4 * 1024 * 1024
#: The first number that a new file gets is below this: a log that belongs to another file is not taken for its own.
_NUMBERS: Final = 2**40


class CommitLog:
    """The log of one file. All methods are called in the thread that has the database, and raise sqlite3.Error or OSError."""

    def __init__(self, path: Path, database: Database, durability: Durability) -> None:
        """`replay` comes first."""
        self._path = path
        self._database = database
        self._syncs = durability == "fsync"
        self._segments = [Segment(segment) for segment in segment_paths(path)]
        #: The records that have not been folded, in order, how many rows they have, and what is asked about them.
        self._records: list[Record] = []
        self.rows = 0
        #: How many of them, the oldest, are in the transaction that is open, and how many rows.
        self._written = 0
        self._written_rows = 0
        self._places: set[tuple[int, int]] = set()
        self._user_ids: set[str] = set()
        #: Whether records were read from the segments, of which it is not known whom they are about.
        self._is_about_anybody = False
        #: The last number that was given, the last that was folded, and the last of which it is known that SQLite has it on the disk.
        self._number = 0
        self._folded = 0
        self._synced = 0
        #: Whether a record may be in a segment that was never answered, see above.
        self._in_doubt = False
        #: Rows folded since `take_folded`.
        self._taken = 0

    # -- The start and the end --

    def replay(self) -> int:
        """Fold what a process before has left, and remove the segments; how many records that were."""
        self._folded = self._database.value(statements.LOAD_FOLDED)
        content = read_log(self._path, self._folded)
        self._number = content.last or random.randrange(1, _NUMBERS)
        self._synced = self._folded
        if content.lost:
            _log.error(
                "the commit log is damaged: %d commits behind the damage are lost; a backup may have them",
                content.lost,
                extra=fields(path=self._path),
            )
        self._take(content.records)
        if self._number > self._folded or any(path.exists() for path in segment_paths(self._path)):
            # Also when all has been folded: SQLite need not have synced it.
            self._clear()
        return len(content.records)

    def close(self) -> None:
        """Fold everything and remove the segments."""
        if self._number > self._synced or self._in_doubt:
            self._clear()

    def _clear(self) -> None:
        """Fold everything, and have SQLite sync it, with all numbers that were given; then no segment is needed."""
        self._database.settle()
        self.fold_all()
        self._sync_folds(self._number)
        for segment in self._segments:
            segment.remove()

    # -- Commits --

    def append(self, record: Record) -> None:
        """Make a record durable. `settle` must have been called before; when this raises, it must not be answered as a success."""
        if self._segments[0].end >= SEGMENT_BYTES:
            self._turn_over()
        segment = self._segments[0]
        self._number += 1
        record.number = self._number
        try:
            segment.write(encode(record), record.number)
            if self._syncs:
                segment.sync()
        except BaseException:
            # Whatever it was: the number is given, and the records behind a gap would not be read.
            self._in_doubt = True
            raise
        self._note(record)

    def settle(self) -> None:
        """Make sure that nothing is left of a record that failed; after this, `append` may be called."""
        if self._in_doubt:
            self._clear()
            self._in_doubt = False

    def has(self, places: list[tuple[int, int]]) -> bool:
        """Return whether a message with one of these (chat, id_hash) has not been folded."""
        return not self._places.isdisjoint(places)

    def is_about(self, user_ids: set[str]) -> bool:
        """Return whether something about one of these users has not been folded, so that SQLite does not have it."""
        return self._is_about_anybody or not self._user_ids.isdisjoint(user_ids)

    def _note(self, record: Record) -> None:
        self._records.append(record)
        self.rows += record.rows
        self._places.update(record.places_of())
        self._user_ids |= record.user_ids

    def _turn_over(self) -> None:
        """Go on in the other segment, which must have been folded to its end."""
        other = self._segments[1]
        while self._records and self._records[0].number <= other.last:
            self.fold()
        if other.last > self._synced:
            self.complete_fold()
            self._sync_folds(self._folded)
        other.begin_again()
        self._segments.reverse()

    # -- Folds --

    @property
    def is_folding(self) -> bool:
        """Whether a fold has begun and is not complete."""
        return self._written > 0

    def fold(self) -> None:
        """Write the next slice of a fold; it is complete when all records are in it, or twice as many rows as usual."""
        if not self._records:
            return
        end, rows = self._written, 0
        while end < len(self._records) and rows < SLICE_ROWS:
            rows += self._records[end].rows
            end += 1
        with self._or_nothing():
            if not self._written:
                self._written_rows = 0
                self._database.begin_unsynced()
            fold(self._database, self._records[self._written : end])
            self._written = end
            self._written_rows += rows
            if end == len(self._records) or self._written_rows >= 2 * FOLD_ROWS:
                self._complete()
        waiting = self._segments[1].last
        if self._synced < waiting <= self._folded and not self._written:
            self._sync_folds(self._folded)

    def complete_fold(self) -> None:
        """Commit the slices that have been written, so that there is no open transaction."""
        if self._written:
            with self._or_nothing():
                self._complete()

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """Leave nothing of the fold that has begun when an exception leaves."""
        try:
            yield
        except BaseException:
            self._written = 0
            self._database.abandon()
            raise

    def _complete(self) -> None:
        folded, left = self._records[: self._written], self._records[self._written :]
        self._database.execute(statements.SAVE_FOLDED, folded[-1].number)
        self._database.commit()
        self._written = 0
        self._folded = folded[-1].number
        self._taken += sum(record.rows for record in folded)
        self._take(left)

    def fold_all(self) -> None:
        """Fold all records: after this, SQLite has everything, though not all of it on the disk."""
        while self._records:
            self.fold()

    def take_folded(self) -> int:
        """Return how many rows have been folded since this was called last."""
        taken, self._taken = self._taken, 0
        return taken

    def _take(self, records: list[Record]) -> None:
        """Have these records waiting to be folded, and no others."""
        self._records, self.rows = [], 0
        self._places, self._user_ids = set(), set()
        self._is_about_anybody = any(record.rows and not record.user_ids for record in records)
        for record in records:
            self._note(record)

    def _sync_folds(self, number: int) -> None:
        """Have SQLite sync everything that was folded, and note that all numbers up to this one are done."""
        with self._database.transaction():
            self._database.execute(statements.SAVE_FOLDED, number)
            # SQLite writes and syncs nothing for a row that stays as it is.
            self._database.execute(statements.COUNT_SYNC)
        self._folded = self._synced = number

    # -- After failures of SQLite --

    def lose_transaction(self) -> None:
        """Note that the connection is closed, and the transaction of a fold that has begun goes with it."""
        self._written = 0

    def align(self) -> None:
        """Go by what the file has after it was opened anew: folds of which SQLite said that they failed, or did not fail."""
        folded = self._database.value(statements.LOAD_FOLDED)
        if folded < self._folded:
            content = read_log(self._path, folded)
            answered = self._records[-1].number if self._records else self._folded
            self._take([record for record in content.records if record.number <= answered])
        else:
            self._take([record for record in self._records if record.number > folded])
        self._folded = folded
        self._synced = min(self._synced, folded)
