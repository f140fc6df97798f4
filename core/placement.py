"""Where a user lives: user id -> one of 1,024 slots -> worker.

The slot of a user never changes; what changes with the number of workers is who owns a slot. The table for n + 1 workers is that for
n with a fair share of slots taken from those who own most: so the load is even to a slot, and a slot that did not go to the newcomer
stays where it was. Every process computes the same table from the number of workers alone, so there is nothing to agree on.
"""

from __future__ import annotations

from functools import cache
from typing import Final
from zlib import crc32

SLOTS: Final = 1024
_MASK: Final = SLOTS - 1
#: Beyond this a worker would own fewer than 16 slots and the load could no longer be even.
WORKERS_MAX: Final = 64


def slot_of(user_id: str) -> int:
    """Return the slot of a user, 0 to 1,023. `user_id` is in its canonical (lower-case) form."""
    return crc32(user_id.encode()) & _MASK


class Placement:
    """The owner of every slot for a given number of workers. Raises ValueError for less than 1 or more than 64 workers."""

    __slots__ = ("owners", "workers")

    def __init__(self, workers: int) -> None:
        if not 1 <= workers <= WORKERS_MAX:
            raise ValueError(f"the number of workers must be between 1 and {WORKERS_MAX}, not {workers}")
        self.workers = workers
        #: slot -> worker
        self.owners: tuple[int, ...] = _owners(workers)

    def worker_of(self, user_id: str) -> int:
        """Return the worker that owns this user."""
        return self.owners[crc32(user_id.encode()) & _MASK]  # `slot_of`, without the call


# The same for everybody who asks, and it takes a millisecond; the tables for all numbers of workers take less than a megabyte.
@cache
def _owners(workers: int) -> tuple[int, ...]:
    """Grow the table from one worker to `workers`: each newcomer takes its fair share from those that own most.

    Growing step by step is what keeps a slot where it was unless it goes to the newcomer.
    """
    owners = [0] * SLOTS
    for newcomer in range(1, workers):
        owned: list[list[int]] = [[] for _ in range(newcomer)]
        for slot in sorted(range(SLOTS), key=lambda slot: crc32(b"%d:%d" % (slot, newcomer))):
            owned[owners[slot]].append(slot)
        share = SLOTS // (newcomer + 1)
        for _ in range(share):
            richest = max(range(newcomer), key=lambda worker: (len(owned[worker]), -worker))
            owners[owned[richest].pop()] = newcomer
    return tuple(owners)
