"""How much of a mailbox one sender, and all strangers together, may fill with messages that nobody has acknowledged (D20).

A sender may have a tenth of what a mailbox holds, and those to whom its user has never written half of it together. So as long as less
than a tenth waits nothing has to be known, and most mailboxes never get further. `Shares` is made when one does: then the store is asked
once whose the waiting messages are, a page at a time, and what comes for this mailbox meanwhile waits in line, so everybody's order is
kept. From then on the mailbox keeps it up to date, until its user leaves memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.chat.chat import Chat

#: Entries of acknowledged positions that are kept until it pays to move the others.
_SLACK: Final = 1024


class Shares:
    """Whose the messages are that wait in one mailbox. `complete` says whether all of them are known yet."""

    __slots__ = ("_counts", "_first", "_senders", "_start", "complete", "of_strangers")

    def __init__(self, through: int) -> None:
        """Everything up to position `through` is acknowledged."""
        #: The chat of each position from `_first` on, None where nothing waits. Before the index `_start` nothing does.
        self._first = through + 1
        self._senders: list[Chat | None] = []
        self._start = 0
        self._counts: dict[Chat, int] = {}
        #: How many are from senders to whom the user has never written.
        self.of_strangers = 0
        self.complete = False

    def of(self, chat: Chat) -> int:
        """Return how many are from the peer of this chat."""
        return self._counts.get(chat, 0)

    @property
    def known_through(self) -> int:
        """The last position that is known."""
        return self._first + len(self._senders) - 1

    # -- While the store is asked --

    def learn(self, seq: int, chat: Chat | None) -> None:
        """Learn from the store from whom the message at this position is; None if it is acknowledged. What was between is gone."""
        gap = seq - self.known_through - 1
        if gap > 0:
            self._senders += [None] * gap
        if gap >= 0:
            self._senders.append(chat)
            if chat is not None:
                self.enter(chat)

    # -- What the mailbox tells --

    def enter(self, chat: Chat) -> None:
        """Note that a message of this chat is on its way into the mailbox."""
        self._counts[chat] = self._counts.get(chat, 0) + 1
        if not chat.written:
            self.of_strangers += 1

    def leave(self, chat: Chat) -> None:
        """Note that it does not wait any more."""
        count = self._counts[chat] - 1
        if count:
            self._counts[chat] = count
        else:
            del self._counts[chat]
        if not chat.written:
            self.of_strangers -= 1

    def committed(self, chat: Chat) -> None:
        """Note that a message that was on its way has the next position."""
        self._senders.append(chat)

    def acknowledged(self, seq: int) -> None:
        """Note that the message at this position waits no longer."""
        index = seq - self._first
        if self._start <= index < len(self._senders):
            chat = self._senders[index]
            if chat is not None:
                self._senders[index] = None
                self.leave(chat)

    def acknowledged_through(self, seq: int) -> None:
        """Note that nothing up to this position waits any longer."""
        senders, end = self._senders, min(seq - self._first + 1, len(self._senders))
        for index in range(self._start, end):
            chat = senders[index]
            if chat is not None:
                senders[index] = None
                self.leave(chat)
        self._start = max(self._start, end)
        if self._start > max(_SLACK, len(senders) // 2):
            del senders[: self._start]
            self._first += self._start
            self._start = 0

    def befriended(self, chat: Chat) -> None:
        """Note that the user has written to the peer of this chat, as `chat` says by now."""
        self.of_strangers -= self.of(chat)


def sender_share(mailbox_max: int) -> int:
    """Return how many messages of one sender may wait in a mailbox of that size."""
    return max(1, mailbox_max // 10)


def strangers_share(mailbox_max: int) -> int:
    """Return how many messages of senders to whom its user has never written."""
    return max(1, mailbox_max // 2)
