"""Tests of the thread that has the database."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from workers.store.jobs import DatabaseThread, Job
from workers.store.storage import Storage


class _Nothing(Job):
    """Does nothing, and can be seen to go."""

    __slots__ = ("__weakref__",)

    def run(self, storage: Storage) -> None:
        """Do nothing."""


def nothing_on_the_disk() -> Storage:
    """In place of files."""
    log = SimpleNamespace(take_folded=lambda: 0, close=lambda: None)
    database = SimpleNamespace(path=Path("/nowhere"), close=lambda: None)
    return cast(Storage, SimpleNamespace(log=log, database=database))


def test_an_idle_thread_keeps_no_job() -> None:
    """Its users and rows would stay in memory until the next one, after a crowd has left for as long as nobody comes."""

    async def work() -> None:
        woken = asyncio.Event()
        thread = DatabaseThread(nothing_on_the_disk(), asyncio.get_running_loop(), woken.set)
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        job = _Nothing()
        weakref.finalize(job, lambda: loop.call_soon_threadsafe(gone.set))
        thread.give(job)
        del job
        await woken.wait()
        assert thread.done() is not None
        async with asyncio.timeout(30):
            await gone.wait()
        thread.begin_stop()
        thread.stopped(30)

    asyncio.run(work())
