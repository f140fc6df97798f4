"""What all connections of one front share, and the ways between their stages.

accept -> Handshake -> LobbySocket -> a worker
              |             |
              +-> page      +-> lingering -> closed
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import defaultdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

from core.auth.tokens import REASONS, load_verifier
from core.chat.pace import shared_credit
from core.events import fields
from core.measures import SECONDS, Histogram, series
from core.placement import Placement
from core.process.settings import Settings
from core.wire.protocol import HELLO_DEADLINE, WORKER_PATIENCE
from core.wire.validation import Validator
from router.front.address_limits import DENIALS, AddressLimits, Denial, Place
from router.front.deadlines import Deadlines
from router.front.handover_queue import HandoverQueue
from router.front.handshake import Handshake, too_many
from router.front.lingering import Lingering
from router.front.lobby_socket import LobbySocket
from router.front.origin import OriginPolicy
from router.front.page_loader import PageLoader
from router.front.peeked_socket import PeekedSocket, format_address, now, reset
from router.front.trusted_proxies import TrustedProxies

_log = logging.getLogger("fastchat.front")

#: Seconds between two looks at who has gone while waiting for a worker.
_SWEEP: Final = 1.0
#: Clients that are told why they are turned away, before the front only resets.
_TURNED_AWAY_MAX: Final = 512


class Limits(NamedTuple):
    """How long a connection may take for each of its steps, in seconds. Only tests have others."""

    #: From ``accept`` to the end of the request's head.
    head: float = 10.0
    #: From the upgrade to HELLO (D2).
    hello: float = HELLO_DEADLINE
    #: From HELLO to the worker's word that it has the socket.
    wait: float = WORKER_PATIENCE


DEFAULT_LIMITS: Final = Limits()


class Reception:
    """All that a front knows about its connections. Raises ConfigurationError for settings that can't be used."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        pages: PageLoader,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        assert settings.run_dir is not None, "the supervisor fills it in"
        self.loop = loop
        self.limits = limits
        self.origins = OriginPolicy(settings.allowed_origins)
        self.validator = Validator(settings.user_ids)
        self.pings_per_second = settings.pings_per_second
        self._settings = settings
        #: Checks what proves who a client is; None where nothing has to.
        self.tokens = load_verifier(settings, Path.read_bytes)
        #: What messages may come to nothing before HELLO, of all connections together.
        self.spare = shared_credit()
        self.proxies = TrustedProxies(settings.trusted_proxies)
        self.addresses = AddressLimits(settings)
        #: The close code and reason that everybody gets, once this front is on its way out.
        self.stopping: tuple[int, str] | None = None

        self._pid = os.getpid()
        self._pages = pages
        self._placement = Placement(settings.workers)
        self._queues = [
            HandoverQueue(loop, str(settings.run_dir), worker, self.count)
            for worker in range(settings.workers)
        ]
        self._lingering = Lingering(loop)
        self._counters: defaultdict[str, int] = defaultdict(int)
        # From 0 on: of a counter that is not there before its first step, Prometheus does not see that step.
        self._counters |= {series("front_limited_total", limit=denial.limit): 0 for denial in DENIALS}
        self._counters |= {series("front_tokens_refused_total", reason=reason): 0 for reason in REASONS}
        #: From HELLO until the worker had the socket.
        self.handover_seconds = Histogram(SECONDS)
        self._next_sweep = 0.0

        # -- Every connection is in exactly one of these three, or lingers --
        self.heads: Deadlines[Handshake] = Deadlines(limits.head, Handshake.expire)
        self.hellos: Deadlines[LobbySocket] = Deadlines(limits.hello, LobbySocket.expire_lobby)
        self.waits: Deadlines[LobbySocket] = Deadlines(limits.wait, LobbySocket.expire_wait)
        #: Those that the kernel woke without need; they are looked at in the next tick (see `router.front.peeked_socket`).
        self.parked: set[PeekedSocket] = set()

    # -- From stage to stage --

    def welcome(self, client: socket.socket, address: Any) -> None:
        """A client was accepted; its socket does not block."""
        self.count("front_accepted_total")
        place = None
        if not self.proxies.trusts(address[0]):
            # For whom else it speaks, a trusted proxy says in its request.
            entered = self.addresses.enter(address[0], now())
            if isinstance(entered, Denial):
                self._turn_away(client, address, entered)
                return
            place = entered
        handshake = Handshake(self, client, address)
        handshake.place = place
        self.heads.start(handshake, now())
        handshake.watch()

    def _turn_away(self, client: socket.socket, address: Any, denial: Denial) -> None:
        """There is no room for a client that was just accepted."""
        self.count_denial(denial, address)
        if len(self._lingering) >= _TURNED_AWAY_MAX:
            # Whoever sends that many gets no answers: waiting for it to have read them would take up what is to be kept.
            reset(client)
            return
        answer = too_many(denial)
        self.count(series("front_refused_total", status=str(answer.status)))
        self.linger(client, answer.wire)

    def count_denial(self, denial: Denial, address: Any) -> None:
        """A connection was too much."""
        self.count(series("front_limited_total", limit=denial.limit))
        if _log.isEnabledFor(logging.DEBUG):
            about = fields(address=format_address(address), reason=denial.sentence)
            _log.debug("a connection was too much", extra=about)

    def enter_lobby(
        self, client: socket.socket, address: Any, mark: int, bearer: str | None, place: Place | None
    ) -> None:
        """A client was upgraded, with the token `bearer`; SO_RCVLOWAT of its socket is `mark`."""
        self.count("front_upgrades_total")
        # Unique among all processes that run at the same time; the client keeps it for as long as the connection lasts.
        label = f"{self._pid}-{self._counters['front_upgrades_total']}"
        visitor = LobbySocket(self, client, address, mark, label, None if self.tokens is None else bearer)
        visitor.place = place
        self.hellos.start(visitor, now())
        visitor.watch()
        visitor.set_mark(1)

    def serve_page(self, client: socket.socket, size: int) -> None:
        """A request for the page server, of `size` bytes, waits in the socket, untouched."""
        self.count("front_page_requests_total")
        self._pages.serve(client, size)

    def linger(self, client: socket.socket, last_words: bytes, *, awaits_close: bool = False) -> None:
        """Say the last thing and close in good order (``router.front.lingering``)."""
        if not self._lingering.add(client, last_words, now(), awaits_close=awaits_close):
            self.count("front_not_read_total")

    def linger_shared(self, client: socket.socket) -> None:
        """The last thing has been said; close in good order what a worker may have too."""
        self._lingering.share(client, now())

    def queue_of(self, user_id: str) -> HandoverQueue:
        """The queue to the worker that owns this user."""
        return self._queues[self._placement.worker_of(user_id)]

    def reload_keys(self) -> None:
        """Read the keys of tokens again. Raises ConfigurationError, and keeps those that it has, when the new ones are no good."""
        self.tokens = load_verifier(self._settings, Path.read_bytes)

    # -- What happens by the passing of time --

    def stood_still(self, seconds: float) -> None:
        """The front stood still for so long, until now: what is to be read first may wait. Comes before the next `tick`."""
        time = now()
        for deadlines in (self.heads, self.hellos, self.waits):
            deadlines.stood_still(seconds, time)
        self._lingering.stood_still(seconds, time)

    def tick(self) -> None:
        """To be called several times a second."""
        time = now()
        self.heads.expire(time)
        self.hellos.expire(time)
        self.waits.expire(time)
        self._lingering.tick(time)
        parked, self.parked = self.parked, set()
        for connection in parked:
            connection.watch()
        if time >= self._next_sweep:
            self._next_sweep = time + _SWEEP
            for queue in self._queues:
                for client in queue.waiting():
                    if client.is_gone():
                        self.count("front_gone_while_waiting_total")
                        client.close()

    # -- The end --

    def stop(self, code: int, reason: str) -> None:
        """Tell everybody who is still here. Sockets that are under way to a worker are left to it."""
        self.stopping = code, reason
        for handshake in self.heads:
            handshake.refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"Try again in a moment: {reason}.")
        for visitor in self.hellos:
            visitor.end(code, reason)
        for visitor in self.waits:
            if visitor.number is None:
                visitor.end(code, reason)

    def cut_short(self) -> None:
        """End what is left after `stop`."""
        assert self.stopping is not None
        for visitor in self.waits:
            visitor.end(*self.stopping)
        self._lingering.cut_short()

    def is_empty(self) -> bool:
        """Whether every connection has come to its end, or is a worker's."""
        return not (self.heads or self.hellos or self.waits or self._lingering)

    # -- What there is to tell --

    def count(self, name: str) -> None:
        """Add 1 to a counter: a series of ``core.process.metrics``."""
        self._counters[name] += 1

    def stats(self) -> dict[str, Any]:
        """All that is measured here, by the names of ``core.process.metrics``."""
        stats: dict[str, Any] = dict(self._counters)
        stats["front_handover_seconds"] = self.handover_seconds.report()
        stats["front_handshakes"] = len(self.heads)
        stats["front_lobby"] = len(self.hellos)
        stats["front_lingering"] = len(self._lingering)
        stats["front_pages"] = self._pages.open
        for queue in self._queues:
            worker = str(queue.worker)
            stats[series("front_waiting", worker=worker)] = queue.waiting_count
            stats[series("front_in_flight", worker=worker)] = queue.in_flight_count
        return stats
