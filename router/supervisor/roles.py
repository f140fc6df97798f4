"""The places among the supervisor's children: who fills each of them now, and what kept the one before."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final

from core.measures import series
from core.process.control import BUS_UNHEARD, ENDPOINTS_MISSING, MEMORY_FULL, STORE_FAILING
from core.process.descriptors import Keep
from core.wire.protocol import MessageType
from router.supervisor.children import Child, ChildState
from router.supervisor.liveness import Liveness
from router.supervisor.restart_policy import PolicyState, RestartPolicy

#: What `messages_per_second` is made from.
_MESSAGES: Final = series("received_total", type=MessageType.MSG)
#: Two reports that come right after each other are taken to be so many seconds apart.
_REPORT_SECONDS_MIN: Final = 0.1

FRONT: Final = "front"
WORKER: Final = "worker"


class Problem(StrEnum):
    """A kind of problem that a process may have; the value says that it is over, as a sentence in which the process is *it*."""

    AWAY = "it serves again"
    SILENT = "its event loop makes turns again"
    STORE = "its store can write again"
    MEMORY = "it takes new connections again"
    ENDPOINTS = "its sockets can be found again"
    BUS = "it has heard from all other workers"


@dataclasses.dataclass(frozen=True)
class RoleState:
    """What another program needs to go on with a place."""

    kind: str
    index: int
    policy: PolicyState
    child: ChildState | None
    predecessor: ChildState | None
    generation: int
    replaced: int
    #: Seconds until the next process is started, where there is none.
    restart: float | None
    restarts: int
    last_end: str | None
    hangs: int


class Role:
    """One place among the children, such as worker 3, over all processes that fill it."""

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.name = f"{kind} {index}"
        self.policy = RestartPolicy(self.name)
        #: The process that fills it now; None between two.
        self.child: Child | None = None
        #: One that is about to take its place, and one that has given up its place and has not ended.
        self.successor: Child | None = None
        self.predecessor: Child | None = None
        #: Whether the process in it gets users and clients of the workers that there were before the number of workers changed.
        self.gathers = False
        #: The number of the process, unique over all starts; fronts have none.
        self.generation = 0
        #: How often a process was replaced while its clients stayed connected.
        self.replaced = 0
        #: Will start the next process.
        self.restart: asyncio.TimerHandle | None = None
        #: How often it was started again, and how the last process before this one ended.
        self.restarts = 0
        self.last_end: str | None = None
        #: How often a process was killed since it hung.
        self.hangs = 0
        self.liveness = Liveness()
        #: Whether nobody is to fill the place any more.
        self.retired = False

    def to_state(self, keep: Keep) -> RoleState:
        """Return what `take_up` needs; `keep` is called with each descriptor."""
        child, predecessor, restart = self.child, self.predecessor, self.restart
        return RoleState(
            self.kind,
            self.index,
            self.policy.to_state(),
            None if child is None else child.to_state(keep),
            None if predecessor is None else predecessor.to_state(keep),
            self.generation,
            self.replaced,
            None if restart is None else max(0.0, restart.when() - asyncio.get_running_loop().time()),
            self.restarts,
            self.last_end,
            self.hangs,
        )

    def take_up(
        self, state: RoleState, on_ready: Callable[[Child], None], on_exit: Callable[[Child], None]
    ) -> None:
        """Go on with the processes and the history of another program; `restart` is the caller's.

        There is no child where the process has ended and nobody can tell how.
        """

        def take_up(child: ChildState | None) -> Child | None:
            if child is None:
                return None
            with suppress(ProcessLookupError):
                return Child.taken_up(self.name, child, on_ready, on_exit)
            return None

        self.policy.take_up(state.policy)
        self.generation, self.replaced = state.generation, state.replaced
        self.restarts, self.last_end, self.hangs = state.restarts, state.last_end, state.hangs
        self.child, self.predecessor = take_up(state.child), take_up(state.predecessor)

    @property
    def state(self) -> str:
        if self.child is None and self.retired:
            return "stopped"
        if self.child is None:
            return "not running" if self.restart is None else "backing off"
        return "ready" if self.child.ready else "starting"

    def retire(self) -> None:
        """Start nobody in this place any more."""
        self.retired = True
        if self.restart is not None:
            self.restart.cancel()
            self.restart = None

    @property
    def follows_all(self) -> bool:
        """Whether no other worker is known not to have been heard on the bus."""
        return self.child is not None and not self.child.stats.get(BUS_UNHEARD)

    @property
    def problems(self) -> dict[Problem, str]:
        """What keeps it from serving as it should, each as a sentence in which it is *it*."""
        takes_over = self.predecessor is not None or self.gathers
        if self.child is not None and takes_over and not self.child.ready:
            return {}
        if self.child is None and self.retired:
            return {}
        if self.child is None or not self.child.ready:
            return {Problem.AWAY: f"it is {self.state}"}
        stats, problems = self.child.stats, {}
        if (silence := self.liveness.problem(self.child)) is not None:
            problems[Problem.SILENT] = silence
        if stats.get(STORE_FAILING):
            problems[Problem.STORE] = (
                "its store can't write, so messages to its users are refused: see its log"
            )
        if stats.get(MEMORY_FULL):
            problems[Problem.MEMORY] = (
                "it has reached its memory limit, FASTCHAT_WORKER_MEMORY_MIB, so it refuses new connections: raise the limit"
            )
        if stats.get(ENDPOINTS_MISSING):
            problems[Problem.ENDPOINTS] = (
                "its sockets in the run directory were removed and can't be opened again, so no new client can connect to it: see its log"
            )
        if stats.get(BUS_UNHEARD):
            problems[Problem.BUS] = (
                f"it has not heard from {stats[BUS_UNHEARD]:g} of the other workers since its own start or their start, so"
                " messages to the users of those workers may fail"
            )
        return problems

    def _messages_per_second(self) -> float:
        """Return MSG from clients a second, between the last two reports."""
        child = self.child
        if child is None or child.reported_at is None or child.reported_before is None:
            return 0.0
        received = child.stats.get(_MESSAGES, 0) - child.stats_before.get(_MESSAGES, 0)
        return received / max(child.reported_at - child.reported_before, _REPORT_SECONDS_MIN)

    def status(self) -> dict[str, Any]:
        """Return what ``/status`` says."""
        child = self.child
        return {
            "kind": self.kind,
            "index": self.index,
            "pid": child.pid if child else None,
            "generation": self.generation,
            "state": self.state,
            "problem": "; ".join(self.problems.values()) or None,
            "uptime": round(time.monotonic() - child.started_at, 1) if child else 0.0,
            "restarts": self.restarts,
            "replaced": self.replaced,
            "last_end": self.last_end,
            "messages_per_second": round(self._messages_per_second(), 1),
            "stats": child.stats if child else {},
        }
