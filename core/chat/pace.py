"""How fast a client is read whose messages come to nothing (D23).

A message that is refused costs as much as one that is not, and a client that does not listen sends them without end. So what comes to
nothing is *charged*: a connection has a credit that refills with time, beyond it a share of what the whole shard can spare, and beyond
that it is not read from for a moment. Everything that is read is answered, nothing is dropped: an outbox that is sent too fast, or
all chats opened again at once, is through in seconds. Only who goes on for minutes is closed.
"""

from __future__ import annotations

from typing import Final

from core.chat.ratelimit import TokenBucket
from core.wire.protocol import RATE_WINDOW

#: Messages a second that may come to nothing on one connection. D23 says 20 at least; with these 300 that were sent in one go are
#: through, and a PING behind them is answered, within 5 s whatever others do.
RATE: Final = 60.0
#: The same, at once. It is small since a crowd of floods has it that often: what 48 of them may send at once, others wait for.
BURST: Final = 20.0
#: What all connections of a shard may have beyond that, a second and at once: a thirtieth of a core. The 230 chats or 300 messages of
#: somebody who comes back alone are through before it is felt.
SHARED_RATE: Final = 2000.0
SHARED_BURST: Final = 300
#: The credit with which reading begins again: one by one, each message would cost a wake-up and a write of its own.
_REGAINED: Final = 6.0
#: Refusals in a minute, and such minutes in a row, after which one more closes the connection.
REFUSALS_PER_MINUTE: Final = 200
_MINUTES: Final = 3


def shared_credit() -> TokenBucket:
    """Return what the connections of one shard have in common, all of it at first."""
    return TokenBucket(SHARED_RATE, SHARED_BURST, 0.0)


class Pace:
    """The credit of one connection, from the first message on that came to nothing. Times are in seconds on the monotonic clock."""

    __slots__ = ("_at", "_bad_minutes", "_credit", "_minute_ends", "_refused")

    def __init__(self, now: float) -> None:
        self._credit = BURST
        self._at = now
        #: When the minute ends in which refusals are being counted, how many there were, and how many bad minutes came right before it.
        self._minute_ends = now + RATE_WINDOW
        self._refused = 0
        self._bad_minutes = 0

    def charge(self, now: float, shared: TokenBucket, weight: int = 1) -> float:
        """Count a message that came to nothing, or as many as it weighs. When to read the next one; 0.0 for at once."""
        credit = self._credit + (now - self._at) * RATE
        if credit > BURST:
            credit = BURST
        self._at = now
        if credit >= weight:
            self._credit = credit - weight
            return 0.0
        if weight == 1 and not shared.retry_after(now):
            self._credit = credit
            return 0.0
        # What had been read already when reading stopped is owed, but not more than a second of it.
        self._credit = max(credit - weight, -RATE)
        return now + (_REGAINED - self._credit) / RATE

    def goes_on(self, now: float) -> bool:
        """Count a refusal; whether there have been more than 200 in each of three minutes in a row."""
        if now >= self._minute_ends:
            bad = self._refused > REFUSALS_PER_MINUTE and now < self._minute_ends + RATE_WINDOW
            self._bad_minutes = self._bad_minutes + 1 if bad else 0
            # The next minute follows the last one if that was bad, else it begins with this refusal.
            self._minute_ends = (self._minute_ends if bad else now) + RATE_WINDOW
            self._refused = 0
        self._refused += 1
        return self._refused > REFUSALS_PER_MINUTE and self._bad_minutes >= _MINUTES - 1

    def export(self) -> list[float]:
        """Return what `restore` needs in a successor."""
        return [self._credit, self._at, self._minute_ends, self._refused, self._bad_minutes]

    def restore(self, exported: list[float]) -> None:
        """Go on from where the credit of the predecessor was."""
        self._credit, self._at, self._minute_ends, refused, bad_minutes = exported
        self._refused, self._bad_minutes = int(refused), int(bad_minutes)
