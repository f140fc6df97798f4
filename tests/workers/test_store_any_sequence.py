"""Any sequence of calls leaves any store with what a simple model has (D7, D10, D12, D13, D14, D30, D31, D32)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.chat.chat import Block, HookCall
from core.chat.store import nobody_waits
from core.chat.user import Message, User
from core.wire import codec
from tests.examples import examples
from tests.workers.log_files import copied
from tests.workers.store_driver import KINDS, Kind, StoreDriver
from workers.store import writes

#: In place of the store's own number, so that it is reached again and again.
SUM_AFTER: Final = 5
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
    st.tuples(st.just("append_many"), _user, _sender, st.integers(1, 2 * SUM_AFTER)),
    st.tuples(st.just("withhold"), _user, _sender, _message_id, _text),
    st.tuples(st.just("withhold"), _user, _sender, st.integers(0, 10**6).map(str), _text),
    st.tuples(st.just("acknowledge"), _user, _seq),
    st.tuples(st.just("mark_read"), _user, _seq),
    st.tuples(st.just("rename"), _user, _text),
    st.tuples(st.just("hide_or_mute"), _user, _sender, st.booleans(), st.booleans()),
    st.tuples(st.just("block"), _user, _sender, st.booleans(), st.booleans(), st.integers(0, 9)),
    st.tuples(st.just("block"), _user, _sender, st.just(False), st.just(False), st.just(0)),
    st.tuples(
        st.just("call_hook"), _user, _sender, st.none() | st.integers(1, 9), st.none() | st.integers(1, 9)
    ),
    st.tuples(st.just("turn")),
    st.tuples(st.just("evict"), _user),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("kill")),
)


class Model:
    """What the store must have, in lists and sets; and the calls, made to both."""

    def __init__(self, kind: Kind, path: Path) -> None:
        self.kind: Kind = kind
        self.path = path
        self.driver = StoreDriver(kind, path)
        #: user -> (sender, message_id, content), by position, and in the order of those that are withheld; acknowledged positions.
        self.mailboxes: dict[str, list[tuple[str, str, str]]] = {user_id: [] for user_id in _USERS}
        self.withheld: dict[str, list[tuple[str, str, str]]] = {user_id: [] for user_id in _USERS}
        self.acknowledged: dict[str, set[int]] = {user_id: set() for user_id in _USERS}
        #: (user, sender) -> up to where the user has read; whether the chat is hidden and muted; what was sent last.
        self.read_through: dict[tuple[str, str], int] = {}
        self.flags: dict[tuple[str, str], tuple[bool, bool]] = {}
        self.blocks: dict[str, dict[str, Block]] = {user_id: {} for user_id in _USERS}
        self.hook_calls: dict[str, dict[str, HookCall]] = {user_id: {} for user_id in _USERS}
        self.lasts: dict[tuple[str, str], str] = {}
        self.lamports = dict.fromkeys(_USERS, 0)
        #: How often it was killed, and how many ids were made here.
        self.kills = 0
        self.number = 0
        self.users: dict[str, User] = {}
        self.expected: list[Any] = []
        for user_id in _USERS:
            self.users[user_id] = self.driver.user(user_id)
            self.driver.store.save_user(self.users[user_id], nobody_waits)

    def append(
        self, user_id: str, sender: str, message_id: str, content: str, withheld: bool = False
    ) -> None:
        mailbox, aside = self.mailboxes[user_id], self.withheld[user_id]
        (message,) = self.driver.append(
            self.users[user_id], sender, message_id, content=content, withheld=withheld
        )
        # As the core does, which recognises a repeat itself while the message is on its way.
        if any(known[:2] == (sender, message_id) for known in mailbox + aside):
            self.expected.append((message_id, "repeat"))
        else:
            (aside if withheld else mailbox).append((sender, message_id, content))
            self.expected.append((message_id, "withheld" if withheld else len(mailbox)))
            self.lasts[user_id, sender] = message_id
            self.lamports[user_id] = message.lamport
        if any(entry[0] == message_id for entry in self.expected[:-1]):
            self.driver.settle()

    def append_many(self, user_id: str, sender: str, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.append(user_id, sender, f"many-{self.number}", "x")

    def withhold(self, user_id: str, sender: str, message_id: str, content: str) -> None:
        self.append(user_id, sender, message_id, content, withheld=True)

    def acknowledge(self, user_id: str, seq: int) -> None:
        user = self.users[user_id]
        if seq <= user.mailbox.head:
            user.mailbox.acknowledge(seq)
            self.acknowledged[user_id].add(seq)
            self.driver.store.save_acknowledged(user)

    def mark_read(self, user_id: str, seq: int) -> None:
        if seq <= self.users[user_id].mailbox.head:
            message: Message = self.driver.read(self.users[user_id], seq - 1)[0]
            self.driver.mark_read(self.users[user_id], message.sender, seq)
            before = self.read_through.get((user_id, message.sender), 0)
            self.read_through[user_id, message.sender] = max(seq, before)

    def hide_or_mute(self, user_id: str, sender: str, hidden: bool, muted: bool) -> None:
        """Kept a second later, as chats are that may wait. A message that is under way would show a hidden chat again."""
        self.driver.settle()
        user = self.users[user_id]
        if sender in user.chats:
            chat = user.chats[sender]
            chat.hidden, chat.muted = self.flags[user_id, sender] = hidden, muted
            user.save_later([chat])
            self.driver.store.save_acknowledged(user)

    def block(self, user_id: str, peer: str, by_user: bool, by_peer: bool, read_through: int) -> None:
        blocks = self.blocks[user_id]
        blocks.pop(peer, None)
        if by_user or by_peer:
            blocks[peer] = Block(by_user, by_peer, read_through)
        self.users[user_id].blocks = dict(blocks) or None
        self.driver.store.save_block(self.users[user_id], peer, nobody_waits)

    def call_hook(self, user_id: str, peer: str, since: int | None, due: int | None) -> None:
        calls = self.hook_calls[user_id]
        calls.pop(peer, None)
        if since is not None:
            calls[peer] = HookCall(since, due)
        self.users[user_id].hook_calls = dict(calls) or None
        self.driver.store.save_hook_call(self.users[user_id], peer, nobody_waits)

    def rename(self, user_id: str, name: str) -> None:
        self.users[user_id].display_name = name
        self.driver.store.save_user(self.users[user_id], nobody_waits)

    def turn(self) -> None:
        self.driver.turn()

    def evict(self, user_id: str) -> None:
        """The core forgets a user whom nothing pins, and asks for the user again."""
        self.rest(user_id)
        name, epoch = self.users[user_id].display_name, self.users[user_id].mailbox.epoch
        self.users[user_id] = self.driver.loaded(user_id)
        assert (self.users[user_id].display_name, self.users[user_id].mailbox.epoch) == (name, epoch)
        self.check_chats(user_id)

    def rest(self, user_id: str) -> None:
        """Nothing about this user is on its way any more, and nothing waits."""
        self.driver.settle()
        self.driver.advance(1)
        self.driver.until(lambda: self.users[user_id].pins == 0)

    def reopen(self) -> None:
        if self.kind == "memory":
            return
        self.driver.close()
        self.begin_again()

    def kill(self) -> None:
        """What is not closed has everything that was answered, and what it says of the chats is right."""
        if self.kind == "memory":
            return
        for user_id in _USERS:
            self.rest(user_id)
        self.kills += 1
        self.path = copied(self.path, f"killed-{self.kills}")
        self.driver.close()
        self.begin_again()

    def begin_again(self) -> None:
        assert self.driver.log == self.expected
        self.driver, self.expected = StoreDriver(self.kind, self.path), []
        for user_id in _USERS:
            self.users[user_id] = self.driver.loaded(user_id)
            self.check_chats(user_id)

    def check_chats(self, user_id: str) -> None:
        """A user who has just been loaded is as the model says."""
        user = self.users[user_id]
        assert (user.blocks or {}) == self.blocks[user_id]
        assert (user.hook_calls or {}) == self.hook_calls[user_id]
        # In memory also a repeat counts.
        assert user.mailbox.lamport == self.lamports[user_id] or self.kind == "memory"
        for sender, chat in user.chats.items():
            sent = [seq for seq, known in enumerate(self.mailboxes[user_id], 1) if known[0] == sender]
            read_through = self.read_through.get((user_id, sender), 0)
            assert chat.read_through == read_through
            assert chat.newest == max(sent, default=0)
            assert chat.unread == sum(seq > read_through for seq in sent)
            assert (chat.hidden, chat.muted) == self.flags.get((user_id, sender), (False, False))
            assert bool(chat.active_at) == bool(sent)

    def check_hook_calls(self) -> None:
        """What is found of all users together."""
        if self.kind != "memory":
            self.driver.fold()
        pending = [
            (call.due, call.since, user_id, peer)
            for user_id, calls in self.hook_calls.items()
            for peer, call in calls.items()
            if call.due is not None
        ]
        due = self.driver.ask(self.driver.store.hook_calls_due, 5, 100)
        assert sorted(due) == sorted((user_id, peer) for when, _, user_id, peer in pending if when <= 5)
        count = len(pending), min((since for _, since, *_ in pending), default=0)
        assert self.driver.ask(self.driver.store.hook_calls_pending) == count

    def check(self) -> None:
        driver = self.driver
        driver.settle()
        assert driver.log == self.expected
        self.check_hook_calls()
        for user_id in _USERS:
            self.evict(user_id)
            user, mailbox = self.users[user_id], self.mailboxes[user_id]
            assert user.mailbox.head == len(mailbox)
            found = list[Message]()
            while window := driver.read(user, len(found)):
                found += window
            assert [message.seq for message in found] == list(range(1, len(mailbox) + 1))
            assert [(message.sender, message.message_id) for message in found] == [
                known[:2] for known in mailbox
            ]
            for message in found:
                assert message.read == (message.seq <= self.read_through.get((user_id, message.sender), 0))
            frames = {message.seq: message.frame for message in found}
            for seq in range(1, len(mailbox) + 1):
                assert user.mailbox.is_acknowledged(seq) == (seq in self.acknowledged[user_id])
            for sender in _SENDERS:
                sent = [seq for seq, known in enumerate(mailbox, 1) if known[0] == sender]
                assert driver.history(user_id, sender, limit=10**4) == [
                    (seq, frames[seq]) for seq in reversed(sent)
                ]
                self.check_withheld(user_id, sender)
                if sent:
                    covered = driver.covered(user, sender, sent[0], max(sent[0], sent[-1] - 1))
                    assert [seq for seq, _, _ in covered.messages] == sent[1:-1][:512]
                    assert covered.beyond == (len(sent) > 1)
            assert [message.frame for message in driver.messages_at(user, *frames)] == list(frames.values())
            for message_id in {known[1] for known in mailbox if "many" not in known[1]}:
                same = [seq for seq, known in enumerate(mailbox, 1) if known[1] == message_id]
                assert [message.seq for message in driver.find(user, None, message_id)] == same

    def check_withheld(self, user_id: str, sender: str) -> None:
        aside = [known for known in self.withheld[user_id] if known[0] == sender]
        found = self.driver.withheld(user_id, sender, limit=10**4)
        assert len(found) == len(aside)
        for (lamport, frame), (_, message_id, content) in zip(found, reversed(aside), strict=True):
            assert codec.from_json(codec.msg_data(frame))["content"] == content
            (message,) = self.driver.find(self.users[user_id], sender, message_id)
            assert (message.withheld, message.seq, message.lamport, message.frame) == (
                True,
                0,
                lamport,
                frame,
            )
        last = self.driver.lasts(sender, user_id, "nobody")
        expected = self.lasts.get((user_id, sender))
        assert last.keys() == ({user_id} if expected is not None else set())
        for _, frame in last.values():
            assert codec.from_json(codec.msg_data(frame))["message_id"] == expected


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls=st.lists(_call, max_size=40))
def test_any_sequence_of_calls(kind: Kind, calls: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writes, "SUM_AFTER", SUM_AFTER)
        model = Model(kind, Path(directory) / "shard.db")
        try:
            for name, *arguments in calls:
                getattr(model, name)(*arguments)
            model.check()
        finally:
            model.driver.close()
