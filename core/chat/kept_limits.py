"""What counts against the limits of users, from one process of a shard to the next (D23).

At an orderly end a worker writes down how long ago each message of the last minute was; whichever worker has the user afterwards goes on
from there. Ages are kept, not times: a clock that jumps meanwhile can make a window end too soon, but never lock anybody out for longer
than it is.

    {"format": 1, "boot": "...", "uptime": 812.4, "wall": 1790000000.0, "users": {"<user>": [[12.5, 3.2], [], [], [1.0], []]}}
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from core.wire.codec import from_json, to_json
from core.wire.protocol import RATE_WINDOW

_FORMAT: Final = 1
#: For each of the limits of a user (`User.counted`), how many seconds ago what counts was, oldest first.
Ages = list[list[float]]


class Moment(NamedTuple):
    """A moment by all clocks that may tell afterwards how long ago it was."""

    #: Which start of the machine it was, and seconds since then, in which nobody sets a clock.
    boot: str
    uptime: float
    #: Seconds since 1970.
    wall: float

    def seconds_since(self, earlier: Moment) -> float:
        """Return how long ago `earlier` was, as far as can be known; never less than 0."""
        if self.boot and self.boot == earlier.boot and self.uptime >= earlier.uptime:
            return self.uptime - earlier.uptime
        return max(0.0, self.wall - earlier.wall)


def encode(users: dict[str, Ages], at: Moment) -> bytes:
    """Return what is written down at that moment."""
    return to_json({"format": _FORMAT, **at._asdict(), "users": users})


def decode(content: bytes) -> tuple[Moment, dict[str, Ages]]:
    """Undo `encode`. Raises ValueError for what is none."""
    kept = from_json(content)
    if not isinstance(kept, dict) or kept.get("format") != _FORMAT:
        raise ValueError("it is of another format")
    boot, users = kept.get("boot"), kept.get("users")
    times: list[Any] = [kept.get("uptime"), kept.get("wall")]
    if not isinstance(boot, str) or not _are_numbers(times) or not isinstance(users, dict):
        raise ValueError("something is missing in it")
    for ages in users.values():
        if not isinstance(ages, list) or not all(
            isinstance(each, list) and _are_numbers(each) for each in ages
        ):
            raise ValueError("it holds something that is no time")
    return Moment(boot, *times), users


def merge(files: Iterable[tuple[Moment, dict[str, Ages]]], now: Moment) -> dict[str, Ages]:
    """Merge what several processes wrote down: of each user what was written last, which includes what was known before."""
    merged: dict[str, Ages] = {}
    for at, users in sorted(files, key=lambda file: -now.seconds_since(file[0])):
        passed = now.seconds_since(at)
        for user_id, windows in users.items():
            merged[user_id] = [
                sorted((age + passed for age in ages if 0.0 <= age < RATE_WINDOW - passed), reverse=True)
                for ages in windows
            ]
    return merged


def ages_of(times: list[list[float]], now: float) -> Ages:
    """Return `User.counted`, which are times on the monotonic clock, as it is kept; what counts no more is left out."""
    return [[round(now - time, 3) for time in each if now - time < RATE_WINDOW] for each in times]


def times_of(ages: Ages, now: float) -> list[list[float]]:
    """Undo `ages_of`, in another process."""
    return [[now - age for age in each] for each in ages]


def _are_numbers(values: list[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)
