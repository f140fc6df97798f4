"""A record of the commit log: everything that one commit writes, as it goes into a file and as it comes back.

    length of the payload | CRC-32 of what follows | number | payload: rows of messages, their count and length before them; other changes,
                                                                       and how many rows these write

The rows of messages are the JSON that ``statements.APPEND`` takes, and the other changes are one JSON array, left out when there are none,
which is nearly always so. Nothing is taken apart on the way from the event loop to a fold: of the records of a crowd that comes, objects
would leave as many holes in the memory that its users take.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import Any, Final, NamedTuple

from core.wire import codec

#: Length of the payload, CRC-32 of number and payload.
_HEADER: Final = Struct("<II")
#: The number, how many messages there are and how many bytes they take, and how many other rows there are.
_START: Final = Struct("<QIII")
#: Where a message's chat and hashed id are in its row: together they name it.
_CHAT: Final = 2
_ID_HASH: Final = 3


class Changes(NamedTuple):
    """What a commit writes besides messages; the rows of users and chats are those of ``statements.SAVE_USERS`` and ``SAVE_CHATS``.

    A record that the version before has left has neither `blocks` nor `summed` (``workers.store.old_records``).
    """

    users: list[Any]
    chats: list[Any]
    #: [mailbox, acknowledged_through], and [mailbox, seq] of positions beyond.
    through: list[Any]
    ahead: list[Any]
    #: Only the version before wrote these: numbers of chats that were confirmed, and [mailbox, seq] of messages that were read.
    confirmed: list[Any]
    reads: list[Any]
    #: Rows of ``rows.block_row``.
    blocks: list[Any] | None = None
    #: [user, summed_through].
    summed: list[Any] | None = None
    #: Rows of ``rows.hook_call_row``; the version before wrote none.
    hook_calls: list[Any] | None = None


class Record:
    """One commit. `number` is given when it goes into the log: one more than that of the record before it."""

    __slots__ = ("changes", "count", "messages", "number", "others", "places", "user_ids")

    def __init__(self, count: int, messages: bytes, others: int = 0, changes: bytes = b"") -> None:
        self.number = 0
        #: Rows of messages, with commas between them, and how many.
        self.count = count
        self.messages = messages
        #: The fields of `Changes` as a JSON array, empty when there are none, and about how many rows they write.
        self.others = others
        self.changes = changes
        #: (chat, id_hash) of each message; empty for a record that was read from a file, see `places_of`.
        self.places: list[tuple[int, int]] = []
        #: Whom it is about.
        self.user_ids: frozenset[str] | set[str] = frozenset()

    @property
    def rows(self) -> int:
        """About how many rows it writes."""
        return self.count + self.others

    def places_of(self) -> list[tuple[int, int]]:
        """Return (chat, id_hash) of each message."""
        if self.count and not self.places:
            self.places = [(row[_CHAT], row[_ID_HASH]) for row in codec.from_json(b"[%b]" % self.messages)]
        return self.places


def encode(record: Record) -> bytes:
    """Return a record as it stands in a segment."""
    start = _START.pack(record.number, record.count, len(record.messages), record.others)
    content = start + record.messages + record.changes
    return _HEADER.pack(len(content), zlib.crc32(content)) + content


def decode(content: bytes) -> Iterator[tuple[Record, int]]:
    """Iterate over the records at the beginning of a segment, each with the position of its end, up to the first that is not whole.

    A segment is written over again and again, so behind its records may be records of before: a number that does not follow ends them.
    """
    position, expected = 0, None
    view = memoryview(content)
    while position + _HEADER.size + _START.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, position)
        start, end = position + _HEADER.size, position + _HEADER.size + length
        if length < _START.size or end > len(content) or zlib.crc32(view[start:end]) != checksum:
            return
        number, count, size, others = _START.unpack_from(content, start)
        if expected is not None and number != expected:
            return
        middle = start + _START.size + size
        record = Record(count, content[start + _START.size : middle], others, content[middle:end])
        record.number = number
        yield record, end
        position, expected = end, number + 1
