"""Tests of router.roles: when a process is taken to hang. What else it tells is in test_health.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from router.children import Child
from router.roles import SILENT_LOOKS_MAX, WORKER, Role


def filled(reported_at: float | None) -> Role:
    """A place with a process that has reported last at this time."""
    role = Role(WORKER, 0)
    role.child = cast(Child, SimpleNamespace(ready=True, stats={}, reported_at=reported_at))
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


def test_a_process_that_has_not_reported_yet_does_not_hang() -> None:
    """It boots, and has its time for that."""
    role = filled(reported_at=None)
    assert not any(role.hangs() for _ in range(3 * SILENT_LOOKS_MAX))


def test_the_next_process_is_not_blamed_for_the_one_before() -> None:
    role = filled(reported_at=5.0)
    looks_until_it_hangs(role)
    role.child = None
    assert not role.hangs()
    role.child = filled(reported_at=5.0).child
    assert looks_until_it_hangs(role) == SILENT_LOOKS_MAX + 1
