"""All stages of a front, wired: each knows the next, and none the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from core.auth.tokens import load_verifier
from core.measures import series
from core.process.settings import Settings
from core.wire.protocol import HELLO_DEADLINE, WORKER_PATIENCE
from core.wire.validation import Validator
from router.front.address_limits import AddressLimits
from router.front.deadlines import Deadlines
from router.front.handover import Handover
from router.front.handshake import Handshakes
from router.front.lobby_socket import LobbySockets
from router.front.origin import OriginPolicy
from router.front.page_loader import PageLoader
from router.front.sockets import Sockets, now
from router.front.trusted_proxies import TrustedProxies


class Limits(NamedTuple):
    """How long a connection may take for each of its steps, and a front to leave, in seconds. Only tests have others."""

    #: From ``accept`` to the end of the request's head.
    head: float = 10.0
    #: From the upgrade to HELLO (D2).
    hello: float = HELLO_DEADLINE
    #: From HELLO to the worker's word that it has the socket.
    wait: float = WORKER_PATIENCE
    #: From the order to leave until the connections that are left are closed: about what all three steps take together.
    leave: float = 30.0


DEFAULT_LIMITS: Final = Limits()


class Reception:
    """The connections of a front. Raises ConfigurationError for settings that can't be used."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        pages: PageLoader,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        assert settings.run_dir is not None, "the supervisor fills it in"
        self.sockets = Sockets(loop, AddressLimits(settings))
        self._pages = pages
        # -- Every connection is in exactly one of these three, or lingers --
        self.handover = Handover(self.sockets, str(settings.run_dir), settings.workers, limits.wait)
        self.lobby = LobbySockets(
            self.sockets,
            self.handover,
            Validator(settings.user_ids),
            settings.pings_per_second,
            lambda: load_verifier(settings, Path.read_bytes),
            limits.hello,
        )
        self.handshakes = Handshakes(
            self.sockets,
            self.lobby,
            pages,
            OriginPolicy(settings.allowed_origins),
            TrustedProxies(settings.trusted_proxies),
            limits.head,
        )
        #: What is to be called when the front has left.
        self._leaving: Deadlines[Callable[[], None]] = Deadlines(limits.leave, lambda left: left())

    def stood_still(self, seconds: float) -> None:
        """Note that the front stood still for so long, until now: what is to be read first may wait. Comes before the next `tick`."""
        time = now()
        for deadlines in (self.handshakes.deadlines, self.lobby.deadlines, self.handover.deadlines):
            deadlines.stood_still(seconds, time)
        self.sockets.lingering.stood_still(seconds, time)
        self._leaving.stood_still(seconds, time)

    def tick(self) -> None:
        """End what is late; to be called several times a second."""
        time = now()
        self.handshakes.deadlines.expire(time)
        self.lobby.deadlines.expire(time)
        self.handover.deadlines.expire(time)
        self.sockets.lingering.tick(time)
        self.sockets.wake_parked()
        self.handover.sweep(time)
        self._leaving.expire(time)
        self._note_left()

    def leave(self, left: Callable[[], None]) -> None:
        """Call `left` once there are no connections any more or the time for leaving is over. Nothing may be accepted from now on."""
        if left not in self._leaving:
            self._leaving.start(left, now())
            self._note_left()

    def stop(self, code: int, reason: str) -> None:
        """Tell everybody who is still here. Sockets that are under way to a worker are left to it."""
        self.handshakes.stop(reason)
        self.lobby.stop(code, reason)
        self.handover.stop(code, reason)

    def cut_short(self) -> None:
        """End what is left after `stop`."""
        self.handover.cut_short()
        self.sockets.lingering.cut_short()

    def count(self) -> int:
        """Return how many connections have neither come to their end nor are a worker's."""
        return self._count_without_pages() + self._pages.open

    def is_empty(self) -> bool:
        """Return whether there are none, except for those of the page server, which ends them itself."""
        return not self._count_without_pages()

    def stats(self) -> dict[str, Any]:
        """Return all that is measured here, by the names of ``core.process.metrics``."""
        stats: dict[str, Any] = dict(self.sockets.counters)
        stats["front_handover_seconds"] = self.handover.seconds.report()
        stats["front_handshakes"] = len(self.handshakes.deadlines)
        stats["front_lobby"] = len(self.lobby.deadlines)
        stats["front_lingering"] = len(self.sockets.lingering)
        stats["front_pages"] = self._pages.open
        for queue in self.handover.queues:
            worker = str(queue.worker)
            stats[series("front_waiting", worker=worker)] = queue.waiting_count
            stats[series("front_in_flight", worker=worker)] = queue.in_flight_count
        return stats

    def _note_left(self) -> None:
        if not self.count():
            for left in self._leaving:
                self._leaving.cancel(left)
                left()

    def _count_without_pages(self) -> int:
        return (
            len(self.handshakes.deadlines)
            + len(self.lobby.deadlines)
            + len(self.handover.deadlines)
            + len(self.sockets.lingering)
        )
