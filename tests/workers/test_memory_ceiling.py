"""workers.memory_ceiling and core.process.allocator: the ceiling of a worker, and giving back what a crowd has left."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from core.process.allocator import Allocator, environment_of_children
from workers.memory_ceiling import MemoryCeiling

MIB = 2**20
PROJECT = Path(__file__).resolve().parents[2]


class FakeAllocator(Allocator):
    """`used` bytes of it are in use."""

    def __init__(self, used: int | None = None) -> None:
        self.used = used
        self.asked: list[float] = []

    def used_bytes(self) -> int | None:
        return self.used

    def give_back(self, now: float) -> bool:
        self.asked.append(now)
        return False


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the process has in memory: the last of the list."""
    values = [0]
    monkeypatch.setattr(MemoryCeiling, "_resident", staticmethod(lambda: values[-1]))
    return values


def test_it_sees_its_own_size() -> None:
    looked = MemoryCeiling(2**50)
    looked.sample(0.0)
    assert 5 * MIB < looked.resident < 2**40
    assert not looked.full


def test_it_sees_more_when_there_is_more_and_needs_no_descriptor_for_it() -> None:
    looked = MemoryCeiling(2**50)
    looked.sample(0.0)
    before = looked.resident
    held = bytearray(b"x") * (64 * MIB)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        looked.sample(1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert looked.resident >= before + len(held) / 2


def test_full_until_there_is_some_room_again(resident: list[int]) -> None:
    """A little below the ceiling it is still full, or it would open and close all the time."""
    looked = MemoryCeiling(100 * MIB, FakeAllocator())
    states = []
    for size in (90, 100, 101, 99, 96, 94, 99, 101):
        resident.append(size * MIB)
        looked.sample(0.0)
        states.append(looked.full)
    assert states == [False, False, True, True, True, False, False, True]


def test_what_is_free_but_can_not_be_given_back_does_not_count(resident: list[int]) -> None:
    """Newcomers have room in it: a worker that counted it would refuse them for ever."""
    allocator = FakeAllocator(20 * MIB)
    resident.append(50 * MIB)
    looked = MemoryCeiling(100 * MIB, allocator)
    states = []
    resident.append(140 * MIB)
    for used in (60, 71, 66, 64, 70):
        allocator.used = used * MIB
        looked.sample(0.0)
        states.append(looked.full)
    assert states == [False, True, True, False, False], "30 MiB are the program"


def test_free_memory_is_given_back_at_every_look(resident: list[int]) -> None:
    """The allocator says when that pays."""
    allocator = FakeAllocator()
    looked = MemoryCeiling(100 * MIB, allocator)
    for now in (1.0, 2.0):
        looked.sample(now)
    assert allocator.asked == [1.0, 2.0]


#: Takes memory in small pieces, a hundredth of which stay, each beside pieces that go.
PROGRAM = """
from core.process.allocator import Allocator

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

allocator = Allocator()
allocator.give_back(100.0)
empty = resident()
crowd = [(str(number), [number], bytes(100)) for number in range(200_000)]
assert not allocator.give_back(200.0), "nothing is free"
full, used = resident(), allocator.used_bytes()
stay = crowd[::100]
del crowd
assert allocator.used_bytes() < used - 0.8 * (full - empty)
assert allocator.give_back(300.0)
assert not allocator.give_back(400.0), "what was given back is free, but is not to be given back again"
print((full - resident()) / (full - empty))

def crowd_comes_and_goes(now, size=20_000):
    crowd = list(map(bytes, [1000] * size))
    assert not allocator.give_back(now)

crowd_comes_and_goes(499.0)
assert allocator.give_back(500.0)
crowd_comes_and_goes(502.0)
assert not allocator.give_back(503.0), "so soon after the last time"
crowd_comes_and_goes(506.0, 1000)
assert not allocator.give_back(509.0), "not enough"
assert allocator.give_back(511.0), "it may be the rest of what was enough"
crowd_comes_and_goes(517.0, 1000)
assert not allocator.give_back(618.0), "but only once"
"""


def test_what_a_crowd_took_can_be_given_back_though_some_of_it_stays() -> None:
    """With the allocator that workers and fronts are started with."""
    chosen = environment_of_children({})
    if not chosen:
        pytest.skip("this C library can't give memory back between what is in use")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=PROJECT,
        env={**os.environ, **chosen},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    assert float(run.stdout) > 0.65


def test_an_operators_own_choice_of_allocator_stays() -> None:
    assert environment_of_children({"PYTHONMALLOC": "debug"}) == {}


#: Takes memory in tuples of all lengths between other things, lets all of it go, and gives it back with and without the spare objects.
SPARE_OBJECTS = """
import gc, sys, weakref
from core.process.allocator import Allocator
from workers.memory_ceiling import release_spare_objects

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

class Cycle(list):
    pass

gc.disable()
allocator = Allocator(release_spare_objects if sys.argv[1] == "with" else None)
allocator.give_back(100.0)
empty = resident()
crowd = [(tuple(range(number % 20)), bytes(200)) for number in range(100_000)]
crowd.reverse()
full = resident()
cycle = Cycle()
cycle.append(cycle)
here, there = Cycle(), weakref.ref(cycle)
del crowd, cycle
assert allocator.give_back(300.0)
assert there() is not None, "nothing was looked at"
assert gc.is_tracked(here) and any(each is here for each in gc.get_objects())
print((full - resident()) / (full - empty))
"""


def test_spare_objects_of_python_do_not_keep_what_a_crowd_took() -> None:
    """Up to 2,000 tuples of each length are kept for later, each in a page of its own."""
    chosen = environment_of_children({})
    if not chosen:
        pytest.skip("this C library can't give memory back between what is in use")
    back = [
        float(
            subprocess.run(
                [sys.executable, "-c", SPARE_OBJECTS, release],
                cwd=PROJECT,
                env={**os.environ, **chosen},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=60,
            ).stdout
        )
        for release in ("with", "without")
    ]
    assert back[0] > 0.9 > back[1]
