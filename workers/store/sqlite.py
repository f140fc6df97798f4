"""The store on disk: for each shard one SQLite file and a commit log in front of it, which one thread has for itself.

The loop gathers what the core calls (`writes`, `reads`) and gives it to the thread (`jobs`) job by job; there is never more than one on its
way. Group commit follows from that: what is called while a job is in the thread waits, and goes with the next one. Alone, a write goes at
once. Under load the next commit begins `COMMIT_INTERVAL` after the one before, since a commit costs as much as some messages, or as soon as
`ENOUGH` wait. Every `FOLD_ROWS` rows, or `FOLD_AFTER`, the thread moves what was committed from the log into SQLite.

    calls -> waiting -> Batch, at most BATCH_MAX -> thread: commit, then reads -> callbacks in slices (`delivery`) -> next Batch

All callbacks come from `flush`, which the owner calls at the end of each loop turn, and at least every tenth of a second. When a job is
done, or due, a turn is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from math import ceil, inf
from pathlib import Path
from time import monotonic
from typing import Any, Final

from core.chat.store import Listeners
from core.chat.user import Message, User
from core.events import fields
from core.measures import SECONDS, SIZES, Histogram
from core.process.settings import Settings
from workers.store.calls import ACKNOWLEDGED_DELAY, Calls
from workers.store.commit_log import FOLD_ROWS
from workers.store.database import prepare_upgrade
from workers.store.jobs import DatabaseThread, Fold, Job, Visit
from workers.store.reads import READS_WEIGHT, Question
from workers.store.results import Commit, Entry, Expired, Results
from workers.store.retention import Bite, KeepTime, Probe, Sweep, Upkeep
from workers.store.storage import Storage, open_shard
from workers.store.tracking import Tracking
from workers.store.writes import After, Alone, Batch, Forget, Numbers, SaveAcknowledged, Write

_log = logging.getLogger("fastchat.store")

#: Seconds from the beginning of one commit to that of the next. The first write after a pause does not wait.
COMMIT_INTERVAL: Final = 0.003
#: Writes for which a commit does not wait that long: with so many each of them costs little more than in a larger one.
ENOUGH: Final = 64
#: Seconds after which what is in the commit log is folded, however little it is: an operator's tool waits for that.
FOLD_AFTER: Final = 2.0
#: Timers are as exact as a millisecond: what is due within half of one is due.
_SLACK: Final = 0.0005
#: Seconds after which a thread that waits for Python's lock insists on it. With Python's own 5 ms, a loop that is busy all the time and
#: lets go of the lock for a moment more often than that may keep it from the thread for a third of a second.
SWITCH_INTERVAL: Final = 0.0001
#: Writes in one transaction. With 512 a worker is a fortieth cheaper under full load, and its longest turn takes 10 ms, not 6.
BATCH_MAX: Final = 256
#: Users whose acknowledgements, and chats that may wait, go with one commit. What is over the limit goes with the next one, a few
#: milliseconds later.
ACKNOWLEDGED_MAX: Final = 256


class SqliteStore(Calls):
    """Implements ``core.chat.store.Store`` and ``workers.store.shard_store.ShardStore``. `listen` and `start` come first."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        schedule: Callable[[], None],
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        """`schedule` makes sure that `flush` is called in this loop turn; `time_of_day` is in seconds since 1970."""
        super().__init__()
        self._path = path
        self._settings = settings
        self._loop = loop
        self._schedule = schedule
        self._time_of_day = time_of_day
        self.deletions: list[str] = []
        #: The sentence that writes and reads fail with at present.
        self.failure: str | None = None
        # -- From `listen` and `start` on --
        self._listeners: Listeners
        self._results: Results
        self._storage: Storage
        self._thread: DatabaseThread
        self._numbers: Numbers
        self._upkeep: Upkeep
        #: For copying everything to other files meanwhile.
        self.tracking: Tracking
        # -- Waiting --
        self._visits: deque[Visit] = deque()
        #: How many of the writes that have been called are gathered: what a read must not overtake.
        self._gathered = 0
        #: Whether what may wait is to be saved at once.
        self._hurries = False
        #: Whether the thread has its last job.
        self._closing = False
        # -- On its way --
        self._busy = False
        #: Whose acknowledgements are in the job on its way.
        self._saving: list[User] = []
        self._next_commit = 0.0
        self._timer: asyncio.TimerHandle | None = None
        #: When what is in the commit log is to be folded.
        self._next_fold = inf
        #: Whether the last job was a slice of a fold: then a commit has its turn, if there is one.
        self._has_folded = False
        #: Whether something else than a commit has failed last: SQLite does not work, until a fold or a probe succeeds.
        self._fold_fails = False
        #: How long commits have taken, and how many messages each had.
        self._durations = Histogram(SECONDS)
        self._rows = Histogram(SIZES)
        self._folds = Histogram(SECONDS)
        self._counters = dict.fromkeys(
            (
                *("store_commits_total", "store_rows_total", "store_repeats_total", "store_expired_total"),
                *("store_purged_total", "store_failures_total"),
            ),
            0,
        )

    def listen(self, listeners: Listeners) -> None:
        """Say who is told."""
        self._listeners = listeners
        self._results = Results(listeners.appended, self._settings)

    def prepare_start(self) -> None:
        """Load what takes a file of an older version up to date, if this is one."""
        prepare_upgrade(self._path)

    def start(self) -> None:
        """Open the file, bringing it up to date; blocks while that lasts. Raises ConfigurationError.

        From here on the threads of this process wait less for each other, see `SWITCH_INTERVAL`.
        """
        opened = open_shard(self._path, self._settings.durability)
        self._storage, self._numbers, state, self.deletions = opened
        if self._storage.replayed:
            _log.info(
                "%d commits that a process before had left in the commit log are in the database now",
                self._storage.replayed,
                extra=fields(path=self._path),
            )
        self._upkeep = Upkeep(self._settings.retention_days, state, self._path)
        self.tracking = Tracking(self._visit, self._upkeep, self._keep_time)
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._thread = DatabaseThread(self._storage, self._loop, self._schedule)

    def stats(self) -> dict[str, Any]:
        """Return this part of the worker's report."""
        return {
            **self._counters,
            "commit_seconds": self._durations.report(),
            "commit_rows": self._rows.report(),
            "fold_seconds": self._folds.report(),
            "store_unfolded_rows": self._storage.log.rows,
            "store_waiting": len(self._waiting) + len(self._questions),
            "store_failing": int(self.failure is not None),
            "store_log_bytes": self._thread.log.bytes,
        }

    def _visit(self, visit: Visit) -> None:
        visit.after = self._called
        self._visits.append(visit)
        self._schedule()

    # -- The end of a loop turn --

    def flush(self, now: float) -> bool:
        """Call what can be called back, and give the thread what there is to do; whether to come again in another turn."""
        self._now = now
        if self._closing:
            return False
        if self._busy:
            job = self._thread.done()
            if job is None:
                return False
            self._finish(job, now)
        if self._results.deliver(now) or self._deliver_after(now):
            return True
        if self._upkeep.looks(now):
            self._upkeep.advance(now, self._now_ms())
        job = self._upkeep.due(now) or self._due(now)
        if job is None:
            return False
        return self._give(job)

    def _now_ms(self) -> int:
        return int(self._time_of_day() * 1000)

    def _keep_time(self, now: float) -> KeepTime:
        return self._upkeep.keep_time(now, self._now_ms())

    def _deliver_after(self, now: float) -> bool:
        """Call back those who wait for writes that are all done; whether there are more."""
        entries: list[Entry] = []
        while self._waiting and type(self._waiting[0]) is After:
            entries.append(self._waiting.popleft())
        if not entries:
            return False
        self._gathered += len(entries)
        self._results.start(entries)
        return self._results.deliver(now)

    def _due(self, now: float) -> Job | None:
        """Return the next job that somebody has called for, if it is time for one."""
        if self._visits and self._visits[0].after <= self._gathered and not (self._hurries and self._unsaved):
            return self._visits.popleft()
        folds = self.failure is None and (now >= self._next_fold or self._storage.log.rows >= FOLD_ROWS)
        if folds and not self._has_folded:
            return Fold()
        waiting = len(self._waiting)
        if waiting or self._acknowledged_due(now):
            early = self._next_commit - now
            if early <= _SLACK or waiting >= ENOUGH:
                return self._gather(now)
            self._wake_in(early)
        if self._questions and self._questions[0].after <= self._gathered:
            return Commit(Batch(self._numbers, 0, 0), [], self._readable())
        return Fold() if folds else None

    def _acknowledged_due(self, now: float) -> bool:
        return bool(self._unsaved) and (self._hurries or next(iter(self._unsaved.values())) <= now)

    def _gather(self, now: float, *, all_acknowledged: bool = False) -> Commit:
        """Take what goes into the next transaction, in order."""
        batch = Batch(self._numbers, self._now_ms(), self._upkeep.stamp(now))
        entries: list[Entry] = []
        waiting = self._waiting
        while waiting and len(entries) < BATCH_MAX:
            entry = waiting[0]
            if type(entry) is Message:
                if 0.0 < entry.deadline <= now:
                    self._counters["store_expired_total"] += 1
                    entries.append(Expired(entry))
                else:
                    batch.add(entry)
                    entries.append(entry)
            elif (type(entry) is Forget and not batch.only_forgets) or (isinstance(entry, Alone) and entries):
                break
            else:
                assert isinstance(entry, Write)
                entry.join(batch)
                entries.append(entry)
            waiting.popleft()
            if batch.alone is not None:
                break
        self._gathered += len(entries)
        self._gather_acknowledged(batch, inf if all_acknowledged or self._hurries else now)
        if batch:
            self._next_commit = now + COMMIT_INTERVAL
        return Commit(batch, entries, self._readable())

    def _gather_acknowledged(self, batch: Batch, until: float) -> None:
        if not self._unsaved or next(iter(self._unsaved.values())) > until:
            return
        # All, not just those that are due: what is written together costs less.
        for user in self._unsaved:
            if len(self._saving) == ACKNOWLEDGED_MAX:
                break
            batch.save_acknowledged(user)
            self._saving.append(user)
        for user in self._saving:
            del self._unsaved[user]

    def _readable(self) -> list[Question[Any]]:
        """Return the reads that may go now: nothing that was called before them is missing."""
        questions: list[Question[Any]] = []
        weight = 0
        while self._questions and self._questions[0].after <= self._gathered and weight < READS_WEIGHT:
            question = self._questions.popleft()
            weight += question.weight
            questions.append(question)
        return questions

    def _give(self, job: Job) -> bool:
        if isinstance(job, Commit) and not job.batch and not job.reads.questions:
            # All of its messages were too late.
            self._results.start(job.entries)
            return True
        self._busy = True
        self._thread.give(job)
        return False

    def _wake_in(self, seconds: float) -> None:
        if self._timer is None:
            # Rounded up, since a timer that is early would only set another.
            self._timer = self._loop.call_later(ceil(seconds * 1000) / 1000, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._schedule()

    # -- When the thread has done something --

    def _finish(self, job: Job, now: float) -> None:
        self._busy = False
        self._has_folded = isinstance(job, Fold)
        if isinstance(job, Commit):
            self._finish_commit(job, now)
            self._next_fold = min(self._next_fold, now + FOLD_AFTER) if self._storage.log.rows else inf
        elif isinstance(job, Fold):
            self._folds.record(job.seconds)
            if not self._storage.log.is_folding:
                self._next_fold = now + FOLD_AFTER if self._storage.log.rows else inf
        elif isinstance(job, Visit):
            job.done(job.refusal, now)
        self._upkeep.done(job, now)
        failure = job.failure or (job.reads.failure if isinstance(job, Commit) else None)
        if failure is not None:
            self._fold_fails = self._fold_fails or not isinstance(job, Commit) or job.failure is None
            self._failed(failure, now)
        elif isinstance(job, Fold | Probe) or (
            isinstance(job, Commit) and job.batch and not self._fold_fails
        ):
            # A commit goes into the log also when SQLite can't write, or can't read.
            self._fold_fails = False
            self._recovered()
        if isinstance(job, Bite) and job.purged:
            self._counters["store_purged_total"] += job.gone
            self._listeners.purged(job.purged, now)
        elif isinstance(job, Sweep) and job.strangers:
            self._listeners.strangers(job.strangers, now)

    def _finish_commit(self, job: Commit, now: float) -> None:
        saving, self._saving = self._saving, []
        if job.batch:
            self._count(job)
        if job.failure is None:
            job.batch.succeeded()
            for user in saving:
                user.pins -= 1
        else:
            job.batch.failed()
            for user in saving:
                self._save_again(user, now)
            for entry in job.entries:
                if isinstance(entry, SaveAcknowledged) and entry.user is not None:
                    entry.user.pins += 1
                    self._save_again(entry.user, now)
        self._results.start(job.entries, job.failure, job.reads.questions, job.reads.failure)

    def _save_again(self, user: User, now: float) -> None:
        """Try again later to save the acknowledgements of a pinned user, which could not be saved."""
        if user in self._unsaved:
            user.pins -= 1
        else:
            self._unsaved[user] = now + ACKNOWLEDGED_DELAY

    def _count(self, job: Commit) -> None:
        counters = self._counters
        self._durations.record(job.seconds)
        if job.failure is None:
            if job.batch.rows:
                self._rows.record(job.batch.rows)
            counters["store_commits_total"] += 1
            counters["store_rows_total"] += job.batch.rows
            counters["store_repeats_total"] += len(job.batch.messages) - job.batch.rows

    def _failed(self, failure: str, now: float) -> None:
        self._counters["store_failures_total"] += 1
        if self.failure is None:
            _log.error(
                "%s; the server refuses messages and tries again", failure, extra=fields(path=self._path)
            )
            self._upkeep.failing(now)
        self.failure = failure

    def _recovered(self) -> None:
        if self.failure is not None:
            _log.warning("the storage of the server works again", extra=fields(path=self._path))
            self.failure = None
            self._upkeep.recovered()

    # -- The end --

    def hurry(self, hurries: bool) -> None:
        """See ``workers.store.shard_store``."""
        self._hurries = hurries
        self._schedule()

    def begin_close(self, patience: float = 5.0) -> None:
        """Commit what was called and call back, for at most `patience` seconds; blocks meanwhile. The thread closes the file after that.

        While the disk fails only what is on its way is waited for.
        """
        self._closing = True
        try:
            self._drain(monotonic() + patience)
            if not self._busy and self.failure is None:
                self._thread.give(self._keep_time(self._now))
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._thread.begin_stop()

    def close(self, patience: float = 5.0) -> None:
        """Do that unless it has been done, and wait until the file is closed, both for at most `patience` seconds. Blocks meanwhile."""
        deadline = monotonic() + patience
        try:
            if not self._closing:
                self.begin_close(patience)
        finally:
            if not self._thread.stopped(deadline - monotonic()):
                _log.error(
                    "the storage of the server did not answer within %g s; writes that waited are lost",
                    patience,
                )

    def _drain(self, deadline: float) -> None:
        while (now := monotonic()) < deadline:
            if self._busy:
                job = self._thread.wait(deadline - now)
                if job is None:
                    return
                self._finish(job, now)
            while self._results.deliver(now) or self._deliver_after(now):
                pass
            if self.failure is not None or not (self._waiting or self._unsaved or self._questions):
                return
            self._give(self._gather(now, all_acknowledged=True))
