"""Tests of router.supervisor.safekeeping, with real keepers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from core.process.settings import Settings
from router.supervisor import safekeeping
from router.supervisor.handed_on import HandedOn
from router.supervisor.resources import Resources
from router.supervisor.run_directory import RunDirectory
from router.supervisor.safekeeping import Safekeeping
from tests.router.server_process import is_running
from tests.router.supervisor.test_handed_on import STATE
from tests.system.harness import run_async


class Kept:
    """What a supervisor has: one end of a pipe, and the other end tells whether anybody else has it."""

    def __init__(self) -> None:
        self.is_usable = True
        self.reading, self._writing = os.pipe()
        os.set_blocking(self.reading, False)

    def collect(self) -> HandedOn | None:
        return dataclasses.replace(STATE, descriptors=[self._writing]) if self.is_usable else None

    def let_go(self) -> None:
        os.close(self._writing)

    @property
    def by_another(self) -> bool:
        with suppress(BlockingIOError):
            return os.read(self.reading, 1) != b""
        return True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20.0):
        while not condition():  # noqa: ASYNC110 - what it waits for is done by another process
            await asyncio.sleep(0.01)


def resources(run_dir: Path) -> Resources:
    found = Resources(Settings(takeover_seconds=60.0))
    found.run_directory = RunDirectory(run_dir, -1, [])
    return found


@asynccontextmanager
async def kept_safe(run_dir: Path, kept: Kept) -> AsyncIterator[Safekeeping]:
    """One that is started, and has a keeper."""
    found = Safekeeping(asyncio.get_running_loop(), kept.collect)
    found.start(resources(run_dir))
    yield found
    found.stop()
    assert found.child is not None
    await found.child.gone


def keeper(found: Safekeeping) -> int:
    return -1 if found.child is None else found.child.pid


@run_async
async def test_the_keeper_has_what_there_is(tmp_path: Path) -> None:
    """And lets go of it as soon as nobody could go on with it."""
    kept = Kept()
    async with kept_safe(tmp_path, kept) as found:
        found.update_now()
        kept.let_go()
        assert kept.by_another
        kept.is_usable = False
        found.update_now()
        await until(lambda: not kept.by_another)


@run_async
async def test_a_keeper_that_is_killed_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safekeeping, "_RESTART", 0.0)
    kept = Kept()
    async with kept_safe(tmp_path, kept) as found:
        before = keeper(found)
        os.kill(before, signal.SIGKILL)
        await until(lambda: keeper(found) not in (-1, before))
        found.update_now()
        kept.let_go()
        assert kept.by_another


@run_async
async def test_a_keeper_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safekeeping, "_RESTART", 0.0)
    monkeypatch.setattr(safekeeping, "_PATIENCE", 0.01)
    async with kept_safe(tmp_path, Kept()) as found:
        before = keeper(found)
        os.kill(before, signal.SIGSTOP)
        while found.child is not None and found.child.pid == before:
            found.update_now()
            await asyncio.sleep(0)
        await until(lambda: keeper(found) not in (-1, before))


@run_async
async def test_after_a_stop_there_is_one_again(tmp_path: Path) -> None:
    """As when the program was to be replaced, and could not be; the old keeper ends, and is no failure."""
    kept = Kept()
    async with kept_safe(tmp_path, kept) as found:
        before = keeper(found)
        found.stop()
        found.start(resources(tmp_path))
        after = keeper(found)
        assert after != before
        await until(lambda: not is_running(before))
        found.start(resources(tmp_path))
        found.update_now()
        kept.let_go()
        assert kept.by_another
        assert keeper(found) == after
