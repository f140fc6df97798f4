"""Times of day as the wire has them: UTC, ISO 8601, milliseconds, ``Z`` (D19)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

#: Milliseconds by which a clock is put back in the ordinary course of things.
STEP_MAX: Final = 60_000


def format_timestamp(epoch_ms: int) -> bytes:
    """Return milliseconds since 1970-01-01T00:00:00Z as 24 bytes, for example ``2024-01-01T12:00:00.000Z``.

    Right for the years 1970 to 9999; it is 24 bytes long for no others.
    """
    seconds, milliseconds = divmod(epoch_ms, 1000)
    return b"%b%03dZ" % (_to_the_second(seconds), milliseconds)


@lru_cache(maxsize=64)
def parse_timestamp(timestamp: bytes) -> int:
    """Undo `format_timestamp`; kept, since many messages come within one millisecond."""
    return _seconds_of(timestamp[:19]) * 1000 + int(timestamp[20:23])


def answer_timestamp(timestamp: bytes, heard: bytes) -> bytes:
    """Return the timestamp of an answer that is sent at `timestamp`, which is not later than `heard`, that of the message that it answers.

    A millisecond behind `heard`, for those who sort by timestamps. But when a clock was put back by more than `STEP_MAX`, an answer has
    the time that it says now: who wrote while the clock was wrong must not see wrong times until these have passed.
    """
    latest = parse_timestamp(heard)
    return timestamp if latest - parse_timestamp(timestamp) > STEP_MAX else format_timestamp(latest + 1)


@lru_cache(maxsize=4)
def _to_the_second(epoch_seconds: int) -> bytes:
    """Return everything up to the milliseconds; kept, since a server formats many times within one second."""
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.").encode()


@lru_cache(maxsize=4)
def _seconds_of(timestamp: bytes) -> int:
    return int(datetime.fromisoformat(timestamp.decode()).replace(tzinfo=UTC).timestamp())
