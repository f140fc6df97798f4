"""Any sequence of calls leaves any store with what a simple model has (D7, D10, D12, D13, D14)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.chat.store import nobody_waits
from core.chat.user import Message, User
from tests.examples import examples
from tests.workers.store_driver import KINDS, Kind, StoreDriver

_USERS: Final = ("bob", "carol")
_SENDERS: Final = ("alice", "dave", "erin")

_user = st.sampled_from(_USERS)
_sender = st.sampled_from(_SENDERS)
_message_id = st.sampled_from(["1", "2", "\\", "x" * 64])
_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
_seq = st.integers(1, 12)
_call = st.one_of(
    st.tuples(st.just("append"), _user, _sender, _message_id, _text),
    st.tuples(st.just("append"), _user, _sender, st.integers(0, 10**6).map(str), _text),
    st.tuples(st.just("acknowledge"), _user, _seq),
    st.tuples(st.just("mark_read"), _user, _seq),
    st.tuples(st.just("rename"), _user, _text),
    st.tuples(st.just("turn")),
    st.tuples(st.just("evict"), _user),
    st.tuples(st.just("reopen")),
)


class Model:
    """What the store must have, in lists and sets; and the calls, made to both."""

    def __init__(self, kind: Kind, path: Path) -> None:
        self.kind: Kind = kind
        self.path = path
        self.driver = StoreDriver(kind, path)
        #: user -> (sender, message_id, content), by position; acknowledged positions, positions that were read, the name.
        self.mailboxes: dict[str, list[tuple[str, str, str]]] = {user_id: [] for user_id in _USERS}
        self.acknowledged: dict[str, set[int]] = {user_id: set() for user_id in _USERS}
        self.marked: dict[str, set[int]] = {user_id: set() for user_id in _USERS}
        self.users: dict[str, User] = {}
        self.expected: list[Any] = []
        for user_id in _USERS:
            self.users[user_id] = self.driver.user(user_id)
            self.driver.store.save_user(self.users[user_id], nobody_waits)

    def append(self, user_id: str, sender: str, message_id: str, content: str) -> None:
        mailbox = self.mailboxes[user_id]
        self.driver.append(self.users[user_id], sender, message_id, content=content)
        # As the core does, which recognises a repeat itself while the message is on its way.
        if any(known[:2] == (sender, message_id) for known in mailbox):
            self.expected.append((message_id, "repeat"))
        else:
            mailbox.append((sender, message_id, content))
            self.expected.append((message_id, len(mailbox)))
        if any(entry[0] == message_id for entry in self.expected[:-1]):
            self.driver.settle()

    def acknowledge(self, user_id: str, seq: int) -> None:
        user = self.users[user_id]
        if seq <= user.mailbox.head:
            user.mailbox.acknowledge(seq)
            self.acknowledged[user_id].add(seq)
            self.driver.store.save_acknowledged(user)

    def mark_read(self, user_id: str, seq: int) -> None:
        if seq <= self.users[user_id].mailbox.head:
            message: Message = self.driver.read(self.users[user_id], seq - 1)[0]
            self.driver.store.save_read(message, nobody_waits)
            self.marked[user_id].add(seq)

    def rename(self, user_id: str, name: str) -> None:
        self.users[user_id].display_name = name
        self.driver.store.save_user(self.users[user_id], nobody_waits)

    def turn(self) -> None:
        self.driver.turn()

    def evict(self, user_id: str) -> None:
        """The core forgets a user whom nothing pins, and asks for the user again."""
        self.driver.settle()
        self.driver.advance(1)
        self.driver.until(lambda: self.users[user_id].pins == 0)
        name, epoch = self.users[user_id].display_name, self.users[user_id].mailbox.epoch
        self.users[user_id] = self.driver.loaded(user_id)
        assert (self.users[user_id].display_name, self.users[user_id].mailbox.epoch) == (name, epoch)

    def reopen(self) -> None:
        if self.kind == "memory":
            return
        self.driver.close()
        assert self.driver.log == self.expected
        self.driver, self.expected = StoreDriver(self.kind, self.path), []
        for user_id in _USERS:
            self.users[user_id] = self.driver.loaded(user_id)

    def check(self) -> None:
        driver = self.driver
        driver.settle()
        assert driver.log == self.expected
        for user_id in _USERS:
            self.evict(user_id)
            user, mailbox = self.users[user_id], self.mailboxes[user_id]
            assert user.mailbox.head == len(mailbox)
            found = driver.read(user, 0)
            assert [message.seq for message in found] == list(range(1, len(mailbox) + 1))
            assert [(message.sender, message.message_id) for message in found] == [
                known[:2] for known in mailbox
            ]
            assert {message.seq for message in found if message.read} == self.marked[user_id]
            frames = {message.seq: message.frame for message in found}
            for seq in range(1, len(mailbox) + 1):
                assert user.mailbox.is_acknowledged(seq) == (seq in self.acknowledged[user_id])
            for sender in _SENDERS:
                sent = [seq for seq, known in enumerate(mailbox, 1) if known[0] == sender]
                assert driver.history(user_id, sender) == [(seq, frames[seq]) for seq in reversed(sent)]
            for message_id in {known[1] for known in mailbox}:
                same = [seq for seq, known in enumerate(mailbox, 1) if known[1] == message_id]
                assert [message.seq for message in driver.find(user, None, message_id)] == same


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls=st.lists(_call, max_size=40))
def test_any_sequence_of_calls(kind: Kind, calls: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = Model(kind, Path(directory) / "shard.db")
        try:
            for name, *arguments in calls:
                getattr(model, name)(*arguments)
            model.check()
        finally:
            model.driver.close()
