"""Refused upgrades, the waits between connections and what acknowledges, as tables for docs/protocol.md.

The tests hold the refusals against the front and the waits against both clients.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from core.wire.protocol import IMPLICIT_ACK_DELAY

# -- What our clients wait for, in seconds --

#: The longest wait before the first attempt after a loss, and the longest wait at all.
BACK_OFF_FIRST: Final = 0.5
BACK_OFF_MAX: Final = 30.0
#: A connection that was online for so long counts as good: the next loss is the first again.
GOOD_AFTER: Final = 10.0
#: The time over which clients spread after a stop or restart, and after 4002.
RESTART_SPREAD: Final = 3.0
SLEPT_SPREAD: Final = 1.0
#: The least wait after 1013, and the number of attempts that it counts as.
OVERLOAD_REST: Final = 1.0
OVERLOAD_ATTEMPTS: Final = 3
#: From one PING to the next, and from a PING to the next message of any kind.
PING_INTERVAL: Final = 15.0
PONG_TIMEOUT: Final = 5.0
#: From the beginning of an attempt to HELLO_ACK, and from a request to its answer.
GREETING_TIMEOUT: Final = 15.0
ANSWER_TIMEOUT: Final = 15.0
#: Attempts at a HISTORY that fails.
HISTORY_TRIES: Final = 5
#: Statuses of HTTP below 500 that pass.
PASSING: Final = (408, 425, 429)

_GROWING: Final = f"random x min({BACK_OFF_MAX:g} s, {BACK_OFF_FIRST:g} s x 2^n)"


def _at_least(spread: float) -> str:
    return f"random x the larger of {spread:g} s and min({BACK_OFF_MAX:g} s, {BACK_OFF_FIRST:g} s x 2^n)"


#: What ended the connection or the attempt, and how long to wait.
BACK_OFF: Final = (
    ("no close code (1006), close code 1011, or a failed attempt", _GROWING),
    ("1001, 1012", _at_least(RESTART_SPREAD)),
    (
        "1012 with a reason that ends in `; reconnect in N s`",
        f"the larger of N s, at most {BACK_OFF_MAX:g} s, and {_GROWING}",
    ),
    (
        "4002",
        f"{_at_least(SLEPT_SPREAD)}; n starts at 0 again, unless the previous connection also ended with 4002",
    ),
    ("1013", f"{OVERLOAD_REST:g} s + {_GROWING}; n is at least {OVERLOAD_ATTEMPTS}"),
    (
        "1008 with the reason `token expired`",
        f"{_GROWING}, then HELLO with a new token; a client without a new token does not reconnect",
    ),
    (
        "1002, 1003, 1007, 1008 with another reason, 1009, 4001, 4004",
        "no automatic reconnection: the client reconnects only when its user asks for a connection",
    ),
    (
        "an HTTP status below 500 other than "
        f"{', '.join(map(str, PASSING))}, in answer to an attempt of a client that has never been online",
        "no reconnection: the URL is wrong, or the server does not accept this client",
    ),
)


class Refused(NamedTuple):
    """An answer to the request for an upgrade that is not 101."""

    status: int
    when: str
    body: str
    then: str


_AGAIN: Final = "reconnect with back-off"
_LIMIT: Final = "reconnect with back-off, but not before the seconds in `Retry-After` have passed"
_MEND: Final = "correct the request; the server refuses the same request again"

REFUSED: Final = (
    Refused(
        400,
        "the request is not HTTP, is ambiguous, has a body, or lacks a valid header field of the WebSocket handshake",
        "A request has exactly one Host header.",
        f"{_MEND}; the body names the rule that the request breaks",
    ),
    Refused(
        403,
        "the request comes from a web page whose origin is not allowed",
        "Pages of this origin may not connect; the operator lists those that may in FASTCHAT_ALLOWED_ORIGINS.",
        "do not reconnect until the operator has allowed the origin",
    ),
    Refused(
        404,
        "the path of the request is not `/ws`",
        "There is nothing at this path. The chat is at /, its WebSocket at /ws.",
        "use the path `/ws`",
    ),
    Refused(
        405,
        "the method of the request is not GET; the answer has `Allow: GET`",
        "A WebSocket handshake must use GET.",
        _MEND,
    ),
    Refused(
        408,
        "the request line and the header fields were not complete in time",
        "The head of a request must come within 10 s.",
        _AGAIN,
    ),
    Refused(
        426,
        "the request has no `Upgrade: websocket`; or the request has another WebSocket version, and the answer has"
        " `Sec-WebSocket-Version: 13`",
        "This URL accepts WebSocket connections only.",
        _MEND,
    ),
    Refused(
        431,
        "the request line and the header fields are too large",
        "The head of a request has at most 16384 bytes.",
        "send shorter header fields",
    ),
    Refused(500, "the server has a bug", "The server failed; its log says why.", _AGAIN),
    Refused(
        503,
        "this IP address has too many connections; the answer has `Retry-After: 5`",
        "There are too many connections from this address.",
        _LIMIT,
    ),
    Refused(
        503,
        "this IP address opens too many new connections per second; the answer has `Retry-After: 1`",
        "Too many new connections come from this address.",
        _LIMIT,
    ),
    Refused(
        503,
        "this IP address has too many connections that have not sent HELLO; the answer has `Retry-After: 5`",
        "Too many connections from this address have not said HELLO yet.",
        _LIMIT,
    ),
    Refused(
        503,
        "the server has reached the limit `FASTCHAT_MAX_CONNECTIONS`; the answer has `Retry-After: 5`",
        "The server has reached its limit on connections.",
        _LIMIT,
    ),
    Refused(
        503,
        "the server is stopping or restarting; the answer has `Retry-After: 1`",
        "Try again in a moment: ...",
        _LIMIT,
    ),
    Refused(505, "the request uses HTTP/1.0", "A WebSocket handshake must use HTTP/1.1.", _MEND),
)

#: What is sent, who sends it, and what it says.
ACKNOWLEDGES: Final = (
    (
        "MSG_ACK from the server",
        "the message is on disk. Without `receipts`, the status `delivered` also says that the server has written the message to a"
        " connection of the recipient. With `receipts`, `delivered` says that a device of the recipient has acknowledged the"
        " message, and `read` says that the recipient has read the message",
    ),
    (
        "MSG_ACK from a client",
        "this message has arrived, for all devices of the user, and so has every CHAT_OPENED that the server sent before the"
        " message on this connection. Every other message needs a MSG_ACK of its own. The server ignores an unknown id and an id"
        " that is already acknowledged",
    ),
    (
        "the pong to a WebSocket ping that the server sends after messages or CHAT_OPENED (pings of the heartbeat do not count)",
        "for a user who has never sent MSG_ACK: all messages before the ping have arrived. This acknowledgement takes effect"
        f" {IMPLICIT_ACK_DELAY:g} s later or when the connection ends, and not at all if a MSG_ACK comes before. For every user:"
        " every CHAT_OPENED before the ping has arrived",
    ),
    ("READ from a client", "the user has read this message, and so the message has arrived"),
    (
        "OPEN_CHAT, MSG, TYPING, HISTORY or READ in a chat",
        "the CHAT_OPENED of that chat has arrived. Except for READ, none of these acknowledges a message",
    ),
    ("HELLO_ACK", "the server has accepted HELLO, and the user id and the display name are on disk"),
    ("CHAT_OPENED", "the chat is on disk for both users"),
    (
        "PONG or HISTORY from the server, or `cursor` in HELLO",
        "these acknowledge nothing. PONG says only that the server is alive. HELLO with a `cursor` only says after which message"
        " the server is to continue; the messages after the cursor still need MSG_ACK",
    ),
)
