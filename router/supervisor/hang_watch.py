"""Kills children that hang: only another process can serve their users. When a child hangs is said in ``router.supervisor.liveness``."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence

from core.events import fields
from router.supervisor.liveness import LOOK_INTERVAL
from router.supervisor.roles import Role

_log = logging.getLogger("fastchat.supervisor")


class HangWatch:
    """Looks at all places among the children, from `start` to `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, roles: Sequence[Role]) -> None:
        self._loop = loop
        self._roles = roles
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._loop.call_later(LOOK_INTERVAL, self._look)

    def stop(self) -> None:
        """Look no more: a server that ends gives its children another time to end in."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.start()  # first of all, since time must go on whatever happens below
        for role in self._roles:
            child = role.child
            hung = role.liveness.look(child, self._loop.time())
            if child is None or hung is None or child.hung is not None:
                continue
            child.hung = hung
            role.hangs += 1
            _log.error("%s hangs and is killed: %s", role.name, hung, extra=fields(pid=child.pid))
            child.signal(signal.SIGKILL)
