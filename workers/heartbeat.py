"""One timer wheel for all connections of a worker.

A connection needs to be looked at about every 20 s (D27), and hardly ever sooner. A timer each would cost a heap operation per frame; the
wheel costs nothing per frame: a connection sits in the slot of the moment when it is due *if nothing comes*, and when that moment
arrives it says itself whether something came and when to look again.
"""

from __future__ import annotations

import logging
import math
from typing import Protocol

_log = logging.getLogger("fastchat.worker")

#: Seconds per slot, and so how late a look may be.
SLOT_SECONDS = 0.25


class Watched(Protocol):
    """What sits on the wheel."""

    def look(self, now: float) -> float | None:
        """Do what is due, and say when to look again; None for never."""


class TimerWheel:
    """`watch` something, and it is asked to `look` when it is due."""

    def __init__(self, now: float) -> None:
        #: slot number (time divided by SLOT_SECONDS) -> what is due then. Only slots in use exist.
        self._slots: dict[int, list[Watched]] = {}
        self._next = int(now / SLOT_SECONDS)

    def watch(self, watched: Watched, due: float) -> None:
        """Look at it at `due` or up to SLOT_SECONDS later. Watching the same thing twice looks at it twice."""
        slot = max(math.ceil(due / SLOT_SECONDS), self._next)
        self._slots.setdefault(slot, []).append(watched)

    def turn(self, now: float) -> None:
        """Look at everything that is due."""
        current = int(now / SLOT_SECONDS)
        while self._next <= current:
            watched_now = self._slots.pop(self._next, ())
            self._next += 1
            for watched in watched_now:
                try:
                    due = watched.look(now)
                except Exception:
                    _log.exception("bug in the heartbeat of a connection; the others are not affected")
                    continue
                if due is not None:
                    self.watch(watched, due)
