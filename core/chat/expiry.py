"""When connections end because the token of their user does (D5).

A session whose token expires sits in the bucket of the second in which something is due: first the notice, then the end. Nothing is done
for a session until then, and nothing at all where tokens are not asked for. All times are in seconds since 1970, as tokens have them.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil
from typing import TYPE_CHECKING

from core.auth.tokens import ANNOUNCE_SECONDS, EXPIRED_REASON, expiry_notice
from core.wire.protocol import CloseCode

if TYPE_CHECKING:
    from core.chat.session import Session
    from core.chat.shard import Shard


class Expiries:
    """The sessions of one shard whose time is limited: those with `expires` not 0."""

    __slots__ = ("_buckets", "_shard", "_times")

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        #: second -> those for whom something is due then; and these seconds as a heap. A second stays until it is over, also when nobody is
        #: left in it: else it would be pushed again and again.
        self._buckets: dict[int, set[Session]] = {}
        self._times: list[int] = []

    def watch(self, session: Session, wall: float) -> None:
        """`session.expires` was set or changed."""
        self.forget(session)
        left = session.expires - wall
        self._put(session, session.expires - min(ANNOUNCE_SECONDS, left / 2.0))

    def forget(self, session: Session) -> None:
        """The session has ended, or is to be watched anew."""
        bucket = self._buckets.get(session.expiry_due)
        if bucket is not None:
            bucket.discard(session)

    def tick(self, wall: float, now: float) -> None:
        """Do what is due at `wall`; `now` is the same moment on the monotonic clock."""
        while self._times and self._times[0] <= wall:
            due = self._buckets.pop(heappop(self._times))
            for session in due:
                left = session.expires - wall
                if left <= 0.0:
                    self._shard.close(session, CloseCode.POLICY_VIOLATION, EXPIRED_REASON, now)
                else:
                    session.tell_expiry(expiry_notice(left))
                    self._put(session, session.expires)

    def _put(self, session: Session, due: float) -> None:
        second = ceil(due)
        session.expiry_due = second
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = set()
            heappush(self._times, second)
        bucket.add(session)
