"""The time between the upgrade and HELLO, in the front (D2).

Who a connection belongs to is not known yet, so nothing but PING is answered with anything but an error; the first valid HELLO ends
it. The caller peeks at the socket: a message that `receive` calls a HELLO must be left where it is (the worker will read it
again), every other one has been dealt with here and must be consumed.
"""

from __future__ import annotations

from typing import Any

from core import codec
from core.frames import FrameError
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


class Lobby:
    """One connection before HELLO."""

    __slots__ = ("_pings", "_pings_per_second", "_strikes", "_validator")

    def __init__(self, validator: Validator, now: float, pings_per_second: float = PING_PER_SECOND) -> None:
        self._validator = validator
        self._pings_per_second = pings_per_second
        self._pings = TokenBucket(pings_per_second, PING_BURST, now)
        self._strikes = SlidingWindow(STRIKES_PER_MINUTE)

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
            if refusal.code == ErrorCode.VALIDATION and not self._strikes.allow(now):
                raise FrameError(
                    CloseCode.POLICY_VIOLATION, "too many invalid messages in a minute"
                ) from None
            return codec.error(refusal, kind, data.get("message_id"))
