"""The time between the upgrade and HELLO, in the front (D2).

Who a connection belongs to is not known yet, so nothing but PING is answered with anything but an error; the first valid HELLO ends
it. The caller peeks at the socket: a message that `receive` calls a HELLO must be left where it is (the worker will read it
again), every other one has been dealt with here and must be consumed.
"""

from __future__ import annotations

from typing import Any, Final

from core import codec
from core.frames import FrameError
from core.metrics import OTHER
from core.protocol import (
    PING_BURST,
    PING_PER_SECOND,
    STRIKES_PER_MINUTE,
    CloseCode,
    ErrorCode,
    MessageType,
    Refusal,
)
from core.ratelimit import SlidingWindow, TokenBucket, ping_limited
from core.validation import Hello, Validator

#: All message types that there are.
_TYPES: Final = frozenset(value for name, value in vars(MessageType).items() if name.isupper())


class Lobby:
    """One connection before HELLO."""

    __slots__ = (
        "_pings",
        "_pings_per_second",
        "_strikes",
        "_validator",
        "refused",
        "refused_field",
        "refused_type",
    )

    def __init__(self, validator: Validator, now: float, pings_per_second: float = PING_PER_SECOND) -> None:
        self._validator = validator
        self._pings_per_second = pings_per_second
        self._pings = TokenBucket(pings_per_second, PING_BURST, now)
        self._strikes = SlidingWindow(STRIKES_PER_MINUTE)
        #: The code of the ERROR that the last message was answered with, if it was.
        self.refused: str | None = None
        #: Then also the type of the message and the field that is wrong, for logs.
        self.refused_type = OTHER
        self.refused_field: str | None = None

    def strikes(self, now: float) -> int:
        """Invalid messages of the last minute, which count on after the hand-over (D25)."""
        return self._strikes.recent(now)

    def receive(self, payload: bytes, now: float, timestamp: bytes) -> Hello | bytes:
        """What the text message `payload` means: a valid HELLO, or the frame to answer with.

        `timestamp` is the time of day for PONG. Raises FrameError when the connection is to be closed: invalid UTF-8 (1007), or too
        many messages that break the rules (1008).
        """
        kind: str | None = None
        data: dict[str, Any] = {}
        self.refused = None
        try:
            kind, data = codec.decode(payload)
            if kind == MessageType.HELLO:
                return self._validator.hello(data)
            if kind == MessageType.PING:
                wait = self._pings.retry_after(now)
                if wait:
                    raise ping_limited(self._pings_per_second, wait)
                return codec.pong(timestamp)
            raise Refusal(
                ErrorCode.UNAUTHORIZED,
                "say HELLO first: nothing else is accepted before it",
                expected=MessageType.HELLO,
            )
        except Refusal as refusal:
            self.refused = refusal.code
            self.refused_type = kind if kind is not None and kind in _TYPES else OTHER
            self.refused_field = refusal.details.get("field")
            if refusal.code == ErrorCode.VALIDATION and not self._strikes.allow(now):
                raise FrameError(
                    CloseCode.POLICY_VIOLATION, "too many invalid messages in a minute"
                ) from None
            return codec.error(refusal, kind, data.get("message_id"))
