"""The drain: the server takes no more connections, and closes those that it has one after the other, so that clients go to other servers.

    serving --> draining: the listeners are closed, the fronts end, the workers close their connections --> drained

It begins with an operator's command, and then the server stays, drained, until somebody stops it; or with SIGTERM if the setting gives it a
time, and then the server ends when it is drained. There is no way back, since another program may have taken the port.

The listeners are closed at once, as nginx and HAProxy do. Whoever wants to connect is refused by the kernel, which a load balancer takes as
a reason to try the next server, where it would hand on a 503. Those who wait in a backlog can't be refused any more, and get that 503.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from core.process.control import DRAIN, DRAINED
from router.supervisor.children import Child
from router.supervisor.health import Phase
from router.supervisor.roles import FRONT, WORKER, Role

_log = logging.getLogger("fastchat.supervisor")

#: Seconds of a drain for which nobody has named a number: many load balancers need half of that to notice that the server is not ready.
DRAIN_SECONDS: Final = 30.0
#: Seconds beyond it in which workers give the last answers to clients (``workers.draining``).
_GRACE: Final = 7.0
#: Seconds between two looks whether the drain is over.
_INTERVAL: Final = 0.1
#: Seconds after the end of the last front in which a worker has taken what that front had handed over, and reported.
_HANDED_OVER: Final = 0.5
#: Who may ask for it.
_COMMAND: Final = "an operator"
_SIGNAL: Final = signal.SIGTERM.name


class Drain:
    """The drain of the server, if there is one. `close_listeners` closes all that this process has of the public port."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        roles: Sequence[Role],
        seconds: float,
        close_listeners: Callable[[], None],
    ) -> None:
        """`seconds` is the setting: 0 if SIGTERM is no reason to drain."""
        self._loop = loop
        self._roles = roles
        self._seconds = seconds
        self._close_listeners = close_listeners
        #: None while the server serves.
        self.phase: Phase | None = None
        #: Who asked for it first, and how many connections there were then.
        self._why = _COMMAND
        self._connections_before = 0
        #: When it began, when all connections are to be closed, and when the last front has ended, on the monotonic clock.
        self._since = self._until = 0.0
        self._fronts_gone_at: float | None = None
        #: What follows when the server is drained, if it is to end then.
        self._then: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def precedes_stop(self) -> bool:
        """Whether a SIGTERM of now is to drain the server first."""
        return self._seconds > 0.0 and self._then is None and self.phase is not Phase.DRAINED

    @property
    def seconds_left(self) -> float:
        """Seconds until the server ends at the latest that is to end when it is drained."""
        return max(0.0, self._until + _GRACE - time.monotonic())

    def begin(self, seconds: float | None = None) -> dict[str, Any]:
        """Begin, if that has not happened; `seconds` are those of the setting if None. Return what the operator is told."""
        if self.phase is None:
            seconds = (self._seconds or DRAIN_SECONDS) if seconds is None else seconds
            self.phase = Phase.DRAINING
            self._since = time.monotonic()
            self._until = self._since + seconds
            self._connections_before = self._connections
            _log.info("draining: no new connections, and the open ones are closed within %g s", seconds)
            self._close_listeners()
            for role in self._roles:
                if role.kind == FRONT:
                    role.retire()
                if role.child is not None:
                    self._tell(role.child)
            self._look()
        return {
            "state": self.phase,
            "seconds": round(self._seconds_for_clients, 1),
            "connections": self._connections,
        }

    def begin_then(self, then: Callable[[], None]) -> None:
        """Begin, if that has not happened, and call `then` when the server is drained, or its time is over."""
        self._then = then
        if self.phase is None:
            self._why = _SIGNAL
        self.begin()

    def status(self) -> dict[str, Any] | None:
        """Return what ``/status`` says; None if the server is not drained."""
        if self.phase is None:
            return None
        return {
            "why": self._why,
            "elapsed": round(time.monotonic() - self._since, 1),
            "seconds_left": round(self._seconds_for_clients, 1),
            "connections": self._connections,
            # What was under way when it began is reported later.
            "connections_before": max(self._connections_before, self._connections),
            "stops": self._then is not None,
        }

    def joined(self, child: Child) -> None:
        """Drain a process too that has become ready meanwhile."""
        if self.phase is not None:
            self._tell(child)

    def stop(self) -> None:
        """Look no more: the server ends."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def _seconds_for_clients(self) -> float:
        """Seconds until all connections are to be closed."""
        return max(0.0, self._until - time.monotonic())

    @property
    def _connections(self) -> int:
        """How many connections the workers have reported last."""
        return sum(
            int(role.child.stats.get("connections", 0))
            for role in self._roles
            if role.child is not None and role.kind == WORKER
        )

    def _tell(self, child: Child) -> None:
        if child.ready:
            child.send(DRAIN, seconds=self._seconds_for_clients)
        elif any(role.child is child and role.kind == FRONT for role in self._roles):
            child.signal(signal.SIGTERM)  # it may not listen yet, and nobody is connected to it

    def _look(self) -> None:
        now = time.monotonic()
        if self._fronts_gone_at is None and not any(
            role.child is not None for role in self._roles if role.kind == FRONT
        ):
            self._fronts_gone_at = now
        if self._is_over():
            self.phase = Phase.DRAINED
            _log.info("drained: all connections are closed")
        elif now >= self._until + _GRACE and self._then is not None:
            _log.warning("the time to drain is over: the server ends with open connections")
        else:
            self._timer = self._loop.call_later(_INTERVAL, self._look)
            return
        if self._then is not None:
            self._then()

    def _is_over(self) -> bool:
        """Return whether no front is there, and each worker has said after that that it has no connection."""
        gone_at = self._fronts_gone_at
        return gone_at is not None and all(
            role.child is None
            or (
                role.child.reported_at is not None
                and role.child.reported_at >= gone_at + _HANDED_OVER
                and bool(role.child.stats.get(DRAINED))
            )
            for role in self._roles
            if role.kind == WORKER
        )
