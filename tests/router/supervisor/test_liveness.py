"""Tests of router.supervisor.liveness: which child hangs, and which is a victim. The real processes are in tests/system/test_hangs.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Final, cast

import pytest

from router.supervisor.children import Child
from router.supervisor.liveness import BOOT_LOOKS, BUSY_LOOKS, HANG_LOOKS, LOOK_INTERVAL, Liveness
from router.supervisor.process_usage import Activity, read_activity
from tests.router.front_process import wait_until

#: Seconds that the slowest look takes in these tests: a machine that was suspended.
NIGHT: Final = 8 * 3600.0


class Watched:
    """A child without a process, the kernel's word for it, and the supervisor's clock."""

    def __init__(self, ready: bool = True) -> None:
        self.now = 1000.0
        #: What the kernel says: the states of the threads, and the part of the time in which they use a CPU. None: nothing.
        self.states: str | None = "S"
        self.load = 0.0
        self._used = 0.0
        #: How often the kernel was asked.
        self.asked = 0
        self.child = self._new(ready)
        self.liveness = Liveness(self._read)

    def _new(self, ready: bool) -> Child:
        return cast(Child, SimpleNamespace(pid=1, ready=ready, beats=0))

    def _read(self, pid: int) -> Activity | None:
        self.asked += 1
        return None if self.states is None else Activity(self._used, frozenset(self.states))

    def replace(self, ready: bool = True) -> None:
        """Another process fills the place."""
        self.child = self._new(ready)

    def beat(self) -> None:
        self.child.beats += 1

    def look(self, after: float = LOOK_INTERVAL) -> str | None:
        self.now += after
        self._used += self.load * after
        return self.liveness.look(self.child, self.now)

    def looks_until_it_hangs(self) -> int:
        """How many looks without a beat it takes; the first look finds the last beat."""
        assert self.look() is None
        for number in range(1, 10 * BUSY_LOOKS):
            if self.look():
                return number
        raise AssertionError("it never hangs")


@pytest.mark.parametrize(
    ("states", "load", "words"),
    [("S", 0.0, "it sleeps and does nothing"), ("T", 0.0, "it was stopped"), ("S", 0.04, "it sleeps")],
)
def test_an_idle_child_without_a_beat_hangs_after_three_seconds(states: str, load: float, words: str) -> None:
    watched = Watched()
    watched.states, watched.load = states, load
    assert watched.looks_until_it_hangs() == HANG_LOOKS
    assert 3.0 <= HANG_LOOKS * LOOK_INTERVAL < 4.0
    sentence = watched.liveness.problem(watched.child)
    assert sentence is not None
    assert sentence.startswith("its event loop has made no turn for ")
    assert words in sentence


@pytest.mark.parametrize(
    ("states", "load", "words"),
    [
        ("R", 1.0, "it uses CPU time, in an endless loop perhaps"),
        ("S", 0.1, "it uses CPU time, in an endless loop perhaps"),
        ("R", 0.0, "it gets no CPU time"),
        ("SR", 0.0, "it gets no CPU time"),
        ("SD", 0.0, "it waits for a disk"),
        ("t", 0.0, "a debugger has stopped it"),
        (None, 0.0, "what keeps it is not known"),
    ],
)
def test_a_child_that_may_be_a_victim_has_half_a_minute(states: str | None, load: float, words: str) -> None:
    """It is told after the three seconds all the same."""
    watched = Watched()
    watched.states, watched.load = states, load
    assert watched.look() is None
    for _ in range(HANG_LOOKS - 1):
        assert watched.look() is None
        assert watched.liveness.problem(watched.child) is None
    for _ in range(BUSY_LOOKS - HANG_LOOKS):
        assert watched.look() is None
        assert words in (watched.liveness.problem(watched.child) or "")
    assert words in (watched.look() or "")


def test_a_child_that_got_a_cpu_at_last_and_sleeps_is_judged_by_the_last_seconds() -> None:
    """What it did before these says nothing about what it does now."""
    watched = Watched()
    watched.states = "R"
    for _ in range(2 * HANG_LOOKS):
        assert watched.look() is None
    watched.states = "S"
    looks = next(number for number in range(1, BUSY_LOOKS) if watched.look())
    assert looks < HANG_LOOKS


def test_each_beat_begins_anew() -> None:
    watched = Watched()
    for number in range(10 * HANG_LOOKS):
        if number % (HANG_LOOKS - 1) == 0:
            watched.beat()
        assert watched.look() is None
        assert watched.liveness.problem(watched.child) is None


def test_the_kernel_is_not_asked_about_a_child_that_beats() -> None:
    """Beats and looks are not in step, so a look without a beat is ordinary."""
    watched = Watched()
    for number in range(20):
        if number % 2:
            watched.beat()
        watched.look()
    assert watched.asked == 0


def test_d27_a_supervisor_that_stood_still_blames_nobody() -> None:
    """However long it was, and also when its next look comes before what waits in the pipe is read."""
    watched = Watched()
    for _ in range(HANG_LOOKS - 1):
        watched.look()
    assert watched.look(NIGHT) is None
    assert watched.liveness.problem(watched.child) is None
    for _ in range(HANG_LOOKS - 1):
        assert watched.look() is None
    watched.beat()
    assert watched.look() is None


def test_a_child_that_hangs_on_after_that_is_found() -> None:
    watched = Watched()
    watched.look()
    watched.look(NIGHT)
    assert next(number for number in range(1, BUSY_LOOKS) if watched.look()) == HANG_LOOKS


def test_a_supervisor_that_is_always_late_finds_a_hung_child_in_the_end() -> None:
    """Its machine is so busy that it can't tell who hangs, so it has the time of one that may be a victim."""
    watched = Watched()
    assert watched.look() is None
    assert next(number for number in range(1, 2 * BUSY_LOOKS) if watched.look(2.0)) == BUSY_LOOKS


def test_a_child_that_boots_has_longer_for_that() -> None:
    """And the time for beats begins when it is ready."""
    watched = Watched(ready=False)
    assert watched.looks_until_it_hangs() == BOOT_LOOKS
    assert watched.look() == "it did not boot in time"
    watched = Watched(ready=False)
    for _ in range(BOOT_LOOKS):
        assert watched.look() is None
    watched.child.ready = True
    assert watched.liveness.problem(watched.child) is None
    assert watched.looks_until_it_hangs() == HANG_LOOKS


def test_the_next_process_is_not_blamed_for_the_one_before() -> None:
    watched = Watched()
    watched.looks_until_it_hangs()
    assert watched.liveness.look(None, watched.now) is None
    watched.replace()
    assert watched.liveness.problem(watched.child) is None
    assert watched.looks_until_it_hangs() == HANG_LOOKS


# -- What the kernel says of real processes --


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs this code."""
    with subprocess.Popen([sys.executable, "-c", request.param]) as process:
        yield process
        process.kill()


def states_of(process: subprocess.Popen[bytes]) -> frozenset[str]:
    activity = read_activity(process.pid)
    return frozenset() if activity is None else activity.states


@pytest.mark.parametrize("program", ["while True: pass"], indirect=True)
def test_a_process_in_an_endless_loop_runs(program: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: (read_activity(program.pid) or Activity(0.0, frozenset())).cpu_seconds > 0.1, "work")
    assert states_of(program) == {"R"}


@pytest.mark.parametrize("program", ["import time; time.sleep(600)"], indirect=True)
def test_a_process_sleeps_is_stopped_goes_on_and_ends(program: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: states_of(program) == {"S"}, "the process to sleep")
    os.kill(program.pid, signal.SIGSTOP)
    wait_until(lambda: states_of(program) == {"T"}, "the process to be stopped")
    os.kill(program.pid, signal.SIGCONT)
    wait_until(lambda: states_of(program) == {"S"}, "the process to sleep again")
    program.kill()
    program.wait()
    assert read_activity(program.pid) is None
