"""What the dashboard's history is made of: the samples that are kept, the one that is being filled, and what is known of each process.

Each can be handed on to another program, as JSON (``router.supervisor.upgrade``). Columns go by their names, since the other program may
have others.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from router.admin.columns import GAUGES, Columns, Path, gauges, larger, ranges


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

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on behind what `after` has returned in another program."""
        self.last = state["last"] - len(state["times"])
        counts = _rows(state, self._columns.counts, int)
        values = _rows(state, self._columns.values, number)
        for time, *row in zip(state["times"], counts, values, strict=True):
            self.append(time, *row)

    def _has_seen(self, process: str, rows: Iterable[int]) -> bool:
        width, column = len(self._columns.values), self._columns.value_at["processes", process, "up"]
        return not all(math.isnan(self._values[row * width + column]) for row in rows)


def _rows(
    state: Mapping[str, Any], paths: Sequence[Path], convert: Callable[[Any], Any]
) -> Iterator[list[Any]]:
    """Return the rows of these columns; one that was left out is 0, or not known of a process that was left out."""
    size = len(state["times"])
    columns = []
    for path in paths:
        unknown = path[0] == "processes" and path[1] not in state.get("processes", {}) and convert is number
        found: Any = state
        for key in path:
            found = found.get(key, {})
        columns.append(found or [None if unknown else 0] * size)
    return ([*map(convert, row)] for row in zip(*columns, strict=True))


def number(value: Any) -> float:
    """Return what JSON has as null as what it was: not known."""
    return math.nan if value is None else float(value)


class Sample:
    """A second, or a minute, that is being filled."""

    __slots__ = ("absent", "counts", "cpu", "gauges", "histograms")

    def __init__(self, columns: Columns) -> None:
        #: By column.
        self.counts = [0] * len(columns.counts)
        #: Of processes: `columns.gauges`, and CPU seconds.
        self.gauges: dict[str, list[float]] = {}
        self.cpu: dict[str, float] = {}
        #: (worker, histogram) -> counts, of those in `WORKER_PERCENTILES`.
        self.histograms: dict[tuple[str, str], list[int]] = {}
        #: Processes that did not serve all the time.
        self.absent: set[str] = set()

    def tell(self, process: str, values: list[float]) -> None:
        """Note the state of a process, after what it has told of this time already."""
        told = self.gauges.get(process)
        if told is not None:
            values = [
                new if gauge.holds else larger(old, new)
                for gauge, old, new in zip(GAUGES, told, values, strict=True)
            ]
        self.gauges[process] = values

    def to_state(self, columns: Columns) -> dict[str, Any]:
        """Return what there is, as JSON takes it."""
        return {
            "counts": [pair for pair in zip(columns.counts, self.counts, strict=True) if pair[1]],
            "gauges": {name: _by_name(values) for name, values in self.gauges.items()},
            "cpu": self.cpu,
            "histograms": [[*key, counts] for key, counts in self.histograms.items()],
            "absent": [*self.absent],
        }

    @classmethod
    def taken_up(cls, state: Mapping[str, Any], columns: Columns) -> Self:
        """Go on with what `to_state` has returned in another program."""
        sample = cls(columns)
        for path, count in state["counts"]:
            column = columns.count_at.get(tuple(path))
            if column is not None:
                sample.counts[column] = count
        sample.gauges = {name: gauges(values) for name, values in _known(state["gauges"]).items()}
        sample.cpu = dict(state["cpu"])
        sample.histograms = {
            (worker, name): counts
            for worker, name, counts in state["histograms"]
            if name in columns.histograms and len(counts) == ranges(name)
        }
        sample.absent = set(state["absent"])
        return sample


def _by_name(values: Sequence[float]) -> dict[str, float]:
    return {gauge.metric: value for gauge, value in zip(GAUGES, values, strict=True)}


def _known(reports: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """Return what is known of each process."""
    return {
        process: {name: value for name, value in report.items() if value is not None}
        for process, report in reports.items()
    }


class Process:
    """A place among the processes, over all that fill it."""

    def __init__(self, name: str, of_worker: dict[int, int]) -> None:
        self.name = name
        #: Columns of the server -> columns of this worker.
        self.of_worker = of_worker
        #: Between these times the server has had this place.
        self.known_from, self.known_until = -math.inf, math.inf
        #: Whether there is a process now.
        self.running = False
        #: When a process took this place from another one that still ran; None once it has reported after that.
        self.took_over_at: float | None = None
        #: What the process that took the place of another one has counted already.
        self.carried: Mapping[str, Any] = {}
        self.begin(-math.inf)

    def begin(self, started_at: float) -> None:
        """Begin with another process, which counts from 0."""
        self.started_at = started_at
        self.ready = False
        #: Up to when its counters are counted, and what they were then.
        self.counted_until = started_at
        self.stats, self.carried = self.carried, {}
        self.reported = False
        #: The states that hold until it reports again.
        self.gauges: list[float] | None = None
        self.cpu_until = started_at
        self.cpu_seconds = 0.0
        self.resident_bytes = math.nan

    def to_state(self) -> dict[str, Any]:
        """Return what there is, as JSON takes it: null for what is not known."""
        return {
            "known_from": self.known_from,
            "known_until": self.known_until,
            "took_over_at": self.took_over_at,
            "running": self.running,
            "carried": self.carried,
            "started_at": self.started_at,
            "ready": self.ready,
            "counted_until": self.counted_until,
            "stats": self.stats,
            "reported": self.reported,
            "gauges": None if self.gauges is None else _by_name(self.gauges),
            "cpu_until": self.cpu_until,
            "cpu_seconds": self.cpu_seconds,
            "resident_bytes": self.resident_bytes,
        }

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on with what `to_state` has returned in another program."""
        if state.get("known_from") is not None:
            self.known_from = state["known_from"]
        if state.get("known_until") is not None:
            self.known_until = state["known_until"]
        if state["started_at"] is None:
            return  # there was none
        self.begin(state["started_at"])
        self.running, self.ready = state["running"], state["ready"]
        self.took_over_at = state.get("took_over_at")
        self.stats, self.carried = state["stats"], state["carried"]
        self.counted_until, self.cpu_until = state["counted_until"], state["cpu_until"]
        self.reported, self.cpu_seconds = state["reported"], state["cpu_seconds"]
        self.resident_bytes = number(state["resident_bytes"])
        if state["gauges"] is not None:
            self.gauges = gauges(_known({self.name: state["gauges"]})[self.name])
