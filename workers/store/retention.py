"""What the store does by itself: removing messages that are past the retention, looking for users to be forgotten, and trying again.

Messages go in small bites between commits, so that nobody waits for it. The order is that of the rows, not of their times: a message
with a time in the future, from when a clock was wrong, goes with those that came after it.
"""

from __future__ import annotations

from math import inf
from typing import Final

from core import codec
from core.protocol import FORGET_AFTER
from workers.store import statements
from workers.store.database import Database
from workers.store.jobs import Job

#: Seconds between two bites while there is more, and between two looks when there is not, at least and at most.
BITE_INTERVAL: Final = 0.02
_LOOK_MIN: Final = 1.0
_LOOK_MAX: Final = 60.0
#: Seconds between two steps of looking for strangers, and between two rounds.
SWEEP_INTERVAL: Final = 1.0
SWEEP_ROUND: Final = 600.0
#: Seconds between two tries while the store fails.
PROBE_INTERVAL: Final = 1.0


class Bite(Job):
    """Removes the oldest messages that were sent before `until`, in milliseconds since 1970, but not too many."""

    __slots__ = ("_until", "gone", "more", "oldest", "purged")

    def __init__(self, until: int) -> None:
        super().__init__()
        self._until = until
        #: (user_id, through): the messages of this user up to that position are gone.
        self.purged: list[tuple[str, int]] = []
        #: How many messages that were.
        self.gone = 0
        #: Whether there may be more; else when the oldest that is left was sent, if there is one.
        self.more = False
        self.oldest: int | None = None

    def run(self, database: Database) -> None:
        looked, last, self.oldest = codec.from_json(database.value(statements.BITE, self._until))
        if last is None:
            return
        gone = codec.from_json(database.value(statements.BITTEN, last))
        rows = codec.to_json(gone)
        with database.transaction():
            database.execute(statements.RAISE_PURGED, rows)
            database.execute(statements.FORGET_ACKNOWLEDGED, rows)
            self.gone = database.execute(statements.DELETE_THROUGH, last).rowcount
        self.more = looked == statements.BITE_ROWS
        self.purged = [(user_id, through) for _, through, user_id in gone if user_id is not None]

    @property
    def rows(self) -> int:
        return self.gone

    def next_look(self, now: float) -> float:
        """When to look again; `until` of that look is later by as much."""
        if self.failure is not None:
            return now + _LOOK_MIN
        if self.more:
            return now + BITE_INTERVAL
        if self.gone:
            return now + _LOOK_MIN
        if self.oldest is None:
            return now + _LOOK_MAX
        return now + min(max((self.oldest - self._until) / 1000, _LOOK_MIN), _LOOK_MAX)


class Sweep(Job):
    """Looks through some users, from number `after` on, for those without chats who have not been seen for a day (D23)."""

    __slots__ = ("_after", "_until", "reached", "strangers")

    def __init__(self, after: int, time_of_day_ms: int) -> None:
        super().__init__()
        self._after = after
        self._until = time_of_day_ms - int(FORGET_AFTER * 1000)
        self.strangers: list[str] = []
        #: The last number that was looked at; 0 at the end.
        self.reached = 0

    def run(self, database: Database) -> None:
        reached, found = codec.from_json(database.value(statements.STRANGERS, self._until, self._after))
        self.reached = reached or 0
        self.strangers = [user_id for user_id in found if user_id is not None]


class Probe(Job):
    """Opens the file again and writes to it, to see whether a failure is over."""

    __slots__ = ()

    def run(self, database: Database) -> None:
        database.reconnect()
        database.settle()
        database.execute(statements.PROBE)


class Upkeep:
    """When each of these is due."""

    __slots__ = ("_after", "_next_bite", "_next_probe", "_next_sweep", "_retention_ms")

    def __init__(self, retention_days: float) -> None:
        self._retention_ms = int(retention_days * 86_400_000)
        self._next_bite = 0.0 if self._retention_ms else inf
        self._next_sweep = 0.0
        self._next_probe = inf
        #: The last number that the sweep has reached.
        self._after = 0

    def failing(self, now: float) -> None:
        """The store has begun to fail."""
        self._next_probe = now + PROBE_INTERVAL

    def recovered(self) -> None:
        """It does no longer."""
        self._next_probe = inf

    def due(self, now: float, time_of_day_ms: int) -> Job | None:
        """What is to be done now. It must be given to `done` before this is asked again."""
        if now >= self._next_probe:
            return Probe()
        if now >= self._next_bite:
            return Bite(time_of_day_ms - self._retention_ms)
        if now >= self._next_sweep:
            return Sweep(self._after, time_of_day_ms)
        return None

    def done(self, job: Job, now: float) -> None:
        """Note when to look again."""
        if isinstance(job, Probe):
            self._next_probe = now + PROBE_INTERVAL
        elif isinstance(job, Bite):
            self._next_bite = job.next_look(now)
        elif isinstance(job, Sweep):
            self._after = job.reached
            self._next_sweep = now + (SWEEP_INTERVAL if job.reached else SWEEP_ROUND)
