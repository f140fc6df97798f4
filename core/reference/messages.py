"""Every message of the protocol with every field, in both directions: tables to read. ``core.reference.codes`` has the codes and limits.

The server does not use them; ``scripts/protocol_reference.py`` makes docs/protocol.md and docs/protocol.schema.json of them, and the
tests hold them against what the server does. Who changes what is on the wire changes a row here.

A type has two JSON Schemas, since the server takes more than it gives: a user id comes in any case and goes out in lower case, a
text may come with markup and goes out without. What a schema can't say (who is known, what was said before, how long a text is
without its markup) is in words only.
"""

from __future__ import annotations

from typing import Final

from core.reference.error_details import ERROR_DETAILS
from core.reference.rows import STRING, Field, FieldType, Message, Schema, both
from core.wire.protocol import (
    CONTENT_MAX,
    HISTORY_DEFAULT,
    HISTORY_MAX,
    NAME_MAX,
    NAME_MIN,
    PRESENCE_ASKED_MAX,
    PROVEN_NAME_MIN,
    AckStatus,
    Capability,
    ErrorCode,
    MessageType,
    Resumed,
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

_BOOLEAN: Final = both("boolean", {"type": "boolean"})
_USER_ID: Final = FieldType(
    "UUID v4",
    {"type": "string", "pattern": f"^{_UUID4_ANY_CASE}{_END}"},
    {"type": "string", "pattern": f"^{_UUID4}{_END}"},
)
_CHAT_ID: Final = both("UUID v5", {"type": "string", "pattern": f"^{_HEX % '5'}{_END}"})
_MESSAGE_ID: Final = both(
    "1-64 visible ASCII characters without `< > & \" '`",
    {"type": "string", "pattern": f"^[!#-%(-;=?-~]{{1,64}}{_END}"},
)
_NAME: Final = FieldType(
    f"{NAME_MIN}-{NAME_MAX} characters",
    {
        "type": "string",
        "minLength": 1,
        "if": {"pattern": _PLAIN_NAME},
        "then": {"minLength": NAME_MIN, "maxLength": NAME_MAX},
    },
    {"type": "string", "minLength": PROVEN_NAME_MIN, "maxLength": NAME_MAX},
)
_SHOWN_NAME: Final = _NAME._replace(words=f"{PROVEN_NAME_MIN}-{NAME_MAX} characters")
_CONTENT: Final = FieldType(
    f"1-{CONTENT_MAX} characters",
    {"type": "string", "minLength": 1, "if": {"pattern": _PLAIN_TEXT}, "then": {"maxLength": CONTENT_MAX}},
    # A space behind each `<` that has a character behind it.
    {"type": "string", "minLength": 1, "maxLength": CONTENT_MAX * 3 // 2},
)
_TIMESTAMP: Final = both(
    "UTC, ISO 8601, milliseconds, `Z`",
    {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z" + _END},
)
_CURSOR: Final = FieldType("opaque string", {"type": "string"}, {"type": "string", "minLength": 1})
_HISTORY_CURSOR: Final = both(
    "string, a cursor of HISTORY", {"type": "string", "pattern": rf"^[0-9]{{1,15}}\.[0-9]{{1,15}}{_END}"}
)
_CAPABILITIES: Final = (
    Capability.CARBONS,
    Capability.HISTORY,
    Capability.PRESENCE_DELTA,
    Capability.RECEIPTS,
    Capability.RESUME,
)


def _one_of(*values: str) -> FieldType:
    return both(" or ".join(f"`{value}`" for value in values), {"enum": list(values)})


def _object(*fields: Field) -> Schema:
    """Return the schema of an object as the server gives it."""
    return {
        "type": "object",
        "properties": {field.name: field.type.given for field in fields},
        "required": [field.name for field in fields if field.required],
    }


_SCOPE: Final = _one_of(Scope.EVERYONE, Scope.CONTACTS)

#: A MSG as its recipient gets it, in HISTORY too.
_MSG_FIELDS: Final = (
    Field("from", _USER_ID, "the sender; the server sets this field"),
    Field("to", _USER_ID, "the recipient"),
    Field("content", _CONTENT, "the stored text, without markup"),
    Field("message_id", _MESSAGE_ID, "the id that the sender chose, or an id that the server made"),
    Field(
        "timestamp",
        _TIMESTAMP,
        "when the server received the message, by the server's clock; timestamps give no order, because clocks can be set back",
    ),
)

_PRESENCE_ENTRY: Final = (
    Field("user_id", _USER_ID, "the user"),
    Field("display_name", _SHOWN_NAME, "the name in the last HELLO or the token of the user"),
    Field("online", _BOOLEAN, "whether the user is online; false only with `delta`"),
)

# -- Messages --

FROM_CLIENT: Final = (
    Message(
        MessageType.HELLO,
        "HELLO says which user the client belongs to. HELLO is the first message of a connection and must arrive within 10 s. The"
        " server answers with HELLO_ACK and PRESENCE. A client may send HELLO again with a new name, a new token or other capabilities.",
        (
            Field("user_id", _USER_ID, "the id of the user; the client keeps it for ever"),
            Field(
                "display_name",
                _NAME,
                "the name that others see, unless the token has one; the server cleans it as *What becomes of texts* describes",
            ),
            Field(
                "capabilities",
                both("list of strings", {"type": "array", "items": {"type": "string"}}),
                "the capabilities that the client asks for; the server ignores unknown capabilities",
                required=False,
            ),
            Field(
                "resume",
                both(
                    '`{"cursor": ...}`',
                    {"type": "object", "properties": {"cursor": {"type": "string"}}, "required": ["cursor"]},
                ),
                "the server continues after the message of this cursor",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "token",
                STRING,
                "required if the server requires tokens: a JSON Web Token whose `sub` is the user id; its `name`, if there, is the name"
                " that others see; before the token expires, the client sends HELLO with a new token",
                required=False,
            ),
        ),
    ),
    Message(
        MessageType.OPEN_CHAT,
        "OPEN_CHAT opens a chat with another user. The chat is then open for both users, for ever. The server answers with CHAT_OPENED.",
        (
            Field("target_user_id", _USER_ID, "the other user"),
            Field(
                "target_display_name",
                _NAME,
                "required, but without effect: CHAT_OPENED shows the other user's own name; 1-50 characters if the server requires tokens",
            ),
        ),
    ),
    Message(
        MessageType.MSG,
        "MSG sends a chat message to one user. The server answers with MSG_ACK. If the client sends the message again with the same"
        " `message_id`, the server answers again.",
        (
            Field(
                "to", _USER_ID, "the recipient; a chat with the recipient must be open (backends need none)"
            ),
            Field(
                "content",
                _CONTENT,
                "a text with at least one visible character; the server removes markup as *What becomes of texts* describes",
            ),
            Field(
                "message_id",
                _MESSAGE_ID,
                "an id with which the client can send the message again: the server stores the message once; if absent, the server"
                " makes an id",
                required=False,
            ),
        ),
    ),
    Message(
        MessageType.MSG_ACK,
        "MSG_ACK says that a message has arrived. Until then, the server sends the message again after each HELLO of the recipient. The"
        " server does not answer MSG_ACK.",
        (
            Field("message_id", _MESSAGE_ID, "the message that has arrived"),
            Field(
                "from",
                _USER_ID,
                "the sender of that message; if absent, MSG_ACK means the oldest unacknowledged message with this `message_id`",
                required=False,
            ),
        ),
    ),
    Message(
        MessageType.READ,
        "READ says that the user has read a message. The server does not answer READ.",
        (
            Field("message_id", _MESSAGE_ID, "the message that the user has read"),
            Field("from", _USER_ID, "the sender of that message"),
        ),
        capability=Capability.RECEIPTS,
    ),
    Message(
        MessageType.HISTORY,
        "HISTORY asks for the messages of a chat, newest first. The server answers with HISTORY.",
        (
            Field("with", _USER_ID, "the other user"),
            Field(
                "before",
                _HISTORY_CURSOR,
                "`next` of the previous page; if absent, the newest page",
                required=False,
            ),
            Field(
                "limit",
                both(f"1-{HISTORY_MAX}", {"type": "integer", "minimum": 1, "maximum": HISTORY_MAX}),
                f"maximum number of messages in the page; if absent, {HISTORY_DEFAULT}",
                required=False,
            ),
        ),
        capability=Capability.HISTORY,
    ),
    Message(
        MessageType.PRESENCE,
        "PRESENCE asks which of these users are online. The server answers at once with a PRESENCE with `delta`. The answer lists"
        " exactly the users with whom a chat is open, online or offline, in the order of the request. The answer says nothing about"
        " other users.",
        (
            Field(
                "user_ids",
                FieldType(
                    f"list of at most {PRESENCE_ASKED_MAX} user ids",
                    {"type": "array", "items": _USER_ID.taken, "maxItems": PRESENCE_ASKED_MAX},
                    {"type": "array", "items": _USER_ID.given, "maxItems": PRESENCE_ASKED_MAX},
                ),
                "the users that the client asks about",
            ),
        ),
        capability=Capability.PRESENCE_DELTA,
    ),
    Message(
        MessageType.TYPING,
        "TYPING says that the user is typing, or has stopped. The server does not answer TYPING. The indicator expires after 15 s, with"
        " the next message of the user to the recipient, and with the connection.",
        (
            Field("is_typing", _BOOLEAN, "true: the user is typing; false: the user has stopped"),
            Field(
                "to",
                _USER_ID,
                "the recipient; if absent, the other user of the chat that this connection opened or wrote in last, otherwise of the last"
                " MSG or CHAT_OPENED received, otherwise of the newest chat",
                required=False,
            ),
        ),
    ),
    Message(
        MessageType.PING,
        "The client sends PING every 15 s. The server answers with PONG, also before HELLO.",
    ),
)

FROM_SERVER: Final = (
    Message(
        MessageType.HELLO_ACK,
        "HELLO_ACK says that the server has accepted HELLO.",
        (
            Field("user_id", _USER_ID, "the user id in the form that the server uses"),
            Field("status", _one_of("connected"), "always this value"),
            Field(
                "capabilities",
                both(
                    "list of strings",
                    {"type": "array", "items": {"enum": list(_CAPABILITIES)}, "uniqueItems": True},
                ),
                "the capabilities in force; absent if HELLO had no `capabilities`",
                required=False,
            ),
            Field(
                "cursor",
                _CURSOR,
                "the position before the first message that follows",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "resumed",
                _one_of(Resumed.FULL, Resumed.PARTIAL, Resumed.RESET),
                "`full`: all messages after the cursor of HELLO follow; `partial`: those that the retention has not deleted; `reset`: all"
                " unacknowledged messages",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "scope",
                _SCOPE,
                "the same as in PRESENCE",
                required=False,
                capability=Capability.PRESENCE_DELTA,
            ),
        ),
        schema={"dependentRequired": {"cursor": ["resumed"], "resumed": ["cursor"]}},
    ),
    Message(
        MessageType.PRESENCE,
        "PRESENCE says who is online, the user included. The server sends PRESENCE after HELLO and after changes, at most once a"
        " second, and as the answer to PRESENCE.",
        (
            Field(
                "users",
                both(
                    "list of `{user_id, display_name, online}`",
                    {"type": "array", "items": _object(*_PRESENCE_ENTRY)},
                ),
                "all users in scope who are online; with `delta` the users who have changed, or those that the client asked about",
            ),
            Field(
                "delta",
                both("`true`", {"const": True}),
                "`users` is not the full list, but only the users who have changed, or those that the client asked about",
                required=False,
                capability=Capability.PRESENCE_DELTA,
            ),
            Field(
                "scope",
                _SCOPE,
                "who is listed: all users (`everyone`), or the users with whom the user has a chat (`contacts`);"
                " when the scope changes, the server sends a PRESENCE without `delta`",
                required=False,
                capability=Capability.PRESENCE_DELTA,
            ),
        ),
    ),
    Message(
        MessageType.CHAT_OPENED,
        "CHAT_OPENED says that a chat is open. If the chat is new, the server sends CHAT_OPENED to all devices of both users, otherwise"
        " only to the device that asked. The server sends CHAT_OPENED again after each HELLO, before the messages, until a device of"
        " the user has shown that CHAT_OPENED has arrived: by a pong to a WebSocket ping that follows CHAT_OPENED, by MSG_ACK of a"
        " message that follows CHAT_OPENED, or by a request in that chat. A client must therefore accept duplicates.",
        (
            Field("chat_id", _CHAT_ID, "the same for both users, and never changes"),
            Field(
                "participants",
                both(
                    "list of two user ids",
                    {
                        "type": "array",
                        "items": _USER_ID.given,
                        "minItems": 2,
                        "maxItems": 2,
                        "uniqueItems": True,
                    },
                ),
                "the two users of the chat",
            ),
            Field("target_user_id", _USER_ID, "the other user"),
            Field("target_display_name", _SHOWN_NAME, "the other user's name, as in PRESENCE"),
        ),
    ),
    Message(
        MessageType.MSG,
        "MSG is a message for this user, which the client answers with MSG_ACK; or, with `carbons`, a message that another device of"
        " this user has sent.",
        (
            *_MSG_FIELDS,
            Field(
                "seq",
                both("integer from 1", {"type": "integer", "minimum": 1}),
                "position of the message in the user's mailbox; absent in carbons",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "cursor",
                _CURSOR,
                "the cursor for `resume` once the client has stored this message; absent in carbons",
                required=False,
                capability=Capability.RESUME,
            ),
        ),
        schema={"dependentRequired": {"cursor": ["seq"], "seq": ["cursor"]}},
    ),
    Message(
        MessageType.MSG_ACK,
        "MSG_ACK says what became of a MSG. Without the capability `receipts`, the sender of a MSG receives one MSG_ACK, with the"
        " status `delivered` or `stored`. With `receipts`, the sender receives one MSG_ACK for each step: `accepted`, `delivered`, `read`.",
        (
            Field("message_id", _MESSAGE_ID, "the MSG that the server answers"),
            Field(
                "status",
                _one_of(AckStatus.STORED, AckStatus.ACCEPTED, AckStatus.DELIVERED, AckStatus.READ),
                "`stored`: the message is on disk and waits for the recipient; `accepted`: the message is on disk; `delivered`: the"
                " message is on disk, and a device of the recipient has acknowledged it (without `receipts`: the server has written it"
                " to a connection of the recipient); `read`: the recipient has read the message",
            ),
            Field("to", _USER_ID, "the recipient of the MSG", required=False, capability=Capability.RECEIPTS),
            Field(
                "content",
                _CONTENT,
                "the stored text, if it differs from the sent text; only in the first answer to a MSG, and in the answer to a duplicate"
                " MSG",
                required=False,
                capability=Capability.RECEIPTS,
            ),
        ),
        schema={
            "dependentRequired": {"content": ["to"]},
            "if": {"required": ["to"]},
            "then": {
                "properties": {"status": {"enum": [AckStatus.ACCEPTED, AckStatus.DELIVERED, AckStatus.READ]}}
            },
            "else": {"properties": {"status": {"enum": [AckStatus.STORED, AckStatus.DELIVERED]}}},
        },
    ),
    Message(
        MessageType.HISTORY,
        "HISTORY is one page of a chat, of at most 64 KiB.",
        (
            Field("with", _USER_ID, "the other user"),
            Field(
                "messages",
                both(
                    "list of `data` of MSG",
                    {"type": "array", "items": _object(*_MSG_FIELDS), "maxItems": HISTORY_MAX},
                ),
                "the messages of both users, newest first; the order is the order of writing, independent of the timestamps",
            ),
            Field(
                "next",
                both(
                    "string, a cursor of HISTORY, or null",
                    {"anyOf": [_HISTORY_CURSOR.given, {"type": "null"}]},
                ),
                "the value of `before` for the following page; null: this is the last page",
            ),
        ),
        capability=Capability.HISTORY,
    ),
    Message(
        MessageType.TYPING,
        "TYPING says that another user is typing to this user, or has stopped.",
        (
            Field("user_id", _USER_ID, "the other user"),
            Field("is_typing", _BOOLEAN, "true: the other user is typing; false: the other user has stopped"),
        ),
    ),
    Message(
        MessageType.PONG,
        "PONG is the answer to PING.",
        (Field("timestamp", _TIMESTAMP, "the time of the server's clock"),),
    ),
    Message(
        MessageType.ERROR,
        "ERROR says that the server refuses or can't confirm a message, or that the token of the connection expires soon. The"
        " connection stays open.",
        (
            Field(
                "code",
                both(
                    "error code",
                    {
                        "enum": [
                            ErrorCode.VALIDATION,
                            ErrorCode.MESSAGE_FAILED,
                            ErrorCode.USER_NOT_FOUND,
                            ErrorCode.CHAT_NOT_OPENED,
                            ErrorCode.RATE_LIMITED,
                            ErrorCode.UNAUTHORIZED,
                        ]
                    },
                ),
                "one of the [error codes](#error-codes)",
            ),
            Field("message", STRING, "a sentence for developers; the wording may change"),
            Field(
                "details",
                both("object", _object(*ERROR_DETAILS)),
                "the cause of the error, for programs; any of the fields "
                + ", ".join(f"`{field.name}`" for field in ERROR_DETAILS),
            ),
        ),
    ),
)
