"""``/metrics`` of the admin port: everything of ``core.process.metrics``, as Prometheus reads it.

Workers and fronts report once a second what they have counted (``core.process.control``); the supervisor adds what it sees of their
processes. Nothing is kept here and nothing is asked of anybody when somebody reads the page, so no client of the server can notice it.

A child reports series by name. One that is not in the table, or not as the table says, is a bug in the child: it is left out and
logged once, and the rest of the page goes on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from core.events import fields
from core.measures import split_series
from core.process.metrics import METRICS, PREFIX, Kind, Metric, Source
from router.supervisor.process_usage import ProcessUsage
from router.supervisor.roles import FRONT, WORKER, Role

_log = logging.getLogger("fastchat.supervisor")

#: Value of the label `process` for the one that answers here.
_SUPERVISOR: Final = "supervisor"
#: Different names of wrong series that are logged; a child that makes up names must not fill the log, nor the memory.
_COMPLAINTS_MAX: Final = 100

# Every name of ours is plain, so none has to be rewritten; "allow-utf-8" says so, and saves a third of the time.
_encode_openmetrics: Final = choose_encoder(
    "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"
)[0]
_encode_text, _CONTENT_TYPE_TEXT = choose_encoder("text/plain; version=0.0.4")


class _WrongSeries(Exception):
    """A child reported something that the table does not have; the message says what is wrong."""


class _Rows:
    """A row of the table, with the samples that are found for it."""

    __slots__ = ("_bounds", "family", "labels", "metric", "name")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.labels = frozenset(metric.labels)
        self.name = PREFIX + metric.name
        # A family of counters is called without the ending that its samples have.
        name = self.name.removesuffix("_total") if metric.kind is Kind.COUNTER else self.name
        self.family = Family(name, metric.help, metric.kind.value)
        self._bounds = [*map(floatToGoString, metric.bounds), "+Inf"]

    def add(self, labels: dict[str, str], value: Any) -> None:
        """Add one value with these labels, or a histogram as it is reported. Raises _WrongSeries when it is not what the row says."""
        if self.metric.kind is Kind.HISTOGRAM:
            self._add_histogram(labels, value)
        elif isinstance(value, int | float):
            self.family.samples.append(Sample(self.name, labels, value))
        else:
            raise _WrongSeries(f"is not a number but {value!r:.80}")

    def _add_histogram(self, labels: dict[str, str], value: Any) -> None:
        try:
            counts, total = value["counts"], float(value["sum"])
            if len(counts) != len(self._bounds):
                raise _WrongSeries(f"has {len(counts)} ranges and not {len(self._bounds)}")
            # Reported is how many fell into each range, shown is how many were no more than its end.
            cumulative = [int(count) for count in accumulate(counts)]
        except (KeyError, OverflowError, TypeError, ValueError):
            raise _WrongSeries(f"is not a histogram but {value!r:.80}") from None
        name, samples = self.name + "_bucket", self.family.samples
        for bound, count in zip(self._bounds, cumulative, strict=True):
            samples.append(Sample(name, {**labels, "le": bound}, count))
        samples.append(Sample(self.name + "_count", labels, cumulative[-1]))
        samples.append(Sample(self.name + "_sum", labels, total))


class MetricsCollector(Collector):
    """Makes families of what the supervisor knows: one for each row of the table, in its order, also when nothing is known for it.

    `build` has the labels of ``build_info``. `is_ready` is what `/readyz` says, and `replaced` how often the supervisor was replaced.
    `api_calls` are the calls of the server API that were answered, by call and status.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        usage: ProcessUsage,
        is_ready: Callable[[], bool],
        build: Mapping[str, str],
        replaced: Callable[[], int] = int,
        api_calls: Callable[[], Mapping[tuple[str, int], int]] = dict,
    ) -> None:
        self._roles = roles
        self._usage = usage
        self._is_ready = is_ready
        self._build = dict(build)
        self._replaced = replaced
        self._api_calls = api_calls
        #: Kind of child -> counters without labels. What has not happened yet is not reported, and shown as 0: Prometheus sees that a
        #: counter grows only when it knew it before.
        self._from_zero = {kind: _counters_of(kind) for kind in (WORKER, FRONT)}
        #: Names of wrong series that were logged.
        self._complained: set[str] = set()

    def collect(self) -> Iterator[Family]:
        """Return the families, as they are now."""
        rows = {name: _Rows(metric) for name, metric in METRICS.items()}
        for role in self._roles:
            self._add_reports(rows, role)
            self._add_process(rows, role.name, None if role.child is None else role.child.pid)
            labels = {Source.PROCESS.value: role.name}
            if not role.retired or role.child is not None:
                rows["process_up"].add(labels, int(role.state == "ready"))
            rows["process_restarts_total"].add(labels, role.restarts)
            rows["process_replaced_total"].add(labels, role.replaced)
            rows["process_hangs_total"].add(labels, role.hangs)
        self._add_process(rows, _SUPERVISOR, os.getpid())
        about = {"process_up": 1, "process_restarts_total": 0, "process_hangs_total": 0}
        for name, value in {**about, "process_replaced_total": self._replaced()}.items():
            rows[name].add({Source.PROCESS.value: _SUPERVISOR}, value)
        rows["ready"].add({}, self._is_ready())
        rows["build_info"].add(self._build, 1)
        for (call, status), count in self._api_calls().items():
            rows["api_calls_total"].add({"call": call, "status": str(status)}, count)
        for row in rows.values():
            yield row.family

    def _add_reports(self, rows: Mapping[str, _Rows], role: Role) -> None:
        """Add what the process that fills the place has reported; nothing of one that has ended."""
        if role.child is None or not role.child.stats:
            return
        stats = role.child.stats
        for name in self._from_zero[role.kind] - stats.keys():
            rows[name].add({role.kind: str(role.index)}, 0)
        for series, value in stats.items():
            try:
                name, labels = split_series(series)
                row = rows.get(name)
                if row is None or row.metric.source != role.kind:
                    raise _WrongSeries(f"is no metric of a {role.kind}")
                if labels.keys() != row.labels:
                    raise _WrongSeries(f"has not the labels {sorted(row.labels)}")
                row.add({role.kind: str(role.index), **labels}, value)
            except (ValueError, _WrongSeries) as problem:
                self._complain(role, series, problem)

    def _complain(self, role: Role, series: str, problem: Exception) -> None:
        name = series.partition("{")[0]
        if name not in self._complained and len(self._complained) < _COMPLAINTS_MAX:
            self._complained.add(name)
            about = fields(reason=f"{series[:80]!r} {problem}")
            _log.error("bug: %s reports what is left out of the metrics", role.name, extra=about)

    def _add_process(self, rows: Mapping[str, _Rows], name: str, pid: int | None) -> None:
        """Add what the kernel knows of a process."""
        labels = {Source.PROCESS.value: name}
        usage = self._usage.read(pid) if pid is not None else None
        if usage is None:
            return
        rows["process_start_time_seconds"].add(labels, usage.started_at)
        rows["process_cpu_seconds_total"].add(labels, usage.cpu_seconds)
        rows["process_resident_memory_bytes"].add(labels, usage.resident_bytes)
        rows["process_open_fds"].add(labels, usage.open_fds)
        if usage.max_fds is not None:
            rows["process_max_fds"].add(labels, usage.max_fds)


def _counters_of(kind: str) -> frozenset[str]:
    rows = METRICS.values()
    return frozenset(
        row.name for row in rows if row.source == kind and row.kind is Kind.COUNTER and not row.labels
    )


class MetricsPage:
    """Answers ``GET /metrics``."""

    def __init__(self, collector: Collector) -> None:
        # One of our own: the default one has metrics of this process under names of its own.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)

    def routes(self) -> list[web.RouteDef]:
        """Return its routes, for `AdminServer`."""
        return [web.get("/metrics", self._get)]

    async def _get(self, request: web.Request) -> web.Response:
        if accepts_openmetrics(request.headers.get("Accept", "")):
            return _page(_encode_openmetrics(self._registry), CONTENT_TYPE_OPENMETRICS)
        return _page(_encode_text(self._registry), _CONTENT_TYPE_TEXT)


def accepts_openmetrics(accept: str) -> bool:
    """Return whether a header Accept asks for OpenMetrics, in a version that there is."""
    try:
        _, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        return False
    return content_type.startswith("application/openmetrics-text")


def _page(body: bytes, content_type: str) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": content_type})
