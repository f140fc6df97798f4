"""Tests of workers.store.retention_clock: how much time has passed, whatever the time of day says (D20)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.store.retention_clock import FASTEST, ClockState, Jump, RetentionClock

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
#: The first of January 2026, in milliseconds since 1970.
NOW = 1_767_225_600_000
RETENTION = 30 * DAY


class Machine:
    """A machine whose clock is set as one likes; each `run` is one life of the server."""

    def __init__(self, wall: int = NOW) -> None:
        self.wall = wall
        self.state = ClockState(0, 0, 0, None)
        self.jumps: list[Jump] = []
        self._booted = 0

    def run(self, *steps: tuple[int, int]) -> None:
        """Start the server; for each step, set the clock by so much, then let so much time pass. Then it stops."""
        clock = RetentionClock(self.state, RETENTION)
        self._booted += 1000
        now = float(self._booted)
        self._look(clock, now)
        for jump, time in steps:
            self.wall += jump
            self._look(clock, now)
            # As often as the store looks.
            for step in [MINUTE] * (time // MINUTE) + [time % MINUTE]:
                self.wall += step
                now += step / 1000
                self._look(clock, now)
        self.state = clock.state

    def _look(self, clock: RetentionClock, now: float) -> None:
        jump = clock.advance(now, self.wall)
        if jump is not None:
            self.jumps.append(jump)

    def stop(self, time: int) -> None:
        """No server runs for so long."""
        self.wall += time


def test_it_runs_with_the_time_that_passes() -> None:
    machine = Machine()
    machine.run((0, 3 * DAY))
    assert machine.state == ClockState(3 * DAY, 3 * DAY, 0, NOW + 3 * DAY)
    assert machine.jumps == []


@pytest.mark.parametrize("jump", [60 * DAY, -60 * DAY, HOUR, -MINUTE])
def test_d20_a_jump_is_no_time(jump: int) -> None:
    """Whether the clock is right before or afterwards; and it is told."""
    machine = Machine()
    machine.run((0, HOUR), (jump, MINUTE), (-jump, HOUR))
    assert machine.state.passed == machine.state.ran == 2 * HOUR + MINUTE
    assert [(jump.by, jump.after_stop) for jump in machine.jumps] == [(jump, False), (-jump, False)]
    assert str(machine.jumps[0]).startswith("the clock has jumped ")


def test_d20_a_start_with_a_clock_that_is_ahead_for_two_seconds() -> None:
    machine = Machine()
    machine.run((0, HOUR))
    machine.wall += 60 * DAY
    machine.run((0, 2 * SECOND))
    machine.wall -= 60 * DAY
    machine.run((0, HOUR))
    assert machine.state.ran == 2 * HOUR + 2 * SECOND
    assert machine.state.passed - machine.state.ran == (FASTEST - 1) * 2 * SECOND
    assert str(machine.jumps[0]).startswith("the clock has jumped 60.0 days ahead since a server ran last")
    assert str(machine.jumps[1]).startswith("the clock has jumped 60.0 days back since a server ran last")


def test_d20_a_board_that_starts_in_1970() -> None:
    """Each time: nothing is 50 years old when its clock is put right, while the server runs or between two of its lives."""
    machine = Machine(wall=0)
    machine.run((0, HOUR), (NOW, HOUR))
    machine.stop(HOUR)
    machine.wall = 0
    machine.run((0, HOUR))
    machine.wall = NOW + 5 * HOUR
    machine.run((0, HOUR))
    assert machine.state.passed == machine.state.ran == 4 * HOUR


def test_what_passed_while_no_server_ran_counts_slowly() -> None:
    machine = Machine()
    machine.run((0, HOUR))
    machine.stop(7 * DAY)
    machine.run((0, HOUR))
    assert machine.state.passed == HOUR + FASTEST * HOUR
    machine.run((0, DAY))
    assert machine.state.passed == 7 * DAY + 2 * HOUR + DAY
    assert (machine.state.ran, machine.state.owed) == (DAY + 2 * HOUR, 0)


def test_no_more_is_owed_than_makes_everything_old() -> None:
    machine = Machine()
    machine.run((0, HOUR))
    machine.stop(1000 * DAY)
    machine.run((0, 10 * DAY))
    assert machine.state.passed == HOUR + RETENTION + 10 * DAY


def test_what_comes_while_something_is_owed_is_not_older_for_that() -> None:
    clock = RetentionClock(ClockState(0, 0, 0, NOW), RETENTION)
    clock.advance(0.0, NOW + 7 * DAY)
    stamp = clock.stamp(0.0)
    for minute in range(1, 2 * DAY // MINUTE + 1):
        clock.advance(minute * 60.0, NOW + 7 * DAY + minute * MINUTE)
    assert clock.state.passed - stamp == 2 * DAY


_TIMES = st.integers(0, 5 * HOUR)


@given(
    lives=st.lists(
        st.tuples(
            st.integers(-90 * DAY, 90 * DAY),
            st.lists(st.tuples(st.integers(-90 * DAY, 90 * DAY), _TIMES), max_size=3),
        ),
        max_size=5,
    )
)
def test_d20_never_faster_than_24_times_uptime_and_never_slower(
    lives: list[tuple[int, list[tuple[int, int]]]],
) -> None:
    machine = Machine()
    for stopped, steps in lives:
        machine.wall += stopped
        before = machine.state
        machine.run(*steps)
        ran = machine.state.ran - before.ran
        assert ran == sum(time for _, time in steps)
        assert ran <= machine.state.passed - before.passed <= FASTEST * ran
        assert 0 <= machine.state.owed <= RETENTION
