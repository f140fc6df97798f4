"""Tests of router.admin.samples, .sample_parts and .columns: that a history made of reports tells what was counted."""

from __future__ import annotations

import json
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.measures import SECONDS, Histogram, quantile
from core.process.metrics import METRICS
from core.wire.codec import to_json
from router.admin.columns import HISTOGRAMS, SUPERVISOR, Columns
from router.admin.samples import (
    EVENTS_KEPT,
    MINUTE,
    PATIENCE,
    SECOND,
    SECONDS_KEPT,
    Reading,
    Samples,
)
from tests.examples import examples
from tests.router.admin.sampled import WALL, Worker, count, handed_on, reading, rows

# -- Nothing is lost and nothing counts twice --

#: What happens to a worker within a time: how long that is, and what.
STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(("worker 0", "worker 1")),
        st.floats(0.001, 3.5),
        st.sampled_from(
            ("deliver", "report", "report", "report", "look", "look", "look", "die", "stop", "upgrade")
        ),
        st.integers(1, 40),
    ),
    max_size=120,
)


@settings(max_examples=examples(150), deadline=None)
@given(STEPS)
def test_whatever_the_jitter_the_sum_of_all_seconds_is_what_was_counted(
    steps: list[tuple[str, float, str, int]],
) -> None:
    """Reports come at any time or not at all for long, workers die at any time and begin at 0, and nobody looks for seconds.

    Meanwhile the history is handed on to other programs.
    """
    samples = Samples(2, 0, 0.0)
    workers = {name: Worker(name) for name in ("worker 0", "worker 1")}
    away: set[str] = set()
    now = 0.0
    for name, passed, what, number in steps:
        now += passed
        worker = workers[name]
        if what == "deliver":
            for index in range(number):
                worker.deliver(0.0001 * 1.4 ** (index % 20))
        elif what == "report":
            worker.report(now)
            away.discard(name)
        elif what == "upgrade":
            samples = handed_on(samples, now)
        elif what == "look":
            samples.take(now, WALL + now, [w.reading() for w in workers.values() if w.name not in away])
        elif what == "die":
            # What it had not reported is gone with it; its last report counts, also when nobody has looked since.
            worker.report(now)
            samples.ended(now, WALL + now, worker.reading(), f"{name} ended")
            worker.restart(now)
        elif worker.reported_at is not None:
            worker.report(now)
            samples.ended(now, WALL + now, worker.reading(), f"{name} ended")
            worker.restart(now)
            away.add(name)
    for worker in workers.values():
        worker.report(now)
    for late in (0.0, PATIENCE + 1, PATIENCE + 3):
        samples.take(now + late, WALL + now + late, [worker.reading() for worker in workers.values()])

    # Some of it may have gone to the second tier only: a long history has lost its oldest seconds.
    answer = rows(samples)
    assert samples.tiers[SECOND].last == len(answer["times"]) <= SECONDS_KEPT
    delivered = count(answer, "deliveries_total")
    assert min(delivered, default=0) >= 0
    assert sum(delivered) == sum(worker.deliveries for worker in workers.values())
    for name, worker in workers.items():
        assert sum(answer["processes"][name].get("deliveries_total", [])) == worker.deliveries
    counts = [0] * (len(SECONDS) + 1)
    for index, column in answer["histograms"].get("delivery_seconds", {}).items():
        assert min(column) >= 0
        counts[int(index)] = sum(column)
    expected = Histogram(SECONDS)
    for worker in workers.values():
        for latency in worker.latencies:
            expected.record(latency)
    assert counts == expected.report()["counts"]


@given(st.lists(st.floats(-0.3, 0.3), min_size=30, max_size=60), st.floats(0.35, 0.95))
def test_an_even_load_looks_even_though_reports_jitter(jitter: list[float], phase: float) -> None:
    """No second without a report shows as a hole with a double behind it: 1,000 a second are about that in every second."""
    samples = Samples(1, 0, 0.0)
    reported = [(second + phase + offset) for second, offset in enumerate(jitter)]
    for tick in range(1, len(jitter) - 1):
        last = max((time for time in reported if time <= tick), default=None)
        stats = {} if last is None else {"deliveries_total": round(last * 1000), "connections": 5}
        samples.take(float(tick), WALL + tick, [reading(stats, last)])
    delivered = count(rows(samples), "deliveries_total")
    assert len(delivered) >= len(jitter) - 6
    # A worker that has never reported is not waited for: its first two seconds may come together.
    assert all(abs(number - 1000) <= 2 for number in delivered[2:])
    assert all(number == 5 for number in count(rows(samples), "connections")[2:])


def test_a_second_is_told_when_all_have_reported_after_it() -> None:
    samples = Samples(2, 0, 0.0)

    def take(now: float, *reported: float) -> int:
        readings = [
            reading({"connections": 1}, at, process=f"worker {index}") for index, at in enumerate(reported)
        ]
        samples.take(now, WALL + now, readings)
        return samples.tiers[SECOND].last

    assert take(0.9, 0.5, 0.6) == 0
    assert take(1.6, 1.5, 0.6) == 0
    assert take(1.7, 1.5, 1.6) == 1
    # One that is silent is not waited for for ever.
    assert take(3.9, 3.8, 1.6) == 1
    assert take(4.1, 3.8, 1.6) == 2
    assert rows(samples)["times"] == [WALL + 1, WALL + 2]


def test_a_worker_that_hangs_leaves_a_gap_where_its_turns_would_be_and_its_connections_stay() -> None:
    samples = Samples(2, 0, 0.0)
    for tick in range(1, 20):
        hung = min(float(tick), 5.0)
        samples.take(
            float(tick),
            WALL + tick,
            [
                reading({"connections": 3, "longest_turn_seconds": 0.002}, float(tick)),
                reading({"connections": 4, "longest_turn_seconds": 0.5}, hung, process="worker 1"),
            ],
        )
    answer = rows(samples)
    assert set(count(answer, "connections")[1:]) == {7}
    assert set(answer["processes"]["worker 1"]["connections"][1:]) == {4}
    turns = answer["processes"]["worker 1"]["longest_turn_seconds"]
    assert turns[2] == 0.5
    assert turns[8:] == [None] * len(turns[8:])
    assert answer["server"]["longest_turn_seconds"][8:] == [0.002] * len(turns[8:])


def test_what_a_hung_worker_reports_at_last_counts_once_and_never_before_the_open_seconds() -> None:
    samples = Samples(1, 0, 0.0)
    samples.take(1.0, WALL, [reading({"deliveries_total": 10}, 1.0)])
    samples.take(8.0, WALL, [reading({"deliveries_total": 10}, 1.0)])
    told = samples.tiers[SECOND].last
    samples.take(9.0, WALL, [reading({"deliveries_total": 510}, 9.0)])
    samples.take(12.0, WALL, [reading({"deliveries_total": 510}, 12.0)])
    delivered = count(rows(samples), "deliveries_total")
    assert sum(delivered[:told]) == 10
    assert sum(delivered) == 510


def test_a_process_that_ends_and_comes_back_shows_as_away() -> None:
    samples = Samples(1, 0, 0.0)
    for tick in range(1, 6):
        samples.take(float(tick), WALL + tick, [reading({"connections": 9}, tick - 0.1)])
    samples.ended(5.5, WALL + 5.5, reading({"connections": 9}, 4.9), "worker 0 ended with signal SIGKILL")
    samples.take(6.5, WALL + 6.5, [])
    samples.back(WALL + 6.9, "worker 0", "worker 0 is back")
    for tick in range(8, 14):
        again = reading({"connections": 2}, tick - 0.1, started_at=6.8)
        samples.take(float(tick), WALL + tick, [again])
    answer = rows(samples)
    up = answer["processes"]["worker 0"]["up"]
    assert up[:5] == [1.0] * 5
    assert up[5:7] == [0.0, 0.0]
    assert up[8:] == [1.0] * len(up[8:])
    assert answer["server"]["connections"][-1] == 2
    events = samples.events_after(0)
    assert [(each["number"], each["kind"], each["time"]) for each in events] == [
        (1, "ended", WALL + 5.5),
        (2, "back", WALL + 6.9),
    ]
    assert events[0]["text"] == "worker 0 ended with signal SIGKILL"
    assert [each["number"] for each in samples.events_after(1)] == [2]
    assert samples.events_after(2) == []


def test_a_restart_between_two_looks_shows_too() -> None:
    """A worker is back within half a second: nobody has seen that it was away."""
    samples = Samples(1, 0, 0.0)
    samples.take(1.0, WALL, [reading({"deliveries_total": 5}, 0.9)])
    samples.take(2.0, WALL, [reading({"deliveries_total": 8}, 1.9)])
    samples.ended(2.1, WALL, reading({"deliveries_total": 8}, 1.9), "worker 0 ended with exit code 1")
    samples.take(3.0, WALL, [reading({"deliveries_total": 2}, 2.9, started_at=2.2)])
    samples.take(6.0, WALL, [reading({"deliveries_total": 2}, 5.9, started_at=2.2)])
    answer = rows(samples)
    assert answer["processes"]["worker 0"]["up"][2] == 0.0
    assert sum(count(answer, "deliveries_total")) == 10


def test_a_replacement_shows_once_and_what_it_could_not_move_counts_once() -> None:
    """The new process tells of its own pause in each report, and goes on with the counter of the process before."""
    samples = Samples(1, 0, 0.0)

    def take(now: float, started_at: float, pause: float, not_moved: int) -> Reading:
        stats = {"takeover_seconds": pause, "not_moved_total": not_moved, "deliveries_total": not_moved}
        told = reading(stats, now, started_at=started_at)
        samples.take(now, WALL + now, [told])
        return told

    last = take(1.0, 0.0, 0.0, 0)
    samples.replaced(1.5, WALL + 1.5, last, "worker 0 is replaced")
    take(2.5, 1.2, 0.0, 0)  # reported while it took over
    take(3.5, 1.2, 0.08, 3)
    last = take(4.5, 1.2, 0.08, 3)
    samples.replaced(5.5, WALL + 5.5, last, "worker 0 is replaced")
    take(6.5, 5.2, 0.08, 5)
    last = take(7.5, 5.2, 0.08, 5)
    # Who follows a process that died counts from 0.
    samples.ended(8.1, WALL + 8.1, last, "worker 0 ended with signal SIGKILL")
    for now in (9.5, 10.5, 13.5):
        take(now, 9.0, 0.0, 1)
    answer = rows(samples)
    pauses = answer["processes"]["worker 0"]["takeover_seconds"]
    assert {second: value for second, value in enumerate(pauses) if value} == {3: 0.08, 6: 0.08}
    assert answer["server"]["takeover_seconds"][3] == 0.08
    assert sum(count(answer, "not_moved_total")) == 3 + 2 + 1
    assert sum(count(answer, "deliveries_total")) == 3 + 5 + 1


def test_another_program_goes_on_as_if_nothing_had_been() -> None:
    """At any moment: what it shows then, and what it makes of what comes later."""
    for moment in range(1, 140, 20):
        kept, handed = Samples(2, 1, 0.0), None
        for tick in range(1, 141):
            stats = {
                "deliveries_total": tick * 7,
                "connections": tick % 5,
                "longest_turn_seconds": 0.001 * tick,
            }
            reading = Reading("worker 0", 0.0, True, tick - 0.3, stats, tick * 0.2, 50_000_000)
            for samples in filter(None, (kept, handed)):
                samples.take(float(tick), WALL + tick, [reading])
                if tick == 90:
                    samples.ended(tick + 0.5, WALL + tick, reading, "worker 0 ended")
            if tick == moment:
                handed = handed_on(kept, float(tick), 2, 1)
        assert handed is not None
        for step in (SECOND, MINUTE):
            assert rows(handed, step) == rows(kept, step)
        assert handed.events_after(0) == kept.events_after(0)
        assert json.loads(to_json(handed.to_state())) == json.loads(to_json(kept.to_state()))


def test_a_program_with_other_columns_shows_what_it_knows() -> None:
    samples = Samples(1, 1, 0.0)
    for tick in range(1, 20):
        samples.take(
            float(tick), WALL + tick, [reading({"deliveries_total": tick, "connections": 3}, float(tick))]
        )
    state = json.loads(to_json(samples.to_state()))
    for tier in state["tiers"].values():
        tier["server"]["news_total"] = [1] * len(tier["times"])
        del tier["processes"]
    state["open"][0]["counts"].append([["server", "news_total"], 5])
    state["open"][0]["gauges"].get("worker 0", {}).pop("connections", None)
    state["processes"]["worker 77"] = state["processes"]["worker 0"]
    another = Samples(1, 1, 20.0)
    another.take_up(state)
    assert rows(another)["server"] == rows(samples)["server"]
    assert rows(another)["processes"] == {}
    another.take(23.0, WALL + 23, [reading({"deliveries_total": 30, "connections": 3}, 23.0)])
    assert sum(count(rows(another), "deliveries_total")) >= 19


def test_only_so_many_events_are_kept() -> None:
    samples = Samples(1, 0, 0.0)
    for number in range(EVENTS_KEPT + 50):
        samples.back(WALL + number, "worker 0", "worker 0 is back")
    events = samples.events_after(0)
    assert len(events) == EVENTS_KEPT
    assert events[-1]["number"] == EVENTS_KEPT + 50
    # A page that talked with the server before it was started again knows a number that there is not.
    assert len(samples.events_after(10_000)) == EVENTS_KEPT


# -- What a second and a minute are made of --


def test_the_columns_of_a_second() -> None:
    samples = Samples(2, 1, 0.0)
    histogram = Histogram(SECONDS)
    for latency in (0.0005, 0.002, 0.002, 0.3):
        histogram.record(latency)
    first = {
        'received_total{type="MSG"}': 20,
        'received_total{type="PING"}': 4,
        'received_total{type="NEW"}': 1,
        'errors_total{type="MSG",code="VALIDATION"}': 2,
        'errors_total{type="TYPING",code="VALIDATION"}': 1,
        'closes_total{by="client",code="1000",reason=""}': 3,
        'closes_total{by="client",code="3999",reason="whatever"}': 1,
        'delivery_seconds{route="local"}': histogram.report(),
        'delivery_seconds{route="bus"}': histogram.report(),
        "connections": 6,
        "online": 9,
        "outbox_bytes": 100,
        "no_such_metric_total": 5,
        "not a series!": 5,
    }
    second = {'received_total{type="MSG"}': 5, "connections": 2, "online": 8, "outbox_bytes": 11}
    front = {
        'front_closed_total{code="1008"}': 2,
        'front_errors_total{code="UNAUTHORIZED"}': 4,
        "front_lobby": 3,
    }
    for now in (1.0, 2.0):
        samples.take(
            now,
            WALL + now,
            [
                reading(first, now - 0.01),
                reading(second, now - 0.01, process="worker 1"),
                reading(front, now - 0.01, process="front 0"),
                Reading(SUPERVISOR, 0.0, True, None, {}, 0.25 * now, 40_000_000),
            ],
        )
    answer = rows(samples)
    assert answer["step"] == 1
    assert answer["times"] == [WALL + 1]
    server = {name: column[0] for name, column in answer["server"].items()}
    assert server == {
        'received_total{type="MSG"}': 25,
        'received_total{type="PING"}': 4,
        'received_total{type="other"}': 1,
        'errors_total{code="VALIDATION"}': 3,
        'errors_total{code="UNAUTHORIZED"}': 4,
        'closes_total{code="1000"}': 3,
        'closes_total{code="1008"}': 2,
        'closes_total{code="other"}': 1,
        "connections": 8,
        "online": 9,
        "outbox_bytes": 111,
        "front_lobby": 3,
        **dict.fromkeys(("sessions", "users", "requests", "store_waiting", "longest_turn_seconds")),
        "takeover_seconds": None,
    }
    assert sum(column[0] for column in answer["histograms"]["delivery_seconds"].values()) == 8
    worker = {name: column[0] for name, column in answer["processes"]["worker 0"].items()}
    p50 = quantile(SECONDS, [2 * number for number in histogram.report()["counts"]], 0.5)
    assert worker["delivery_p50"] == pytest.approx(p50, abs=1e-6)
    assert worker["received_total"] == 25
    assert worker["connections"] == 6
    assert worker["resident_bytes"] == 50_000_000
    assert answer["processes"]["worker 1"]["delivery_p50"] == [None]
    assert answer["processes"][SUPERVISOR] == {
        "up": [1.0],
        "cpu_seconds": [0.25],
        "resident_bytes": [40_000_000],
    }


def test_a_minute_adds_counts_and_keeps_the_largest_and_the_last() -> None:
    samples = Samples(1, 0, 0.0)
    histogram = Histogram(SECONDS)
    for tick in range(1, 123):
        histogram.record(0.001 if tick % 60 else 1.0)
        stats = {
            "deliveries_total": 10 * tick,
            "connections": tick,
            "outbox_bytes": 5000 if tick == 30 else 0,
            "longest_turn_seconds": 0.7 if tick == 45 else 0.001,
            "delivery_seconds": histogram.report(),
        }
        samples.take(float(tick), WALL + tick, [Reading("worker 0", 0.0, True, tick - 0.0, stats, tick / 2)])
    answer = rows(samples, MINUTE)
    assert answer["step"] == MINUTE
    assert answer["times"] == [WALL + 60, WALL + 120]
    assert count(answer, "deliveries_total") == [600, 600]
    assert answer["server"]["connections"] == pytest.approx([60, 120], abs=1)
    assert answer["server"]["outbox_bytes"][0] == 5000
    worker = answer["processes"]["worker 0"]
    assert answer["server"]["longest_turn_seconds"] == [0.7, 0.001]
    assert worker["longest_turn_seconds"] == [0.7, 0.001]
    assert worker["cpu_seconds"] == pytest.approx([30.0, 30.0])
    assert worker["up"] == [1.0, 1.0]
    # The percentile of the minute, not one of a second in it.
    assert worker["delivery_p50"][0] <= 0.001
    assert sum(rows(samples, SECOND)["server"]["deliveries_total"][:60]) == 600


def test_only_what_is_new_is_told() -> None:
    samples = Samples(1, 0, 0.0)
    for tick in range(1, 31):
        samples.take(float(tick), WALL + tick, [reading({"deliveries_total": tick}, float(tick))])
    last = samples.tiers[SECOND].last
    everything = rows(samples)
    assert everything["last"] == last == len(everything["times"])
    assert rows(samples, after=last)["times"] == []
    assert rows(samples, after=last)["server"] == {}
    new = rows(samples, after=last - 2)
    assert new["times"] == everything["times"][-2:]
    assert new["server"]["deliveries_total"] == everything["server"]["deliveries_total"][-2:]
    # A number that there has not been yet is one of a server before this one.
    assert rows(samples, after=last + 1) == everything


def test_the_ring_keeps_the_newest_in_order() -> None:
    samples = Samples(1, 0, 0.0)
    for tick in range(1, SECONDS_KEPT + 203):
        samples.take(float(tick), WALL + tick, [reading({"deliveries_total": tick * tick}, float(tick))])
    answer = rows(samples)
    assert len(answer["times"]) == SECONDS_KEPT
    assert answer["times"] == sorted(answer["times"])
    delivered = answer["server"]["deliveries_total"]
    assert delivered == sorted(delivered)
    last = answer["last"]
    for after in (last - SECONDS_KEPT, last - SECONDS_KEPT + 1, last - 500, last - 1):
        assert rows(samples, after=after)["server"]["deliveries_total"] == delivered[after - last :]
    # What is not there any more can't be told.
    assert len(rows(samples, after=3)["times"]) == SECONDS_KEPT


def test_a_machine_that_slept_for_long_goes_on() -> None:
    samples = Samples(1, 0, 0.0)
    samples.take(1.0, WALL, [reading({"deliveries_total": 1}, 1.0)])
    samples.take(1e6, WALL + 1e6, [reading({"deliveries_total": 4}, 1e6)])
    samples.take(1e6 + 3, WALL + 1e6 + 3, [reading({"deliveries_total": 4}, 1e6 + 3)])
    answer = rows(samples)
    assert len(answer["times"]) < 10
    assert sum(count(answer, "deliveries_total")) == 4


def test_every_column_has_a_place_of_its_own_and_a_metric() -> None:
    columns = Columns(3, 2)
    assert len(set(columns.counts)) == len(columns.counts)
    assert len(set(columns.values)) == len(columns.values) == len(columns.over_time)
    assert set(HISTOGRAMS) <= METRICS.keys()
    for path in (*columns.counts, *columns.values):
        if path[0] == "server":
            assert path[1].partition("{")[0] in METRICS
