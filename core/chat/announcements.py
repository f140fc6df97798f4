"""CHAT_OPENED on the way to one connection (D7).

A user who was away may have thousands of chats to be told about. They are written at the connection's own pace, like the messages that a
device missed, and before all messages. What was written is not yet seen: only when the client shows that it has read so far does
`core.chat.delivery` note the chat as confirmed. Until then it is told again on every new connection, but never twice on one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from core.chat.chat import Chat


class Announcements:
    """The chats that one connection is being told about. Most connections never need one of these."""

    __slots__ = ("asked", "pending", "written")

    def __init__(self, pending: Iterable[Chat] = ()) -> None:
        #: Those that wait for room, the next one first. With an ordinary dictionary, taking the first one away is quadratic.
        self.pending: OrderedDict[Chat, None] = OrderedDict.fromkeys(pending)
        #: Those that were written since the last confirming ping -> the highest mailbox position that had been written before.
        self.written: dict[Chat, int] = {}
        #: The same, for those that were written before the confirming ping that is on its way.
        self.asked: dict[Chat, int] = {}

    def __contains__(self, chat: Chat) -> bool:
        """Return whether the connection has been told, or will be."""
        return chat in self.written or chat in self.asked or chat in self.pending

    @property
    def done(self) -> bool:
        """Whether there is nothing to write and nothing to be confirmed."""
        return not (self.pending or self.written or self.asked)

    def next(self) -> Chat:
        """Take the next one that waits for room."""
        return self.pending.popitem(last=False)[0]

    def ask(self) -> None:
        """Note that a ping is sent behind all that has been written."""
        self.asked, self.written = self.written, {}

    def answered(self) -> list[Chat]:
        """Take those that the pong confirms, which has come."""
        chats, self.asked = list(self.asked), {}
        return chats

    def before(self, seq: int) -> list[Chat]:
        """Take those that were written before this position, whose message the client has."""
        chats: list[Chat] = []
        for written in (self.asked, self.written):
            earlier = [chat for chat, position in written.items() if position < seq]
            for chat in earlier:
                del written[chat]
            chats += earlier
        return chats

    def forget(self, chat: Chat) -> None:
        """Tell nothing more about a chat that has been removed."""
        for told in (self.pending, self.written, self.asked):
            told.pop(chat, None)

    # -- For a successor --

    def export(self) -> dict[str, Any]:
        """Return the chats, by their peers."""
        return {
            "pending": [chat.peer for chat in self.pending],
            "written": {chat.peer: position for chat, position in self.written.items()},
            "asked": {chat.peer: position for chat, position in self.asked.items()},
        }

    def restore(self, record: dict[str, Any], chats: Mapping[str, Chat]) -> None:
        """Take over what `export` has returned; `chats` are those of the user, by peer."""
        self.pending = OrderedDict.fromkeys(
            chats[peer] for peer in record.get("pending", ()) if peer in chats
        )
        self.written = {chats[peer]: at for peer, at in record.get("written", {}).items() if peer in chats}
        self.asked = {chats[peer]: at for peer, at in record.get("asked", {}).items() if peer in chats}
