"""The thread that has the database, and what it is given to do, one job at a time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Final

from core.chat.store import Done
from workers.store.storage import Storage
from workers.store.write_ahead_log import WriteAheadLog

_log = logging.getLogger("fastchat.store")

#: Rows written to SQLite between two checkpoints: some folds. More make the pause longer, in which nothing is committed; fewer write the
#: same pages more often.
CHECKPOINT_ROWS: Final = 8192


class Job:
    """One visit to the database. `execute` is called in the thread, everything else on the loop, before and after."""

    __slots__ = ("failure", "seconds")

    def __init__(self) -> None:
        #: Why it could not be done; a sentence.
        self.failure: str | None = None
        #: How long it took.
        self.seconds = 0.0

    def execute(self, storage: Storage) -> None:
        """Do it and note how it went. Raises nothing."""
        self.failure = attempt(self.run, storage)

    def run(self, storage: Storage) -> None:
        """Do it. Raises sqlite3.Error or OSError."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """About how many rows were written by something else than a fold, for telling when to make a checkpoint."""
        return 0


class Visit(Job):
    """What somebody beside the core wants done, after all writes that were called before. A failure is told to whoever asked only."""

    __slots__ = ("after", "done", "refusal")

    def __init__(self, done: Done) -> None:
        """`done` is called with None, or with a sentence that says why it could not be done."""
        super().__init__()
        self.done = done
        #: How many writes had been called before it.
        self.after = 0
        self.refusal: str | None = None

    def execute(self, storage: Storage) -> None:
        self.refusal = attempt(self.run, storage)


class Fold(Job):
    """Moves some of what was committed first from the commit log into the tables."""

    def run(self, storage: Storage) -> None:
        storage.fold()


def attempt(action: Callable[[Storage], None], storage: Storage) -> str | None:
    """Return None, or a sentence that says why not. Whatever goes wrong, the thread goes on, and everybody gets an answer."""
    try:
        action(storage)
    except sqlite3.Error as error:
        return f"the storage of the server fails: {error}"
    except OSError as error:
        return f"the storage of the server fails: {error.strerror}"
    except Exception:
        _log.exception("bug in the store")
        return "the storage of the server fails: a bug"
    return None


class DatabaseThread:
    """Does jobs in the order in which they come. `wake` is called on the loop when one is done."""

    def __init__(self, storage: Storage, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._storage = storage
        self.log = WriteAheadLog(storage.database.path)
        self._loop = loop
        self._wake = wake
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[Job] = SimpleQueue()
        # A disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def give(self, job: Job) -> None:
        """Have a job done."""
        self._jobs.put(job)

    def done(self) -> Job | None:
        """Return a job that is done."""
        return None if self._done.empty() else self._done.get_nowait()

    def wait(self, patience: float) -> Job | None:
        """Wait for the next job that is done; blocks for at most `patience` seconds."""
        with suppress(Empty):
            return self._done.get(timeout=max(0.0, patience))
        return None

    def begin_stop(self) -> None:
        """Have the thread close the file after the jobs that it has, and end; then `stopped`."""
        self._jobs.put(None)

    def stopped(self, patience: float) -> bool:
        """Return whether the thread has ended, at the latest after `patience` seconds; blocks meanwhile."""
        self._thread.join(max(0.0, patience))
        return not self._thread.is_alive()

    def _run(self) -> None:
        rows = 0
        while (job := self._jobs.get()) is not None:
            began = perf_counter()
            job.execute(self._storage)
            job.seconds = perf_counter() - began
            rows += job.rows + self._storage.log.take_folded()
            self._done.put(job)
            # Else this thread keeps its users, and each of their rows, in memory until the next job comes.
            del job
            # The loop is closed when the process ends without waiting for us.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)
            if rows >= CHECKPOINT_ROWS:
                rows = 0
                # If it fails the log goes on growing, and the next one is tried; a full disk is noticed by the writes.
                attempt(self._checkpoint, self._storage)
        attempt(Storage.close, self._storage)

    def _checkpoint(self, storage: Storage) -> None:
        self.log.checkpoint(storage.database)
