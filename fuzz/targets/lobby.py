"""One message from a stranger, before HELLO: ``core.wire.codec.decode``, the lobby, and the rules of all fields of all messages."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from core.chat.lobby import Lobby
from core.wire import codec, validation
from core.wire.codec import from_json
from core.wire.frames import FrameError
from core.wire.protocol import NAME_MAX, NAME_MIN, Refusal
from core.wire.sanitize import sanitize_name
from core.wire.validation import Hello
from fuzz.mutate_json import mutate_json
from fuzz.small_world import VALIDATOR
from fuzz.target import Target
from tests.core.world import TIMESTAMP, payload_of

_ANY_ID: Final = validation.Validator("any")
#: Field -> its rule.
_RULES: Final[dict[str, Callable[[Any], object]]] = {
    "user_id": lambda value: VALIDATOR.user_id(value, "user_id"),
    "target_user_id": lambda value: _ANY_ID.user_id(value, "target_user_id"),
    "display_name": lambda value: validation.display_name(value, "display_name"),
    "content": validation.content,
    "message_id": validation.message_id,
    "limit": validation.history_limit,
    "before": validation.history_cursor,
    "is_typing": validation.is_typing,
}


def check(data: bytes) -> bool:
    """Whether it is JSON."""
    came = is_json(data)
    fields = _decode(data, came)
    _lobby(data)
    for field, value in fields.items():
        rule = _RULES.get(field)
        if rule is not None:
            try:
                rule(value)
            except Refusal as refusal:
                assert refusal.details["field"] == field
    return came


def is_json(data: bytes) -> bool:
    """Whether the decoder takes it."""
    try:
        from_json(data)
    except ValueError:
        return False
    return True


def _decode(data: bytes, came: bool) -> dict[str, Any]:
    try:
        kind, fields = codec.decode(data)
    except Refusal as refusal:
        codec.error(refusal)
        data.decode()  # what is no UTF-8 closes, and is not refused
        return {}
    except FrameError as error:
        assert error.code == 1007
        assert not came
        return {}
    assert came
    assert type(kind) is str
    assert type(fields) is dict
    return fields


def _lobby(data: bytes) -> None:
    lobby = Lobby(VALIDATOR, 0.0)
    try:
        outcome = lobby.receive(data, 0.0, TIMESTAMP)
    except FrameError as error:
        assert error.code == 1007
        return
    if isinstance(outcome, Hello):
        assert VALIDATOR.user_id(outcome.user_id, "user_id") == outcome.user_id
        assert NAME_MIN <= len(outcome.display_name) <= NAME_MAX
        assert sanitize_name(outcome.display_name) == outcome.display_name
    else:
        assert from_json(payload_of(outcome))["type"] in ("PONG", "ERROR")


def mutate(data: bytes, rng: Random) -> bytes:
    """Another message."""
    return mutate_json(data, rng)


TARGET: Final = Target(
    check,
    mutate,
    "the JSON decoder",
    ("core.wire.codec", "core.chat.lobby", "core.wire.validation", "core.wire.sanitize"),
)
