"""Stores of all workers of a data directory, in which seeded random calls change everything that can change."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from core.chat.chat import Block, HookCall
from core.chat.store import nobody_waits
from core.chat.user import User
from core.placement import Placement
from tests.workers.store_driver import StoreDriver
from tests.workers.store_files import connect, shards
from workers.store.sqlite import SqliteStore


class Writers:
    """One store for each worker, which all have been loaded; a context manager that closes them. Settings are those of the stores."""

    def __init__(self, directory: Path, seed: int, **settings: Any) -> None:
        self.directory = directory
        self.drivers = [StoreDriver("sqlite", path, **settings) for path in shards(directory)]
        self._random = random.Random(seed)
        self._placement = Placement(len(self.drivers))
        self._users: dict[str, User] = {}
        self._lonely: list[str] = []
        #: (recipient, sender, message id) of all that was sent; and how many numbers were given.
        self.sent: list[tuple[str, str, str]] = []
        self._number = 0
        self._looks = 0
        for driver in self.drivers:
            with closing(connect(driver.path)) as connection:
                for (user_id,) in connection.execute("SELECT user_id FROM users ORDER BY user_id").fetchall():
                    self._users[user_id] = driver.loaded(user_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for driver in self.drivers:
            driver.close()

    def driver_of(self, user_id: str) -> StoreDriver:
        return self.drivers[self._placement.worker_of(user_id)]

    def shown(self) -> dict[str, dict[str, tuple[Any, ...]]]:
        """What their lists of chats show to all users with chats."""
        return {
            user_id: {
                peer: (chat.active_at, chat.newest, chat.read_through, chat.unread)
                for peer, chat in user.chats.items()
            }
            for user_id, user in self._users.items()
            if user.chats
        }

    # -- Calls --

    def write(self, calls: int) -> None:
        """Make some calls, about anybody; not all of them have been answered at the end."""
        choices: list[tuple[Callable[[], None], int]] = [
            (self.send, 30),
            (self.send_withheld, 5),
            (self.send_again, 2),
            (self.acknowledge, 10),
            (self.mark_read, 4),
            (self.rename, 3),
            (self.confirm, 3),
            (self.block, 3),
            (self.call_hook, 4),
            (self.come, 2),
            (self.go, 2),
            (self.turn, 20),
        ]
        calls_, weights = zip(*choices, strict=True)
        for call in self._random.choices(calls_, weights, k=calls):
            call()

    def send(self, *, withheld: bool = False) -> None:
        user, sender = self._anybody(), self._random.choice(list(self._users))
        self._number += 1
        self.driver_of(user.user_id).append(
            user, sender, f"new-{self._number}", content=f"№ {self._number}", withheld=withheld
        )
        self.sent.append((user.user_id, sender, f"new-{self._number}"))

    def send_withheld(self) -> None:
        self.send(withheld=True)

    def send_again(self) -> None:
        """Send what is stored already, which goes into the database file at once."""
        if self.sent:
            user_id, sender, message_id = self._random.choice(self.sent)
            driver = self.driver_of(user_id)
            driver.settle()
            driver.append(self._users[user_id], sender, message_id)
            driver.settle()
            assert driver.log[-1] == (message_id, "repeat")

    def acknowledge(self) -> None:
        user = self._anybody()
        mailbox = user.mailbox
        if mailbox.head > mailbox.acknowledged_through:
            mailbox.acknowledge(
                self._random.randint(
                    mailbox.acknowledged_through + 1, min(mailbox.head, mailbox.acknowledged_through + 3)
                )
            )
            self.driver_of(user.user_id).store.save_acknowledged(user)

    def mark_read(self) -> None:
        user = self._anybody()
        driver = self.driver_of(user.user_id)
        found = driver.read(user, self._random.randint(0, max(0, user.mailbox.head - 1)))
        if found:
            driver.mark_read(user, found[0].sender, found[0].seq)

    def block(self) -> None:
        """Block somebody, or think better of it."""
        user, peer = self._anybody(), self._random.choice(list(self._users))
        blocks = user.blocks or {}
        if peer in blocks:
            del blocks[peer]
        else:
            blocks[peer] = Block(self._random.random() < 0.5, self._random.random() < 0.5, user.mailbox.head)
        user.blocks = blocks or None
        self.driver_of(user.user_id).store.save_block(user, peer, nobody_waits)

    def call_hook(self) -> None:
        """Note that the hook is to be told, or was told, or that the user is back."""
        user, peer = self._anybody(), self._random.choice(list(self._users))
        calls = user.hook_calls or {}
        if peer in calls and calls[peer].due is None:
            del calls[peer]
        else:
            calls[peer] = HookCall(1000, None if peer in calls else 2000)
        user.hook_calls = calls or None
        self.driver_of(user.user_id).store.save_hook_call(user, peer, nobody_waits)

    def rename(self) -> None:
        user = self._anybody()
        self._number += 1
        user.display_name = f"Name {self._number}"
        self.driver_of(user.user_id).store.save_user(user, nobody_waits)

    def confirm(self) -> None:
        user = self._anybody()
        chats = [chat for chat in user.chats.values() if chat.saved and not chat.confirmed]
        if chats:
            chats[0].confirmed = True
            user.save_later(chats[:1])
            self.driver_of(user.user_id).store.save_acknowledged(user)

    def come(self) -> None:
        """Somebody new, with a message or without chats."""
        self._number += 1
        user_id = f"user-{self._number}"
        driver = self.driver_of(user_id)
        user = driver.user(user_id)
        driver.store.save_user(user, nobody_waits)
        if self._random.random() < 0.5:
            self._lonely.append(user_id)
        else:
            self._users[user_id] = user

    def go(self) -> None:
        """Somebody without chats is forgotten."""
        if self._lonely:
            user_id = self._lonely.pop(self._random.randrange(len(self._lonely)))
            self.driver_of(user_id).store.forget(user_id)

    def turn(self) -> None:
        for driver in self.drivers:
            driver.advance(self._random.choice([0, 0, 0.01, 0.5]))
            driver.turn()

    def rest(self) -> None:
        """Have everything that was called in the database files, also what may wait."""
        for driver in self.drivers:
            store = store_of(driver)
            store.hurry(True)
            driver.until(lambda store=store: not store._unsaved)  # type: ignore[misc]
            driver.fold()

    def _anybody(self) -> User:
        return self._users[self._random.choice(list(self._users))]

    # -- The other process --

    def begin(self) -> None:
        """Track what changes in all stores."""
        self._ask(lambda driver, done: store_of(driver).tracking.begin(done, driver.now))

    def end(self) -> None:
        """Track nothing any more."""
        self._ask(lambda driver, done: store_of(driver).tracking.end(done))

    def looks(self, place: Path, *, at_rest: bool = False) -> list[Path]:
        """What has changed since the last call, in files of this directory; with all that was called before, if there is nothing more."""
        self._looks += 1
        paths = [place / f"look-{self._looks}-{worker}" for worker in range(len(self.drivers))]
        waiting = dict(zip(map(id, self.drivers), paths, strict=True))
        for driver in self.drivers:
            driver.store.hurry(at_rest)
        self._ask(lambda driver, done: store_of(driver).tracking.look(waiting[id(driver)], done))
        return paths

    def _ask(self, call: Callable[[StoreDriver, Callable[[str | None, float], None]], None]) -> None:
        answers: list[str | None] = []
        for driver in self.drivers:
            call(driver, lambda failure, now: answers.append(failure))
            expected = len(answers) + 1
            driver.until(lambda expected=expected: len(answers) == expected)  # type: ignore[misc]
        assert answers == [None] * len(self.drivers)


def store_of(driver: StoreDriver) -> SqliteStore:
    """The store of a driver."""
    assert isinstance(driver.store, SqliteStore)
    return driver.store
