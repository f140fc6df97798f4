"""What JSON lets one write: wrong types, depth, numbers, keys twice, halves of characters, fields too many."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.protocol_schema import SCHEMA, is_message, strange
from tests.system.harness import Server, user_on_worker
from tests.system.raw_client import CONTINUATION, TEXT, RawClient, client_frame, message

CAPABILITIES: Final = ["block", "carbons", "chats", "history", "presence_delta", "receipts", "resume"]
#: What stands in a field instead of what belongs there, as JSON: no more than a connection may get wrong in a minute.
VALUES: Final = (
    *("null", "true", "false", "0", "-1", "1.5", "1e30", "18446744073709551616", '""', '"x"'),
    *(f'"{"x" * 5000}"', "[]", "{}", "[[]]", '["x"]', '[{"a":null}]', '{"cursor":[{"a":{}}]}'),
)
#: Numbers that no double holds, and words that JavaScript has for some: neither is JSON that can be read.
NO_NUMBERS: Final = ("1e999", "-1e999", "9" * 400, "9" * 15_000, "NaN", "Infinity", "-Infinity")
#: Half of a pair, which no UTF-8 can say, as an escape: alone, before a letter, the wrong way round, twice.
HALVES: Final = (r"\ud800", r"\udfff", r"\ud83db", r"\ude00\ud83d", r"\ud83d\ud83d", r"abc\uDBFF")
GREETED: Final = pytest.mark.parametrize("greeted", [False, True], ids=["before HELLO", "after HELLO"])


def right(user_id: str, peer: str) -> dict[str, dict[str, Any]]:
    """A valid message of each type."""
    hello = {"user_id": user_id, "display_name": "Alice", "capabilities": CAPABILITIES, "resume": None}
    return {
        "HELLO": hello,
        "OPEN_CHAT": {"target_user_id": peer, "target_display_name": "Bob"},
        "MSG": {"to": peer, "content": "hi", "message_id": None},
        "MSG_ACK": {"message_id": "m", "from": peer},
        "READ": {"message_id": "m", "from": peer},
        "HISTORY": {"with": peer, "before": None, "limit": 1},
        "CHATS": {"before": None, "limit": 1},
        **{kind: {"user_id": peer} for kind in ("HIDE", "MUTE", "UNMUTE", "BLOCK", "UNBLOCK")},
        "PRESENCE": {"user_ids": [peer]},
        "TYPING": {"is_typing": True, "to": peer},
        "PING": {},
    }


#: Here nothing has to prove who a client is; a token of a wrong type is test_auth's.
NOT_LOOKED_AT: Final = ("fromClient.HELLO", "token")
FIELDS: Final = [(kind, field) for kind, data in right("", "").items() for field in data]


def client_of(server: Server, greeted: bool = True) -> RawClient:
    client = RawClient.upgraded(server.port, user_on_worker(0, server.workers), "Alice")
    if greeted:
        client.hello(capabilities=CAPABILITIES)
    return client


def raw(client: RawClient, payload: str | bytes) -> None:
    client.send(client_frame(TEXT, payload.encode() if isinstance(payload, str) else payload))


def with_value(kind: str, data: dict[str, Any], field: str, value: str) -> str:
    """A message in which `field` is `value`, which is JSON, or would like to be."""
    return json.dumps({"type": kind, "data": data | {field: "@@@"}}).replace('"@@@"', value)


def invalid(client: RawClient, **details: Any) -> None:
    """The next answer is a VALIDATION with these details."""
    error = client.error("VALIDATION")
    assert details.items() <= error["details"].items(), error
    assert len(error["message"]) > 10


def errors_of(client: RawClient) -> list[dict[str, Any]]:
    """All errors of what was sent so far, but for those that say that there is no such user or chat, which is no matter of form."""
    client.say("TYPING", is_typing=True, to=str(uuid4()))  # its turn comes behind all the others
    errors: list[dict[str, Any]] = []
    while True:
        came = client.frame()
        kind, data = came.message() if came.opcode == TEXT else ("", {})
        if kind != "ERROR" or data["code"] == "USER_NOT_FOUND":
            continue
        if data["code"] == "CHAT_NOT_OPENED":
            if data["details"]["type"] == "TYPING":
                return errors
            continue
        errors.append(data)


def assert_well(client: RawClient) -> None:
    """The connection is as usable as ever."""
    client.say("PING")
    client.receive("PONG")


# -- Wrong types --


def test_the_fields_are_all_there_are() -> None:
    definitions = json.loads(SCHEMA.read_text())["$defs"]
    assert [
        (name.removeprefix("fromClient."), field)
        for name, schema in definitions.items()
        if name.startswith("fromClient.")
        for field in schema["properties"]["data"].get("properties", ())
        if (name, field) != NOT_LOOKED_AT
    ] == FIELDS


@pytest.mark.attack("wrong types")
@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_a_wrong_type_in_a_field_after_hello(server: Server, kind: str, field: str) -> None:
    """What the schema refuses is refused, with the name of the field; what it takes is taken. Else nothing happens."""
    peer = user_on_worker(1, server.workers)
    with RawClient.upgraded(server.port, peer) as bob, client_of(server) as client:
        bob.hello()
        client.say("OPEN_CHAT", target_user_id=peer, target_display_name="Bob")
        client.receive("CHAT_OPENED")
        wrong = 0
        for value in VALUES:
            payload = with_value(kind, right(client.user_id, peer)[kind], field, value)
            raw(client, payload)
            errors = errors_of(client)
            if is_message("fromClient", json.loads(payload)):
                assert errors == [], value
                continue
            wrong += 1
            (error,) = errors
            assert error["code"] == "VALIDATION", (value, error)
            assert error["details"]["field"].partition(".")[0] == field, (value, error)
            assert error["details"]["type"] == kind
            assert {"expected", "limit"} & error["details"].keys(), error
        assert wrong > 5
        assert_well(client)
        assert_well(bob)


@pytest.mark.attack("wrong types")
@pytest.mark.parametrize("field", ["user_id", "display_name", "capabilities", "resume"])
def test_a_wrong_type_in_a_field_of_the_first_hello(server: Server, field: str) -> None:
    for value in VALUES:
        with client_of(server, greeted=False) as client:
            payload = with_value("HELLO", right(client.user_id, "")["HELLO"], field, value)
            raw(client, payload)
            if is_message("fromClient", json.loads(payload)):
                client.receive("HELLO_ACK")
            else:
                error = client.error("VALIDATION")
                assert error["details"]["field"].partition(".")[0] == field, (value, error)
                client.hello()
            assert_well(client)


@pytest.mark.attack("wrong types")
@GREETED
def test_a_wrong_type_around_the_fields(server: Server, greeted: bool) -> None:
    """In place of `data`, of `type`, and of the message."""
    for payloads, details in (
        ([f'{{"type":"MSG","data":{value}}}' for value in VALUES if value[0] != "{"], {"field": "data"}),
        ([f'{{"type":{value},"data":{{}}}}' for value in VALUES if value[0] != '"'], {"field": "type"}),
        ([value for value in VALUES if value[0] != "{"], {"expected": "JSON object"}),
        (["{}", '{"type":"MSG"}', '{"data":{}}', '{"TYPE":"PING","data":{}}'], {}),
    ):
        with client_of(server, greeted) as client:
            for payload in payloads:
                raw(client, payload)
                invalid(client, **details)
            if not greeted:
                client.hello()
            assert_well(client)


@pytest.mark.attack("wrong types")
def test_a_wrong_type_behind_what_takes_its_time(server: Server) -> None:
    """While HELLO and OPEN_CHAT are on their way, others wait for the user in their field, which may be none."""
    peer = user_on_worker(1, server.workers)
    with RawClient.upgraded(server.port, peer) as bob, client_of(server, greeted=False) as client:
        bob.hello()
        messages = right(client.user_id, peer)
        frames = [message("HELLO", **messages["HELLO"]), message("OPEN_CHAT", **messages["OPEN_CHAT"])]
        for kind, field in (
            ("MSG", "to"),
            ("OPEN_CHAT", "target_user_id"),
            ("HISTORY", "with"),
            ("TYPING", "to"),
        ):
            for value in ("[]", "{}", "[[]]", "true"):
                frames.append(with_value(kind, messages[kind], field, value).encode())
        client.send(b"".join(client_frame(TEXT, frame) for frame in frames))
        errors = [error["details"]["field"] for error in errors_of(client)]
        assert sorted(errors) == sorted(["to"] * 8 + ["target_user_id"] * 4 + ["with"] * 4)
        assert_well(client)


# -- Depth --


@pytest.mark.attack("deep JSON")
@GREETED
@pytest.mark.parametrize("depth", [1_000, 1_020, 8_000, 16_000])
def test_deep_json(server: Server, depth: int, greeted: bool) -> None:
    """Whole and never closed, in every place; what is no deeper than a parser goes is the value of a field that nobody knows."""
    half = depth // 2
    with client_of(server, greeted) as client:
        for deep in ("[" * depth, '{"":' * (depth // 4), '[{"":' * (depth // 5), "[" * half + "]" * half):
            raw(client, deep)
            invalid(client)
        nested = "[" * half + "]" * half
        taken = depth < 2_000
        for payload, field in (
            (f'{{"type":"PING","data":{nested}}}', "data"),
            (f'{{"type":{nested},"data":{{}}}}', "type"),
            (f'{{"type":"HELLO","data":{{"user_id":{nested}}}}}', "user_id"),
        ):
            raw(client, payload)
            invalid(client, **{"field": field} if taken else {})
        raw(client, f'{{"x":[[[]]],"type":"PING","data":{{"y":{nested}}}}}')
        if taken:
            client.receive("PONG")
        else:
            invalid(client)
        if not greeted:
            client.hello()
        assert_well(client)


@pytest.mark.attack("deep JSON")
def test_deep_json_that_has_to_wait(server: Server) -> None:
    """Behind HELLO and OPEN_CHAT, in fields that nobody knows and in some that are known."""
    peer = user_on_worker(1, server.workers)
    deep = "[" * 1000 + "]" * 1000
    with RawClient.upgraded(server.port, peer) as bob, client_of(server, greeted=False) as client:
        bob.hello()
        messages = right(client.user_id, peer)
        payloads = [with_value("HELLO", messages["HELLO"], "x", deep)]
        payloads.append(with_value("OPEN_CHAT", messages["OPEN_CHAT"], "x", deep))
        payloads += [with_value("MSG", messages["MSG"], "x", deep)] * 30
        payloads += [with_value("MSG", messages["MSG"], "content", deep)] * 10
        client.send(b"".join(client_frame(TEXT, payload.encode()) for payload in payloads))
        for _ in range(30):
            bob.receive("MSG", content="hi")
        assert [error["details"]["field"] for error in errors_of(client)] == ["content"] * 10


# -- Numbers --


@pytest.mark.attack("huge numbers", "NaN")
@GREETED
@pytest.mark.parametrize("number", NO_NUMBERS, ids=lambda number: number[:9])
def test_what_is_no_number(server: Server, number: str, greeted: bool) -> None:
    """Wherever it stands, and also in a field that nobody knows."""
    with client_of(server, greeted) as client:
        messages = right(client.user_id, str(uuid4()))
        payloads = [
            number,
            f'{{"type":{number},"data":{{}}}}',
            f'{{"type":"PING","data":{number}}}',
            f'{{"type":"PING","data":{{}},"x":{number}}}',
            f'{{"type":"PING","data":{{"x":[{number}]}}}}',
            f'{{"type":"PING","data":{{{number}:1}}}}',
            *(with_value(kind, messages[kind], field, number) for kind, field in FIELDS[:10]),
        ]
        for payload in payloads:
            raw(client, payload)
            invalid(client)
        if not greeted:
            client.hello()
        assert_well(client)


@pytest.mark.attack("huge numbers")
def test_a_number_that_a_double_holds_is_a_number(server: Server) -> None:
    """However it is written: ignored where nobody asks for it, refused with the field where something else is meant."""
    numbers = (
        "1e308",
        "-0",
        "-0.0",
        "1e-999",
        "18446744073709551616",
        "-9223372036854775809",
        "1.5",
        "9" * 300,
    )
    peer = str(uuid4())
    for number in numbers:
        for some in (
            FIELDS[::2],
            FIELDS[1::2],
        ):  # more would be more than a connection may say wrong in a minute
            with client_of(server) as client:
                raw(client, f'{{"type":"PING","data":{{"x":{number}}},"y":{number}}}')
                client.receive("PONG")
                messages = right(client.user_id, peer)
                for kind, field in some:
                    raw(client, with_value(kind, messages[kind], field, number))
                    invalid(client, type=kind, field=field)
                client.say("PING")
                client.receive("PONG")


# -- Keys twice --


def twice(*pairs: tuple[str, str]) -> str:
    """An object, as JSON, in which keys may stand more than once; the values are JSON, the keys what stands between the quotes."""
    return "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"


@pytest.mark.attack("duplicate keys")
@pytest.mark.parametrize("fragmented", [False, True], ids=["whole", "fragmented"])
@pytest.mark.parametrize("again", ["user_id", r"user\u005fid", r"\u0075ser_id"])
def test_hello_with_two_user_ids(server: Server, again: str, fragmented: bool) -> None:
    """The last one is who is greeted, by the front that looks for the worker and by the worker, whichever each of them would lead to."""
    for first, last in ((0, 1), (1, 0)):
        one, other = user_on_worker(first, 2), user_on_worker(last, 2)
        data = twice(("user_id", f'"{one}"'), ("display_name", '"Alice"'), (again, f'"{other}"'))
        payload = twice(("type", '"HELLO"'), ("data", data)).encode()
        with RawClient.upgraded(server.port) as client:
            if fragmented:
                middle = len(payload) // 2
                client.send(client_frame(TEXT, payload[:middle], fin=False))
                client.send(client_frame(CONTINUATION, payload[middle:]))
            else:
                raw(client, payload)
            assert client.receive("HELLO_ACK") == {"user_id": other, "status": "connected"}
            client.say("HELLO", user_id=one, display_name="Alice")
            client.error("UNAUTHORIZED")


@pytest.mark.attack("duplicate keys")
@GREETED
def test_two_types_and_two_data(server: Server, greeted: bool) -> None:
    with client_of(server, greeted) as client:
        hello = json.dumps({"user_id": client.user_id, "display_name": "Alice"})
        raw(client, twice(("type", '"HELLO"'), ("data", hello), ("type", '"PING"')))
        client.receive("PONG")
        raw(client, twice(("type", '"HELLO"'), ("data", hello), ("data", "{}")))
        invalid(client, type="HELLO", field="user_id")
        raw(client, twice(("type", '"HELLO"'), ("data", hello), ("data", "7")))
        invalid(client, type="HELLO", field="data")
        raw(client, twice(("type", '"PING"'), ("data", "{}"), ("type", '"HELLO"'), ("data", hello)))
        assert client.receive("HELLO_ACK")["user_id"] == client.user_id


@pytest.mark.attack("duplicate keys")
def test_a_message_with_two_recipients_goes_to_the_last(server: Server) -> None:
    """As whom it says in between, while the chat with that one is being opened too."""
    with (
        RawClient.upgraded(server.port, user_on_worker(1, 2)) as bob,
        RawClient.upgraded(server.port, user_on_worker(1, 2)) as carol,
        client_of(server) as client,
    ):
        bob.hello()
        carol.hello()
        for peer in (bob, carol):
            client.say("OPEN_CHAT", target_user_id=peer.user_id, target_display_name="Somebody")
        data = twice(
            ("to", f'"{bob.user_id}"'),
            ("content", '"one"'),
            ("to", f'"{carol.user_id}"'),
            ("content", '"two"'),
        )
        raw(client, twice(("type", '"MSG"'), ("data", data)))
        assert carol.receive("MSG")["content"] == "two"
        assert "MSG" not in [kind for kind, _ in bob.everything()]


# -- Halves of characters --


@pytest.mark.attack("lone surrogates")
@GREETED
@pytest.mark.parametrize("half", HALVES)
def test_half_of_a_surrogate_pair(server: Server, half: str, greeted: bool) -> None:
    """In the text of any field, in a key, and where nobody looks."""
    with client_of(server, greeted) as client:
        messages = right(client.user_id, str(uuid4()))
        texts = [("HELLO", "display_name"), ("OPEN_CHAT", "target_display_name"), ("MSG", "content")]
        texts += [("MSG", "message_id"), ("MSG", "to"), ("HISTORY", "before"), ("HELLO", "user_id")]
        payloads = [with_value(kind, messages[kind], field, f'"{half}"') for kind, field in texts]
        payloads += [
            twice(("type", f'"{half}"'), ("data", "{}")),
            twice(("type", '"PING"'), ("data", twice((half, "1")))),
            twice(("type", '"PING"'), ("data", "{}"), (half, "1")),
            twice(("type", '"PING"'), ("data", "{}"), ("x", f'["{half}"]')),
        ]
        for payload in payloads:
            raw(client, payload)
            invalid(client)
        if not greeted:
            client.hello()
        assert_well(client)


@pytest.mark.attack("lone surrogates")
@GREETED
@pytest.mark.parametrize("raw_bytes", [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80"])
def test_a_surrogate_in_bytes_is_no_utf8(server: Server, raw_bytes: bytes, greeted: bool) -> None:
    """Also a pair of them, which is how CESU-8 writes what needs four bytes."""
    with client_of(server, greeted) as client:
        raw(client, b'{"type":"PING","data":{"x":"' + raw_bytes + b'"}}')
        code, reason = client.closed()
        assert (code, bool(reason)) == (1007, True)


# -- Fields too many --


@pytest.mark.attack("unknown fields")
@pytest.mark.parametrize("where", ["same shard", "other shard"])
def test_what_nobody_asked_for_is_never_passed_on(server: Server, where: str) -> None:
    """Beside `data` and in it, under names that the server itself uses too. Nobody gets a field that the schema does not name."""
    peer = user_on_worker(0 if where == "same shard" else 1, 2)
    mine = "planted"
    extra: dict[str, Any] = dict.fromkeys(("chat_id", "status", "online", "users", "delta", "details"), mine)
    extra |= {"seq": 7, "cursor": mine, "timestamp": mine, "from_": mine, "next": mine, "messages": [mine]}
    extra |= {"__proto__": {"x": mine}, "constructor": mine, "": mine, "html": f"<b>{mine}", "resumed": mine}
    with (
        RawClient.upgraded(server.port, peer, "Bob") as plain,
        RawClient.upgraded(server.port, peer, "Bob") as knowing,
        client_of(server) as client,
        client_of(server) as other,
    ):
        other.user_id = client.user_id
        plain.hello()
        knowing.hello(capabilities=CAPABILITIES)

        def say(kind: str, **data: Any) -> None:
            payload = extra | {"type": kind, "data": extra | {"from": mine, "user_id": mine} | data}
            if kind in ("MSG_ACK", "READ"):
                payload["data"]["from"] = peer
            raw(client, json.dumps(payload))

        say("HELLO", user_id=client.user_id, display_name="Alice", capabilities=CAPABILITIES)
        say("OPEN_CHAT", target_user_id=peer, target_display_name="Bob")
        say("MSG", to=peer, content="hi", message_id="m")
        say("TYPING", is_typing=True)
        say("HISTORY", **{"with": peer, "before": None})
        say("READ", message_id="m")
        say("MSG_ACK", message_id="m")
        say("PING")
        kinds = ["HELLO_ACK", "CHAT_OPENED", "MSG_ACK", "HISTORY", "PONG"]
        seen = [client.receive(kind) for kind in kinds]
        for device in (plain, knowing):
            seen += [device.receive(kind) for kind in ("CHAT_OPENED", "MSG", "TYPING")]
        for device in (plain, knowing, client):
            for frame in device.inbox:
                assert strange("fromServer", frame.payload) is None
            seen += [data for _, data in device.everything()]
        assert mine not in json.dumps(seen)
        message_of = plain_message(seen)
        assert message_of.keys() == {"from", "to", "content", "message_id", "timestamp"}


def plain_message(seen: list[dict[str, Any]]) -> dict[str, Any]:
    """The first MSG without what only who resumes gets."""
    return next(data for data in seen if data.get("content") == "hi" and "seq" not in data)
