"""The protocol reference: the files are what the tables say, and the server and its clients do what the files say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from core.auth.tokens import REASONS, load_verifier
from core.chat.lobby import Lobby
from core.process.settings import Settings
from core.reference.codes import TEXTS, Example
from core.reference.error_details import ERROR_DETAILS
from core.reference.messages import FROM_CLIENT, FROM_SERVER
from core.reference.rows import Message
from core.wire import validation
from core.wire.protocol import CAPABILITIES, ErrorCode, MessageType
from core.wire.validation import Hello, Validator
from scripts import protocol_reference
from tests.core.chat.test_expiry import NOON, Dial, come, token
from tests.core.pair import Pair
from tests.core.token_forge import SECRET, forge, private_key
from tests.core.world import TIMESTAMP, Device, World, payload_of
from tests.examples import examples
from tests.protocol_schema import is_message, problem, strange

NO_LIMITS: Final = {
    "messages_per_minute": 0,
    "typing_per_minute": 0,
    "open_chats_per_minute": 0,
    "hellos_per_minute": 0,
    "history_per_minute": 0,
    "presence_per_minute": 0,
    "pings_per_second": 0,
}


#: Asks for tokens as a server does.
VERIFIER: Final = load_verifier(Settings(auth="jwt", jwt_key=SECRET, jwt_leeway=0.0), Path.read_bytes)


# -- The files --


@pytest.mark.parametrize("path", list(protocol_reference.contents()), ids=lambda path: path.name)
def test_the_files_are_what_the_tables_say(path: Path) -> None:
    """Else: make docs."""
    assert path.read_text() == protocol_reference.contents()[path]


def test_check_tells_what_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and the name; written, it is up to date."""
    monkeypatch.setattr(protocol_reference, "PAGE", tmp_path / "docs" / "protocol.md")
    monkeypatch.setattr(protocol_reference, "SCHEMA", tmp_path / "docs" / "protocol.schema.json")
    assert protocol_reference.main(["--check"]) == 1
    assert "docs/protocol.md is out of date" in capsys.readouterr().err
    assert protocol_reference.main([]) == 0
    assert protocol_reference.main(["--check"]) == 0


@pytest.mark.parametrize("example", TEXTS, ids=lambda example: example.sent)
def test_d16_what_the_page_says_of_texts_is_what_is_stored(example: Example) -> None:
    assert validation.content(example.sent) == example.stored


def test_it_is_a_json_schema() -> None:
    """Of the draft that it names."""
    schema = protocol_reference.schema()
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(schema)
    hello = {
        "type": "HELLO",
        "data": {"user_id": "11111111-1111-4111-8111-111111111111", "display_name": "Alice"},
    }
    assert Draft202012Validator(schema).is_valid(hello)
    assert not Draft202012Validator(schema).is_valid({"type": "HELLO", "data": {}})


# -- What is really said --


class Recorder:
    """Everything that devices and the core say to each other, each message checked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        #: (side, type) -> the names of the fields that were seen.
        self.seen: dict[tuple[str, str], set[str]] = {}
        self.details: set[str] = set()
        self.codes: set[str] = set()
        send, say_bytes = Device.send, Device.say_bytes

        def sends(device: Device, frame: bytes) -> None:
            text = payload_of(frame)
            assert strange("fromServer", text) is None, text
            data = self._note("fromServer", text)
            if "code" in data:
                self.codes.add(data["code"])
                self.details |= data["details"].keys()
            send(device, frame)

        def says(device: Device, payload: bytes, settle: bool = True) -> None:
            if device.honest:  # type: ignore[attr-defined]
                assert strange("fromClient", payload) is None, payload
                self._note("fromClient", payload)
            say_bytes(device, payload, settle)

        monkeypatch.setattr(Device, "honest", True, raising=False)
        monkeypatch.setattr(Device, "send", sends)
        monkeypatch.setattr(Device, "say_bytes", says)

    def _note(self, side: str, text: bytes) -> dict[str, Any]:
        message = json.loads(text)
        self.seen.setdefault((side, message["type"]), set()).update(message["data"])
        data: dict[str, Any] = message["data"]
        return data


def named(messages: tuple[Message, ...], side: str) -> dict[tuple[str, str], set[str]]:
    """What the catalogue names, in the form of `Recorder.seen`."""
    return {(side, message.type): {field.name for field in message.fields} for message in messages}


def converse(pair: Pair) -> None:
    """Say everything that can be said, so that everything is answered that can be."""
    world, everything = pair.world, sorted(CAPABILITIES)
    ann = pair.come(pair.ann, *everything)
    plain = pair.come(pair.cat)
    bob = pair.come(pair.bob, *everything)
    tablet = pair.come(pair.ann, *everything)
    for opener, peer in ((ann, pair.bob), (plain, pair.ann)):
        opener.open_chat(peer)
    ann.say("TYPING", is_typing=True, to=pair.bob)
    plain.typing()
    world.pass_time(16.0)
    ann.msg(pair.bob, "Hi <3 \N{WAVING HAND SIGN}", "m-1")
    bob.say("MSG_ACK", message_id="m-1", **{"from": pair.ann})
    bob.say("READ", message_id="m-1", **{"from": pair.ann})
    ann.msg(pair.bob, "Hi <3 \N{WAVING HAND SIGN}", "m-1")
    plain.msg(pair.ann, "<b>without</b> an id")
    ann.msg(pair.cat, "to a plain one", "m-2")
    plain.say("MSG_ACK", message_id="m-2")
    for limit in (1, 100):
        ann.say("HISTORY", limit=limit, **{"with": pair.bob})
    ann.say("PRESENCE", user_ids=[pair.bob])
    for limit in (1, 100):
        ann.say("CHATS", limit=limit)
    following = next(page["next"] for page in ann.take("CHATS") if page.get("next"))
    ann.say("CHATS", before=following)
    for kind in ("MUTE", "UNMUTE", "HIDE"):
        ann.say(kind, user_id=pair.bob)
    for kind in ("BLOCK", "UNBLOCK"):
        ann.say(kind, user_id=pair.cat)
    plain.say("PING")
    cursor = bob.one("HELLO_ACK")["cursor"]
    bob.leave()
    plain.leave()
    world.pass_time(6.0)
    ann.msg(pair.bob, "while you are away", "m-3")
    ann.msg(pair.cat, "you too", "m-4")
    bob = pair.come(pair.bob, *everything, resume={"cursor": cursor})
    assert bob.one("HELLO_ACK")["resumed"] == "full"
    ann.msg(pair.bob, "<b>Hi.</b>", "m-8")
    ann.say("HISTORY", limit=1, **{"with": pair.bob})
    following = ann.take("HISTORY")[-1]["next"]
    ann.say("HISTORY", before=following, limit=1, **{"with": pair.bob})
    tablet.say("HELLO", user_id=pair.ann.upper(), display_name="Ann Lee-Ray", capabilities=[])
    world.pass_time(2.0)


def be_refused(pair: Pair) -> None:
    """Get every kind of ERROR."""
    world = pair.world
    ann, bob = pair.come(pair.ann, "receipts"), pair.come(pair.bob)
    stranger = world.user_on(0)
    ann.open_chat(stranger)
    ann.msg(pair.bob, "no chat yet", "m-1")
    ann.open_chat(pair.bob)
    if pair.far:
        world.cut_off.add(1)
        ann.msg(pair.bob, "nobody there", "m-2")
        world.pass_time(6.0)
    ann.msg(pair.bob, "Hi.", "m-3")
    ann.msg(pair.bob, "Something else.", "m-3")
    for _ in range(7):
        bob.say("PING")
    for _ in range(12):
        bob.typing()
    bob.say("HELLO", user_id=stranger, display_name="Somebody else")
    new = world.device(world.user_on(0))
    new.say("MSG", to=pair.ann, content="before HELLO")
    for device in (ann, bob):
        device.honest = False  # type: ignore[attr-defined]
    ann.say("SING", song="Daisy Bell")
    ann.say("HISTORY", **{"with": pair.bob})
    bob.hello("Bob Ray", capabilities=["block"])
    bob.say("BLOCK", user_id=pair.ann)
    bob.msg(pair.ann, "to one who is blocked")
    bob.say("UNBLOCK", user_id=pair.ann)
    ann.say_bytes(b"this is not JSON")
    ann.say_bytes(b"[]")
    ann.say_bytes(b'{"type":7}')
    ann.say_bytes(b'{"type":"MSG","data":null}')
    bob.say("MSG", to=pair.ann, content="x" * 1001, message_id="m-9")
    bob.say("HELLO", user_id="nobody", display_name="X")


def be_full(far: bool) -> None:
    """Write to somebody whose mailbox is full."""
    pair = Pair(far, mailbox_max=1)
    ann, bob = pair.come(pair.ann), pair.come(pair.bob)
    ann.open_chat(pair.bob)
    bob.leave()
    for name in ("m-1", "m-2"):
        ann.msg(pair.bob, "Hi.", name)
    assert ann.error()["details"]["reason"] == "mailbox_full"


def prove_it() -> None:
    """Come with a token, be told that it ends soon, bring one that is no good, then a good one."""
    world = World(1)
    user = world.user_on(0)
    for shard in world.shards:
        shard.expiries.tokens = VERIFIER
        shard.expiries.clock = Dial(world)
    device = come(world, user, 20.0)
    world.pass_time(11.0)
    device.hello(token="a.b.c")  # noqa: S106 - it is none
    device.hello(token=token(user, 600.0))
    assert device.kinds()[:3] == ["ERROR", "ERROR", "HELLO_ACK"]


@pytest.mark.parametrize("far", [False, True], ids=["same-shard", "other-shard"])
def test_what_is_said_is_what_the_schema_says(far: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole conversations, with all capabilities and with none. Every type and every field of the catalogue comes up."""
    recorder = Recorder(monkeypatch)
    converse(Pair(far, **NO_LIMITS))
    be_refused(Pair(far))
    be_full(far)
    prove_it()
    expected = named(FROM_CLIENT, "fromClient") | named(FROM_SERVER, "fromServer")
    assert recorder.seen == expected
    assert recorder.details == {field.name for field in ERROR_DETAILS}
    codes = {value for name, value in vars(ErrorCode).items() if name.isupper()}
    assert recorder.codes == codes


# -- What is refused --

#: When the token of `RIGHT` expires, in seconds since 1970.
EXPIRES: Final = NOON
_UUID: Final = "4a1d9f0e-6a5c-4f0e-9d5e-0d6f3c1a7b42"
#: Right and wrong values of every kind of field, some of them only just.
VALUES: Final[list[Any]] = [
    None,
    *(True, False, 0, 1, 2, 50, 100, 101, -1, 1.5, 10**15),
    *(
        "",
        "a",
        "ab",
        "abc",
        " ab ",
        "x" * 50,
        "x" * 51,
        "x" * 1000,
        "x" * 1001,
        "a\tb\nc",
        "a" * 64,
        "a" * 65,
    ),
    *(_UUID, _UUID.upper(), f"{_UUID}\n", f" {_UUID}", _UUID.replace("-", ""), f"{{{_UUID}}}", _UUID[:-1]),
    *(
        _UUID.replace("-4", "-1"),
        _UUID.replace("-9", "-c"),
        _UUID.replace("a", "g"),
        "\N{DIGIT ONE}" * 8 + _UUID[8:],
    ),
    *(
        "m-1",
        "m-1\n",
        "m 1",
        "m&1",
        "m<1",
        "m'1",
        'm"1',
        "m\\1",
        "m\x7f",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
    ),
    *("1.2", "1.2\n", "1.x", ".", "0.0", "1" * 15 + ".0", "1" * 16 + ".0", "\N{ARABIC-INDIC DIGIT ONE}.1"),
    *(
        [],
        ["resume"],
        ["receipts", "no such thing"],
        ["resume", 1],
        [None],
        {},
        {"cursor": "c"},
        {"cursor": None},
        [_UUID, _UUID.upper()],
        [_UUID, "a"],
        [_UUID] * 100,
        [_UUID] * 101,
    ),
]
#: Fields whose text is sanitised: how long it is then, a schema can't say.
SANITISED: Final = frozenset({"content", "display_name", "target_display_name"})

values = st.sampled_from(VALUES) | st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=2)


#: A right value for each field.
RIGHT: Final[dict[str, Any]] = {
    "user_id": _UUID,
    "target_user_id": _UUID,
    "to": _UUID,
    "from": _UUID,
    "with": _UUID,
    "display_name": "Alice",
    "target_display_name": "Bobby",
    "content": "Hi.",
    "message_id": "m-1",
    "is_typing": True,
    "capabilities": ["resume"],
    "resume": {"cursor": "c"},
    "before": "1.2",
    "limit": 7,
    "user_ids": [_UUID],
    "token": forge({"sub": _UUID, "exp": EXPIRES}),
}


def right(row: Message) -> dict[str, Any]:
    """Data of a message that is right in every field."""
    return {field.name: RIGHT[field.name] for field in row.fields}


def with_one_wrong(row: Message) -> Iterator[dict[str, Any]]:
    """Data in which one field has each of the values in turn, or is missing."""
    good = right(row)
    for name in [*good, "unknown"]:
        yield {kept: value for kept, value in good.items() if kept != name}
        for value in VALUES:
            yield good | {name: value}


def anything(row: Message) -> st.SearchStrategy[dict[str, Any]]:
    """Data with any values in any fields."""
    good = right(row)
    fields = {name: values | st.just(good.get(name)) for name in [*good, "unknown"]}
    return st.fixed_dictionaries({}, optional=fields)


def plain(name: str, value: Any) -> bool:
    """Whether the length of a value is what it will be after sanitising."""
    if name not in SANITISED or not isinstance(value, str):
        return True
    return value.isascii() and value.isprintable() and "<" not in value and value == value.strip()


def compare(message: Any, refused: bool) -> None:
    """The schema and the server agree, as far as a schema can say."""
    if not is_message("fromClient", message):
        assert refused, (
            f"the server took {message}, of which the schema says: {problem('fromClient', message)}"
        )
    elif all(plain(name, value) for name, value in message["data"].items()):
        assert not refused, f"the server refused {message}, which the schema takes"


def the_front_refuses(message: Any) -> bool:
    """Whether a front that wants tokens would not take this for a HELLO. Whose token it is, a schema can't say."""
    lobby = Lobby(Validator(), 0.0, tokens=VERIFIER)
    answer = lobby.receive(json.dumps(message).encode(), 0.0, TIMESTAMP, EXPIRES - 60.0)
    return not isinstance(answer, Hello) and lobby.refused_token is None


HELLO: Final = next(row for row in FROM_CLIENT if row.type == MessageType.HELLO)
OTHERS: Final = [row for row in FROM_CLIENT if row is not HELLO]


def wrong_tokens() -> Iterator[tuple[str, str | None]]:
    """A reason, and a token that is refused for it."""
    claims = {"sub": _UUID, "exp": EXPIRES}
    yield "missing", None
    yield "malformed", "a.b"
    yield "algorithm", forge(claims, private_key("ES256"), "ES256")
    yield "signature", forge(claims, SECRET + "!")
    yield "expired", forge(claims | {"exp": EXPIRES - 600.0})
    yield "early", forge(claims | {"nbf": EXPIRES})
    yield "issuer", forge(claims | {"iss": "somebody"})
    yield "audience", forge(claims | {"aud": "shop"})
    yield "claims", forge({"sub": _UUID})
    yield "subject", forge(claims | {"sub": _UUID.replace("a", "b")})
    yield "name", forge(claims | {"name": ""})


def test_every_reason_is_one_of_the_schema() -> None:
    """Those for which a front refuses a token, and the one of the worker when a token expires soon."""
    reasons = next(field for field in ERROR_DETAILS if field.name == "reason").type.given["enum"]
    assert reasons == [*REASONS, "expires", "banned", "mailbox_full"]
    tokens = load_verifier(Settings(auth="jwt", jwt_key=SECRET, jwt_issuer="id"), Path.read_bytes)
    for reason, wrong in wrong_tokens():
        message = {"type": HELLO.type, "data": right(HELLO) | {"token": wrong}}
        lobby = Lobby(Validator(), 0.0, tokens=tokens if reason == "issuer" else VERIFIER)
        answer = lobby.receive(json.dumps(message).encode(), 0.0, TIMESTAMP, EXPIRES - 60.0)
        assert isinstance(answer, bytes)
        text = payload_of(answer)
        assert json.loads(text)["data"]["details"]["reason"] == reason
        assert strange("fromServer", text) is None, text
        said = json.loads(text)
        said["data"]["details"]["reason"] = "because"
        assert not is_message("fromServer", said)
    # A key that is not known can only be named in a Key Set.
    assert {reason for reason, _ in wrong_tokens()} == {*REASONS} - {"key"}


def test_a_right_hello_is_taken() -> None:
    """With its token, and not without."""
    for proof, accepted in ((RIGHT["token"], True), (None, False)):
        message = {"type": HELLO.type, "data": right(HELLO) | {"token": proof}}
        lobby = Lobby(Validator(), 0.0, tokens=VERIFIER)
        answer = lobby.receive(json.dumps(message).encode(), 0.0, TIMESTAMP, EXPIRES - 60.0)
        assert isinstance(answer, Hello) is accepted


def test_the_front_refuses_what_the_schema_refuses() -> None:
    """HELLO, the one message that a front looks at."""
    for data in with_one_wrong(HELLO):
        message = {"type": HELLO.type, "data": data}
        compare(message, the_front_refuses(message))


@given(anything(HELLO))
@settings(max_examples=examples(200), deadline=None)
def test_the_front_refuses_whatever_the_schema_refuses(data: dict[str, Any]) -> None:
    """The same with several wrong fields."""
    message = {"type": HELLO.type, "data": data}
    compare(message, the_front_refuses(message))


class Bystander:
    """A device with all capabilities and nobody to talk to, so that what is right is refused for nothing but that."""

    def __init__(self) -> None:
        self.world = World(1, **NO_LIMITS)
        self.device = self.world.device(self.world.user_on(0)).hello(capabilities=sorted(CAPABILITIES))
        self.device.take()

    def refuses(self, payload: bytes) -> bool:
        """Whether the answer is VALIDATION."""
        self.world.now += 60.0  # or else the connection would be closed for too many of them
        self.device.say_bytes(payload)
        return ErrorCode.VALIDATION in self.device.errors()


@pytest.fixture(scope="module")
def bystander() -> Bystander:
    """Shared, since each message stands for itself."""
    return Bystander()


@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row.type)
def test_the_worker_refuses_what_the_schema_refuses(bystander: Bystander, row: Message) -> None:
    """Every other message of a client."""
    for data in with_one_wrong(row):
        message = {"type": row.type, "data": data}
        compare(message, bystander.refuses(json.dumps(message).encode()))


@pytest.mark.parametrize("row", [row for row in OTHERS if row.fields], ids=lambda row: row.type)
@given(data=st.data())
@settings(max_examples=examples(100), deadline=None)
def test_the_worker_refuses_whatever_the_schema_refuses(
    bystander: Bystander, row: Message, data: st.DataObject
) -> None:
    """The same with several wrong fields."""
    message = {"type": row.type, "data": data.draw(anything(row))}
    compare(message, bystander.refuses(json.dumps(message).encode()))


@given(
    message=values
    | st.fixed_dictionaries(
        {}, optional={"type": values | st.sampled_from(["PING", "PONG", "ping"]), "data": values}
    )
)
@settings(max_examples=examples(200), deadline=None)
def test_what_is_no_message_is_refused(bystander: Bystander, message: Any) -> None:
    """Whatever JSON it is."""
    assert bystander.refuses(json.dumps(message).encode()) != is_message("fromClient", message)
