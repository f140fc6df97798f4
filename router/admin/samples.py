"""What the dashboard shows of the time that has passed: one sample a second for 15 minutes, one a minute for a day, in bounded memory.

Every process reports about once a second all that it has counted since its start. How to make seconds of that, so that whatever the
jitter nothing is lost, nothing counts twice, and an even load looks even:

- The difference between two reports is spread evenly over the time between them, in whole numbers; the parts add up to the difference.
- So a second can be told when every process has reported after its end, one or two seconds later. One that is silent for longer
  is not waited for: what it reports at last counts for the seconds that are still open.
- A process that was started again has counted from 0 since its start.
- A worker that a resize took away is not known from then on, and keeps its past. Columns are made for the most workers there have been.
- States, such as connections, hold until the next report. What tells of the time since the last report, such as the longest turn, does not:
  a process that hangs leaves a gap.

No clock and no I/O: times come in, and so do reports. `now` is of a monotonic clock, `wall` in seconds since 1970 is only shown.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from operator import add
from typing import Any, Final, NamedTuple

from core.measures import quantile
from core.process.metrics import METRICS
from router.admin.columns import (
    CARRIED,
    GAUGES,
    HISTOGRAMS,
    SUPERVISOR,
    WORKER_GAUGES,
    WORKER_PERCENTILES,
    Columns,
    gauges,
    ranges,
)
from router.admin.sample_parts import Process, Sample, Tier, number

#: Seconds of a sample, and how many samples are kept, of the finer and of the coarser tier.
SECOND: Final = 1
MINUTE: Final = 60
SECONDS_KEPT: Final = 900
MINUTES_KEPT: Final = 1440
#: Process events kept.
EVENTS_KEPT: Final = 200
#: Seconds after its end that a second waits for reports.
PATIENCE: Final = 2.0
#: Digits after the point: microseconds, and more than enough of everything else.
_DIGITS: Final = 6

_GAUGE_AT: Final = {gauge.metric: index for index, gauge in enumerate(GAUGES)}
_ONCE: Final = tuple(index for index, gauge in enumerate(GAUGES) if gauge.once)


class Reading(NamedTuple):
    """What is known of a running process at one moment."""

    process: str
    #: When it was started: another time, another process.
    started_at: float
    ready: bool
    #: When its last report came; None as long as there is none.
    reported_at: float | None
    stats: Mapping[str, Any]
    #: Since its start; None when it can't be told.
    cpu_seconds: float | None = None
    resident_bytes: int | None = None


class Event(NamedTuple):
    """Something that happened to a process, or to the server, for annotations."""

    #: Counts from 1.
    number: int
    #: Seconds since 1970.
    time: float
    process: str
    #: `ended` or `back`; `problem` or `recovered`; `resized`.
    kind: str
    #: A sentence.
    text: str


class Samples:
    """The history of a server with so many workers, which `resize` changes, and fronts. Call `take` about once a second."""

    def __init__(self, workers: int, fronts: int, now: float) -> None:
        self._fronts = fronts
        self._columns = columns = Columns(workers, fronts)
        self._processes: dict[str, Process] = {}
        self._add_processes()
        self.tiers = {
            SECOND: Tier(SECOND, SECONDS_KEPT, columns),
            MINUTE: Tier(MINUTE, MINUTES_KEPT, columns),
        }
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._events_seen = 0
        #: The second that is filled first begins here; the others follow.
        self._origin = now
        self._open = deque([Sample(columns)])
        self._taken_at = now
        self._minute = Sample(columns)
        self._minute_values: list[float] = []
        self._histogram_of = {column: name for name, column in columns.histograms.items()}

    def to_state(self) -> dict[str, Any]:
        """Return everything, as JSON takes it, for the program that goes on with it."""
        return {
            "workers": len(self._columns.workers),
            "tiers": {str(step): tier.after(0) for step, tier in self.tiers.items()},
            "events": [event._asdict() for event in self.events],
            "events_seen": self._events_seen,
            "origin": self._origin,
            "open": [sample.to_state(self._columns) for sample in self._open],
            "taken_at": self._taken_at,
            "minute": self._minute.to_state(self._columns),
            "minute_values": [*zip(self._columns.values, self._minute_values, strict=False)],
            "processes": {name: process.to_state() for name, process in self._processes.items()},
        }

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on with the history of another program. A column that it did not have begins with 0, and one that is no more is left out."""
        self.make_room(state["workers"])
        columns = self._columns
        for step, tier in self.tiers.items():
            tier.take_up(state["tiers"][str(step)])
        self.events.extend(Event(**event) for event in state["events"])
        self._events_seen = state["events_seen"]
        self._origin, self._taken_at = state["origin"], state["taken_at"]
        self._open = deque(Sample.taken_up(each, columns) for each in state["open"])
        self._minute = Sample.taken_up(state["minute"], columns)
        known = {tuple(path): number(value) for path, value in state["minute_values"]}
        self._minute_values = [known.get(path, 0.0) for path in columns.values] if known else []
        for name in self._processes.keys() & state["processes"].keys():
            self._processes[name].take_up(state["processes"][name])

    # -- What comes in --

    def take(self, now: float, wall: float, readings: Iterable[Reading]) -> None:
        """Note how all running processes are now. Those that are not among `readings` do not run."""
        self._open_until(now)
        missing = {name for name, process in self._processes.items() if process.known_until == math.inf}
        since = self._index(self._taken_at) + 1
        for reading in readings:
            missing.discard(reading.process)
            process = self._processes[reading.process]
            self._read(process, reading, now)
            if not process.ready:
                self._absent(process, since, now)
        for name in missing:
            process = self._processes[name]
            self._end(process, now)
            self._absent(process, since, now)
        self._taken_at = max(self._taken_at, now)
        self._close(now, wall)

    def ended(self, now: float, wall: float, reading: Reading, text: str) -> None:
        """Note that a process has ended; `reading` has its last report."""
        self._open_until(now)
        process = self._processes[reading.process]
        self._read(process, reading, now)
        self._end(process, now)
        process.took_over_at = None
        self._absent(process, self._index(now), now)
        self._note(wall, process.name, "ended", text)

    def replaced(self, now: float, wall: float, reading: Reading, text: str) -> None:
        """Note that another process takes the place of a process; `reading` has the last report of that."""
        self._open_until(now)
        process = self._processes[reading.process]
        self._read(process, reading, now)
        self._give_up(process, now)
        process.took_over_at = now
        process.carried = {name: reading.stats[name] for name in CARRIED if name in reading.stats}
        self._note(wall, process.name, "back", text)

    def resize(self, now: float, wall: float, workers: int, readings: Iterable[Reading]) -> None:
        """Have so many workers from now on, all new processes that count from 0; `readings` have the last reports of the old ones."""
        self._open_until(now)
        for reading in readings:
            self._read(self._processes[reading.process], reading, now)
        before = self.workers
        self.make_room(workers)
        for index, name in enumerate(self._columns.workers):
            process = self._processes[name]
            self._give_up(process, now)
            process.carried = {}
            process.took_over_at = now if index < workers else None
            if index >= before:
                process.known_from = now
            if index < workers:
                process.known_until = math.inf
            elif index < before:
                process.known_until = now
        plural = "" if workers == 1 else "s"
        self._note(wall, "server", "resized", f"the server has {workers} worker{plural} instead of {before}")

    def make_room(self, workers: int) -> None:
        """Have columns for so many workers at the least. Columns stay: there is a limit to the number of workers."""
        if workers <= len(self._columns.workers):
            return
        before, self._columns = self._columns, Columns(workers, self._fronts)
        for tier in self.tiers.values():
            tier.widen(self._columns)
        more = [0] * (len(self._columns.counts) - len(before.counts))
        for sample in (*self._open, self._minute):
            sample.counts += more
        if self._minute_values:
            self._minute_values += [math.nan] * (len(self._columns.values) - len(before.values))
        self._add_processes()

    def upgraded(self, wall: float, text: str) -> None:
        """Note that the supervisor is another program now."""
        self._note(wall, SUPERVISOR, "back", text)

    def back(self, wall: float, name: str, text: str) -> None:
        """Note that a process that was started again serves."""
        self._note(wall, name, "back", text)

    def problem(self, wall: float, name: str, text: str) -> None:
        """Note that a process that runs does not serve as it should."""
        self._note(wall, name, "problem", text)

    def recovered(self, wall: float, name: str, text: str) -> None:
        """Note that a problem of a process is over."""
        self._note(wall, name, "recovered", text)

    def events_after(self, number: int) -> list[dict[str, Any]]:
        """Return what happened behind event `number`, as JSON takes it; everything when that number is not known."""
        known = number <= self._events_seen
        return [event._asdict() for event in self.events if event.number > number or not known]

    def _note(self, wall: float, process: str, kind: str, text: str) -> None:
        self._events_seen += 1
        self.events.append(Event(self._events_seen, round(wall, 3), process, kind, text))

    # -- Processes --

    @property
    def workers(self) -> int:
        """How many there are now."""
        return sum(self._processes[name].known_until == math.inf for name in self._columns.workers)

    def _add_processes(self) -> None:
        for name in self._columns.processes:
            if name not in self._processes:
                of_worker = self._columns.of_worker(name) if name in self._columns.workers else {}
                self._processes[name] = Process(name, of_worker)

    def _read(self, process: Process, reading: Reading, now: float) -> None:
        if reading.started_at != process.started_at:
            self._end(process, now)
            process.begin(reading.started_at)
        process.running, process.ready = True, reading.ready
        if reading.reported_at is not None and reading.reported_at > process.counted_until:
            self._count(process, reading.reported_at, reading.stats)
        if reading.cpu_seconds is not None:
            self._count_cpu(process, now, reading.cpu_seconds)
        if reading.resident_bytes is not None:
            process.resident_bytes = float(reading.resident_bytes)

    def _count(self, process: Process, until: float, stats: Mapping[str, Any]) -> None:
        shares = list(self._shares(process.counted_until, until))
        before, find = process.stats, self._columns.of_series
        for name, figure in stats.items():
            old = before.get(name)
            if figure == old or (column := find(name)) is None:
                continue
            if isinstance(figure, dict):
                self._count_histogram(process, column, figure, old, shares)
                continue
            difference = figure if old is None or old > figure else figure - old
            of_worker = process.of_worker.get(column)
            for sample, part in _split(difference, shares):
                sample.counts[column] += part
                if of_worker is not None:
                    sample.counts[of_worker] += part
        if process.took_over_at is None or until > process.took_over_at:
            self._hold(process, until, gauges(stats))
            process.took_over_at = None
        process.stats, process.counted_until, process.reported = stats, until, True

    def _count_histogram(
        self, process: Process, first: int, figure: Any, old: Any, shares: list[tuple[Sample, float]]
    ) -> None:
        name = self._histogram_of[first]
        key = (process.name, name) if name in WORKER_PERCENTILES else None
        length = ranges(name)
        counts = figure["counts"][:length]
        before = [0] * length if old is None else old["counts"]
        for index, (count, count_before) in enumerate(zip(counts, before, strict=False)):
            if count == count_before:
                continue
            difference = count if count_before > count else count - count_before
            for sample, part in _split(difference, shares):
                sample.counts[first + index] += part
                if key is not None:
                    sample.histograms.setdefault(key, [0] * length)[index] += part

    def _count_cpu(self, process: Process, now: float, seconds: float) -> None:
        if now <= process.cpu_until:
            return
        difference = max(0.0, seconds - process.cpu_seconds)
        counted = 0.0
        for sample, share in self._shares(process.cpu_until, now):
            part = difference * share - counted
            sample.cpu[process.name] = sample.cpu.get(process.name, 0.0) + part
            counted += part
        process.cpu_until, process.cpu_seconds = now, seconds

    def _hold(self, process: Process, until: float, values: list[float]) -> None:
        """Hold `values`, the state since the last report, in all seconds that it did not tell of."""
        since, last = self._index(process.counted_until) + 1, self._index(until)
        if process.took_over_at is not None:
            since = self._index(process.took_over_at)
        for index in _ONCE:
            if process.stats.get(GAUGES[index].metric) == values[index]:
                values[index] = 0.0
        earlier = [0.0 if gauge.once else value for gauge, value in zip(GAUGES, values, strict=True)]
        for index in range(min(since, last), last):
            self._open[index].tell(process.name, earlier)
        self._open[last].tell(process.name, values)
        process.gauges = [
            value if gauge.holds or gauge.once else math.nan
            for gauge, value in zip(GAUGES, earlier, strict=True)
        ]

    def _end(self, process: Process, now: float) -> None:
        """End with the process, whose state has held up to now."""
        if process.running and process.gauges is not None:
            for index in range(self._index(process.counted_until) + 1, self._index(now)):
                self._open[index].gauges.setdefault(process.name, process.gauges)
        process.running = process.ready = False
        process.gauges, process.resident_bytes = None, math.nan

    def _give_up(self, process: Process, now: float) -> None:
        """End with the process, whose state is that of others now."""
        self._end(process, now)
        told = self._open[self._index(now)].gauges
        if process.name in told:
            told[process.name] = [
                math.nan if gauge.holds else value
                for gauge, value in zip(GAUGES, told[process.name], strict=True)
            ]

    def _absent(self, process: Process, since: int, now: float) -> None:
        last = self._index(now)
        for index in range(min(since, last), last + 1):
            self._open[index].absent.add(process.name)

    # -- Seconds --

    def _index(self, time: float) -> int:
        """Return the open second that this time falls into; what lies before all of them falls into the first."""
        return max(0, min(int((time - self._origin) // SECOND), len(self._open) - 1))

    def _shares(self, since: float, until: float) -> Iterator[tuple[Sample, float]]:
        """Return the open seconds between two times, each with the part of that time that lies before its end."""
        since = max(since, self._origin)
        first, last = self._index(since), self._index(until)
        for index in range(first, last):
            yield self._open[index], (self._origin + (index + 1) * SECOND - since) / (until - since)
        yield self._open[last], 1.0

    def _open_until(self, now: float) -> None:
        behind = int((now - self._origin) // SECOND) - len(self._open) + 1
        if behind > SECONDS_KEPT:  # the machine slept: there is nothing to tell of that time
            self._origin += behind * SECOND
            behind = 0
        self._open.extend(Sample(self._columns) for _ in range(behind))

    def _close(self, now: float, wall: float) -> None:
        """Store the seconds of which all has come that is going to come."""
        waited_for = [
            process
            for process in self._processes.values()
            if (process.running and process.reported) or process.took_over_at is not None
        ]
        while (end := self._origin + SECOND) <= now:
            late = any(process.counted_until < end for process in waited_for)
            if late and now < end + PATIENCE:
                return
            sample = self._open.popleft()
            self._origin = end
            self._store(sample, wall - (now - end))

    def _store(self, sample: Sample, time: float) -> None:
        values = self._values(sample)
        self.tiers[SECOND].append(time, sample.counts, values)
        minute = self._minute
        minute.counts = list(map(add, minute.counts, sample.counts))
        for key, counts in sample.histograms.items():
            old = minute.histograms.get(key)
            minute.histograms[key] = counts if old is None else list(map(add, old, counts))
        combine = self._columns.over_time
        so_far = self._minute_values
        self._minute_values = (
            [each(old, new) for each, old, new in zip(combine, so_far, values, strict=True)]
            if so_far
            else values
        )
        if self.tiers[SECOND].last % (MINUTE // SECOND) == 0:
            self._percentiles(minute, self._minute_values)
            self.tiers[MINUTE].append(time, minute.counts, self._minute_values)
            self._minute, self._minute_values = Sample(self._columns), []

    def _values(self, sample: Sample) -> list[float]:
        """Return the columns of values of the second that has ended at `_origin`."""
        at = self._columns.value_at
        values = [math.nan] * len(at)
        across = [math.nan] * len(GAUGES)
        for name, process in self._processes.items():
            if process.known_from >= self._origin or process.known_until <= self._origin - SECOND:
                continue
            held = sample.gauges.get(name, process.gauges if process.running else None)
            if held is not None:
                across = [gauge.across(a, b) for gauge, a, b in zip(GAUGES, across, held, strict=True)]
            values[at["processes", name, "up"]] = float(name not in sample.absent)
            values[at["processes", name, "cpu_seconds"]] = round(sample.cpu.get(name, 0.0), _DIGITS)
            values[at["processes", name, "resident_bytes"]] = process.resident_bytes
            if process.of_worker:
                for metric in WORKER_GAUGES:
                    value = math.nan if held is None else held[_GAUGE_AT[metric]]
                    values[at["processes", name, metric]] = round(value, _DIGITS)
        for gauge, value in zip(GAUGES, across, strict=True):
            values[at["server", gauge.metric]] = round(value, _DIGITS)
        self._percentiles(sample, values)
        return values

    def _percentiles(self, sample: Sample, values: list[float]) -> None:
        """Fill in those of each worker."""
        at = self._columns.value_at
        for worker in self._columns.workers:
            for histogram, percentiles in WORKER_PERCENTILES.items():
                counts = sample.histograms.get((worker, histogram))
                for name, share in percentiles.items():
                    column = at["processes", worker, name]
                    values[column] = math.nan
                    if counts is not None and any(counts):
                        values[column] = round(quantile(METRICS[histogram].bounds, counts, share), _DIGITS)


def _split(difference: int, shares: list[tuple[Sample, float]]) -> Iterator[tuple[Sample, int]]:
    """Split `difference` into whole parts that add up to it."""
    given = 0
    for sample, share in shares:
        part = round(difference * share) - given
        if part:
            given += part
            yield sample, part


def bounds() -> dict[str, tuple[float, ...]]:
    """Return where the ranges of the histograms end that are kept."""
    return {name: METRICS[name].bounds for name in HISTOGRAMS}
