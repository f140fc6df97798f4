"""Everybody's turn: how much of a loop turn one client may take (D23).

The event loop and picows read whatever a client has sent, all of it before anybody else has a turn. That is right for those who send
a few messages at a time, and costs nothing; so a connection is only counted at first. Who has sent more than `DIRECT` in one turn is
*metered*: a `Meter` takes the place of picows in front of the socket, reads little at a time, and gives it to picows bit by bit when it is
the connection's turn. All that have something to give wait in one line, and a turn takes no more from the line than `_TURN`.

    direct --- too much in one turn, or held ---> metered: read -> line -> picows -> read ...
       ^                                              |
       +------- nothing waits, for a while -----------+

The same way does for all reasons not to read from a client for a moment: `Connection.hold` says until when.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Final, Protocol

#: All shares are in messages: one that is long counts once more for each 256 bytes, as a number of bits to shift by.
LENGTH_SHIFT: Final = 8
#: What a connection may send in a turn before it is metered: eight messages and as many acknowledgements. A crowd that begins to flood in
#: one moment has that much in the first turn, and others wait for it.
DIRECT: Final = 16
#: What a metered connection gets when it has its turn, and what all of them get in one turn of the loop: about a millisecond.
_SHARE: Final = 16
_TURN: Final = 64
#: Bytes that are read at a time from a metered connection, and bytes of the shortest message, so that few more frames are parsed than
#: its share has.
_READ_BYTES: Final = 2048
_SHORTEST: Final = 32
#: Seconds without too much until a connection is metered no more. In each of them one that is not may send a burst.
_CALM: Final = 10.0


class Metered(Protocol):
    """A connection, as it is read."""

    #: What it may send before it is looked at whether that is too much.
    allowance: int
    #: Until when it is not to be read from.
    held_until: float
    #: What reads for it when it sends too much.
    meter: Meter | None

    @property
    def stream(self) -> asyncio.Transport | None:
        """The event loop's transport, while the client may say something on it."""

    def pause_reading(self) -> None:
        """Leave what the client sends where it is."""

    def resume_reading(self) -> None:
        """Read again."""


class Meter(asyncio.BufferedProtocol):
    """Stands between the socket of one connection and `parser`, picows' protocol."""

    __slots__ = ("_connection", "_end", "_full", "_raw", "_rounds", "_start", "calm_at", "parser", "waits")

    def __init__(self, connection: Metered, parser: Any, rounds: Rounds, calm_at: float) -> None:
        self._connection = connection
        self.parser = parser
        self._rounds = rounds
        #: What has been read, and which part of it the parser has not got.
        self._raw = memoryview(bytearray(_READ_BYTES))
        self._start = self._end = 0
        #: Whether the last read found as much as was asked for: then there is more.
        self._full = True
        #: Whether it is in the line.
        self.waits = False
        #: When it is needed no more, if nothing happens.
        self.calm_at = calm_at

    @property
    def has_bytes(self) -> bool:
        """Whether there is something to give to the parser."""
        return self._start < self._end

    def serve(self, now: float) -> int:
        """Give the parser the connection's share, and say how much of it that was."""
        connection = self._connection
        connection.allowance = _SHARE
        while (
            self.has_bytes
            and connection.allowance > 0
            and connection.stream is not None
            and connection.held_until <= now
        ):
            self._give(min(self._end - self._start, connection.allowance * _SHORTEST))
        if self.has_bytes:
            self.calm_at = now + _CALM
        return max(1, _SHARE - connection.allowance)

    def give_rest(self) -> None:
        """Give the parser all at once: the connection is closing, and only the client's Close frame is still looked for."""
        while self.has_bytes:
            self._give(self._end - self._start)

    def _give(self, size: int) -> None:
        """Give the parser at most so many bytes."""
        buffer = self.parser.get_buffer(-1)
        size = min(size, len(buffer))
        buffer[:size] = self._raw[self._start : self._start + size]
        self._start += size
        self.parser.buffer_updated(size)

    def rest(self) -> bytes:
        """Return what has been read and not given to the parser."""
        return bytes(self._raw[self._start : self._end])

    def may_go(self, now: float) -> bool:
        """Return whether the connection has been calm for long enough to be read without it."""
        return not self._full and not self.has_bytes and now >= self.calm_at

    # -- From the event loop --

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._raw

    def buffer_updated(self, nbytes: int) -> None:
        self._start, self._end = 0, nbytes
        self._full = nbytes == _READ_BYTES
        self._connection.pause_reading()
        self._rounds.go_on(self._connection)

    def eof_received(self) -> Any:
        return self.parser.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.parser.connection_lost(exc)

    def pause_writing(self) -> None:
        self.parser.pause_writing()

    def resume_writing(self) -> None:
        self.parser.resume_writing()


class Rounds:
    """The line of the metered connections of one worker, and those that are held."""

    def __init__(self, loop: asyncio.AbstractEventLoop, schedule: Callable[[], None]) -> None:
        """`schedule` makes sure that `serve` is called at the end of this loop turn."""
        self._loop = loop
        self._schedule = schedule
        self._line: deque[tuple[Metered, Meter]] = deque()
        #: (until when, a number that makes it unique, who); what has been said otherwise since then does not count.
        self._held: list[tuple[float, int, Metered]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        #: How often a connection was metered, and how often one was held for a moment, its messages having come to nothing.
        self.metered = 0
        self.slowed = 0

    def meter(self, connection: Metered) -> None:
        """Meter one that takes too much of a turn."""
        calm_at = monotonic() + _CALM
        stream = connection.stream
        if connection.meter is not None:
            connection.meter.calm_at = calm_at
        elif stream is not None:
            self.metered += 1
            connection.meter = Meter(connection, stream.get_protocol(), self, calm_at)
            stream.set_protocol(connection.meter)

    def hold(self, connection: Metered, until: float) -> None:
        """See ``core.chat.ports.Connection``."""
        if until <= monotonic():
            self.go_on(connection)
            return
        connection.pause_reading()
        if until < math.inf:
            self.slowed += 1
            self.meter(connection)
            heappush(self._held, (until, next(self._numbers), connection))
            self._wake_for_first()

    def go_on(self, connection: Metered) -> None:
        """Go on with a connection if it is not held: with what has been read of it, or with reading."""
        if connection.held_until > monotonic():
            return
        meter = connection.meter
        if meter is None or not meter.has_bytes:
            connection.resume_reading()
        elif not meter.waits:
            meter.waits = True
            self._line.append((connection, meter))
            self._schedule()

    def serve(self, now: float) -> bool:
        """Give those in the line their share of one turn, in order; whether somebody is left."""
        left = _TURN
        for _ in range(len(self._line)):
            if left <= 0:
                break
            connection, meter = self._line.popleft()
            meter.waits = False
            left -= meter.serve(now)
            if meter.may_go(now):
                self._stop_metering(connection, meter)
            self.go_on(connection)
        return bool(self._line)

    def _stop_metering(self, connection: Metered, meter: Meter) -> None:
        stream = connection.stream
        if stream is not None:
            stream.set_protocol(meter.parser)
            connection.meter = None
            connection.allowance = DIRECT

    def _wake_for_first(self) -> None:
        if self._timer is None and self._held:
            self._timer = self._loop.call_later(max(0.0, self._held[0][0] - monotonic()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = monotonic()
        while self._held and self._held[0][0] <= now:
            self.go_on(heappop(self._held)[2])
        self._wake_for_first()
