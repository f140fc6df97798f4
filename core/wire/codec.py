"""Bytes <-> messages. The only user of orjson, and the only place that knows how a message of ours looks on the wire.

`decode` takes the text of one message apart. Everything else builds finished WebSocket text frames, header included: a frame is
made once and the same bytes are written to every connection that gets it, in this process or, through the bus, in another.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from core.wire.frames import FrameError, text_frame
from core.wire.protocol import CloseCode, ErrorCode, MessageType, Refusal

to_json = orjson.dumps
from_json = orjson.loads

#: ``,"timestamp":"2024-01-01T12:00:00.000Z"}}``: the end of every MSG frame has this many bytes (D19).
_MSG_TAIL: Final = len(b',"timestamp":"2024-01-01T12:00:00.000Z"}}')
#: Where the timestamp is in such a frame, for where a call of `msg_timestamp` would be 0.4 % of a message.
TIMESTAMP_END: Final = -len(b'"}}')
TIMESTAMP_START: Final = TIMESTAMP_END - 24
#: What stands before the content, without the two user ids, and between the content and that, without the message id.
_MSG_HEAD: Final = len(b'{"type":"MSG","data":{"from":"","to":"","content":')
_MSG_ID: Final = len(b',"message_id":""')
#: What stands before the `data` of a MSG.
_MSG_DATA: Final = len(b'{"type":"MSG","data":')
_READ: Final = b',"read":true'


def decode(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Decode the `type` and `data` of a client's message.

    Raises FrameError(1007) when it is not UTF-8, and Refusal(VALIDATION) when it is not JSON, not an object, or without a `type` that
    is a string and a `data` that is an object (D25).
    """
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise FrameError(CloseCode.INVALID_UTF8, "a text message must be UTF-8") from None
        came = f"it is no JSON at character {error.pos + 1}" if payload else "it is empty"
        raise Refusal(
            ErrorCode.VALIDATION, f"the message must be a JSON object; {came}", expected="JSON object"
        ) from None
    if type(message) is not dict:
        raise Refusal(
            ErrorCode.VALIDATION,
            f"the message must be a JSON object, not {json_type(message)}",
            expected="JSON object",
        )
    kind = message.get("type")
    if type(kind) is not str:
        raise Refusal(
            ErrorCode.VALIDATION,
            f"`type` must be a string, not {json_type(kind)}",
            field="type",
            expected="string",
        )
    data = message.get("data")
    if type(data) is not dict:
        raise Refusal(
            ErrorCode.VALIDATION,
            f"`data` must be an object, not {json_type(data)}",
            field="data",
            expected="object",
            type=kind[:64],
        )
    return kind, data


def json_type(value: Any) -> str:
    """Return what JSON calls the type of a decoded value; an absent field is `missing or null`."""
    if value is None:
        return "missing or null"
    return _JSON_TYPES.get(type(value), "something else")


_JSON_TYPES: Final = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


# -- From the server to clients --


def encode(kind: str, data: dict[str, Any]) -> bytes:
    """Encode any message as a finished text frame."""
    return text_frame(orjson.dumps({"type": kind, "data": data}))


def error(refusal: Refusal, kind: str | None = None, message_id: Any = None) -> bytes:
    """Encode ERROR; `kind` and `message_id` are what the offending message had there, if anything (D24), at most 64 characters."""
    details = dict(refusal.details)
    if kind is not None:
        details.setdefault("type", kind[:64])
    if type(message_id) is str and len(message_id) <= 64:
        details.setdefault("message_id", message_id)
    return encode(MessageType.ERROR, {"code": refusal.code, "message": refusal.message, "details": details})


def hello_ack(
    user_id: str,
    capabilities: list[str] | None = None,
    cursor: str | None = None,
    resumed: str | None = None,
    scope: str | None = None,
) -> bytes:
    """Encode HELLO_ACK.

    It has the capabilities in force when the client asked for any, where it goes on in its mailbox (D13), and who will be listed by
    PRESENCE (D21).
    """
    data: dict[str, Any] = {"user_id": user_id, "status": "connected"}
    if capabilities is not None:
        data["capabilities"] = capabilities
    if cursor is not None:
        data["cursor"] = cursor
        data["resumed"] = resumed
    if scope is not None:
        data["scope"] = scope
    return encode(MessageType.HELLO_ACK, data)


def presence(users: list[tuple[str, str, bool]], delta: bool = False, scope: str | None = None) -> bytes:
    """Encode PRESENCE of (user_id, name, online) entries; `delta` marks that these are not all (D22), `scope` says of whom (D21)."""
    data: dict[str, Any] = {
        "users": [{"user_id": user, "display_name": name, "online": online} for user, name, online in users]
    }
    if delta:
        data["delta"] = True
    if scope is not None:
        data["scope"] = scope
    return encode(MessageType.PRESENCE, data)


def chat_opened(
    chat_id: str, participants: tuple[str, str], target_user_id: str, target_display_name: str
) -> bytes:
    """Encode CHAT_OPENED as one side sees it: `target_*` is the other person (D7)."""
    return encode(
        MessageType.CHAT_OPENED,
        {
            "chat_id": chat_id,
            "participants": participants,
            "target_user_id": target_user_id,
            "target_display_name": target_display_name,
        },
    )


def msg(sender: str, recipient: str, content: bytes, message_id: str, timestamp: bytes) -> bytes:
    """Encode MSG as its recipient gets it. `content` is a JSON string, `timestamp` 24 bytes of ISO 8601 (D19).

    Spliced rather than dumped whole: user ids need no escaping.
    """
    return text_frame(
        b'{"type":"MSG","data":{"from":"%b","to":"%b","content":%b,"message_id":%b,"timestamp":"%b"}}'
        % (sender.encode(), recipient.encode(), content, orjson.dumps(message_id), timestamp)
    )


def msg_parts(frame: bytes, sender: str, recipient: str, message_id: str) -> tuple[bytes, bytes]:
    """Return the content, as a JSON string, and the timestamp of a frame that `msg` has built: slices, nothing is decoded."""
    size = frame[1]
    start = _MSG_HEAD + len(sender) + len(recipient) + (2 if size < 126 else 4)
    # A message id is visible ASCII without quotes; of what is left, JSON escapes the backslash only.
    end = len(frame) - _MSG_TAIL - len(message_id) - message_id.count("\\") - _MSG_ID
    return frame[start:end], msg_timestamp(frame)


def msg_timestamp(frame: bytes) -> bytes:
    """Return the timestamp of a MSG frame that `msg` has built."""
    return frame[TIMESTAMP_START:TIMESTAMP_END]


def same_message(frame: bytes, other: bytes) -> bool:
    """Return whether two MSG frames say the same but for their timestamps: then the second is a repeat of the first (D10)."""
    return frame[:-_MSG_TAIL] == other[:-_MSG_TAIL]


def numbered(frame: bytes, seq: int, cursor: str, read: bool) -> bytes:
    """Return a MSG frame for a client that resumes: with its position in the mailbox (D13), and whether it has been read (D31)."""
    start = 2 if frame[1] < 126 else 4
    more = _READ if read else b""
    return text_frame(b'%b,"seq":%d,"cursor":"%b"%b}}' % (frame[start:-2], seq, cursor.encode(), more))


def marked_read(data: bytes) -> bytes:
    """Return the `data` of a MSG, as JSON, of which HISTORY says that it has been read (D31)."""
    return data[:-1] + _READ + b"}"


def text_of(frame: bytes) -> bytes:
    """Return the text of a frame that `text_frame` has built."""
    size = frame[1]
    return frame[2 if size < 126 else 4 if size == 126 else 10 :]


def msg_data(frame: bytes) -> bytes:
    """Return the `data` of a MSG frame that `msg` has built, as JSON."""
    return frame[_MSG_DATA + (2 if frame[1] < 126 else 4) : -1]


def msg_ack(message_id: str, status: str) -> bytes:
    """Encode MSG_ACK to the sender of a message."""
    return text_frame(
        b'{"type":"MSG_ACK","data":{"message_id":%b,"status":"%b"}}'
        % (orjson.dumps(message_id), status.encode())
    )


def receipt(message_id: str, status: str, recipient: str, content: bytes | None = None) -> bytes:
    """Encode MSG_ACK to a sender who asked for receipts: it names the recipient too, and has `content`, a JSON string, if given (D11)."""
    more = b"" if content is None else b',"content":' + content
    return text_frame(
        b'{"type":"MSG_ACK","data":{"message_id":%b,"status":"%b","to":"%b"%b}}'
        % (orjson.dumps(message_id), status.encode(), recipient.encode(), more)
    )


def history(peer: str, messages: list[bytes], following: str | None) -> bytes:
    """Encode HISTORY of `messages`, each the `data` of a MSG as JSON (D14)."""
    return text_frame(
        b'{"type":"HISTORY","data":{"with":"%b","messages":[%b],"next":%b}}'
        % (peer.encode(), b",".join(messages), orjson.dumps(following))
    )


def chats(entries: list[bytes], following: str | None) -> bytes:
    """Encode CHATS with a page of entries, each as JSON (D30)."""
    return text_frame(
        b'{"type":"CHATS","data":{"chats":[%b],"next":%b}}' % (b",".join(entries), orjson.dumps(following))
    )


def chats_delta(entries: list[bytes]) -> bytes:
    """Encode CHATS with the entries, each as JSON, that have changed (D30)."""
    return text_frame(b'{"type":"CHATS","data":{"chats":[%b],"delta":true}}' % b",".join(entries))


def typing(user_id: str, is_typing: bool) -> bytes:
    """Encode TYPING of `user_id`, as the other side gets it."""
    return text_frame(
        b'{"type":"TYPING","data":{"user_id":"%b","is_typing":%b}}'
        % (user_id.encode(), _JSON_BOOL[is_typing])
    )


_JSON_BOOL: Final = {True: b"true", False: b"false"}


def pong(timestamp: bytes) -> bytes:
    """Encode PONG, the answer to PING."""
    return text_frame(b'{"type":"PONG","data":{"timestamp":"%b"}}' % timestamp)
