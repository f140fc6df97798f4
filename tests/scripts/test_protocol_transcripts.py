"""The examples and sequences of docs/protocol.md: they are valid, and the core says exactly what a transcript says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.auth.proof import Proof
from core.auth.tokens import load_verifier
from core.process.settings import Settings
from core.reference.messages import FROM_CLIENT, FROM_SERVER
from core.reference.rows import Message
from scripts import protocol_examples, protocol_transcripts
from scripts.protocol_examples import ALICE, BOB
from scripts.protocol_transcripts import COMES, GETS, GOES, SAYS, TRANSCRIPTS, WAITS, Line, Transcript
from tests.core.chat.test_expiry import NOON, Dial, token
from tests.core.token_forge import SECRET
from tests.core.world import START, Device, World
from tests.protocol_schema import Side, strange

SIDES: list[tuple[Side, tuple[Message, ...], dict[str, tuple[protocol_examples.Example, ...]]]] = [
    ("fromClient", FROM_CLIENT, protocol_examples.FROM_CLIENT),
    ("fromServer", FROM_SERVER, protocol_examples.FROM_SERVER),
]
#: Seconds that the tokens of the transcript hold, until the warning comes, and a step of the clock.
TOKEN_SECONDS, PATIENCE, STEP = 130.0, 90.0, 0.1


# -- Examples --


@pytest.mark.parametrize(("side", "messages", "examples"), SIDES, ids=[side for side, _, _ in SIDES])
def test_each_message_has_valid_examples_that_show_all_its_fields(
    side: Side,
    messages: tuple[Message, ...],
    examples: dict[str, tuple[protocol_examples.Example, ...]],
) -> None:
    assert set(examples) == {message.type for message in messages}
    for message in messages:
        rows = examples[message.type]
        for _, data in rows:
            assert strange(side, json.dumps({"type": message.type, "data": data})) is None
        shown = {name for _, data in rows for name in data}
        assert shown == {field.name for field in message.fields}


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_each_line_of_a_transcript_is_valid(transcript: Transcript) -> None:
    for line in transcript.lines:
        if line.type:
            side: Side = "fromClient" if line.what == SAYS else "fromServer"
            assert strange(side, json.dumps({"type": line.type, "data": line.data})) is None


# -- Transcripts --


class Replay:
    """Plays a transcript against the core: says what clients say, and compares what the server sends, in its order."""

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        self.world = World(2)
        self.devices: dict[str, Device] = {}
        #: What the transcript writes in place of cursors and tokens -> what the server wrote, or takes.
        self.bound: dict[str, str] = {}
        self.expires = 0.0
        self.begin()

    def begin(self) -> None:
        """Make everything true that goes without saying."""
        words = self.transcript.begins
        if words:
            capabilities = [name for name in ("receipts", "history", "chats", "block") if name in words]
            for user in (ALICE, BOB):
                self.come(user).hello({ALICE: "Alice", BOB: "Bobby"}[user], capabilities=capabilities)
        if "chatting" in words:
            self.devices[ALICE].open_chat(BOB)
        if "two messages" in words:
            for name, content in (("a-1", "one"), ("a-2", "two")):
                self.devices[ALICE].msg(BOB, content, name)
        self.world.pass_time(2.0)
        for device in self.devices.values():
            device.answer_those_that_came()
        if "bob away" in words:
            self.devices.pop(BOB).leave()
        self.world.pass_time(6.0)
        for device in self.devices.values():
            device.take()

    def come(self, user: str) -> Device:
        device = self.devices[user] = Device(self.world, user)
        return device

    def prove(self, user: str) -> None:
        """Let the server ask for tokens, and connect with one as a front does."""
        self.world.now = START
        settings = Settings(auth="jwt", jwt_key=SECRET, jwt_leeway=0.0)
        for shard in self.world.shards:
            shard.expiries.tokens = load_verifier(settings, Path.read_bytes)
            shard.expiries.clock = Dial(self.world)
        for number, placeholder in enumerate(protocol_transcripts.TOKENS):
            self.bound[placeholder] = token(user, TOKEN_SECONDS * (number + 1))
        device = self.devices[user]
        device.session.on_closed(self.world.now)
        shard = self.world.shard_of(user)
        device.session = shard.connect(device, user, 0, self.world.now, Proof(NOON + TOKEN_SECONDS))

    def play(self) -> None:
        for line in self.transcript.lines:
            if line.what == COMES:
                self.come(line.user_id)
                if self.transcript is protocol_transcripts.RENEWAL:
                    self.prove(line.user_id)
            elif line.what == GOES:
                self.devices.pop(line.user_id).leave()
            elif line.what == SAYS:
                self.devices[line.user_id].say(line.type, **self.real(line.data))
            elif line.what == GETS:
                self.compare(line, self.next(line))
            else:
                assert line.what == WAITS
        for device in self.devices.values():
            assert [kind for kind in device.kinds() if kind != "PRESENCE"] == []

    def real(self, value: Any) -> Any:
        """What a client says, with what the server gave in place of the placeholders."""
        if isinstance(value, dict):
            return {name: self.real(inner) for name, inner in value.items()}
        return self.bound.get(value, value) if isinstance(value, str) else value

    def next(self, line: Line) -> dict[str, Any]:
        """The next message of this person; a PRESENCE counts only where the transcript has one."""
        device, end = self.devices[line.user_id], self.world.now + PATIENCE
        while self.world.now < end:
            while device.inbox:
                message = device.inbox.pop(0)
                if message["type"] == line.type or message["type"] != "PRESENCE":
                    return message
            self.world.pass_time(STEP)
        raise AssertionError(f"{line.type} did not come")

    def compare(self, line: Line, message: dict[str, Any]) -> None:
        assert message["type"] == line.type
        came, expected = message["data"], line.data
        assert list(came) == list(expected), "field by field, in this order"
        for name, value in expected.items():
            if name in ("cursor", "next") and value is not None:
                assert self.bound.setdefault(value, came[name]) == came[name]
            elif name == "details" and "expires_in" in value:
                assert came[name] | {"expires_in": value["expires_in"]} == value
                assert abs(came[name]["expires_in"] - value["expires_in"]) <= 1
            elif name != "message":  # a sentence for developers, which may change
                assert came[name] == value


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_the_core_says_what_a_transcript_says(transcript: Transcript) -> None:
    Replay(transcript).play()
