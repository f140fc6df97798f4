"""Another number of workers while the workers go on writing: new files beside the old ones, which hold until the end.

    each worker notes what changes --> copy the old files --> fill new files from the copies --> catch up with what was noted, again and
    again, while little is left --> all workers are at rest --> catch up for the last time --> sync --> switch layout.json

Until the switch the old files have everything, and nothing is written to them from here. What is made is in the directory of the new
generation, copies included: a failure removes it, and what a kill leaves the next start or the next change removes. After the switch the
new files hold, and nobody may write to the old ones any more.

What the workers do, ``workers.store.tracking`` knows, and the process that does this, ``workers.store.resize``.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Final

from core.process.data_directory import generations, missing_shards
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from workers.store.changes import Changes
from workers.store.data_directory import existing_layout, file_uri, remove_generation, sync
from workers.store.export import check_revision
from workers.store.filling import NewFile, Stopped
from workers.store.old_files import slices
from workers.store.prepare import hold, new_files
from workers.store.reshard import ROOM, Reshard, check_room, sentences
from workers.store.tools import connected

#: What the copies of the old files are called.
_COPIES: Final = "copies"
#: How much what takes long stands back behind the workers for CPU time. They wait for the last round, which does not.
_NICE: Final = 10
#: Seconds that a statement waits for a worker that has a file to itself for a moment.
_BUSY_PATIENCE: Final = 10.0


@contextmanager
def live_reshard(directory: Path, workers: int, stopped: Event) -> Iterator[LiveReshard]:
    """Begin a change to `workers`. The server has locked the directory, and what it does not end with `finish` leaves nothing.

    `stopped` ends it when it is set: the method that runs raises ``workers.store.filling.Stopped``. Raises ConfigurationError.
    """
    with sentences_for_operators(directory, workers):
        held = existing_layout(directory)
        if held.workers == workers:
            raise ConfigurationError(f"the files in {directory} are for {workers} workers already")
        if missing := missing_shards(directory, held):
            raise ConfigurationError(f"{directory / missing[0]} is missing or empty")
        remove_others(directory, held)
        new = Layout(held.generation + 1, workers)
        # The copies, too.
        check_room(directory, held, new, 1 + ROOM)
        with new_files(directory, new), Reshard(directory, held, new, stopped, _NICE) as resharding:
            yield LiveReshard(directory, held, new, resharding, stopped)


@contextmanager
def sentences_for_operators(directory: Path, workers: int) -> Iterator[None]:
    """Make a ConfigurationError of what the system and SQLite say."""
    try:
        with sentences(directory, Layout(1, workers)):
            yield
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(
            f"can't make files for {workers} workers in {directory}: {getattr(error, 'strerror', None) or error};"
            " the current files are unchanged"
        ) from error


def remove_others(directory: Path, held: Layout) -> None:
    """Remove all generations but the one that holds. Raises OSError."""
    for generation in generations(directory):
        if generation != held.generation:
            remove_generation(directory, generation)


class LiveReshard:
    """One change, while it goes on: `fill`, `catch_up` any number of times, `finish`."""

    def __init__(
        self, directory: Path, held: Layout, new: Layout, resharding: Reshard, stopped: Event
    ) -> None:
        self.new = new
        #: The directory of the new files.
        self.place = directory / new.directory
        self._stopped = stopped
        self._directory = directory
        self._old = directory / held.directory
        self._held = held
        self._resharding = resharding

    def fill(self) -> None:
        """Fill the new files. All workers must have begun to note what changes."""
        copies = self.place / _COPIES
        copies.mkdir(mode=0o700)
        paths = [copies / Layout.shard_name(worker) for worker in range(self._held.workers)]
        with self._resharding.threads() as pool:
            list(pool.map(self._copy, paths))
        sources = slices(paths, int(time.time() * 1000))
        self._resharding.fill(sources, "the server goes on with the old files", _sync)
        shutil.rmtree(copies)

    def catch_up(self, looks: Sequence[Path]) -> int:
        """Copy what was noted, of all workers or of some, and remove the looks; how many rows that were."""
        rows = 0
        for path in looks:
            try:
                changes = Changes.read(path)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(f"{path} is no list of changes: {error}") from None
            if changes:
                for file in self._resharding.files:
                    file.catch_up(self._old / changes.file, changes)
            rows += len(changes)
            path.unlink()
        if rows:
            for file in self._resharding.files:
                _sync(file)
        return rows

    def finish(self, looks: Sequence[Path]) -> int:
        """Copy what was noted at last, and let the new files hold. All workers must be at rest until they have ended.

        After this, `remove_others` may be called when nobody has the old files open. When it raises, ``layout.json`` says what holds.
        """
        rows = self.catch_up(looks)
        for file in self._resharding.files:
            file.finish()
        self._check()
        hold(self._directory, self._held, self.new)
        return rows

    def _copy(self, path: Path) -> None:
        self._check()
        _copy(self._old / path.name, path)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped


def _sync(file: NewFile) -> None:
    sync(file.path)


def _copy(source: Path, target: Path) -> None:
    """Copy a file in use as it is at one moment. Raises ConfigurationError for one whose tables are of another version."""
    with (
        closing(sqlite3.connect(file_uri(source, "ro"), uri=True, timeout=_BUSY_PATIENCE)) as old,
        closing(sqlite3.connect(file_uri(target, "rwc"), uri=True, isolation_level=None)) as new,
    ):
        new.execute("PRAGMA synchronous = OFF")
        # In one step: in several, each commit of the worker in between would make it begin anew.
        old.backup(new, pages=-1)
        # It has become a file with a log; the file is to be read without.
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with connected(target, "immutable") as connection:
        check_revision(connection, source)
