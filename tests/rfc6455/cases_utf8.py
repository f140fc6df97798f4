"""Family 6: UTF-8, whole and in pieces that end in the middle of a character.

The sequences from 6.5 on are those of Markus Kuhn's UTF-8 decoder stress test.
"""

from __future__ import annotations

from typing import Final

from tests.rfc6455.case import (
    CONTINUATION,
    PING,
    TEXT,
    Await,
    Case,
    case,
    fails,
    fragments,
    frame,
    pong,
    text,
)

GREETING: Final = "Hello-µ@ßöäüàá-UTF-8!!".encode()
#: The Greek word for world, with an accent of three bytes.
_KOSMOS: Final = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
SURROGATE: Final = _KOSMOS + b"\xed\xa0\x80edited"
#: The code point behind the last one.
TOO_LARGE: Final = b"\xf4\x90\x80\x80"


def _pieces() -> list[Case]:
    empty, middle = b"", b"middle of three"
    split = len("Hello-µ@ßöä".encode())
    return [
        case("6.1.1", "empty text", [frame(TEXT)], text(b"")),
        case("6.1.2", "text in three empty fragments", _three(empty, empty, empty), text(b"")),
        case(
            "6.1.3",
            "text in three fragments of which only the middle one is not empty",
            _three(empty, middle, empty),
            text(middle),
        ),
        case("6.2.1", "valid text in one frame", [frame(TEXT, GREETING)], text(GREETING)),
        case(
            "6.2.2",
            "valid text in two fragments, cut between two characters",
            [frame(TEXT, GREETING[:split], fin=False), frame(CONTINUATION, GREETING[split:])],
            text(GREETING),
        ),
        case(
            "6.2.3", "valid text in fragments of one byte", list(fragments(TEXT, GREETING, 1)), text(GREETING)
        ),
        case(
            "6.2.4",
            "valid Greek text in fragments of one byte",
            list(fragments(TEXT, _KOSMOS, 1)),
            text(_KOSMOS),
        ),
        case("6.3.1", "text with a surrogate in one frame", [frame(TEXT, SURROGATE)], ending=fails(1007)),
        case(
            "6.3.2",
            "text with a surrogate in fragments of one byte",
            list(fragments(TEXT, SURROGATE, 1)),
            ending=fails(1007),
        ),
    ]


def _three(first: bytes, second: bytes, third: bytes) -> list[bytes | Await]:
    return [
        frame(TEXT, first, fin=False),
        frame(CONTINUATION, second, fin=False),
        frame(CONTINUATION, third),
    ]


def _fail_fast() -> list[Case]:
    """In the first two the last fragment is never sent: the one that spoils the message has to be enough.

    A frame is looked at when it is whole, so in the other two the code comes with its end, which the list calls not strict, and passes.
    """
    whole = _KOSMOS + TOO_LARGE + b"edited"
    start = len(_KOSMOS)
    cases = []
    for number, first, second, what in (
        ("6.4.1", start, start + 4, "a code point that is too large"),
        ("6.4.2", start + 1, start + 2, "the byte that makes it too large"),
    ):
        steps: list[bytes | Await] = [
            frame(TEXT, whole[:first], fin=False),
            frame(PING, b"still here?"),
            Await(1),
            frame(CONTINUATION, whole[first:second], fin=False),
        ]
        title = f"text in three fragments, in the second {what}; the third is not sent"
        cases.append(case(number, title, steps, pong(b"still here?"), ending=fails(1007)))
    for number, first, second, what in (
        ("6.4.3", start, start + 4, "a code point that is too large"),
        ("6.4.4", start + 1, start + 2, "the byte that makes it too large"),
    ):
        data = frame(TEXT, whole)
        head = len(data) - len(whole)
        segments = [data[: head + first], data[head + first : head + second], data[head + second :]]
        title = f"text in one frame and three segments, in the second {what}"
        cases.append(case(number, title, segments, ending=fails(1007)))
    return cases


def _non_characters() -> list[bytes]:
    """U+nFFFE and U+nFFFF of all planes that the list has."""
    planes = [0, *range(1, 17)]
    codes = [plane << 16 | low for plane in planes for low in (0xFFFE, 0xFFFF)]
    return [chr(code).encode() for code in codes]


_MISSING: Final = [
    *(b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"),
    *(b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"),
]


def _lonely(first: int, last: int) -> bytes:
    """First bytes of sequences, each followed by a space."""
    return b"".join(bytes((byte, 0x20)) for byte in range(first, last))


#: Sub-family -> what it is about, and the sequences; whether one is valid Python's own decoder says, and the counts below are the list's.
_SEQUENCES: Final[dict[int, tuple[str, list[bytes]]]] = {
    5: (
        "valid sequences",
        [
            b"hello\x24world",
            b"hello\xc2\xa2world",
            b"hello\xe2\x82\xacworld",
            b"hello\xf0\xa4\xad\xa2world",
            _KOSMOS,
        ],
    ),
    6: ("beginnings of a text", [_KOSMOS[:end] for end in range(1, len(_KOSMOS) + 1)]),
    7: ("first sequence of a length", [b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
    8: ("first sequence of five and six bytes", [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
    9: ("last sequence of a length", [b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
    10: (
        "last sequence of four, five and six bytes",
        [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"],
    ),
    11: (
        "boundaries",
        [b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", TOO_LARGE],
    ),
    12: (
        "continuation bytes without a first one",
        [b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:size] for size in range(2, 7)), bytes(range(0x80, 0xBF))],
    ),
    13: (
        "first bytes without a continuation",
        [
            _lonely(0xC0, 0xDF),
            _lonely(0xE0, 0xEF),
            _lonely(0xF0, 0xF7),
            _lonely(0xF8, 0xFB),
            _lonely(0xFC, 0xFD),
        ],
    ),
    14: ("the last continuation byte missing", _MISSING),
    15: ("those one behind the other", [b"".join(_MISSING)]),
    16: ("impossible bytes", [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    17: (
        "overlong ASCII",
        [
            b"\xc0\xaf",
            b"\xe0\x80\xaf",
            b"\xf0\x80\x80\xaf",
            b"\xf8\x80\x80\x80\xaf",
            b"\xfc\x80\x80\x80\x80\xaf",
        ],
    ),
    18: (
        "the largest overlong sequences",
        [
            b"\xc1\xbf",
            b"\xe0\x9f\xbf",
            b"\xf0\x8f\xbf\xbf",
            b"\xf8\x87\xbf\xbf\xbf",
            b"\xfc\x83\xbf\xbf\xbf\xbf",
        ],
    ),
    19: (
        "overlong NUL",
        [
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf0\x80\x80\x80",
            b"\xf8\x80\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80\x80",
        ],
    ),
    20: (
        "single surrogates",
        [
            *(b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf"),
            *(b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf"),
        ],
    ),
    21: (
        "pairs of surrogates",
        [
            high + low
            for high in (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf")
            for low in (b"\xed\xb0\x80", b"\xed\xbf\xbf")
        ],
    ),
    22: ("non-characters, which are valid", _non_characters()),
    23: ("special characters, which are valid", [chr(code).encode() for code in range(0xFFF9, 0x10000)]),
}
#: The sequences of these are valid, and those of no other but some of 6 and 11.
VALID: Final = frozenset({5, 7, 9, 22, 23})


def _is_valid(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _sequences() -> list[Case]:
    cases = []
    for family, (about, sequences) in _SEQUENCES.items():
        for index, payload in enumerate(sequences, 1):
            number, shown = f"6.{family}.{index}", payload.hex(" ")
            if len(shown) > 48:
                shown = f"{shown[:36]} ..."
            title = f"{about}: `{shown}`"
            if _is_valid(payload):
                cases.append(case(number, title, [frame(TEXT, payload)], text(payload)))
            else:
                cases.append(case(number, title, [frame(TEXT, payload)], ending=fails(1007)))
    return cases


CASES: Final = [*_pieces(), *_fail_fast(), *_sequences()]
