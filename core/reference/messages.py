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
from core.reference.field_types import (
    BOOLEAN,
    CAPABILITIES,
    CHAT_ENTRY,
    CHAT_ID,
    CHATS_CURSOR,
    CONTENT,
    CURSOR,
    HISTORY_CURSOR,
    LAST_FIELDS,
    MESSAGE_ID,
    MSG_FIELDS,
    NAME,
    POSITION_FIELDS,
    PRESENCE_ENTRY,
    READ_FIELD,
    SCOPE,
    SHOWN_NAME,
    TIMESTAMP,
    TRUE,
    USER_ID,
    object_of,
    one_of,
)
from core.reference.rows import STRING, Field, FieldType, Message, both
from core.wire.protocol import (
    CHATS_DEFAULT,
    CHATS_MAX,
    HISTORY_DEFAULT,
    HISTORY_MAX,
    LAST_CHARACTERS,
    PRESENCE_ASKED_MAX,
    AckStatus,
    Capability,
    ErrorCode,
    MessageType,
    Resumed,
)

FROM_CLIENT: Final = (
    Message(
        MessageType.HELLO,
        "HELLO says which user the client belongs to. HELLO is the first message of a connection and must arrive within 10 s. The"
        " server answers with HELLO_ACK and PRESENCE. A client may send HELLO again with a new name, a new token or other capabilities.",
        (
            Field("user_id", USER_ID, "the id of the user; the client keeps it for ever"),
            Field(
                "display_name",
                NAME,
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
            Field("target_user_id", USER_ID, "the other user"),
            Field(
                "target_display_name",
                NAME,
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
                "to", USER_ID, "the recipient; a chat with the recipient must be open (backends need none)"
            ),
            Field(
                "content",
                CONTENT,
                "a text with at least one visible character; the server removes markup as *What becomes of texts* describes",
            ),
            Field(
                "message_id",
                MESSAGE_ID,
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
            Field("message_id", MESSAGE_ID, "the message that has arrived"),
            Field(
                "from",
                USER_ID,
                "the sender of that message; if absent, MSG_ACK means the oldest unacknowledged message with this `message_id`",
                required=False,
            ),
        ),
    ),
    Message(
        MessageType.READ,
        "READ says that the user has read a message and all earlier messages of this sender. READ also acknowledges these messages, and"
        " holds for all devices of the user. A message that the user has read stays read. The server does not answer READ.",
        (
            Field("message_id", MESSAGE_ID, "the last message that the user has read"),
            Field("from", USER_ID, "the sender of that message"),
        ),
        capabilities=(Capability.RECEIPTS, Capability.CHATS),
    ),
    Message(
        MessageType.HISTORY,
        "HISTORY asks for the messages of a chat, newest first. The server answers with HISTORY.",
        (
            Field("with", USER_ID, "the other user"),
            Field(
                "before",
                HISTORY_CURSOR,
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
        capabilities=(Capability.HISTORY,),
    ),
    Message(
        MessageType.CHATS,
        "CHATS asks for the chats of the user, the chat with the newest message first. The server answers with CHATS.",
        (
            Field(
                "before",
                CHATS_CURSOR,
                "`next` of the previous page; if absent, the first page",
                required=False,
            ),
            Field(
                "limit",
                both(f"1-{CHATS_MAX}", {"type": "integer", "minimum": 1, "maximum": CHATS_MAX}),
                f"maximum number of chats in the page; if absent, {CHATS_DEFAULT}",
                required=False,
            ),
        ),
        capabilities=(Capability.CHATS,),
    ),
    Message(
        MessageType.HIDE,
        "HIDE removes a chat from the list until the next message in the chat. The devices of the user receive CHATS with `delta`.",
        (Field("user_id", USER_ID, "the other user; a chat must be open"),),
        capabilities=(Capability.CHATS,),
    ),
    *(
        Message(
            kind,
            f"{kind} {what} a chat. The server only remembers this, and tells the devices of the user with CHATS with `delta`.",
            (Field("user_id", USER_ID, "the other user; a chat must be open"),),
            capabilities=(Capability.CHATS,),
        )
        for kind, what in ((MessageType.MUTE, "mutes"), (MessageType.UNMUTE, "no longer mutes"))
    ),
    Message(
        MessageType.BLOCK,
        "BLOCK blocks another user, on all devices and until UNBLOCK. For the blocked user, the user seems to be offline: the server"
        " accepts the messages of the blocked user, and the user never gets them, also not after UNBLOCK. Between the two, no TYPING,"
        " no presence and no receipts pass. The server refuses MSG and OPEN_CHAT of the user to the blocked user with"
        " `CHAT_NOT_OPENED` and `details.blocked`. The devices of the user with `chats` receive CHATS with `delta`.",
        (Field("user_id", USER_ID, "the user to block; a chat is not needed"),),
        capabilities=(Capability.BLOCK,),
    ),
    Message(
        MessageType.UNBLOCK,
        "UNBLOCK ends BLOCK. The devices of the user with `chats` receive CHATS with `delta`.",
        (Field("user_id", USER_ID, "the user whom the user has blocked"),),
        capabilities=(Capability.BLOCK,),
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
                    {"type": "array", "items": USER_ID.taken, "maxItems": PRESENCE_ASKED_MAX},
                    {"type": "array", "items": USER_ID.given, "maxItems": PRESENCE_ASKED_MAX},
                ),
                "the users that the client asks about",
            ),
        ),
        capabilities=(Capability.PRESENCE_DELTA,),
    ),
    Message(
        MessageType.TYPING,
        "TYPING says that the user is typing, or has stopped. The server does not answer TYPING. The indicator expires after 15 s, with"
        " the next message of the user to the recipient, and with the connection.",
        (
            Field("is_typing", BOOLEAN, "true: the user is typing; false: the user has stopped"),
            Field(
                "to",
                USER_ID,
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
            Field("user_id", USER_ID, "the user id in the form that the server uses"),
            Field("status", one_of("connected"), "always this value"),
            Field(
                "capabilities",
                both(
                    "list of strings",
                    {"type": "array", "items": {"enum": list(CAPABILITIES)}, "uniqueItems": True},
                ),
                "the capabilities in force; absent if HELLO had no `capabilities`",
                required=False,
            ),
            Field(
                "cursor",
                CURSOR,
                "the position before the first message that follows",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "resumed",
                one_of(Resumed.FULL, Resumed.PARTIAL, Resumed.RESET),
                "`full`: all messages after the cursor of HELLO follow; `partial`: those that the retention has not deleted; `reset`: all"
                " unacknowledged messages",
                required=False,
                capability=Capability.RESUME,
            ),
            Field(
                "scope",
                SCOPE,
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
                    {"type": "array", "items": object_of(*PRESENCE_ENTRY)},
                ),
                "all users in scope who are online; with `delta` the users who have changed, or those that the client asked about",
            ),
            Field(
                "delta",
                TRUE,
                "`users` is not the full list, but only the users who have changed, or those that the client asked about",
                required=False,
                capability=Capability.PRESENCE_DELTA,
            ),
            Field(
                "scope",
                SCOPE,
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
            Field("chat_id", CHAT_ID, "the same for both users, and never changes"),
            Field(
                "participants",
                both(
                    "list of two user ids",
                    {
                        "type": "array",
                        "items": USER_ID.given,
                        "minItems": 2,
                        "maxItems": 2,
                        "uniqueItems": True,
                    },
                ),
                "the two users of the chat",
            ),
            Field("target_user_id", USER_ID, "the other user"),
            Field("target_display_name", SHOWN_NAME, "the other user's name, as in PRESENCE"),
        ),
    ),
    Message(
        MessageType.MSG,
        "MSG is a message for this user, which the client answers with MSG_ACK; or, with `carbons`, a message that another device of"
        " this user has sent.",
        (
            *MSG_FIELDS,
            *POSITION_FIELDS,
        ),
        schema={"dependentRequired": {"cursor": ["seq"], "seq": ["cursor"]}},
    ),
    Message(
        MessageType.MSG_ACK,
        "MSG_ACK says what became of a MSG. Without the capability `receipts`, the sender of a MSG receives one MSG_ACK, with the"
        " status `delivered` or `stored`. With `receipts`, the sender receives one MSG_ACK for each step: `accepted`, `delivered`, `read`.",
        (
            Field("message_id", MESSAGE_ID, "the MSG that the server answers"),
            Field(
                "status",
                one_of(AckStatus.STORED, AckStatus.ACCEPTED, AckStatus.DELIVERED, AckStatus.READ),
                "`stored`: the message is on disk and waits for the recipient; `accepted`: the message is on disk; `delivered`: the"
                " message is on disk, and a device of the recipient has acknowledged it (without `receipts`: the server has written it"
                " to a connection of the recipient); `read`: the recipient has read the message",
            ),
            Field("to", USER_ID, "the recipient of the MSG", required=False, capability=Capability.RECEIPTS),
            Field(
                "content",
                CONTENT,
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
            Field("with", USER_ID, "the other user"),
            Field(
                "messages",
                both(
                    "list of `data` of MSG",
                    {"type": "array", "items": object_of(*MSG_FIELDS, READ_FIELD), "maxItems": HISTORY_MAX},
                ),
                "the messages of both users, newest first; the order is the order of writing, independent of the timestamps; with"
                " `read: true` if the recipient has read the message",
            ),
            Field(
                "next",
                both(
                    "string, a cursor of HISTORY, or null",
                    {"anyOf": [HISTORY_CURSOR.given, {"type": "null"}]},
                ),
                "the value of `before` for the following page; null: this is the last page",
            ),
        ),
        capabilities=(Capability.HISTORY,),
    ),
    Message(
        MessageType.CHATS,
        "CHATS is one page of the chats of the user, of at most 64 KiB, as the answer to CHATS; or, with `delta`, the chats that have"
        " changed. The server sends a change to the other devices of the user, at most once a second for each chat. A change by HIDE,"
        " MUTE, BLOCK and their opposites also goes to the device that asked for it, when the change is on disk. Users whom the user has"
        " blocked are in the list even without a chat.",
        (
            Field(
                "chats",
                both(
                    "list of `{" + ", ".join(field.name for field in CHAT_ENTRY) + "}`",
                    {"type": "array", "items": object_of(*CHAT_ENTRY), "maxItems": CHATS_MAX},
                ),
                "the chats; `last` is `{"
                + ", ".join(field.name for field in LAST_FIELDS)
                + "}` with the first"
                f" {LAST_CHARACTERS} characters of the text, or null",
            ),
            Field(
                "delta",
                TRUE,
                "`chats` is not a page, but only the chats that have changed; there is no `next`",
                required=False,
            ),
            Field(
                "next",
                both("string, a cursor of CHATS, or null", {"anyOf": [CHATS_CURSOR.given, {"type": "null"}]}),
                "the value of `before` for the following page; null: this is the last page",
                required=False,
            ),
        ),
        capabilities=(Capability.CHATS,),
    ),
    Message(
        MessageType.TYPING,
        "TYPING says that another user is typing to this user, or has stopped.",
        (
            Field("user_id", USER_ID, "the other user"),
            Field("is_typing", BOOLEAN, "true: the other user is typing; false: the other user has stopped"),
        ),
    ),
    Message(
        MessageType.PONG,
        "PONG is the answer to PING.",
        (Field("timestamp", TIMESTAMP, "the time of the server's clock"),),
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
                both("object", object_of(*ERROR_DETAILS)),
                "the cause of the error, for programs; any of the fields "
                + ", ".join(f"`{field.name}`" for field in ERROR_DETAILS),
            ),
        ),
    ),
)
