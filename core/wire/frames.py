"""Just enough of RFC 6455 to look at a client's frames without consuming them, and to write a server's.

The front peeks at the bytes that wait in the kernel and needs three answers: is there a whole frame, if not how many bytes must
be there before it is worth looking again, and what is in it. After the hand-over picows parses; it never sees this module.
Source: RFC 6455, sections 5.2 (base framing), 5.5 (control frames) and 7.4 (status codes).
"""

from __future__ import annotations

import codecs
import struct
from enum import IntEnum
from typing import Final, NamedTuple

from core.wire.protocol import MESSAGE_MAX_BYTES, CloseCode


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class FrameError(Exception):
    """The bytes break RFC 6455 or a limit: the connection is to be closed with `code` and `reason`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class NeedMore(NamedTuple):
    """The frame is incomplete; looking again makes sense once `total` bytes are there, counted from the frame's first."""

    total: int


class Frame(NamedTuple):
    """One whole frame from a client, unmasked."""

    opcode: int
    final: bool
    payload: bytes
    #: Bytes on the wire, header and mask included: what to consume.
    size: int


#: Header, extended length and mask of the largest frame that is accepted from a client.
CLIENT_HEADER_MAX: Final = 14
#: How much to peek so that any acceptable frame is seen whole.
PEEK_BYTES: Final = MESSAGE_MAX_BYTES + CLIENT_HEADER_MAX
#: Fragments without content in one message. Some writers end a message with one; without a limit a message could go on for ever.
EMPTY_FRAGMENTS_MAX: Final = 1000

_KNOWN_OPCODES: Final = frozenset(Opcode)
_INCREMENTAL_UTF8: Final = codecs.getincrementaldecoder("utf-8")
#: The first byte of a Close frame, and the most bytes that one from a client has.
_CLOSE_BYTE: Final = bytes((0x80 | Opcode.CLOSE,))
_CLOSE_MAX: Final = 6 + 125
#: Status codes that may stand in a Close frame (RFC 6455 section 7.4, IANA registry).
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


def parse_frame(data: bytes | memoryview, max_payload: int = MESSAGE_MAX_BYTES) -> Frame | NeedMore:
    """Read the frame at the start of `data`, which may hold less or more than one.

    Raises FrameError for what a client must not send: RSV bits, unknown opcodes, no mask, bad control frames (1002), a length not
    in its shortest form (1002), more than `max_payload` bytes (1009).
    """
    available = len(data)
    if available < 2:
        return NeedMore(2)
    first, second = data[0], data[1]
    if first & 0x70:
        raise FrameError(CloseCode.PROTOCOL_ERROR, "reserved bits must be 0: no extension was negotiated")
    opcode = first & 0x0F
    if opcode not in _KNOWN_OPCODES:
        raise FrameError(CloseCode.PROTOCOL_ERROR, f"unknown opcode {opcode:#x}")
    if not second & 0x80:
        raise FrameError(CloseCode.PROTOCOL_ERROR, "frames from a client must be masked")
    final = bool(first & 0x80)
    length = second & 0x7F
    if opcode >= Opcode.CLOSE and (length > 125 or not final):
        raise FrameError(
            CloseCode.PROTOCOL_ERROR, "a control frame has at most 125 bytes and is not fragmented"
        )
    header = 2
    if length == 126:
        header = 4
        if available < header:
            return NeedMore(header)
        (length,) = struct.unpack_from("!H", data, 2)
        if length < 126:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "the length is not in its shortest form")
    elif length == 127:
        header = 10
        if available < header:
            return NeedMore(header)
        (length,) = struct.unpack_from("!Q", data, 2)
        if length < 65536 or length >> 63:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "the length is not in its shortest form")
    if length > max_payload:
        raise FrameError(CloseCode.MESSAGE_TOO_BIG, f"a message has at most {max_payload} bytes")
    size = header + 4 + length
    if available < size:
        return NeedMore(size)
    mask = bytes(data[header : header + 4])
    return Frame(opcode, final, apply_mask(bytes(data[header + 4 : size]), mask), size)


class Fragments:
    """A text message that comes in fragments: puts it together (RFC 6455, 5.4).

    What can't become a message any more is refused at the fragment that spoils it, not at the last one (8.1).
    """

    __slots__ = ("_decoder", "_empty", "_max", "_payload")

    def __init__(self, max_payload: int = MESSAGE_MAX_BYTES) -> None:
        self._max = max_payload
        #: How many had no content.
        self._empty = 0
        # One piece of memory: a list of many small fragments would take many times the size of the message.
        self._payload = bytearray()
        self._decoder = _INCREMENTAL_UTF8()

    def add(self, payload: bytes, final: bool) -> None:
        """Add the next fragment. Raises FrameError when all are too many bytes (1009) or no UTF-8 (1007), or too many are empty (1008)."""
        if not payload:
            self._empty += 1
            if self._empty > EMPTY_FRAGMENTS_MAX:
                raise FrameError(CloseCode.POLICY_VIOLATION, "too many fragments without content")
        if len(self._payload) + len(payload) > self._max:
            raise FrameError(CloseCode.MESSAGE_TOO_BIG, f"a message has at most {self._max} bytes")
        self._payload += payload
        try:
            self._decoder.decode(payload, final)
        except UnicodeDecodeError:
            raise FrameError(CloseCode.INVALID_UTF8, "a text message must be UTF-8") from None

    def message(self) -> bytes:
        """Return all that has been added."""
        return bytes(self._payload)


class CloseWatch:
    """Looks for a client's Close frame in a stream of which nothing else matters any more, and which may not be readable as frames.

    A Close frame is the last thing that a client sends, so it stands at the end of what has come. That other bytes look like one is
    possible, and as good as never happens: the mask makes them random, and a code and a reason in UTF-8 are asked for.
    """

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes | memoryview) -> bool:
        """Take the next bytes; whether a whole Close frame stands at their end."""
        tail = self._tail = (self._tail + bytes(data[-_CLOSE_MAX:]))[-_CLOSE_MAX:]
        start = tail.rfind(_CLOSE_BYTE)
        while start >= 0:
            if _is_close(tail[start:]):
                return True
            start = tail.rfind(_CLOSE_BYTE, 0, start)
        return False


def _is_close(data: bytes) -> bool:
    """Return whether `data` is one Close frame of a client, such as may be sent."""
    if len(data) < 6 or data[1] != 0x80 | len(data) - 6:
        return False
    payload = apply_mask(data[6:], data[2:6])
    return close_answer(payload) == payload[:2]


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Apply the repeated 4-byte `mask` to `payload` with XOR, which is its own inverse. Big integers do it at C speed."""
    size = len(payload)
    if size == 0:
        return b""
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return one unfragmented frame as a client would send it, with a mask of zeros (so the payload stands as it is)."""
    return _header(opcode, len(payload), 0x80) + b"\0\0\0\0" + payload


def server_frame(opcode: int, payload: bytes) -> bytes:
    """Return one unfragmented frame from the server, ready for the wire."""
    return _header(opcode, len(payload), 0) + payload


def text_frame(payload: bytes) -> bytes:
    """Return a text frame from the server; the one that every message goes out in, hence without the general header's detours."""
    size = len(payload)
    if size < 126:
        return _SHORT_TEXT_HEADERS[size] + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str) -> bytes:
    """Return a Close frame from the server; a reason that would not fit in a control frame is cut at a character."""
    return server_frame(Opcode.CLOSE, close_payload(code, reason))


def close_payload(code: int, reason: str) -> bytes:
    """Return the body of a Close frame: two bytes of code and at most 123 of reason in UTF-8."""
    return struct.pack("!H", code) + reason.encode()[:123].decode(errors="ignore").encode()


def close_answer(payload: bytes) -> bytes:
    """Return the body of the Close frame that answers a client's Close: its own code, or why its body was wrong (RFC 6455, 5.5.1)."""
    if not payload:
        return b""
    if len(payload) == 1:
        return close_payload(CloseCode.PROTOCOL_ERROR, "a Close frame's body starts with a code of two bytes")
    (code,) = struct.unpack_from("!H", payload)
    if code not in _CLOSE_CODES and not 3000 <= code <= 4999:
        return close_payload(CloseCode.PROTOCOL_ERROR, f"{code} is no code that a Close frame may carry")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return close_payload(CloseCode.INVALID_UTF8, "the reason of a Close frame is UTF-8")
    return payload[:2]


def _header(opcode: int, size: int, mask_bit: int) -> bytes:
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 65536:
        return bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")


_SHORT_TEXT_HEADERS: Final = tuple(bytes((0x81, size)) for size in range(126))
