"""What travels between shards: ``core.chat.envelope``. Other shards are trusted, but one of another version must not be misunderstood."""

from __future__ import annotations

import struct
from random import Random
from typing import Final

from core.chat.envelope import (
    pack_envelope,
    pack_record,
    record_fields,
    record_head,
    unpack_envelope,
)
from fuzz.mutate_bytes import SIZE_MAX, mutate_bytes
from fuzz.target import Target


def check(data: bytes) -> bool:
    """Whether it is read to its end."""
    try:
        worker, generation, sent_at, each = unpack_envelope(data)
        records = list(each)
    except ValueError:
        return False
    for record in records:
        head = record_head(record)
        for count in range(1, 5):
            try:
                fields = record_fields(record, count)
            except ValueError:
                continue
            assert len(fields) == count
            if head.deadline == head.deadline:  # not so NaN, whose bits need not survive
                assert pack_record(*head, *fields) == record
    if sent_at == sent_at:
        assert pack_envelope(worker, generation, sent_at, records) == data
    return True


def mutate(data: bytes, rng: Random) -> bytes:
    """Change bytes, or a length so that it fits or nearly fits."""
    if rng.randrange(3):
        records = [_record(rng) for _ in range(rng.choice((0, 1, 1, 2, 5)))]
        data = pack_envelope(rng.randrange(64), rng.getrandbits(64), rng.random(), records)
        if rng.randrange(3) == 0:
            return data
        if rng.randrange(2) and records:
            size = len(records[0]) + rng.choice((-1, 1, 100, -len(records[0]), 2**32 - 1 - len(records[0])))
            return data[:19] + struct.pack("!I", max(0, size)) + data[23:]
    return mutate_bytes(data, rng)[:SIZE_MAX]


def _record(rng: Random) -> bytes:
    fields = [rng.choice((b"", b"x", b"\0", b"a\0b", rng.randbytes(40))) for _ in range(rng.randrange(5))]
    return pack_record(
        rng.randrange(256), rng.randrange(256), rng.getrandbits(64), rng.random() * 1e9, *fields
    )


TARGET: Final = Target(check, mutate, "the end of the envelope", ("core.chat.envelope",))
