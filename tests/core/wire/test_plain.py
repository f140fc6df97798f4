"""core.wire.plain: what is recognised is what decoding it says; and what ordinary clients write is recognised."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.wire.protocol import CONTENT_MAX
from fuzz.mutate_bytes import mutate_bytes
from fuzz.mutate_json import BOB, mutate_json
from fuzz.targets.recognise import recognise_and_compare as recognised

#: As JavaScript and orjson write it, and as Python's json does.
COMPACT, SPACED = (",", ":"), (", ", ": ")


def msg(content: str = "Hi.", message_id: str = "m1", to: str = BOB, **more: Any) -> dict[str, Any]:
    return {"type": "MSG", "data": {"to": to, "content": content, "message_id": message_id, **more}}


def encoded(message: dict[str, Any], separators: tuple[str, str] = COMPACT) -> bytes:
    return json.dumps(message, separators=separators, ensure_ascii=False).encode()


@pytest.mark.parametrize("separators", [COMPACT, SPACED])
@pytest.mark.parametrize(
    "content",
    ["Hi.", "x" * CONTENT_MAX, "I'll be {late}: 5 > 3 & so on", "Grüße", "世界", "\U0001f600", "a\u2028b"],
)
def test_what_ordinary_clients_write_is_recognised(content: str, separators: tuple[str, str]) -> None:
    found = recognised(encoded(msg(content), separators))
    assert found == (BOB, json.dumps(content, ensure_ascii=False).encode(), "m1")


@pytest.mark.parametrize("separators", [COMPACT, SPACED])
def test_acknowledgements_are_recognised(separators: tuple[str, str]) -> None:
    for more, sender in (({}, None), ({"from": BOB}, BOB)):
        found = recognised(encoded({"type": "MSG_ACK", "data": {"message_id": "m1", **more}}, separators))
        assert found == (sender, None, "m1")


@pytest.mark.parametrize(
    "payload",
    [
        encoded(msg("")),
        encoded(msg(" Hi.")),
        encoded(msg("x" * (CONTENT_MAX + 1))),
        encoded(msg("é" * (CONTENT_MAX + 1))),
        encoded(msg("a < b")),
        encoded(msg('"')),
        encoded(msg("\\")),
        encoded(msg("\n")),
        encoded(msg("\x7f")),
        encoded(msg("\u3164")),
        encoded(msg("\u00a0")),
        encoded(msg(message_id="")),
        encoded(msg(message_id="x" * 65)),
        encoded(msg(message_id="a b")),
        encoded(msg(message_id="a\\b")),
        encoded(msg(to="")),
        encoded(msg(more=1)),
        encoded({"data": msg()["data"], "type": "MSG"}),
        encoded({**msg(), "id": 1}),
        encoded({"type": "MSG", "data": {"message_id": "m1", "content": "Hi.", "to": BOB}}),
        encoded({"type": "MSG", "data": {"to": BOB, "content": "Hi."}}),
        encoded({"type": "MSG_ACK", "data": {"message_id": "m1", "from": None}}),
        encoded({"type": "MSG_ACK", "data": {}}),
        encoded({"type": "PING", "data": {}}),
        encoded(msg()) + b" ",
        b" " + encoded(msg()),
        encoded(msg())[:-1],
        encoded(msg("?")).replace(b"?", b"\xff"),
        encoded(msg("?")).replace(b"?", b"\xed\xa0\x80"),
        b"",
    ],
)
def test_everything_else_is_left_to_the_decoder(payload: bytes) -> None:
    assert recognised(payload) is None


@given(st.text(max_size=40), st.text(max_size=10), st.sampled_from([COMPACT, SPACED]))
def test_any_texts(content: str, message_id: str, separators: tuple[str, str]) -> None:
    """Whatever is recognised in them is what they say."""
    message = json.dumps(msg(content, message_id), separators=separators, ensure_ascii=False)
    recognised(message.encode(errors="replace"))


@given(st.randoms(use_true_random=False))
def test_any_changes(random: Random) -> None:
    """Of messages as clients write them, as JSON and as bytes."""
    payload = encoded(msg("Hi, how are you?"), random.choice([COMPACT, SPACED]))
    for _ in range(20):
        mutate = random.choice([mutate_json, mutate_bytes])
        payload = mutate(payload, random) if random.random() < 0.7 else mutate(encoded(msg()), random)
        recognised(payload)
