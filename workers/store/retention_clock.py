"""The clock by which retention goes: how much time has passed for a file, whatever the time of day says (D20).

The time of day may be wrong, and then be put right: a board that starts in 1970, an operator who types the wrong year. So ages are not
differences of times of day. This clock runs with uptime, which can't be wrong, and follows the time of day where that runs as a clock does.

What passed while no server ran, only the time of day can tell. That much is *owed*: the clock runs up to `FASTEST` times as fast as uptime
until it is paid. A clock that was wrong for a while has moved it by little when it is put right, and that takes back what is owed. No more
is owed than makes everything that is stored old; and what is stored meanwhile is as old as if it had been paid (`stamp`).

While the server runs, a jump of the time of day is none of time: nothing is owed for it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: How many times as fast as uptime it runs at most (D20).
FASTEST: Final = 24
#: Milliseconds by which the time of day may differ from uptime before that is a jump; and by which it may be ahead after a stop.
_SLACK: Final = 1000
_STOP: Final = 3_600_000
#: 2024-01-01, in milliseconds since 1970: before FastChat was there, no clock that was right has said less.
_PLAUSIBLE: Final = 1_704_067_200_000


class ClockState(NamedTuple):
    """What is kept over restarts; all in milliseconds."""

    #: How much time has passed since the file was made, and how much of it a server ran.
    passed: int
    ran: int
    #: How much more has passed, by the time of day.
    owed: int
    #: The time of day when this was so, since 1970; None if no server has run yet.
    wall: int | None


class Jump(NamedTuple):
    """The time of day is not where it would be had time just passed."""

    #: Milliseconds; negative when it was put back.
    by: int
    #: Whether that is since no server ran: then it may be that time has just passed.
    after_stop: bool

    def __str__(self) -> str:
        hours = abs(self.by) / 3_600_000
        size = (
            f"{hours / 24:,.1f} days"
            if hours >= 48
            else f"{hours:.1f} hours"
            if hours >= 1
            else f"{hours * 3600:.0f} s"
        )
        way = "ahead" if self.by > 0 else "back"
        if not self.after_stop:
            return f"the clock has jumped {size} {way}: the jump does not change the ages of stored messages"
        if self.by < 0:
            return f"the clock has jumped {size} back since a server ran last: the jump does not change the ages of stored messages"
        return (
            f"the clock has jumped {size} ahead since a server ran last: because the clock may be wrong, this time is added to the ages"
            f" of stored messages gradually, at most {FASTEST} times as fast as time passes"
        )


class RetentionClock:
    """The clock of one file; `advance` comes first, and again and again."""

    __slots__ = ("_now", "_owed", "_owed_max", "_passed", "_ran", "_wall")

    def __init__(self, state: ClockState, owed_max: int) -> None:
        """`owed_max` is an age in milliseconds that is old for everything that is stored."""
        self._passed, self._ran, self._owed = state.passed, state.ran, state.owed
        self._owed_max = owed_max
        #: As of the last `advance`: the time of day, in milliseconds, and the monotonic clock, in seconds.
        self._wall = state.wall
        self._now: float | None = None

    @property
    def state(self) -> ClockState:
        """What is to be kept."""
        return ClockState(self._passed, self._ran, self._owed, self._wall)

    def advance(self, now: float, wall: int) -> Jump | None:
        """Let the time until now pass, on the monotonic clock in seconds; `wall` is the time of day. How that has jumped, if it has."""
        before, self._wall = self._wall, wall
        if self._now is None or before is None:
            self._now = now
            return self._start(before, wall)
        elapsed = max(0, round((now - self._now) * 1000))
        moved = wall - before
        self._now += elapsed / 1000
        is_ahead = moved > FASTEST * elapsed + _SLACK
        passed = elapsed if is_ahead else min(max(elapsed, moved), FASTEST * elapsed)
        if moved < elapsed:
            self._owed = max(0, self._owed - (elapsed - moved))
        paid = min(self._owed, FASTEST * elapsed - passed)
        self._owed -= paid
        self._passed += passed + paid
        self._ran += elapsed
        return Jump(moved - elapsed, False) if is_ahead or moved < elapsed - _SLACK else None

    def _start(self, before: int | None, wall: int) -> Jump | None:
        """Start to run: what has passed since the last server is owed."""
        if before is None or before < _PLAUSIBLE:
            return None
        moved = wall - before
        self._owed = min(max(0, self._owed + moved), self._owed_max)
        return Jump(moved, True) if not -_SLACK <= moved <= _STOP else None

    def stamp(self, now: float) -> int:
        """Return by what time of this clock to remember what is stored now: what is owed passed before that."""
        since = 0.0 if self._now is None else max(0.0, now - self._now)
        return self._passed + self._owed + int(since * 1000)
