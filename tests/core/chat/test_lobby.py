"""core.chat.lobby: the time between the upgrade and HELLO (D2), and the limits that hold there too (D23, D24, D25)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat.lobby import Lobby
from core.wire.frames import FrameError
from core.wire.validation import Hello, Validator
from tests.core.world import START, TIMESTAMP, payload_of

ID = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
HELLO = {"user_id": ID, "display_name": "Ann Lee"}


class Visitor:
    """A client in the lobby."""

    def __init__(self, **settings: Any) -> None:
        self.now = START
        self.lobby = Lobby(Validator(), self.now, **settings)

    def say_bytes(self, payload: bytes) -> Hello | dict[str, Any]:
        """The HELLO, or the answer."""
        answer = self.lobby.receive(payload, self.now, TIMESTAMP)
        return answer if isinstance(answer, Hello) else json.loads(payload_of(answer))

    def say(self, kind: str, **data: Any) -> Hello | dict[str, Any]:
        return self.say_bytes(json.dumps({"type": kind, "data": data}).encode())

    def refused(self, kind: str, **data: Any) -> dict[str, Any]:
        """The ERROR that must follow."""
        answer = self.say(kind, **data)
        assert isinstance(answer, dict)
        assert answer["type"] == "ERROR"
        return dict(answer["data"])


def test_d2_a_valid_hello_ends_it() -> None:
    """It is not answered here: the worker that takes over reads it again."""
    assert Visitor().say("HELLO", **HELLO, capabilities=["presence_delta"]) == (
        ID,
        "Ann Lee",
        ["presence_delta"],
        None,
    )


def test_d2_ping_is_answered() -> None:
    assert Visitor().say("PING") == {"type": "PONG", "data": {"timestamp": TIMESTAMP.decode()}}


@pytest.mark.parametrize("kind", ["OPEN_CHAT", "MSG", "MSG_ACK", "TYPING", "PONG", "SHOUT", "hello", ""])
def test_d2_everything_else_is_unauthorized(kind: str) -> None:
    """As often as it comes; the connection stays usable."""
    visitor = Visitor()
    for _ in range(50):
        assert visitor.refused(kind)["code"] == "UNAUTHORIZED"
    assert isinstance(visitor.say("HELLO", **HELLO), Hello)


@pytest.mark.parametrize("broken", [{}, {"user_id": "test-123"}, {"display_name": "A"}, {"display_name": 7}])
def test_d2_a_hello_that_breaks_a_rule_is_a_validation_error(broken: dict[str, Any]) -> None:
    """The connection stays usable."""
    visitor = Visitor()
    error = visitor.refused("HELLO", **(HELLO | broken if broken else {}))
    assert error["code"] == "VALIDATION"
    assert error["details"]["type"] == "HELLO"
    assert error["details"]["field"] in ("user_id", "display_name")
    assert isinstance(visitor.say("HELLO", **HELLO), Hello)


def test_d24_an_error_says_what_it_answers() -> None:
    """The type, the message_id where there is one, the limit; and it does not echo 16 KiB."""
    visitor = Visitor()
    assert visitor.refused("MSG", message_id="7")["details"] == {
        "type": "MSG",
        "message_id": "7",
        "expected": "HELLO",
    }
    assert visitor.refused("MSG", message_id=7)["details"] == {"type": "MSG", "expected": "HELLO"}
    assert visitor.refused("MSG", message_id="x" * 65)["details"] == {"type": "MSG", "expected": "HELLO"}
    assert visitor.refused("x" * 10_000)["details"]["type"] == "x" * 64


def test_d25_the_21st_invalid_message_in_a_minute_closes() -> None:
    """With 1008 and a reason; UNAUTHORIZED ones do not count, and a minute later all is forgiven."""
    visitor = Visitor()
    for _ in range(2):
        for _ in range(20):
            answer = visitor.say_bytes(b"{")
            assert isinstance(answer, dict)
            assert answer["data"]["code"] == "VALIDATION"
            visitor.refused("MSG")
        visitor.now += 60.5
    for _ in range(20):
        visitor.say_bytes(b"{")
    with pytest.raises(FrameError) as caught:
        visitor.say_bytes(b"{")
    assert caught.value.code == 1008
    assert caught.value.reason


def test_d25_what_was_counted_here_is_handed_over() -> None:
    """The invalid messages of the last minute, and nothing else."""
    visitor = Visitor()
    assert visitor.lobby.strikes(visitor.now) == 0
    for _ in range(3):
        visitor.say_bytes(b"{")
        visitor.refused("MSG")
        visitor.now += 25
    assert visitor.lobby.strikes(visitor.now) == 2
    assert visitor.lobby.strikes(visitor.now + 60) == 0


def test_d25_invalid_utf8_closes_with_1007() -> None:
    with pytest.raises(FrameError) as caught:
        Visitor().say_bytes(b"\xff")
    assert caught.value.code == 1007


def test_d23_one_ping_a_second_with_a_burst_of_five() -> None:
    """As after HELLO, and with the same details."""
    visitor = Visitor()
    for _ in range(5):
        assert visitor.say("PING") == {"type": "PONG", "data": {"timestamp": TIMESTAMP.decode()}}
    visitor.now += 0.4
    error = visitor.refused("PING")
    assert error["code"] == "RATE_LIMITED"
    assert error["details"] == {
        "type": "PING",
        "limit": 1,
        "window": 1,
        "retry_after": pytest.approx(0.6, abs=0.002),
    }
    visitor.now += error["details"]["retry_after"]
    assert isinstance(visitor.say("PING"), dict)
    assert visitor.refused("PING")["code"] == "RATE_LIMITED"


def test_d23_retry_after_is_never_too_short() -> None:
    """Rounded up: waiting that long is enough, even for what is left of a millisecond."""
    visitor = Visitor()
    for _ in range(5):
        visitor.say("PING")
    visitor.now += 0.9996
    retry_after = visitor.refused("PING")["details"]["retry_after"]
    assert retry_after > 0
    visitor.now += retry_after
    answer = visitor.say("PING")
    assert isinstance(answer, dict)
    assert answer["type"] == "PONG"


def test_d23_zero_turns_the_ping_limit_off() -> None:
    visitor = Visitor(pings_per_second=0)
    for _ in range(50):
        assert visitor.say("PING") == {"type": "PONG", "data": {"timestamp": TIMESTAMP.decode()}}


@settings(max_examples=40)
@given(
    st.binary(max_size=100)
    | st.text(max_size=50).map(lambda text: json.dumps({"type": text, "data": {}}).encode())
)
def test_d25_nothing_that_comes_breaks_it(payload: bytes) -> None:
    """Any bytes are HELLO, are answered, or close the connection."""
    try:
        answer = Visitor().say_bytes(payload)
    except FrameError as error:
        assert error.code == 1007
    else:
        assert isinstance(answer, Hello) or answer["type"] in ("ERROR", "PONG")
