"""The stories of `session`, told twice: with what ``core.wire.plain`` recognises, and with all of it decoded and validated.

Everybody must be sent the same, to the byte. What is recognised must also be what decoding it says; and the compiled core, which has a
recogniser in C, must recognise what that of the sources does.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

from core.chat import session
from core.wire import codec, plain, validation
from fuzz.small_world import Client
from fuzz.target import Target
from fuzz.targets.session import mutate, play

_SOURCE: Final = Path(__file__).parents[2] / "core" / "wire" / "plain.py"


def _of_the_sources() -> Any:
    """Load the module of the sources, whichever the core has."""
    spec = spec_from_file_location("plain_of_the_sources", _SOURCE)
    assert spec is not None, "it is a file of Python"
    assert spec.loader is not None, "it is a file of Python"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_written_down: Final = _of_the_sources()


def check(data: bytes) -> bool:
    """Whether something was recognised."""
    recognised = 0

    def recognise(payload: bytes) -> plain.Plain | None:
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


def recognise_and_compare(payload: bytes) -> plain.Plain | None:
    """Recognise a payload. Raises AssertionError when that is not what the sources, decoding and the rules of the fields make of it."""
    found = plain.recognise(payload)
    assert found == _written_down.recognise(payload)
    if found is not None:
        _compare(payload, found)
    return found


def _compare(payload: bytes, found: plain.Plain) -> None:
    peer, content, message_id = found
    kind, data = codec.decode(payload)
    assert data["message_id"] == message_id == validation.message_id(message_id)
    if content is None:
        fields = {"message_id": message_id} | ({"from": peer} if peer is not None else {})
        assert (kind, data) == ("MSG_ACK", fields)
        return
    assert kind == "MSG"
    assert data.keys() == {"to", "content", "message_id"}
    assert data["to"] == peer
    assert validation.is_kept(content)
    assert codec.to_json(data["content"]) == content


TARGET: Final = Target(
    check,
    mutate,
    "the recogniser (one message in it, or more)",
    ("core.wire.plain", "core.chat.session", "core.chat.messages", "core.chat.delivery"),
)
