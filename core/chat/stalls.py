"""When a process stood still: it was suspended, or got no CPU time.

What clients, other processes and timers did meanwhile comes all at once afterwards, the timers first perhaps. So a process that has stood
still gives back to everybody the time that it took: nobody is judged by what did not happen while it could not have been seen.
"""

from __future__ import annotations

import math
from typing import Final

#: Seconds that a timer is late when the process stood still. Less is a busy moment, and shorter than any time that somebody is given.
_STOOD_STILL: Final = 1.0


class Stalls:
    """`beat` is called by a timer every `interval` seconds, as the first thing that it does."""

    __slots__ = ("_interval", "_last")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._last = math.inf

    def beat(self, now: float) -> float:
        """Return for how many seconds the process stood still since the last beat; 0.0 if it did not."""
        late = now - self._last - self._interval
        self._last = now
        return late if late >= _STOOD_STILL else 0.0


def later(due: float, seconds: float, latest: float) -> float:
    """Return when something is due after a stall of `seconds`: not later than `latest`, when it would be if it began now."""
    return min(due + seconds, latest)
