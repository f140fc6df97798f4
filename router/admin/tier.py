"""One tier of the dashboard's history: samples of the same length in a ring."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from router.admin.columns import Columns


class Tier:
    """Samples of one length in a ring: the oldest make room for the newest."""

    def __init__(self, step: int, capacity: int, columns: Columns) -> None:
        self.step = step
        #: How many samples there ever were: the number of the last one.
        self.last = 0
        self._capacity = capacity
        self._columns = columns
        self._times = array("d", bytes(8 * capacity))
        #: Row by row.
        self._counts = array("q", bytes(8 * capacity * len(columns.counts)))
        self._values = array("d", bytes(8 * capacity * len(columns.values)))

    def append(self, time: float, counts: Sequence[int], values: Sequence[float]) -> None:
        """Add a sample that ends at `time`."""
        row = self.last % self._capacity
        self._times[row] = time
        width = len(counts)
        self._counts[row * width : (row + 1) * width] = array("q", counts)
        width = len(values)
        self._values[row * width : (row + 1) * width] = array("d", values)
        self.last += 1

    def widen(self, columns: Columns) -> None:
        """Go on with `columns`, which begin with those that there are. The others are not known up to now, and their counts are 0."""
        before, self._columns = self._columns, columns
        counts = array("q", [0]) * (self._capacity * len(columns.counts))
        values = array("d", [math.nan]) * (self._capacity * len(columns.values))
        of_count, of_value = len(before.counts), len(before.values)
        for row in range(self._capacity):
            begin = row * len(columns.counts)
            counts[begin : begin + of_count] = self._counts[row * of_count : (row + 1) * of_count]
            begin = row * len(columns.values)
            values[begin : begin + of_value] = self._values[row * of_value : (row + 1) * of_value]
        self._counts, self._values = counts, values

    def after(self, number: int) -> dict[str, Any]:
        """Return what there is behind sample `number`, as JSON takes it; everything when that number is not known.

        Columns stand by their path. One that is 0 in all samples is left out, but for `up`. NaN, which JSON has as null, is what is not
        known. A process that was not there in any of the samples is left out; in a sample without it, `up` is not known.
        """
        oldest = max(0, self.last - self._capacity)
        first = number if oldest <= number <= self.last else oldest
        rows = [index % self._capacity for index in range(first, self.last)]
        answer: dict[str, Any] = {"step": self.step, "last": self.last}
        answer["times"] = [round(self._times[row], 3) for row in rows]
        answer["server"], answer["histograms"], answer["processes"] = {}, {}, {}
        known = {name for name in self._columns.processes if self._has_seen(name, rows)}
        for paths, data in ((self._columns.counts, self._counts), (self._columns.values, self._values)):
            width = len(paths)
            samples = (data[row * width : (row + 1) * width] for row in rows)
            for path, column in zip(paths, zip(*samples, strict=True), strict=False):
                *above, name = path
                if path[0] == "processes" and path[1] not in known:
                    continue
                if any(column) or name == "up":
                    group = answer
                    for key in above:
                        group = group.setdefault(key, {})
                    group[name] = column
        return answer

    def _has_seen(self, process: str, rows: Iterable[int]) -> bool:
        width, column = len(self._columns.values), self._columns.value_at["processes", process, "up"]
        return not all(math.isnan(self._values[row * width + column]) for row in rows)
