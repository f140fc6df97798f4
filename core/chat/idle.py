"""Users who have no connection: how long they stay in memory, and what of them stays longer.

Who has a chat is likely to be back, or to be written to; a user without one takes as much memory, and after a crowd of them has left nobody
needs any of it. So those are left to the store after seconds, the others after minutes. What counts against the limits (D23) is in no
store: it stays until no limit can need it any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from core.chat.packed import Packed
from core.chat.user import User
from core.wire.protocol import UNLOAD_AFTER, UNLOAD_BRIEFLY_AFTER, UNLOAD_CHATLESS_AFTER

#: Users who are left to the store in one tick, so that the end of a crowd does not keep the others waiting: each takes microseconds.
_TICK_MAX: Final = 500


class IdleUsers:
    """`note` a user who has no connection; `tick` takes such users out of `users` after a while, and `enter` puts one in."""

    __slots__ = ("_briefly", "_chatless", "_counted", "_counted_before", "_others", "_renewed_at", "_users")

    def __init__(self, users: dict[str, User]) -> None:
        self._users: Final = users
        #: user -> when to leave it to the store, longest first.
        self._chatless: dict[str, float] = {}
        self._others: dict[str, float] = {}
        #: The same for users whom only the hook was about (D33), shortest.
        self._briefly: dict[str, float] = {}
        #: user -> `User.counted` of those who were left to the store since the time below, and in the minutes before that.
        self._counted = Packed()
        self._counted_before = Packed()
        self._renewed_at = 0.0

    def enter(self, user: User) -> None:
        """Take in a user who comes into memory: new, or as the store has it."""
        self._users[user.user_id] = user
        counted = self._counted.pop(user.user_id) or self._counted_before.pop(user.user_id)
        if counted is not None:
            user.count_again(counted)

    def remember(self, user_id: str, counted: list[list[float]]) -> None:
        """Remember what another process has counted for a user, before this one began."""
        self._counted[user_id] = counted

    def counted(self, now: float) -> Iterator[tuple[str, list[list[float]]]]:
        """Return what counts at present for everybody, in memory or not, for another process; who has nothing is left out."""
        for packed in (self._counted_before, self._counted):
            for block in packed.blocks():
                for user_id, counted in block:
                    if user_id not in self._users:
                        yield user_id, counted
        for user_id, user in self._users.items():
            counted = user.counted(now)
            if any(counted):
                yield user_id, counted

    def note(self, user: User, now: float) -> None:
        """Note that a connection of `user` has ended, or none came of it."""
        if user.sessions:
            return
        self._others.pop(user.user_id, None)
        self._chatless.pop(user.user_id, None)
        self._briefly.pop(user.user_id, None)
        if user.chats:
            self._others[user.user_id] = now + UNLOAD_AFTER
        else:
            self._chatless[user.user_id] = now + UNLOAD_CHATLESS_AFTER

    def note_briefly(self, user: User, now: float) -> None:
        """Note that nobody needs a user who was loaded a moment ago, and has no connection: there may be a crowd of them."""
        self._others.pop(user.user_id, None)
        self._chatless.pop(user.user_id, None)
        self._briefly[user.user_id] = now + UNLOAD_BRIEFLY_AFTER

    def tick(self, now: float) -> None:
        """Leave to the store who is due; called several times a second."""
        for queue in (self._chatless, self._briefly, self._others):
            for user_id in [user_id for user_id, due in islice(queue.items(), _TICK_MAX) if due <= now]:
                del queue[user_id]
                user = self._users.get(user_id)
                if user is None or user.sessions:
                    continue
                if user.busy or (user.chats and queue is self._chatless):
                    self.note(user, now)
                else:
                    self._leave_to_store(user, now)
        # An empty dictionary keeps the table that a crowd needed until it is cleared, or grows again.
        for table in (self._chatless, self._briefly, self._others, self._users):
            if not table:
                table.clear()
        if now >= self._renewed_at + UNLOAD_AFTER:
            self._renewed_at = now
            self._counted_before, self._counted = self._counted, Packed()

    def _leave_to_store(self, user: User, now: float) -> None:
        del self._users[user.user_id]
        user.mailbox.let_go()
        counted = user.counted(now)
        if any(counted):
            self._counted[user.user_id] = counted
