"""The end of a loop turn: where everything that the turn produced goes out, once.

Frames, bus records and store writes are collected while the loop works through what is readable. Then, in the same turn: held sessions go
on, the store commits, one envelope goes to each shard, and each connection gets one write with all its frames. A lone frame is
not delayed by this, since an idle loop has nothing else to work through; under load it saves most of the system calls.

Under load turns are *paced* as well: behind one that wrote to many, several frames each, the next one goes on reading for a fraction of a
millisecond before it ends. Then more frames share a write, a commit and an envelope, and who keeps several messages under way is served
sooner, not later. Where there is little to write, or one frame for each, nothing waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Protocol

from core.measures import SECONDS, Histogram
from workers.pause import Pause

_log = logging.getLogger("fastchat.worker")

#: Frames that a turn must have written, and how many of them for each write, for the next one to be paced: with fewer there is nothing
#: to save. In tenths, since it is compared once a turn.
_PACED_FRAMES: Final = 32
_PACED_TENTHS: Final = 13
#: Seconds that a paced turn goes on reading.
_PACE: Final = 0.00015


class Flushed(Protocol):
    """Something with output to write at the end of the turn."""

    def flush(self, now: float) -> int:
        """Write it, and say how many frames that were."""
        ...


class Turn:
    """`schedule` after anything that may have produced output; `dirty` for a connection that has some."""

    __slots__ = (
        "_began",
        "_dirty",
        "_durations",
        "_longest",
        "_loop",
        "_paced",
        "_pause",
        "_scheduled",
        "_work",
        "_written",
        "number",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._scheduled = False
        #: Whether the next turn is paced; and what paces it, where there is a timer for that.
        self._paced = False
        self._pause: Pause | None = None
        with suppress(OSError):
            self._pause = Pause(loop, _PACE, self._end)
        #: Which turn this is.
        self.number = 1
        #: When the first thing happened in this turn, and how long turns have taken, and the longest since `stats` was asked for; seconds.
        self._began = 0.0
        self._durations = Histogram(SECONDS)
        self._longest = 0.0
        self._dirty: list[Flushed] = []
        self._work: Callable[[float], bool] | None = None
        self._written: Callable[[float], None] | None = None

    def attach(self, work: Callable[[float], bool], written: Callable[[float], None]) -> None:
        """Attach `work`, done before the connections are flushed; it says whether more is to do in another turn; `written` after that."""
        self._work = work
        self._written = written

    def schedule(self) -> None:
        """Make sure that this turn has an end."""
        if not self._scheduled:
            self._scheduled = True
            self._began = monotonic()
            if self._paced and self._pause is not None:
                self._began += _PACE
                self._pause.begin()
            else:
                self._loop.call_soon(self._end)

    def dirty(self, connection: Flushed) -> None:
        """Note that this connection has output; to be called once until it is flushed."""
        self._dirty.append(connection)
        if not self._scheduled:
            self.schedule()

    def stats(self) -> dict[str, Any]:
        """Return this part of the worker's report; the longest turn is that since this was asked last."""
        longest, self._longest = self._longest, 0.0
        return {"turn_seconds": self._durations.report(), "longest_turn_seconds": longest}

    def _end(self) -> None:
        assert self._work is not None and self._written is not None, "attach() comes first"
        self._scheduled = False
        self.number += 1
        now = monotonic()
        try:
            more = self._work(now)
        except Exception:
            _log.exception("bug at the end of a loop turn")
            more = True
        connections, self._dirty = self._dirty, []
        frames = 0
        for connection in connections:
            try:
                frames += connection.flush(now)
            except Exception:
                _log.exception("bug while writing to a client; the others are not affected")
        self._paced = not more and frames >= _PACED_FRAMES and frames * 10 >= len(connections) * _PACED_TENTHS
        now = monotonic()
        self._written(now)
        took = now - self._began
        self._durations.record(took)
        if took > self._longest:
            self._longest = took
        if more:
            self.schedule()
