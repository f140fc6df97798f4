"""How many connections may come from one source, an IPv4 address or an IPv6 /64 (``core.process.addresses``), and in all.

| limit | setting | counts |
|---|---|---|
| address | FASTCHAT_CONNECTIONS_PER_IP | connections that this front has, and those that all workers have |
| rate | FASTCHAT_CONNECTION_RATE_PER_IP | connections to this front, in a token bucket |
| half_open | FASTCHAT_HALF_OPEN_PER_IP | connections of this front that have not said HELLO |
| server | FASTCHAT_MAX_CONNECTIONS | as `address`, from everywhere |

A connection that was handed over counts here until its worker has told that it counts there (``core.process.counting``): so with one front
no connection is ever counted twice or missed. Several fronts know nothing of each other's connections before HELLO; what they have handed
over they all know a tenth of a second later. The tables are as large as there are connections, and the buckets as many as there
were addresses within the last seconds.

No I/O and no clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from core.process.addresses import is_this_machine, source_of
from core.process.counting import Counted
from core.process.settings import Settings

#: What a source may have half open unless the operator says otherwise; each is there for as long as a round trip or two takes, so it is
#: enough for thousands of users behind one address. Loopback has no such limit, since a proxy there may stand for everybody.
HALF_OPEN_DEFAULT: Final = 256
#: Seconds of its rate that a source may use at once.
_BURST_SECONDS: Final = 3.0
#: Buckets; more addresses than this within `_BURST_SECONDS` would be an attack that no limit per address stops.
BUCKETS_MAX: Final = 100_000
#: Numbers of tickets are 32 bits wide, and go round.
_NUMBERS: Final = 1 << 32


class Denial(NamedTuple):
    """A connection that is too much."""

    #: Which limit: a value of the label of ``front_limited_total``.
    limit: str
    #: For the client.
    sentence: str
    #: Seconds after which it makes sense to try again.
    retry_after: int


_BY_ADDRESS: Final = Denial("address", "There are too many connections from this address.", 5)
_BY_RATE: Final = Denial("rate", "Too many new connections come from this address.", 1)
_BY_HALF_OPEN: Final = Denial(
    "half_open", "Too many connections from this address have not said HELLO yet.", 5
)
_BY_SERVER: Final = Denial("server", "The server has reached its limit on connections.", 5)
DENIALS: Final = (_BY_ADDRESS, _BY_RATE, _BY_HALF_OPEN, _BY_SERVER)


class Slot:
    """What one connection takes up, from `AddressLimits.enter` to `leave`."""

    __slots__ = ("half_open", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        #: Whether it has not said HELLO.
        self.half_open = True


class AddressLimits:
    """The counts of one front, and what the workers have told it."""

    def __init__(self, settings: Settings) -> None:
        self._per_source = settings.connections_per_ip
        self._in_all = settings.max_connections
        self._half_open_max = settings.half_open_per_ip
        self._buckets = _Buckets(settings.connection_rate_per_ip)
        #: Connections of this front: by source, those of them that have not said HELLO, and in all.
        self._own: dict[str, int] = {}
        self._half_open: dict[str, int] = {}
        self._own_total = 0
        #: What each worker has told, and the sum by source.
        self._workers = [_Told() for _ in range(settings.workers)]
        self._far: dict[str, int] = {}

    # -- A connection --

    def enter(self, host: str, now: float) -> Slot | Denial:
        """Take in a connection from `host`, or deny it. A slot must be given back with `leave`, once."""
        name = source_of(host)
        if not self._buckets.take(name, now):
            return _BY_RATE
        if self._per_source and self._count(name) >= self._per_source:
            return _BY_ADDRESS
        half_open_max = self._half_open_max
        if half_open_max is None:
            half_open_max = 0 if is_this_machine(host) else HALF_OPEN_DEFAULT
        if half_open_max and self._half_open.get(name, 0) >= half_open_max:
            return _BY_HALF_OPEN
        slot = Slot(name)
        self._own_total += 1
        _add(self._own, name, 1)
        _add(self._half_open, name, 1)
        return slot

    def is_full(self) -> Denial | None:
        """Return whether the server has no room for one more than it has, this front's own connections included."""
        if self._in_all and self._total() > self._in_all:
            return _BY_SERVER
        return None

    def said_hello(self, slot: Slot) -> Denial | None:
        """Count it as half open no more. Other fronts may have let in others meanwhile: then it is too much after all."""
        self._opened(slot)
        if self._per_source and self._count(slot.name) > self._per_source:
            return _BY_ADDRESS
        return self.is_full()

    def leave(self, slot: Slot) -> None:
        """Count out one that has ended, or is no longer this front's."""
        self._opened(slot)
        self._own_total -= 1
        _add(self._own, slot.name, -1)

    def handed_over(self, slot: Slot, worker: int, number: int) -> None:
        """Note that `worker` has adopted it under the number of this ticket: it counts here until the worker counts it."""
        told = self._workers[worker]
        if told.counts and not _includes(told.last, number):
            told.adopted.append((number, slot))
        else:
            self.leave(slot)

    # -- What workers tell --

    def heard(self, worker: int, counted: Counted) -> None:
        """Take what a worker told: how many it has."""
        told = self._workers[worker]
        told.counts = True
        told.total = counted.total
        told.last = counted.last
        for name, number in counted.sources.items():
            _add(self._far, name, number - told.sources.get(name, 0))
            if number:
                told.sources[name] = number
            else:
                told.sources.pop(name, None)
        while told.adopted and _includes(counted.last, told.adopted[0][0]):
            self.leave(told.adopted.popleft()[1])

    def worker_gone(self, worker: int) -> None:
        """Note that a worker does not exist any more, and neither do its connections."""
        told = self._workers[worker]
        for name, number in told.sources.items():
            _add(self._far, name, -number)
        for _, slot in told.adopted:
            self.leave(slot)
        self._workers[worker] = _Told()

    def resize(self, workers: int) -> None:
        """Note that so many workers have taken the place of all others, and have told nothing yet."""
        for worker in range(len(self._workers)):
            self.worker_gone(worker)
        self._workers = [_Told() for _ in range(workers)]

    # -- What there is to tell --

    def sizes(self) -> Mapping[str, int]:
        """Return how large each table is."""
        return {
            "own": len(self._own),
            "half_open": len(self._half_open),
            "far": len(self._far),
            "buckets": len(self._buckets),
        }

    def _count(self, name: str) -> int:
        return self._own.get(name, 0) + self._far.get(name, 0)

    def _total(self) -> int:
        return self._own_total + sum(told.total for told in self._workers)

    def _opened(self, slot: Slot) -> None:
        if slot.half_open:
            slot.half_open = False
            _add(self._half_open, slot.name, -1)


class _Told:
    """What is known of a worker's connections."""

    __slots__ = ("adopted", "counts", "last", "sources", "total")

    def __init__(self) -> None:
        #: Whether it has told anything.
        self.counts = False
        self.total = 0
        #: The number of the last ticket that it counts.
        self.last: int | None = None
        self.sources: dict[str, int] = {}
        #: Number of the ticket and slot of what it has adopted and may not have told yet, in order.
        self.adopted: deque[tuple[int, Slot]] = deque()


class _Buckets:
    """A token bucket for each source; one that is full again is forgotten."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._burst = rate * _BURST_SECONDS
        #: source -> (tokens, when that was so); those used last are last.
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, name: str, now: float) -> bool:
        """Take a token; False when there is none."""
        if not self._rate:
            return True
        levels = self._levels
        while levels:
            oldest, (_, since) = next(iter(levels.items()))
            if now - since < _BURST_SECONDS and len(levels) < BUCKETS_MAX:
                break
            del levels[oldest]
        tokens, since = levels.pop(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        allowed = tokens >= 1.0
        levels[name] = (tokens - 1.0 if allowed else tokens, now)
        return allowed


def _add(counts: dict[str, int], name: str, step: int) -> None:
    number = counts.get(name, 0) + step
    if number > 0:
        counts[name] = number
    else:
        counts.pop(name, None)


def _includes(last: int | None, number: int) -> bool:
    """Return whether a worker whose last ticket is `last`, None for none, counts this one too."""
    return last is not None and (last - number) % _NUMBERS < _NUMBERS // 2
