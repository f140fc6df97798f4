"""The stories of `session`, told twice: with what ``core.wire.plain`` recognises, and with all of it decoded and validated.

Everybody must be sent the same, to the byte. What is recognised must also be what it is for the target `recognise`.
"""

from __future__ import annotations

from typing import Any, Final, cast
from unittest.mock import patch

from core.chat import session
from core.wire.plain import Plain
from fuzz.small_world import Client
from fuzz.target import Target
from fuzz.targets.recognise import recognise_and_compare
from fuzz.targets.session import mutate, play


def check(data: bytes) -> bool:
    """Whether something was recognised."""
    recognised = 0

    def recognise(payload: bytes) -> Plain | None:
        nonlocal recognised
        found = recognise_and_compare(payload)
        recognised += found is not None
        return found

    assert _told(data, recognise) == _told(data, lambda payload: None)
    return recognised > 0


def _told(data: bytes, recognise: Any) -> list[tuple[list[bytes], list[bytes], tuple[int, str] | None]]:
    """Play the story; what each connection was sent, its pings, and how it was closed, in the order in which they came."""
    with patch.object(session, "recognise", recognise):
        return [
            (device.sent, device.pinged, device.closed)
            for device in cast(list[Client], play(data).world.devices)
        ]


TARGET: Final = Target(
    check,
    mutate,
    "the recogniser (one message in it, or more)",
    ("core.wire.plain", "core.chat.session", "core.chat.messages", "core.chat.delivery"),
)
