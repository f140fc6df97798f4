"""An example or two of every message of the protocol, for docs/protocol.md. The tests hold them against the JSON Schema.

Alice and Bob are the same two people in all of them, and in ``scripts.protocol_transcripts``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from core.chat.chat import chat_id
from core.wire.protocol import AckStatus, ErrorCode, MessageType, Resumed, Scope

ALICE: Final = "11111111-1111-4111-8111-111111111111"
BOB: Final = "22222222-2222-4222-8222-222222222222"
#: A timestamp as the server writes it.
NOON: Final = "2024-01-01T12:00:00.000Z"
#: The cursors are opaque to clients; these only look like the server's.
CURSOR: Final = "5f0c1d9e3ab7.41"
NEXT_CURSOR: Final = "5f0c1d9e3ab7.42"
#: The middle of a token is left out.
TOKEN: Final = "eyJhbGciOiJIUzI1NiJ9...q3nVtXk"  # noqa: S105 - no server takes it

Data = dict[str, Any]


class Example(NamedTuple):
    """What is sent, and when it looks like this: words before a colon, or none."""

    when: str
    data: Data


_HELLO: Final[Data] = {"user_id": ALICE, "display_name": "Alice"}
_ALICE_ONLINE: Final[Data] = {"user_id": ALICE, "display_name": "Alice", "online": True}
_BOB_ONLINE: Final[Data] = {"user_id": BOB, "display_name": "Bobby", "online": True}
_MESSAGE: Final[Data] = {
    "from": BOB,
    "to": ALICE,
    "content": "Hello!",
    "message_id": "b-7",
    "timestamp": NOON,
}
_SENT: Final[Data] = {"message_id": "a-1", "to": BOB}
_CHAT: Final[Data] = {
    "user_id": BOB,
    "display_name": "Bobby",
    "chat_id": chat_id(ALICE, BOB),
    "last": {"from": BOB, "content": "Hello!", "timestamp": NOON, "message_id": "b-7"},
    "unread": 1,
    "read": 41,
    "online": True,
    "blocked": False,
    "muted": False,
}

FROM_CLIENT: Final[dict[str, tuple[Example, ...]]] = {
    MessageType.HELLO: (
        Example("No capabilities", _HELLO),
        Example(
            "All capabilities, coming back, and a token",
            _HELLO
            | {
                "capabilities": [
                    "receipts",
                    "resume",
                    "history",
                    "carbons",
                    "presence_delta",
                    "chats",
                    "block",
                ],
                "resume": {"cursor": CURSOR},
                "token": TOKEN,
            },
        ),
    ),
    MessageType.OPEN_CHAT: (Example("", {"target_user_id": BOB, "target_display_name": "Bobby"}),),
    MessageType.MSG: (
        Example("", {"to": BOB, "content": "Hello!", "message_id": "a-1"}),
        Example("The server makes the id", {"to": BOB, "content": "Hello!"}),
    ),
    MessageType.MSG_ACK: (
        Example("", {"message_id": "b-7", "from": BOB}),
        Example("Without the sender", {"message_id": "b-7"}),
    ),
    MessageType.READ: (Example("", {"message_id": "b-7", "from": BOB}),),
    MessageType.HISTORY: (
        Example("The newest page", {"with": BOB}),
        Example("The page that follows", {"with": BOB, "before": "3.2", "limit": 20}),
    ),
    MessageType.CHATS: (
        Example("The first page", {}),
        Example("The page that follows", {"before": f"{NOON}/{BOB}", "limit": 20}),
    ),
    **{
        kind: (Example("", {"user_id": BOB}),)
        for kind in (
            *(MessageType.HIDE, MessageType.MUTE, MessageType.UNMUTE),
            *(MessageType.BLOCK, MessageType.UNBLOCK),
        )
    },
    MessageType.PRESENCE: (Example("", {"user_ids": [BOB]}),),
    MessageType.TYPING: (
        Example("", {"is_typing": True, "to": BOB}),
        Example("To the chat opened or written in last", {"is_typing": False}),
    ),
    MessageType.PING: (Example("", {}),),
}

FROM_SERVER: Final[dict[str, tuple[Example, ...]]] = {
    MessageType.HELLO_ACK: (
        Example("No capabilities", {"user_id": ALICE, "status": "connected"}),
        Example(
            "With `resume` and `presence_delta`",
            {
                "user_id": ALICE,
                "status": "connected",
                "capabilities": ["presence_delta", "resume"],
                "cursor": CURSOR,
                "resumed": Resumed.FULL,
                "scope": Scope.EVERYONE,
            },
        ),
    ),
    MessageType.PRESENCE: (
        Example("", {"users": [_ALICE_ONLINE, _BOB_ONLINE]}),
        Example(
            "A client with `presence_delta` receives this when Bob has gone offline",
            {"users": [_BOB_ONLINE | {"online": False}], "delta": True, "scope": Scope.EVERYONE},
        ),
    ),
    MessageType.CHAT_OPENED: (
        Example(
            "",
            {
                "chat_id": chat_id(ALICE, BOB),
                "participants": [ALICE, BOB],
                "target_user_id": BOB,
                "target_display_name": "Bobby",
            },
        ),
    ),
    MessageType.MSG: (
        Example("", _MESSAGE),
        Example("With `resume`", _MESSAGE | {"seq": 42, "cursor": NEXT_CURSOR}),
        Example(
            "With `resume`, a message that was read on another device",
            _MESSAGE | {"seq": 42, "cursor": NEXT_CURSOR, "read": True},
        ),
    ),
    MessageType.MSG_ACK: (
        Example("No capabilities", {"message_id": "a-1", "status": AckStatus.DELIVERED}),
        Example("With `receipts`", _SENT | {"status": AckStatus.READ}),
        Example(
            "With `receipts`, after `<b>Hello!</b>`",
            {"message_id": "a-1", "status": AckStatus.ACCEPTED, "to": BOB, "content": "Hello!"},
        ),
    ),
    MessageType.HISTORY: (
        Example("", {"with": BOB, "messages": [_MESSAGE | {"read": True}], "next": "3.2"}),
    ),
    MessageType.CHATS: (
        Example("", {"chats": [_CHAT], "next": None}),
        Example("The user has muted the chat", {"chats": [_CHAT | {"muted": True}], "delta": True}),
    ),
    MessageType.TYPING: (Example("", {"user_id": BOB, "is_typing": True}),),
    MessageType.PONG: (Example("", {"timestamp": NOON}),),
    MessageType.ERROR: (
        Example(
            "",
            {
                "code": ErrorCode.CHAT_NOT_OPENED,
                "message": "open a chat with this user first",
                "details": {"field": "to", "type": "MSG", "message_id": "a-1"},
            },
        ),
        Example(
            "A limit",
            {
                "code": ErrorCode.RATE_LIMITED,
                "message": "at most 60 MSG in any 60 seconds",
                "details": {
                    "limit": 60,
                    "window": 60.0,
                    "retry_after": 12.5,
                    "type": "MSG",
                    "message_id": "a-61",
                },
            },
        ),
    ),
}
