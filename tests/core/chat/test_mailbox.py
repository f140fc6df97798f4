"""core.chat.mailbox: against a model that is as simple as it gets; what it keeps in memory; and cursors (D13)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.chat import mailbox as module
from core.chat.chat import Chat
from core.chat.mailbox import Mailbox
from core.chat.user import Message, User
from core.process.settings import Settings
from tests.examples import examples

_SENDERS = st.sampled_from(["ann", "bob"])
_IDS = st.sampled_from(["1", "2", "3"])
_CHATS = {name: Chat(name, name) for name in ("ann", "bob")}
_CAT = User("cat", "Cat Poe", Settings(), "0123456789ab")


def message(sender: str = "ann", message_id: str = "1") -> Message:
    """Any message to Cat."""
    return Message(_CAT, _CHATS[sender], message_id, b"")


class MailboxMachine(RuleBasedStateMachine):
    """Any sequence of calls, next to a list of all messages in the order of their commits."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox: Mailbox[Message] = Mailbox("0123456789ab")
        #: Reserved and not committed; committed, the message of seq 1 first; positions.
        self.reserved: list[Message] = []
        self.committed: list[Message] = []
        self.acknowledged: set[int] = set()
        self.purged = 0

    @property
    def waiting(self) -> list[int]:
        """Committed and not acknowledged."""
        return [seq for seq in range(1, len(self.committed) + 1) if seq not in self.acknowledged]

    @rule(sender=_SENDERS, message_id=_IDS)
    def reserve(self, sender: str, message_id: str) -> None:
        """Give it a message, unless it has one of this sender and id."""
        if self.mailbox.find(sender, message_id) is None:
            new = message(sender, message_id)
            self.mailbox.reserve(new)
            self.reserved.append(new)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """The store has it."""
        new = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        self.mailbox.commit(new)
        self.committed.append(new)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """The store could not take it."""
        new = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        self.mailbox.withdraw(new)
        assert self.mailbox.find(new.sender, new.message_id) is None

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Any message, in any order; it says whether that is news."""
        seq = data.draw(st.integers(1, len(self.committed)))
        assert self.mailbox.acknowledge(seq) is (seq not in self.acknowledged)
        self.acknowledged.add(seq)

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def acknowledge_through(self, data: st.DataObject) -> None:
        """All up to any position."""
        seq = data.draw(st.integers(0, len(self.committed)))
        self.mailbox.acknowledge_through(seq)
        self.acknowledged.update(range(1, seq + 1))

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        """The oldest are no longer kept; nobody waits for an acknowledgement of them."""
        through = data.draw(st.integers(0, len(self.committed)))
        self.mailbox.purge(through)
        self.purged = max(self.purged, through)
        self.acknowledged.update(range(1, through + 1))

    @rule()
    def restore(self) -> None:
        """Another process reads what this one has saved."""
        saved = self.mailbox
        for new in self.reserved:
            saved.withdraw(new)
        self.reserved.clear()
        self.mailbox = Mailbox(saved.epoch)
        through = saved.acknowledged_through
        self.mailbox.restore(
            saved.head, saved.lamport, saved.purged_through, through, sorted(self.acknowledged)
        )

    @rule(cursor=st.integers(0, 12))
    def look_for_the_next(self, cursor: int) -> None:
        """The first unacknowledged message behind the cursor."""
        expected = [seq for seq in self.waiting if seq > cursor]
        assert self.mailbox.next_unacknowledged(cursor) == (expected[0] if expected else None)

    @rule(seq=st.integers(0, 12))
    def look_for_a_position(self, seq: int) -> None:
        """By its cursor: any up to the head."""
        found = self.mailbox.position(self.mailbox.cursor(seq))
        assert found == (seq if seq <= len(self.committed) else None)

    @invariant()
    def positions_have_no_gaps(self) -> None:
        """1, 2, 3 ... in the order of the commits (D13)."""
        assert [new.seq for new in self.committed] == list(range(1, len(self.committed) + 1))
        assert self.mailbox.head == len(self.committed)
        assert all(new.seq == 0 for new in self.reserved)
        assert self.mailbox.purged_through == self.purged

    @invariant()
    def a_new_device_starts_before_the_first_that_waits(self) -> None:
        """And behind everything that is acknowledged up to there."""
        waiting = self.waiting
        first = waiting[0] if waiting else self.mailbox.head + 1
        assert self.mailbox.acknowledged_through == first - 1
        assert self.mailbox.waiting == len(waiting) + len(self.reserved)
        assert self.mailbox.reserved == len(self.reserved)

    @invariant()
    def every_position_is_acknowledged_or_waits(self) -> None:
        for seq in range(1, len(self.committed) + 1):
            assert self.mailbox.is_acknowledged(seq) is (seq in self.acknowledged)

    @invariant()
    def whatever_is_on_its_way_is_found(self) -> None:
        """So a repeat is recognised (D10)."""
        for new in self.reserved:
            assert self.mailbox.find(new.sender, new.message_id) is new


TestMailbox = MailboxMachine.TestCase
TestMailbox.settings = settings(max_examples=examples(60), stateful_step_count=30)


def filled(count: int) -> tuple[Mailbox[Message], list[Message]]:
    """A mailbox with that many messages."""
    mailbox: Mailbox[Message] = Mailbox("0123456789ab")
    messages = [message("ann", f"{number}") for number in range(count)]
    for new in messages:
        mailbox.reserve(new)
        mailbox.commit(new)
    return mailbox, messages


@pytest.mark.replaces
def test_only_the_last_messages_are_in_memory_acknowledged_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has the others; those in memory are found by position and by id."""
    monkeypatch.setattr(module, "CACHE_MAX", 10)
    mailbox, messages = filled(100)
    for new in messages:
        cached = new if new.seq > 90 else None
        assert mailbox.cached(new.seq) is cached
        assert mailbox.find("ann", new.message_id) is cached
    assert mailbox.head == 100
    assert mailbox.next_unacknowledged(0) == 1


@pytest.mark.replaces
def test_what_the_store_has_read_takes_the_place_of_what_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """And there is one object for one message, whoever read it."""
    monkeypatch.setattr(module, "CACHE_MAX", 10)
    mailbox, messages = filled(100)
    again = message("ann", "4")
    again.seq = 5
    assert mailbox.cache(again) is again
    assert mailbox.cached(5) is again
    assert mailbox.find("ann", "4") is again
    assert mailbox.cached(91) is None
    assert mailbox.find("ann", "90") is None
    another = message("ann", "99")
    another.seq = 100
    assert mailbox.cache(another) is messages[99]
    assert mailbox.find("ann", "99") is messages[99]


def test_a_repeat_on_its_way_and_what_it_repeats_do_not_get_into_each_others_way() -> None:
    """The original comes back into memory while the store decides about the repeat: either may leave first (D10)."""
    for original_first in (True, False):
        mailbox: Mailbox[Message] = Mailbox("0123456789ab")
        mailbox.restore(1, 1, 0, 0, [])
        repeat, original = message("ann", "0"), message("ann", "0")
        original.seq = 1
        mailbox.reserve(repeat)
        mailbox.cache(original)
        assert mailbox.find("ann", "0") is original
        if original_first:
            mailbox.purge(1)
            mailbox.withdraw(repeat)
        else:
            mailbox.withdraw(repeat)
            assert mailbox.find("ann", "0") is original
            mailbox.purge(1)
        assert mailbox.find("ann", "0") is None
        assert mailbox.reserved == 0


def test_what_is_purged_is_no_longer_in_memory() -> None:
    mailbox, messages = filled(10)
    mailbox.purge(4)
    assert [seq for seq in range(1, 11) if mailbox.cached(seq)] == [5, 6, 7, 8, 9, 10]
    assert mailbox.find("ann", messages[3].message_id) is None
    assert mailbox.find("ann", messages[4].message_id) is messages[4]
    mailbox.purge(2)
    assert mailbox.purged_through == 4


def test_what_is_acknowledged_ahead_is_noted_for_the_store_once() -> None:
    """The position up to which everything is acknowledged says the rest."""
    mailbox, _ = filled(10)
    for seq in (3, 2, 5, 3, 1):
        mailbox.acknowledge(seq)
    assert mailbox.unsaved_ahead == [3, 2, 5]
    assert mailbox.acknowledged_through == 3


@given(st.text() | st.from_regex(r"\A[0-9a-f]{12}\.[0-9]+\Z"))
def test_d13_any_other_text_is_no_position(cursor: str) -> None:
    """Nor is a cursor of another mailbox."""
    mailbox, _ = filled(3)
    assert cursor.startswith(mailbox.epoch) or mailbox.position(cursor) is None


def test_d13_a_cursor_is_epoch_and_position() -> None:
    assert Mailbox("0123456789ab").cursor(7) == "0123456789ab.7"
