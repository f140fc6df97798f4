"""A world of two shards that is made in a fraction of a millisecond, people in it, and what must be true of all that they are sent.

It is the world of the core's own tests (``tests.core.world``), with its settings and its placement made once, and without chance: user ids
and mailbox epochs are the same in every world, so that an input means the same whenever it runs.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final
from unittest.mock import patch

from core import placement
from core.process.settings import Settings
from core.wire import sanitize
from core.wire.protocol import CloseCode, ErrorCode, MessageType
from core.wire.validation import Validator
from fuzz.mutate_json import ANN, BOB, CAT
from tests.core import world as core_world
from tests.core.world import Device, SeededChance, World, payload_of

VALIDATOR: Final = Validator()
CAPABILITIES: Final = ["carbons", "history", "presence_delta", "receipts", "resume"]
#: The largest ERROR there may be: what comes back of an offending message is bounded.
_ERROR_MAX: Final = 4096
_CLOSE_CODES: Final = frozenset(CloseCode) - {CloseCode.INTERNAL_ERROR} | {1006}
_ERROR_CODES: Final = frozenset(v for name, v in vars(ErrorCode).items() if name.isupper())
_TYPES: Final = frozenset(value for name, value in vars(MessageType).items() if name.isupper())
_MARKUP: Final = re.compile(r"<[A-Za-z/!?]")
_UNLIMITED: Final = {
    "messages_per_minute": 0,
    "typing_per_minute": 0,
    "open_chats_per_minute": 0,
    "hellos_per_minute": 0,
    "history_per_minute": 0,
    "presence_per_minute": 0,
    "pings_per_second": 0,
}


@cache
def _settings(limits: bool) -> Settings:
    return Settings(workers=2) if limits else Settings(workers=2, **_UNLIMITED)  # type: ignore[arg-type]


class _OneEpoch(SeededChance):
    """All mailboxes have the same epoch, so that inputs can name it."""

    def epoch(self) -> str:
        return "0" * 12


class Client(Device):
    """A connection, and what it has seen."""

    def __init__(self, world: World, user_id: str, strikes: int = 0) -> None:
        super().__init__(world, user_id, strikes)
        self.seen: set[tuple[str, str]] = set()
        self.position = 0
        self.cursor: str | None = None
        #: All that it was ever sent.
        self.sent: list[bytes] = []
        self.pinged: list[bytes] = []

    def send(self, frame: bytes) -> None:
        super().send(frame)
        self.sent.append(frame)

    def ping(self, payload: bytes) -> None:
        super().ping(payload)
        self.pinged.append(payload)

    def read(self) -> None:
        """Take what has come, and check it."""
        frames, self._frames = self._frames, []
        for frame in frames:
            message = json.loads(payload_of(frame))
            assert message.keys() == {"type", "data"}, message
            kind, data = message["type"], message["data"]
            assert kind in _TYPES, message
            if kind == "MSG":
                self._message(data)
            elif kind == "MSG_ACK":
                self._acknowledged(data)
            elif kind == "ERROR":
                assert len(frame) <= _ERROR_MAX, f"an ERROR of {len(frame)} bytes"
                assert data["code"] in _ERROR_CODES, data
            elif kind == "HELLO_ACK" and "cursor" in data:
                # Who resumes gets again what came behind that position, also on the same connection.
                self.cursor, self.position = data["cursor"], int(data["cursor"].split(".")[1])
                self.seen.clear()
            elif kind == "PRESENCE":
                assert all(3 <= len(user["display_name"]) <= 50 for user in data["users"]), data
        if self.closed is not None:
            assert self.closed[0] in _CLOSE_CODES, self.closed
            assert self.closed[1], f"{self.closed[0]} without a reason"

    def _message(self, data: dict[str, Any]) -> None:
        content = data["content"]
        assert self.user_id in (data["from"], data["to"]), "somebody else's message"
        assert 1 <= len(content) <= 1500, content
        assert sanitize.sanitize_text(content) == content, content
        assert not _MARKUP.search(content), content
        if data["to"] != self.user_id or "seq" not in data:
            return
        assert data["seq"] > self.position, data
        self.position, self.cursor = data["seq"], data["cursor"]
        assert (data["from"], data["message_id"]) not in self.seen, data
        self.seen.add((data["from"], data["message_id"]))

    def _acknowledged(self, data: dict[str, Any]) -> None:
        stored = [
            json.loads(payload_of(row.frame))["data"]["content"]
            for store in self.world.stores
            for record in store.records.values()
            for row in record.rows
            if row.sender == self.user_id and row.message_id == data["message_id"]
        ]
        assert stored, f"acknowledged, and not stored: {data}"
        assert "content" not in data or data["content"] in stored, f"something else was stored: {data}"


def new_world(limits: bool) -> World:
    """Two shards without users; the limits are the default ones, or off."""
    with (
        patch.object(core_world, "Settings", lambda **_: _settings(limits)),
        patch.object(core_world, "SeededChance", _OneEpoch),
    ):
        return World()


def come(world: World, user_id: str, name: str, **data: Any) -> Client:
    """Open a connection that has said HELLO."""
    client = Client(world, user_id)
    client.hello(name, **data)
    client.read()
    return client


def people(world: World) -> list[Client]:
    """Ann twice, Bob twice, each once with all capabilities, and Cat; Ann has a chat with Bob."""
    more: dict[str, Any] = {"capabilities": CAPABILITIES}
    ann, bob = come(world, ANN, "Ann Lee"), come(world, BOB, "Bob Ray")
    clients = [
        ann,
        come(world, ANN, "Ann Lee", **more),
        bob,
        come(world, BOB, "Bob Ray", **more),
        come(world, CAT, "Cat Poe"),
    ]
    ann.open_chat(BOB)
    ann.msg(BOB, "Hi.", "m1")
    for client in clients:
        client.read()
    return clients


#: It takes half a millisecond, and always comes to the same.
placement._owners = cache(placement._owners)
