"""workers.turn: what one loop turn has produced goes out at its end, once, behind the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from workers.turn import Turn


class Connection:
    """Notes that it was flushed."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log

    def flush(self, now: float) -> None:
        self._log.append(f"flush {self._name}")


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
            def flush(self, now: float) -> None:
                super().flush(now)
                turn.dirty(Connection("what followed", log))

        turn.dirty(Replaying("a", log))

    assert run(scenario) == ["end of the scenario", "work", "flush a", "work", "flush what followed"]
