"""What the store does by itself: removing messages that are past the retention, looking for users to be forgotten, and trying again.

How old a message is, ``workers.store.retention_clock`` tells, and marks in the file: by when the messages up to a number had been stored.
Two things are asked of each (D20). Everything that goes is older than the retention; and what nobody has acknowledged has also waited
so long while a server ran. Messages go in small bites between commits, so that nobody waits for it.
"""

from __future__ import annotations

import logging
from math import inf
from pathlib import Path
from typing import Final

from core.events import fields
from core.wire import codec
from core.wire.protocol import FORGET_AFTER
from workers.store import statements
from workers.store.jobs import CHECKPOINT_ROWS, Job
from workers.store.retention_clock import ClockState, RetentionClock
from workers.store.storage import Storage

_log = logging.getLogger("fastchat.store")

#: Seconds between two bites while there is more.
BITE_INTERVAL: Final = 0.02
#: Seconds between two looks when there is not, at least and at most: a thousandth of the retention. Each is a small write.
_LOOK_MIN: Final = 1.0
_LOOK_MAX: Final = 60.0
#: As many marks there are within the retention; and milliseconds between two of them, at most.
_MARKS: Final = 1000
_MARK_MAX: Final = 3_600_000
#: Seconds until messages are looked at again that could not go since they wait for somebody.
_ROUND: Final = 600.0
#: Seconds between two steps of looking for strangers, and between two rounds.
SWEEP_INTERVAL: Final = 1.0
SWEEP_ROUND: Final = 600.0
#: Seconds between two tries while the store fails.
PROBE_INTERVAL: Final = 1.0


class KeepTime(Job):
    """Saves the state of the clock and, with `stamp`, how old the messages are that came since the last mark."""

    __slots__ = ("_state", "stamp")

    def __init__(self, state: ClockState, stamp: int | None) -> None:
        super().__init__()
        self._state = state
        self.stamp = stamp

    def run(self, storage: Storage) -> None:
        database = storage.database
        if self.stamp is not None:
            # What has not been folded has no number yet, and would count as stored later.
            storage.fold_all()
        storage.complete_fold()
        with database.transaction():
            database.execute(statements.SAVE_CLOCK, *self._state)
            if self.stamp is not None:
                database.execute(statements.MARK, self.stamp, self._state.ran)

    @property
    def rows(self) -> int:
        # So that a quiet server moves its log into the file too, and one that grew becomes short again.
        return CHECKPOINT_ROWS


class Bite(Job):
    """Removes the oldest messages, but not too many: of those with numbers above `after`."""

    __slots__ = ("_after", "_passed", "_ran", "gone", "more", "purged", "reached")

    def __init__(self, after: int, passed: int, ran: int) -> None:
        """Those that were stored by `passed` are old; by `ran`, they are also when nobody has acknowledged them."""
        super().__init__()
        self._after = after
        self._passed = passed
        self._ran = ran
        #: (user_id, through): the messages of this user up to that position are gone.
        self.purged: list[tuple[str, int]] = []
        #: How many messages that were.
        self.gone = 0
        #: The highest number that was looked at, and whether there are more that are old.
        self.reached = after
        self.more = False

    def run(self, storage: Storage) -> None:
        # Nothing need be folded to find them: what is in the commit log is younger than all, and acknowledges more of them at most.
        storage.complete_fold()
        database = storage.database
        past, waited = codec.from_json(database.value(statements.PAST, self._passed, self._ran))
        looked, last = codec.from_json(database.value(statements.BITE, self._after, past))
        if last is None:
            return
        gone = codec.from_json(database.value(statements.BITTEN, self._after, last, waited))
        if gone:
            rows = codec.to_json(gone)
            # But a row of a chat that is in the log counts them as unread.
            storage.fold_all()
            with database.transaction():
                database.execute(statements.COUNT_OUT, rows)
                database.execute(statements.RAISE_PURGED, rows)
                database.execute(statements.FORGET_ACKNOWLEDGED, rows)
                self.gone = database.execute(statements.DELETE_THROUGH, rows).rowcount
                database.execute(statements.TRIM_MARKS)
        self.reached, self.more = last, looked == statements.BITE_ROWS
        self.purged = [(user_id, through) for _, through, user_id in gone if user_id is not None]

    @property
    def rows(self) -> int:
        return self.gone


class Sweep(Job):
    """Looks through some users, from number `after` on, for those without chats who have not been seen for a day (D23)."""

    __slots__ = ("_after", "_until", "reached", "strangers")

    def __init__(self, after: int, passed: int) -> None:
        """Start with `passed`, which is what the retention clock says."""
        super().__init__()
        self._after = after
        self._until = passed - int(FORGET_AFTER * 1000)
        self.strangers: list[str] = []
        #: The last number that was looked at; 0 at the end.
        self.reached = 0

    def run(self, storage: Storage) -> None:
        storage.fold_all()
        reached, found = codec.from_json(
            storage.database.value(statements.STRANGERS, self._until, self._after)
        )
        self.reached = reached or 0
        self.strangers = [user_id for user_id in found if user_id is not None]


class Probe(Job):
    """Opens the file again and writes, to see whether a failure is over."""

    __slots__ = ()

    def run(self, storage: Storage) -> None:
        storage.reconnect()


class Upkeep:
    """When each of these is due."""

    __slots__ = (
        *(
            "_after",
            "_bitten",
            "_clock",
            "_look",
            "_mark",
            "_marked",
            "_next_bite",
            "_next_look",
            "_next_probe",
        ),
        *("_next_round", "_next_sweep", "_path", "_removes", "_retention"),
    )

    def __init__(self, retention_days: float, state: ClockState, path: Path) -> None:
        """`path` is the file's, for the log."""
        self._path = path
        #: In milliseconds; 0 for ever.
        self._retention = int(retention_days * 86_400_000)
        self._clock = RetentionClock(state, max(self._retention, int(FORGET_AFTER * 1000)))
        self._look = (
            min(max(self._retention / 1000 / _MARKS, _LOOK_MIN), _LOOK_MAX) if self._retention else _LOOK_MAX
        )
        self._mark = min(self._retention // _MARKS, _MARK_MAX) if self._retention else _MARK_MAX
        #: The stamp of the last mark.
        self._marked: int | None = None
        self._next_look = 0.0
        self._next_bite = inf
        self._next_round = 0.0
        self._next_sweep = 0.0
        self._next_probe = inf
        #: The last number of a message that retention has looked at, and of a user that the sweep has reached.
        self._bitten = 0
        self._after = 0
        #: Whether messages and users may be removed.
        self._removes = True

    # -- The clock --

    def advance(self, now: float, wall: int) -> None:
        """Let the time until now pass: see `RetentionClock.advance`."""
        jump = self._clock.advance(now, wall)
        if jump is not None:
            _log.warning("%s", jump, extra=fields(path=self._path))

    def stamp(self, now: float) -> int:
        """See `RetentionClock.stamp`."""
        return self._clock.stamp(now)

    def keep_time(self, now: float, wall: int) -> KeepTime:
        """Let the time until now pass, and return what saves it and how old everything is: no mark must be later than the clock."""
        self.advance(now, wall)
        return KeepTime(self._clock.state, self._clock.stamp(now))

    # -- What is due --

    def suspend(self, suspended: bool) -> None:
        """Remove nothing while the rows are copied to other files; or go on with it."""
        self._removes = not suspended

    def failing(self, now: float) -> None:
        """Note that the store has begun to fail."""
        self._next_probe = now + PROBE_INTERVAL

    def recovered(self) -> None:
        """Note that it fails no longer."""
        self._next_probe = inf

    def looks(self, now: float) -> bool:
        """Return whether `advance` is to be called before `due`."""
        return now >= self._next_look

    def due(self, now: float) -> Job | None:
        """Return what is to be done now. It must be given to `done` before this is asked again."""
        if now >= self._next_probe:
            return Probe()
        state = self._clock.state
        if now >= self._next_bite and self._removes:
            return Bite(self._bitten, state.passed - self._retention, state.ran - self._retention)
        if now >= self._next_look:
            stamp = self._clock.stamp(now)
            return KeepTime(
                state, stamp if self._marked is None or stamp >= self._marked + self._mark else None
            )
        if now >= self._next_sweep and self._removes:
            return Sweep(self._after, state.passed)
        return None

    def done(self, job: Job, now: float) -> None:
        """Note when to look again."""
        if isinstance(job, Probe):
            self._next_probe = now + PROBE_INTERVAL
        elif isinstance(job, KeepTime):
            self._next_look = now + self._look
            if job.failure is None and job.stamp is not None:
                self._marked = job.stamp
            if self._retention:
                self._next_bite = now
        elif isinstance(job, Bite):
            self._bitten = job.reached
            self._next_bite = now + BITE_INTERVAL if job.more else inf
            if not job.more and now >= self._next_round:
                self._next_round = now + _ROUND
                self._bitten = 0
        elif isinstance(job, Sweep):
            self._after = job.reached
            self._next_sweep = now + (SWEEP_INTERVAL if job.reached else SWEEP_ROUND)
