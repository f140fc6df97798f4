"""One tier of the dashboard's history: samples of the same length in a ring."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
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

    def after(self, number: int) -> dict[str, Any]:
        """Return what there is behind sample `number`, as JSON takes it; everything when that number is not known.

        Columns stand by their path. One that is 0 in all samples is left out. NaN, which JSON has as null, is what is not known.
        """
        oldest = max(0, self.last - self._capacity)
        first = number if oldest <= number <= self.last else oldest
        rows = [index % self._capacity for index in range(first, self.last)]
        answer: dict[str, Any] = {"step": self.step, "last": self.last}
        answer["times"] = [round(self._times[row], 3) for row in rows]
        answer["server"], answer["histograms"], answer["processes"] = {}, {}, {}
        for paths, data in ((self._columns.counts, self._counts), (self._columns.values, self._values)):
            width = len(paths)
            samples = (data[row * width : (row + 1) * width] for row in rows)
            for path, column in zip(paths, zip(*samples, strict=True), strict=False):
                if any(column):
                    *above, name = path
                    group = answer
                    for key in above:
                        group = group.setdefault(key, {})
                    group[name] = column
        return answer
