"""What capabilities, error codes, close codes and limits mean to authors of clients: tables to read, like ``core.reference.messages``."""

from __future__ import annotations

from typing import Final, NamedTuple, cast

from core.chat.pace import BURST, RATE, REFUSALS_PER_MINUTE
from core.chat.shares import sender_share, strangers_share
from core.process.settings import FIELDS
from core.wire import protocol
from core.wire.protocol import Capability, CloseCode, ErrorCode


class ErrorMeaning(NamedTuple):
    """An error code, when it comes, and what to do."""

    code: str
    when: str
    then: str


class CloseMeaning(NamedTuple):
    """A close code, when it comes, and whether and when the client is to connect again."""

    code: CloseCode
    when: str
    back: str


class Limit(NamedTuple):
    """What is limited, how, and what happens beyond it."""

    what: str
    limit: str
    beyond: str


CAPABILITIES: Final = (
    (
        Capability.RECEIPTS,
        "the server sends a MSG_ACK for each step of a message (`accepted`, `delivered`, `read`) and names the recipient in `to`; the"
        " client may send READ",
    ),
    (
        Capability.RESUME,
        "every MSG to this user has a `seq` and a `cursor`; HELLO may name the cursor after which the server continues",
    ),
    (Capability.HISTORY, "the client may send HISTORY to read the messages of a chat"),
    (
        Capability.CARBONS,
        "the server also sends the messages that another device of the same user has sent",
    ),
    (
        Capability.PRESENCE_DELTA,
        "after the first PRESENCE, the server sends only the users who have changed; `scope` says which users PRESENCE lists; the client"
        " may send PRESENCE to ask who is online",
    ),
    (
        Capability.CHATS,
        "the client may send CHATS to read the list of the user's chats with unread counts, READ, HIDE, MUTE and UNMUTE; the server"
        " sends what changes in the list",
    ),
    (Capability.BLOCK, "the client may send BLOCK and UNBLOCK"),
)

ERRORS: Final = (
    ErrorMeaning(
        ErrorCode.VALIDATION,
        "the message breaks a rule of this page; `details` names the field and the rule",
        "correct the message; the server refuses the same message again",
    ),
    ErrorMeaning(
        ErrorCode.MESSAGE_FAILED,
        "*not confirmed*: the server could not confirm the request within 5 s, or could not write to its storage. A"
        " MSG may have been stored nevertheless. With `details.reason` `mailbox_full` the server has not stored the MSG; `details.share`"
        " says what is full: the whole mailbox of the recipient (`mailbox`), the share of this sender (`sender`), or the common share of"
        " all senders to whom the recipient has never written (`strangers`); `details.limit` is the number of messages that may wait there",
        "send the request again later, a MSG with the same `message_id`: the server stores the MSG only once",
    ),
    ErrorMeaning(
        ErrorCode.USER_NOT_FOUND,
        "the server knows no user with this id",
        "check the user id; the server refuses the same request until this user has sent HELLO",
    ),
    ErrorMeaning(ErrorCode.CHAT_NOT_OPENED, "no chat with this user is open", "send OPEN_CHAT first"),
    ErrorMeaning(
        ErrorCode.RATE_LIMITED,
        "the message exceeds the limit for messages of this type",
        "send the message again after `details.retry_after` seconds",
    ),
    ErrorMeaning(
        ErrorCode.UNAUTHORIZED,
        "without `details.reason`: the client sent another message than HELLO or PING before HELLO, or a second HELLO with another user"
        " id. With `details.reason`: HELLO has no valid token although the server requires a token, or (`expires`) the token of this"
        " connection expires soon",
        "without `details.reason`: send HELLO first, and use each connection for one user only; with `details.reason`: send HELLO with a"
        " new token",
    ),
)

_SPREAD: Final = "yes, after a random wait of up to 3 s"
_BACK_OFF: Final = "yes, with exponential back-off and full jitter"
_BUG: Final = "no: the client has a bug, and the server would close the next connection for the same reason"
_ASKED: Final = "no, unless the user asks for a connection"

CLOSES: Final = (
    CloseMeaning(
        CloseCode.NORMAL, "the client sent a Close frame, and the server answers", "as the client likes"
    ),
    CloseMeaning(CloseCode.SHUTTING_DOWN, "the server is stopping", _SPREAD),
    CloseMeaning(CloseCode.PROTOCOL_ERROR, "the client sent a frame that violates RFC 6455", _BUG),
    CloseMeaning(CloseCode.UNSUPPORTED_DATA, "the client sent a binary message", _BUG),
    CloseMeaning(CloseCode.INVALID_UTF8, "the client sent a text message that is not UTF-8", _BUG),
    CloseMeaning(
        CloseCode.POLICY_VIOLATION,
        "no HELLO within 10 s; too many invalid messages; too many WebSocket pings and pongs; too many empty fragments; too many messages"
        " that the server refused; an operator closed the connection; or the reason is `no valid token in three tries` or `token expired`",
        "no, unless the user asks for a connection; after `token expired` yes, with a new token",
    ),
    CloseMeaning(
        CloseCode.MESSAGE_TOO_BIG,
        f"the client sent a message of more than {protocol.MESSAGE_MAX_BYTES} bytes",
        _BUG,
    ),
    CloseMeaning(CloseCode.INTERNAL_ERROR, "the server has a bug", _BACK_OFF),
    CloseMeaning(
        CloseCode.RESTARTING,
        "the server, or the server process that serves this user, is restarting; the reason may end in `; reconnect in N s`",
        "yes, after N s if the reason says so, else after a random wait of up to 3 s",
    ),
    CloseMeaning(
        CloseCode.TRY_AGAIN_LATER,
        "the server is overloaded or can't serve this user at the moment, the user has too many devices, or the client reads too slowly",
        "yes, after at least 1 s and with a longer back-off",
    ),
    CloseMeaning(
        CloseCode.REPLACED,
        "the user had too many devices, and a newer connection of the user replaced this silent connection",
        _ASKED,
    ),
    CloseMeaning(
        CloseCode.NO_SIGN_OF_LIFE,
        "the client sent nothing for 20 s, and nothing for 5 s more after a WebSocket ping: the device was asleep or had no network",
        "yes, at once: after a random wait of up to 1 s",
    ),
    CloseMeaning(CloseCode.BANNED, "an operator has banned the user", "no"),
    CloseMeaning(
        CloseCode.DELETED, "an operator has deleted the user; the id may be used again, by a new user", _ASKED
    ),
)


def _a_minute(setting: str) -> str:
    return f"{FIELDS[setting].default} in any {protocol.RATE_WINDOW:.0f} s"


_MAILBOX_MAX: Final = cast(int, FIELDS["mailbox_max"].default)

LIMITS: Final = (
    Limit("a message, all fragments", f"{protocol.MESSAGE_MAX_BYTES} bytes", "close 1009"),
    Limit(
        "MSG of a user; a refused MSG and a duplicate MSG do not count",
        _a_minute("messages_per_minute"),
        "RATE_LIMITED",
    ),
    Limit("TYPING of a user", _a_minute("typing_per_minute"), "RATE_LIMITED"),
    Limit("OPEN_CHAT of a user", _a_minute("open_chats_per_minute"), "RATE_LIMITED"),
    Limit("HELLO of a user", _a_minute("hellos_per_minute"), "RATE_LIMITED"),
    Limit("HISTORY of a user", _a_minute("history_per_minute"), "RATE_LIMITED"),
    Limit("PRESENCE requests of a user", _a_minute("presence_per_minute"), "RATE_LIMITED"),
    *(
        Limit(
            f"{kind} of all connections of a user whose tokens have `role: service`, which the limit above does not count",
            _a_minute(setting),
            "RATE_LIMITED",
        )
        for kind, setting in (
            ("MSG", "service_messages_per_minute"),
            ("TYPING", "service_typing_per_minute"),
            ("OPEN_CHAT", "service_open_chats_per_minute"),
            ("HISTORY", "service_history_per_minute"),
        )
    ),
    Limit(
        "CHATS of a user, and each of READ, HIDE, MUTE, UNMUTE, BLOCK and UNBLOCK",
        _a_minute("lists_per_minute"),
        "RATE_LIMITED",
    ),
    Limit("users whom a user may block", f"{protocol.BLOCKS_MAX}", "VALIDATION"),
    Limit(
        "PING of a connection",
        f"{protocol.PING_PER_SECOND:g} a second, {protocol.PING_BURST} at once",
        "RATE_LIMITED",
    ),
    Limit("VALIDATION errors on a connection", f"{protocol.STRIKES_PER_MINUTE} a minute", "close 1008"),
    Limit(
        "messages on a connection that the server refuses, or that have no effect, such as a duplicate MSG",
        f"{BURST:.0f} at once, {RATE:.0f} a second; more while few other clients send such messages",
        "the server reads and answers the other messages of the client later; close 1008 when the server refuses more than"
        f" {REFUSALS_PER_MINUTE} messages in each of 3 minutes in a row",
    ),
    Limit(
        "devices of a user",
        f"{protocol.DEVICES_MAX}",
        "close 4001 of the connection that has been silent longest, if it has been silent for"
        f" {protocol.DEVICE_SILENT:.0f} s; otherwise close 1013 of the new connection",
    ),
    Limit("time from the upgrade to HELLO", f"{protocol.HELLO_DEADLINE:.0f} s", "close 1008"),
    Limit(
        "time in which a client sends nothing",
        f"{protocol.HEARTBEAT_IDLE:.0f} s",
        f"the server sends a WebSocket ping; close 4002 when the client sends nothing for {protocol.HEARTBEAT_REPLY:.0f} s more",
    ),
    Limit(
        "data that waits because the client does not read",
        f"{protocol.OUTBOX_MAX_BYTES // 1024} KiB, or {protocol.SLOW_READER_BYTES // 1024} KiB of which the client takes nothing for"
        f" {protocol.SLOW_READER_SECONDS:.0f} s",
        "close 1013; the server keeps the messages and sends them after the next HELLO",
    ),
    Limit(
        "unacknowledged messages that wait for a user",
        f"{_MAILBOX_MAX}",
        "MESSAGE_FAILED for every further MSG to this user",
    ),
    Limit(
        "unacknowledged messages of one sender that wait for a user",
        f"{sender_share(_MAILBOX_MAX)}, a tenth of the mailbox",
        "MESSAGE_FAILED for every further MSG of this sender to this user",
    ),
    Limit(
        "unacknowledged messages that wait for a user, of all senders together to whom the user has never written",
        f"{strangers_share(_MAILBOX_MAX)}, half of the mailbox",
        "MESSAGE_FAILED for every further MSG of these senders to this user",
    ),
)


class Example(NamedTuple):
    """A text as it is sent, and as it is stored."""

    sent: str
    stored: str


#: What becomes of texts (D16), each a case of a rule.
TEXTS: Final = (
    Example("I <3 you, a < b && c > d, &lt;b&gt;", "I <3 you, a < b && c > d, &lt;b&gt;"),
    Example("<b>Two</b> lines,<br> or <input disabled> one", "Two lines, or  one"),
    Example("<img src=x onerror=alert(1)>Hi!", "Hi!"),
    Example("1<script>alert(1)</script>2<!-- no -->3", "123"),
    Example("x<y", "x< y"),
    Example("for(i=0;i<n;i++){}", "for(i=0;i< n;i++){}"),
    Example("List<String> xs", "List< String> xs"),
    Example("#include <stdio.h>", "#include < stdio.h>"),
    Example("<img src=x", "< img src=x"),
)
