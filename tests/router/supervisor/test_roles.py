"""Tests of router.supervisor.roles: when a process is taken to hang. What else it tells is in test_health.py."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import cast

from router.supervisor.children import Child
from router.supervisor.roles import BOOT_LOOKS_MAX, SILENT_LOOKS_MAX, WORKER, Role


def filled(reported_at: float | None, ready: bool = True) -> Role:
    """A place with a process that has reported last at this time."""
    role = Role(WORKER, 0)
    role.child = cast(Child, SimpleNamespace(ready=ready, stats={}, reported_at=reported_at))
    return role


def report(role: Role, reported_at: float) -> None:
    assert role.child is not None
    role.child.reported_at = reported_at


def looks_until_it_hangs(role: Role) -> int:
    for number in range(1, 10 * SILENT_LOOKS_MAX):
        if role.hangs():
            return number
    raise AssertionError("it never hangs")


def test_a_process_without_a_report_for_all_those_looks_hangs() -> None:
    """The first look finds the last report."""
    assert looks_until_it_hangs(filled(reported_at=5.0)) == SILENT_LOOKS_MAX + 1


def test_each_report_begins_anew() -> None:
    role = filled(reported_at=5.0)
    for number in range(3 * SILENT_LOOKS_MAX):
        if number % (SILENT_LOOKS_MAX - 1) == 0:
            report(role, 6.0 + number)
        assert not role.hangs()


def test_a_process_that_boots_has_longer_for_that() -> None:
    """And the time for reporting begins when it is ready."""
    role = filled(reported_at=None, ready=False)
    assert not any(role.hangs() for _ in range(BOOT_LOOKS_MAX))
    assert role.hangs() == "did not boot in time"
    role = filled(reported_at=None, ready=False)
    assert not any(role.hangs() for _ in range(BOOT_LOOKS_MAX))
    assert role.child is not None
    role.child.ready = True
    assert not any(role.hangs() for _ in range(SILENT_LOOKS_MAX))
    assert role.hangs() == "has not reported for too long"


def test_d27_a_supervisor_that_stood_still_blames_nobody() -> None:
    """However long it was: it counts its looks, of which it had none meanwhile, and the first one comes before what waits is read."""
    role = filled(reported_at=time.monotonic() - 3600.0)
    for _ in range(2):
        assert not role.hangs()
        assert not role.problems
    report(role, time.monotonic())
    assert not role.hangs()
    assert not role.problems


def test_the_next_process_is_not_blamed_for_the_one_before() -> None:
    role = filled(reported_at=5.0)
    looks_until_it_hangs(role)
    role.child = None
    assert not role.hangs()
    role.child = filled(reported_at=5.0).child
    assert looks_until_it_hangs(role) == SILENT_LOOKS_MAX + 1


def test_a_process_that_took_its_time_to_boot_is_well_when_it_is_ready() -> None:
    """Nothing is said of it for the looks at which it was not ready yet."""
    role = filled(reported_at=None, ready=False)
    assert not any(role.hangs() for _ in range(BOOT_LOOKS_MAX))
    assert role.child is not None
    role.child.ready = True
    assert role.problems == {}
