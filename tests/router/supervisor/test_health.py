"""router.supervisor.health: which state of the processes means what. What the whole server says is in tests/system/test_operator.py."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from core.process.control import BUS_UNHEARD, MEMORY_FULL, STORE_FAILING
from router.supervisor.children import Child
from router.supervisor.health import Health, Phase
from router.supervisor.liveness import HANG_LOOKS, LOOK_INTERVAL, Liveness
from router.supervisor.process_usage import Activity
from router.supervisor.roles import FRONT, WORKER, Role


def role(
    kind: str, index: int, stats: Mapping[str, float] | None = None, ready: bool = True, silent: int = 0
) -> Role:
    """A place with a process that has reported this, and whose event loop has not beaten for so many looks."""
    filled = Role(kind, index)
    filled.liveness = Liveness(lambda pid: Activity(0.0, frozenset("D")))
    filled.child = cast(Child, SimpleNamespace(pid=1, ready=ready, stats=stats or {}, beats=5))
    for number in range(silent + 1):
        filled.liveness.look(filled.child, number * LOOK_INTERVAL)
    return filled


def health(*roles: Role, phase: Phase = Phase.SERVING) -> Health:
    return Health(roles, lambda: phase)


def test_all_is_well() -> None:
    well = health(role(WORKER, 0, {STORE_FAILING: 0, MEMORY_FULL: 0, BUS_UNHEARD: 0}), role(FRONT, 0))
    assert (well.status, well.reasons(), well.is_ready()) == ("ok", [], True)


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ({STORE_FAILING: 1}, "store can't write"),
        ({MEMORY_FULL: 1}, "FASTCHAT_WORKER_MEMORY_MIB"),
        ({BUS_UNHEARD: 2}, "has not heard from 2 of the other workers"),
    ],
)
def test_what_a_worker_reports_is_a_reason_and_its_problem(stats: Mapping[str, float], words: str) -> None:
    ailing = role(WORKER, 3, stats)
    assert [words in problem for problem in ailing.problems.values()] == [True]
    ill = health(role(WORKER, 0), ailing, role(FRONT, 0))
    assert ill.status == "degraded"
    assert ill.reasons() == [f"worker 3: {sentence}" for sentence in ailing.problems.values()]
    assert not ill.is_ready()


def test_a_process_whose_event_loop_makes_no_turns_has_a_problem() -> None:
    """It is still there, and nobody of its users can be served."""
    ill = health(role(WORKER, 0), role(WORKER, 1, silent=HANG_LOOKS + 1), role(FRONT, 0))
    assert ill.reasons() == ["worker 1: its event loop has made no turn for 4 s: it waits for a disk"]
    assert health(role(WORKER, 0), role(FRONT, 0, silent=HANG_LOOKS)).status == "degraded"
    assert health(role(WORKER, 0, silent=HANG_LOOKS - 1), role(FRONT, 0)).is_ready()


def test_several_problems_are_all_told() -> None:
    ailing = role(WORKER, 0, {STORE_FAILING: 1, MEMORY_FULL: 1, BUS_UNHEARD: 1})
    assert len(health(ailing, role(FRONT, 0)).reasons()) == 3


def test_a_worker_that_is_not_there_or_boots() -> None:
    assert health(Role(WORKER, 0), role(FRONT, 0)).reasons() == ["worker 0: it is not running"]
    assert health(role(WORKER, 0, ready=False), role(FRONT, 0)).reasons() == ["worker 0: it is starting"]


def test_one_front_is_enough_to_be_ready_but_not_to_be_well() -> None:
    one_away = health(role(WORKER, 0), Role(FRONT, 0), role(FRONT, 1))
    assert (one_away.status, one_away.is_ready()) == ("degraded", True)
    none = health(role(WORKER, 0), Role(FRONT, 0), role(FRONT, 1, ready=False))
    assert (none.status, none.reasons()) == ("degraded", ["no front is ready, so no client can connect"])


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STOPPING])
def test_a_server_that_starts_or_stops_is_not_ready_whatever_its_processes_are(phase: Phase) -> None:
    server = health(role(WORKER, 0), role(FRONT, 0), phase=phase)
    assert (server.status, server.reasons()) == (phase, [f"the server is {phase}"])
