"""core.placement: where a user lives. Stable, even, and moving no more than it must."""

from __future__ import annotations

import random
from collections import Counter
from zlib import crc32

import pytest

from core.placement import SLOTS, WORKERS_MAX, Placement, slot_of


def test_a_slot_is_the_same_in_every_process_and_release() -> None:
    """Users would lose what is stored for them if it changed."""
    users = [
        "11111111-1111-4111-8111-111111111111",
        "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
        "test-123",
    ]
    assert [slot_of(user) for user in users] == [448, 83, 770]


@pytest.mark.parametrize(
    ("workers", "checksum"), [(2, 328263894), (3, 1066973195), (8, 3665948101), (64, 3437919214)]
)
def test_the_table_is_the_same_in_every_process_and_release(workers: int, checksum: int) -> None:
    """Every process computes it for itself, and they must agree."""
    assert crc32(bytes(Placement(workers).owners)) == checksum


def test_the_users_of_16_workers_and_fewer_are_even_within_five_percent() -> None:
    """Over 100,000 random users, none has 5 % more or less than its share."""
    rng = random.Random(1)
    slots = Counter(slot_of(f"{rng.getrandbits(128):032x}") for _ in range(100_000))
    for workers in range(1, 17):
        users = Counter[int]()
        for slot, owner in enumerate(Placement(workers).owners):
            users[owner] += slots[slot]
        share = 100_000 / workers
        assert len(users) == workers
        assert all(abs(count - share) <= 0.05 * share for count in users.values()), (workers, users)


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 7, 8, 13, 16, 31, 63])
def test_a_user_whose_slot_did_not_move_stays(workers: int) -> None:
    """One worker more takes its share from the others; between them nothing moves, and no slot moves for nothing."""
    before, after = Placement(workers).owners, Placement(workers + 1).owners
    moved = [slot for slot in range(SLOTS) if before[slot] != after[slot]]
    assert {after[slot] for slot in moved} == {workers}
    assert len(moved) == SLOTS // (workers + 1)


@pytest.mark.parametrize("workers", [1, 2, 7, 16, 33, 64])
def test_slots_are_even_to_one(workers: int) -> None:
    """However many workers."""
    owned = Counter(Placement(workers).owners)
    assert set(owned) == set(range(workers))
    assert max(owned.values()) - min(owned.values()) <= 1


@pytest.mark.parametrize("workers", [-1, 0, WORKERS_MAX + 1, 1000])
def test_another_number_of_workers_is_refused(workers: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and {WORKERS_MAX}, not {workers}"):
        Placement(workers)


def test_a_user_lives_where_its_slot_is_owned() -> None:
    placement = Placement(5)
    for number in range(200):
        assert placement.worker_of(f"user-{number}") == placement.owners[slot_of(f"user-{number}")]
