"""The HTTP side of the public port: where a request goes, and the answer to a WebSocket handshake. Bytes in, bytes out.

`route` looks at the first bytes of a connection and says whether this is for the chat, for the page server, not HTTP at all, or whether
more has to come. For the chat, `answer` reads the complete head (``router.front.request_head``), and checks it with websockets'
`ServerProtocol` and a few rules of ours on top. Sources: RFC 6455 section 4.2, RFC 6750 section 2.1, RFC 9110 sections 7.8 and 15.
"""

from __future__ import annotations

import logging
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, NamedTuple

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from router.front.origin import OriginPolicy
from router.front.request_head import Malformed, RequestHead, parse_head, path_of

#: Where the chat is.
PATH: Final = b"/ws"
#: The largest head of a request, in bytes; what common proxies accept.
HEAD_MAX_BYTES: Final = 16 * 1024
HEAD_END: Final = b"\r\n\r\n"
#: The one version of the protocol that there is (RFC 6455 section 4.1).
WEBSOCKET_VERSION: Final = "13"
#: What the client asks to speak, in lower case.
UPGRADE: Final = "websocket"

#: Characters of a reason that are told; a few bytes of a request become four times as many.
_CAUSE_MAX: Final = 300
_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

# websockets logs each handshake; refusals are counted instead, and what a client sends is not for the log.
_QUIET: Final = logging.getLogger("fastchat.websockets")
_QUIET.setLevel(logging.CRITICAL + 1)


class Route(Enum):
    """Whose a request is."""

    #: The head is not complete yet.
    INCOMPLETE = auto()
    #: A handshake for the chat, with a complete head.
    CHAT = auto()
    #: Anything else that looks like HTTP, with a complete head.
    PAGE = auto()
    #: No request line: 400.
    MALFORMED = auto()
    #: No end of the head within `HEAD_MAX_BYTES`: 431.
    TOO_LARGE = auto()


class Answer(NamedTuple):
    """What to write: after 101 the connection is a WebSocket, after anything else it is to be closed."""

    status: int
    wire: bytes
    #: After 101, what the request says of the client: the token of ``Authorization: Bearer``, and all X-Forwarded-For, in their order.
    bearer: str | None = None
    forwarded: tuple[str, ...] = ()


def route(data: bytes, head_end: int) -> Route:
    """Return where the request goes that starts with `data`: the first bytes of a connection, at least one, at most `HEAD_MAX_BYTES`.

    `head_end` is ``data.find(HEAD_END)``, -1 when it is not there.
    """
    if data[0] not in _TOKEN:
        # TLS on the plain port, most likely; waiting for the end of a head would only cost the client ten seconds.
        return Route.MALFORMED
    if head_end < 0:
        return Route.INCOMPLETE if len(data) < HEAD_MAX_BYTES else Route.TOO_LARGE
    parts = data[: data.index(b"\r\n")].split(b" ")
    if len(parts) != 3 or not parts[1] or not parts[2].startswith(b"HTTP/"):
        return Route.MALFORMED
    return Route.CHAT if path_of(parts[1]) == PATH else Route.PAGE


def answer(head: bytes, origins: OriginPolicy) -> Answer:
    """Answer a handshake whose complete head, blank line included, is `head`."""
    if head[: head.index(b" ")] != b"GET":
        return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "A WebSocket handshake must use GET.", Allow="GET")
    try:
        parsed = parse_head(head)
    except Malformed as error:
        return refusal(HTTPStatus.BAD_REQUEST, str(error))
    headers = Headers(parsed.fields)
    refused = _check(parsed, headers, origins)
    if refused is not None:
        return refused
    if UPGRADE in _offered(headers):
        # A client may offer other protocols beside it (RFC 9110, 7.8); websockets wants to see this one only.
        del headers["Upgrade"]
        headers["Upgrade"] = UPGRADE
    protocol = ServerProtocol(logger=_QUIET)
    response = protocol.accept(Request(parsed.target, headers))
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        return _not_accepted(response, protocol.handshake_exc)
    protocol.send_response(response)
    wire = b"".join(protocol.data_to_send())
    forwarded = tuple(headers.get_all("X-Forwarded-For"))
    return Answer(response.status_code, wire, _bearer(headers), forwarded)


def refusal(status: HTTPStatus, sentence: str, **headers: str) -> Answer:
    """Return an answer that is not an upgrade. ``Connection: close``, or a proxy would keep the connection for other requests."""
    body = f"{sentence}\n".encode()
    fields = {
        **{name.replace("_", "-"): value for name, value in headers.items()},
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in fields.items()),
    ]
    return Answer(status.value, "\r\n".join(lines).encode() + HEAD_END + body)


def _check(request: RequestHead, headers: Headers, origins: OriginPolicy) -> Answer | None:
    """Check what websockets leaves to others: the version of HTTP, a body, Origin, and telling the version that would be right."""
    if request.minor == 0 or request.host is None:
        return refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "A WebSocket handshake must use HTTP/1.1.")
    if request.has_body:
        return refusal(HTTPStatus.BAD_REQUEST, "A WebSocket handshake must not have a body.")
    pages = headers.get_all("Origin")
    if len(pages) > 1:
        return refusal(HTTPStatus.BAD_REQUEST, "A request has at most one Origin header.")
    if pages and not origins.allows(pages[0], request.host):
        return refusal(
            HTTPStatus.FORBIDDEN,
            "Pages of this origin may not connect; the operator lists those that may in FASTCHAT_ALLOWED_ORIGINS.",
        )
    versions = headers.get_all("Sec-WebSocket-Version")
    if versions and versions != [WEBSOCKET_VERSION]:
        return refusal(
            HTTPStatus.UPGRADE_REQUIRED,
            f"Only version {WEBSOCKET_VERSION} of the WebSocket protocol is supported.",
            Upgrade=UPGRADE,
            Sec_WebSocket_Version=WEBSOCKET_VERSION,
        )
    return None


def _offered(headers: Headers) -> set[str]:
    """Return the protocols that the client would like to speak instead of HTTP, in lower case."""
    return {name.strip().lower() for value in headers.get_all("Upgrade") for name in value.split(",")}


def _bearer(headers: Headers) -> str | None:
    """Return the token of the one Authorization header, if it has one (RFC 6750, 2.1)."""
    values = headers.get_all("Authorization")
    if len(values) != 1:
        return None
    scheme, _, token = values[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _not_accepted(response: Response, error: Exception | None) -> Answer:
    status = HTTPStatus(response.status_code)
    if status is HTTPStatus.UPGRADE_REQUIRED:
        return refusal(status, "This URL accepts WebSocket connections only.", Upgrade=UPGRADE)
    return refusal(status, f"The WebSocket handshake is invalid: {_cause(error)}.")


def _cause(error: BaseException | None) -> str:
    """Return the innermost reason, in visible ASCII and not at any length: some of it is what the client sent."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    reason = ascii(str(error))[1:-1]
    return reason if len(reason) <= _CAUSE_MAX else f"{reason[:_CAUSE_MAX]}..."
