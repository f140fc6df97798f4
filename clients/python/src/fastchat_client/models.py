"""What users of the client hold in their hands: messages, chats, what became of what they sent, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

State = Literal["connecting", "online", "waiting", "closed"]
#: Whose presence the server tells: of all, or of the people with whom there is a chat.
Scope = Literal["everyone", "contacts"]
Status = Literal["queued", "sent", "stored", "accepted", "delivered", "read", "failed"]

#: How far a message has come. `stored` is what a server without receipts says of a recipient who is away.
RANK: Final[Mapping[str, int]] = {
    "queued": 0,
    "sent": 1,
    "stored": 2,
    "accepted": 2,
    "delivered": 3,
    "read": 4,
}


class FastChatError(Exception):
    """What the server refused, or the client gave up.

    `code` is one of the six codes of docs/protocol.md, or the client's own: ``CLOSED`` (the client was closed before it was done),
    ``FORGOTTEN`` (the receipts of a message are followed no longer, since there are 1,000 newer ones), ``UNSUPPORTED`` (the server lacks
    the capability), ``LISTENER`` (a listener raised, which is the `__cause__`), ``PROTOCOL`` (what came from the server is no message),
    ``TIMEOUT`` (it was not online in the time that `connect` was given; it goes on trying) and ``TOKEN`` (the function that is asked for
    tokens raised, which is the `__cause__`, did not answer in time, or gave none).
    `details` are the server's.
    """

    def __init__(self, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details: Mapping[str, Any] = details or {}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class Closed:
    """Why the client is closed for good: a WebSocket close code and a reason."""

    code: int
    reason: str
    #: Why the server refused the token, in one word (``missing``, ``malformed``, ``signature``, ...), or let it run out (``expired``).
    refused: str | None = None
    #: The status of HTTP, if that was the answer instead of a WebSocket.
    status: int | None = None


@dataclass(frozen=True, slots=True)
class StateChange:
    """The connection has another state now."""

    state: State
    #: With `waiting`: when it will be tried again, on the clock of the event loop.
    retry_at: float | None = None
    #: With `closed`: why.
    closed: Closed | None = None
    #: With `waiting`: why the last connection ended, or could not be made.
    lost: Closed | None = None
    #: With `online`: what the server could resume, `full`, `partial` or `reset`; None when it can't resume.
    resumed: str | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat that is open."""

    chat_id: str
    #: The other person.
    user_id: str
    display_name: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message that somebody sent to this user, or (`own`) that another device of this user sent."""

    sender: str
    to: str
    content: str
    message_id: str
    #: UTC, ISO 8601 with milliseconds and ``Z``.
    timestamp: str
    #: Position in the mailbox of this user; None when the server does not number them, and in `own` messages.
    seq: int | None = None
    own: bool = False
    #: The recipient has read it: in `own` messages of a history the other person, in all others this user, on whatever device.
    read: bool = False
    #: Where to go on after this message.
    cursor: str | None = field(default=None, repr=False, compare=False)

    @property
    def peer(self) -> str:
        """The other person of the chat."""
        return self.to if self.own else self.sender


class Presence(dict[str, str]):
    """Who is online: user id -> display name. `scope` is whose presence that is, None as long as the server has not said so."""

    scope: Scope | None = None


@dataclass(frozen=True, slots=True)
class Typing:
    """Somebody is typing, or has stopped."""

    user_id: str
    is_typing: bool


@dataclass(frozen=True, slots=True)
class History:
    """A page of what two people wrote to each other, newest first. `next` is the `before` of the following page, None at the end."""

    messages: list[Message]
    next: str | None


@dataclass(frozen=True, slots=True)
class LastMessage:
    """The last message of a chat, as a list of chats shows it: at most the first 200 characters of `content`."""

    sender: str
    content: str
    #: Of a message that this client has sent it is an estimate, until the server tells of the chat again.
    timestamp: str
    message_id: str


@dataclass(frozen=True, slots=True)
class ChatEntry:
    """A chat in the list of chats; the server keeps it, so it is the same on all devices of the user."""

    #: The other person.
    user_id: str
    display_name: str
    chat_id: str
    last: LastMessage | None
    #: Messages of the other person that this user has not read, and the position up to which the user has read.
    unread: int
    read: int
    #: Whether the other person is online.
    online: bool
    #: Whether this user has blocked the other person, or muted the chat.
    blocked: bool
    muted: bool
    #: In a change: the chat has left the list, until somebody writes in it.
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class ChatPage:
    """A page of the list of chats, newest first. `next` is the `before` of the following page, None at the end."""

    chats: list[ChatEntry]
    next: str | None


class Sent:
    """A message that this client sends. It changes: `status` is where it is now, `error` why it failed.

    `content` is what others read. Where the server has taken markup out, that is not what was given, which stays in `original`.
    """

    __slots__ = ("_ended", "_waiting", "content", "error", "message_id", "original", "status", "to")

    def __init__(self, to: str, content: str, message_id: str) -> None:
        self.to = to
        self.content = content
        self.original = content
        self.message_id = message_id
        self.status: Status = "queued"
        self.error: FastChatError | None = None
        #: Why nothing more will come, whatever the status.
        self._ended: FastChatError | None = None
        #: Those who wait: the rank that they wait for, and how to tell them.
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"Sent(to={self.to!r}, message_id={self.message_id!r}, status={self.status!r})"

    async def accepted(self) -> Self:
        """Wait until the server has it on disk. Raises FastChatError when it failed for good."""
        return await self._reached(RANK["accepted"])

    async def delivered(self) -> Self:
        """Wait until a device of the recipient has it. Raises FastChatError when it failed, or the client was closed before."""
        return await self._reached(RANK["delivered"])

    async def read(self) -> Self:
        """Wait until the recipient has read it. Raises FastChatError when it failed, or the client was closed before."""
        return await self._reached(RANK["read"])

    async def _reached(self, rank: int) -> Self:
        if RANK.get(self.status, -1) < rank:
            if self._ended is not None:
                raise self._ended
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((rank, future))
            await future
        return self

    def change(self, status: Status, error: FastChatError | None = None) -> None:
        """Change the state, for the client: it has come further, or is back in the queue, with the `error` that brought it there."""
        self.status = status
        self.error = error
        rank = RANK[status]
        for wanted, future in self._waiting:
            if wanted <= rank and not future.done():
                future.set_result(None)
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]

    def end(self, error: FastChatError) -> None:
        """End it, for the client: nothing more will come. It has failed, unless the server has it."""
        if RANK[self.status] < RANK["accepted"]:
            self.status = "failed"
            self.error = error
        self._ended = error
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
