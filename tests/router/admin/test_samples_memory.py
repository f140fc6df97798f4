"""Tests of router.admin.samples: what a long history of many processes takes."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from core.process.metrics import METRICS
from router.admin.columns import HISTOGRAMS, SUPERVISOR, Columns
from router.admin.samples import MINUTE, MINUTES_KEPT, Reading, Samples
from tests.router.admin.sampled import WALL


def reports(tick: int) -> Iterator[Reading]:
    """Of 64 busy workers and 4 fronts."""
    stats: dict[str, Any] = {f'received_total{{type="{name}"}}': tick * 500 for name in ("MSG", "PING")}
    stats |= {"deliveries_total": tick * 500, "connections": 500, "longest_turn_seconds": 0.004}
    stats |= {name: {"counts": [tick * 7] * (len(METRICS[name].bounds) + 1)} for name in HISTOGRAMS}
    for index in range(64):
        yield Reading(f"worker {index}", 0.0, True, float(tick), stats, tick * 0.6, 70_000_000)
    for index in range(4):
        yield Reading(f"front {index}", 0.0, True, float(tick), {"front_lobby": 1}, tick * 0.1, 50_000_000)
    yield Reading(SUPERVISOR, 0.0, True, None, {}, tick * 0.01, 60_000_000)


@pytest.mark.slow
def test_a_day_of_64_workers_takes_less_than_64_mebibytes() -> None:
    """All of it is taken at the start, so what a day adds is seen by storing its samples."""
    tracemalloc.start()
    try:
        samples = Samples(64, 4, 0.0)
        for tick in range(1, 12):
            samples.take(float(tick), WALL + tick, reports(tick))
        after_seconds, _ = tracemalloc.get_traced_memory()
        row = samples.tiers[MINUTE]
        columns = Columns(64, 4)
        counts, values = [1] * len(columns.counts), [math.pi] * len(columns.values)
        for minute in range(MINUTES_KEPT + 1):
            row.append(WALL + 60.0 * minute, counts, values)
        after_a_day, _ = tracemalloc.get_traced_memory()
        samples = Samples(1, 4, 0.0)
        few, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        samples.resize(1.0, WALL, 64, [])
        after_a_resize, at_most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(row.after(0)["times"]) == MINUTES_KEPT
    assert after_a_day < 64 * 2**20
    assert after_a_day - after_seconds < 2**20
    # A few workers don't pay for many, and whoever becomes many takes what many take.
    assert few < after_a_day
    assert after_a_resize < 64 * 2**20
    assert at_most < 64 * 2**20
