"""The files of the commit log of one shard: two segments beside its database file, which are written in turn, each from its beginning.

A segment that is full keeps its size and is written over when its turn comes: a file that does not grow takes less to sync.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from workers.store.data_directory import give_to_owner, sync
from workers.store.log_record import Record, decode

#: What is put behind the name of a database file.
SUFFIXES: Final = ("-log-1", "-log-2")


def segment_paths(database: Path) -> list[Path]:
    """Return the names of the two segments of a database file, which may be there or not."""
    return [database.with_name(database.name + suffix) for suffix in SUFFIXES]


class Segment:
    """One of the files. It is made when the first record is written. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        #: Where the next record goes, and the number of the last; 0 when there is none.
        self.end = 0
        self.last = 0

    def write(self, content: bytes, number: int) -> None:
        """Write the next record. After this, `sync` makes it durable."""
        if self._descriptor < 0:
            self._descriptor = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            give_to_owner(self._path)
            # Without its name the file would be lost with the power.
            sync(self._path.parent)
        view, position = memoryview(content), self.end
        while view:
            written = os.pwrite(self._descriptor, view, position)
            view, position = view[written:], position + written
        self.end, self.last = position, number

    def sync(self) -> None:
        """Wait until all that was written is on the disk. After a failure, it must not be called again: the next one would say nothing."""
        os.fdatasync(self._descriptor)

    def begin_again(self) -> None:
        """Write over what is there, from the beginning."""
        self.end, self.last = 0, 0

    def remove(self) -> None:
        """Remove the file; the next record makes a new one."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            # What the system says of writes that failed has been heard, and nothing depends on them any more.
            with suppress(OSError):
                os.close(descriptor)
        self._path.unlink(missing_ok=True)
        self.begin_again()


class Content(NamedTuple):
    """What the segments have."""

    #: The records to be folded, in order.
    records: list[Record]
    #: How many more there are behind a gap: they have lost what they build upon, and are of no use.
    lost: int
    #: The highest number that a record has, or that has been folded.
    last: int


def read_log(database: Path, folded: int) -> Content:
    """Read what the segments of a database file have behind number `folded`, up to the first record that is not whole. Raises OSError."""
    runs = []
    for path in segment_paths(database):
        with suppress(FileNotFoundError):
            run = [record for record, _ in decode(path.read_bytes()) if record.number > folded]
            if run:
                runs.append(run)
    records: list[Record] = []
    lost, last = 0, folded
    for run in sorted(runs, key=lambda run: run[0].number):
        last = max(last, run[-1].number)
        if run[0].number == folded + 1 + len(records):
            records += run
        else:
            lost += len(run)
    return Content(records, lost, last)
