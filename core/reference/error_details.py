"""The fields of `details` of an ERROR: a table to read, like ``core.reference.messages``. All of them may be missing."""

from __future__ import annotations

from typing import Final

from core.auth.tokens import EXPIRES, REASONS
from core.reference.rows import STRING, Field, both

#: Why a token is refused, that its time is nearly over, or why a message was not stored.
_ERROR_REASONS: Final = (*REASONS, EXPIRES, "banned", "mailbox_full")
#: Which part of a mailbox is full.
_SHARES: Final = ("mailbox", "sender", "strangers")

ERROR_DETAILS: Final = (
    Field("type", STRING, "type of the client's message that the error is about", required=False),
    Field("message_id", STRING, "`message_id` of that message", required=False),
    Field("field", STRING, "name of the invalid field of that message", required=False),
    Field(
        "expected",
        both(
            "string or list of strings",
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        ),
        "what the server expected in that field, or in place of that message",
        required=False,
    ),
    Field(
        "limit",
        both(
            "number or `{min, max}`",
            {
                "anyOf": [
                    {"type": "number"},
                    {
                        "type": "object",
                        "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
                        "required": ["min", "max"],
                        "additionalProperties": False,
                    },
                ]
            },
        ),
        "the limit that the message exceeds",
        required=False,
    ),
    Field(
        "length",
        both("number", {"type": "integer", "minimum": 0}),
        "length of the text without markup, or number of entries of the list",
        required=False,
    ),
    Field(
        "window",
        both("seconds", {"type": "number"}),
        "the period to which a rate limit applies",
        required=False,
    ),
    Field(
        "retry_after",
        both("seconds", {"type": "number", "minimum": 0}),
        "time after which the limit allows the message again",
        required=False,
    ),
    Field(
        "reason",
        both(
            "one of " + ", ".join(f"`{reason}`" for reason in _ERROR_REASONS), {"enum": list(_ERROR_REASONS)}
        ),
        "why the server refuses a token; `expires`: the token is valid and expires soon; `banned`: an operator has banned the user;"
        " `mailbox_full`: the server has not stored the message",
        required=False,
    ),
    Field(
        "blocked",
        both("`true`", {"const": True}),
        "the user has blocked the other user, and must send UNBLOCK first",
        required=False,
    ),
    Field(
        "share",
        both(" or ".join(f"`{share}`" for share in _SHARES), {"enum": list(_SHARES)}),
        "with `mailbox_full`: which share of the recipient's mailbox is full",
        required=False,
    ),
    Field(
        "expires_in",
        both("seconds", {"type": "integer", "minimum": 0}),
        "time until the token expires; HELLO with a new token keeps the connection open",
        required=False,
    ),
)
