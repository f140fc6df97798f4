"""The memory of a worker: a ceiling past which it takes no more connections, and giving back what is free.

Past the ceiling newcomers are told to come back later (1013), and everybody who is here goes on. Without it the kernel would end the
process, or another one, for all of its users.

What counts is what is in use. Free memory that could not be given back, since something is left in each of its pages, has room for
newcomers; a worker that counted it would refuse them until it is restarted.
"""

from __future__ import annotations

import gc
import os
from typing import Final

from core.process.allocator import Allocator

#: Under this part of the ceiling a worker that was over it takes connections again.
_ROOM_AGAIN: Final = 0.95
#: More than the seven numbers of statm take.
_STATM_BYTES: Final = 256
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def release_spare_objects() -> None:
    """Free the objects that Python keeps for the next of their kind, such as 2,000 tuples of each length up to 20.

    After a crowd has left they lie all over the memory that it took, and each keeps a page. Python frees them at a full collection, which
    takes no time when everything is frozen, so that there is nothing to look at. A worker never has another full collection
    (`workers.__main__`), so it makes no difference to it that what was frozen before is not any more.
    """
    gc.freeze()
    gc.collect()
    gc.unfreeze()


class MemoryCeiling:
    """`sample` once a second; `full` says whether the last sample found more in use than `limit` bytes."""

    def __init__(self, limit: int, allocator: Allocator | None = None) -> None:
        """Make it before there is much in memory."""
        self.limit = limit
        self.full = False
        #: Bytes in RAM at the last look, and how many of them were in use.
        self.resident = 0
        self.used = 0
        self._allocator = allocator or Allocator(release_spare_objects)
        #: Open for good, since there may be no descriptor left when a look is most needed.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        #: What is in RAM beyond the allocator's memory: the program, above all.
        self._program = max(0, self._resident() - (self._allocator.used_bytes() or 0))

    def sample(self, now: float) -> None:
        """See how much there is, and give back what is free."""
        self._allocator.give_back(now)
        self.resident = self.used = self._resident()
        limit = self.limit * (_ROOM_AGAIN if self.full else 1.0)
        if self.resident > limit:
            # Only now, since it takes longer to find out.
            used = self._allocator.used_bytes()
            if used is not None:
                self.used = min(self.resident, used + self._program)
        self.full = self.used > limit

    def _resident(self) -> int:
        return int(os.pread(self._statm, _STATM_BYTES, 0).split()[1]) * _PAGE
