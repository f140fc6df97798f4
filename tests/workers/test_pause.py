"""workers.pause: a timer of parts of a millisecond, by the clock of the kernel."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from workers.pause import Pause

#: Seconds that anything here may take.
PATIENCE = 10.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    def run(main: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(main(), PATIENCE))

    return run


def test_each_pause_comes_to_its_end_once(runner: Callable[[Any], Any]) -> None:
    async def main() -> None:
        over = asyncio.Event()
        ended: list[float] = []

        def note() -> None:
            ended.append(time.monotonic())
            over.set()

        pause = Pause(asyncio.get_running_loop(), 0.002, note)
        for number in range(1, 4):
            over.clear()
            began = time.monotonic()
            pause.begin()
            await over.wait()
            assert len(ended) == number
            assert ended[-1] - began >= 0.002

    runner(main)


def test_one_that_begins_again_ends_once(runner: Callable[[Any], Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended: list[int] = []
        pause = Pause(loop, 0.001, lambda: ended.append(1))
        later = asyncio.Event()
        other = Pause(loop, 0.05, later.set)
        other.begin()
        pause.begin()
        pause.begin()
        await later.wait()
        assert ended == [1]

    runner(main)


def test_a_system_without_it_says_so(monkeypatch: pytest.MonkeyPatch, runner: Callable[[Any], Any]) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())

    async def main() -> None:
        with pytest.raises(OSError, match="not implemented") as raised:
            Pause(asyncio.get_running_loop(), 0.001, lambda: None)
        assert raised.value.errno == errno.ENOSYS

    runner(main)
