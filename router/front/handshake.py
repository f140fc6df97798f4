"""A connection from ``accept`` to its first answer: waits for the head of the HTTP request and sends it where it belongs.

Nothing is read until the head is complete. Then one for the chat is taken out of the kernel, exactly, and answered; after 101 the
connection is in the lobby, with whatever the client sent behind the head still in the kernel. Any other request stays where it is,
and the socket goes to the page server.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from core.events import fields
from core.measures import series
from router.front import page_request, upgrade
from router.front.address_limits import Denial
from router.front.peeked_socket import PeekedSocket, format_address, now
from router.front.upgrade import HEAD_END, HEAD_MAX_BYTES, Route

_log = logging.getLogger("fastchat.front")


def too_many(denial: Denial) -> upgrade.Answer:
    """The answer to a connection that is too much."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return upgrade.refusal(status, denial.sentence, Retry_After=str(denial.retry_after))


class Handshake(PeekedSocket):
    """One connection that has not sent its whole head yet."""

    __slots__ = ()

    def look(self) -> None:
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

    def refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Answer without an upgrade, and close."""
        self._refuse(upgrade.refusal(status, sentence))

    def expire(self) -> None:
        """The head did not come in time."""
        self.look_now()
        if self in self.reception.heads:
            self.refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The head of a request must come within {self.reception.limits.head:g} s.",
            )

    def forget(self) -> None:
        self.reception.heads.cancel(self)

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
        self.reception.serve_page(self.socket, len(head))

    def _answer(self, head: bytes) -> None:
        answer = upgrade.answer(head, self.reception.origins)
        if answer.status != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(answer)
            return
        denial = self._place(answer.forwarded)
        if denial is not None:
            self.deny(denial)
            return
        self.consume(len(head))
        if self.write(answer.wire):
            self.forget()
            place, self.place = self.place, None
            self.reception.enter_lobby(self.socket, self.address, self._mark, answer.bearer, place)

    def _place(self, forwarded: tuple[str, ...]) -> Denial | None:
        """Find out where the client is, if a proxy stands for it, and whether there is room for it."""
        reception = self.reception
        if self.place is None:
            self.address = (reception.proxies.client(self.address[0], forwarded), 0)
            entered = reception.addresses.enter(self.address[0], now())
            if isinstance(entered, Denial):
                return entered
            self.place = entered
        return reception.addresses.is_full()

    def deny(self, denial: Denial) -> None:
        """Answer that it is too much."""
        self.reception.count_denial(denial, self.address)
        self._refuse(too_many(denial))

    def _refuse(self, answer: upgrade.Answer) -> None:
        self.reception.count(series("front_refused_total", status=str(answer.status)))
        if _log.isEnabledFor(logging.DEBUG):
            about = fields(address=format_address(self.address), status=int(answer.status))
            _log.debug("a request was refused", extra=about)
        self.finish(answer.wire)
