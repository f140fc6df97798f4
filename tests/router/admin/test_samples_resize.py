"""Tests of router.admin.samples: the number of workers changes."""

from __future__ import annotations

import math
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from router.admin.columns import SUPERVISOR
from router.admin.samples import (
    MINUTE,
    PATIENCE,
    SECOND,
    Reading,
    Samples,
)
from tests.examples import examples
from tests.router.admin.sampled import WALL, Worker, count, rows

#: What happens within a time: how long that is, what, to which worker, and a number.
RESIZES: Final = st.lists(
    st.tuples(
        st.floats(0.001, 2.5),
        st.sampled_from(("deliver", "deliver", "report", "report", "look", "look", "look", "resize")),
        st.integers(0, 5),
        st.integers(1, 40),
    ),
    max_size=60,
)


@settings(max_examples=examples(40), deadline=None)
@given(RESIZES)
def test_whatever_the_resizes_the_sum_of_all_seconds_is_what_was_counted(
    steps: list[tuple[float, str, int, int]],
) -> None:
    """Workers come and go, several times in a second too; each that comes counts from 0, and each that goes has reported last."""
    samples = Samples(2, 1, 0.0)
    workers = [Worker(f"worker {index}") for index in range(6)]
    running, now = 2, 0.0
    for passed, what, index, number in steps:
        now += passed
        if what == "deliver":
            for _ in range(number):
                workers[index % running].deliver(0.002)
        elif what == "report":
            workers[index % running].report(now)
        elif what == "look":
            samples.take(now, WALL + now, [worker.reading() for worker in workers[:running]])
        else:
            for worker in workers[:running]:
                worker.report(now)
            last = [worker.reading() for worker in workers[:running]]
            running = index + 1
            samples.resize(now, WALL + now, running, last)
            for worker in workers[:running]:
                worker.restart(now - number / 10)
    for worker in workers[:running]:
        worker.report(now)
    for late in (0.0, PATIENCE + 1, PATIENCE + 3):
        samples.take(now + late, WALL + now + late, [worker.reading() for worker in workers[:running]])

    answer = rows(samples)
    assert samples.workers == running
    assert sum(count(answer, "deliveries_total")) == sum(worker.deliveries for worker in workers)
    latencies = answer["histograms"].get("delivery_seconds", {})
    assert sum(map(sum, latencies.values())) == sum(worker.deliveries for worker in workers)
    for index, worker in enumerate(workers):
        columns = answer["processes"].get(worker.name, {})
        assert sum(columns.get("deliveries_total", [])) == worker.deliveries
        # One that is there is known, and one that is not there is not.
        assert (columns.get("up", [None])[-1] is not None) == (index < running)


def even(samples: Samples, workers: int, since: float, until: float, connections: int) -> list[Reading]:
    """So many workers, which have been there `since` a moment, share the connections and deliver 100 messages a second each."""
    told: list[Reading] = []
    for tick in range(math.ceil(since * 2), math.floor(until * 2) + 1):
        now = tick / 2
        told = []
        for index in range(workers):
            # Each reports once a second, and the first ones before they have any clients.
            reported = math.floor(now - index / 10) + index / 10
            has_clients = reported > since
            delivered = round(max(0.0, reported - since) * 100)
            stats = {
                "connections": connections // workers if has_clients else 0,
                "deliveries_total": delivered,
            }
            started = since - 3.0
            told.append(Reading(f"worker {index}", started, True, reported, stats, now - started, 50_000_000))
        front = Reading("front 0", 0.0, True, math.floor(now) + 0.0, {"front_lobby": 1})
        samples.take(now, WALL + now, [*told, front])
    return told


def test_a_resize_shows_no_jump_and_those_that_have_gone_are_not_known() -> None:
    """2 -> 5 -> 1 workers: the connections stay what they are in each second, and nobody is down."""
    samples = Samples(2, 1, 0.0)
    last = even(samples, 2, 0.0, 9.5, 60)
    samples.resize(9.75, WALL + 9.75, 5, last)
    before = rows(samples)
    last = even(samples, 5, 9.75, 20.0, 60)
    samples.resize(20.25, WALL + 20.25, 1, last)
    even(samples, 1, 20.25, 40.0, 60)

    answer = rows(samples)
    assert set(count(answer, "connections")[1:]) == {60}
    up = {name: columns["up"] for name, columns in answer["processes"].items()}
    assert set(up) == {*(f"worker {index}" for index in range(5)), "front 0", SUPERVISOR}
    assert set(up["worker 0"]) == {1}
    for index, (first, end) in {1: (0, 21), 2: (9, 21), 3: (9, 21), 4: (9, 21)}.items():
        known = [second for second, value in enumerate(up[f"worker {index}"]) if value is not None]
        assert known == list(range(first, end))
        assert {up[f"worker {index}"][second] for second in known} == {1}
        for name in ("connections", "resident_bytes", "cpu_seconds"):
            assert set(answer["processes"][f"worker {index}"][name][end:]) == {None}
    assert [(each["process"], each["kind"], each["text"]) for each in samples.events_after(0)] == [
        ("server", "resized", "the server has 5 workers instead of 2"),
        ("server", "resized", "the server has 1 worker instead of 5"),
    ]
    # A page that has polled before goes on from there, and hears of those who have come, and not of those who have gone.
    new = rows(samples, after=before["last"])
    assert new["times"] == answer["times"][before["last"] :]
    for name, columns in new["processes"].items():
        assert columns["up"] == up[name][before["last"] :]
    assert set(rows(samples, after=30)["processes"]) == {"worker 0", "front 0", SUPERVISOR}


def test_a_worker_that_comes_back_to_a_place_is_known_again() -> None:
    samples = Samples(2, 1, 0.0)
    samples.resize(70.75, WALL + 70.75, 1, even(samples, 2, 0.0, 70.5, 10))
    samples.resize(140.75, WALL + 140.75, 2, even(samples, 1, 70.75, 140.5, 10))
    even(samples, 2, 140.75, 210.0, 10)
    seconds, minutes = rows(samples), rows(samples, MINUTE)
    up = seconds["processes"]["worker 1"]["up"]
    assert (up[69], up[70], up[71], up[139], up[140]) == (1, 1, None, None, 1)
    assert minutes["processes"]["worker 1"]["up"] == [1, 1, 1]
    assert set(count(minutes, "connections")) == {10}
    per_second = seconds["server"]["deliveries_total"]
    assert [sum(per_second[at : at + 60]) for at in (0, 60, 120)] == minutes["server"]["deliveries_total"]


def test_a_worker_that_dies_after_a_resize_is_down() -> None:
    samples = Samples(1, 1, 0.0)
    samples.resize(5.75, WALL + 5.75, 2, even(samples, 1, 0.0, 5.5, 10))
    last = even(samples, 2, 5.75, 12.0, 10)
    samples.ended(12.2, WALL + 12.2, last[1], "worker 1 ended with signal SIGKILL")
    for tick in range(13, 20):
        samples.take(float(tick), WALL + tick, [last[0]])
    assert rows(samples)["processes"]["worker 1"]["up"][12:] == [0] * (samples.tiers[SECOND].last - 12)
