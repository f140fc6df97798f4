"""A device that notes all that comes to it, and when, so that two conversations can be compared."""

from __future__ import annotations

import json
from typing import Any

from tests.core.world import Device, World, payload_of

#: When it came, what it is, and what it says.
Event = tuple[float, str, Any]


class Noting(Device):
    """`events` has everything that comes: frames, pings, a close, and until when the client is not read from."""

    def __init__(self, world: World, user_id: str) -> None:
        self.events: list[Event] = []
        #: (sender, message id) of messages that came, and the last cursor.
        self.came: list[tuple[str, str]] = []
        self.cursor: str | None = None
        self._held_last = 0.0
        super().__init__(world, user_id)

    def send(self, frame: bytes) -> None:
        if not self.open:
            return
        super().send(frame)
        message = json.loads(payload_of(frame))
        data = message["data"]
        if message["type"] == "MSG" and data["to"] == self.user_id:
            self.came.append((data["from"], data["message_id"]))
        self.cursor = data.get("cursor", self.cursor)
        self._note("frame", message)

    def ping(self, payload: bytes) -> None:
        super().ping(payload)
        self._note("ping", payload)

    def close(self, code: int, reason: str) -> None:
        super().close(code, reason)
        self._note("close", (code, reason))

    def hold(self, until: float) -> None:
        """A new worker says again what the one before has said."""
        super().hold(until)
        if until != self._held_last:
            self._held_last = until
            self._note("hold", until)

    def _note(self, what: str, value: Any) -> None:
        self.events.append((self.world.now, what, value))
