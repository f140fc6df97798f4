"""The sequences of the protocol, line by line, for docs/protocol.md. A test plays each of them against the core, byte for byte.

A PRESENCE that only says that the other person came or left is left out, unless the transcript is about that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from core.chat.chat import chat_id
from core.wire.protocol import AckStatus, ErrorCode, MessageType, Resumed, Scope
from scripts.protocol_examples import ALICE, BOB, NOON, Data

SAYS: Final = ">"
GETS: Final = "<"
#: What happens besides: `COMES` opens a connection, `GOES` ends it, `WAITS` lets time pass until the next line is due.
COMES: Final = "opens a connection"
GOES: Final = "loses the connection"
WAITS: Final = "a minute before the token ends"

_ACK: Final = MessageType.MSG_ACK
#: What the two people are called.
NAMES: Final = {ALICE: "Alice", BOB: "Bobby"}


class Line(NamedTuple):
    """One message of a transcript, or something else that happens (then there is no `type`)."""

    user_id: str
    what: str
    type: str = ""
    data: Data = {}  # noqa: RUF012 - a default that nobody changes


class Transcript(NamedTuple):
    """A sequence, with the capabilities that its clients ask for."""

    name: str
    lines: tuple[Line, ...]
    #: What goes without saying: both are connected (and have opened their chat).
    begins: str = ""


def _hello(user_id: str, **more: object) -> Line:
    return Line(user_id, SAYS, MessageType.HELLO, {"user_id": user_id, "display_name": NAMES[user_id]} | more)


def _greeted(user_id: str, **more: object) -> Line:
    return Line(user_id, GETS, MessageType.HELLO_ACK, {"user_id": user_id, "status": "connected"} | more)


def _online(*users: str, viewer: str = ALICE, **more: object) -> Line:
    entries = [{"user_id": user, "display_name": NAMES[user], "online": True} for user in users]
    return Line(viewer, GETS, MessageType.PRESENCE, {"users": entries} | more)


def _opened(viewer: str, other: str) -> Line:
    data = {"chat_id": chat_id(ALICE, BOB), "participants": [ALICE, BOB]}
    about = {"target_user_id": other, "target_display_name": NAMES[other]}
    return Line(viewer, GETS, MessageType.CHAT_OPENED, data | about)


def _writes(content: str, message_id: str) -> Line:
    return Line(ALICE, SAYS, MessageType.MSG, {"to": BOB, "content": content, "message_id": message_id})


def _arrives(content: str, message_id: str, **more: object) -> Line:
    data = {"from": ALICE, "to": BOB, "content": content, "message_id": message_id, "timestamp": NOON}
    return Line(BOB, GETS, MessageType.MSG, data | more)


def _answered(message_id: str, status: str, **more: object) -> Line:
    return Line(ALICE, GETS, _ACK, {"message_id": message_id, "status": status} | more)


def _confirms(message_id: str, kind: str = _ACK) -> Line:
    return Line(BOB, SAYS, kind, {"message_id": message_id, "from": ALICE})


def _chat(**more: object) -> Data:
    """Bob's chat with Alice, as CHATS shows it after her first message."""
    last = {"from": ALICE, "content": "Hello!", "timestamp": NOON, "message_id": "a-1"}
    data = {"user_id": ALICE, "display_name": "Alice", "chat_id": chat_id(ALICE, BOB), "last": last}
    marks = {"unread": 1, "read": 0, "online": True, "blocked": False, "muted": False}
    return data | marks | more


def _history_entry(content: str, message_id: str) -> Data:
    return {"from": ALICE, "to": BOB, "content": content, "message_id": message_id, "timestamp": NOON}


_TOKEN: Final = "eyJ...first"  # noqa: S105 - stands for one
_NEW_TOKEN: Final = "eyJ...second"  # noqa: S105 - the same
#: Placeholders that a replay replaces.
TOKENS: Final = (_TOKEN, _NEW_TOKEN)

CONNECT: Final = Transcript(
    "connect",
    (
        Line(ALICE, COMES),
        _hello(ALICE),
        _greeted(ALICE),
        _online(ALICE),
        Line(ALICE, SAYS, MessageType.PING),
        Line(ALICE, GETS, MessageType.PONG, {"timestamp": NOON}),
    ),
)

WRITE: Final = Transcript(
    "write",
    (
        Line(ALICE, SAYS, MessageType.OPEN_CHAT, {"target_user_id": BOB, "target_display_name": "Bobby"}),
        _opened(ALICE, BOB),
        _opened(BOB, ALICE),
        Line(ALICE, SAYS, MessageType.TYPING, {"is_typing": True, "to": BOB}),
        Line(BOB, GETS, MessageType.TYPING, {"user_id": ALICE, "is_typing": True}),
        _writes("Hello!", "a-1"),
        Line(BOB, GETS, MessageType.TYPING, {"user_id": ALICE, "is_typing": False}),
        _arrives("Hello!", "a-1"),
        _answered("a-1", AckStatus.DELIVERED),
        _confirms("a-1"),
    ),
    begins="online",
)

REPEAT: Final = Transcript(
    "repeat",
    (
        _writes("Are you there?", "a-2"),
        Line(ALICE, GOES),
        _arrives("Are you there?", "a-2"),
        Line(ALICE, COMES),
        _hello(ALICE),
        _greeted(ALICE),
        _online(ALICE, BOB),
        _writes("Are you there?", "a-2"),
        _answered("a-2", AckStatus.DELIVERED),
    ),
    begins="chatting",
)

RECEIPTS: Final = Transcript(
    "receipts",
    (
        _writes("Hello!", "a-1"),
        _arrives("Hello!", "a-1"),
        _answered("a-1", AckStatus.ACCEPTED, to=BOB),
        _confirms("a-1"),
        _answered("a-1", AckStatus.DELIVERED, to=BOB),
        _confirms("a-1", MessageType.READ),
        _answered("a-1", AckStatus.READ, to=BOB),
    ),
    begins="chatting, receipts",
)

RESUME: Final = Transcript(
    "resume",
    (
        Line(BOB, COMES),
        _hello(BOB, capabilities=["resume"]),
        _greeted(BOB, capabilities=["resume"], cursor="5f0c1d9e3ab7.0", resumed=Resumed.RESET),
        _online(ALICE, BOB, viewer=BOB),
        Line(BOB, GOES),
        _writes("See you.", "a-3"),
        _answered("a-3", AckStatus.STORED),
        Line(BOB, COMES),
        _hello(BOB, capabilities=["resume"], resume={"cursor": "5f0c1d9e3ab7.0"}),
        _greeted(BOB, capabilities=["resume"], cursor="5f0c1d9e3ab7.0", resumed=Resumed.FULL),
        _online(ALICE, BOB, viewer=BOB),
        _arrives("See you.", "a-3", seq=1, cursor="5f0c1d9e3ab7.1"),
        _confirms("a-3"),
    ),
    begins="chatting, bob away",
)

HISTORY: Final = Transcript(
    "history",
    (
        Line(ALICE, SAYS, MessageType.HISTORY, {"with": BOB, "limit": 1}),
        Line(
            ALICE,
            GETS,
            MessageType.HISTORY,
            {"with": BOB, "messages": [_history_entry("two", "a-2")], "next": "4.2"},
        ),
        Line(ALICE, SAYS, MessageType.HISTORY, {"with": BOB, "before": "4.2", "limit": 1}),
        Line(
            ALICE,
            GETS,
            MessageType.HISTORY,
            {"with": BOB, "messages": [_history_entry("one", "a-1")], "next": None},
        ),
    ),
    begins="chatting, history, two messages",
)

CHATS: Final = Transcript(
    "chats",
    (
        _writes("Hello!", "a-1"),
        _arrives("Hello!", "a-1"),
        _answered("a-1", AckStatus.DELIVERED),
        Line(BOB, SAYS, MessageType.CHATS, {"limit": 20}),
        Line(BOB, GETS, MessageType.CHATS, {"chats": [_chat()], "next": None}),
        Line(BOB, GETS, MessageType.CHATS, {"chats": [_chat()], "delta": True}),
        _confirms("a-1", MessageType.READ),
        Line(BOB, SAYS, MessageType.MUTE, {"user_id": ALICE}),
        Line(BOB, GETS, MessageType.CHATS, {"chats": [_chat(unread=0, read=1, muted=True)], "delta": True}),
    ),
    begins="chatting, chats",
)

BLOCK: Final = Transcript(
    "block",
    (
        Line(BOB, SAYS, MessageType.BLOCK, {"user_id": ALICE}),
        _writes("Are you there?", "a-2"),
        _answered("a-2", AckStatus.STORED),
        Line(BOB, SAYS, MessageType.MSG, {"to": ALICE, "content": "Hello!", "message_id": "b-1"}),
        Line(
            BOB,
            GETS,
            MessageType.ERROR,
            {
                "code": ErrorCode.CHAT_NOT_OPENED,
                "message": "you have blocked this user; unblock first",
                "details": {"field": "to", "blocked": True, "type": "MSG", "message_id": "b-1"},
            },
        ),
        Line(BOB, SAYS, MessageType.UNBLOCK, {"user_id": ALICE}),
    ),
    begins="chatting, block",
)

PRESENCE: Final = Transcript(
    "presence",
    (
        Line(ALICE, COMES),
        _hello(ALICE, capabilities=["presence_delta"]),
        _greeted(ALICE, capabilities=["presence_delta"], scope=Scope.EVERYONE),
        _online(ALICE, scope=Scope.EVERYONE),
        Line(BOB, COMES),
        _hello(BOB),
        _greeted(BOB),
        _online(ALICE, BOB, viewer=BOB),
        _online(BOB, delta=True, scope=Scope.EVERYONE),
    ),
)

RENEWAL: Final = Transcript(
    "renewal",
    (
        Line(ALICE, COMES),
        _hello(ALICE, token=_TOKEN),
        _greeted(ALICE),
        _online(ALICE),
        Line(ALICE, WAITS),
        Line(
            ALICE,
            GETS,
            MessageType.ERROR,
            {
                "code": ErrorCode.UNAUTHORIZED,
                "message": "the token expires soon: say HELLO with a new one, or this connection will be closed",
                "details": {"field": "token", "reason": "expires", "expires_in": 60, "type": "HELLO"},
            },
        ),
        _hello(ALICE, token=_NEW_TOKEN),
        _greeted(ALICE),
        _online(ALICE),
    ),
)

TRANSCRIPTS: Final = (CONNECT, WRITE, REPEAT, RECEIPTS, RESUME, HISTORY, CHATS, BLOCK, PRESENCE, RENEWAL)
