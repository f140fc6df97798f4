"""A hook for tests of the core: it answers when the test says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from core.chat.ports import HookOutcome, WaitingCall


class RecordingHook:
    """Records what the hook is told. Implements ``core.chat.ports.Hook``, for all shards of a world."""

    def __init__(self, answered: Callable[[WaitingCall, HookOutcome], None]) -> None:
        """`answered` lets the shard know, and everything happen that follows from it."""
        self._answered = answered
        #: Calls that have not been answered, oldest first.
        self.open: list[WaitingCall] = []

    def send(self, call: WaitingCall) -> None:
        self.open.append(call)

    def answer(self, outcome: HookOutcome = HookOutcome.TOLD) -> list[dict[str, Any]]:
        """Answer all calls that have come, also those that come meanwhile; what they said."""
        said = []
        while self.open:
            call = self.open.pop(0)
            said.append(json.loads(call.body))
            self._answered(call, outcome)
        return said
