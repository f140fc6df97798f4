"""What the core asks of the outside, with the promises that each implementation must keep.

The core calls these directly; tests pass in ports that record. Nothing here may block, and no port calls back into the core from
within a call: results come back later, in a call of their own.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol


class Connection(Protocol):
    """One client's connection. Frames are written in the order of the calls; after `close` every call does nothing."""

    #: Where the client is, as text, for operators.
    address: str
    #: What the connection is called in logs.
    label: str
    #: When the last frame of any kind came from the client, on the monotonic clock.
    last_heard: float

    def send(self, frame: bytes) -> None:
        """Write a finished frame, at the latest at the end of this loop turn."""

    def ping(self, payload: bytes) -> None:
        """Write a WebSocket ping; its pong comes back through `Session.pong`."""

    def close(self, code: int, reason: str) -> None:
        """Write what is waiting, then a Close frame, and end the connection. `Session.closed` is called, soon but not from here."""

    def hold(self, until: float) -> None:
        """Don't read from the client until then, on the monotonic clock; what is being read may still come.

        The last call holds: 0.0, or any moment that has passed, ends what the one before said, and ``math.inf`` is without end.
        """

    def unsent(self) -> int:
        """Return bytes that wait to be taken by the kernel."""


class Bus(Protocol):
    """The way to the other shards.

    Records for one worker arrive in the order in which they were sent, each at most once. A record that can't be sent comes back
    from `flush`; one that was lost with a dying worker does not, which is what deadlines are for (D26).
    """

    def send(self, worker: int, record: bytes) -> None:
        """Put a record in this loop turn's envelope for `worker`."""

    def flush(self) -> list[tuple[int, list[bytes]]]:
        """Send this loop turn's envelopes; the records of those that could not be sent, by worker."""
        ...


class Clock(Protocol):
    """The time of day, which the core never asks the system for."""

    def timestamp(self) -> bytes:
        """Return UTC in ISO 8601 with milliseconds and Z, 24 bytes (D19)."""

    def seconds(self) -> float:
        """Return the same in seconds since 1970, as tokens have it."""


class Chance(Protocol):
    """What must not be the same twice, which the core never makes by itself."""

    def message_id(self) -> str:
        """Return a UUID v4, for a message that came without an id. It is unique, and need not be unguessable."""

    def epoch(self) -> str:
        """Return 12 hexadecimal digits that name a new mailbox (D13)."""

    def fraction(self) -> float:
        """Return a number from 0 to 1, for what must not happen to everybody at once."""
        ...


class HookOutcome(StrEnum):
    """How a call of the hook ended."""

    #: The answer was 2xx.
    TOLD = "told"
    #: The answer was 410: of this nothing is to be told.
    GONE = "gone"
    #: Another answer, or none.
    FAILED = "failed"


class WaitingCall(NamedTuple):
    """One call of the hook (D33)."""

    user_id: str
    peer: str
    #: Which call of this chat it is: `HookCall.since`.
    since: int
    #: By which the receiver knows a call that comes again.
    call_id: str
    body: bytes


class Hook(Protocol):
    """The way to the operator's web server that is told of waiting messages (D33)."""

    def send(self, call: WaitingCall) -> None:
        """Send it. `HookCalls.answered` is called once for it, later; not if the process ends before."""
