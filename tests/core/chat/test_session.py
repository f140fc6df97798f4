"""core.chat.session: what a client may say in which state, in which order, and what it is told when it may not (D2, D3, D24, D25, D29)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.wire.protocol import UNCOMMITTED_MAX, CloseCode
from tests.core.pair import Pair
from tests.core.world import TIMESTAMP, Device, World

COMMANDS = World(1).shards[0].commands


def greeted() -> Device:
    """A device of the only user in a world of one worker, after HELLO."""
    world = World(1)
    device = world.device(world.user_on(0)).hello("Ann Lee")
    device.take()
    return device


# -- HELLO --


def test_hello_is_answered_as_the_document_says() -> None:
    """HELLO_ACK, then PRESENCE, and nothing that the client did not ask for."""
    world = World(1)
    device = world.device(world.user_on(0)).hello("Ann Lee")
    assert device.take() == [
        {"type": "HELLO_ACK", "data": {"user_id": device.user_id, "status": "connected"}},
        {
            "type": "PRESENCE",
            "data": {"users": [{"user_id": device.user_id, "display_name": "Ann Lee", "online": True}]},
        },
    ]


def test_d1_a_user_id_is_answered_in_lower_case() -> None:
    """Whatever case the client writes it in."""
    world = World(1)
    device = world.device(world.user_on(0))
    device.say("HELLO", user_id=device.user_id.upper(), display_name="Ann Lee")
    assert device.one("HELLO_ACK")["user_id"] == device.user_id


def test_capabilities_in_force_are_answered_when_asked_for() -> None:
    """Unknown capabilities and unknown fields are ignored."""
    world = World(1)
    device = world.device(world.user_on(0)).hello(
        capabilities=["time_travel", "presence_delta"], colour="blue"
    )
    assert device.one("HELLO_ACK")["capabilities"] == ["presence_delta"]
    device = world.device(world.user_on(0)).hello(capabilities=[])
    assert device.one("HELLO_ACK")["capabilities"] == []


def test_d2_before_hello_everything_but_ping_is_unauthorized() -> None:
    """The front sees to it; a worker whose client's HELLO was refused answers the same."""
    world = World(1)
    device = world.device(world.user_on(0))
    for kind in sorted(set(COMMANDS) - {"HELLO", "PING"}):
        device.say(kind, message_id="7")
        error = device.error()
        assert error["code"] == "UNAUTHORIZED"
        assert error["details"]["type"] == kind
        assert error["details"]["message_id"] == "7"
    device.say("PING")
    assert device.one("PONG") == {"timestamp": TIMESTAMP.decode()}
    device.hello()
    assert device.kinds() == ["HELLO_ACK", "PRESENCE"]


def test_d3_hello_again_with_a_new_name_takes_effect(pair: Pair) -> None:
    """HELLO_ACK and PRESENCE follow, with the new name, and the others see it too."""
    ann, bob = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2)
    bob.take()
    ann.take()
    ann.hello("Ann Smith")
    assert ann.one("HELLO_ACK") == {"user_id": pair.ann, "status": "connected"}
    pair.world.pass_time(1.1)
    names = {user["user_id"]: user["display_name"] for user in ann.one("PRESENCE")["users"]}
    assert names == {pair.ann: "Ann Smith", pair.bob: "Bob Ray"}
    assert {"user_id": pair.ann, "display_name": "Ann Smith", "online": True} in bob.one("PRESENCE")["users"]


def test_d3_hello_again_with_the_same_name_is_answered_too(pair: Pair) -> None:
    """A client that asks who is online by HELLO gets its answer though nobody changed; the others are left in peace."""
    ann, bob = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2)
    bob.take()
    ann.take()
    ann.hello("Ann Lee")
    pair.world.pass_time(1.1)
    assert ann.kinds() == ["HELLO_ACK", "PRESENCE"]
    assert not bob.inbox


def test_d3_hello_as_another_user_is_unauthorized(pair: Pair) -> None:
    """The connection stays what it was."""
    ann, bob = pair.chatting()
    ann.say("HELLO", user_id=pair.bob, display_name="Not Bob")
    error = ann.error()
    assert error["code"] == "UNAUTHORIZED"
    assert error["details"] == {"type": "HELLO", "field": "user_id"}
    ann.msg(pair.bob)
    assert bob.one("MSG")["from"] == pair.ann


def test_d3_a_hello_that_breaks_a_rule_changes_nothing() -> None:
    device = greeted()
    device.say("HELLO", user_id=device.user_id, display_name="A")
    assert device.error()["details"]["field"] == "display_name"
    assert device.world.shard_of(device.user_id).users[device.user_id].display_name == "Ann Lee"


def test_d28_a_hand_over_that_names_another_user_is_a_bug() -> None:
    """The front read one user's HELLO and the worker reads another's: 1011, with a reason."""
    world = World(1)
    device = world.device(world.user_on(0))
    device.say("HELLO", user_id=world.user_on(0), display_name="Somebody Else")
    assert device.closed is not None
    assert device.closed[0] == 1011
    assert device.closed[1]
    assert not device.inbox


# -- Errors --


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{",
        "[]",
        "7",
        "null",
        '"HELLO"',
        "{}",
        '{"type":"MSG"}',
        '{"data":{}}',
        '{"type":7,"data":{}}',
        '{"type":"MSG","data":[]}',
        '{"type":"MSG","data":null}',
        '{"type":"SHOUT","data":{}}',
        '{"type":"hello","data":{}}',
        '{"type":"HELLO_ACK","data":{}}',
        '{"type":"MSG","data":{}}',
        '{"type":"PING","data":{}}{"type":"PING","data":{}}',
    ],
)
def test_d25_what_is_no_message_is_refused_and_the_connection_stays(text: str) -> None:
    device = greeted()
    device.say_bytes(text.encode())
    error = device.error()
    assert error["code"] == "VALIDATION"
    assert error["message"]
    device.say("PING")
    assert device.kinds() == ["PONG"]


def test_d25_d28_the_21st_invalid_message_in_a_minute_closes() -> None:
    """With 1008 and a reason; up to the 20th each is answered."""
    device = greeted()
    for _ in range(20):
        device.say_bytes(b"{")
    assert device.errors() == ["VALIDATION"] * 20
    device.say_bytes(b"{")
    assert device.closed is not None
    assert device.closed[0] == 1008
    assert device.closed[1]
    assert not device.inbox


def test_d25_invalid_messages_are_forgiven_after_a_minute() -> None:
    """Twenty a minute for ever are answered."""
    device = greeted()
    for _ in range(3):
        for _ in range(20):
            device.say_bytes(b"{")
        device.world.pass_time(60.1, step=1)
    assert device.closed is None


def test_d25_other_errors_are_no_strikes(pair: Pair) -> None:
    """A client that asks for what is not there now is not abusive."""
    (ann,) = pair.online(pair.ann)
    for _ in range(50):
        ann.msg(pair.bob)
    assert ann.errors() == ["USER_NOT_FOUND"] * 50
    assert ann.closed is None


def test_d25_an_invalid_message_that_waited_in_line_counts_too(pair: Pair) -> None:
    """Held back behind OPEN_CHAT, or refused by the other shard: 21 are 21."""
    ann, _ = pair.chatting()
    ann.open_chat(pair.bob, settle=False)
    for _ in range(21):
        ann.msg(pair.bob, "", settle=False)
    assert ann.closed is None
    pair.world.settle()
    assert ann.closed is not None
    assert ann.closed[0] == 1008
    (ann,) = pair.online(pair.ann)
    ann.msg(pair.bob, "one", "taken")
    for _ in range(21):
        ann.msg(pair.bob, "two", "taken", settle=False)
    pair.world.settle()
    assert ann.closed is not None
    assert ann.closed[0] == 1008


def test_d25_d28_invalid_utf8_closes_with_1007() -> None:
    device = greeted()
    device.say_bytes(b'{"type":"PING","data":{"x":"\xff"}}')
    assert device.closed is not None
    assert device.closed[0] == 1007
    assert device.closed[1]


def test_d24_every_error_says_what_to_do() -> None:
    """`type`, `field`, the limit and `message_id`, as far as there are any; only the six codes of docs/protocol.md."""
    device = greeted()
    device.say("MSG", to=device.user_id, content="x" * 1001, message_id="7")
    assert device.error() == {
        "code": "VALIDATION",
        "message": "`content` must have 1 to 1000 characters after markup and control characters are removed; it has 1001",
        "details": {
            "type": "MSG",
            "message_id": "7",
            "field": "content",
            "limit": {"min": 1, "max": 1000},
            "length": 1001,
        },
    }
    device.say("MSG", to=7, content="Hi.", message_id="x" * 65)
    assert device.error()["details"] == {"type": "MSG", "field": "to", "expected": "UUID v4"}
    device.say("x" * 5000)
    details = device.error()["details"]
    assert details["type"] == "x" * 64, "what came is not echoed in full"
    assert details["expected"] == sorted(
        kind for kind, command in COMMANDS.items() if not command.capabilities
    )


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["00000000-0000-4000-8000-000000000000", "<b>", "x" * 2000]),
)
_FIELDS = [
    "user_id",
    "display_name",
    "capabilities",
    "target_user_id",
    "target_display_name",
    "to",
    "content",
]
_FIELDS += ["message_id", "is_typing", "from", "extra"]


@settings(max_examples=100)
@given(
    st.sampled_from([*COMMANDS, "SHOUT"]),
    st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=5),
)
def test_d24_whatever_comes_is_answered_with_a_document_error_or_obeyed(
    kind: str, data: dict[str, Any]
) -> None:
    """No data of any type in any field is a bug of ours, and each ERROR names the type of what it answers."""
    device = greeted()
    device.say_bytes(json.dumps({"type": kind, "data": data}).encode())
    assert device.closed is None
    for error in device.take("ERROR"):
        assert error["code"] in {"VALIDATION", "USER_NOT_FOUND", "CHAT_NOT_OPENED", "UNAUTHORIZED"}
        assert error["message"]
        assert error["details"]["type"] == kind


# -- PING --


def test_d23_one_ping_a_second_with_a_burst_of_five() -> None:
    """Per connection; `retry_after` is enough."""
    device = greeted()
    for _ in range(5):
        device.say("PING")
    assert device.take() == [{"type": "PONG", "data": {"timestamp": TIMESTAMP.decode()}}] * 5
    device.say("PING")
    error = device.error()
    assert error["code"] == "RATE_LIMITED"
    assert error["details"] == {"type": "PING", "limit": 1, "window": 1, "retry_after": pytest.approx(1)}
    other = device.world.device(device.user_id).hello()
    other.take()
    other.say("PING")
    assert other.kinds() == ["PONG"]
    device.world.pass_time(error["details"]["retry_after"])
    device.take()
    device.say("PING")
    device.say("PING")
    assert device.kinds() == ["PONG", "ERROR"]


def test_d23_zero_turns_the_ping_limit_off() -> None:
    world = World(1, pings_per_second=0)
    device = world.device(world.user_on(0)).hello()
    for _ in range(50):
        device.say("PING")
    assert device.kinds().count("PONG") == 50


def test_ping_does_not_wait_in_line(pair: Pair) -> None:
    """A client that waits for OPEN_CHAT is alive, and told so."""
    (ann,) = pair.online(pair.ann)
    pair.online(pair.bob)
    ann.open_chat(pair.bob, settle=False)
    ann.say("PING", False)
    assert ann.kinds() == ["PONG"]


def test_d25_invalid_messages_before_the_hand_over_count(pair: Pair) -> None:
    """Twenty in a minute, wherever they were sent."""
    ann = Device(pair.world, pair.ann, strikes=19).hello()
    ann.say("NONSENSE")
    assert ann.open
    ann.say("NONSENSE")
    assert ann.closed is not None
    assert ann.closed[0] == 1008


# -- Order and pace --


def test_a_chat_that_cannot_be_opened_does_not_keep_others() -> None:
    """D26: while one shard does not answer, messages to the others go through, and what is for the silent one waits in order."""
    world = World(3)
    ann, bob, cleo = (world.user_on(worker) for worker in range(3))
    device = world.device(ann).hello()
    friend = world.device(bob).hello()
    world.device(cleo).hello()
    device.open_chat(bob)
    device.take()
    world.cut_off.add(2)
    device.open_chat(cleo)
    device.msg(cleo, message_id="waits")
    device.msg(bob, message_id="goes")
    assert device.one("MSG_ACK") == {"message_id": "goes", "status": "delivered"}
    assert [message["message_id"] for message in friend.take("MSG")] == ["goes"]
    world.pass_time(11)
    assert [error["code"] for error in device.take("ERROR")] == ["MESSAGE_FAILED", "MESSAGE_FAILED"]


def test_what_was_sent_before_leaving_is_done(pair: Pair) -> None:
    """HELLO, OPEN_CHAT and MSG in one go, and the connection closed behind them: the message arrives."""
    (bob,) = pair.online(pair.bob)
    ann = pair.world.device(pair.ann)
    ann.hello(settle=False)
    ann.say("OPEN_CHAT", False, target_user_id=pair.bob, target_display_name="Bob Ray")
    ann.say("MSG", False, to=pair.bob, content="bye", message_id="1")
    ann.leave()
    assert bob.one("MSG")["content"] == "bye"
    pair.world.pass_time(6)
    assert pair.world.shard_of(pair.ann).users[pair.ann].sessions == []
    assert pair.world.shard_of(pair.ann).presence.name_of(pair.ann) is None


def test_nothing_is_done_any_more_for_whom_the_server_has_closed(pair: Pair) -> None:
    """D25: what an abuser had in line is dropped."""
    (bob,) = pair.online(pair.bob)
    ann = pair.world.device(pair.ann)
    ann.hello(settle=False)
    ann.say("OPEN_CHAT", False, target_user_id=pair.bob, target_display_name="Bob Ray")
    ann.session.close(1008, "enough", pair.world.now)
    pair.world.settle()
    assert bob.take("CHAT_OPENED") == []


def test_d18_everything_behind_hello_waits_for_it() -> None:
    """The store takes its time; then everything is answered."""
    world = World(1)
    world.stores[0].slow = True
    bob = world.user_on(0)
    device = world.device(world.user_on(0)).hello(settle=False)
    device.open_chat(bob)
    device.msg(bob, message_id="1")
    device.typing()
    device.hello("Renamed")
    assert not device.inbox
    world.stores[0].slow = False
    world.settle()
    # A new name needs no chat: it goes ahead of what waits for one.
    assert device.kinds() == ["HELLO_ACK", "PRESENCE", "ERROR", "HELLO_ACK", "ERROR", "ERROR"]
    assert [error["code"] for error in device.take("ERROR")] == [
        "USER_NOT_FOUND",
        "CHAT_NOT_OPENED",
        "USER_NOT_FOUND",
    ]


def test_d29_a_client_far_ahead_of_a_held_command_is_not_read_from() -> None:
    """It may send everything in one go, but not without end; when the line is short again it is read."""
    pair = Pair(True)
    ann, bob = pair.chatting()
    pair.world.stalled.add(1)
    ann.open_chat(pair.bob)
    for number in range(31):
        ann.msg(pair.bob, f"{number}")
    assert ann.reading
    ann.msg(pair.bob, "31")
    assert not ann.reading
    ann.msg(pair.bob, "was in memory already")
    pair.world.stalled.clear()
    pair.world.settle()
    assert ann.reading
    assert bob.contents() == [*[f"{number}" for number in range(32)], "was in memory already"]


def test_d29_a_sender_with_256_uncommitted_messages_is_not_read_from(far: bool) -> None:
    """Until they are committed; nothing is lost meanwhile."""
    pair = Pair(far, messages_per_minute=0)
    ann, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.slow = True
    for _ in range(UNCOMMITTED_MAX - 1):
        ann.msg(pair.bob, settle=False)
    assert ann.reading
    ann.msg(pair.bob)
    assert not ann.reading
    store.slow = False
    pair.world.settle()
    assert ann.reading
    assert len(bob.take("MSG")) == len(ann.take("MSG_ACK")) == UNCOMMITTED_MAX


def test_d28_who_is_told_to_go_gets_its_answers_first_and_asks_for_nothing_more(far: bool) -> None:
    """A server that drains stops reading from a client, waits until it `is_settled`, and then closes with a time to come back."""
    pair = Pair(far)
    ann, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.slow = True
    ann.msg(pair.bob, "last words", settle=False)
    ann.session.stop_reading()
    assert (ann.reading, ann.session.is_settled) == (False, False)
    store.slow = False
    pair.world.settle()
    assert (ann.reading, ann.session.is_settled) == (False, True)
    assert len(ann.take("MSG_ACK")) == 1
    ann.session.close(CloseCode.RESTARTING, "server is restarting", pair.world.now, 0.72)
    assert ann.closed == (1012, "server is restarting; reconnect in 0.7 s")
    shard = pair.world.shard_of(pair.ann)
    counted = [name for name in shard.counters if name.startswith("closes_total")]
    assert counted == ['closes_total{by="server",code="1012",reason="server is restarting"}']
    assert bob.contents() == ["last words"]


def test_who_waits_for_an_open_chat_is_not_settled() -> None:
    pair = Pair(True)
    ann = pair.come(pair.ann)
    pair.come(pair.bob)
    pair.world.stalled.add(1)
    ann.open_chat(pair.bob)
    assert not ann.session.is_settled
    pair.world.stalled.clear()
    pair.world.settle()
    assert ann.session.is_settled


def test_a_closed_session_takes_nothing_more(pair: Pair) -> None:
    """What was still in the connection's memory when it ended is dropped."""
    ann, bob = pair.chatting()
    ann.leave()
    ann.session.receive(
        b'{"type":"MSG","data":{"to":"%b","content":"late"}}' % pair.bob.encode(), pair.world.now
    )
    ann.session.on_closed(pair.world.now)
    pair.world.settle()
    assert not bob.take("MSG")
