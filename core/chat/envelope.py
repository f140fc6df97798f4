"""What travels between shards: records, and the envelopes that carry many of them at once.

An envelope is a header (version, worker and generation of the sender, time of sending) and records, each with its length. A record is
a fixed head and text fields with a NUL between them; no id or name may contain one, and the last field, a finished frame, may contain
anything.

| record | from -> to | fields | meaning |
|---|---|---|---|
| MESSAGE | sender's shard -> recipient's | sender, recipient, message_id, Lamport count of the sender, frame | store this and deliver it |
| OPEN_CHAT | opener's -> target's | opener, target, opener's name | open this chat on your side |
| RESULT | back to where the ticket came from | name (for OPEN_CHAT) | what became of it: `flags` is an Outcome |
| CHAT_OPENED | opener's -> target's | opener, target | both sides have it: tell the target |
| TYPING | typist's -> peer's | typist, peer | `flags`: 1 typing, 0 stopped, 2 stopped, if it was shown as typing |
| RECEIPT | recipient's -> sender's | sender, recipient, message_id | `flags`: 1 delivered, 2 read (D11) |
| HISTORY | asker's -> peer's | asker, peer, positions, limit | what did the asker write to the peer? 0: up to now (D14, D32) |
| HISTORY_PAGE | back to where the ticket came from | JSON | positions, Lamport counts, messages; `flags` is 1 when they can't be read |
| BLOCK | user's -> peer's | user, peer | `flags`: 1 the user has blocked the peer, 0 has not, 2 say which, 3 what you said is kept (D32) |
| LASTS | user's -> peers' | user, JSON | what did the user write last to each of these? (D30) |
| LASTS_PAGE | back to where the ticket came from | JSON | peer -> Lamport count and message; `flags` is 1 when they can't be read |
| RENAMED | user's -> peer's | user, peer, new name | keep the name for this chat |
| INTRODUCED | user's -> peer's | user, peer, name | the user is about to write to the peer, and may not be online (D36) |
| PRESENCE | to all | JSON | joins and leaves; `ticket` is their version |
| PRESENCE_SNAPSHOT | to all, or to who asked | JSON | everyone online here; `ticket` is the version |
| PRESENCE_REQUEST | to who is behind | | send me a snapshot |
| FLUSHED | to all | | all that was sent before has been read with this: see ``workers.resizing``; `ticket` is the wave |
| PURGE | deleted user's -> each | user | remove what this user has sent and your users have of it (D36); `ticket` names the answer |
| PURGED | back to where the ticket came from | JSON | it is removed: user, and how many messages |
| MOVED_ON | to who has sent so far, and to who was sent to | | the last record on this way: see ``core.chat.streams`` |

To add one: a RecordKind, a row here, and a handler that a part of the shard registers (``core.chat.exchange.Exchange.on``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import partial
from typing import Final, NamedTuple

_VERSION: Final = 4
#: version, worker, generation, when it was sent
_ENVELOPE: Final = struct.Struct("!BHQd")
_LENGTH: Final = struct.Struct("!I")
#: kind, flags, ticket, deadline
_RECORD: Final = struct.Struct("!BBQd")


class RecordKind(IntEnum):
    """See the table above."""

    MESSAGE = 1
    OPEN_CHAT = 2
    RESULT = 3
    CHAT_OPENED = 4
    TYPING = 5
    RENAMED = 6
    PRESENCE = 7
    PRESENCE_SNAPSHOT = 8
    PRESENCE_REQUEST = 9
    RECEIPT = 10
    HISTORY = 11
    HISTORY_PAGE = 12
    MOVED_ON = 13
    FLUSHED = 14
    BLOCK = 15
    LASTS = 16
    LASTS_PAGE = 17
    PURGE = 18
    PURGED = 19
    INTRODUCED = 20


class Outcome(IntEnum):
    """What became of a message or an OPEN_CHAT at the other side."""

    #: Durable, and written to a connection of the recipient; or waiting for one.
    DELIVERED = 1
    STORED = 2
    #: The same message had come before: not stored again, not counted; what has become of it.
    REPEAT_STORED = 3
    REPEAT_DELIVERED = 4
    REPEAT_ACKNOWLEDGED = 5
    REPEAT_READ = 6
    OPENED = 7
    USER_NOT_FOUND = 8
    CHAT_NOT_OPENED = 9
    #: The message id was used for another content.
    CONFLICT = 10
    #: The message is no repeat, and came from somebody who may send nothing else now.
    RATE_LIMITED = 11
    #: So many messages wait for the recipient that no more are taken.
    MAILBOX_FULL = 12
    #: The store could not take it, or nothing came back in time.
    FAILED = 13
    #: So many messages of this sender wait for the recipient, or of all to whom the recipient has never written (D20).
    SENDERS_SHARE_FULL = 14
    STRANGERS_SHARE_FULL = 15


class MessageFlag(IntEnum):
    """`flags` of a MESSAGE record."""

    #: The sender's shard has a record of the open chat: proof enough to repair a missing one (D7).
    CHAT_OPEN = 1
    #: The sender is over the limit: only a repeat may be answered (D10).
    ONLY_IF_REPEAT = 2
    #: The sender wants to know when it is delivered and read (D11).
    RECEIPTS = 4
    #: The sender is a backend: no chat has to be open, and no share of the mailbox limits it (D34, D20).
    SERVICE = 8


class TypingFlag(IntEnum):
    """`flags` of a TYPING record."""

    STOPPED = 0
    TYPING = 1
    STOPPED_IF_SHOWN = 2


class ReceiptFlag(IntEnum):
    """`flags` of a RECEIPT record."""

    DELIVERED = 1
    READ = 2


class BlockFlag(IntEnum):
    """`flags` of a BLOCK record."""

    UNBLOCKED = 0
    BLOCKED = 1
    #: Say which of the two it is.
    ASKED = 2
    #: What was told last is kept.
    KEPT = 3


class RecordHead(NamedTuple):
    """The fixed head of a record."""

    kind: int
    flags: int
    #: Names the request at the side that made it; comes back in RESULT.
    ticket: int
    #: When the request expires, on the machine's monotonic clock; an expired one is dropped before it is stored (D26).
    deadline: float


class Record(NamedTuple):
    """A record as the part that handles it gets it, whether it came over the bus or from this shard."""

    #: The process that it comes from.
    worker: int
    generation: int
    flags: int
    ticket: int
    deadline: float
    #: Its fields that are text; and the last one, if that is none.
    texts: tuple[str, ...]
    body: bytes


#: Makes a record of its fields, in a third of the time that calling the class takes.
new_record: Final[Callable[[tuple[int, int, int, int, float, tuple[str, ...], bytes]], Record]] = partial(
    tuple.__new__, Record
)


def pack_record(kind: int, flags: int, ticket: int, deadline: float, *fields: bytes) -> bytes:
    """Return one record; only the last field may contain a NUL."""
    return _RECORD.pack(kind, flags, ticket, deadline) + b"\0".join(fields)


def pack_texts(
    kind: int, flags: int, ticket: int, deadline: float, texts: tuple[str, ...], body: bytes = b""
) -> bytes:
    """Return one record whose fields are text, and one more of bytes unless it is empty."""
    head = _RECORD.pack(kind, flags, ticket, deadline)
    joined = "\0".join(texts).encode()
    return b"%b%b\0%b" % (head, joined, body) if body else head + joined


#: The same as `record_head`, as a plain tuple.
unpack_head: Final[Callable[[bytes], tuple[int, int, int, float]]] = _RECORD.unpack_from


def record_head(record: bytes) -> RecordHead:
    """Return the fixed part of a record."""
    return RecordHead._make(_RECORD.unpack_from(record))


def record_fields(record: bytes, count: int) -> list[bytes]:
    """Return the `count` fields of a record. Raises ValueError when it has fewer."""
    fields = record[_RECORD.size :].split(b"\0", count - 1)
    if len(fields) != count:
        raise ValueError(f"a record of kind {record[0]} has {count} fields, this one has {len(fields)}")
    return fields


def pack_envelope(worker: int, generation: int, sent_at: float, records: list[bytes]) -> bytes:
    """Encode all records that one loop turn produced for one destination, at `sent_at` on the machine's monotonic clock."""
    parts = [_ENVELOPE.pack(_VERSION, worker, generation, sent_at)]
    for record in records:
        parts.append(_LENGTH.pack(len(record)))
        parts.append(record)
    return b"".join(parts)


def unpack_envelope(envelope: bytes) -> tuple[int, int, float, Iterator[bytes]]:
    """Return the sender's worker number and generation, when it was sent, and the records.

    Raises ValueError for what is no envelope of this version.
    """
    if len(envelope) < _ENVELOPE.size or envelope[0] != _VERSION:
        raise ValueError(f"not an envelope of version {_VERSION}: {envelope[:16]!r}")
    _, worker, generation, sent_at = _ENVELOPE.unpack_from(envelope)
    return worker, generation, sent_at, _records(envelope)


def _records(envelope: bytes) -> Iterator[bytes]:
    position, end = _ENVELOPE.size, len(envelope)
    while position < end:
        if position + _LENGTH.size > end:
            raise ValueError("an envelope ends in the middle of a length")
        (size,) = _LENGTH.unpack_from(envelope, position)
        position += _LENGTH.size
        if position + size > end or size < _RECORD.size:
            raise ValueError("an envelope ends in the middle of a record")
        yield envelope[position : position + size]
        position += size
