"""Messages on their way to the server, in one line for each peer.

A line keeps its order whatever happens: a message goes out when the server has the one before it. More on their way at once could overtake
each other, when one is not confirmed and its successor is. Different lines do not wait for each other, only for the limit of the user
and for `IN_FLIGHT_MAX`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from fastchat_client._wire import canonical
from fastchat_client.models import FastChatError, Sent

#: Messages that may be unacknowledged at once, over all peers. The server stops reading from a client at 256.
IN_FLIGHT_MAX: Final = 64


class Line:
    """What waits for one peer; the first may be on its way."""

    __slots__ = ("blocked_until", "in_flight", "opened", "opening", "sent_at", "tries", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Sent] = deque()
        #: Whether the first is on its way, and since when.
        self.in_flight = False
        self.sent_at = 0.0
        #: How often the first has failed.
        self.tries = 0
        #: When it may go out again.
        self.blocked_until = 0.0
        #: Whether it waits until the chat is open again, and whether it has done so for the first.
        self.opening = False
        self.opened = False


class Outbox:
    """All lines. `write` puts a message on the wire, `changed` is told of every change of a message."""

    def __init__(self, write: Callable[[Sent], None], changed: Callable[[Sent], None]) -> None:
        self._write = write
        self._changed = changed
        #: The recipient -> the line.
        self._lines: dict[str, Line] = {}
        #: Message id -> the message of that id that is on its way. One at a time, since an ERROR does not name the peer.
        self._in_flight: dict[str, Sent] = {}
        #: No message may go out before this: the limit of the user.
        self.blocked_until = 0.0

    def add(self, sent: Sent) -> None:
        """Put a message at the end of its line. After this, `pump`."""
        self._lines.setdefault(canonical(sent.to), Line()).waiting.append(sent)

    def pump(self, now: float) -> None:
        """Put on the wire what may go out. There must be a connection."""
        if now < self.blocked_until:
            return
        for line in self._lines.values():
            if len(self._in_flight) >= IN_FLIGHT_MAX:
                return
            if line.in_flight or line.opening or not line.waiting or now < line.blocked_until:
                continue
            sent = line.waiting[0]
            if sent.message_id in self._in_flight:
                continue
            line.in_flight, line.sent_at = True, now
            self._in_flight[sent.message_id] = sent
            if sent.status != "sent":
                sent.change("sent")
                self._changed(sent)
            self._write(sent)

    def waiting(self, to: str, message_id: str) -> Sent | None:
        """Return the message of this id that has not come to its end."""
        line = self._lines.get(canonical(to))
        found = (sent for sent in line.waiting if sent.message_id == message_id) if line is not None else ()
        return next(iter(found), None)

    def find(self, message_id: str, to: str | None = None) -> Sent | None:
        """Find the message of this id that is on its way, or goes out again as the next one of its line."""
        sent = self._in_flight.get(message_id)
        if sent is None and to is not None and canonical(to) in self._lines:
            sent = self._lines[canonical(to)].waiting[0]
        if sent is None or sent.message_id != message_id:
            return None
        return sent if to is None or canonical(to) == canonical(sent.to) else None

    @property
    def in_flight(self) -> list[Sent]:
        """What is on its way."""
        return list(self._in_flight.values())

    def done(self, sent: Sent) -> None:
        """Note that the server has it, or has refused it for good: the next one in its line may go out."""
        self._land(sent)
        line = self._lines[canonical(sent.to)]
        line.waiting.popleft()
        line.tries = 0
        line.blocked_until = 0.0
        line.opened = False
        if not line.waiting:
            del self._lines[canonical(sent.to)]

    def again(self, sent: Sent, error: FastChatError, at: float) -> None:
        """Send it again at a time, since it was not confirmed; its line waits."""
        self._back(sent, error)
        line = self._lines[canonical(sent.to)]
        line.tries += 1
        line.blocked_until = at

    def limited(self, sent: Sent, error: FastChatError, until: float) -> None:
        """Let all lines wait: the user has sent enough for now."""
        self._back(sent, error)
        self.blocked_until = max(self.blocked_until, until)

    def hold(self, sent: Sent, error: FastChatError) -> None:
        """Let its line wait until the chat is open again: `release`. That is done once for each message."""
        self._back(sent, error)
        line = self._lines[canonical(sent.to)]
        line.opening = line.opened = True

    def was_held(self, sent: Sent) -> bool:
        """Return whether the chat has been opened again for it."""
        return self._lines[canonical(sent.to)].opened

    def release(self, peer: str) -> None:
        """Let go what waited for the chat, which is open."""
        line = self._lines.get(canonical(peer))
        if line is not None:
            line.opening = False

    def tries(self, sent: Sent) -> int:
        """Return how often it has failed."""
        return self._lines[canonical(sent.to)].tries

    def start_over(self) -> None:
        """Send again on the next connection what was on its way: this one is lost."""
        in_flight, self._in_flight = self._in_flight, {}
        for line in self._lines.values():
            line.in_flight = False
            line.opened = line.opening
        for sent in in_flight.values():
            sent.change("queued")
            self._changed(sent)

    def take_all(self) -> list[Sent]:
        """Give up everything; what there was."""
        taken = [sent for line in self._lines.values() for sent in line.waiting]
        self._lines.clear()
        self._in_flight.clear()
        return taken

    def overdue(self, patience: float, now: float) -> list[Sent]:
        """Return what has been on its way for so many seconds."""
        return [
            line.waiting[0]
            for line in self._lines.values()
            if line.in_flight and line.sent_at + patience <= now
        ]

    def deadlines(self, patience: float, now: float) -> Iterator[float]:
        """List the times from now on at which `pump` or `overdue` will have something to do."""
        for line in self._lines.values():
            if line.in_flight:
                yield line.sent_at + patience
            elif not line.opening and (at := max(line.blocked_until, self.blocked_until)) > now:
                yield at

    def _back(self, sent: Sent, error: FastChatError) -> None:
        self._land(sent)
        sent.change("queued", error)
        self._changed(sent)

    def _land(self, sent: Sent) -> None:
        if self._in_flight.pop(sent.message_id, None) is not None:
            self._lines[canonical(sent.to)].in_flight = False
