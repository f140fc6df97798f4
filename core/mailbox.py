"""A user's mailbox: the messages addressed to the user, in the one order that all devices see (D18).

A message enters in two steps. `reserve` makes it findable, so that a repeat that comes while it is being committed is recognised
(D10); `commit` gives it the next position, `seq` 1, 2, 3 ..., once the store has it. Positions are never reused and never have gaps,
so a device needs to remember just one number, its cursor: everything up to it has been written to that device.
"""

from __future__ import annotations

from typing import Final

#: Messages waiting for one user beyond which new ones are refused; nothing is evicted to make room (D20).
MAILBOX_MAX: Final = 100_000
#: Acknowledged messages that stay in memory, for answering repeats. A store that keeps them on disk answers for the rest.
ACKNOWLEDGED_KEPT: Final = 1_000


class Message:
    """One message for one recipient."""

    __slots__ = ("acknowledged", "frame", "message_id", "recipient", "sender", "seq", "waiting", "written")

    def __init__(self, sender: str, recipient: str, message_id: str, frame: bytes) -> None:
        self.sender = sender
        self.recipient = recipient
        self.message_id = message_id
        #: The finished MSG frame, as every device of the recipient gets it.
        self.frame = frame
        #: Position in the mailbox, from 1; 0 while it is not committed.
        self.seq = 0
        #: Whether it has been written to a live connection of the recipient.
        self.written = False
        #: Whether a device of the recipient has acknowledged it (D12).
        self.acknowledged = False
        #: (worker, ticket) of those to be told once it is committed; the sender, and whoever repeated it meanwhile.
        self.waiting: list[tuple[int, int]] = []


class Mailbox:
    """The messages of one user. `head` is the position of the newest, 0 when there has never been one."""

    __slots__ = (
        "_by_id",
        "_first",
        "_first_unacknowledged",
        "_index",
        "_messages",
        "_unacknowledged",
        "head",
    )

    def __init__(self) -> None:
        self.head = 0
        #: The messages from position `_first` on, without gaps.
        self._messages: list[Message] = []
        self._first = 1
        #: No message before this position waits for an acknowledgement.
        self._first_unacknowledged = 1
        self._unacknowledged = 0
        #: (sender, message_id) -> the message, for recognising repeats.
        self._index: dict[tuple[str, str], Message] = {}
        #: message_id -> unacknowledged messages of that id, oldest first; different senders may use the same one.
        self._by_id: dict[str, list[Message]] = {}

    # -- Entering --

    def find(self, sender: str, message_id: str) -> Message | None:
        """The message that this sender gave this id, committed or not."""
        return self._index.get((sender, message_id))

    @property
    def full(self) -> bool:
        """Whether so many messages wait that new ones must be refused."""
        return self._unacknowledged >= MAILBOX_MAX

    def reserve(self, message: Message) -> None:
        """Make an uncommitted message findable. After this, `commit` or `withdraw` must follow."""
        self._index[message.sender, message.message_id] = message
        self._unacknowledged += 1

    def commit(self, message: Message) -> None:
        """Give a reserved message its position: the store has it."""
        self.head += 1
        message.seq = self.head
        self._messages.append(message)
        self._by_id.setdefault(message.message_id, []).append(message)

    def withdraw(self, message: Message) -> None:
        """Forget a reserved message: the store could not take it."""
        del self._index[message.sender, message.message_id]
        self._unacknowledged -= 1

    # -- Leaving --

    @property
    def acknowledged_through(self) -> int:
        """The highest position up to which everything is acknowledged: where a device that comes now starts."""
        return self._first_unacknowledged - 1

    def next_unacknowledged(self, cursor: int) -> Message | None:
        """The first message behind position `cursor` that still waits for an acknowledgement."""
        for seq in range(max(cursor + 1, self._first_unacknowledged), self.head + 1):
            message = self._messages[seq - self._first]
            if not message.acknowledged:
                return message
        return None

    def oldest_unacknowledged(self, message_id: str, sender: str | None, cursor: int) -> Message | None:
        """The oldest unacknowledged message of this id (and sender, if given) up to position `cursor` (D12)."""
        for message in self._by_id.get(message_id, ()):
            if message.seq <= cursor and (sender is None or message.sender == sender):
                return message
        return None

    def acknowledge(self, message: Message) -> None:
        """A device has this message. Must not be called twice for one message."""
        message.acknowledged = True
        self._unacknowledged -= 1
        same_id = self._by_id[message.message_id]
        if len(same_id) == 1:
            del self._by_id[message.message_id]
        else:
            same_id.remove(message)
        if message.seq == self._first_unacknowledged:
            self._advance()

    def _advance(self) -> None:
        """Move on to the next unacknowledged message, and drop what has been acknowledged long enough ago."""
        position = self._first_unacknowledged
        while position <= self.head and self._messages[position - self._first].acknowledged:
            position += 1
        self._first_unacknowledged = position
        surplus = position - self._first - ACKNOWLEDGED_KEPT
        if surplus >= ACKNOWLEDGED_KEPT:
            for message in self._messages[:surplus]:
                del self._index[message.sender, message.message_id]
            del self._messages[:surplus]
            self._first += surplus
