"""The columns of the dashboard's history: what is kept of each second, and where each figure of a report goes.

Two kinds of columns, since they are stored and summed up differently: *counts* are whole numbers of things that happened within the step
(messages received, deliveries that took 1 to 1.5 ms), *values* are states and times (connections, the longest turn). A column has a path
in the JSON of ``/dashboard/samples``: ``("server", 'errors_total{code="VALIDATION"}')``, ``("histograms", "delivery_seconds", "12")``
or ``("processes", "worker 3", "connections")``. Names are those of ``core.process.metrics``. To keep more: a row in one of the tables here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from core.measures import OTHER, series, split_series
from core.process.metrics import METRICS
from core.wire.protocol import CloseCode, ErrorCode, MessageType

Path = tuple[str, ...]
#: Makes one value of two, the earlier one first.
Combine = Callable[[float, float], float]

#: What the process table and the history call the supervisor.
SUPERVISOR: Final = "supervisor"

#: Messages that clients send.
_TYPES: Final = (
    MessageType.HELLO,
    MessageType.OPEN_CHAT,
    MessageType.MSG,
    MessageType.MSG_ACK,
    MessageType.READ,
    MessageType.HISTORY,
    MessageType.PRESENCE,
    MessageType.TYPING,
    MessageType.PING,
    OTHER,
)
_ERRORS: Final = (
    ErrorCode.VALIDATION,
    ErrorCode.MESSAGE_FAILED,
    ErrorCode.USER_NOT_FOUND,
    ErrorCode.CHAT_NOT_OPENED,
    ErrorCode.RATE_LIMITED,
    ErrorCode.UNAUTHORIZED,
    OTHER,
)
#: The code for connections that broke without any is RFC 6455's 1006.
_CLOSES: Final = (*(str(int(code)) for code in CloseCode), "1005", "1006", OTHER)


class _Counter(NamedTuple):
    """A counter of the table of metrics, summed over all processes and over all labels but one."""

    metric: str
    label: str = ""
    #: Of the label; all others count as "other".
    values: tuple[str, ...] = ()


_COUNTERS: Final = (
    _Counter("received_total", "type", _TYPES),
    _Counter("deliveries_total"),
    _Counter("errors_total", "code", _ERRORS),
    _Counter("closes_total", "code", _CLOSES),
    _Counter("shed_total", "kind", ("typing", "presence", OTHER)),
    _Counter("unconfirmed_total"),
    _Counter("not_moved_total"),
    _Counter("memory_refused_total"),
    _Counter("bus_sent_total"),
    _Counter("bus_records_total"),
    _Counter("bus_refused_total"),
    _Counter("store_commits_total"),
    _Counter("store_rows_total"),
    _Counter("store_failures_total"),
    _Counter("front_accepted_total"),
    _Counter("front_refused_total"),
    _Counter("front_adopted_total"),
)
#: Counters in which a process that takes the place of another one counts on.
CARRIED: Final = ("not_moved_total",)
#: What a client sees the same way, whoever did it.
_COUNTED_AS: Final = {"front_closed_total": "closes_total", "front_errors_total": "errors_total"}
HISTOGRAMS: Final = (
    "delivery_seconds",
    "commit_seconds",
    "commit_rows",
    "bus_seconds",
    "turn_seconds",
    "front_handover_seconds",
)
#: Kept of each worker too.
WORKER_COUNTERS: Final = ("received_total", "deliveries_total")
#: Histograms of which percentiles are kept of each worker: metric -> column -> share.
WORKER_PERCENTILES: Final[Mapping[str, Mapping[str, float]]] = {
    "delivery_seconds": {"delivery_p50": 0.5, "delivery_p99": 0.99},
    "commit_seconds": {"commit_p99": 0.99},
}


def larger(a: float, b: float) -> float:
    """Return the larger of both; the other one where one is not known."""
    return a if b != b or a > b else b


def smaller(a: float, b: float) -> float:
    """Return the smaller of both; the other one where one is not known."""
    return a if b != b or a < b else b


def later(a: float, b: float) -> float:
    """Return the later of both that is known."""
    return a if b != b else b


def total(a: float, b: float) -> float:
    """Return the sum of what is known."""
    return a if b != b else b if a != a else a + b


class Gauge(NamedTuple):
    """A gauge of the table of metrics: how those of several processes make one, and those of several seconds."""

    metric: str
    across: Combine
    over_time: Combine
    #: Whether a value holds until the next one. What tells of the time since the last report does not.
    holds: bool = True
    #: Whether a process has only one value but 0, which is shown when it comes and not again.
    once: bool = False


GAUGES: Final = (
    Gauge("connections", total, later),
    Gauge("sessions", total, later),
    Gauge("users", total, later),
    Gauge("online", larger, later),
    Gauge("requests", total, larger),
    Gauge("store_waiting", total, larger),
    Gauge("outbox_bytes", total, larger),
    Gauge("longest_turn_seconds", larger, larger, holds=False),
    Gauge("front_lobby", total, later),
    Gauge("takeover_seconds", larger, larger, holds=False, once=True),
)
#: Gauges kept of each worker too.
WORKER_GAUGES: Final = ("connections", "longest_turn_seconds", "takeover_seconds")
#: Kept of every process, the supervisor included.
PROCESS_VALUES: Final[Mapping[str, Combine]] = {
    "up": smaller,
    "cpu_seconds": total,
    "resident_bytes": later,
}


class Columns:
    """All columns of a server with so many workers and fronts, by number. More workers only add columns at the end."""

    def __init__(self, workers: int, fronts: int) -> None:
        self.workers = [f"worker {index}" for index in range(workers)]
        others = [*(f"front {index}" for index in range(fronts)), SUPERVISOR]
        self.processes = [*others, *self.workers]
        #: By column.
        self.counts: list[Path] = []
        self.values: list[Path] = []
        #: By column of `values`: how a minute is made of its seconds.
        self.over_time: list[Combine] = []
        #: Of each histogram, the column of its first range.
        self.histograms: dict[str, int] = {}
        for counter in _COUNTERS:
            for value in counter.values or ("",):
                labels = {counter.label: value} if counter.label else {}
                self.counts.append(("server", series(counter.metric, **labels)))
        for name in HISTOGRAMS:
            self.histograms[name] = len(self.counts)
            self.counts += [("histograms", name, str(n)) for n in range(ranges(name))]
        for worker in self.workers:
            self.counts += [("processes", worker, name) for name in WORKER_COUNTERS]
        for gauge in GAUGES:
            self._value(gauge.over_time, "server", gauge.metric)
        over_time = {gauge.metric: gauge.over_time for gauge in GAUGES}
        for process in others:
            self._process_values(process)
        for worker in self.workers:
            self._process_values(worker)
            for name in WORKER_GAUGES:
                self._value(over_time[name], "processes", worker, name)
            for percentiles in WORKER_PERCENTILES.values():
                for name in percentiles:
                    self._value(later, "processes", worker, name)
        self.count_at = {path: column for column, path in enumerate(self.counts)}
        self.value_at = {path: column for column, path in enumerate(self.values)}
        self._tables = {counter.metric: counter for counter in _COUNTERS}
        #: Series as they are reported -> column, or None. Bounded, as the labels of the table of metrics are.
        self._found: dict[str, int | None] = {}

    def _process_values(self, process: str) -> None:
        for name, combine in PROCESS_VALUES.items():
            self._value(combine, "processes", process, name)

    def _value(self, combine: Combine, *path: str) -> None:
        self.values.append(path)
        self.over_time.append(combine)

    def of_series(self, reported: str) -> int | None:
        """Return the column of a counter among the counts, or of a histogram's first range; None for what is not kept."""
        try:
            return self._found[reported]
        except KeyError:
            column = self._found[reported] = self._find(reported)
            return column

    def of_worker(self, worker: str) -> dict[int, int]:
        """Return columns of the server -> columns of this worker, for the counters that are kept of both."""
        return {
            column: self.count_at["processes", worker, name]
            for name in WORKER_COUNTERS
            for column, path in enumerate(self.counts)
            if path[0] == "server" and split_series(path[1])[0] == name
        }

    def _find(self, reported: str) -> int | None:
        try:
            metric, labels = split_series(reported)
        except ValueError:
            return None
        if metric in self.histograms:
            return self.histograms[metric]
        counter = self._tables.get(_COUNTED_AS.get(metric, metric))
        if counter is None:
            return None
        kept = {}
        if counter.label:
            value = labels.get(counter.label, OTHER)
            kept[counter.label] = value if value in counter.values else OTHER
        return self.count_at["server", series(counter.metric, **kept)]


def ranges(histogram: str) -> int:
    """Return how many a histogram has, the last one without an end included."""
    return len(METRICS[histogram].bounds) + 1


def gauges(stats: Mapping[str, Any]) -> list[float]:
    """Return the values of all `GAUGES` in a report; what it does not have is not known."""
    return [float(stats.get(gauge.metric, math.nan)) for gauge in GAUGES]
