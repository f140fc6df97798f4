"""Drives a store as a worker does: turns of a real event loop, and the core's side of what it calls back.

`StoreDriver` has the store, a clock that a test may put forward, and one `log` of all callbacks. Nothing sleeps: `until` runs turns until
something is so, `settle` until everything that was called has been called back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import uvloop

from core.chat.chat import Chat
from core.chat.store import Covered, Listeners, nobody_waits
from core.chat.user import Message, User
from core.process.settings import Settings
from core.wire import codec
from core.wire.timestamps import format_timestamp
from workers.chance import SystemChance
from workers.store.memory import MemoryStore
from workers.store.shard_store import ShardStore
from workers.store.sqlite import FOLD_AFTER, SqliteStore

Kind = Literal["memory", "sqlite"]
KINDS: Final[tuple[Kind, ...]] = ("memory", "sqlite")

#: The time of day when a driver starts: noon of the first of January 2024.
NOON: Final = 1_704_110_400.0
DAY: Final = 86_400.0
#: Seconds after which a test that waits has failed.
_PATIENCE: Final = 20.0


class StoreDriver:
    """A store, and the world around it. `close` must be called at the end."""

    def __init__(self, kind: Kind, path: Path, after: float = 0.0, **settings: Any) -> None:
        """`after` is how many seconds after noon it starts."""
        self.settings = Settings(**{"durability": "os", "retention_days": 0, **settings})
        self.path = path
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        #: How far the test has put the clocks forward, and by how much the time of day is wrong.
        self._forward = after
        self.wrong_by = 0.0
        self._begin = time.monotonic()
        #: What was called back, in order.
        self.log: list[Any] = []
        self.purged: list[tuple[str, int]] = []
        self.strangers: list[str] = []
        #: How many messages each call of `appended` brought.
        self.groups: list[int] = []
        self._woken = False
        self.store: ShardStore
        if kind == "memory":
            self.store = MemoryStore(self.settings)
        else:
            self.store = SqliteStore(path, self.settings, self.loop, self._wake, self.time_of_day)
        self.store.listen(Listeners(self._appended, self._purged, self._strangers))
        self.store.start()

    # -- Time --

    @property
    def now(self) -> float:
        """The monotonic clock."""
        return time.monotonic() + self._forward

    def time_of_day(self) -> float:
        """Seconds since 1970."""
        return NOON + self.now - self._begin + self.wrong_by

    def advance(self, seconds: float) -> None:
        """Put the clocks forward."""
        self._forward += seconds

    # -- Turns --

    def _wake(self) -> None:
        self._woken = True
        self.loop.stop()

    def turn(self) -> bool:
        """One end of a loop turn; whether the store wants another."""
        return self.store.flush(self.now)

    def until(self, condition: Callable[[], bool]) -> None:
        """Turns until something is so; the loop sleeps while the store waits for its thread or for a timer."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "the store does not call back"
            if not self.turn() and not condition():
                # As a worker does, which looks at the time every tenth of a second.
                tick = self.loop.call_later(0.1, self._wake)
                self.loop.run_forever()
                tick.cancel()

    def settle(self) -> None:
        """Everything that was called has been called back."""
        barrier: list[object] = []
        self.store.after_writes(lambda failure, now: barrier.append(failure))
        self.store.load("nobody", lambda found, failure, now: barrier.append(found))
        self.until(lambda: len(barrier) == 2)

    def fold(self) -> None:
        """Everything that was called is in the database file, not only in the commit log."""
        self.settle()
        self.advance(FOLD_AFTER)
        self.until(lambda: self.store.stats()["store_unfolded_rows"] == 0)

    def later(self, seconds: float) -> None:
        """Let some time go by, in steps, with everything that is due in it."""
        steps = max(1, round(seconds / 0.5))
        for _ in range(min(steps, 40)):
            self.advance(seconds / min(steps, 40))
            self.settle()

    def close(self) -> None:
        """Close the store and the loop."""
        self.store.close()
        self.loop.close()

    def crash(self) -> None:
        """Leave everything as it is, as a killed process does."""
        self.loop.close()

    # -- What the store calls --

    def _appended(self, messages: list[Message], failure: str | None, now: float) -> None:
        self.groups.append(len(messages))
        for message in messages:
            assert message.user.pins > 0, "a user must stay in memory until the callback"
            if failure is not None:
                self.log.append((message.message_id, failure))
            elif message.original is not None:
                self.log.append((message.message_id, "repeat"))
            elif message.withheld:
                self.log.append((message.message_id, "withheld"))
            else:
                self._commit(message)
                self.log.append((message.message_id, message.seq))

    def _commit(self, message: Message) -> None:
        """What Mailbox.commit does, without its cache, and the core with the time of a message."""
        message.user.mailbox.head += 1
        message.seq = message.user.mailbox.head
        chat = message.chat
        chat.newest = message.seq
        chat.unread += 1
        chat.active_at = max(chat.active_at, codec.msg_timestamp(message.frame))

    def _purged(self, purged: list[tuple[str, int]], now: float) -> None:
        self.purged += purged

    def _strangers(self, user_ids: list[str], now: float) -> None:
        self.strangers += user_ids

    # -- What the core calls --

    def user(self, user_id: str, display_name: str | None = None) -> User:
        """A new user, whom the store has not been told about."""
        return User(user_id, display_name or user_id.title(), self.settings, SystemChance().epoch())

    def done(self, name: str) -> Callable[[str | None, float], None]:
        """A Done that notes `name` when it is called, with the failure if there is one."""

        def note(failure: str | None, now: float) -> None:
            self.log.append(name if failure is None else (name, failure))

        return note

    def message(
        self,
        user: User,
        sender: str,
        message_id: str,
        content: str = "hello",
        *,
        sent_at: float | None = None,
        withheld: bool = False,
    ) -> Message:
        """A message for `user`; the chat is opened if there is none."""
        chat = user.chats.get(sender)
        if chat is None:
            chat = user.chats[sender] = Chat(sender, sender.title())
        timestamp = format_timestamp(int((self.time_of_day() if sent_at is None else sent_at) * 1000))
        frame = codec.msg(sender, user.user_id, codec.to_json(content), message_id, timestamp)
        message = Message(user, chat, message_id, frame)
        # As Mailbox.reserve does.
        user.mailbox.lamport = message.lamport = user.mailbox.lamport + 1
        message.withheld = withheld
        return message

    def append(
        self, user: User, sender: str, *message_ids: str, content: str = "hello", withheld: bool = False
    ) -> list[Message]:
        """Several messages, given to the store."""
        messages = [
            self.message(user, sender, message_id, content, withheld=withheld) for message_id in message_ids
        ]
        for message in messages:
            self.store.append(message)
        return messages

    def mark_read(self, user: User, peer: str, through: int) -> None:
        """READ, as the core does it: `through` is the position of a message of this peer."""
        chat = user.chats[peer]
        if through > chat.read_through:
            before = chat.unread
            beyond = self.covered(user, peer, through, through).beyond
            # What has come since the call is not counted.
            chat.read_through, chat.unread = through, beyond + chat.unread - before
            self.store.save_chat(user, chat, nobody_waits)

    def ask(self, call: Callable[..., None], *arguments: Any, **options: Any) -> Any:
        """What the store answers to a read."""
        answers: list[Any] = []

        def note(found: Any, failure: str | None, now: float) -> None:
            answers.append((found, failure))

        call(*arguments, note, **options)
        assert not answers, "no callback comes from within a call"
        self.until(lambda: bool(answers))
        found, failure = answers[0]
        assert failure is None, failure
        return found

    def load(self, user_id: str) -> User | None:
        """`Store.load`, and so for the others."""
        user: User | None = self.ask(self.store.load, user_id)
        return user

    def loaded(self, user_id: str) -> User:
        """A user whom the store must know."""
        user = self.load(user_id)
        assert user is not None
        return user

    def find(self, user: User, sender: str | None, message_id: str) -> list[Message]:
        found: list[Message] = self.ask(self.store.find, user, sender, message_id)
        return found

    def read(self, user: User, after: int) -> list[Message]:
        found: list[Message] = self.ask(self.store.read, user, after)
        return found

    def senders(self, user: User, after: int) -> list[tuple[int, Chat]]:
        found: list[tuple[int, Chat]] = self.ask(self.store.senders, user, after)
        return found

    def covered(self, user: User, peer: str, after: int, through: int) -> Covered:
        found: Covered = self.ask(self.store.covered, user, user.chats[peer], after, through)
        return found

    def messages_at(self, user: User, *positions: int) -> list[Message]:
        """By position."""
        found: list[Message] = self.ask(self.store.messages_at, user, list(positions))
        return sorted(found, key=lambda message: message.seq)

    def lasts(self, sender: str, *recipients: str) -> dict[str, tuple[int, bytes]]:
        found: dict[str, tuple[int, bytes]] = self.ask(self.store.lasts, sender, list(recipients))
        return found

    def withheld(
        self, user_id: str, peer: str, before: int | None = None, limit: int = 100
    ) -> list[tuple[int, bytes]]:
        """`Store.history` of what is withheld."""
        found = self.ask(self.store.history, user_id, peer, before, limit, withheld=True)
        assert all(position == lamport for position, lamport, _ in found)
        return [(lamport, frame) for _, lamport, frame in found]

    def history(
        self, user_id: str, peer: str, before: int | None = None, limit: int = 100
    ) -> list[tuple[int, bytes]]:
        found: list[tuple[int, int, bytes]] = self.ask(self.store.history, user_id, peer, before, limit)
        counts = [lamport for _, lamport, _ in found]
        assert counts == sorted(set(counts), reverse=True), "as they were given"
        return [(seq, frame) for seq, _, frame in found]


#: Makes a driver of the store under test; takes settings.
Make = Callable[..., StoreDriver]
