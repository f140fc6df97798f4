"""The way of log lines to standard error, on which nothing of the server ever waits.

Standard error may be a pipe that nobody reads, a terminal that was stopped with Ctrl-S, a disk that is full or hangs. So a thread
writes, and the event loop only puts lines in its queue. When the queue is full, lines are dropped; what was lost is counted and told in one
line as soon as one gets through. The thread exists from the first line on, and wakes up only when there is something to write.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any, Final

from core.process.addresses import host_of
from core.process.log_throttle import Kind, Throttle

#: Those that processes of ours handle.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Lines that may wait, of 4 KiB at most and a tenth of that as a rule.
QUEUE_MAX: Final = 1000
#: Bytes written at once, unless a line has more: what a pipe takes whole (PIPE_BUF).
_WRITE_BYTES: Final = 4096
#: Characters of a sentence by which events are told apart.
_SENTENCE_MAX: Final = 200
#: Where something is filled into a sentence.
_BLANK: Final = re.compile(r"%[a-z]")
#: Seconds between two tries, when somebody else has made standard error non-blocking and it takes nothing.
_RETRY: Final = 0.05
#: Seconds that the end of the process waits for what is in the queue.
FLUSH_PATIENCE: Final = 0.5


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of an event (``core.events.fields``); empty when it has none."""
    given = record.__dict__.get("fields")
    return given if isinstance(given, dict) else {}


class LogOutput(logging.Handler):
    """Hands every record that `throttle` admits to the thread, as a line of `formatter`. Nothing here raises, and nothing blocks."""

    def __init__(self, descriptor: int, formatter: logging.Formatter, throttle: Throttle) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._descriptor = descriptor
        self._thread: threading.Thread | None = None
        #: Lines; None to look at the time again; and an event is set when its turn comes.
        self._queue: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        #: A partly written line has no end yet.
        self._torn = False
        #: Whether the thread did not come through in time when it was waited for.
        self._stuck = False

        # -- Both threads use these, under the lock. The handler's own is held by `logging.shutdown` while it waits for the thread. --
        # It is taken again where the collector of garbage comes between and something complains.
        self._guard = threading.RLock()
        self._throttle = throttle
        #: Lines that did not get out, since it was told last.
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record, or count it."""
        try:
            kind, who = _kind(record)
            with self._guard:
                held = self._throttle.holds
                admitted = self._throttle.admit(kind, who, monotonic())
            if admitted:
                self._put(self._bytes(record))
            elif not held:
                self._queue.put(None)
        except Exception:
            self._lose(1)

    def flush(self) -> None:
        """Wait until what has been logged is written, for a moment at most."""
        if self._thread is None or self._stuck:
            return
        written = threading.Event()
        self._queue.put(written)
        self._stuck = not written.wait(FLUSH_PATIENCE)

    def close(self) -> None:
        """Tell at the end what was held back."""
        with suppress(Exception):
            for line in self._summaries(all_of_them=True):
                self._put(line)
            self.flush()
        super().close()

    def _put(self, line: bytes) -> None:
        if self._queue.qsize() >= QUEUE_MAX:
            self._lose(1)
            return
        self._queue.put(line)
        if self._thread is None:
            # A standard error that hangs must not keep the process from ending.
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            thread.start()
            self._thread = thread

    def _lose(self, count: int) -> None:
        with self._guard:
            self._lost += count

    # -- The thread --

    def _run(self) -> None:
        # What handles signals is the main thread, which may have to block them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while True:
            first = self._next()
            for line in self._summaries():
                self._write(line)
            if isinstance(first, threading.Event):
                first.set()
            elif first is not None:
                self._write_with_others(first)

    def _next(self) -> bytes | threading.Event | None:
        """Take what is first in the queue; None when there is only something to sum up."""
        with self._guard:
            due = self._throttle.due()
        with suppress(Empty):
            return self._queue.get(timeout=None if due is None else max(0.0, due - monotonic()))
        return None

    def _write_with_others(self, line: bytes) -> None:
        """Write a line, and what fits in the same write."""
        lines, size, after = [line], len(line), None
        while not self._queue.empty():
            following = self._queue.get()
            if not isinstance(following, bytes):
                after = following
                break
            if size + len(following) > _WRITE_BYTES:
                self._write(b"".join(lines))
                lines, size = [], 0
            lines.append(following)
            size += len(following)
        self._write(b"".join(lines))
        if after is not None:
            after.set()

    def _write(self, lines: bytes) -> None:
        with self._guard:
            lost = self._lost
        if lost:
            sentence = "log lines were lost, since standard error did not take them"
            line = self._line("fastchat.log", logging.WARNING, sentence, count=lost)
            if not self._write_bytes(line):
                self._lose(lines.count(b"\n"))
                return
            with self._guard:
                self._lost -= lost
        if not self._write_bytes(lines):
            self._lose(lines.count(b"\n"))

    def _write_bytes(self, data: bytes) -> bool:
        """Return whether all of it was taken."""
        if self._torn:
            data = b"\n" + data
        position = 0
        while position < len(data):
            try:
                position += os.write(self._descriptor, data[position:])
            except BlockingIOError:
                sleep(_RETRY)
                continue
            except OSError:
                if position:
                    self._torn = not data[:position].endswith(b"\n")
                return False
        self._torn = False
        return True

    # -- Lines of its own --

    def _summaries(self, *, all_of_them: bool = False) -> list[bytes]:
        with self._guard:
            held = self._throttle.summaries(monotonic(), all_of_them=all_of_them)
        return [
            self._line(
                kind.logger,
                kind.level,
                f"{_BLANK.sub('...', kind.sentence)}: {number} more like this in the last {seconds:.0f} s",
                code=kind.code,
                count=number,
                seconds=round(seconds),
            )
            for kind, number, seconds in held
        ]

    def _line(self, logger: str, level: int, sentence: str, **values: object) -> bytes:
        names = {"name": logger, "levelno": level, "levelname": logging.getLevelName(level), "msg": sentence}
        return self._bytes(logging.makeLogRecord({**names, "fields": values}))

    def _bytes(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("ascii", "backslashreplace") + b"\n"


def _kind(record: logging.LogRecord) -> tuple[Kind, str | None]:
    """Return what kind of event it is, and whom it is about."""
    given = fields_of(record)
    code, user, address = given.get("code"), given.get("user"), given.get("address")
    # Only the first line: asyncio goes on with the numbers of objects. And a client has as many ports as it likes.
    sentence = str(record.msg).partition("\n")[0][:_SENTENCE_MAX]
    who = str(user) if user else host_of(str(address)) if address else None
    return Kind(record.name, record.levelno, sentence, code if isinstance(code, int) else None), who
