"""workers.turn: what one loop turn has produced goes out at its end, once, behind the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from workers.turn import Turn


class Connection:
    """Notes that it was flushed."""

    def __init__(self, name: str, log: list[str], frames: int = 1) -> None:
        self._name = name
        self._log = log
        self._frames = frames

    def flush(self, now: float) -> int:
        self._log.append(f"flush {self._name}")
        return self._frames


def run(scenario: Callable[[Turn, list[str]], None], more: int = 0, turns: int = 5) -> list[str]:
    """What happened in some loop turns after `scenario`; the work says `more` times that there is more to do."""
    log: list[str] = []
    left = more

    def work(now: float) -> bool:
        nonlocal left
        log.append("work")
        left -= 1
        return left >= 0

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        turn.attach(work, lambda now: None)
        scenario(turn, log)
        log.append("end of the scenario")
        for _ in range(turns):
            await asyncio.sleep(0)

    asyncio.run(main())
    return log


def test_work_and_flush_come_once_however_often_they_are_asked_for() -> None:
    def scenario(turn: Turn, log: list[str]) -> None:
        turn.schedule()
        turn.dirty(Connection("a", log))
        turn.schedule()
        turn.dirty(Connection("b", log))

    assert run(scenario) == ["end of the scenario", "work", "flush a", "flush b"]


def test_nothing_is_done_when_nothing_happened() -> None:
    assert run(lambda turn, log: None) == ["end of the scenario"]


def test_output_alone_is_enough_for_an_end_of_the_turn() -> None:
    assert run(lambda turn, log: turn.dirty(Connection("a", log))) == [
        "end of the scenario",
        "work",
        "flush a",
    ]


def test_more_to_do_means_another_turn() -> None:
    assert run(lambda turn, log: turn.schedule(), more=2) == ["end of the scenario", "work", "work", "work"]


def test_what_a_flush_produces_goes_out_in_the_next_turn() -> None:
    def scenario(turn: Turn, log: list[str]) -> None:
        class Replaying(Connection):
            def flush(self, now: float) -> int:
                turn.dirty(Connection("what followed", log))
                return super().flush(now)

        turn.dirty(Replaying("a", log))

    assert run(scenario) == ["end of the scenario", "work", "flush a", "work", "flush what followed"]


# -- Pacing --


class Pauses:
    """Takes the place of `workers.pause.Pause`: a pause is over when the test says so."""

    def __init__(self, log: list[str]) -> None:
        self._log = log
        self.over: Callable[[], None]

    def __call__(self, loop: asyncio.AbstractEventLoop, seconds: float, over: Callable[[], None]) -> Pauses:
        self.over = over
        return self

    def begin(self) -> None:
        self._log.append("pause")


@pytest.mark.parametrize(
    ("connections", "frames", "is_paced"),
    [(10, 4, True), (31, 1, False), (100, 1, False), (25, 1.28, False), (10, 3, False)],
    ids=["many frames in few writes", "few frames", "one frame for each", "hardly more", "too few"],
)
def test_a_turn_behind_one_with_many_frames_in_each_write_goes_on_reading(
    monkeypatch: pytest.MonkeyPatch, connections: int, frames: float, is_paced: bool
) -> None:
    log: list[str] = []
    pauses = Pauses(log)
    monkeypatch.setattr("workers.turn.Pause", pauses)

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        turn.attach(lambda now: False, lambda now: None)
        whole = int(connections * frames)
        for index in range(connections):
            turn.dirty(Connection("first", [], whole // connections + (index < whole % connections)))
        await asyncio.sleep(0)
        turn.dirty(Connection("second", log))
        await asyncio.sleep(0)
        if is_paced:
            assert log == ["pause"]
            turn.dirty(Connection("what came meanwhile", log))
            pauses.over()
            assert log == ["pause", "flush second", "flush what came meanwhile"]
            # And then there is little to write again.
            turn.dirty(Connection("third", log))
            await asyncio.sleep(0)
            assert log[3:] == ["flush third"]
        else:
            assert log == ["flush second"]

    asyncio.run(main())


def test_nothing_is_paced_while_there_is_work_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr("workers.turn.Pause", Pauses(log))

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        turn.attach(lambda now: True, lambda now: None)
        turn.dirty(Connection("first", log, 100))
        await asyncio.sleep(0)
        turn.dirty(Connection("second", log))
        await asyncio.sleep(0)
        assert log == ["flush first", "flush second"]

    asyncio.run(main())


def test_without_a_timer_nothing_is_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def none(*_: object) -> None:
        raise OSError("no timerfd")

    monkeypatch.setattr("workers.turn.Pause", none)

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        turn.attach(lambda now: False, lambda now: None)
        for name in ("first", "second"):
            turn.dirty(Connection(name, log, 100))
            await asyncio.sleep(0)
        assert log == ["flush first", "flush second"]

    asyncio.run(main())
