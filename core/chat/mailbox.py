"""A user's mailbox: the messages addressed to the user, in the one order that all devices see (D13, D18).

The messages themselves are the store's. Here is what must be known at once: the newest position, which positions wait for an
acknowledgement, the messages on their way into the store, and the last few that went by, so that nobody has to ask the store for them.

A message enters in two steps. `reserve` makes it findable, so that a repeat that comes while it is being committed is recognised
(D10); `commit` gives it the next position, `seq` 1, 2, 3 ..., once the store has it. Positions are never reused and given out without gaps,
so a device needs to remember just one number, its cursor: everything up to it has been written to that device.

A conversation is in two mailboxes. How the messages of the one lie between those of the other is told by a Lamport clock: each mailbox
counts, a message gets a count that is higher than those of its sender's and of its recipient's mailbox, and the latter goes on from
there. So an answer stands behind what it answers, whatever the clock of the machine says and whatever a process has forgotten: the count
of a mailbox is that of its newest message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.chat.shares import Shares

#: Committed messages that are kept in memory for each mailbox; the store has all of them.
CACHE_MAX: Final = 128

#: What a mailbox has in place of four dictionaries before the first message, as most of a crowd have: 320 bytes less for each. Nothing is
#: ever put into it.
_EMPTY: Final[dict[Any, Any]] = {}

_CURSOR: Final = re.compile(r"([0-9a-f]{12})\.([0-9]{1,15})", re.ASCII)


class Entry:
    """A message as its mailbox knows it; all of it is ``core.chat.user.Message``, which sets these."""

    __slots__ = ("chat", "lamport", "message_id", "sender", "seq")

    #: The recipient's record of the chat.
    chat: Chat
    sender: str
    message_id: str
    #: Position in the mailbox, from 1; 0 while it is not committed.
    seq: int
    #: Its place between the messages of the other direction; at least so high, while it is not reserved.
    lamport: int


AnEntry = TypeVar("AnEntry", bound=Entry)


class Mailbox(Generic[AnEntry]):
    """The mailbox of one user. `head` is the position of the newest message, 0 when there has never been one."""

    __slots__ = (
        "_ahead",
        "_cached",
        "_index",
        "_reserved",
        "acknowledged_through",
        "epoch",
        "head",
        "lamport",
        "purged_through",
        "receipts_due",
        "shares",
        "unsaved_ahead",
    )

    def __init__(self, epoch: str) -> None:
        #: Names this mailbox for as long as its positions mean the same: part of every cursor (D13).
        self.epoch = epoch
        self.head = 0
        #: The highest count that a message in here has got.
        self.lamport = 0
        #: Messages up to here are no longer kept (retention).
        self.purged_through = 0
        #: Everything up to here is acknowledged; and what is beyond it.
        self.acknowledged_through = 0
        self._ahead: dict[int, None] = _EMPTY  # a set, which takes three times as much memory
        #: Those of `_ahead` that the store has not been given yet; None if there are none.
        self.unsaved_ahead: list[int] | None = None
        #: seq -> message; the one that came into memory first goes first.
        self._cached: dict[int, AnEntry] = _EMPTY
        #: sender -> message_id -> the message, of those reserved or cached.
        self._index: dict[str, dict[str, AnEntry]] = _EMPTY
        self._reserved = 0
        #: Whose the messages are that wait, as long as somebody has to know (D20).
        self.shares: Shares | None = None
        #: Position -> (sender, message id) of written messages whose sender will want to know when a pong confirms them (D11).
        self.receipts_due: dict[int, tuple[str, str]] = _EMPTY

    # -- Entering --

    def find(self, sender: str, message_id: str) -> AnEntry | None:
        """Return the message in memory that this sender gave this id, committed or not."""
        messages = self._index.get(sender)
        return messages.get(message_id) if messages is not None else None

    @property
    def waiting(self) -> int:
        """How many messages wait for an acknowledgement, uncommitted ones included."""
        return self.head - self.acknowledged_through - len(self._ahead) + self._reserved

    @property
    def reserved(self) -> int:
        """How many messages are on their way into the store."""
        return self._reserved

    def reserve(self, message: AnEntry) -> None:
        """Make an uncommitted message findable. After this, `commit` or `withdraw` must follow."""
        self._enter(message)
        self._reserved += 1
        self.lamport = message.lamport = max(message.lamport, self.lamport + 1)
        if self.shares is not None and self.shares.complete:
            self.shares.enter(message.chat)

    def commit(self, message: AnEntry) -> None:
        """Give a reserved message its position: the store has it."""
        self._reserved -= 1
        self.head += 1
        message.seq = self.head
        chat = message.chat
        chat.newest = self.head
        chat.unread += 1
        self._cached[message.seq] = message
        if len(self._cached) > CACHE_MAX:
            self._evict(message.seq)
        if self.shares is not None and self.shares.complete:
            self.shares.committed(chat)

    def withdraw(self, message: AnEntry) -> None:
        """Forget a reserved message: the store could not take it, or had it already."""
        self._forget(message)
        self._reserved -= 1
        if self.shares is not None and self.shares.complete:
            self.shares.leave(message.chat)

    # -- Memory --

    def cached(self, seq: int) -> AnEntry | None:
        """Return the message at a position, if it is in memory."""
        return self._cached.get(seq)

    def cache(self, message: AnEntry) -> AnEntry:
        """Keep a committed message that the store has read, and return it; if it is here already, that one."""
        known = self._cached.get(message.seq)
        if known is not None:
            return known
        self._enter(message)
        self._cached[message.seq] = message
        if len(self._cached) > CACHE_MAX:
            self._evict(message.seq)
        return message

    def expect_receipt(self, message: AnEntry) -> None:
        """Note that the sender of a written message will want to know when a pong confirms it."""
        if self.receipts_due is _EMPTY:
            self.receipts_due = {}
        self.receipts_due[message.seq] = (message.sender, message.message_id)

    def _evict(self, seq: int) -> None:
        """Make room for the message at this position: the one that is as far back as there are places, or what came into memory first."""
        # To look for the first one goes past all places of a dictionary that have been emptied.
        message = self._cached.pop(seq - CACHE_MAX, None)
        self._forget(message if message is not None else self._cached.pop(next(iter(self._cached))))

    def let_go(self) -> None:
        """Keep no message in memory any more: messages know their user, and only the garbage collector would undo that circle."""
        self._cached.clear()
        self._index.clear()

    def _enter(self, message: AnEntry) -> None:
        """Let `find` find it from now on."""
        if self._index is _EMPTY:
            self._cached, self._index = {}, {}
        messages = self._index.get(message.sender)
        if messages is None:
            messages = self._index[message.sender] = {}
        messages[message.message_id] = message

    def _forget(self, message: AnEntry) -> None:
        """Find it no longer. A message that comes back into memory may have taken the place of its own repeat, which is on its way."""
        messages = self._index.get(message.sender)
        if messages is not None and messages.get(message.message_id) is message:
            del messages[message.message_id]
            if not messages:
                del self._index[message.sender]

    # -- Leaving --

    def is_acknowledged(self, seq: int) -> bool:
        """Return whether a device has the message at this position."""
        return seq <= self.acknowledged_through or seq in self._ahead

    def next_unacknowledged(self, cursor: int) -> int | None:
        """Return the first position behind `cursor` that waits for an acknowledgement."""
        seq = max(cursor, self.acknowledged_through) + 1
        while seq in self._ahead:
            seq += 1
        return seq if seq <= self.head else None

    def acknowledge(self, seq: int) -> bool:
        """Acknowledge the message at this position, which a device has; whether that is news."""
        if self.is_acknowledged(seq):
            return False
        if self.shares is not None:
            self.shares.acknowledged(seq)
        if seq != self.acknowledged_through + 1:
            if self._ahead is _EMPTY:
                self._ahead = {}
            self._ahead[seq] = None
            if self.unsaved_ahead is None:
                self.unsaved_ahead = []
            self.unsaved_ahead.append(seq)
            return True
        self.acknowledged_through = seq
        if self._ahead:
            self._catch_up()
        return True

    def acknowledge_through(self, seq: int) -> None:
        """Acknowledge everything up to this position, which a device has."""
        if seq > self.acknowledged_through:
            if self.shares is not None:
                self.shares.acknowledged_through(seq)
            self.acknowledged_through = seq
            if self._ahead:
                self._ahead = dict.fromkeys(ahead for ahead in self._ahead if ahead > seq)
                self._catch_up()

    def befriend(self, chat: Chat) -> None:
        """Note that the user has written to the peer of this chat for the first time."""
        if self.shares is not None:
            self.shares.befriended(chat)

    def forget(self, sender: str) -> None:
        """Keep no committed message of this sender in memory, and note nothing about them: they are removed."""
        for message in list(self._index.get(sender, {}).values()):
            if message.seq:
                self._cached.pop(message.seq, None)
                self._forget(message)
        for seq in [seq for seq, (whose, _) in self.receipts_due.items() if whose == sender]:
            del self.receipts_due[seq]

    def restore(self, head: int, lamport: int, purged: int, acknowledged: int, ahead: list[int]) -> None:
        """Set everything as the store has it."""
        self.lamport = lamport
        self.head, self.purged_through, self.acknowledged_through = head, purged, acknowledged
        self._ahead = dict.fromkeys(seq for seq in ahead if seq > acknowledged)
        self._catch_up()
        self.purge(purged)

    def purge(self, through: int) -> None:
        """Note that everything up to this position is gone, acknowledged or not."""
        self.purged_through = max(self.purged_through, through)
        self.acknowledge_through(through)
        for seq in [seq for seq in self._cached if seq <= through]:
            self._forget(self._cached.pop(seq))

    def _catch_up(self) -> None:
        seq = self.acknowledged_through
        while seq + 1 in self._ahead:
            seq += 1
            del self._ahead[seq]
        self.acknowledged_through = seq

    # -- Cursors (D13) --

    def cursor(self, seq: int) -> str:
        """Return a position, as clients get it."""
        return f"{self.epoch}.{seq}"

    def position(self, cursor: str) -> int | None:
        """Return the position that a cursor of this mailbox names; None for any other text, and for one beyond the head."""
        match = _CURSOR.fullmatch(cursor)
        if match is None or match[1] != self.epoch or int(match[2]) > self.head:
            return None
        return int(match[2])
