"""What the thread has done goes back to those who called, in the order of the calls.

It goes in slices, so that the loop never pauses for long.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from core.chat.store import EXPIRED, Appended
from core.chat.user import Message
from core.process.settings import Settings
from workers.store.jobs import Job, attempt
from workers.store.reads import Question, Reads
from workers.store.storage import Storage
from workers.store.writes import Batch, Write

_log = logging.getLogger("fastchat.store")

#: Callbacks in one loop turn, as `Question.weight` counts; each may cost some ten microseconds in the core.
SLICE: Final = 64


class Expired:
    """A message whose deadline had passed when its batch was gathered (D26)."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message = message


#: What waits for a callback of a write.
Entry = Message | Write | Expired


class Commit(Job):
    """A batch of writes, and reads that come after it; either may be empty."""

    __slots__ = ("batch", "entries", "reads")

    def __init__(self, batch: Batch, entries: list[Entry], questions: list[Question[Any]]) -> None:
        super().__init__()
        self.batch = batch
        self.entries = entries
        self.reads = Reads(questions)

    def execute(self, storage: Storage) -> None:
        if self.batch:
            self.failure = attempt(self._write, storage)
        if self.reads.questions:
            self.reads.failure = attempt(self._read, storage)

    @property
    def rows(self) -> int:
        return self.batch.alone.rows if self.batch.alone is not None else 0

    def _write(self, storage: Storage) -> None:
        storage.write(self.batch)

    def _read(self, storage: Storage) -> None:
        storage.fold_for(self.reads.user_ids)
        self.reads.read(storage.database)


class Results:
    """The callbacks of one job at a time: writes first, then reads."""

    __slots__ = (
        "_appended",
        "_entries",
        "_failure",
        "_position",
        "_questions",
        "_reads_failure",
        "_settings",
    )

    def __init__(self, appended: Appended, settings: Settings) -> None:
        self._appended = appended
        self._settings = settings
        self._entries: list[Entry] = []
        self._failure: str | None = None
        self._questions: list[Question[Any]] = []
        self._reads_failure: str | None = None
        #: Of the next to be called, in `_entries` and, behind these, in `_questions`.
        self._position = 0

    def start(
        self,
        entries: list[Entry],
        failure: str | None = None,
        questions: list[Question[Any]] | None = None,
        reads_failure: str | None = None,
    ) -> None:
        """Take over a job that is done. The one before must have been delivered to the end."""
        self._entries, self._failure = entries, failure
        self._questions, self._reads_failure = questions or [], reads_failure
        self._position = 0

    def deliver(self, now: float) -> bool:
        """Call as many as may be called in one turn; whether there are more.

        Should a callback raise, a bug, it counts as called: the others follow in the next turn.
        """
        budget = SLICE
        entries, questions = self._entries, self._questions
        while budget > 0 and self._position < len(entries):
            start = self._position
            if type(entries[start]) is Message:
                end = min(start + budget, len(entries))
                while self._position < end and type(entries[self._position]) is Message:
                    self._position += 1
                self._call_appended(entries[start : self._position], self._failure, now)
            else:
                self._position += 1
                self._call_back(entries[start], now)
            budget -= self._position - start
        while budget > 0 and 0 <= self._position - len(entries) < len(questions):
            question = questions[self._position - len(entries)]
            self._position += 1
            budget -= question.weight
            self._answer(question, now)
        return self._position < len(entries) + len(questions)

    def _call_appended(self, messages: list[Any], failure: str | None, now: float) -> None:
        try:
            self._appended(messages, failure, now)
        finally:
            for message in messages:
                message.user.pins -= 1

    def _call_back(self, entry: Entry, now: float) -> None:
        if isinstance(entry, Expired):
            self._call_appended([entry.message], EXPIRED, now)
            return
        assert isinstance(entry, Write)
        try:
            if entry.done is not None:
                entry.done(self._failure, now)
        finally:
            if entry.user is not None:
                entry.user.pins -= 1

    def _answer(self, question: Question[Any], now: float) -> None:
        failure, found = self._reads_failure, question.nothing()
        if failure is None:
            try:
                found = question.found(self._settings)
            except Exception:
                _log.exception("bug in the store")
                failure = "the storage of the server fails: a bug"
        try:
            question.done(found, failure, now)
        finally:
            if question.user is not None:
                question.user.pins -= 1
