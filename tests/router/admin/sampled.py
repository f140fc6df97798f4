"""What the tests of the dashboard's history share: reports of workers, and what a page gets."""

from __future__ import annotations

import json
from typing import Any, Final

from core.measures import SECONDS, Histogram
from core.wire.codec import to_json
from router.admin.samples import (
    SECOND,
    Reading,
    Samples,
)

#: Seconds since 1970 at which these tests begin.
WALL: Final = 1_800_000_000.0


def reading(
    stats: dict[str, Any], reported_at: float | None, *, process: str = "worker 0", started_at: float = 0.0
) -> Reading:
    return Reading(process, started_at, True, reported_at, stats, None, 50_000_000)


def rows(samples: Samples, step: int = SECOND, after: int = 0) -> dict[str, Any]:
    """As a page gets them."""
    answer: dict[str, Any] = json.loads(to_json(samples.tiers[step].after(after)))
    return answer


def handed_on(samples: Samples, now: float, workers: int = 2, fronts: int = 0) -> Samples:
    """The same history in another program."""
    another = Samples(workers, fronts, now)
    another.take_up(json.loads(to_json(samples.to_state())))
    return another


def count(answer: dict[str, Any], name: str) -> list[int]:
    """A column of the server; one that is left out is 0 throughout."""
    column: list[int] = answer["server"].get(name, [0] * len(answer["times"]))
    return column


class Worker:
    """Counts, and reports what it has counted, over any number of processes."""

    def __init__(self, name: str = "worker 0") -> None:
        self.name = name
        #: Over all processes.
        self.deliveries = 0
        self.latencies: list[float] = []
        self.restart(0.0)

    def restart(self, now: float) -> None:
        self.started_at = now
        self.reported_at: float | None = None
        self.stats: dict[str, Any] = {}
        self._deliveries = 0
        self._histogram = Histogram(SECONDS)

    def deliver(self, latency: float) -> None:
        self.deliveries += 1
        self._deliveries += 1
        self.latencies.append(latency)
        self._histogram.record(latency)

    def report(self, now: float) -> None:
        self.reported_at = now
        self.stats = {
            "deliveries_total": self._deliveries,
            'delivery_seconds{route="local"}': self._histogram.report(),
            "connections": 7,
        }

    def reading(self) -> Reading:
        return Reading(self.name, self.started_at, True, self.reported_at, self.stats)
