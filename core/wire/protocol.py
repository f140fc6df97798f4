"""The vocabulary of the wire: message types, error codes, close codes, capabilities and limits, one table each.

Everything that a client can see by name or number stands here; the server, its tests and its documentation read it from here.
A comment such as (D7) cites the rule behind it, in docs/decisions.md.
docs/architecture.md says what to change for a new message type, error or close code.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final


class MessageType:
    """The ``type`` of a message. Plain strings, since they are compared with what the JSON decoder returns."""

    HELLO: Final = "HELLO"
    HELLO_ACK: Final = "HELLO_ACK"
    PRESENCE: Final = "PRESENCE"
    OPEN_CHAT: Final = "OPEN_CHAT"
    CHAT_OPENED: Final = "CHAT_OPENED"
    MSG: Final = "MSG"
    MSG_ACK: Final = "MSG_ACK"
    READ: Final = "READ"
    HISTORY: Final = "HISTORY"
    CHATS: Final = "CHATS"
    HIDE: Final = "HIDE"
    MUTE: Final = "MUTE"
    UNMUTE: Final = "UNMUTE"
    BLOCK: Final = "BLOCK"
    UNBLOCK: Final = "UNBLOCK"
    TYPING: Final = "TYPING"
    PING: Final = "PING"
    PONG: Final = "PONG"
    ERROR: Final = "ERROR"


class ErrorCode:
    """The six error codes; there are no others, in any version (D24)."""

    VALIDATION: Final = "VALIDATION"
    MESSAGE_FAILED: Final = "MESSAGE_FAILED"
    USER_NOT_FOUND: Final = "USER_NOT_FOUND"
    CHAT_NOT_OPENED: Final = "CHAT_NOT_OPENED"
    RATE_LIMITED: Final = "RATE_LIMITED"
    UNAUTHORIZED: Final = "UNAUTHORIZED"


class CloseCode(IntEnum):
    """Why the server ends a connection (D28). 1000-1015 are RFC 6455's, 4000-4999 are FastChat's own."""

    NORMAL = 1000
    SHUTTING_DOWN = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_UTF8 = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTARTING = 1012
    TRY_AGAIN_LATER = 1013
    REPLACED = 4001
    NO_SIGN_OF_LIFE = 4002
    BANNED = 4003
    DELETED = 4004


#: What a client reads whose user is banned.
BAN_REASON: Final = "banned"


def reconnect_in(reason: str, seconds: float) -> str:
    """Return the close reason of a 1012 that tells the client when to reconnect, as clients read it (D28)."""
    return f"{reason}; reconnect in {seconds:.1f} s"


class Refusal(Exception):
    """A message that the server will not act on: an ERROR with this code goes to the client, and the connection stays (D24, D25).

    `details` tells the client what to mend: `field`, the limit, what came. ``codec.error`` adds `type` and `message_id`.
    """

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details = details


class Capability:
    """What a client may ask for in HELLO. One that asks for nothing sees no field and no message that needs a capability."""

    #: MSG_ACK tells what became of a message, step by step (D11).
    RECEIPTS: Final = "receipts"
    #: MSG carries its position, and HELLO may name the one to go on from (D13).
    RESUME: Final = "resume"
    #: HISTORY is answered (D14).
    HISTORY: Final = "history"
    #: What another device of the same user sends comes here too (D15).
    CARBONS: Final = "carbons"
    #: PRESENCE after the first lists what changed (D22), says who is listed, and may be asked for (D21).
    PRESENCE_DELTA: Final = "presence_delta"
    #: CHATS is answered, and tells what changes in the list of chats (D30).
    CHATS: Final = "chats"
    #: BLOCK and UNBLOCK are obeyed (D32).
    BLOCK: Final = "block"


#: The capabilities that this server puts in force when a client asks for them; all others are ignored.
CAPABILITIES: Final = frozenset(
    {
        Capability.RECEIPTS,
        Capability.RESUME,
        Capability.HISTORY,
        Capability.CARBONS,
        Capability.PRESENCE_DELTA,
        Capability.CHATS,
        Capability.BLOCK,
    }
)


class AckStatus:
    """``status`` of a MSG_ACK (D11). A plain client sees `delivered` or `stored`, once; one with `receipts` the others in turn."""

    #: It is durable, and waits for the recipient.
    STORED: Final = "stored"
    #: It is durable.
    ACCEPTED: Final = "accepted"
    #: It was written to a connection of the recipient; to a client with `receipts`: a device of the recipient acknowledged it.
    DELIVERED: Final = "delivered"
    #: The recipient has read it.
    READ: Final = "read"


class Scope:
    """``scope`` of HELLO_ACK and PRESENCE: who is listed (D21)."""

    EVERYONE: Final = "everyone"
    #: The people with whom the user has a chat.
    CONTACTS: Final = "contacts"


class Resumed:
    """``resumed`` of a HELLO_ACK (D13)."""

    #: Everything behind the cursor follows.
    FULL: Final = "full"
    #: Some of it is older than the retention; the rest follows.
    PARTIAL: Final = "partial"
    #: There was no cursor, or it names no position in this mailbox: everything follows that waits for an acknowledgement.
    RESET: Final = "reset"


# -- Lengths, in Unicode code points after sanitising; of content before spaces are put into it, which makes it longer (D16) --
CONTENT_MAX: Final = 1000
NAME_MIN: Final = 3
NAME_MAX: Final = 50
#: Of a name that a token proves (D34), which is whatever the issuer calls people.
PROVEN_NAME_MIN: Final = 1

#: A message, all its fragments together, in bytes (D25).
MESSAGE_MAX_BYTES: Final = 16 * 1024

# -- Connections --
#: Seconds from the upgrade within which HELLO must have come (D2).
HELLO_DEADLINE: Final = 10.0
#: Connections that one user may have at once (D4).
DEVICES_MAX: Final = 10
#: Seconds of silence after which a device may be replaced by a new one (D4).
DEVICE_SILENT: Final = 20.0
#: Seconds of silence after which the server sends a WebSocket ping, and seconds that it then waits (D27).
HEARTBEAT_IDLE: Final = 20.0
HEARTBEAT_REPLY: Final = 5.0
#: Seconds that a socket waits in the lobby for a worker that is being restarted.
WORKER_PATIENCE: Final = 10.0
#: Bytes that may wait for a client before its typing indicators are held back, and before presence is: only the latest state of
#: each is sent when there is room (D29).
TYPING_SHED_BYTES: Final = 64 * 1024
PRESENCE_SHED_BYTES: Final = 256 * 1024
#: Bytes that may wait for a client that does not read, before it is closed with 1013 (D29).
OUTBOX_MAX_BYTES: Final = 1024 * 1024
#: More unread bytes than this, of which not one has gone out for so many seconds: then it is closed with 1013 too (D29).
SLOW_READER_BYTES: Final = 64 * 1024
SLOW_READER_SECONDS: Final = 60.0
#: Messages of one connection that may be uncommitted before it is not read from (D29).
UNCOMMITTED_MAX: Final = 256

# -- Rates (D23, D25). The window of all per-minute limits, in seconds. --
RATE_WINDOW: Final = 60.0
PING_PER_SECOND: Final = 1.0
PING_BURST: Final = 5
#: VALIDATION errors a minute on one connection; one more closes it with 1008.
STRIKES_PER_MINUTE: Final = 20

# -- Delivery --
#: Seconds that the recipient's shard has to confirm a message (D26).
CONFIRM_TIMEOUT: Final = 5.0
#: Seconds between a client's pong and the moment when it counts as acknowledgement (D12).
IMPLICIT_ACK_DELAY: Final = 5.0
#: Seconds between two confirming pings on one connection (D12).
CONFIRM_PING_INTERVAL: Final = 1.0
#: Messages of one answer to HISTORY, when the client does not say how many and at most; and its bytes (D14).
HISTORY_DEFAULT: Final = 50
HISTORY_MAX: Final = 100
HISTORY_MAX_BYTES: Final = 64 * 1024
#: The same for chats of one answer to CHATS; characters that it shows of a last message; and seconds between two CHATS that say of one
#: chat that it has changed (D30).
CHATS_DEFAULT: Final = 50
CHATS_MAX: Final = 100
CHATS_MAX_BYTES: Final = 64 * 1024
LAST_CHARACTERS: Final = 200
CHATS_INTERVAL: Final = 1.0
#: Users whom one user may block (D32).
BLOCKS_MAX: Final = 1000
#: Bytes of redelivered messages that may wait unsent on one connection (D13).
REPLAY_WINDOW_BYTES: Final = 64 * 1024

# -- Typing and presence --
#: Seconds after the last ``is_typing: true`` when it expires (D17).
TYPING_EXPIRY: Final = 15.0
#: Seconds without a connection after which a user is announced as gone (D21).
PRESENCE_GRACE: Final = 5.0
#: Seconds between two PRESENCE frames on one connection (D21).
PRESENCE_INTERVAL: Final = 1.0
#: People after whom one PRESENCE of a client may ask (D21).
PRESENCE_ASKED_MAX: Final = 100
#: Users online above which ``auto`` presence shows contacts only, and below which everybody again (D21).
PRESENCE_EVERYONE_MAX: Final = 200
PRESENCE_EVERYONE_AGAIN: Final = 160
#: Seconds offline after which a user without a chat is forgotten (D23).
FORGET_AFTER: Final = 86_400.0
#: Seconds offline after which a user is left to the store. More than any limit's window, so that no limit is lost by it.
UNLOAD_AFTER: Final = 120.0
#: The same for a user who was loaded only since the hook is to be told of a message.
UNLOAD_BRIEFLY_AFTER: Final = 10.0
#: The same for a user without a chat, of whom what counts against limits stays longer. More than PRESENCE_GRACE: whose leave has been
#: announced, nobody asks about.
UNLOAD_CHATLESS_AFTER: Final = 10.0
