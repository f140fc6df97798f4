"""The rules of each field, as functions from what the client sent to what the server keeps.

All of them raise Refusal(VALIDATION) with the field's name, what was expected and what came (D1, D10, D16, D24).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from core.wire.codec import json_type
from core.wire.markup import space_out
from core.wire.protocol import (
    CAPABILITIES,
    CHATS_DEFAULT,
    CHATS_MAX,
    CONTENT_MAX,
    HISTORY_DEFAULT,
    HISTORY_MAX,
    NAME_MAX,
    NAME_MIN,
    Capability,
    ErrorCode,
    Refusal,
)
from core.wire.sanitize import clean_text, is_visible, sanitize_name

_UUID4: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
#: What identity providers and mail systems call people, such as auth0|5f7c8ec7c33c6c004bbafe82 and alice+work@example.com.
_ANY_ID: Final = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9._|@:+=-]{1,128}", re.ASCII)
_HISTORY_CURSOR: Final = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})(?:\.([0-9]{1,15}))?", re.ASCII)
#: The timestamp of a chat, which may be empty, and the user id of the peer.
_CHATS_CURSOR: Final = re.compile(r"([0-9TZ:.-]{24}|)/([A-Za-z0-9._|@:+=-]{1,128})", re.ASCII)
#: Visible ASCII without the five characters that HTML gives a meaning.
_MESSAGE_ID: Final = re.compile(r"""[!#-%(-;=?-~]{1,64}""", re.ASCII)


class Hello(NamedTuple):
    """A valid HELLO."""

    user_id: str
    display_name: str
    #: Those in force, sorted; None when the client did not ask for any.
    capabilities: list[str] | None
    #: The cursor to resume from, if resuming is in force and the client gave one (D13).
    cursor: str | None = None


class _IdForm(NamedTuple):
    """What a user id looks like."""

    match: Callable[[str], re.Match[str] | None]
    #: As an error tells it.
    expected: str
    #: Whether it is kept in lower case; else ids are compared byte for byte.
    lower: bool


_ID_FORMS: Final = {
    "uuid4": _IdForm(_UUID4.fullmatch, "UUID v4", True),
    "uuid": _IdForm(_UUID.fullmatch, "UUID", True),
    "any": _IdForm(
        _ANY_ID.fullmatch, "1-128 of A-Z a-z 0-9 . _ - | @ : + = with at least one letter or digit", False
    ),
}


class Validator:
    """The field rules under one setting: `user_ids` is ``uuid4`` (the default), ``uuid`` or ``any`` (D1, D35)."""

    __slots__ = ("_id_expected", "_id_match", "_lower")

    def __init__(self, user_ids: str = "uuid4") -> None:
        self._id_match, self._id_expected, self._lower = _ID_FORMS[user_ids]

    def user_id(self, value: Any, field: str) -> str:
        """Check a user id and return its canonical form."""
        if type(value) is not str or self._id_match(value) is None:
            raise _wrong(field, self._id_expected, value)
        return value.lower() if self._lower else value

    def user_ids(self, value: Any, field: str, most: int) -> list[str]:
        """Check a list of at most `most` user ids and return them in their canonical form."""
        if type(value) is not list:
            raise _wrong(field, f"list of user ids ({self._id_expected})", value)
        if len(value) > most:
            raise Refusal(
                ErrorCode.VALIDATION,
                f"`{field}` must have at most {most} user ids; it has {len(value)}",
                field=field,
                limit=most,
                length=len(value),
            )
        return [self.user_id(each, field) for each in value]

    def hello(self, data: dict[str, Any]) -> Hello:
        """Check a whole HELLO."""
        user_id = self.user_id(data.get("user_id"), "user_id")
        name = display_name(data.get("display_name"), "display_name")
        asked = data.get("capabilities")
        if asked is None:
            return Hello(user_id, name, None)
        if type(asked) is not list or not all(type(capability) is str for capability in asked):
            raise _wrong("capabilities", "list of strings", asked)
        capabilities = sorted(CAPABILITIES.intersection(asked))
        return Hello(user_id, name, capabilities, _resume_cursor(data, capabilities))


def display_name(value: Any, field: str, least: int = NAME_MIN) -> str:
    """Check and sanitise a display name; `least` to 50 characters of it must be left, and then one is visible."""
    if type(value) is not str:
        raise _wrong(field, "string", value)
    name = sanitize_name(value)
    if not least <= len(name) <= NAME_MAX:
        raise _wrong_length(field, least, NAME_MAX, len(name), "invisible")
    return name


def content(value: Any) -> str:
    """Check and sanitise the text of a message; 1-1000 characters of it must be left, before it is spaced out, and one of them visible."""
    if type(value) is not str:
        raise _wrong("content", "string", value)
    text = clean_text(value)
    if not 1 <= len(text) <= CONTENT_MAX:
        raise _wrong_length("content", 1, CONTENT_MAX, len(text))
    # The first character decides nearly always, and a search costs 1 % of a message.
    if not "!" <= text[0] <= "~" and not is_visible(text):
        raise _nothing_visible()
    return space_out(text) if "<" in text else text


def is_kept(quoted: bytes) -> bool:
    """Return whether the text of a message, as a JSON string without escapes, is valid and stored as it is."""
    try:
        text = quoted[1:-1].decode()
        return content(text) == text
    except (UnicodeDecodeError, Refusal):
        return False


def message_id(value: Any) -> str:
    """Check a client's message id: 1-64 visible ASCII characters without < > & " ' (D10)."""
    if type(value) is not str or _MESSAGE_ID.fullmatch(value) is None:
        raise _wrong("message_id", "1-64 visible ASCII characters without < > & \" '", value)
    return value


def history_limit(value: Any) -> int:
    """Return how many messages HISTORY is to bring (D14)."""
    return _limit(value, HISTORY_DEFAULT, HISTORY_MAX)


def chats_limit(value: Any) -> int:
    """Return how many chats CHATS is to bring (D30)."""
    return _limit(value, CHATS_DEFAULT, CHATS_MAX)


def _limit(value: Any, default: int, most: int) -> int:
    if value is None:
        return default
    if type(value) is not int or not 1 <= value <= most:
        raise _wrong("limit", f"a number from 1 to {most}", value)
    return value


def history_cursor(value: Any) -> tuple[int, int, int] | None:
    """Check a cursor of HISTORY and return its positions: in the own mailbox, in the peer's, and among what is withheld from the peer.

    None from the newest on. A cursor without the last one comes from a page where nothing was withheld: it is 1 then, before everything.
    """
    if value is None:
        return None
    match = _HISTORY_CURSOR.fullmatch(value) if type(value) is str else None
    if match is None:
        raise _wrong("before", "the `next` of an earlier HISTORY", value)
    return int(match[1]), int(match[2]), int(match[3] or 1)


def chats_cursor(value: Any) -> tuple[bytes, str] | None:
    """Check a cursor of CHATS and return what it stands behind: the timestamp of a chat, and the peer; None from the first chat on."""
    if value is None:
        return None
    match = _CHATS_CURSOR.fullmatch(value) if type(value) is str else None
    if match is None:
        raise _wrong("before", "the `next` of an earlier CHATS", value)
    return match[1].encode(), match[2]


def _resume_cursor(data: dict[str, Any], capabilities: list[str]) -> str | None:
    resume = data.get("resume")
    if resume is None or Capability.RESUME not in capabilities:
        return None
    if type(resume) is not dict:
        raise _wrong("resume", "an object with a cursor", resume)
    cursor = resume.get("cursor")
    if type(cursor) is not str:
        raise _wrong("resume.cursor", "string", cursor)
    return cursor


def is_typing(value: Any) -> bool:
    """Check the flag of a TYPING."""
    if type(value) is not bool:
        raise _wrong("is_typing", "boolean", value)
    return value


def _wrong(field: str, expected: str, value: Any) -> Refusal:
    came = repr(value) if type(value) is int else json_type(value)
    if type(value) is str:
        came = repr(value) if len(value) <= 64 else f"{value[:64]!r}... ({len(value)} characters)"
    return Refusal(
        ErrorCode.VALIDATION, f"`{field}` must be {expected}; it is {came}", field=field, expected=expected
    )


def _wrong_length(field: str, least: int, most: int, length: int, removed: str = "control") -> Refusal:
    return Refusal(
        ErrorCode.VALIDATION,
        f"`{field}` must have {least} to {most} characters after markup and {removed} characters are removed; it has {length}",
        field=field,
        limit={"min": least, "max": most},
        length=length,
    )


def _nothing_visible() -> Refusal:
    return Refusal(
        ErrorCode.VALIDATION,
        "`content` must have at least one visible character; it has spaces and invisible characters only",
        field="content",
        expected="at least one visible character",
    )
