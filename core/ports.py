"""What the core asks of the outside, with the promises that each implementation must keep.

The core calls these directly; tests pass in ports that record. Nothing here may block, and no port calls back into the core from
within a call: results come back later, in a call of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from core.mailbox import Message
    from core.user import Chat, User


#: Called when a write is durable, with None and the time, or with a sentence that says why it could not be.
Done = Callable[[str | None, float], None]


def nobody_waits(failure: str | None, now: float) -> None:
    """The Done of a write whose loss does no harm: it costs a repeat, or is repaired by the next message."""


class Connection(Protocol):
    """One client's connection. Frames are written in the order of the calls; after `close` every call does nothing."""

    #: When the last frame of any kind came from the client, on the monotonic clock.
    last_heard: float

    def send(self, frame: bytes) -> None:
        """Write a finished frame, at the latest at the end of this loop turn."""

    def ping(self, payload: bytes) -> None:
        """Write a WebSocket ping; its pong comes back through `Session.pong`."""

    def close(self, code: int, reason: str) -> None:
        """Write what is waiting, then a Close frame, and end the connection. `Session.closed` is called, soon but not from here."""

    def pause_reading(self) -> None:
        """Stop reading from the client; what is already in memory may still come."""

    def resume_reading(self) -> None:
        """Read again."""

    def unsent(self) -> int:
        """Bytes that wait to be taken by the kernel."""


class Bus(Protocol):
    """The way to the other shards.

    Records for one worker arrive in the order in which they were sent, each at most once. A record that can't be sent comes back
    through `Shard.undeliverable`; one that was lost with a dying worker does not, which is what deadlines are for (D26).
    """

    def send(self, worker: int, record: bytes) -> None:
        """Put a record in this loop turn's envelope for `worker`."""


class Store(Protocol):
    """Where users, chats and messages are kept.

    Writes are taken in the order of the calls and become durable in that order; the callback of each follows when it is, or with a
    sentence that says why it could not be. Nothing may be shown or acknowledged to anyone before its callback (D20). The memory
    implementation promises the order and the callbacks, and nothing about a restart.
    """

    def load(self, user_id: str) -> User | None:
        """A user whom the store knows and the shard has not seen since the start."""

    def save_user(self, user: User, done: Done) -> None:
        """A new user, or a changed name or way of acknowledging."""

    def save_chat(self, user: User, chat: Chat, done: Done) -> None:
        """A new or changed chat of `user`."""

    def append(self, message: Message) -> None:
        """A new message; `Messages.appended` follows, with one call for all messages that were committed together."""

    def after_writes(self, done: Done) -> None:
        """Nothing to write: `done` is called in its turn, after the callbacks of all writes before it."""

    def acknowledged(self, message: Message) -> None:
        """A message that will not be sent again; may become durable later, since a repeat does no harm (D12)."""

    def forget(self, user: User) -> None:
        """A user without chats who has not been seen for a day (D23)."""


class Clock(Protocol):
    """The time of day, which the core never asks the system for."""

    def timestamp(self) -> bytes:
        """UTC in ISO 8601 with milliseconds and Z, 24 bytes (D19)."""
