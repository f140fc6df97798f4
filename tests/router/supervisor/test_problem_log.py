"""router.supervisor.problem_log: what was wrong with a process leaves a trace in the log and on the dashboard, also when it has passed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import cast

import pytest

from core.process.control import MEMORY_FULL, STORE_FAILING
from router.admin.recorder import Recorder
from router.supervisor.children import Child
from router.supervisor.liveness import HANG_LOOKS, LOOK_INTERVAL, Liveness
from router.supervisor.problem_log import ProblemLog
from router.supervisor.process_usage import Activity, ProcessUsage
from router.supervisor.roles import WORKER, Role


class Watched:
    """A worker, looked at once a second by a clock of the test."""

    def __init__(self) -> None:
        self.role = Role(WORKER, 0)
        self.role.liveness = Liveness(lambda pid: Activity(0.0, frozenset("D")))
        self.fill(pid=100)
        self.recorder = Recorder([self.role], ProcessUsage())
        self.now = 0.0
        self.log = ProblemLog([self.role], self.recorder, lambda: self.now)

    def fill(self, pid: int) -> None:
        """Another process fills the place."""
        child = SimpleNamespace(pid=pid, ready=True, stats={}, beats=0)
        self.role.child = cast(Child, child)

    def report(self, **stats: float) -> None:
        assert self.role.child is not None
        self.role.child.stats = stats

    def look(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.log.sample()

    def told(self) -> list[tuple[str, str]]:
        """Kind and sentence of what the dashboard shows."""
        return [(event.kind, event.text) for event in self.recorder.samples.events]


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    caplog.set_level(logging.INFO, "fastchat.supervisor")
    return Watched()


def test_a_problem_and_its_end_are_logged_and_shown(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.report(**{STORE_FAILING: 1})
    watched.look(17)
    watched.report()
    watched.look(5)
    assert [kind for kind, _ in watched.told()] == ["problem", "recovered"]
    assert "can't write" in watched.told()[0][1]
    assert watched.told()[1][1] == "worker 0: its store can write again, after 17 s"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert all(record.getMessage().startswith("worker 0: ") for record in caplog.records)


def test_a_hang_that_passes_leaves_a_trace(watched: Watched) -> None:
    """A disk kept the process for some seconds."""
    child = watched.role.child
    assert child is not None
    for number in range(3 * HANG_LOOKS):
        watched.role.liveness.look(child, number * LOOK_INTERVAL)
        watched.look()
    child.beats += 1
    watched.look()
    kinds = [kind for kind, _ in watched.told()]
    assert kinds == ["problem", "recovered"]
    assert "has made no turn" in watched.told()[0][1]
    assert "makes turns again" in watched.told()[1][1]


def test_several_problems_are_told_apart(watched: Watched) -> None:
    watched.report(**{STORE_FAILING: 1})
    watched.look(2)
    watched.report(**{STORE_FAILING: 1, MEMORY_FULL: 1})
    watched.look(2)
    watched.report(**{MEMORY_FULL: 1})
    watched.look(2)
    assert [kind for kind, _ in watched.told()] == ["problem", "problem", "recovered"]


def test_what_is_gone_at_the_next_look_is_not_told(watched: Watched) -> None:
    """Workers that start have not heard from each other for a moment."""
    watched.report(**{STORE_FAILING: 1})
    watched.look()
    watched.report()
    watched.look()
    assert watched.told() == []


def test_the_next_process_did_not_recover_from_what_the_one_before_had(watched: Watched) -> None:
    """That the one before ended, and that there is another one, is told by the supervisor."""
    watched.report(**{STORE_FAILING: 1})
    watched.look(2)
    watched.role.child = None
    watched.look()
    watched.fill(pid=101)
    watched.look(3)
    assert [kind for kind, _ in watched.told()] == ["problem"]
