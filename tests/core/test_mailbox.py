"""core.mailbox: against a model that is as simple as it gets, and what it forgets."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core import mailbox as module
from core.mailbox import Mailbox, Message

_SENDERS = st.sampled_from(["ann", "bob"])
_IDS = st.sampled_from(["1", "2", "3"])


class MailboxMachine(RuleBasedStateMachine):
    """Any sequence of calls, next to a list of all messages in the order of their commits."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox()
        #: Reserved and not committed; committed, the message of seq 1 first.
        self.reserved: list[Message] = []
        self.committed: list[Message] = []

    @property
    def waiting(self) -> list[Message]:
        """Committed and not acknowledged."""
        return [message for message in self.committed if not message.acknowledged]

    @rule(sender=_SENDERS, message_id=_IDS)
    def reserve(self, sender: str, message_id: str) -> None:
        """Give it a message, unless it has one of this sender and id."""
        if self.mailbox.find(sender, message_id) is None:
            message = Message(sender, "cat", message_id, b"")
            self.mailbox.reserve(message)
            self.reserved.append(message)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """The store has it."""
        message = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        self.mailbox.commit(message)
        self.committed.append(message)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """The store could not take it."""
        message = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        self.mailbox.withdraw(message)
        assert self.mailbox.find(message.sender, message.message_id) is None

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Any message that waits, in any order."""
        waiting = self.waiting
        self.mailbox.acknowledge(waiting[data.draw(st.integers(0, len(waiting) - 1))])

    @rule(message_id=_IDS, sender=st.none() | _SENDERS, cursor=st.integers(0, 12))
    def look_for_an_acknowledgement(self, message_id: str, sender: str | None, cursor: int) -> None:
        """The oldest unacknowledged message of that id and sender up to the cursor (D12)."""
        expected = [
            message
            for message in self.waiting
            if message.message_id == message_id and message.seq <= cursor and sender in (None, message.sender)
        ]
        assert self.mailbox.oldest_unacknowledged(message_id, sender, cursor) is (
            expected[0] if expected else None
        )

    @rule(cursor=st.integers(0, 12))
    def look_for_the_next(self, cursor: int) -> None:
        """The first unacknowledged message behind the cursor."""
        expected = [message for message in self.waiting if message.seq > cursor]
        assert self.mailbox.next_unacknowledged(cursor) is (expected[0] if expected else None)

    @invariant()
    def positions_have_no_gaps(self) -> None:
        """1, 2, 3 ... in the order of the commits (D18)."""
        assert [message.seq for message in self.committed] == list(range(1, len(self.committed) + 1))
        assert self.mailbox.head == len(self.committed)
        assert all(message.seq == 0 for message in self.reserved)

    @invariant()
    def a_new_device_starts_before_the_first_that_waits(self) -> None:
        """And behind everything that is acknowledged up to there."""
        waiting = self.waiting
        first = waiting[0].seq if waiting else self.mailbox.head + 1
        assert self.mailbox.acknowledged_through == first - 1

    @invariant()
    def whatever_is_in_it_is_found(self) -> None:
        """Committed or not, acknowledged or not: so a repeat is recognised (D10)."""
        latest = {
            (message.sender, message.message_id): message for message in [*self.committed, *self.reserved]
        }
        for key, message in latest.items():
            assert self.mailbox.find(*key) is message


TestMailbox = MailboxMachine.TestCase
TestMailbox.settings = settings(max_examples=30, stateful_step_count=30)


def filled(count: int) -> tuple[Mailbox, list[Message]]:
    """A mailbox with that many messages."""
    mailbox = Mailbox()
    messages = [Message("ann", "bob", f"{number}", b"") for number in range(count)]
    for message in messages:
        mailbox.reserve(message)
        mailbox.commit(message)
    return mailbox, messages


def test_d10_the_last_acknowledged_messages_are_remembered_and_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At least as many as are to be kept, never twice as many, and none that waits is dropped."""
    monkeypatch.setattr(module, "ACKNOWLEDGED_KEPT", 10)
    mailbox, messages = filled(100)
    mailbox.acknowledge(messages[50])
    for message in messages[:50]:
        mailbox.acknowledge(message)
        through = mailbox.acknowledged_through
        found = [other for other in messages if mailbox.find("ann", other.message_id) is other]
        assert found == messages[-len(found) :], "the oldest go first"
        assert 10 <= through - (100 - len(found)) < 20 or len(found) == 100
    waiting = [message for message in messages if not message.acknowledged]
    cursor = mailbox.acknowledged_through
    for message in waiting:
        found_next = mailbox.next_unacknowledged(cursor)
        assert found_next is message
        cursor = message.seq
    assert mailbox.next_unacknowledged(cursor) is None
    assert mailbox.head == 100


def test_d20_it_is_full_when_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reserved ones count; acknowledged and withdrawn ones do not."""
    monkeypatch.setattr(module, "MAILBOX_MAX", 3)
    mailbox, messages = filled(2)
    assert not mailbox.full
    third = Message("ann", "bob", "third", b"")
    mailbox.reserve(third)
    assert mailbox.full
    mailbox.withdraw(third)
    assert not mailbox.full
    mailbox.reserve(third)
    mailbox.acknowledge(messages[0])
    assert not mailbox.full
