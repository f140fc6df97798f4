"""Families 1 to 4: framing, pings and pongs, reserved bits, opcodes."""

from __future__ import annotations

from typing import Final

from tests.rfc6455.case import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Case,
    Event,
    case,
    chopped,
    fails,
    frame,
    pong,
    text,
)

HELLO: Final = b"Hello, world!"
NOT_UTF8: Final = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"

#: Payload lengths on both sides of where the length field grows.
_LENGTHS: Final = (0, 125, 126, 127, 128, 65535, 65536)


def _whole(family: str, kind: str, opcode: int, octet: bytes) -> list[Case]:
    cases = []
    for index, length in enumerate(_LENGTHS, 1):
        payload = octet * length
        cases.append(
            case(
                f"{family}.{index}",
                f"{kind} of {length:,} bytes",
                [frame(opcode, payload)],
                Event(kind, payload),
            )
        )
    payload = octet * 65536
    title = f"{kind} of 65,536 bytes, in segments of 997"
    cases.append(case(f"{family}.8", title, chopped(frame(opcode, payload), 997), Event(kind, payload)))
    return cases


def _pings() -> list[Case]:
    payloads = [b"payload-%d" % number for number in range(10)]
    longest = b"\xfe" * 125
    return [
        case("2.1", "ping without payload", [frame(PING)], pong()),
        case("2.2", "ping with a payload of text", [frame(PING, HELLO)], pong(HELLO)),
        case("2.3", "ping with a payload that is no UTF-8", [frame(PING, NOT_UTF8)], pong(NOT_UTF8)),
        case("2.4", "ping of 125 bytes", [frame(PING, longest)], pong(longest)),
        case("2.5", "ping of 126 bytes", [frame(PING, b"\xfe" * 126)], ending=fails(1002)),
        case("2.6", "ping of 125 bytes, byte by byte", chopped(frame(PING, longest), 1), pong(longest)),
        case("2.7", "pong without payload that nobody asked for", [frame(PONG)]),
        case("2.8", "pong with payload that nobody asked for", [frame(PONG, b"nobody asked")]),
        case(
            "2.9",
            "pong that nobody asked for, then ping",
            [frame(PONG, b"nobody asked"), frame(PING, b"ping payload")],
            pong(b"ping payload"),
        ),
        case("2.10", "10 pings with payload", [frame(PING, each) for each in payloads], *map(pong, payloads)),
        case(
            "2.11",
            "10 pings with payload, byte by byte",
            chopped(b"".join(frame(PING, each) for each in payloads), 1),
            *map(pong, payloads),
        ),
    ]


def _reserved_bits() -> list[Case]:
    def between(rsv: int) -> list[bytes]:
        return [frame(TEXT, HELLO), frame(TEXT, HELLO, rsv=rsv), frame(PING)]

    story = "text; text with RSV = {}; ping"
    return [
        case("3.1", "text with RSV = 1", [frame(TEXT, HELLO, rsv=1)], ending=fails(1002)),
        case("3.2", story.format(2), [b"".join(between(2))], text(HELLO), ending=fails(1002)),
        case("3.3", f"{story.format(3)}, frame by frame", [*between(3)], text(HELLO), ending=fails(1002)),
        case(
            "3.4",
            f"{story.format(4)}, byte by byte",
            chopped(b"".join(between(4)), 1),
            text(HELLO),
            ending=fails(1002),
        ),
        case("3.5", "binary with RSV = 5", [frame(BINARY, NOT_UTF8, rsv=5)], ending=fails(1002)),
        case("3.6", "ping with RSV = 6", [frame(PING, HELLO, rsv=6)], ending=fails(1002)),
        case("3.7", "Close with RSV = 7", [frame(CLOSE, rsv=7)], ending=fails(1002)),
    ]


def _opcodes(family: str, reserved: tuple[int, ...], byte_by_byte: frozenset[int]) -> list[Case]:
    """Five reserved opcodes: the first two alone, the others between a text and a ping; every second with a payload."""
    cases = []
    for index, opcode in enumerate(reserved, 1):
        with_payload = index in (2, 4, 5)
        bad = frame(opcode, HELLO if with_payload else b"")
        title = f"opcode {opcode}{' with payload' if with_payload else ''}"
        number = f"{family}.{index}"
        if index <= 2:
            cases.append(case(number, title, [bad], ending=fails(1002)))
            continue
        data = frame(TEXT, HELLO) + bad + frame(PING)
        chops = opcode in byte_by_byte
        title = f"text; {title}; ping{', byte by byte' if chops else ''}"
        steps = chopped(data, 1 if chops else len(data))
        cases.append(case(number, title, steps, text(HELLO), ending=fails(1002)))
    return cases


CASES: Final = [
    *_whole("1.1", "text", TEXT, b"*"),
    *_whole("1.2", "binary", BINARY, b"\xfe"),
    *_pings(),
    *_reserved_bits(),
    *_opcodes("4.1", (3, 4, 5, 6, 7), frozenset({7})),
    *_opcodes("4.2", (11, 12, 13, 14, 15), frozenset({15})),
]
