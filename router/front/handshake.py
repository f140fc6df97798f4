"""A connection from ``accept`` to its first answer: waits for the head of the HTTP request and sends it where it belongs.

Nothing is read until the head is complete. Then one for the chat is taken out of the kernel, exactly, and answered; after 101 the
connection is in the lobby, with whatever the client sent behind the head still in the kernel. Any other request stays where it is,
and the socket goes to the page server.
"""

from __future__ import annotations

import logging
import socket
from http import HTTPStatus
from typing import Any, Final

from core.events import fields
from core.measures import series
from router.front import page_request, upgrade
from router.front.address_limits import Denial
from router.front.deadlines import Deadlines
from router.front.lingering import reset
from router.front.lobby_socket import LobbySockets
from router.front.origin import OriginPolicy
from router.front.page_loader import PageLoader
from router.front.sockets import Connection, PeekedSocket, Sockets, format_address, now
from router.front.trusted_proxies import TrustedProxies
from router.front.upgrade import HEAD_END, HEAD_MAX_BYTES, Route

_log = logging.getLogger("fastchat.front")

#: Clients that are told why they are turned away, before the front only resets.
_TURNED_AWAY_MAX: Final = 512
#: Seconds after which a client is to try again that came while the front stopped: another one is there by then, or another server.
_RETRY_AFTER: Final = "1"


class Handshakes:
    """The stage of the connections that have not sent their whole head yet, which has `seconds` to come."""

    def __init__(
        self,
        sockets: Sockets,
        lobby: LobbySockets,
        pages: PageLoader,
        origins: OriginPolicy,
        proxies: TrustedProxies,
        seconds: float,
    ) -> None:
        self.lobby = lobby
        self.pages = pages
        self.origins = origins
        self.proxies = proxies
        self.deadlines: Deadlines[Handshake] = Deadlines(seconds, Handshake.expire)
        self.sockets = sockets

    def welcome(self, client: socket.socket, address: Any) -> None:
        """Take in a client that was accepted; its socket does not block."""
        self.sockets.count("front_accepted_total")
        slot = None
        if not self.proxies.trusts(address[0]):
            # For whom else it speaks, a trusted proxy says in its request.
            entered = self.sockets.addresses.enter(address[0], now())
            if isinstance(entered, Denial):
                self._turn_away(client, address, entered)
                return
            slot = entered
        handshake = Handshake(self, Connection(client, address, slot))
        self.deadlines.start(handshake, now())
        handshake.watch()

    def stop(self, reason: str) -> None:
        """Tell everybody who is here that the front stops."""
        for handshake in self.deadlines:
            handshake.refuse(
                HTTPStatus.SERVICE_UNAVAILABLE, f"Try again in a moment: {reason}.", Retry_After=_RETRY_AFTER
            )

    def _turn_away(self, client: socket.socket, address: Any, denial: Denial) -> None:
        """Turn away a client that was just accepted, since there is no room for it."""
        self.sockets.count_denial(denial, address)
        if len(self.sockets.lingering) >= _TURNED_AWAY_MAX:
            # Whoever sends that many gets no answers: waiting for it to have read them would take up what is to be kept.
            reset(client)
            return
        answer = _too_many(denial)
        self.sockets.count(series("front_refused_total", status=str(answer.status)))
        self.sockets.linger(client, answer.wire)


class Handshake(PeekedSocket):
    """One connection that has not sent its whole head yet."""

    __slots__ = ("_stage",)

    def __init__(self, stage: Handshakes, connection: Connection) -> None:
        super().__init__(stage.sockets, connection)
        self._stage = stage

    def handle_input(self) -> None:
        data = self.peek(HEAD_MAX_BYTES)
        if data is None:
            return
        head_end = data.find(HEAD_END)
        match upgrade.route(data, head_end):
            case Route.INCOMPLETE:
                self.wait_for(len(data) + 1, len(data))
            case Route.CHAT:
                self._answer(data[: head_end + len(HEAD_END)])
            case Route.PAGE:
                self._serve_page(data[: head_end + len(HEAD_END)])
            case Route.TOO_LARGE:
                self.refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"The head of a request has at most {HEAD_MAX_BYTES} bytes.",
                )
            case Route.MALFORMED:
                self.refuse(HTTPStatus.BAD_REQUEST, "This is not an HTTP request.")

    def refuse(self, status: HTTPStatus, sentence: str, **headers: str) -> None:
        """Answer without an upgrade, and close."""
        self._refuse(upgrade.refusal(status, sentence, **headers))

    def expire(self) -> None:
        """Refuse a connection whose head did not come in time."""
        self.on_readable()
        deadlines = self._stage.deadlines
        if self in deadlines:
            self.refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The head of a request must come within {deadlines.seconds:g} s.",
            )

    def forget(self) -> None:
        self._stage.deadlines.cancel(self)

    def fail(self) -> None:
        self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says why.")

    def _serve_page(self, head: bytes) -> None:
        answer = page_request.check(head)
        if answer is not None:
            self._refuse(answer)
            return
        self.release()
        self.leave()
        self.set_mark(1)
        self.sockets.count("front_page_requests_total")
        self._stage.pages.serve(self.socket, len(head))

    def _answer(self, head: bytes) -> None:
        answer = upgrade.answer(head, self._stage.origins)
        if answer.status != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(answer)
            return
        denial = self._find_slot(answer.forwarded)
        if denial is not None:
            self.sockets.count_denial(denial, self.address)
            self._refuse(_too_many(denial))
            return
        self.consume(len(head))
        if self.write(answer.wire):
            self._stage.lobby.enter(self.hand_on(), answer.bearer)

    def _find_slot(self, forwarded: tuple[str, ...]) -> Denial | None:
        """Find out where the client is, if a proxy stands for it, and whether there is room for it."""
        limits = self.sockets.addresses
        if self.slot is None:
            self.address = (self._stage.proxies.client(self.address[0], forwarded), 0)
            entered = limits.enter(self.address[0], now())
            if isinstance(entered, Denial):
                return entered
            self.slot = entered
        return limits.is_full()

    def _refuse(self, answer: upgrade.Answer) -> None:
        self.sockets.count(series("front_refused_total", status=str(answer.status)))
        if _log.isEnabledFor(logging.DEBUG):
            about = fields(address=format_address(self.address), status=int(answer.status))
            _log.debug("a request was refused", extra=about)
        self.finish(answer.wire)


def _too_many(denial: Denial) -> upgrade.Answer:
    """Return the answer to a connection that is too much."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return upgrade.refusal(status, denial.sentence, Retry_After=str(denial.retry_after))
