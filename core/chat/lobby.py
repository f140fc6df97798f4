"""The time between the upgrade and HELLO, in the front (D2).

Who a connection belongs to is not known yet, so nothing but PING is answered with anything but an error; the first valid HELLO ends
it. The caller peeks at the socket: a message that `receive` calls a HELLO must be left where it is (the worker will read it
again), every other one has been dealt with here and must be consumed.

Where a token has to prove who the client is (D5), a HELLO without a valid one is not a valid HELLO; after three of them it is over.
"""

from __future__ import annotations

import math
from typing import Any, Final

from core.auth.proof import NO_PROOF
from core.auth.tokens import TRIES, TokenVerifier
from core.chat.pace import Pace, shared_credit
from core.chat.ratelimit import SlidingWindow, TokenBucket, ping_limited
from core.measures import OTHER
from core.wire import codec
from core.wire.frames import FrameError
from core.wire.protocol import (
    PING_BURST,
    PING_PER_SECOND,
    STRIKES_PER_MINUTE,
    CloseCode,
    ErrorCode,
    MessageType,
    Refusal,
)
from core.wire.validation import Hello, Validator

#: All message types that there are.
_TYPES: Final = frozenset(value for name, value in vars(MessageType).items() if name.isupper())


class Lobby:
    """One connection before HELLO."""

    __slots__ = (
        "_bearer",
        "_pace",
        "_pings",
        "_pings_per_second",
        "_spare",
        "_strikes",
        "_tokens",
        "_tries",
        "_validator",
        "held_until",
        "proof",
        "refused",
        "refused_field",
        "refused_token",
        "refused_type",
    )

    def __init__(
        self,
        validator: Validator,
        now: float,
        pings_per_second: float = PING_PER_SECOND,
        tokens: TokenVerifier | None = None,
        bearer: str | None = None,
        spare: TokenBucket | None = None,
    ) -> None:
        """`tokens` checks what proves who a client is, where something has to; `bearer` is the token that came with the upgrade; `spare` is
        what messages may come to nothing on all connections of a front together (``core.chat.pace``).
        """
        self._validator = validator
        self._tokens = tokens
        self._bearer = bearer
        #: HELLOs without a valid token.
        self._tries = 0
        #: What the token of the last HELLO has proven.
        self.proof = NO_PROOF
        self._pings_per_second = pings_per_second
        self._pings = TokenBucket(pings_per_second, PING_BURST, now)
        self._strikes = SlidingWindow(STRIKES_PER_MINUTE)
        #: Until when the client is not to be read from, since its messages come to nothing (D23); may be over.
        self.held_until = 0.0
        self._pace: Pace | None = None
        self._spare = shared_credit() if spare is None else spare
        #: The code of the ERROR that the last message was answered with, if it was.
        self.refused: str | None = None
        #: Then also the type of the message and the field that is wrong, for logs.
        self.refused_type = OTHER
        self.refused_field: str | None = None
        #: And why its token was refused, if that is why: one of ``core.auth.tokens.REASONS``.
        self.refused_token: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the connection is to be closed with 1008 once the last answer is written: too many HELLOs without a valid token."""
        return self._tries >= TRIES

    def strikes(self, now: float) -> int:
        """Count the invalid messages of the last minute, which count on after the hand-over (D25)."""
        return self._strikes.recent(now)

    def receive(self, payload: bytes, now: float, timestamp: bytes, wall: float = math.inf) -> Hello | bytes:
        """Decide what the text message `payload` means: a valid HELLO, or the frame to answer with.

        `timestamp` is the time of day for PONG, `wall` the same in seconds since 1970. Raises FrameError when the connection is to be
        closed: invalid UTF-8 (1007), or too many messages that break the rules (1008).
        """
        kind: str | None = None
        data: dict[str, Any] = {}
        self.refused = self.refused_token = None
        try:
            kind, data = codec.decode(payload)
            if kind == MessageType.HELLO:
                hello = self._validator.hello(data)
                if self._tokens is not None:
                    self._prove(self._tokens, data.get("token"), hello.user_id, wall)
                return hello
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
            if self._pace is None:
                self._pace = Pace(now)
            self.held_until = self._pace.charge(now, self._spare)
            return codec.error(refusal, kind, data.get("message_id"))

    def _prove(self, tokens: TokenVerifier, token: Any, user_id: str, wall: float) -> None:
        try:
            self.proof = tokens.prove(self._bearer if token is None else token, user_id, wall)
        except Refusal as refusal:
            if refusal.code == ErrorCode.UNAUTHORIZED:
                self._tries += 1
                self.refused_token = refusal.details["reason"]
            raise
