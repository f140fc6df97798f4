"""core.wire.frames: reading a client's frames without consuming them, and writing a server's (D25, D28).

The `websockets` library, which shares no code with it, writes the frames that are read here and reads those that are written.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame as OtherFrame
from websockets.frames import Opcode as OtherOpcode

from core.wire.frames import (
    EMPTY_FRAGMENTS_MAX,
    PEEK_BYTES,
    CloseWatch,
    Fragments,
    Frame,
    FrameError,
    NeedMore,
    Opcode,
    apply_mask,
    client_frame,
    close_answer,
    close_frame,
    close_payload,
    parse_frame,
    server_frame,
    text_frame,
)
from core.wire.protocol import MESSAGE_MAX_BYTES

#: Payloads on both sides of where the header grows.
_PAYLOADS = (
    st.binary(max_size=200) | st.integers(120, 130).map(bytes) | st.integers(0, MESSAGE_MAX_BYTES).map(bytes)
)
_OPCODES = st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION])


def written(opcode: int, payload: bytes, final: bool = True) -> bytes:
    """A client's frame, masked, as the other library writes it."""
    return OtherFrame(OtherOpcode(opcode), payload, final).serialize(mask=True)


def read(frame: bytes) -> tuple[int, bytes, bool]:
    """Opcode, payload and FIN of a server's frame as the other library reads it; all of it must be one frame."""
    taken = 0

    def read_exact(size: int):  # type: ignore[no-untyped-def]
        nonlocal taken
        taken += size
        return frame[taken - size : taken]
        yield

    generator = OtherFrame.parse(read_exact, mask=False, max_size=None)
    try:
        next(generator)
    except StopIteration as stop:
        other = stop.value
    assert taken == len(frame)
    return other.opcode, bytes(other.data), other.fin


@given(_OPCODES, _PAYLOADS, st.booleans())
def test_what_a_client_writes_is_read(opcode: Opcode, payload: bytes, final: bool) -> None:
    """Opcode, FIN, payload, and how much of the stream it was."""
    data = written(opcode, payload, final)
    assert parse_frame(data) == Frame(opcode, final, payload, len(data))
    assert parse_frame(memoryview(data)) == Frame(opcode, final, payload, len(data))


@settings(max_examples=40)
@given(st.lists(st.tuples(_OPCODES, st.binary(max_size=300)), min_size=1, max_size=4), st.binary(max_size=5))
def test_frames_are_read_one_by_one_whatever_stands_behind_them(
    frames: list[tuple[Opcode, bytes]], tail: bytes
) -> None:
    """`size` is what to consume."""
    data = b"".join(written(opcode, payload) for opcode, payload in frames) + tail
    for opcode, payload in frames:
        frame = parse_frame(data)
        assert isinstance(frame, Frame)
        assert (frame.opcode, frame.payload) == (opcode, payload)
        data = data[frame.size :]
    assert data == tail


@given(_OPCODES, _PAYLOADS)
@example(Opcode.TEXT, bytes(MESSAGE_MAX_BYTES))
def test_a_frame_that_is_not_all_there_says_how_much_it_needs(opcode: Opcode, payload: bytes) -> None:
    """More than there is and never more than the frame, so a reader that waits for `total` gets there, in at most four looks."""
    data = written(opcode, payload)
    assert len(data) <= PEEK_BYTES
    size, looks = 0, 0
    while True:
        answer = parse_frame(data[:size])
        looks += 1
        if isinstance(answer, Frame):
            break
        assert size < answer.total <= len(data)
        size = answer.total
    assert size == len(data)
    assert looks <= 4
    for cut in {1, 2, 3, 5, 7, 11, size // 2, size - 1}:
        if cut < size:
            assert isinstance(parse_frame(data[:cut]), NeedMore)


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda tail: b"\x81" + tail))
def test_any_bytes_are_a_frame_incomplete_or_an_error(data: bytes) -> None:
    """And what is said about the beginning holds for the whole: reading early changes nothing."""

    def outcome(available: int) -> object:
        try:
            return parse_frame(data[:available])
        except FrameError as error:
            assert error.reason
            return error.code

    whole = outcome(len(data))
    for available in range(len(data)):
        early = outcome(available)
        assert isinstance(early, NeedMore) or early == whole


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x80", 1002),  # RSV1
        (b"\xa1\x80", 1002),  # RSV2
        (b"\x91\x80", 1002),  # RSV3
        (b"\x83\x80", 1002),  # unknown data opcode
        (b"\x8b\x80", 1002),  # unknown control opcode
        (b"\x81\x05", 1002),  # no mask
        (b"\x09\x80", 1002),  # fragmented ping
        (b"\x08\x80", 1002),  # fragmented close
        (b"\x89\xfe\x00\x7e", 1002),  # ping of 126 bytes
        (b"\x88\xff", 1002),
        (b"\x81\xfe\x00\x7d", 1002),  # 125 in the long form
        (b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff", 1002),  # 65,535 in the longest form
        (b"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00", 1002),  # the highest bit
        (b"\x81\xfe\x40\x01", 1009),  # 16 KiB and one byte
        (b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00", 1009),
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),
    ],
)
def test_d25_what_a_client_must_not_send_is_refused_as_soon_as_it_shows(data: bytes, code: int) -> None:
    """From the header alone, before any payload has come; the byte before decides nothing."""
    with pytest.raises(FrameError) as caught:
        parse_frame(data)
    assert caught.value.code == code
    assert caught.value.reason


def test_d25_the_limit_is_for_all_fragments_together() -> None:
    """What earlier fragments took is no longer there for this one."""
    data = written(Opcode.CONTINUATION, bytes(100))
    assert isinstance(parse_frame(data, 100), Frame)
    with pytest.raises(FrameError) as caught:
        parse_frame(data, 99)
    assert caught.value.code == 1009


@settings(max_examples=40)
@given(st.binary(max_size=50), st.binary(min_size=4, max_size=4))
def test_masking_is_xor_and_its_own_inverse(payload: bytes, mask: bytes) -> None:
    masked = apply_mask(payload, mask)
    assert masked == bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    assert apply_mask(masked, mask) == payload


@settings(max_examples=40)
@given(st.sampled_from([Opcode.TEXT, Opcode.PING, Opcode.CLOSE, Opcode.PONG]), st.binary(max_size=125))
def test_a_clients_frame_of_ours_reads_back(opcode: Opcode, payload: bytes) -> None:
    data = client_frame(opcode, payload)
    assert parse_frame(data) == Frame(opcode, True, payload, len(data))


@given(st.integers(0, 300).map(bytes) | st.integers(65530, 65540).map(bytes))
def test_what_the_server_writes_is_read_by_others(payload: bytes) -> None:
    """At every size of the header."""
    assert text_frame(payload) == server_frame(Opcode.TEXT, payload)
    assert read(text_frame(payload)) == (Opcode.TEXT, payload, True)
    assert read(server_frame(Opcode.BINARY, payload)) == (Opcode.BINARY, payload, True)


# -- Close --


@given(st.integers(1000, 4999), st.text(max_size=200))
@example(1000, "x" + "ä" * 100)
@example(1000, "\U0001f468" * 50)
def test_d28_a_close_frame_has_a_code_and_as_much_of_the_reason_as_fits(code: int, reason: str) -> None:
    """Cut at a character, so that it stays UTF-8."""
    opcode, payload, _ = read(close_frame(code, reason))
    assert opcode == Opcode.CLOSE
    assert len(payload) <= 125
    assert int.from_bytes(payload[:2], "big") == code
    told = payload[2:].decode()
    assert reason.startswith(told)
    assert told == reason or len((told + reason[len(told)]).encode()) > 123


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", None),
        (b"\x03", 1002),
        (b"\x03\xe8", 1000),
        (b"\x03\xe8bye", 1000),
        (b"\x03\xe9", 1001),
        (b"\x03\xf6", 1014),
        (b"\x0b\xb8", 3000),
        (b"\x13\x87", 4999),
        (b"\x00\x00", 1002),
        (b"\x03\xe7", 1002),  # 999
        (b"\x03\xec", 1002),  # 1004
        (b"\x03\xed", 1002),  # 1005
        (b"\x03\xee", 1002),  # 1006
        (b"\x03\xf7", 1002),  # 1015
        (b"\x07\xd0", 1002),  # 2000
        (b"\x13\x88", 1002),  # 5000
        (b"\x03\xe8\xff", 1007),
    ],
)
def test_d25_a_close_is_answered_with_its_own_code_or_with_what_was_wrong(
    payload: bytes, code: int | None
) -> None:
    """RFC 6455, 5.5.1 and 7.4."""
    answer = close_answer(payload)
    assert (int.from_bytes(answer[:2], "big") if answer else None) == code
    assert len(answer) <= 125
    if code in (1002, 1007):
        assert answer == close_payload(code, answer[2:].decode())
        assert answer[2:]


# -- Fragments --


@given(st.text(max_size=200), st.lists(st.integers(0, 800), max_size=8))
def test_fragments_are_put_together(text: str, cuts: list[int]) -> None:
    """Cut anywhere, also in the middle of a character."""
    payload = text.encode()
    ends = [*sorted(cut % (len(payload) + 1) for cut in cuts), len(payload)]
    fragments, start = Fragments(), 0
    for index, end in enumerate(ends):
        fragments.add(payload[start:end], index == len(ends) - 1)
        start = end
    assert fragments.message() == payload


@pytest.mark.parametrize(
    ("first", "second"), [(b"", b"\xff"), (b"\xed\xa0", b"\x80"), (b"x\xf4", b"\x90"), (b"\xc3", b"x")]
)
def test_d25_the_fragment_that_spoils_a_message_is_refused(first: bytes, second: bytes) -> None:
    """RFC 6455, 8.1: at once, though more may follow."""
    fragments = Fragments()
    fragments.add(first, False)
    with pytest.raises(FrameError) as caught:
        fragments.add(second, False)
    assert caught.value.code == 1007


def test_d25_a_message_that_ends_within_a_character_is_refused() -> None:
    fragments = Fragments()
    fragments.add(b"\xc3", False)
    with pytest.raises(FrameError) as caught:
        fragments.add(b"", True)
    assert caught.value.code == 1007


def test_fragments_without_content_have_a_limit() -> None:
    """They never become 16 KiB; with content between them too."""
    fragments = Fragments()
    for _ in range(EMPTY_FRAGMENTS_MAX // 2):
        fragments.add(b"", False)
        fragments.add(b"x", False)
        fragments.add(b"", False)
    with pytest.raises(FrameError) as caught:
        fragments.add(b"", True)
    assert caught.value.code == 1008
    assert fragments.message() == b"x" * (EMPTY_FRAGMENTS_MAX // 2)


def test_d25_all_fragments_together_have_a_limit() -> None:
    fragments = Fragments()
    for _ in range(16):
        fragments.add(b"x" * 1024, False)
    fragments.add(b"", False)
    with pytest.raises(FrameError) as caught:
        fragments.add(b"x", True)
    assert caught.value.code == 1009
    assert len(fragments.message()) == MESSAGE_MAX_BYTES


# -- The Close frame that answers ours --


def masked(opcode: int, payload: bytes, mask: bytes = b"\x12\x34\x56\x78") -> bytes:
    """A short frame of a client."""
    return bytes((0x80 | opcode, 0x80 | len(payload))) + mask + apply_mask(payload, mask)


@pytest.mark.parametrize(
    "close",
    [b"", b"\x03\xe8", b"\x03\xf0closed by the operator", b"\x0f\xa2" + b"x" * 123],
    ids=["empty", "1000", "1008", "the longest"],
)
@pytest.mark.parametrize(
    "before", [b"", masked(1, b"{}") * 50, b"\x81\x02{}", b"\x88\x80", bytes(range(256)) * 300]
)
def test_d28_a_close_frame_is_found_behind_anything(before: bytes, close: bytes) -> None:
    """In one go, byte by byte, and cut in the middle."""
    frame = masked(8, close)
    assert CloseWatch().feed(before + frame)
    watch = CloseWatch()
    assert [watch.feed(frame[index : index + 1]) for index in range(len(frame))].index(True) == len(frame) - 1
    watch = CloseWatch()
    watch.feed(before + frame[:5])
    assert watch.feed(frame[5:])


@given(st.binary(max_size=400), st.binary(max_size=123))
def test_d28_a_close_frame_is_found_behind_any_bytes(before: bytes, reason: bytes) -> None:
    close = masked(8, b"\x03\xe8" + reason.decode(errors="ignore").encode())
    assert CloseWatch().feed(before + close)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        masked(1, b"{}"),
        masked(9, b""),
        masked(8, b"\x03\xe8")[:-1],
        masked(8, b"\x03\xed"),
        masked(8, b"\x03"),
        masked(8, b"\x03\xe8\xff"),
        masked(8, b"\x03\xe8") + masked(1, b"{}"),
        b"\x88\x02\x03\xe8",
    ],
    ids=["nothing", "text", "ping", "half", "1005", "half a code", "no UTF-8", "not the last", "unmasked"],
)
def test_d28_what_is_no_close_frame_of_a_client_is_not_taken_for_one(data: bytes) -> None:
    assert not CloseWatch().feed(data)
