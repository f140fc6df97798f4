"""The stories of `session`, told twice: with what ``core.wire.plain`` recognises, and with all of it decoded and validated.

Everybody must be sent the same, to the byte. What is recognised must also be what decoding it says.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast
from unittest.mock import patch

from core.chat import session
from core.wire import codec, plain, validation
from fuzz.small_world import Client
from fuzz.target import Target
from fuzz.targets.session import mutate, play

_ANY_ID: Final = validation.Validator("any")


def check(data: bytes) -> bool:
    """Whether something was recognised."""
    recognised = 0

    def recognise(payload: bytes) -> re.Match[bytes] | None:
        nonlocal recognised
        match = plain.recognise(payload)
        if match is not None:
            recognised += 1
            compare(payload, match)
        return match

    assert _told(data, recognise) == _told(data, lambda payload: None)
    return recognised > 0


def _told(data: bytes, recognise: Any) -> list[tuple[list[bytes], list[bytes], tuple[int, str] | None]]:
    """Play the story; what each connection was sent, its pings, and how it was closed, in the order in which they came."""
    with patch.object(session, "recognise", recognise):
        return [
            (device.sent, device.pinged, device.closed)
            for device in cast(list[Client], play(data).world.devices)
        ]


def compare(payload: bytes, match: re.Match[bytes]) -> None:
    """Raise AssertionError when something else is recognised in a payload than what decoding and the rules of the fields make of it."""
    to, content, message_id, acknowledged, sender = match.groups()
    if content is not None and not plain.is_kept(content):
        return
    kind, data = codec.decode(payload)
    if acknowledged is not None:
        fields = {"message_id": acknowledged.decode()} | ({"from": sender.decode()} if sender else {})
        assert (kind, data) == ("MSG_ACK", fields)
        validation.message_id(data["message_id"])
        return
    assert kind == "MSG"
    assert data.keys() == {"to", "content", "message_id"}
    assert (data["to"], data["message_id"]) == (to.decode(), message_id.decode())
    validation.message_id(data["message_id"])
    assert validation.content(data["content"]) == data["content"]
    assert codec.to_json(data["content"]) == content


TARGET: Final = Target(
    check,
    mutate,
    "the recogniser (one message in it, or more)",
    ("core.wire.plain", "core.chat.session", "core.chat.messages", "core.chat.delivery"),
)
