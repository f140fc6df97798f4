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
    ("no close code (1006), 1011, or an attempt that failed", _GROWING),
    ("1001, 1012", _at_least(RESTART_SPREAD)),
    (
        "4002",
        f"{_at_least(SLEPT_SPREAD)}; n begins at 0 again, unless the connection before ended with 4002 too",
    ),
    ("1013", f"{OVERLOAD_REST:g} s + {_GROWING}; n is at least {OVERLOAD_ATTEMPTS}"),
    ("1008 with the reason `token expired`", f"{_GROWING}, with a new token; without one, stay away"),
    ("1002, 1003, 1007, 1008 otherwise, 1009, 4001", "stay away until the user asks for it"),
    (
        f"the very first attempt is answered with a status below 500 other than {', '.join(map(str, PASSING))}",
        "stay away: the address is wrong, or the server does not want this client",
    ),
)


class Refused(NamedTuple):
    """An answer to the request for an upgrade that is not 101."""

    status: int
    when: str
    body: str
    then: str


_LIMIT: Final = "come back with back-off, after the seconds in `Retry-After` at least"
_MEND: Final = "mend the request; the same again is refused again"

REFUSED: Final = (
    Refused(
        400,
        "the request is not HTTP, has two meanings, has a body, or lacks a header field of the handshake",
        "A request has exactly one Host header.",
        f"{_MEND}; the body names the rule",
    ),
    Refused(
        403,
        "a page of an origin that is not allowed",
        "Pages of this origin may not connect; the operator lists those that may in FASTCHAT_ALLOWED_ORIGINS.",
        "stay away; the operator has to allow the origin",
    ),
    Refused(
        404,
        "another path than `/ws`",
        "There is nothing at this path. The chat is at /, its WebSocket at /ws.",
        "use the right address",
    ),
    Refused(405, "another method than GET; `Allow: GET`", "A WebSocket handshake must use GET.", _MEND),
    Refused(
        408,
        "the head of the request was not complete in time",
        "The head of a request must come within 10 s.",
        "come back with back-off",
    ),
    Refused(
        426,
        "no `Upgrade: websocket`; or another version, with `Sec-WebSocket-Version: 13`",
        "This URL accepts WebSocket connections only.",
        _MEND,
    ),
    Refused(
        431, "the head is too large", "The head of a request has at most 16384 bytes.", "send a shorter head"
    ),
    Refused(500, "a bug of the server", "The server failed; its log says why.", "come back with back-off"),
    Refused(
        503,
        "too many connections from this address; `Retry-After: 5`",
        "There are too many connections from this address.",
        _LIMIT,
    ),
    Refused(
        503,
        "too many new connections from this address in a second; `Retry-After: 1`",
        "Too many new connections come from this address.",
        _LIMIT,
    ),
    Refused(
        503,
        "too many connections from this address without HELLO; `Retry-After: 5`",
        "Too many connections from this address have not said HELLO yet.",
        _LIMIT,
    ),
    Refused(
        503,
        "the server has `FASTCHAT_MAX_CONNECTIONS`; `Retry-After: 5`",
        "The server has reached its limit on connections.",
        _LIMIT,
    ),
    Refused(503, "the server stops or restarts", "Try again in a moment: ...", "come back with back-off"),
    Refused(505, "HTTP/1.0", "A WebSocket handshake must use HTTP/1.1.", _MEND),
)

#: What is sent, who sends it, and what it says.
ACKNOWLEDGES: Final = (
    (
        "MSG_ACK from the server",
        "the message is on disk. `delivered` without `receipts`: written to a connection of the recipient, too."
        " With `receipts`, `delivered`: a device of the recipient has acknowledged it; `read`: its user has read it",
    ),
    (
        "MSG_ACK from a client",
        "this message has arrived, for all devices of its user, and so have the CHAT_OPENED before it. Other messages"
        " are not meant: each needs a MSG_ACK of its own. An unknown id, or one acknowledged before, is ignored",
    ),
    (
        "the pong of a WebSocket ping",
        "for a user who has never sent MSG_ACK: all messages before the ping have arrived, counted"
        f" {IMPLICIT_ACK_DELAY:g} s later or at the disconnect, unless a MSG_ACK comes meanwhile. For everybody: the"
        " CHAT_OPENED before the ping have arrived",
    ),
    ("READ from a client", "the user has read this message, so it has arrived as well"),
    (
        "OPEN_CHAT, MSG, TYPING, HISTORY or READ in a chat",
        "the CHAT_OPENED of that chat has arrived; of messages it says nothing",
    ),
    ("HELLO_ACK", "HELLO is accepted, and the user and its name are on disk"),
    ("CHAT_OPENED", "the chat is on disk for both"),
    (
        "PONG, HISTORY, or `cursor` in HELLO",
        "nothing. A PONG says that the server is there; HELLO with a `cursor` says from where to go on, and what is"
        " behind it still needs MSG_ACK",
    ),
)
