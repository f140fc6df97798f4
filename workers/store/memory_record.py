"""What the store in memory keeps of one user."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from core.chat.store import Removed
from core.chat.user import Message, User


class MemoryRecord:
    """What is kept of one user who has had a chat or a block: the user, as the core made it, and the messages in the mailbox."""

    __slots__ = ("first", "ids", "messages", "stored_at", "user", "withheld", "withheld_at")

    def __init__(self, user: User) -> None:
        self.user = user
        #: The messages from position `first` on, None for each that was removed, and when each was stored. Times are on the monotonic
        #: clock: nothing here outlives the process, so ages need no time of day.
        self.messages: list[Message | None] = []
        self.stored_at: list[float] = []
        self.first = user.mailbox.head + 1
        #: The same of messages that are withheld from the user, in the order of their Lamport counts.
        self.withheld: list[Message] = []
        self.withheld_at: list[float] = []
        #: sender -> message_id -> the message, withheld or not, oldest first.
        self.ids: dict[str, dict[str, Message]] = {}

    def find(self, sender: str, message_id: str) -> Message | None:
        """Return the message that this sender gave this id."""
        return self.ids.get(sender, {}).get(message_id)

    def at(self, position: int) -> Message | None:
        """Return the message at a position."""
        index = position - self.first
        return self.messages[index] if 0 <= index < len(self.messages) else None

    def behind(self, position: int) -> int:
        """Return the index of the first message behind a position."""
        return max(0, position + 1 - self.first)

    def end(self, kept: Sequence[Message | None], before: int | None) -> int:
        """Return the index behind the last message before a position, of all messages or of those withheld; of all without a position."""
        if before is None:
            return len(kept)
        if kept is self.withheld:
            return bisect_left(self.withheld, before, key=_lamport)
        return max(0, before - self.first)

    def drop(self, count: int) -> int:
        """Remove the oldest messages; the position of the last of them."""
        for message in filter(None, self.messages[:count]):
            del self.ids[message.sender][message.message_id]
            if not message.read and message.chat.unread > 0:
                message.chat.unread -= 1
        del self.messages[:count], self.stored_at[:count]
        self.first += count
        self.user.mailbox.purge(self.first - 1)
        return self.first - 1

    def has(self, sender: str) -> bool:
        """Return whether there is something of this sender, but a block of which only the core knows."""
        return sender in self.ids or sender in self.user.chats or sender in (self.user.blocks or ())

    def remove(self, sender: str) -> Removed:
        """Remove all of this sender, and the chat; positions stay."""
        user, positions = self.user, []
        user.chats.pop(sender, None)
        if user.blocks is not None:
            user.blocks.pop(sender, None)
            user.blocks = user.blocks or None
        gone = self.ids.pop(sender, {})
        for message in gone.values():
            if not message.withheld:
                self.messages[message.seq - self.first] = None
                if not user.mailbox.is_acknowledged(message.seq):
                    positions.append(message.seq)
        kept = [index for index, message in enumerate(self.withheld) if message.sender != sender]
        self.withheld = [self.withheld[index] for index in kept]
        self.withheld_at = [self.withheld_at[index] for index in kept]
        for seq in positions:
            user.mailbox.acknowledge(seq)
        return Removed([(user.user_id, sorted(positions))] if positions else [], len(gone), 0, None)

    def drop_withheld(self, count: int) -> None:
        """Remove the oldest of those that are withheld."""
        for message in self.withheld[:count]:
            del self.ids[message.sender][message.message_id]
        del self.withheld[:count], self.withheld_at[:count]


def _lamport(message: Message) -> int:
    return message.lamport
