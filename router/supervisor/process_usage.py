"""What the kernel knows about a process: CPU time, memory, descriptors. Any process may ask about any other of the same user.

The supervisor asks about its children, so that no worker's event loop pauses for it. Everything comes from ``/proc/PID``, see proc(5).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

#: Seconds for which a count of descriptors holds that was made one by one: with 100,000 connections it takes a tenth of a second.
_COUNT_HOLDS: Final = 10.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: States of a process that has ended, of which only the exit code is left.
_ENDED: Final = (b"Z", b"X")
#: Where these are among the fields of ``/proc/PID/stat`` that come after the name.
_STATE, _USER_TICKS, _SYSTEM_TICKS, _START_TICKS = 0, 11, 12, 19
_MAX_FDS: Final = re.compile(rb"^Max open files +(\d+)", re.MULTILINE)


class Usage(NamedTuple):
    """What a process has used up to now, and uses."""

    #: Seconds of CPU time, user and system, of all threads.
    cpu_seconds: float
    #: Bytes in RAM.
    resident_bytes: int
    open_fds: int
    #: None when there is no limit.
    max_fds: int | None
    #: When it started, in seconds since 1970; the same at every reading.
    started_at: float


class Activity(NamedTuple):
    """What a process does at a moment."""

    #: As in `Usage`.
    cpu_seconds: float
    #: The states of its threads, a letter each: R runs or wants to run, S sleeps, D waits for a disk, T was stopped, t is debugged.
    states: frozenset[str]


class StartedState(NamedTuple):
    """When a process was started: what has been said of it once."""

    pid: int
    start_ticks: int
    started_at: float


class _Known:
    """What need not be asked again about a process."""

    __slots__ = ("counted_at", "open_fds", "start_ticks", "started_at")

    def __init__(self, start_ticks: int) -> None:
        #: Since the machine started. A number alone could be another process's by now.
        self.start_ticks = start_ticks
        #: Reckoned once: the two clocks drift apart a little, and the time must not seem to change.
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self.started_at = round(boot + start_ticks / _TICKS, 2)
        #: The last count of its descriptors that was made one by one, and when, on the monotonic clock.
        self.open_fds = 0
        self.counted_at: float | None = None


class ProcessUsage:
    """Reads what processes use; one for everybody who asks, since it remembers what is dear to find out."""

    def __init__(self, count_holds: float = _COUNT_HOLDS) -> None:
        self._count_holds = count_holds
        #: By process number.
        self._known: dict[int, _Known] = {}

    def to_state(self) -> list[StartedState]:
        """Return what `take_up` needs."""
        return [StartedState(pid, known.start_ticks, known.started_at) for pid, known in self._known.items()]

    def take_up(self, state: Iterable[StartedState]) -> None:
        """Tell the same of a process as another program did."""
        for each in state:
            known = self._known[each.pid] = _Known(each.start_ticks)
            known.started_at = each.started_at

    def read(self, pid: int) -> Usage | None:
        """Read what process `pid` uses; None when it has ended, or when the kernel does not tell."""
        try:
            # The name, in parentheses, may contain anything, so the fields are counted from its end.
            fields = _read(pid, "stat").rpartition(b")")[2].split()
            if fields[_STATE] in _ENDED:
                self._known.pop(pid, None)
                return None
            known = self._of(pid, int(fields[_START_TICKS]))
            limit = _MAX_FDS.search(_read(pid, "limits"))
            return Usage(
                (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS,
                int(_read(pid, "statm").split()[1]) * _PAGE,
                self._count_descriptors(pid, known),
                int(limit[1]) if limit else None,
                known.started_at,
            )
        except OSError:
            self._known.pop(pid, None)
            return None

    def _of(self, pid: int, start_ticks: int) -> _Known:
        known = self._known.get(pid)
        if known is None or known.start_ticks != start_ticks:
            # A new process is rare: the time to forget those that have ended meanwhile.
            self._known = {each: of for each, of in self._known.items() if os.path.exists(f"/proc/{each}")}
            known = self._known[pid] = _Known(start_ticks)
        return known

    def _count_descriptors(self, pid: int, known: _Known) -> int:
        directory = f"/proc/{pid}/fd"
        # Since Linux 6.2 the size of the directory is their number; before, it is always 0.
        if count := os.stat(directory).st_size:
            return count
        now = time.monotonic()
        if known.counted_at is None or now - known.counted_at >= self._count_holds:
            known.open_fds = len(os.listdir(directory))
            known.counted_at = now
        return known.open_fds


def read_activity(pid: int) -> Activity | None:
    """Read what process `pid` does; None when it has ended, or when the kernel does not tell."""
    try:
        used = _read(pid, "stat").rpartition(b")")[2].split()
        threads = [_read(pid, f"task/{thread}/stat") for thread in os.listdir(f"/proc/{pid}/task")]
    except OSError:  # a thread that ended meanwhile too: whoever asks will ask again
        return None
    states = frozenset(thread.rpartition(b")")[2].split()[_STATE].decode() for thread in threads)
    return Activity((int(used[_USER_TICKS]) + int(used[_SYSTEM_TICKS])) / _TICKS, states)


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.read()
