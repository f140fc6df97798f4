"""workers.memory: the ceiling of a worker, and giving back what a crowd has left."""

from __future__ import annotations

import resource

import pytest

from workers import memory
from workers.memory import Memory, ceiling, machine_bytes

MIB = 2**20


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the process has in memory: the last of the list."""
    values = [0]
    monkeypatch.setattr(Memory, "_resident", staticmethod(lambda: values[-1]))
    return values


def test_the_settings_say_how_much() -> None:
    assert ceiling(300, 8) == 300 * MIB


def test_else_it_is_a_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """But never so little that an empty worker would be over it."""
    monkeypatch.setattr(memory, "machine_bytes", lambda: 10_000 * MIB)
    assert ceiling(0, 8) == 1000 * MIB
    assert ceiling(0, 64) == 192 * MIB


def test_the_machine_has_some() -> None:
    assert 64 * MIB < machine_bytes() < 2**50


def test_it_sees_its_own_size() -> None:
    looked = Memory(2**50)
    looked.look(0)
    assert 5 * MIB < looked.resident < 2**40
    assert not looked.full


def test_it_sees_more_when_there_is_more_and_needs_no_descriptor_for_it() -> None:
    looked = Memory(2**50)
    looked.look(0)
    before = looked.resident
    held = bytearray(b"x") * (64 * MIB)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        looked.look(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert looked.resident >= before + len(held) / 2


def test_full_until_there_is_some_room_again(resident: list[int]) -> None:
    """A little below the ceiling it is still full, or it would open and close all the time."""
    looked = Memory(100 * MIB)
    states = []
    for size in (90, 100, 101, 99, 96, 94, 99, 101):
        resident.append(size * MIB)
        looked.look(0)
        states.append(looked.full)
    assert states == [False, False, True, True, True, False, False, True]


def test_memory_is_given_back_when_a_crowd_has_left(resident: list[int]) -> None:
    """Once for each crowd, however slowly it leaves."""
    looked, given = Memory(MIB), []
    for connections in (0, 2000, 1500, 1001, 1000, 900, 400, 1200, 201, 200, 0):
        looked._trim = lambda padding, connections=connections: given.append((padding, connections))
        looked.look(connections)
    assert given == [(0, 1000), (0, 200)]
