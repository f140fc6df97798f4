"""Tests of router.admin.recorder: that it reads the processes that fill the roles."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from router.admin.recorder import Recorder
from router.admin.samples import SECOND
from router.supervisor.process_usage import ProcessUsage
from router.supervisor.roles import FRONT, WORKER, Role


def worker(index: int, deliveries: int) -> Role:
    """Of a process that has reported so many deliveries."""
    role, now = Role(WORKER, index), time.monotonic()
    child: Any = SimpleNamespace(
        pid=0, started_at=now - 1, ready=True, reported_at=now, stats={"deliveries_total": deliveries}
    )
    role.child = child
    return role


def test_a_resize_counts_what_the_old_workers_reported_last_and_then_the_new_ones() -> None:
    roles = [worker(0, 5), worker(1, 7), Role(FRONT, 0)]
    recorder = Recorder(roles, ProcessUsage())
    recorder.resize(3)
    roles[:2] = [worker(index, 1) for index in range(3)]
    samples, now = recorder.samples, time.monotonic()
    recorder.resize(1)
    roles[:3] = [worker(0, 100)]
    assert samples.workers == 1
    assert [event.text for event in samples.events] == [
        "the server has 3 workers instead of 2",
        "the server has 1 worker instead of 3",
    ]
    samples.take(now + 10, 0.0, [])
    answer = samples.tiers[SECOND].after(0)
    assert sum(answer["server"]["deliveries_total"]) == 5 + 7 + 3
    assert {name: sum(answer["processes"][f"worker {name}"]["deliveries_total"]) for name in range(3)} == {
        0: 6,
        1: 8,
        2: 1,
    }
