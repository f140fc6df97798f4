"""Rate limits: an exact sliding window, and a token bucket for PING.

"60 in any 60 s" is meant literally: of every 60 s that one could look at, none may hold a 61st. Counting per calendar minute or with
leaky averages would let up to twice as many through, so the window keeps the time of each event, in a ring that is as long as the
limit. A new event is allowed when the one `limit` events ago has left the window: one comparison, whatever the limit.
"""

from __future__ import annotations

import math
from array import array

from core.wire.protocol import RATE_WINDOW, ErrorCode, Refusal


class SlidingWindow:
    """At most `limit` events in any `window` seconds; a limit of 0 allows everything.

    Asking (`retry_after`) and counting (`count`) are apart, since a message counts only once it has been accepted (D10). Memory is 8
    bytes per event actually counted, at most `limit` of them.
    """

    __slots__ = ("_limit", "_oldest", "_times", "_window")

    def __init__(self, limit: int, window: float = RATE_WINDOW) -> None:
        self._limit = limit
        self._window = window
        #: When each of the last `limit` events was; a ring once it is full, `_oldest` being where it starts.
        self._times: array[float] | tuple[()] = ()
        self._oldest = 0

    @property
    def limit(self) -> int:
        """How many events are allowed; 0 for any number."""
        return self._limit

    def retry_after(self, now: float, pending: int = 0) -> float:
        """Return seconds until one more event is allowed, 0.0 when it is now; `pending` events count as if they had just happened."""
        limit = self._limit
        if not limit or len(self._times) + pending < limit:
            return 0.0
        if pending >= limit:
            return self._window
        # The event that must have left the window for this one to enter: with k pending, the k-th after the oldest.
        times = self._times
        index = len(times) + pending - limit
        wait = times[(self._oldest + index) % len(times)] + self._window - now
        return wait if wait > 0.0 else 0.0

    def count(self, now: float) -> None:
        """Enter one event. `now` must not be less than at the call before."""
        limit = self._limit
        if not limit:
            return
        times = self._times
        if not times:
            self._times = array("d", (now,))
            return
        if len(times) < limit:
            times.append(now)
            return
        times[self._oldest] = now
        self._oldest = (self._oldest + 1) % limit

    def recent(self, now: float) -> int:
        """Return how many events of the last `window` seconds have been counted."""
        return len(self.recent_times(now))

    def recent_times(self, now: float) -> list[float]:
        """Return when the events of the last `window` seconds were, oldest first."""
        start = now - self._window
        times = self._times
        return [time for time in (*times[self._oldest :], *times[: self._oldest]) if time > start]

    def count_all(self, times: list[float]) -> None:
        """Count what another window has counted (`recent_times`), oldest first."""
        for time in times:
            self.count(time)

    def allow(self, now: float) -> bool:
        """Count one event if it is allowed, and say whether it was."""
        if self.retry_after(now) > 0.0:
            return False
        self.count(now)
        return True


class TokenBucket:
    """`rate` events a second with a burst of `burst`; a rate of 0 allows everything."""

    __slots__ = ("_burst", "_rate", "_refilled", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._refilled = now

    def retry_after(self, now: float) -> float:
        """Take one token and return 0.0, or return the seconds until there is one."""
        if not self._rate:
            return 0.0
        tokens = min(self._burst, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return 0.0
        self._tokens = tokens
        return (1.0 - tokens) / self._rate

    def export(self) -> list[float]:
        """Return what `restore` needs in a successor."""
        return [self._tokens, self._refilled]

    def restore(self, exported: list[float]) -> None:
        """Go on from where the bucket of the predecessor was."""
        tokens, self._refilled = exported
        self._tokens = min(self._burst, tokens)


def rate_limited(what: str, limit: int, wait: float) -> Refusal:
    """Make the RATE_LIMITED of a per-minute limit; waiting `retry_after` seconds is enough (D23)."""
    return Refusal(
        ErrorCode.RATE_LIMITED,
        f"at most {limit} {what} in {RATE_WINDOW:.0f} seconds",
        limit=limit,
        window=RATE_WINDOW,
        retry_after=math.ceil(wait * 1000) / 1000,
    )


def ping_limited(rate: float, wait: float) -> Refusal:
    """Make the RATE_LIMITED of PING; waiting `retry_after` seconds is enough (D23)."""
    return Refusal(
        ErrorCode.RATE_LIMITED,
        f"at most {rate:g} PING a second",
        limit=rate,
        window=1,
        retry_after=math.ceil(wait * 1000) / 1000,
    )
