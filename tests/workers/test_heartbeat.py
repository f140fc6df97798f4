"""workers.heartbeat: one wheel looks at every connection when it is due, and costs nothing in between (D27)."""

from __future__ import annotations

from workers.heartbeat import SLOT_SECONDS, TimerWheel

#: A clock value as a machine that has run for a day shows it.
START = 86_400.1


class Watched:
    """Notes when it is looked at, and asks for the next looks that it was made with."""

    def __init__(self, *due: float) -> None:
        self.looks: list[float] = []
        self._due = list(due)

    def look(self, now: float) -> float | None:
        self.looks.append(now)
        return self._due.pop(0) if self._due else None


def run(wheel: TimerWheel, start: float, end: float, step: float = 0.1) -> None:
    """Turn the wheel as a worker does."""
    for number in range(round((end - start) / step) + 1):
        wheel.turn(start + number * step)


def test_a_look_comes_when_it_is_due_and_not_before() -> None:
    wheel, watched = TimerWheel(START), Watched()
    wheel.watch(watched, START + 20.0)
    run(wheel, START, START + 19.9)
    assert watched.looks == []
    run(wheel, START + 20.0, START + 20.0 + SLOT_SECONDS + 0.1)
    (look,) = watched.looks
    assert START + 20.0 <= look <= START + 20.0 + SLOT_SECONDS + 0.1


def test_what_is_watched_says_when_it_is_looked_at_next() -> None:
    wheel = TimerWheel(START)
    watched = Watched(START + 25.0, START + 45.0)
    wheel.watch(watched, START + 20.0)
    run(wheel, START, START + 60.0)
    assert len(watched.looks) == 3
    for look, due in zip(watched.looks, (20.0, 25.0, 45.0), strict=True):
        assert START + due <= look <= START + due + SLOT_SECONDS + 0.1


def test_none_means_never_again() -> None:
    wheel, watched = TimerWheel(START), Watched()
    wheel.watch(watched, START + 1.0)
    run(wheel, START, START + 100.0)
    assert len(watched.looks) == 1


def test_a_late_turn_leaves_nobody_out() -> None:
    """An event loop that was busy for a while looks at everything that came due meanwhile, each once."""
    wheel = TimerWheel(START)
    watched = [Watched() for _ in range(50)]
    for number, each in enumerate(watched):
        wheel.watch(each, START + number * 0.1)
    wheel.turn(START + 10.0)
    assert [each.looks for each in watched] == [[START + 10.0]] * 50


def test_a_look_that_is_due_already_comes_with_the_next_turn() -> None:
    wheel, watched = TimerWheel(START), Watched()
    wheel.turn(START + 5.0)
    wheel.watch(watched, START + 1.0)
    wheel.turn(START + 5.0 + SLOT_SECONDS)
    assert len(watched.looks) == 1


def test_watching_from_within_a_look() -> None:
    """What is closed while it is looked at is watched anew from there, by itself."""
    wheel, other = TimerWheel(START), Watched()

    class Closing:
        def look(self, now: float) -> float | None:
            wheel.watch(other, now + 3.0)
            return None

    wheel.watch(Closing(), START + 1.0)
    run(wheel, START, START + 5.0)
    assert len(other.looks) == 1
