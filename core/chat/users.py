"""The users of one shard that are in memory, and the route to all others, which leads through the store.

A user is in memory while connected, and for a while afterwards (``core.chat.idle``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from core.chat.idle import IdleUsers
from core.chat.store import Found, Store
from core.chat.user import User
from core.events import fields

_log = logging.getLogger("fastchat.core")


class Users:
    """`find` calls back with any user of the shard; `known` are those in memory, by user id."""

    __slots__ = ("_loading", "_store", "deleted", "idle", "known", "loaded", "worker")

    def __init__(self, worker: int, store: Store) -> None:
        #: The worker that they all live on.
        self.worker = worker
        self._store = store
        self.known: Final[dict[str, User]] = {}
        self.idle = IdleUsers(self.known)
        #: Users who are being deleted (D36), of this shard and of others: of this one, nobody finds them. And what is to be done with a
        #: user who has been loaded, while there are any.
        self.deleted: Final[set[str]] = set()
        self.loaded: Callable[[User], None] | None = None
        #: Users who are being looked up -> what is to be done with them.
        self._loading: dict[str, list[Found[User | None]]] = {}

    def __len__(self) -> int:
        """Return how many are in memory."""
        return len(self.known)

    def __contains__(self, user_id: str) -> bool:
        """Return whether a user is in memory."""
        return user_id in self.known

    def __getitem__(self, user_id: str) -> User:
        """Return a user in memory. Raises KeyError."""
        return self.known[user_id]

    @property
    def loading(self) -> int:
        """How many are being looked up."""
        return len(self._loading)

    def find(self, user_id: str, then: Found[User | None], now: float) -> None:
        """Call `then` with a user of this shard, None for one never seen: at once if the user is in memory, else when the store has looked.

        What is to be done with one user is done in the order of the calls.
        """
        user = self.known.get(user_id)
        if user is not None or user_id in self.deleted:
            then(user, None, now)
            return
        waiting = self._loading.get(user_id)
        if waiting is None:
            self._loading[user_id] = [then]
            self._store.load(user_id, partial(self._loaded, user_id))
        else:
            waiting.append(then)

    def purged(self, mailboxes: list[tuple[str, int]], now: float) -> None:
        """Note that the store has removed old messages: (user, last position that is gone)."""
        for user_id, through in mailboxes:
            user = self.known.get(user_id)
            if user is not None:
                user.purge(through)

    def strangers(self, user_ids: list[str], now: float) -> None:
        """Forget those of these users who are not here: they have no chats, and left their last connection a day ago (D23)."""
        for user_id in user_ids:
            user = self.known.get(user_id)
            if user is None and user_id not in self._loading:
                self._store.forget(user_id)
            elif user is not None and user.is_stranger:
                self.known.pop(user_id).mailbox.let_go()
                self._store.forget(user_id)

    def _loaded(self, user_id: str, user: User | None, failure: str | None, now: float) -> None:
        if user is not None and user_id not in self.deleted:
            self.idle.enter(user)
            self.idle.note(user, now)
            if self.deleted and self.loaded is not None:
                self.loaded(user)
        for then in self._loading.pop(user_id):
            try:
                # The one before may have made the user.
                then(self.known.get(user_id), failure, now)
            except Exception:
                _log.exception("bug while handling what waited for a user", extra=fields(user=user_id))
