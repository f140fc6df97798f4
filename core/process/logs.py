"""How every process logs: one event a line on standard error, as text for people or as JSON for machines.

An event is a sentence that is the same each time, and fields that say whom and what it is about:

    _log.info("a connection was closed", extra=fields(connection="4711-5", code=1008, reason="no HELLO in time"))

    2026-01-01T12:00:00.000Z INFO worker-0 worker: a connection was closed connection=4711-5 code=1008 reason="no HELLO in time"

    {"time":"2026-01-01T12:00:00.000Z","level":"info","process":"worker-0","component":"worker","event":"a connection was closed", ...}

`FIELDS` lists what comes in fields; `connection`, `user` and `address` mean the same wherever they stand. What no log may have:

* *Content.* Nothing of what clients write to each other is given to a log, at no level, and neither are names, message ids or the
  reason of a client's Close. An exception says what it has to say only if its kind can't repeat what it was given (`_TELLING`).
* *Raw bytes.* A line is printable ASCII, whatever is in its fields: everything else is escaped as JSON does it, so nothing that a
  client sends can begin a line, move the cursor of a terminal, or turn the direction of writing around.
* *No end.* Values are cut, and a line has at most `LINE_MAX` bytes, which a pipe takes whole however many processes write to it.
  How many lines there may be is the business of ``core.process.log_throttle``, and how they get out that of ``core.process.log_output``.

Of libraries only warnings and errors are logged, and only the first line of what they say: below it asyncio, for one, shows objects
with all that is in them.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final

from core.events import OURS
from core.process.log_output import LogOutput, fields_of
from core.process.log_throttle import Throttle
from core.wire.timestamps import format_timestamp

#: By name, as the settings have them.
LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS: Final = ("text", "json")

#: The keys that every event has in JSON, in this order.
REQUIRED: Final = ("time", "level", "process", "component", "event")
#: field -> what it means. An event has those that make sense for it.
FIELDS: Final = {
    "connection": "which connection: the number of the front's process that accepted it, and a count",
    "user": "user id, as HELLO said",
    "address": "address and port that the connection came from; behind a trusted proxy the address that it tells, without a port",
    "code": "WebSocket close code",
    "reason": "why, in the server's or the operating system's words",
    "type": "type of the message that is answered with ERROR; `other` for one that there is not",
    "error": "code of that ERROR",
    "field": "field of the message that is wrong",
    "status": "HTTP status that a request was refused with",
    "worker": "index of the worker that it is about",
    "pid": "process that it is about",
    "path": "a file of the server",
    "count": "how many",
    "seconds": "in how long",
    "exception": "what went wrong in the program: where, innermost call last, and the kind of exception",
}

#: Bytes of a line, its end included: PIPE_BUF, up to which what several processes write to one pipe does not get mixed up.
LINE_MAX: Final = 4096
#: Characters of a value. When a line would still be too long, it is made again with the next number; with the last one any line fits.
_VALUE_MAX: Final = (256, 64, 16)
#: An exception may have so many times as much.
_EXCEPTION_TIMES: Final = 6
#: Calls that are told of an exception's way, and exceptions that led to each other.
_FRAMES_MAX: Final = 16
_CAUSES_MAX: Final = 4
#: Exceptions whose message is made of code and of the operating system's words. That of others, such as ValueError, KeyError or any of a
#: library, may be what a client sent.
_TELLING: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    IndexError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
)
#: Values that need no quotes in text.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@+,%\[\]-]+")


def configure_logging(process: str, level: str, format: str) -> None:
    """Log as `process`, such as ``front-0``; to be called once. Raises ValueError for a level or format that there is not.

    What Python itself would write to standard error comes out in the same form: warnings, and exceptions that nobody caught.
    """
    if format not in FORMATS:
        raise ValueError(f"the log format must be {' or '.join(FORMATS)}, not {format!r}")
    set_log_level(level)
    # Nothing that goes wrong while logging is worth more lines, or anybody's time.
    logging.raiseExceptions = False
    # What is not shown need not be found out.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.getLogger().addHandler(LogOutput(2, LineFormatter(process, as_json=format == "json"), Throttle()))
    logging.getLogger("aiohttp.server").addFilter(_is_bug)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread


def set_log_level(level: str) -> None:
    """Log from this level on, at once. Raises ValueError for one that there is not."""
    if level not in LEVELS:
        raise ValueError(f"the log level must be one of {', '.join(LEVELS)}, not {level!r}")
    OURS.setLevel(LEVELS[level])
    logging.getLogger().setLevel(max(LEVELS[level], logging.WARNING))


def flush_logs() -> None:
    """Write what has been logged, and say what was held back: the process becomes another program, or ends."""
    for handler in logging.getLogger().handlers:
        handler.close()


class LineFormatter(logging.Formatter):
    """An event as one line of printable ASCII, without its end."""

    def __init__(self, process: str, *, as_json: bool) -> None:
        super().__init__()
        self._process = process
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Format a record in at most LINE_MAX - 1 characters; never raises for what is in the record's fields."""
        line = ""
        for limit in _VALUE_MAX:
            line = self._line(record, limit, with_fields=True)
            if len(line) < LINE_MAX:
                return line
        return self._line(record, _VALUE_MAX[-1], with_fields=False)

    def _line(self, record: logging.LogRecord, limit: int, *, with_fields: bool) -> str:
        component = _cut(record.name.removeprefix(f"{OURS.name}."), limit)
        time = format_timestamp(int(record.created * 1000)).decode()
        values = _values(record, limit) if with_fields else {}
        event = _cut(_event(record), 2 * limit)
        if self._as_json:
            base = (time, record.levelname.lower(), self._process, component, event)
            return _json(dict(zip(REQUIRED, base, strict=True)) | values)
        said = "".join(f" {name}={_text(value)}" for name, value in values.items())
        head = f"{time} {record.levelname} {self._process} {_escape(component)}: {_escape(event)}"
        return head + said


# -- What an event says --


def _event(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:
        text = str(record.msg)  # its arguments do not fit; what it is about can still be told
    return text if _is_ours(record) else text.partition("\n")[0]


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.startswith(OURS.name)


def _values(record: logging.LogRecord, limit: int) -> dict[str, Any]:
    """Return the fields, as JSON takes them."""
    values = {name: _value(value, limit) for name, value in fields_of(record).items() if value is not None}
    for name in REQUIRED:
        values.pop(name, None)
    if record.exc_info and record.exc_info[1] is not None:
        values["exception"] = _cut(describe(record.exc_info[1]), _EXCEPTION_TIMES * limit, keep_end=True)
    return values


def _value(value: object, limit: int) -> Any:
    if value is True or value is False:
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return _cut(_as_text(value), limit)


def _as_text(value: object) -> str:
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value).decode("utf-8", "backslashreplace")
        if isinstance(value, BaseException):
            return _says(value)
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _cut(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Cut it to so many characters, and a word about the rest; lone surrogates, which no reader of JSON has to take, are spelt out."""
    size = len(text)
    if size > limit:
        text = (
            f"({size} characters) ...{text[-limit:]}"
            if keep_end
            else f"{text[:limit]}... ({size} characters)"
        )
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _json(values: dict[str, Any]) -> str:
    # Not by core.wire.codec: this leaves nothing but ASCII, so neither a terminal nor a reader of UTF-8 can stumble over it.
    return json.dumps(values, ensure_ascii=True, separators=(",", ":"))


def _escape(text: str) -> str:
    """Escape it as within a string in JSON, but for double quotes."""
    return _json_text(text)[1:-1].replace('\\"', '"')


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _PLAIN.fullmatch(text) else _json_text(text)


# -- Exceptions --


def describe(error: BaseException) -> str:
    """Return where it came from and what led to it, without what it may have been told by a client."""
    told: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(told) < _CAUSES_MAX:
        seen.add(id(current))
        told.append(f"{_where(current.__traceback__)}{_says(current)}")
        current = _led_to(current)
    # The first words are those that people, and tests, look for.
    return "Traceback (innermost call last): " + "; because of ".join(told)


def _led_to(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _where(trace: TracebackType | None) -> str:
    calls = deque(_calls(trace), maxlen=_FRAMES_MAX)
    return "".join(f"{call} > " for call in calls)


def _calls(trace: TracebackType | None) -> Iterator[str]:
    for frame, line in walk_tb(trace):
        code = frame.f_code
        yield f"{'/'.join(code.co_filename.split('/')[-2:])}:{line} {code.co_name}"


def _says(error: BaseException) -> str:
    kind = type(error).__name__
    if not isinstance(error, _TELLING):
        return kind
    try:
        said = str(error)
    except Exception:
        said = ""
    return f"{kind}: {said}" if said else kind


# -- What Python and libraries would write in their own way --


def _is_bug(record: logging.LogRecord) -> bool:
    """Tell bugs in our handlers from clients that send no HTTP: aiohttp logs both at one level; the latter have its own exceptions."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not type(error).__module__.startswith("aiohttp")


_uncaught_log: Final = logging.getLogger("fastchat.process")


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _uncaught_log.critical("bug: an uncaught exception ends the process", exc_info=error)


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        _uncaught_log.critical("bug: an uncaught exception ends a thread", exc_info=arguments.exc_value)


def _unraisable(arguments: sys.UnraisableHookArgs) -> None:
    if arguments.exc_value is not None:
        _uncaught_log.error(
            "bug: an exception was raised where no caller can catch it", exc_info=arguments.exc_value
        )
