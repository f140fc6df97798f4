"""core.wire.codec: bytes to messages and back, and nothing but a clean refusal for what is no message (D19, D22, D24, D25)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.wire import codec
from core.wire.frames import FrameError
from core.wire.protocol import Refusal
from tests.core.world import TIMESTAMP, payload_of

ANN, BOB = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=10,
)
#: Something near a message, so that not everything fails at the first character.
_NEARLY = st.fixed_dictionaries({}, optional={"type": _JSON, "data": _JSON, "more": _JSON})


def sent(frame: bytes) -> Any:
    """What a frame says."""
    return json.loads(payload_of(frame))


# -- decode --


@given(
    st.binary(max_size=200)
    | st.text().map(str.encode)
    | _NEARLY.map(lambda value: json.dumps(value).encode())
)
@example(b"[" * 16_384)
@example(b'{"a":' * 3_000)
@example(b'{"type":"\\ud800","data":{}}')
@example(b'{"type":"MSG","data":{"content":"\\udfff"}}')
@example(b'\xef\xbb\xbf{"type":"PING","data":{}}')
@example(b'{"type":"PING","data":{"n":1e999}}')
@example(b'{"type":"PING","data":{"n":%b}}' % (b"9" * 5_000))
@example(b'{"type":"PING","type":"MSG","data":{}}')
@example(b"\0")
def test_d25_any_bytes_are_a_message_or_refused_cleanly(payload: bytes) -> None:
    """Nothing that a client sends makes `decode` raise anything else; 1007 is for what is not UTF-8, and for nothing else."""
    try:
        kind, data = codec.decode(payload)
    except Refusal as refusal:
        assert refusal.code == "VALIDATION"
        payload.decode()
        sent(codec.error(refusal))
    except FrameError as error:
        assert error.code == 1007
        with pytest.raises(UnicodeDecodeError):
            payload.decode()
    else:
        assert type(kind) is str
        assert type(data) is dict
        assert sent(codec.encode(kind, data)) == {"type": kind, "data": data}


@settings(max_examples=40)
@given(st.text(), st.dictionaries(st.text(), st.text() | st.booleans() | st.integers(-(2**53), 2**53)))
def test_decode_gives_what_the_client_sent(kind: str, data: dict[str, Any]) -> None:
    """With escapes or without, whatever else stands beside it."""
    for ensure_ascii in (True, False):
        text = json.dumps({"data": data, "more": [1], "type": kind}, ensure_ascii=ensure_ascii)
        assert codec.decode(text.encode()) == (kind, data)


@pytest.mark.parametrize(
    ("payload", "details"),
    [
        (b"{", {"expected": "JSON object"}),
        (b"'PING'", {"expected": "JSON object"}),
        (b"[]", {"expected": "JSON object"}),
        (b"null", {"expected": "JSON object"}),
        (b"{}", {"field": "type", "expected": "string"}),
        (b'{"type":null,"data":{}}', {"field": "type", "expected": "string"}),
        (b'{"type":1,"data":{}}', {"field": "type", "expected": "string"}),
        (b'{"type":"MSG"}', {"field": "data", "expected": "object", "type": "MSG"}),
        (b'{"type":"MSG","data":null}', {"field": "data", "expected": "object", "type": "MSG"}),
        (b'{"type":"MSG","data":"x"}', {"field": "data", "expected": "object", "type": "MSG"}),
    ],
)
def test_d25_what_is_missing_or_mistyped_is_named(payload: bytes, details: dict[str, str]) -> None:
    """So is the type of the message, once it is known (D24)."""
    with pytest.raises(Refusal) as caught:
        codec.decode(payload)
    assert caught.value.code == "VALIDATION"
    assert caught.value.details == details


@pytest.mark.parametrize(
    "payload", [b"\xff", b'{"type":"\xc3","data":{}}', b'"\xed\xa0\x80"', b'{"a":"\xf4\x90\x80\x80"}']
)
def test_d25_invalid_utf8_is_1007(payload: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        codec.decode(payload)
    assert caught.value.code == 1007
    assert caught.value.reason


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "missing or null"),
        ("", "a string"),
        (True, "a boolean"),
        (1, "a number"),
        (1.5, "a number"),
        ([], "a list"),
        ({}, "an object"),
        (b"", "something else"),
    ],
)
def test_types_have_the_names_that_json_gives_them(value: Any, name: str) -> None:
    assert codec.json_type(value) == name


# -- Frames --


def test_frames_are_byte_for_byte_those_of_the_document() -> None:
    """Field by field in the order of docs/protocol.md, and nothing besides."""
    users = [(ANN, "Ann Lee", True), (BOB, "Bob Ray", False)]
    entries = (
        f'{{"user_id":"{ANN}","display_name":"Ann Lee","online":true}},'
        f'{{"user_id":"{BOB}","display_name":"Bob Ray","online":false}}'
    )
    expected = {
        codec.hello_ack(
            ANN, None
        ): f'{{"type":"HELLO_ACK","data":{{"user_id":"{ANN}","status":"connected"}}}}',
        codec.presence(users): f'{{"type":"PRESENCE","data":{{"users":[{entries}]}}}}',
        codec.presence([], delta=True): '{"type":"PRESENCE","data":{"users":[],"delta":true}}',
        codec.presence([], scope="contacts"): '{"type":"PRESENCE","data":{"users":[],"scope":"contacts"}}',
        codec.chat_opened("chat", (ANN, BOB), BOB, "Bob Ray"): (
            f'{{"type":"CHAT_OPENED","data":{{"chat_id":"chat","participants":["{ANN}","{BOB}"],'
            f'"target_user_id":"{BOB}","target_display_name":"Bob Ray"}}}}'
        ),
        codec.msg(ANN, BOB, b'"Hi"', "1", TIMESTAMP): (
            f'{{"type":"MSG","data":{{"from":"{ANN}","to":"{BOB}","content":"Hi","message_id":"1",'
            '"timestamp":"2024-01-01T12:00:00.000Z"}}'
        ),
        codec.msg_ack("1", "delivered"): '{"type":"MSG_ACK","data":{"message_id":"1","status":"delivered"}}',
        codec.typing(ANN, True): f'{{"type":"TYPING","data":{{"user_id":"{ANN}","is_typing":true}}}}',
        codec.typing(ANN, False): f'{{"type":"TYPING","data":{{"user_id":"{ANN}","is_typing":false}}}}',
        codec.pong(TIMESTAMP): '{"type":"PONG","data":{"timestamp":"2024-01-01T12:00:00.000Z"}}',
        codec.error(Refusal("VALIDATION", "why", field="to")): (
            '{"type":"ERROR","data":{"code":"VALIDATION","message":"why","details":{"field":"to"}}}'
        ),
    }
    for frame, text in expected.items():
        assert payload_of(frame).decode() == text


def test_hello_ack_names_capabilities_only_when_asked() -> None:
    assert sent(codec.hello_ack(ANN, []))["data"] == {
        "user_id": ANN,
        "status": "connected",
        "capabilities": [],
    }
    assert sent(codec.hello_ack(ANN, ["a"]))["data"]["capabilities"] == ["a"]


@settings(max_examples=40)
@given(
    st.text(max_size=1000), st.text(alphabet="!#$%()*+,-./09:;=?@AZ[\\]^_`az{|}~", min_size=1, max_size=64)
)
@example('</script>\u2028\u2029"\\\x7f\U0001f468', "\\u0041")
def test_a_spliced_message_is_valid_json_whatever_is_in_it(content: str, message_id: str) -> None:
    """What was put in comes out."""
    assert sent(codec.msg(ANN, BOB, codec.to_json(content), message_id, TIMESTAMP))["data"] == {
        "from": ANN,
        "to": BOB,
        "content": content,
        "message_id": message_id,
        "timestamp": TIMESTAMP.decode(),
    }
    assert sent(codec.msg_ack(message_id, "stored"))["data"] == {"message_id": message_id, "status": "stored"}


@settings(max_examples=40)
@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from([ANN, BOB]))
def test_d10_a_message_is_the_same_if_all_but_the_time_is(content: str, other: str, sender: str) -> None:
    """The time is when the server took it, so a repeat has another."""
    first = codec.msg(ANN, BOB, codec.to_json(content), "1", TIMESTAMP)
    again = codec.msg(sender, BOB, codec.to_json(other), "1", b"2030-12-31T23:59:59.999Z")
    assert codec.same_message(first, again) == (content == other and sender == ANN)
    assert not codec.same_message(first, codec.msg(ANN, BOB, codec.to_json(content), "2", TIMESTAMP))


def test_d24_an_error_names_type_and_message_id_unless_it_says_better() -> None:
    refusal = Refusal("MESSAGE_FAILED", "why")
    assert sent(codec.error(refusal, "MSG", "7"))["data"]["details"] == {"type": "MSG", "message_id": "7"}
    assert sent(codec.error(refusal))["data"]["details"] == {}
    told = Refusal("VALIDATION", "why", type="OPEN_CHAT", message_id="8")
    assert sent(codec.error(told, "MSG", "7"))["data"]["details"] == {"type": "OPEN_CHAT", "message_id": "8"}
    assert told.details == {"type": "OPEN_CHAT", "message_id": "8"}
