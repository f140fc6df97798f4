"""The order of what other workers send, while one process of a worker takes the place of another.

Envelopes of one process come in the order in which they were sent. Those of its successor come another way, and may be there first. So
they are kept until the stream of the process before is known to have ended: its last record says so (MOVED_ON), or the supervisor says
that the process is dead. A successor in turn keeps what comes to itself from a worker, until that worker's stream to the predecessor, which
is passed on, has ended.
"""

from __future__ import annotations

from typing import Final

from core.wire.protocol import CONFIRM_TIMEOUT

#: Seconds that an envelope waits at most; what it asks has failed by then (D26).
_PATIENCE: Final = CONFIRM_TIMEOUT


class Streams:
    """From which processes envelopes are taken, and those that have to wait."""

    __slots__ = ("_blocked", "_ended", "_held", "passing")

    def __init__(self) -> None:
        #: worker -> generation of the process whose envelopes are taken.
        self.passing: dict[int, int] = {}
        #: worker -> generation of the last process that is known to have ended; what comes from that late is taken all the same.
        self._ended: dict[int, int] = {}
        #: Workers from which nothing is taken until `unblock`.
        self._blocked: set[int] = set()
        #: worker -> since when envelopes wait, and these in order.
        self._held: dict[int, tuple[float, list[bytes]]] = {}

    @property
    def held(self) -> int:
        """From how many workers envelopes wait."""
        return len(self._held)

    def block(self, worker: int) -> None:
        """Take nothing from a worker until `unblock`: what it has sent to the predecessor comes first."""
        self._blocked.add(worker)

    def unblock(self, worker: int) -> list[bytes] | None:
        """Note that the predecessor has passed on all that a worker had sent to it.

        Returns what has waited for that; None when the worker is not blocked.
        """
        if worker not in self._blocked:
            return None
        self._blocked.discard(worker)
        return self._released(worker)

    def takes(self, worker: int, generation: int, envelope: bytes, now: float) -> bool:
        """Return whether an envelope that is not of a `passing` process may be handled now; otherwise it is kept."""
        if worker not in self._blocked:
            # Later processes have higher generations.
            if generation < self.passing.get(worker, -1) or generation <= self._ended.get(worker, -1):
                return True
            if worker not in self.passing:
                self.passing[worker] = generation
                return True
        if worker not in self._held:
            self._held[worker] = (now, [])
        self._held[worker][1].append(envelope)
        return False

    def ended(self, worker: int, generation: int) -> list[bytes]:
        """Note that nothing more comes from a process on the way that it has used; what has waited for that is to be received."""
        if self.passing.get(worker, generation) <= generation:
            self.passing.pop(worker, None)
        self._ended[worker] = max(generation, self._ended.get(worker, -1))
        self._blocked.discard(worker)
        return self._released(worker)

    def overdue(self, now: float) -> list[bytes]:
        """Return what has waited for too long, to be received: whoever should have said that a stream has ended is gone too."""
        overdue: list[bytes] = []
        for worker in [worker for worker, (since, _) in self._held.items() if since + _PATIENCE <= now]:
            self.passing.pop(worker, None)
            self._blocked.discard(worker)
            overdue += self._released(worker)
        return overdue

    def _released(self, worker: int) -> list[bytes]:
        return self._held.pop(worker, (0.0, []))[1]
