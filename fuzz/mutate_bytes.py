"""Small changes to bytes that have no structure, or whose structure is to be broken."""

from __future__ import annotations

from random import Random
from typing import Final

#: No input grows beyond this; a message of 16 KiB and its frames fit.
SIZE_MAX: Final = 20 * 1024
_INTERESTING: Final = (
    *(
        b"\0",
        b"\xff",
        b"\x7f",
        b"\x80",
        b"\r\n",
        b"\n",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"<",
        b"&",
        b" ",
        b":",
    ),
    *(b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80\xae", b"\xff\xff\xff\xff", b"\0\0\0\0"),
)


def mutate_bytes(data: bytes, rng: Random) -> bytes:
    """One to four changes anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        position = rng.randrange(len(changed) + 1)
        match rng.randrange(7):
            case 0:
                changed[position:position] = rng.choice(_INTERESTING)
            case 1:
                changed[position : position + rng.choice((1, 2, 8))] = rng.choice(_INTERESTING)
            case 2:
                del changed[position : position + rng.choice((1, 1, 2, 16))]
            case 3:
                changed[position : position + 1] = rng.randbytes(1)
            case 4 if changed:
                changed[position % len(changed)] ^= 1 << rng.randrange(8)
            case 5:
                start = rng.randrange(len(changed) + 1)
                changed[position:position] = changed[start : start + rng.choice((1, 4, 32))]
            case 6:
                changed[position:position] = rng.choice(_INTERESTING) * rng.choice((2, 125, 4096))
    return bytes(changed[:SIZE_MAX])
