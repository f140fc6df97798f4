"""Series, which are metrics with the values of their labels, and histograms. ``core.process.metrics`` has the table of metrics."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import Any, Final

#: Seconds, each about half as much again as the one before, from 10 microseconds to 10 seconds.
SECONDS: Final = (
    *(round(step * 10.0**decade, 7) for decade in range(-5, 1) for step in (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)),
    10.0,
)
#: A number of things.
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

#: Values that a histogram gathers before it counts them.
_GATHERED_MAX: Final = 512

#: Values of the label `route`: whether sender and recipient live on the same shard.
LOCAL: Final = "local"
BUS: Final = "bus"
#: A label's value for everything that has no value of its own.
OTHER: Final = "other"

_SERIES: Final = re.compile(r"([a-z_]+)(?:\{(.*)\})?", re.DOTALL)
_LABEL: Final = re.compile(r'([a-z_]+)="([^"]*)"(?:,|$)')


def series(name: str, **labels: str) -> str:
    """Return the name under which a metric is reported for these values of its labels, which must not contain a double quote."""
    if not labels:
        return name
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}"


def split_series(text: str) -> tuple[str, dict[str, str]]:
    """Undo `series`. Raises ValueError for what it does not make."""
    match = _SERIES.fullmatch(text)
    if match is None:
        raise ValueError(f"not the name of a series: {text[:80]!r}")
    labels = match[2] or ""
    found = _LABEL.findall(labels)
    if ",".join(f'{label}="{value}"' for label, value in found) != labels:
        raise ValueError(f"not the labels of a series: {text[:80]!r}")
    return match[1], dict(found)


class Histogram:
    """How often values fell into the ranges that `bounds` end; a value belongs to the first range whose end is not below it.

    Values are gathered and sorted before they are counted: that takes a quarter of what looking for the range of each would.
    """

    __slots__ = ("_bounds", "_counts", "_gathered", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        #: One more than there are bounds: the last is for what is above all of them.
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._gathered: list[float] = []

    def record(self, value: float) -> None:
        """Count a value."""
        self._gathered.append(value)
        if len(self._gathered) >= _GATHERED_MAX:
            self._count()

    def record_all(self, values: list[float]) -> None:
        """Count these values."""
        self._gathered += values
        if len(self._gathered) >= _GATHERED_MAX:
            self._count()

    def report(self) -> dict[str, Any]:
        """Return it as the supervisor gets it: ``{"counts": [...], "sum": ...}``."""
        self._count()
        return {"counts": self._counts.copy(), "sum": self._sum}

    def _count(self) -> None:
        values, counts = self._gathered, self._counts
        if not values:
            return
        self._gathered = []
        values.sort()
        self._sum += sum(values)
        start = 0
        for index in range(bisect_left(self._bounds, values[0]), len(self._bounds)):
            end = bisect_right(values, self._bounds[index], start)
            counts[index] += end - start
            if end == len(values):
                return
            start = end
        counts[-1] += len(values) - start


def quantile(bounds: tuple[float, ...], counts: list[int], share: float) -> float:
    """Return the value below which that share of all lie, evenly spread within a range, as Prometheus reckons; 0 when there are none.

    `counts` are those of one `Histogram`, or the difference between two reports of it. What lies above all bounds counts as the last one.
    """
    total = sum(counts)
    if not total:
        return 0.0
    rank, below = share * total, 0
    for index, count in enumerate(counts[:-1]):
        if count and below + count >= rank:
            low = bounds[index - 1] if index else 0.0
            return low + (bounds[index] - low) * (rank - below) / count
        below += count
    return bounds[-1]
