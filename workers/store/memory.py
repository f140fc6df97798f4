"""The store that keeps nothing beyond the process: what the shard holds in memory *is* the store.

It still commits in the order of the calls and only in `flush`, once a loop turn, so that the core sees the same sequence of events as with
a store on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from core.mailbox import Message
from core.ports import Done
from core.user import Chat, User

#: Called with all messages that were committed together.
Appended = Callable[[list[Message], str | None, float], None]


class MemoryStore:
    """Implements ``core.ports.Store``. `listen` must be called once, before anything is stored."""

    def __init__(self) -> None:
        self._appended: Appended | None = None
        #: What this loop turn has written, in order: messages, and the callbacks of everything else.
        self._writes: list[Message | Done] = []

    def listen(self, appended: Appended) -> None:
        """Say who is told about committed messages."""
        self._appended = appended

    def load(self, user_id: str) -> User | None:
        """Nobody: whoever is known is in the shard's memory."""
        return None

    def save_user(self, user: User, done: Done) -> None:
        self._writes.append(done)

    def save_chat(self, user: User, chat: Chat, done: Done) -> None:
        self._writes.append(done)

    def after_writes(self, done: Done) -> None:
        self._writes.append(done)

    def append(self, message: Message) -> None:
        self._writes.append(message)

    def acknowledged(self, message: Message) -> None:
        """Nothing to do: the mailbox remembers."""

    def forget(self, user: User) -> None:
        """Nothing to do: the shard has dropped the user."""

    def flush(self, now: float) -> bool:
        """Commit what this loop turn has written, telling everybody concerned; whether more was written meanwhile."""
        assert self._appended is not None, "listen() comes first"
        writes, self._writes = self._writes, []
        position = 0
        try:
            while position < len(writes):
                write = writes[position]
                if isinstance(write, Message):
                    # All messages up to the next write of another kind are committed together.
                    start = position
                    while position < len(writes) and isinstance(writes[position], Message):
                        position += 1
                    self._appended(cast("list[Message]", writes[start:position]), None, now)
                else:
                    position += 1
                    write(None, now)
        finally:
            # Only a bug gets here with some left; they are next turn's.
            self._writes[:0] = writes[position:]
        return bool(self._writes)
