"""Tests of the thread that has the database."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from typing import cast

from workers.store.database import Database
from workers.store.jobs import DatabaseThread, Job


class _Nothing(Job):
    """Does nothing, and can be seen to go."""

    __slots__ = ("__weakref__",)

    def run(self, database: Database) -> None:
        """Do nothing."""


class _Closed:
    """In place of a database."""

    path = Path("/nowhere")

    def close(self) -> None:
        """Do nothing."""


def test_an_idle_thread_keeps_no_job() -> None:
    """Its users and rows would stay in memory until the next one, after a crowd has left for as long as nobody comes."""

    async def work() -> None:
        woken = asyncio.Event()
        thread = DatabaseThread(cast(Database, _Closed()), asyncio.get_running_loop(), woken.set)
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
        thread.stop(30)

    asyncio.run(work())
