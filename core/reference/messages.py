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
    {"type": "string", "minLength": NAME_MIN, "maxLength": NAME_MAX},
)
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
_CURSOR: Final = FieldType("cursor", {"type": "string"}, {"type": "string", "minLength": 1})
_HISTORY_CURSOR: Final = both(
    "cursor of HISTORY", {"type": "string", "pattern": rf"^[0-9]{{1,15}}\.[0-9]{{1,15}}{_END}"}
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
    Field("from", _USER_ID, "the sender; the server stamps it"),
    Field("to", _USER_ID, "the recipient"),
    Field("content", _CONTENT, "the text as it was stored, without markup"),
    Field("message_id", _MESSAGE_ID, "the sender's, or the server's"),
    Field(
        "timestamp",
        _TIMESTAMP,
        "when the server took it, by its clock; it gives no order, since clocks are put back",
    ),
)

_PRESENCE_ENTRY: Final = (
    Field("user_id", _USER_ID, "who"),
    Field("display_name", _NAME, "the name of the last HELLO"),
    Field("online", _BOOLEAN, "false only in a delta"),
)

# -- Messages --

FROM_CLIENT: Final = (
    Message(
        MessageType.HELLO,
        "Who this is; the first message of a connection, within 10 s. Answered by HELLO_ACK and PRESENCE."
        " May be repeated, with a new name, a new token or other capabilities.",
        (
            Field("user_id", _USER_ID, "the user's own, kept for ever"),
            Field(
                "display_name", _NAME, "what others see; cleaned as described under *What becomes of texts*"
            ),
            Field(
                "capabilities",
                both("list of strings", {"type": "array", "items": {"type": "string"}}),
                "what the client can do besides; unknown ones are ignored",
                required=False,
            ),
            Field(
                "resume",
                both(
                    '`{"cursor": ...}`',
                    {"type": "object", "properties": {"cursor": {"type": "string"}}, "required": ["cursor"]},
                ),
                "go on behind this message",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "token",
                STRING,
                "where the server asks for proof: a JSON Web Token whose `sub` is the user id; again with a new one before it expires",
                required=False,
            ),
        ),
    ),
    Message(
        MessageType.OPEN_CHAT,
        "Open the chat with somebody; it is then open for both, for ever. Answered by CHAT_OPENED.",
        (
            Field("target_user_id", _USER_ID, "with whom"),
            Field(
                "target_display_name",
                _NAME,
                "required; CHAT_OPENED shows the name that the other person gave last",
            ),
        ),
    ),
    Message(
        MessageType.MSG,
        "A chat message, for one person. Answered by MSG_ACK, with the same `message_id` again and again if it is repeated.",
        (
            Field("to", _USER_ID, "the recipient, with whom a chat is open"),
            Field(
                "content",
                _CONTENT,
                "at least one visible character; markup is removed as described under *What becomes of texts*",
            ),
            Field(
                "message_id",
                _MESSAGE_ID,
                "for repeating it: stored once; else the server makes one",
                required=False,
            ),
        ),
    ),
    Message(
        MessageType.MSG_ACK,
        "A message has arrived. Until this is said, it is sent again after each HELLO of its recipient. No answer.",
        (
            Field("message_id", _MESSAGE_ID, "the message that has arrived"),
            Field(
                "from",
                _USER_ID,
                "its sender; without it, the oldest unacknowledged message of that id is meant",
                required=False,
            ),
        ),
    ),
    Message(
        MessageType.READ,
        "The user has read a message. No answer.",
        (
            Field("message_id", _MESSAGE_ID, "the message that was read"),
            Field("from", _USER_ID, "its sender"),
        ),
        capability=Capability.RECEIPTS,
    ),
    Message(
        MessageType.HISTORY,
        "What was written in a chat, newest first. Answered by HISTORY.",
        (
            Field("with", _USER_ID, "the other person"),
            Field("before", _HISTORY_CURSOR, "the `next` of the page before", required=False),
            Field(
                "limit",
                both(f"1-{HISTORY_MAX}", {"type": "integer", "minimum": 1, "maximum": HISTORY_MAX}),
                f"messages at most; {HISTORY_DEFAULT} if it is absent",
                required=False,
            ),
        ),
        capability=Capability.HISTORY,
    ),
    Message(
        MessageType.PRESENCE,
        "Which of these people are online. Answered at once by a PRESENCE with `delta` that has exactly those of them with whom"
        " a chat is open, online or not, in the order asked for; of others nothing is told.",
        (
            Field(
                "user_ids",
                FieldType(
                    f"list of at most {PRESENCE_ASKED_MAX} user ids",
                    {"type": "array", "items": _USER_ID.taken, "maxItems": PRESENCE_ASKED_MAX},
                    {"type": "array", "items": _USER_ID.given, "maxItems": PRESENCE_ASKED_MAX},
                ),
                "whom",
            ),
        ),
        capability=Capability.PRESENCE_DELTA,
    ),
    Message(
        MessageType.TYPING,
        "The user is typing, or has stopped. No answer. It expires after 15 s, with the next message and with the connection.",
        (
            Field("is_typing", _BOOLEAN, "false: the user has stopped"),
            Field("to", _USER_ID, "to whom; else the chat opened or written in last", required=False),
        ),
    ),
    Message(MessageType.PING, "Every 15 s. Answered by PONG, before HELLO too."),
)

FROM_SERVER: Final = (
    Message(
        MessageType.HELLO_ACK,
        "HELLO was accepted.",
        (
            Field("user_id", _USER_ID, "as the server writes it"),
            Field("status", _one_of("connected"), ""),
            Field(
                "capabilities",
                both(
                    "list of strings",
                    {"type": "array", "items": {"enum": list(_CAPABILITIES)}, "uniqueItems": True},
                ),
                "those in force, if HELLO asked for any",
                required=False,
            ),
            Field(
                "cursor",
                _CURSOR,
                "the position before the first message that comes",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "resumed",
                _one_of(Resumed.FULL, Resumed.PARTIAL, Resumed.RESET),
                "everything behind the cursor of HELLO follows; what the retention left of it; or all that is unacknowledged",
                required=False,
                capability=Capability.RESUME,
            ),
            Field("scope", _SCOPE, "as in PRESENCE", required=False, capability=Capability.PRESENCE_DELTA),
        ),
        schema={"dependentRequired": {"cursor": ["resumed"], "resumed": ["cursor"]}},
    ),
    Message(
        MessageType.PRESENCE,
        "Who is online, oneself included; after HELLO and on change, at most once a second; and as the answer to PRESENCE.",
        (
            Field(
                "users",
                both(
                    "list of `{user_id, display_name, online}`",
                    {"type": "array", "items": _object(*_PRESENCE_ENTRY)},
                ),
                "everybody in scope who is online; in a delta whoever came or went, or was asked for",
            ),
            Field(
                "delta",
                both("`true`", {"const": True}),
                "not all: only what has changed, or was asked for",
                required=False,
                capability=Capability.PRESENCE_DELTA,
            ),
            Field(
                "scope",
                _SCOPE,
                "who is listed: everybody, or the people with whom the user has a chat;"
                " when that changes, a PRESENCE without `delta` says so",
                required=False,
                capability=Capability.PRESENCE_DELTA,
            ),
        ),
    ),
    Message(
        MessageType.CHAT_OPENED,
        "A chat is open. It comes to all devices of both when it is new, else to the one that asked. Until a device has shown that it has"
        " read so far (by answering the WebSocket ping behind it, by MSG_ACK of a message behind it, or by doing something in that chat),"
        " it comes again after each HELLO, before the messages: repeats are possible.",
        (
            Field("chat_id", _CHAT_ID, "the same for both, and always"),
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
                "",
            ),
            Field("target_user_id", _USER_ID, "the other person"),
            Field("target_display_name", _NAME, "the name that the other person gave last"),
        ),
    ),
    Message(
        MessageType.MSG,
        "A message for this user, or (`carbons`) one that another device of this user has sent. Answer with MSG_ACK.",
        (
            *_MSG_FIELDS,
            Field(
                "seq",
                both("1, 2, 3 ...", {"type": "integer", "minimum": 1}),
                "position in the user's mailbox; not in carbons",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "cursor",
                _CURSOR,
                "for `resume`, once this message is safe",
                required=False,
                capability=Capability.RESUME,
            ),
        ),
        schema={"dependentRequired": {"cursor": ["seq"], "seq": ["cursor"]}},
    ),
    Message(
        MessageType.MSG_ACK,
        "What became of a MSG. One for each, `delivered` or `stored`; with `receipts` one for each step.",
        (
            Field("message_id", _MESSAGE_ID, "the message that is answered"),
            Field(
                "status",
                _one_of(AckStatus.STORED, AckStatus.ACCEPTED, AckStatus.DELIVERED, AckStatus.READ),
                "on disk, waiting for the recipient; on disk; at a device of the recipient; read",
            ),
            Field("to", _USER_ID, "its recipient", required=False, capability=Capability.RECEIPTS),
            Field(
                "content",
                _CONTENT,
                "what was stored, if that is not the text that was sent; in the first answer to a MSG and in that to a repeat",
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
        "A page of a chat, at most 64 KiB.",
        (
            Field("with", _USER_ID, "the other person"),
            Field(
                "messages",
                both(
                    "list of `data` of MSG",
                    {"type": "array", "items": _object(*_MSG_FIELDS), "maxItems": HISTORY_MAX},
                ),
                "newest first, both directions, in the order in which they were written, whatever their timestamps say",
            ),
            Field(
                "next",
                both("cursor of HISTORY or null", {"anyOf": [_HISTORY_CURSOR.given, {"type": "null"}]}),
                "the `before` of the following page; null: there is none",
            ),
        ),
        capability=Capability.HISTORY,
    ),
    Message(
        MessageType.TYPING,
        "Somebody is typing to this user, or has stopped.",
        (
            Field("user_id", _USER_ID, "who is typing"),
            Field("is_typing", _BOOLEAN, "false: the user has stopped"),
        ),
    ),
    Message(MessageType.PONG, "The answer to PING.", (Field("timestamp", _TIMESTAMP, "the server's time"),)),
    Message(
        MessageType.ERROR,
        "Something can't be done. The connection stays.",
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
            Field("message", STRING, "a sentence for developers"),
            Field(
                "details",
                both("object", _object(*ERROR_DETAILS)),
                "what is wrong, in fields for programs: any of "
                + ", ".join(f"`{field.name}`" for field in ERROR_DETAILS),
            ),
        ),
    ),
)
