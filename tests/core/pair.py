"""The usual cast of the tests of the core: two users on one shard or on two, in a world of their own."""

from __future__ import annotations

import math
from typing import Any

from core.wire.protocol import CONFIRM_PING_INTERVAL
from tests.core.world import Device, World


class Pair:
    """Ann on worker 0, Bob on the same one or (`far`) on worker 1, and Cat, who stands for everybody else, on worker 1."""

    def __init__(self, far: bool, **settings: Any) -> None:
        self.far = far
        self.world = World(2, **settings)
        self.ann = self.world.user_on(0)
        self.bob = self.world.user_on(1 if far else 0)
        self.cat = self.world.user_on(1)

    def online(self, *users: str) -> list[Device]:
        """A device for each of these users that has said HELLO, and has read what came."""
        devices = [self.come(user) for user in users]
        for device in devices:
            device.take()
        return devices

    def come(self, user: str, *capabilities: str, **hello: Any) -> Device:
        """A new device that has said HELLO with these capabilities, and has read nothing yet."""
        names = {self.ann: "Ann Lee", self.bob: "Bob Ray", self.cat: "Cat Poe"}
        if capabilities:
            hello["capabilities"] = list(capabilities)
        return self.world.device(user).hello(names[user], **hello)

    def chatting(self, *capabilities: str) -> list[Device]:
        """A device of Ann's and one of Bob's; Ann has opened a chat with Bob, both have read that, and the server knows it."""
        ann, bob = self.come(self.ann, *capabilities), self.come(self.bob, *capabilities)
        ann.open_chat(self.bob)
        for device in (ann, bob):
            # It is asked whether it has read that, as if time had passed.
            self.world.shard_of(device.user_id).delivery.tick(self.world.now + CONFIRM_PING_INTERVAL)
            device.answer_those_that_came()
            device.session.confirm_asked_at = -math.inf  # that is long ago
            device.take()
        return [ann, bob]
