"""What the fields of the protocol hold: the rows that the tables in ``core.reference.messages`` share."""

from __future__ import annotations

from typing import Final

from core.reference.rows import Field, FieldType, Schema, both
from core.wire.protocol import (
    CONTENT_MAX,
    LAST_CHARACTERS,
    NAME_MAX,
    NAME_MIN,
    PROVEN_NAME_MIN,
    Capability,
    Scope,
)

#: The end of a pattern: Python's `$` would let a line feed follow, ECMAScript's would not.
_END: Final = r"(?!\n)$"

# -- Types --

_HEX: Final = "[0-9a-f]{8}-[0-9a-f]{4}-%s[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_UUID4: Final = _HEX % "4"
_UUID4_ANY_CASE: Final = _UUID4.replace("a-f", "a-fA-F").replace("[89ab]", "[89abAB]")
#: A text that sanitising leaves as it is, so that its length counts: no `<`, no control characters; a name also without what is
#: trimmed or normalised.
_PLAIN_TEXT: Final = r"^[^<\u0000-\u0008\u000b-\u001f]*" + _END
_PLAIN_NAME: Final = r"^(?! )[ -;=-~]*(?<! )" + _END

BOOLEAN: Final = both("boolean", {"type": "boolean"})
COUNT: Final = both("integer", {"type": "integer", "minimum": 0})
USER_ID: Final = FieldType(
    "UUID v4",
    {"type": "string", "pattern": f"^{_UUID4_ANY_CASE}{_END}"},
    {"type": "string", "pattern": f"^{_UUID4}{_END}"},
)
CHAT_ID: Final = both("UUID v5", {"type": "string", "pattern": f"^{_HEX % '5'}{_END}"})
MESSAGE_ID: Final = both(
    "1-64 visible ASCII characters without `< > & \" '`",
    {"type": "string", "pattern": f"^[!#-%(-;=?-~]{{1,64}}{_END}"},
)
NAME: Final = FieldType(
    f"{NAME_MIN}-{NAME_MAX} characters",
    {
        "type": "string",
        "minLength": 1,
        "if": {"pattern": _PLAIN_NAME},
        "then": {"minLength": NAME_MIN, "maxLength": NAME_MAX},
    },
    {"type": "string", "minLength": PROVEN_NAME_MIN, "maxLength": NAME_MAX},
)
SHOWN_NAME: Final = NAME._replace(words=f"{PROVEN_NAME_MIN}-{NAME_MAX} characters")
CONTENT: Final = FieldType(
    f"1-{CONTENT_MAX} characters",
    {"type": "string", "minLength": 1, "if": {"pattern": _PLAIN_TEXT}, "then": {"maxLength": CONTENT_MAX}},
    # A space behind each `<` that has a character behind it.
    {"type": "string", "minLength": 1, "maxLength": CONTENT_MAX * 3 // 2},
)
TIMESTAMP: Final = both(
    "UTC, ISO 8601, milliseconds, `Z`",
    {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z" + _END},
)
CURSOR: Final = FieldType("opaque string", {"type": "string"}, {"type": "string", "minLength": 1})
HISTORY_CURSOR: Final = both(
    "string, a cursor of HISTORY",
    {"type": "string", "pattern": rf"^[0-9]{{1,15}}(\.[0-9]{{1,15}}){{1,2}}{_END}"},
)
CHATS_CURSOR: Final = both(
    "string, a cursor of CHATS",
    {"type": "string", "pattern": rf"^([0-9TZ:.-]{{24}})?/[A-Za-z0-9._|@:+=-]{{1,128}}{_END}"},
)
CAPABILITIES: Final = (
    Capability.BLOCK,
    Capability.CARBONS,
    Capability.CHATS,
    Capability.HISTORY,
    Capability.PRESENCE_DELTA,
    Capability.RECEIPTS,
    Capability.RESUME,
)


def one_of(*values: str) -> FieldType:
    return both(" or ".join(f"`{value}`" for value in values), {"enum": list(values)})


def object_of(*fields: Field) -> Schema:
    """Return the schema of an object as the server gives it."""
    return {
        "type": "object",
        "properties": {field.name: field.type.given for field in fields},
        "required": [field.name for field in fields if field.required],
    }


SCOPE: Final = one_of(Scope.EVERYONE, Scope.CONTACTS)

#: A MSG as its recipient gets it, in HISTORY too.
MSG_FIELDS: Final = (
    Field("from", USER_ID, "the sender; the server sets this field"),
    Field("to", USER_ID, "the recipient"),
    Field("content", CONTENT, "the stored text, without markup"),
    Field("message_id", MESSAGE_ID, "the id that the sender chose, or an id that the server made"),
    Field(
        "timestamp",
        TIMESTAMP,
        "when the server received the message, by the server's clock; timestamps give no order, because clocks can be set back",
    ),
)

TRUE: Final = both("`true`", {"const": True})
READ_FIELD: Final = Field(
    "read",
    TRUE,
    "the recipient has read the message",
    required=False,
)
LAST_FIELDS: Final = (
    Field("from", USER_ID, "the sender"),
    Field(
        "content",
        both("string", {"type": "string", "minLength": 1, "maxLength": LAST_CHARACTERS}),
        "the beginning of the text",
    ),
    Field("timestamp", TIMESTAMP, "when the server received the message"),
    Field("message_id", MESSAGE_ID, "the id of the message"),
)
CHAT_ENTRY: Final = (
    Field("user_id", USER_ID, "the other user"),
    Field("display_name", SHOWN_NAME, "the name of the other user"),
    Field("chat_id", CHAT_ID, "the id of the chat"),
    Field(
        "last",
        both("message or null", {"anyOf": [object_of(*LAST_FIELDS), {"type": "null"}]}),
        "the last message",
    ),
    Field("unread", COUNT, "messages that the user has not read"),
    Field("read", COUNT, "position up to which the user has read"),
    Field("online", BOOLEAN, "whether the other user is online"),
    Field("blocked", BOOLEAN, "whether the user has blocked the other user"),
    Field("muted", BOOLEAN, "whether the user has muted the chat"),
    Field("hidden", TRUE, "the user has hidden the chat; only with `delta`", required=False),
)

PRESENCE_ENTRY: Final = (
    Field("user_id", USER_ID, "the user"),
    Field("display_name", SHOWN_NAME, "the name in the last HELLO or the token of the user"),
    Field("online", BOOLEAN, "whether the user is online; false only with `delta`"),
)

#: What a MSG has besides for a client that resumes.
POSITION_FIELDS: Final = (
    Field(
        "seq",
        both("integer from 1", {"type": "integer", "minimum": 1}),
        "position of the message in the user's mailbox; absent in carbons",
        required=False,
        capability=Capability.RESUME,
    ),
    Field(
        "cursor",
        CURSOR,
        "the cursor for `resume` once the client has stored this message; absent in carbons",
        required=False,
        capability=Capability.RESUME,
    ),
    Field(
        "read",
        TRUE,
        "the user has read the message on another device, or before this connection",
        required=False,
        capability=Capability.RESUME,
    ),
)
