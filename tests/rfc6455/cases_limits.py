"""Families 9 and 10: sizes up to 16 MiB, whole, in fragments and in small segments; many round trips.

The limits of a real server are far below that; the echo server has others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from tests.rfc6455.case import (
    BINARY,
    CLEAN,
    TEXT,
    Await,
    Case,
    Event,
    Script,
    chopped,
    fragments,
    frame,
)

KIB: Final = 1024
MIB: Final = 1024 * KIB
#: The largest message of all cases.
LARGEST: Final = 16 * MIB

_OPCODES: Final = {"text": TEXT, "binary": BINARY}
#: For each size of a message how often it goes back and forth.
_ROUND_TRIPS: Final = 1000


def _payload(kind: str, size: int) -> bytes:
    """Bytes of which no two neighbouring kilobytes are the same; what is lost or swapped shows."""
    return _longest(kind)[:size]


@functools.cache
def _longest(kind: str) -> bytes:
    """The payload of the largest message, made once: it takes longer than most cases."""
    numbers = range(LARGEST // 8)
    if kind == "text":
        return b"".join(b"%07d " % number for number in numbers)
    return b"".join(number.to_bytes(8, "big") for number in range(0xFE << 56, (0xFE << 56) + len(numbers)))


def _whole(kind: str, size: int) -> Script:
    payload = _payload(kind, size)
    return Script([frame(_OPCODES[kind], payload)], (Event(kind, payload),), CLEAN)


def _in_fragments(kind: str, size: int, fragment: int) -> Script:
    payload = _payload(kind, size)
    # Frames are joined to segments of some size: one call for each would measure the peer.
    data = b"".join(fragments(_OPCODES[kind], payload, fragment))
    return Script(chopped(data, 256 * KIB), (Event(kind, payload),), CLEAN)


def _in_segments(kind: str, size: int, segment: int) -> Script:
    payload = _payload(kind, size)
    return Script(chopped(frame(_OPCODES[kind], payload), segment), (Event(kind, payload),), CLEAN)


def _round_trips(kind: str, size: int) -> Script:
    payload = _payload(kind, size)

    def steps() -> Iterator[bytes | Await]:
        for number in range(1, _ROUND_TRIPS + 1):
            yield frame(_OPCODES[kind], payload)
            yield Await(number)

    return Script(steps(), (Event(kind, payload),) * _ROUND_TRIPS, CLEAN)


def _shown(size: int) -> str:
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def _table() -> Iterator[tuple[str, str, Callable[[], Script]]]:
    for family, kind in ((1, "text"), (2, "binary")):
        for index, size in enumerate((64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, LARGEST), 1):
            yield f"9.{family}.{index}", f"{kind} of {_shown(size)}", partial(_whole, kind, size)
    for family, kind in ((3, "text"), (4, "binary")):
        for index in range(9):
            fragment = 64 * 4**index
            title = f"{kind} of 4 MiB in fragments of {_shown(fragment)}"
            yield f"9.{family}.{index + 1}", title, partial(_in_fragments, kind, 4 * MIB, fragment)
    for family, kind in ((5, "text"), (6, "binary")):
        for index in range(6):
            segment = 64 * 2**index
            title = f"{kind} of 1 MiB in segments of {_shown(segment)}"
            yield f"9.{family}.{index + 1}", title, partial(_in_segments, kind, MIB, segment)
    for family, kind in ((7, "text"), (8, "binary")):
        for index, size in enumerate((0, 16, 64, 256, KIB, 4 * KIB), 1):
            title = (
                f"{_ROUND_TRIPS:,} times {kind} of {_shown(size)}, each after the answer to the one before"
            )
            yield f"9.{family}.{index}", title, partial(_round_trips, kind, size)
    yield (
        "10.1.1",
        "text of 64 KiB in fragments of 1,300 bytes",
        partial(_in_fragments, "text", 64 * KIB, 1300),
    )


CASES: Final = [Case(*row) for row in _table()]
