"""The words of the wire that the client needs: codes, capabilities, limits. The server's are in ``core/wire/protocol.py``."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class CloseCode(IntEnum):
    """Why a connection ended. 1000-1015 are RFC 6455's, 4000-4999 are FastChat's own."""

    NORMAL = 1000
    SHUTTING_DOWN = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    ABNORMAL = 1006
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


#: With these there is no use in coming back: the client did something wrong and would do it again, a newer device took its place, or the
#: user is not wanted any more.
FINAL_CLOSE_CODES: Final = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_UTF8,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
        CloseCode.REPLACED,
        CloseCode.BANNED,
        CloseCode.DELETED,
    }
)

VALIDATION: Final = "VALIDATION"
MESSAGE_FAILED: Final = "MESSAGE_FAILED"
USER_NOT_FOUND: Final = "USER_NOT_FOUND"
CHAT_NOT_OPENED: Final = "CHAT_NOT_OPENED"
RATE_LIMITED: Final = "RATE_LIMITED"
UNAUTHORIZED: Final = "UNAUTHORIZED"
# -- The client's own --
CLOSED: Final = "CLOSED"
FORGOTTEN: Final = "FORGOTTEN"
UNSUPPORTED: Final = "UNSUPPORTED"
LISTENER: Final = "LISTENER"
PROTOCOL: Final = "PROTOCOL"
TIMEOUT: Final = "TIMEOUT"
TOKEN: Final = "TOKEN"  # noqa: S105 - the name of an error

CAPABILITIES: Final = ("receipts", "resume", "history", "carbons", "presence_delta", "chats", "block")

#: The reason of a close with 1008 when a token has run out, and why one is refused in whose place a newer one may be accepted.
TOKEN_EXPIRED: Final = "token expired"  # noqa: S105 - a sentence of the server's
REFUSED_FOR_NOW: Final = frozenset({"expired", "early"})

#: Bytes of a message, more of which the server answers by closing.
MESSAGE_MAX_BYTES: Final = 16 * 1024
