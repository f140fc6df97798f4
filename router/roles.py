"""The places among the supervisor's children: who fills each of them now, and what kept the one before."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from core.control import MEMORY_FULL, STORE_FAILING
from router.children import Child
from router.restart_policy import RestartPolicy

FRONT: Final = "front"
WORKER: Final = "worker"


class Role:
    """One place among the children, such as worker 3, over all processes that fill it."""

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.name = f"{kind} {index}"
        self.policy = RestartPolicy(self.name)
        #: The process that fills it now; None between two.
        self.child: Child | None = None
        #: The number of that process, unique over all starts; fronts have none.
        self.generation = 0
        #: Will start the next process.
        self.restart: asyncio.TimerHandle | None = None
        #: How often it was started again, and how the last process before this one ended.
        self.restarts = 0
        self.last_end: str | None = None

    @property
    def state(self) -> str:
        if self.child is None:
            return "backing off"
        return "ready" if self.child.ready else "starting"

    @property
    def problem(self) -> str | None:
        """What keeps it from serving as it should, for people."""
        if self.state != "ready":
            return f"it is {self.state}"
        if self.child is not None and self.child.stats.get(STORE_FAILING):
            return "its store can't write, so messages to its users are refused: see its log"
        if self.child is not None and self.child.stats.get(MEMORY_FULL):
            return "it has all the memory that FASTCHAT_WORKER_MEMORY_MIB allows, so new connections to it are refused"
        return None

    def status(self) -> dict[str, Any]:
        """For `/status`."""
        child = self.child
        return {
            "kind": self.kind,
            "index": self.index,
            "pid": child.pid if child else None,
            "generation": self.generation,
            "state": self.state,
            "problem": self.problem,
            "uptime": round(time.monotonic() - child.started_at, 1) if child else 0.0,
            "restarts": self.restarts,
            "last_end": self.last_end,
            "stats": child.stats if child else {},
        }
