"""The recogniser by itself, ``core.wire.plain``: what it finds is what decoding finds.

And the one of the compiled core, which is in C, finds what that of the sources does.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from random import Random
from typing import Any, Final

from core.wire import codec, plain, validation
from fuzz.mutate_bytes import mutate_bytes
from fuzz.mutate_json import mutate_json
from fuzz.target import Target

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
    """Whether it was recognised."""
    return recognise_and_compare(data) is not None


def mutate(data: bytes, rng: Random) -> bytes:
    """Mostly bytes: hardly anything that is written in another way is recognised."""
    return mutate_json(data, rng) if rng.randrange(4) == 0 else mutate_bytes(data, rng)


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


TARGET: Final = Target(check, mutate, "the recogniser", ("core.wire.plain",))
