"""What capabilities, error codes, close codes and limits mean to authors of clients: tables to read, like ``core.reference.messages``."""

from __future__ import annotations

from typing import Final, NamedTuple

from core.chat.pace import BURST, RATE, REFUSALS_PER_MINUTE
from core.chat.shares import sender_share, strangers_share
from core.process.settings import Settings
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
        "MSG_ACK tells step by step what becomes of a message, and names its recipient; READ exists",
    ),
    (Capability.RESUME, "MSG is numbered, and HELLO may name the message behind which to go on"),
    (Capability.HISTORY, "HISTORY exists"),
    (Capability.CARBONS, "what another device of the same user sends comes here too"),
    (
        Capability.PRESENCE_DELTA,
        "PRESENCE after the first lists only what has changed, says in `scope` who is listed, and can be asked for",
    ),
)

ERRORS: Final = (
    ErrorMeaning(
        ErrorCode.VALIDATION,
        "the message breaks a rule of this page; `details` say which",
        "mend it; the same again is refused again",
    ),
    ErrorMeaning(
        ErrorCode.MESSAGE_FAILED,
        "*not confirmed* within 5 s, or the store is full; a MSG may have been stored all the same. With `details.reason` `mailbox_full` it"
        " was not stored: `details.share` says whether the whole mailbox of the recipient is full (`mailbox`), what one sender may have in"
        " it (`sender`), or what senders may have together to whom the recipient has never written (`strangers`); `details.limit` how much"
        " that is",
        "again later, a MSG with the same `message_id`: it is stored once",
    ),
    ErrorMeaning(ErrorCode.USER_NOT_FOUND, "the server has never seen this user", "nothing"),
    ErrorMeaning(ErrorCode.CHAT_NOT_OPENED, "there is no chat with this user", "OPEN_CHAT first"),
    ErrorMeaning(
        ErrorCode.RATE_LIMITED,
        "the limit for messages of this type is exceeded",
        "again after `details.retry_after` seconds",
    ),
    ErrorMeaning(
        ErrorCode.UNAUTHORIZED,
        "without `details.reason`: something else than HELLO or PING before HELLO, or a second HELLO as another user. With it: HELLO"
        " without a valid token where one is needed, or (`expires`) the token of this connection ends soon",
        "say HELLO, and as one user on one connection; with a reason, HELLO with a new token",
    ),
)

_SPREAD: Final = "yes, after a random time up to 3 s"
_BACK_OFF: Final = "yes, with exponential back-off and full jitter"
_BUG: Final = "no: the client has a bug, and the same again ends the same"

CLOSES: Final = (
    CloseMeaning(CloseCode.NORMAL, "the answer to the client's own close", "as the client likes"),
    CloseMeaning(CloseCode.SHUTTING_DOWN, "the server stops", _SPREAD),
    CloseMeaning(CloseCode.PROTOCOL_ERROR, "the frames break RFC 6455", _BUG),
    CloseMeaning(CloseCode.UNSUPPORTED_DATA, "a binary message", _BUG),
    CloseMeaning(CloseCode.INVALID_UTF8, "a text that is not UTF-8", _BUG),
    CloseMeaning(
        CloseCode.POLICY_VIOLATION,
        "no HELLO within 10 s; too many invalid messages, pings and pongs, or empty fragments; too many refused messages;"
        " closed by the operator;"
        " `no valid token in three tries`, or `token expired`",
        "no, unless its user asks for it; after `token expired`, with a new token",
    ),
    CloseMeaning(CloseCode.MESSAGE_TOO_BIG, "a message is too long", _BUG),
    CloseMeaning(CloseCode.INTERNAL_ERROR, "a bug of the server", _BACK_OFF),
    CloseMeaning(CloseCode.RESTARTING, "the process that has this user is restarted", _SPREAD),
    CloseMeaning(
        CloseCode.TRY_AGAIN_LATER,
        "the server is overloaded, the user has too many devices, or this client reads too slowly",
        "yes, after a second at least and with a longer back-off",
    ),
    CloseMeaning(
        CloseCode.REPLACED,
        "a newer device of the user took the place of this silent one",
        "no, unless its user asks for it",
    ),
    CloseMeaning(
        CloseCode.NO_SIGN_OF_LIFE,
        "nothing was heard for 20 s, and nothing for 5 s more after a WebSocket ping: the device slept, or its network was away",
        "yes, at once: after a random time up to 1 s",
    ),
)


def _a_minute(setting: str) -> str:
    return f"{Settings.model_fields[setting].default} in any {protocol.RATE_WINDOW:.0f} s"


_MAILBOX_MAX: Final[int] = Settings.model_fields["mailbox_max"].default

LIMITS: Final = (
    Limit("a message, all fragments", f"{protocol.MESSAGE_MAX_BYTES} bytes", "close 1009"),
    Limit(
        "MSG of a user; those that are refused or repeated do not count",
        _a_minute("messages_per_minute"),
        "RATE_LIMITED",
    ),
    Limit("TYPING of a user", _a_minute("typing_per_minute"), "RATE_LIMITED"),
    Limit("OPEN_CHAT of a user", _a_minute("open_chats_per_minute"), "RATE_LIMITED"),
    Limit("HELLO of a user", _a_minute("hellos_per_minute"), "RATE_LIMITED"),
    Limit("HISTORY of a user", _a_minute("history_per_minute"), "RATE_LIMITED"),
    Limit("PRESENCE asked for by a user", _a_minute("presence_per_minute"), "RATE_LIMITED"),
    Limit(
        "PING of a connection",
        f"{protocol.PING_PER_SECOND:g} a second, {protocol.PING_BURST} at once",
        "RATE_LIMITED",
    ),
    Limit("VALIDATION on a connection", f"{protocol.STRIKES_PER_MINUTE} a minute", "close 1008"),
    Limit(
        "messages on a connection that are refused, or come to nothing",
        f"{BURST:.0f} at once, {RATE:.0f} a second; more while the server has nothing else to do",
        "the rest is read later, and answered then; close 1008 when more than"
        f" {REFUSALS_PER_MINUTE} are refused in each of 3 minutes in a row",
    ),
    Limit(
        "devices of a user",
        f"{protocol.DEVICES_MAX}",
        f"one that was silent for {protocol.DEVICE_SILENT:.0f} s is closed with 4001, else the newcomer with 1013",
    ),
    Limit("from the connection to HELLO", f"{protocol.HELLO_DEADLINE:.0f} s", "close 1008"),
    Limit(
        "silence",
        f"{protocol.HEARTBEAT_IDLE:.0f} s",
        f"a WebSocket ping, and close 4002 when nothing comes for {protocol.HEARTBEAT_REPLY:.0f} s more",
    ),
    Limit(
        "what waits for a client that does not read",
        f"{protocol.OUTBOX_MAX_BYTES // 1024} KiB, or {protocol.SLOW_READER_BYTES // 1024} KiB of which nothing is taken for"
        f" {protocol.SLOW_READER_SECONDS:.0f} s",
        "close 1013; messages are kept, and come again",
    ),
    Limit(
        "messages that wait for a user",
        f"{_MAILBOX_MAX}, unacknowledged",
        "MESSAGE_FAILED for who sends more",
    ),
    Limit(
        "messages of one sender that wait for a user",
        f"{sender_share(_MAILBOX_MAX)}, a tenth of the mailbox",
        "MESSAGE_FAILED for that sender",
    ),
    Limit(
        "messages that wait for a user, from all senders together to whom the user has never written",
        f"{strangers_share(_MAILBOX_MAX)}, half of the mailbox",
        "MESSAGE_FAILED for these senders",
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
