"""Any sequence of what two users do on several devices, and the limits through all of it (D10, D23, D25): exact, for each user.

The model keeps when each thing was accepted, for each user over all devices and reconnections, and says of each new one whether it must
be. Everything settles after each step; troubles, restarts and several workers are ``test_any_sequence``'s.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from core.wire.protocol import PING_BURST, PING_PER_SECOND, RATE_WINDOW, STRIKES_PER_MINUTE
from tests.core.world import Device, World
from tests.examples import examples

_PICK = st.integers(0, 1000)
_LIMITS = {"MSG": 3, "TYPING": 2, "OPEN_CHAT": 4, "HELLO": 6, "HISTORY": 1, "PRESENCE": 3}
_NAMES = {
    "MSG": "messages_per_minute",
    "TYPING": "typing_per_minute",
    "OPEN_CHAT": "open_chats_per_minute",
    "HELLO": "hellos_per_minute",
    "HISTORY": "history_per_minute",
    "PRESENCE": "presence_per_minute",
}
#: What answers each when it is accepted; nothing comes for a TYPING, and a CHAT_OPENED or PRESENCE may be about what the other one did.
_ANSWERS: dict[str, set[str]] = {
    "MSG": {"MSG_ACK"},
    "TYPING": set(),
    "OPEN_CHAT": set(),
    "HELLO": {"HELLO_ACK"},
    "HISTORY": {"HISTORY"},
    "PRESENCE": set(),
}
#: What may come besides.
_BESIDES = {"PRESENCE", "TYPING", "MSG", "CHAT_OPENED"}


class LimitMachine(RuleBasedStateMachine):
    """See the module's docstring."""

    @initialize(far=st.booleans())
    def build(self, far: bool) -> None:
        """Two users with a device each, and a chat."""
        self.world = World(2, **{_NAMES[kind]: limit for kind, limit in _LIMITS.items()})
        self.users = [self.world.user_on(0), self.world.user_on(int(far))]
        self.devices: list[Device] = []
        #: (user, what) -> when it was accepted.
        self.accepted: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.pings: defaultdict[Device, list[float]] = defaultdict(list)
        self.strikes: defaultdict[Device, list[float]] = defaultdict(list)
        #: Ids of the messages that each user got accepted.
        self.messages: defaultdict[str, list[str]] = defaultdict(list)
        self.number = 0
        self.come(0)
        self.come(1)
        self.do(self.devices[0], "OPEN_CHAT")

    # -- Inside --

    def device(self, pick: int) -> Device:
        return self.devices[pick % len(self.devices)]

    def peer(self, device: Device) -> str:
        return self.users[device.user_id == self.users[0]]

    def wait(self, user: str, kind: str) -> float:
        """Seconds until the user may do this, by the definition: no window of a minute may hold more than the limit."""
        inside = [time for time in self.accepted[user, kind] if time + RATE_WINDOW - self.world.now > 0]
        limit = _LIMITS[kind]
        return 0.0 if len(inside) < limit else inside[-limit] + RATE_WINDOW - self.world.now

    def do(self, device: Device, kind: str, **more: Any) -> None:
        """Something right, which is accepted or refused as the model says."""
        everything: dict[str, dict[str, Any]] = {
            "MSG": {"to": self.peer(device), "content": "Hi."},
            "TYPING": {"is_typing": True},
            "OPEN_CHAT": {"target_user_id": self.peer(device), "target_display_name": "Whoever"},
            "HELLO": {
                "user_id": device.user_id,
                "display_name": "Somebody",
                "capabilities": ["history", "presence_delta"],
            },
            "HISTORY": {"with": self.peer(device)},
            "PRESENCE": {"user_ids": [self.peer(device)]},
        }
        data = everything[kind]
        wait, now = self.wait(device.user_id, kind), self.world.now
        device.take()
        device.say(kind, **data, **more)
        came = device.take()
        errors = [message["data"] for message in came if message["type"] == "ERROR"]
        answers = {message["type"] for message in came} - _BESIDES - {"ERROR"}
        if wait:
            assert [error["code"] for error in errors] == ["RATE_LIMITED"]
            assert errors[0]["details"]["retry_after"] == pytest.approx(wait, abs=0.002)
            assert not answers
        else:
            assert not errors
            assert answers == _ANSWERS[kind]
            self.accepted[device.user_id, kind].append(now)

    # -- What users do --

    @rule(pick=_PICK)
    def come(self, pick: int) -> None:
        """On another device, up to three; one that is refused goes."""
        user = self.users[pick % 2]
        if sum(device.user_id == user for device in self.devices) >= 3:
            return
        device = self.world.device(user)
        refused = bool(self.wait(user, "HELLO"))
        self.do(device, "HELLO")
        if refused:
            device.leave()
        else:
            self.devices.append(device)

    @precondition(lambda self: len(self.devices) > 1)
    @rule(pick=_PICK)
    def leave(self, pick: int) -> None:
        """Which resets nothing."""
        self.devices.pop(pick % len(self.devices)).leave()

    @precondition(lambda self: self.devices)
    @rule(pick=_PICK, kind=st.sampled_from(["TYPING", "OPEN_CHAT", "HELLO", "HISTORY", "PRESENCE"]))
    def act(self, pick: int, kind: str) -> None:
        """Anything that is limited but MSG; HELLO is said again on the same connection."""
        self.do(self.device(pick), kind)

    @precondition(lambda self: self.devices)
    @rule(pick=_PICK, count=st.integers(1, 5))
    def write(self, pick: int, count: int) -> None:
        """New messages."""
        device = self.device(pick)
        for _ in range(count):
            self.number += 1
            if not self.wait(device.user_id, "MSG"):
                self.messages[device.user_id].append(f"m{self.number}")
            self.do(device, "MSG", message_id=f"m{self.number}")

    @precondition(lambda self: self.devices)
    @rule(pick=_PICK, which=_PICK)
    def repeat(self, pick: int, which: int) -> None:
        """A message that was accepted is answered again whatever the limit says, and does not count (D10)."""
        device = self.device(pick)
        mine = self.messages[device.user_id]
        if mine:
            device.take()
            device.msg(self.peer(device), message_id=mine[which % len(mine)])
            assert [message["type"] for message in device.take() if message["type"] != "PRESENCE"] == [
                "MSG_ACK"
            ]

    @precondition(lambda self: self.devices)
    @rule(pick=_PICK)
    def write_to_nobody(self, pick: int) -> None:
        """Who is refused has not used up anything (D10)."""
        device = self.device(pick)
        device.take()
        device.msg(self.world.user_on(0))
        code = device.error()["code"]
        assert code == "USER_NOT_FOUND" or (code == "RATE_LIMITED" and self.wait(device.user_id, "MSG"))

    @precondition(lambda self: self.devices)
    @rule(pick=_PICK, count=st.integers(1, 8))
    def ping(self, pick: int, count: int) -> None:
        """So many a second on each connection, and a burst."""
        device = self.device(pick)
        answered = self.pings[device]
        for _ in range(count):
            device.take()
            device.say("PING")
            if device.take("PONG"):
                answered.append(self.world.now)
            else:
                retry = device.error()["details"]["retry_after"]
                assert 0 < retry <= 1 / PING_PER_SECOND
                assert len(answered) >= PING_BURST
        for index, since in enumerate(answered):
            assert len(answered) - index <= PING_BURST + (self.world.now - since) * PING_PER_SECOND + 1e-6

    @precondition(lambda self: self.devices)
    @rule(
        pick=_PICK,
        count=st.integers(1, 15),
        payload=st.sampled_from([b"", b"[]", b'{"type":"MSG","data":{}}', b"{"]),
    )
    def say_nonsense(self, pick: int, count: int, payload: bytes) -> None:
        """So much a minute is answered on each connection; one more ends it (D25), and costs the user nothing else."""
        device = self.device(pick)
        for _ in range(count):
            recent = [time for time in self.strikes[device] if time + RATE_WINDOW - self.world.now > 0]
            device.take()
            device.say_bytes(payload)
            if len(recent) >= STRIKES_PER_MINUTE:
                assert device.closed is not None
                assert device.closed[0] == 1008
                self.devices.remove(device)
                return
            assert device.error()["code"] == "VALIDATION"
            self.strikes[device].append(self.world.now)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 7.0, 20.0, 59.9, 60.0, 130.0]))
    def pass_time(self, seconds: float) -> None:
        """Also so much that who is away is left to the store."""
        self.world.pass_time(seconds, max(0.1, seconds / 10))
        for device in self.devices:
            device.last_heard = self.world.now


TestAnyLimits = LimitMachine.TestCase
TestAnyLimits.settings = settings(max_examples=examples(30), stateful_step_count=30)
