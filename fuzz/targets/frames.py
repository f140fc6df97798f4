"""What a front sees of a stranger's frames: ``core.wire.frames``, beside wsproto's parser, which has to come to the same result."""

from __future__ import annotations

import struct
from random import Random
from typing import Final

from wsproto.frame_protocol import FrameDecoder, ParseFailed

from core.wire.frames import Fragments, Frame, FrameError, NeedMore, Opcode, close_answer, parse_frame
from core.wire.protocol import MESSAGE_MAX_BYTES
from fuzz.mutate_bytes import SIZE_MAX, mutate_bytes
from fuzz.target import Target

_Outcome = Frame | NeedMore | FrameError


def check(data: bytes) -> bool:
    """Whether there is a whole frame."""
    first = _parse(data)
    _like_its_beginnings(data, first)
    _like_the_other_parser(data, first)
    _as_a_lobby_does(data)
    return isinstance(first, Frame)


def _parse(data: bytes) -> _Outcome:
    try:
        return parse_frame(data)
    except FrameError as error:
        assert error.code in (1002, 1009)
        return error


def _like_its_beginnings(data: bytes, outcome: _Outcome) -> None:
    """Check that what is seen of a part agrees with what is seen of the whole."""
    size = len(data)
    for end in {0, 1, 2, 3, 6, 10, 13, 14, size // 2, size - 1} & set(range(size)):
        part = _parse(data[:end])
        if isinstance(part, NeedMore):
            assert part.total > end
        elif isinstance(part, Frame):
            assert part == outcome
        else:
            assert isinstance(outcome, FrameError)
            assert outcome.code == part.code
    if isinstance(outcome, NeedMore):
        assert size < outcome.total <= MESSAGE_MAX_BYTES + 14
    elif isinstance(outcome, Frame):
        assert outcome.size <= size


def _like_the_other_parser(data: bytes, outcome: _Outcome) -> None:
    decoder = FrameDecoder(client=False, extensions=[])
    decoder.receive_bytes(data)
    try:
        other = decoder.process_buffer()
        if isinstance(outcome, Frame) and other is None and not outcome.payload:
            other = decoder.process_buffer()
    except ParseFailed:
        # It wants to see the mask before it says so of some; ours says it of all at once.
        assert isinstance(outcome, FrameError), (data[:20], outcome)
        return
    if isinstance(outcome, Frame):
        assert other is not None
        assert (other.opcode, other.message_finished, other.payload) == (
            outcome.opcode,
            outcome.final,
            outcome.payload,
        )
    elif isinstance(outcome, FrameError):
        # Too long is ours; and the other one looks at nothing before the length is there.
        assert outcome.code == 1009 or other is None or other.payload == b"", (data[:20], outcome, other)


def _as_a_lobby_does(data: bytes) -> None:
    """Frame by frame: fragments are put together, and Close frames answered."""
    view, fragments, parts = memoryview(data), None, b""
    try:
        for _ in range(64):
            frame = parse_frame(view)
            if isinstance(frame, NeedMore):
                return
            view = view[frame.size :]
            if frame.opcode == Opcode.CLOSE:
                answer = close_answer(frame.payload)
                assert len(answer) <= 125
                assert close_answer(answer) == answer[:2]
            elif frame.opcode in (Opcode.TEXT, Opcode.CONTINUATION):
                if frame.opcode == Opcode.TEXT:
                    fragments, parts = Fragments(), b""
                if fragments is None:
                    return
                parts += frame.payload
                fragments.add(frame.payload, frame.final)
                assert fragments.message() == parts
                if frame.final:
                    parts.decode()
                    fragments = None
    except FrameError as error:
        if error.code == 1007:
            assert not _is_utf8(parts)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def mutate(data: bytes, rng: Random) -> bytes:
    """Change bytes, or put a frame somewhere: right, or with one thing wrong."""
    if rng.randrange(3):
        frame = _frame(rng)
        match rng.randrange(4):
            case 0:
                return (frame + data)[:SIZE_MAX]
            case 1:
                return (data + frame)[-SIZE_MAX:]
            case 2:
                return frame + _frame(rng)
        return frame[: rng.randrange(len(frame) + 1)]
    return mutate_bytes(data, rng)


def _frame(rng: Random) -> bytes:
    opcode = rng.choice((*Opcode, *Opcode, rng.randrange(16)))
    first = opcode | (0x80 if rng.randrange(4) else 0) | (0 if rng.randrange(12) else rng.randrange(8) << 4)
    size = rng.choice((0, 1, 2, 3, 125, 126, 127, 128, 200, 16383, 16384, 16385, 65535, 65536))
    said = (
        size
        if rng.randrange(8)
        else rng.choice((0, 125, 126, 65535, 65536, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1))
    )
    mask = 0x80 if rng.randrange(12) else 0
    form = rng.randrange(12)
    if form == 0 or 126 <= said < 65536:
        head = bytes((first, mask | 126)) + struct.pack("!H", said & 0xFFFF)
    elif form == 1 or said >= 65536:
        head = bytes((first, mask | 127)) + struct.pack("!Q", said)
    else:
        head = bytes((first, mask | said & 0x7F))
    body = rng.choice((b"x", b"\xe2\x82\xac", b"\xff", b"\x03\xe8", b"{}"))
    payload = body * (min(size, 17000) // len(body)) + rng.randbytes(1)[: size % len(body)]
    if opcode == Opcode.CLOSE and rng.randrange(4):
        payload = rng.choice(
            (
                b"",
                b"\x03",
                struct.pack("!H", rng.choice((1000, 1005, 999, 3000, 4999, 5000)))
                + b"bye\xff"[: rng.randrange(5)],
            )
        )
        head = bytes((first, 0x80 | len(payload)))
    return (
        head + bytes(4) * bool(mask) + payload
        if rng.randrange(2)
        else head + b"\x55\xaa\x01\x80" * bool(mask) + payload
    )


TARGET: Final = Target(check, mutate, "a whole frame", ("core.wire.frames",))
