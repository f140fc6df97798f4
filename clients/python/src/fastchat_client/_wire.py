"""Text of the wire <-> messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from fastchat_client._codes import MESSAGE_MAX_BYTES, PROTOCOL, VALIDATION
from fastchat_client.models import FastChatError

Data = dict[str, Any]

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def canonical(user_id: str) -> str:
    """Return the same for all spellings of a user id: a UUID in lower case, as servers write it; any other id letter by letter."""
    return user_id.lower() if _UUID.fullmatch(user_id) else user_id


def encode(kind: str, data: Data) -> str:
    """Encode a message as text. Raises FastChatError(VALIDATION) for what would cost the connection: too long, or no Unicode text."""
    text = json.dumps({"type": kind, "data": data}, ensure_ascii=False, separators=(",", ":"))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise FastChatError(VALIDATION, "half of a surrogate pair is no text") from None
    if size > MESSAGE_MAX_BYTES:
        limit = f"the message has {size} bytes, and {MESSAGE_MAX_BYTES} is the limit"
        raise FastChatError(VALIDATION, limit, {"limit": MESSAGE_MAX_BYTES})
    return text


def decode(text: str) -> tuple[str, Data]:
    """Decode the type and data of a message. Raises FastChatError(PROTOCOL) when it is none."""
    try:
        message = json.loads(text)
        kind, data = message["type"], message["data"]
    except (ValueError, TypeError, KeyError, RecursionError):
        kind = data = None
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise FastChatError(PROTOCOL, f"this is no message: {text[:200]!r}")
    return kind, data


# -- Fields of what comes: all raise FastChatError(PROTOCOL) --


def text(data: Mapping[str, Any], name: str) -> str:
    """Take a string from the data."""
    value = data.get(name)
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


def text_or_none(data: Mapping[str, Any], name: str) -> str | None:
    """Take a string, or nothing."""
    return None if data.get(name) is None else text(data, name)


def number_or_none(data: Mapping[str, Any], name: str) -> int | None:
    """Take a whole number, or nothing."""
    value = data.get(name)
    if value is None or type(value) is int:
        return value
    raise _wrong(name, "a whole number", value)


def number(data: Mapping[str, Any], name: str) -> int:
    """Take a whole number."""
    value = number_or_none(data, name)
    if value is None:
        raise _wrong(name, "a whole number", value)
    return value


def flag(data: Mapping[str, Any], name: str) -> bool:
    """Take a boolean."""
    value = data.get(name)
    if not isinstance(value, bool):
        raise _wrong(name, "a boolean", value)
    return value


def member(data: Mapping[str, Any], name: str) -> Data:
    """Take an object."""
    value = data.get(name)
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    return value


def objects(data: Mapping[str, Any], name: str) -> list[Data]:
    """Take a list of objects."""
    value = data.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong(name, "a list of objects", value)
    return value


def texts(data: Mapping[str, Any], name: str) -> list[str]:
    """Take a list of strings; an empty one, if there is nothing."""
    value = data.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(name, "a list of strings", value)
    return value


def error(data: Mapping[str, Any]) -> FastChatError:
    """Make the exception of an ERROR."""
    details = data.get("details")
    if details is not None and not isinstance(details, dict):
        raise _wrong("details", "an object", details)
    return FastChatError(text(data, "code"), text(data, "message"), details)


def _wrong(name: str, expected: str, value: object) -> FastChatError:
    return FastChatError(PROTOCOL, f"`{name}` must be {expected}, and it is {value!r:.200}")
