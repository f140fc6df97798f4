"""When connections end because the token of their user does (D5), and what a new token changes (D34).

A session whose token expires sits in the bucket of the second in which something is due: first the notice, then the end. Nothing is done
for a session until then, and nothing at all where tokens are not asked for. All times are in seconds since 1970, as tokens have them.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil
from typing import TYPE_CHECKING, Any

from core.auth.tokens import (
    ANNOUNCE_SECONDS,
    EXPIRED_REASON,
    TRIES,
    TRIES_REASON,
    TokenVerifier,
    expiry_notice,
)
from core.wire import codec
from core.wire.frames import FrameError
from core.wire.protocol import CloseCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.ports import Clock
    from core.chat.session import Session


class Expiries:
    """The sessions of one shard whose time is limited: those whose `proof` expires."""

    __slots__ = ("_buckets", "_errors", "_times", "clock", "tokens")

    def __init__(
        self, clock: Clock, tokens: TokenVerifier | None, errors: dict[tuple[str, str], int]
    ) -> None:
        """`errors` counts ERROR by the message type that it answers, and code."""
        self.clock = clock
        self._errors = errors
        #: Checks what proves who a client is, where something has to. Another one takes its place when the keys are read again.
        self.tokens = tokens
        #: second -> those for whom something is due then; and these seconds as a heap. A second stays until it is over, also when nobody is
        #: left in it: else it would be pushed again and again.
        self._buckets: dict[int, set[Session]] = {}
        self._times: list[int] = []

    def renew(self, session: Session, token: Any, now: float) -> None:
        """Take the token of another HELLO. Raises Refusal when it is no good, and FrameError(1008) after three such in a row."""
        if self.tokens is None or token is None:
            return
        try:
            proof = self.tokens.prove(token, session.claimed, self.clock.seconds())
        except Refusal as refusal:
            session.token_tries += 1
            if session.token_tries < TRIES:
                raise
            session.refuse(refusal, MessageType.HELLO, None, now)
            raise FrameError(CloseCode.POLICY_VIOLATION, TRIES_REASON) from None
        session.token_tries = 0
        renewed = session.proof.renewed(proof)
        if renewed != session.proof and not session.closed:
            session.use_proof(renewed)
            self.watch(session)

    def watch(self, session: Session) -> None:
        """Watch the session, whose `proof` was set or changed."""
        self.forget(session)
        left = session.proof.expires - self.clock.seconds()
        self._put(session, session.proof.expires - min(ANNOUNCE_SECONDS, left / 2.0))

    def watch_again(self, session: Session, due: int) -> None:
        """Watch a session of the predecessor, for which something is due in that second: the notice, or the end behind it."""
        if session.proof.expires:
            self._put(session, due)

    def forget(self, session: Session) -> None:
        """Note that the session has ended, or is to be watched anew."""
        bucket = self._buckets.get(session.expiry_due)
        if bucket is not None:
            bucket.discard(session)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if not self._times:
            return
        wall = self.clock.seconds()
        while self._times and self._times[0] <= wall:
            due = self._buckets.pop(heappop(self._times))
            for session in due:
                left = session.proof.expires - wall
                if left <= 0.0:
                    session.close(CloseCode.POLICY_VIOLATION, EXPIRED_REASON, now)
                else:
                    notice = expiry_notice(left)
                    self._errors[MessageType.HELLO, notice.code] += 1
                    session.connection.send(codec.error(notice, MessageType.HELLO))
                    self._put(session, session.proof.expires)

    def _put(self, session: Session, due: float) -> None:
        second = ceil(due)
        session.expiry_due = second
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = set()
            heappush(self._times, second)
        bucket.add(session)
