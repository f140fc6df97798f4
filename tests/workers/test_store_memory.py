"""workers.store.memory: nothing is kept, yet everything happens in the order that ``core.ports.Store`` promises (D20)."""

from __future__ import annotations

import pytest

from core.mailbox import Message
from core.settings import Settings
from core.user import Chat, User
from workers.store.memory import MemoryStore


class Recorder:
    """The shard's side: notes in one list what the store reports, and when."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.store.listen(self._appended)
        self.log: list[str] = []
        self.also: list[Message] = []

    def done(self, name: str, failure: str | None, now: float) -> None:
        self.log.append(f"{name} at {now:g}" + (f" failed: {failure}" if failure else ""))

    def _appended(self, messages: list[Message], failure: str | None, now: float) -> None:
        self.done("+".join(message.message_id for message in messages), failure, now)
        for message in self.also:
            self.store.append(message)
        self.also = []


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def user() -> User:
    return User("alice", "Alice", Settings())


def message(message_id: str) -> Message:
    return Message("alice", "bob", message_id, b"frame")


def test_nothing_is_reported_before_the_flush(recorder: Recorder, user: User) -> None:
    recorder.store.append(message("1"))
    recorder.store.save_user(user, lambda failure, now: recorder.done("user", failure, now))
    assert recorder.log == []
    assert recorder.store.flush(5.0) is False
    assert recorder.log == ["1 at 5", "user at 5"]


def test_order_is_that_of_the_calls_and_neighbours_are_committed_together(
    recorder: Recorder, user: User
) -> None:
    store = recorder.store
    store.append(message("1"))
    store.append(message("2"))
    store.save_chat(user, Chat("bob", "Bob"), lambda failure, now: recorder.done("chat", failure, now))
    store.append(message("3"))
    store.save_user(user, lambda failure, now: recorder.done("user", failure, now))
    store.flush(1.0)
    assert recorder.log == ["1+2 at 1", "chat at 1", "3 at 1", "user at 1"]


def test_what_is_written_meanwhile_waits_for_the_next_flush(recorder: Recorder) -> None:
    recorder.also = [message("2")]
    recorder.store.append(message("1"))
    assert recorder.store.flush(1.0) is True
    assert recorder.log == ["1 at 1"]
    assert recorder.store.flush(2.0) is False
    assert recorder.log == ["1 at 1", "2 at 2"]


def test_nothing_to_commit(recorder: Recorder) -> None:
    assert recorder.store.flush(1.0) is False
    assert recorder.log == []


def test_it_knows_nobody(recorder: Recorder, user: User) -> None:
    """Whoever is known is in the shard's memory; a restart forgets all, which is what this store promises."""
    recorder.store.save_user(user, lambda failure, now: None)
    recorder.store.flush(1.0)
    assert recorder.store.load("alice") is None
    recorder.store.acknowledged(message("1"))
    recorder.store.forget(user)
