"""The fields of `details` of an ERROR: a table to read, like ``core.reference.messages``. All of them may be missing."""

from __future__ import annotations

from typing import Final

from core.auth.tokens import EXPIRES, REASONS
from core.reference.rows import STRING, Field, both

#: Why a token is refused, that its time is nearly over, or why a message was not stored.
_ERROR_REASONS: Final = (*REASONS, EXPIRES, "mailbox_full")
#: Which part of a mailbox is full.
_SHARES: Final = ("mailbox", "sender", "strangers")

ERROR_DETAILS: Final = (
    Field("type", STRING, "the type of the message that is meant", required=False),
    Field("message_id", STRING, "its message id", required=False),
    Field("field", STRING, "the field that is wrong", required=False),
    Field(
        "expected",
        both(
            "string or list of strings",
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        ),
        "what should have come",
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
        "the limit that was exceeded",
        required=False,
    ),
    Field(
        "length",
        both("number", {"type": "integer", "minimum": 0}),
        "how long the text or the list is",
        required=False,
    ),
    Field("window", both("seconds", {"type": "number"}), "the time that a rate limit counts", required=False),
    Field(
        "retry_after",
        both("seconds", {"type": "number", "minimum": 0}),
        "after this the limit allows it",
        required=False,
    ),
    Field(
        "reason",
        both(
            "one of " + ", ".join(f"`{reason}`" for reason in _ERROR_REASONS), {"enum": list(_ERROR_REASONS)}
        ),
        "why a token is refused; `expires`: the token is valid and ends soon; `mailbox_full`: the message was not stored",
        required=False,
    ),
    Field(
        "share",
        both(" or ".join(f"`{share}`" for share in _SHARES), {"enum": list(_SHARES)}),
        "with `mailbox_full`: which part of the recipient's mailbox is full",
        required=False,
    ),
    Field(
        "expires_in",
        both("seconds", {"type": "integer", "minimum": 0}),
        "how long the token still holds; HELLO with a new one keeps the connection",
        required=False,
    ),
)
