"""Requests that wait for an answer, one of each line on its way at a time, since an ERROR does not name the peer.

OPEN_CHAT, HISTORY and CHATS have a line each. HIDE, MUTE, BLOCK and their opposites share one: the answer is what the list of chats shows,
and what came out of two at once could not be told apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fastchat_client._codes import UNSUPPORTED
from fastchat_client._wire import canonical
from fastchat_client.models import FastChatError

#: A HISTORY (or CHATS) that was not confirmed so often has failed; somebody is looking at an empty screen.
HISTORY_TRIES: Final = 5
PAGES: Final = frozenset({"HISTORY", "CHATS"})
#: Types that change the list of chats -> the field of an entry and the value that shows it is done.
COMMANDS: Final[Mapping[str, tuple[str, bool]]] = {
    "HIDE": ("hidden", True),
    "MUTE": ("muted", True),
    "UNMUTE": ("muted", False),
    "BLOCK": ("blocked", True),
    "UNBLOCK": ("blocked", False),
}
#: What a server can do that answers a type, and what is said of one that can't.
NEEDED: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "HISTORY": (frozenset({"history"}), "this server keeps no history"),
    "CHATS": (frozenset({"chats"}), "this server keeps no list of chats"),
    "HIDE": (frozenset({"chats"}), "this server keeps no list of chats"),
    "MUTE": (frozenset({"chats"}), "this server keeps no list of chats"),
    "UNMUTE": (frozenset({"chats"}), "this server keeps no list of chats"),
    "BLOCK": (frozenset({"chats", "block"}), "this server can't block users"),
    "UNBLOCK": (frozenset({"chats", "block"}), "this server can't block users"),
}

#: What to call with the answer, or with why there is none.
Done = Callable[[Any, FastChatError | None], None]


class Request:
    """One request and everybody who waits for its answer."""

    __slots__ = ("done", "kind", "opened", "payload", "peer", "tries")

    def __init__(self, kind: str, peer: str, payload: dict[str, Any], done: Done) -> None:
        self.kind = kind
        #: As `canonical` has it.
        self.peer = canonical(peer)
        self.payload = payload
        self.done = [done]
        #: How often it has failed.
        self.tries = 0
        #: Whether the chat has been opened again for it.
        self.opened = False


def unsupported(kind: str, capabilities: frozenset[str]) -> FastChatError | None:
    """Return why a server with these capabilities does not answer this type, None if it does."""
    needed, problem = NEEDED.get(kind, (frozenset(), ""))
    return None if needed <= capabilities else FastChatError(UNSUPPORTED, problem)


class RequestLine:
    """The requests of one kind, in order. `write` puts one on the wire."""

    def __init__(self, write: Callable[[Request], None]) -> None:
        self._write = write
        self.waiting: deque[Request] = deque()
        #: Whether the first is on its way, and since when.
        self.in_flight = False
        self.sent_at = 0.0
        self.blocked_until = 0.0
        #: Whether the first waits until the chat is open again.
        self.opening = False

    @property
    def current(self) -> Request | None:
        """The request that is on its way."""
        return self.waiting[0] if self.in_flight else None

    def add(self, request: Request) -> None:
        """Put one at the end of the line. After this, `pump`."""
        self.waiting.append(request)

    def pump(self, now: float) -> None:
        """Put the first on the wire, if it may go out. There must be a connection."""
        if self.waiting and not self.in_flight and not self.opening and now >= self.blocked_until:
            self.in_flight, self.sent_at = True, now
            self._write(self.waiting[0])

    def finish(self, result: Any, error: FastChatError | None = None) -> None:
        """End the first, which has its answer. After this, `pump`."""
        request = self.waiting.popleft()
        self.in_flight = self.opening = False
        self.blocked_until = 0.0
        for done in request.done:
            done(result, error)

    def drop(self, capabilities: frozenset[str]) -> None:
        """End those that a server with these capabilities does not answer. None may be on its way."""
        kept: deque[Request] = deque()
        dropped: list[tuple[Request, FastChatError]] = []
        for request in self.waiting:
            problem = unsupported(request.kind, capabilities)
            if problem is None:
                kept.append(request)
            else:
                dropped.append((request, problem))
        self.waiting = kept
        for request, problem in dropped:
            for done in request.done:
                done(None, problem)

    def forget(self, peers: set[str]) -> None:
        """Forget those about these peers, of which nobody has to be told."""
        if self.current is not None and self.current.peer in peers:
            self.in_flight = False
        self.waiting = deque(request for request in self.waiting if request.peer not in peers)

    def again(self, at: float) -> None:
        """Send the first again at a time."""
        self.in_flight = False
        self.blocked_until = at

    def hold(self) -> None:
        """Let the first wait until the chat is open again; then set `opening` to False."""
        self.in_flight = False
        self.opening = True

    def start_over(self) -> None:
        """Send again on the next connection what was on its way: this one is lost."""
        self.in_flight = False

    def overdue(self, patience: float, now: float) -> bool:
        """Return whether the first has been on its way for so many seconds."""
        return self.in_flight and self.sent_at + patience <= now

    def deadlines(self, patience: float, now: float) -> Iterator[float]:
        """List the times from now on at which there will be something to do."""
        if self.in_flight:
            yield self.sent_at + patience
        elif self.waiting and not self.opening and self.blocked_until > now:
            yield self.blocked_until
