"""What a case of the conformance suite is: what the peer sends, and what has to come back.

The cases are those of the public list of the Autobahn test suite, families 1 to 7, 9 and 10, under the numbers that they have there and in
our own words. A `Case` is a row of a table; its `Script` is built only when it runs, since some send megabytes.

Each case runs twice. After HELLO the session echoes, as that list asks for. Before HELLO the connection is in the lobby, where the
same rules of framing hold (D25) and no message is echoed: `in_lobby` says what then comes instead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from random import Random
from typing import Final, NamedTuple

from core.wire.protocol import MESSAGE_MAX_BYTES

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

#: Masks, which are to differ, yet be the same in every run.
_MASKS: Final = Random(6455)


class Event(NamedTuple):
    """Something that the server sent: a ``text`` or ``binary`` message, a ``pong``, or, in the lobby, an ``error``: its code."""

    kind: str
    payload: bytes

    def __str__(self) -> str:
        if self.kind == "error":
            return f"ERROR {self.payload.decode()}"
        return f"{self.kind} of {len(self.payload):,} bytes" if self.payload else f"empty {self.kind}"


class Await(NamedTuple):
    """A step: wait until so many events have come in all."""

    events: int


class Ending(NamedTuple):
    """How the connection ends: with one of these codes in the server's Close frame."""

    #: ``peer``: when everything has come the peer closes with 1000; ``script``: the script has a Close frame; ``server``: it closes
    #: by itself.
    by: str
    codes: frozenset[int]

    def __str__(self) -> str:
        codes = " or ".join("no code" if code == NO_CODE else str(code) for code in sorted(self.codes))
        return f"the server closes with {codes}" if self.by == "server" else f"Close answered with {codes}"


#: What RFC 6455 calls a Close frame without a code (7.4.1).
NO_CODE: Final = 1005
CLEAN: Final = Ending("peer", frozenset({1000}))


def fails(code: int) -> Ending:
    """The server fails the connection with this code."""
    return Ending("server", frozenset({code}))


def answers(*codes: int) -> Ending:
    """The server answers the Close frame of the script with one of these."""
    return Ending("script", frozenset(codes))


class Script(NamedTuple):
    """The steps are bytes, each sent with a call of its own, and `Await`; then everything that comes is in `events`, in this order."""

    steps: Iterable[bytes | Await]
    events: tuple[Event, ...]
    ending: Ending


class Case(NamedTuple):
    """One row."""

    number: str
    #: What the peer sends.
    title: str
    build: Callable[[], Script]


def case(
    number: str, title: str, steps: Sequence[bytes | Await], *events: Event, ending: Ending = CLEAN
) -> Case:
    """A case whose script is small."""
    return Case(number, title, lambda: Script(steps, events, ending))


def in_lobby(script: Script) -> Script:
    """The same before HELLO: no text is more than a message that is none, binary data is refused, and so is what is too long."""
    events: list[Event] = []
    for event in script.events:
        if event.kind != "pong" and len(event.payload) > MESSAGE_MAX_BYTES:
            return Script(script.steps, tuple(events), fails(1009))
        if event.kind == "binary":
            return Script(script.steps, tuple(events), fails(1003))
        events.append(Event("error", b"VALIDATION") if event.kind == "text" else event)
    return Script(script.steps, tuple(events), script.ending)


def expectation(script: Script) -> str:
    """What is expected, in words."""
    words = []
    for event, equal in groupby(map(str, script.events)):
        count = len(list(equal))
        words.append(event if count == 1 else f"{count:,} times {event}")
    return "; ".join([*words, str(script.ending)])


# -- What scripts are made of --


def text(payload: bytes) -> Event:
    """A text message came."""
    return Event("text", payload)


def binary(payload: bytes) -> Event:
    """A binary message came."""
    return Event("binary", payload)


def pong(payload: bytes = b"") -> Event:
    """A pong came."""
    return Event("pong", payload)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A masked frame, right or wrong; `rsv` is the three reserved bits as a number from 0 to 7."""
    size = len(payload)
    first = fin << 7 | rsv << 4 | opcode
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    mask = _MASKS.randbytes(4)
    key = mask * (size // 4) + mask[: size % 4]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return head + mask + masked.to_bytes(size, "little")


def close(code: int, reason: bytes = b"") -> bytes:
    """A Close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


def chopped(data: bytes, size: int) -> list[bytes | Await]:
    """Bytes as steps of so many each."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def fragments(opcode: int, payload: bytes, size: int) -> Iterator[bytes]:
    """The frames of a message of which each fragment has `size` bytes."""
    for start in range(0, len(payload), size):
        last = start + size >= len(payload)
        yield frame(CONTINUATION if start else opcode, payload[start : start + size], fin=last)
