"""What the server keeps of all chats of the user: the list, what is read, muted and blocked. CHATS, READ, HIDE, MUTE and BLOCK.

The server tells a device of every change but those that the device has made itself, by writing, reading and opening; so these are noted
here. HIDE, MUTE and BLOCK have no other answer than the change that shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastchat_client import _wire
from fastchat_client._chat_list import ChatList
from fastchat_client._reading import Arrivals, Reading
from fastchat_client._repeater import Repeater
from fastchat_client._requests import COMMANDS, Done, Request, RequestLine
from fastchat_client._wire import Data, canonical
from fastchat_client.models import (
    ChatEntry,
    ChatPage,
    FastChatError,
    History,
    LastMessage,
    Message,
    Presence,
    Sent,
)

#: Chats of a page when the program has not said how many.
LIMIT: Final = 50


class Lists:
    """The list of chats and what changes it. `write` puts a request on the wire, `say` anything else, `emit` tells the listeners."""

    def __init__(
        self,
        repeater: Repeater,
        write: Callable[[Request], None],
        say: Callable[[str, Data], None],
        emit: Callable[[str, object], None],
    ) -> None:
        self.kept = ChatList()
        self.pages = RequestLine(write)
        self.commands = RequestLine(write)
        self._repeater = repeater
        self._emit = emit
        self._arrivals = Arrivals()
        self.reading = Reading(self._arrivals, self._say_read)
        self._say = say
        self._clock = ServerClock()
        #: How many chats the program asked for last.
        self._limit = LIMIT

    # -- The connection --

    def begin(self, reads: list[Data], now: float) -> None:
        """Begin with what the last connection may have swallowed; and fetch the list again, if it is kept. After this, `pump`."""
        for data in reads:
            if self.reading.mark(data):
                self._note_read(data)
        if self.kept.is_kept:
            self.kept.start_over()

            def came(page: ChatPage | None, error: FastChatError | None) -> None:
                if page is None:
                    return
                if page.next is not None and not self.kept.is_covered:
                    self._refresh(page.next, came)
                else:
                    self._tell(self.kept.cut())

            self._refresh(None, came)
        self.reading.pump(now)

    def lost(self) -> None:
        """Note that the connection is gone."""
        self.pages.forget({"refresh", "top"})
        self.pages.start_over()
        self.commands.start_over()
        self._clock.stop()
        for data in self.reading.take_all():
            self._repeater.add("READ", data)

    def deadlines(self, now: float) -> Iterator[float]:
        """List the times from now on at which `reading` will have something to do."""
        return self.reading.deadlines(now)

    # -- What the program wants --

    def page(self, before: str | None, limit: int | None, done: Done) -> Request:
        """Make the request for a page of the list; `done` gets a ChatPage."""
        data: Data = {}
        if before is not None:
            data["before"] = before
        if limit is not None:
            data["limit"] = limit
        self._limit = limit if limit is not None else LIMIT
        return Request("CHATS", "", data, done)

    def mark_read(self, data: Data, now: float) -> None:
        """Say that the user has read a message and all before it. There must be a connection."""
        if self.reading.mark(data):
            self._note_read(data)
            self.reading.pump(now)

    def limited(self, until: float) -> None:
        """Note that the server wants no READ until then."""
        self.reading.limited(self._repeater.reads(), until)

    # -- What comes --

    def on_chats(self, data: Data, now: float) -> None:
        """Take CHATS: a page, or what has changed. Raises FastChatError(PROTOCOL)."""
        entries = [read_entry(entry) for entry in _wire.objects(data, "chats")]
        if data.get("delta") is True:
            self._on_change(entries)
            return
        following = _wire.text_or_none(data, "next")
        current = self.pages.current
        if current is None:
            return
        different = self.kept.page(current.payload.get("before"), entries, following)
        if current.peer:
            self._tell(different)
        self.pages.finish(ChatPage(entries, following))

    def _on_change(self, entries: list[ChatEntry]) -> None:
        current = self.commands.current
        self.kept.change(entries)
        told = [self._unread(entry) for entry in entries]
        self._tell(told)
        for entry in told:
            if current is not None and current.peer == canonical(entry.user_id):
                field, value = COMMANDS[current.kind]
                if getattr(entry, field) is value:
                    self.commands.finish(entry)
                    return

    def on_pong(self, data: Data, now: float) -> None:
        """Note the time of the server."""
        self._clock.heard(data.get("timestamp"), now)

    def arrived(self, message: Message) -> None:
        """Note a message that is news."""
        self.kept.latest = max(self.kept.latest, message.timestamp)
        if not message.own:
            self._arrivals.came(message.sender, message.message_id)

    def paged(self, peer: str, before: str | None, history: History) -> None:
        """Note a page of history."""
        if before is None:
            theirs = [message.message_id for message in reversed(history.messages) if not message.own]
            self._arrivals.page(peer, theirs)

    def presence(self, online: Presence, user_ids: list[str] | None) -> None:
        """Note who is online, of these people or of all."""
        if self.kept.is_kept:
            self._tell(self.kept.online(online, user_ids))

    def opened(self, user_id: str) -> None:
        """Note that this client has opened a chat, or written in it. The server is asked for one that is not known; after this, `pump`."""
        is_asked = any(
            request.peer == "top" for request in self.pages.waiting if request is not self.pages.current
        )
        if self.kept.is_kept and not self.kept.is_known(user_id) and not is_asked:
            self.pages.add(Request("CHATS", "top", {"limit": self._limit}, lambda page, error: None))

    def wrote(self, sent: Sent, user_id: str, now: float) -> None:
        """Note that the server has a message of this client. After this, `pump`."""
        if self.kept.is_known(sent.to):
            last = LastMessage(user_id, sent.content, self._clock.time(now), sent.message_id)
            self._tell([self.kept.wrote(sent.to, last, written(datetime.now(UTC)))])
        else:
            self.opened(sent.to)

    # -- Inside --

    def _refresh(self, before: str | None, done: Done) -> None:
        data: Data = {"limit": self._limit} if before is None else {"limit": self._limit, "before": before}
        self.pages.add(Request("CHATS", "refresh", data, done))

    def _say_read(self, data: Data) -> None:
        self._repeater.add_alone(data)
        self._say("READ", data)

    def _note_read(self, data: Data) -> None:
        sender, message_id = data["from"], data["message_id"]
        behind = self._arrivals.behind(sender, message_id)
        self._tell_one(self.kept.read(sender, behind, message_id))

    def _unread(self, entry: ChatEntry) -> ChatEntry:
        """Return a chat that has changed without what this client has read and the server may not have heard of."""
        peer = canonical(entry.user_id)
        for data in [*self._repeater.reads(), *self.reading.pending(peer)]:
            if canonical(data["from"]) == peer:
                behind = self._arrivals.behind(peer, data["message_id"])
                entry = self.kept.read(peer, behind, data["message_id"]) or entry
        return entry

    def _tell(self, entries: list[ChatEntry]) -> None:
        if entries:
            self._emit("chats", entries)

    def _tell_one(self, entry: ChatEntry | None) -> None:
        if entry is not None:
            self._emit("chats", [entry])


class ServerClock:
    """The time of the server, as its last PONG said it."""

    def __init__(self) -> None:
        self._heard: tuple[datetime, float] | None = None

    def heard(self, timestamp: Any, now: float) -> None:
        """Take the time of a PONG."""
        try:
            self._heard = datetime.fromisoformat(timestamp).astimezone(UTC), now
        except (TypeError, ValueError, OverflowError):
            self._heard = None

    def stop(self) -> None:
        """Forget the time: the next server may have another clock."""
        self._heard = None

    def time(self, now: float) -> str:
        """Return the time now as the server writes it; an empty string, which is before all times, if it is not known."""
        if self._heard is None:
            return ""
        return written(self._heard[0] + timedelta(seconds=now - self._heard[1]))


def written(at: datetime) -> str:
    """Write a time of UTC as the server does."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_entry(data: Data) -> ChatEntry:
    """Make a chat of the list of what came. Raises FastChatError(PROTOCOL)."""
    last = data.get("last")
    return ChatEntry(
        user_id=_wire.text(data, "user_id"),
        display_name=_wire.text(data, "display_name"),
        chat_id=_wire.text(data, "chat_id"),
        last=None if last is None else _read_last(_wire.member(data, "last")),
        unread=_wire.number(data, "unread"),
        read=_wire.number(data, "read"),
        online=_wire.flag(data, "online"),
        blocked=_wire.flag(data, "blocked"),
        muted=_wire.flag(data, "muted"),
        hidden=data.get("hidden") is True,
    )


def _read_last(data: Data) -> LastMessage:
    return LastMessage(
        sender=_wire.text(data, "from"),
        content=_wire.text(data, "content"),
        timestamp=_wire.text(data, "timestamp"),
        message_id=_wire.text(data, "message_id"),
    )
