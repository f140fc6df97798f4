"""The memory of a worker: a ceiling past which it takes no more connections, and giving back what a crowd that has left does not need.

Past the ceiling newcomers are told to come back later (1013), and everybody who is here goes on. Without it the kernel would end the
process, or another one, for all of its users.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Connections that must have gone before giving memory back is worth while: each leaves kilobytes behind, and it takes milliseconds.
_CROWD: Final = 1000
#: What all workers together may take of the machine's memory, if the settings don't say.
_SHARE: Final = 0.8
#: The least that this comes to for each: an empty worker has a third of it.
_LEAST: Final = 192 * 2**20
#: Under this part of the ceiling a worker that was over it takes connections again.
_ROOM_AGAIN: Final = 0.95
#: More than the seven numbers of statm take.
_STATM_BYTES: Final = 256
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def ceiling(mib: int, workers: int) -> int:
    """The bytes that a worker may have: as the settings say, or its share of the machine's."""
    if mib:
        return mib * 2**20
    return max(_LEAST, int(machine_bytes() * _SHARE / workers))


def machine_bytes() -> int:
    """The memory of the machine, or what the control group of this process leaves of it."""
    found = os.sysconf("SC_PHYS_PAGES") * _PAGE
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                group = Path("/sys/fs/cgroup", line[4:])
                for directory in (group, *group.parents):
                    with suppress(OSError, ValueError):  # "max" is no number: no limit here
                        found = min(found, int((directory / "memory.max").read_text()))
    return found


class Memory:
    """`look` now and then; `full` says whether the last look found more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.full = False
        #: Bytes in RAM at the last look.
        self.resident = 0
        #: The most connections since memory was given back.
        self._most = 0
        #: Open for good, since there may be no descriptor left when a look is most needed.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        #: Only in the GNU C library.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def look(self, connections: int) -> None:
        """See how much there is, with so many connections."""
        self._most = max(self._most, connections)
        if self._most - connections >= _CROWD:
            self._most = connections
            if self._trim is not None:
                self._trim(0)
        self.resident = self._resident()
        self.full = self.resident > self.limit * (_ROOM_AGAIN if self.full else 1.0)

    def _resident(self) -> int:
        return int(os.pread(self._statm, _STATM_BYTES, 0).split()[1]) * _PAGE
