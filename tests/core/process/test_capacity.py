"""core.process.capacity: workers and their memory, also on small machines and in small containers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.placement import WORKERS_MAX
from core.process import capacity
from core.process.capacity import MIB, WORKER_LEAST, Capacity, default_workers, limits_of_container


def machine(monkeypatch: pytest.MonkeyPatch, cpus: int, mib: int) -> None:
    monkeypatch.setattr(capacity, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(capacity, "usable_memory", lambda: mib * MIB)
    monkeypatch.setattr(capacity, "affinity", lambda: 8)
    monkeypatch.setattr(capacity, "machine_memory", lambda: 64_000 * MIB)


@pytest.mark.parametrize(
    ("cpus", "mib", "workers"),
    [(8, 64_000, 8), (1, 64_000, 1), (200, 64_000, WORKERS_MAX), (8, 256, 2), (8, 64, 1), (8, 512, 5)],
)
def test_one_worker_for_each_cpu_if_there_is_memory(
    monkeypatch: pytest.MonkeyPatch, cpus: int, mib: int, workers: int
) -> None:
    machine(monkeypatch, cpus, mib)
    assert default_workers() == workers


@given(st.integers(1, 100_000), st.integers(1, WORKERS_MAX), st.integers(1, 4))
def test_no_ceiling_is_above_what_there_is(mib: int, workers: int, fronts: int) -> None:
    assert 0 < Capacity(mib * MIB, fronts).ceiling(workers) <= mib * MIB


@given(st.integers(200, 100_000), st.integers(1, 4))
def test_all_that_fit_may_reach_their_ceilings_together(mib: int, fronts: int) -> None:
    """Pages that all share are counted in each, but are there once."""
    here = Capacity(mib * MIB, fronts)
    ceiling = here.ceiling(here.workers)
    assert ceiling >= WORKER_LEAST
    if here.workers > 1:
        assert (ceiling - 18 * MIB) * here.workers <= 0.8 * mib * MIB


def test_a_worker_has_its_share_of_four_fifths() -> None:
    assert Capacity(10_000 * MIB).ceiling(8) == pytest.approx(1000 * MIB, rel=0.02)


def test_what_does_not_even_start() -> None:
    assert Capacity(64 * MIB).holds(1), "a single worker is always tried"
    assert Capacity(256 * MIB).holds(2)
    assert not Capacity(256 * MIB).holds(8)


def test_limits_are_told_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 8, 64_000)
    assert limits_of_container() is None
    machine(monkeypatch, 2, 256)
    assert limits_of_container() == "this container may use 2 of 8 CPUs and 256 of 64000 MiB of memory"
