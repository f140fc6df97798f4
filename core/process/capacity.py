"""How many workers this machine or container carries, and how much memory each may have."""

from __future__ import annotations

from typing import Final

from core.placement import WORKERS_MAX
from core.process.cgroups import affinity, machine_memory, usable_cpus, usable_memory

MIB: Final = 2**20
#: What all processes together may take of the memory. The rest is for sockets and files, which the kernel keeps for them.
_SHARE: Final = 0.8
#: What each process has to itself before anybody is connected, and what all of them share, which counts in the size of each.
_PROCESS: Final = 36 * MIB
_SHARED: Final = 18 * MIB
#: What a worker needs beyond that: it takes some 2,000 idle clients.
_ROOM: Final = 20 * MIB
#: The least size of a worker that has room for clients.
WORKER_LEAST: Final = _PROCESS + _SHARED + _ROOM


class Capacity:
    """That of `memory` bytes for a server of so many fronts."""

    def __init__(self, memory: int, fronts: int = 1) -> None:
        self._memory = memory
        #: What the supervisor, the fronts and what all share take.
        self._others = (1 + fronts) * _PROCESS + _SHARED

    @property
    def workers(self) -> int:
        """For how many workers with room for clients there is enough; at least 1."""
        return max(1, self._for_workers // (_PROCESS + _ROOM))

    def holds(self, workers: int) -> bool:
        """Return whether so many workers can even be started."""
        return workers == 1 or self._others + workers * _PROCESS <= self._memory

    def ceiling(self, workers: int) -> int:
        """Return the resident size past which a worker takes no more connections: its share, but more than an empty one has."""
        share = self._for_workers // workers
        return min(max(share + _SHARED, WORKER_LEAST), self._memory)

    @property
    def _for_workers(self) -> int:
        return max(0, int(self._memory * _SHARE) - self._others)


def default_workers() -> int:
    """Return one for each CPU that may be used, but only as many as there is memory for."""
    return min(usable_cpus(), Capacity(usable_memory()).workers, WORKERS_MAX)


def limits_of_container() -> str | None:
    """Return what control groups leave of the machine, for the operator; None when that is all of its memory and of our CPUs."""
    memory, cpus = usable_memory(), usable_cpus()
    if memory >= machine_memory() and cpus >= affinity():
        return None
    return f"this container may use {cpus} of {affinity()} CPUs and {memory // MIB} of {machine_memory() // MIB} MiB of memory"
