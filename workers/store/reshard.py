"""Filling new files from those for another number of workers; ``workers.store.prepare`` makes them, and lets them hold.

    upgrade the old files, fold their commit logs, move their write-ahead logs into them --> copy, index, count

The new files are filled side by side, one thread each, since SQLite does the work in long statements during which other threads run. How
one is filled, ``workers.store.filling`` knows. For a server that runs, see ``workers.store.live_reshard``.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from core.placement import Placement
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from workers.store.catch_up import replay
from workers.store.database import upgrade
from workers.store.filling import NewFile
from workers.store.old_files import TABLES, Counts, Source, count, log_of, settle, slices
from workers.store.schema import messages
from workers.store.tools import Unreadable, reason

_log = logging.getLogger("fastchat.store")

#: What the new files may take, as a multiple of the old: the rows again, and what sorting for the indexes takes meanwhile.
ROOM: Final = 1.5
#: Bytes of an empty file, generously.
_EMPTY_FILE: Final = 128 * 1024
#: Seconds between two lines of progress.
_PROGRESS_INTERVAL: Final = 1.0


def reshard(directory: Path, held: Layout, new: Layout) -> None:
    """Fill the files of `new`, which are there and empty, from those of `held`. Raises ConfigurationError and OSError."""
    paths = [directory / name for name in held.shards()]
    with sentences(directory, new):
        check_room(directory, held, new, ROOM)
        for path in paths:
            upgrade(path)
            replay(path)
            settle(path)
        remedy = f"the server still starts with WORKERS={held.workers}"
        with Reshard(directory, held, new, threading.Event()) as resharding:
            resharding.fill(slices(paths), remedy, NewFile.finish)


@contextmanager
def sentences(directory: Path, new: Layout) -> Iterator[None]:
    """Make a ConfigurationError of what SQLite says about the files."""
    try:
        yield
    except Unreadable as error:
        raise ConfigurationError(
            f"can't prepare the data directory {directory} for {new.workers} workers: {reason(error)};"
            f" the current files are unchanged: run `python -m workers.store check {directory}` to find damage in the files"
        ) from error


def check_room(directory: Path, held: Layout, new: Layout, room: float) -> None:
    """Check that the disk has room for `room` times as much as the old files. Raises ConfigurationError."""
    paths = [directory / name for name in held.shards()]
    # What is in a log moves into its file first, where it may replace something or not.
    size = sum(file.stat().st_size for path in paths for file in (path, log_of(path)) if file.exists())
    needed = int(size * room) + new.workers * _EMPTY_FILE
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ConfigurationError(
            f"the disk is too full to change from {held.workers} to {new.workers} workers: new files are needed beside the"
            f" old files in {directory}, which takes up to {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free;"
            f" the server still starts with WORKERS={held.workers}"
        )


class Reshard:
    """One change of the number of workers; a context manager that closes the new files."""

    def __init__(
        self, directory: Path, held: Layout, new: Layout, stopped: threading.Event, nice: int = 0
    ) -> None:
        """Begin with nothing; `stopped` ends it when it is set, by this or by the caller. `nice` is added to that of each thread."""
        owners = Placement(new.workers).owners
        #: The new files, which are there and empty.
        self.files = [
            NewFile(directory / name, [slot for slot, owner in enumerate(owners) if owner == worker], stopped)
            for worker, name in enumerate(new.shards())
        ]
        self._directory = directory
        self._held = held
        self._new = new
        self._total = 0
        self._nice = nice
        #: Messages copied so far, and files finished.
        self._copied = 0
        self._finished = 0
        self._lock = threading.Lock()
        #: Set when it has failed somewhere: the others need not go on.
        self._stopped = stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self.files:
            file.close()

    def fill(self, sources: Sequence[Source], remedy: str, then: Callable[[NewFile], None]) -> None:
        """Fill the new files, do `then` to each, and count. `remedy` is what an operator can do about files that can't be copied.

        Raises ConfigurationError, OSError, SQLAlchemyError and, when the caller has stopped it, ``workers.store.filling.Stopped``.
        """
        expected = _sum(count(source.path) for source in sources)
        self._total = expected[TABLES.index(messages)]
        self._log_progress()
        with self.threads() as pool:
            filling = [pool.submit(self._fill, file, sources, then) for file in self.files]
            self._wait(filling)
        found = _sum(future.result() for future in filling)
        self._log_progress()
        if found != expected:
            differences = ", ".join(
                f"{expected} {table.name} before and {found} after the copy"
                for table, expected, found in zip(TABLES, expected, found, strict=True)
                if expected != found
            )
            raise ConfigurationError(
                f"the files in {self._directory / self._held.directory} can't be copied completely: {differences}; run"
                f" `python -m workers.store check {self._directory}` for details; {remedy}"
            )

    def threads(self) -> ThreadPoolExecutor:
        """Return threads for what takes long. On Linux each thread has a niceness of its own."""
        threads = min(self._new.workers, os.cpu_count() or 1)
        return ThreadPoolExecutor(threads, initializer=os.nice, initargs=(self._nice,))

    def _fill(self, file: NewFile, sources: Sequence[Source], then: Callable[[NewFile], None]) -> Counts:
        file.fill(sources, self._note_copied)
        then(file)
        with self._lock:
            self._finished += 1
        return count(file.path)

    def _note_copied(self, messages: int) -> None:
        with self._lock:
            self._copied += messages

    def _wait(self, filling: Sequence[Future[Counts]]) -> None:
        """Wait for all threads. Raises what the first of them that fails has raised."""
        left: set[Future[Counts]] = set(filling)
        try:
            while left:
                done, left = wait(left, _PROGRESS_INTERVAL, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if left:
                    self._log_progress()
        except BaseException:
            self._stopped.set()
            raise

    def _log_progress(self) -> None:
        share = self._copied * 100 // self._total if self._total else 100
        _log.info(
            "re-sharding from %d to %d workers: %d %% of %s messages copied, %d of %d files finished",
            self._held.workers,
            self._new.workers,
            share,
            f"{self._total:,}",
            self._finished,
            self._new.workers,
        )


def _sum(counts: Iterable[Counts]) -> Counts:
    return tuple(map(sum, zip(*counts, strict=True)))
