"""core.process.logs: whatever is in an event, it is one line of printable ASCII, without what clients wrote to each other."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import close_level, fields
from core.process.logs import (
    FIELDS,
    LEVELS,
    LINE_MAX,
    REQUIRED,
    LineFormatter,
    configure_logging,
    describe,
    set_log_level,
)
from core.wire.protocol import CloseCode
from tests.started_processes import python_path

PROJECT: Final = Path(__file__).parents[3]

#: Text of every kind, also what no UTF-8 can have, and what terminals and readers of logs stumble over.
_TEXTS: Final = st.text(st.characters(exclude_categories=()), max_size=300) | st.sampled_from(
    [
        "\n",
        "\r\n",
        "\x1b[2J",
        "\u202e",
        "\ud800",
        "\x00",
        "\x7f",
        "\x85",
        "\u2028",
        'a="b"',
        "\\",
        '"',
        "",
        "x" * 99_999,
    ]
)
_VALUES: Final = (
    _TEXTS
    | st.binary(max_size=50)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.lists(_TEXTS)
)
#: An event in text: its head, what it says, and its fields.
TEXT_LINE: Final = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>[A-Z]+) (?P<process>\S+) (?P<component>[^:]*): "
    r'(?P<event>.*?)(?P<fields>(?: [a-z_]+=(?:"(?:[^"\\]|\\.)*"|[^\s"=]+))*)'
)
_FIELD: Final = re.compile(r' ([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)')


class BadString:
    """A value of which nothing can be told."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def record(event: str = "something happened", /, **values: object) -> logging.LogRecord:
    """An event as a log call makes it; `logger` says whose."""
    logger = values.pop("logger", "fastchat.worker")
    return logging.makeLogRecord(
        {"name": logger, "levelno": logging.INFO, "levelname": "INFO", "msg": event, **fields(**values)}
    )


def in_json(event: logging.LogRecord) -> dict[str, Any]:
    """What a machine reads."""
    line = LineFormatter("worker-0", as_json=True).format(event)
    assert is_one_line(line)
    read = json.loads(line.encode())
    assert isinstance(read, dict)
    return read


def in_text(event: logging.LogRecord) -> str:
    """What people read."""
    line = LineFormatter("worker-0", as_json=False).format(event)
    assert is_one_line(line)
    assert TEXT_LINE.fullmatch(line), line
    return line


def is_one_line(line: str) -> bool:
    """Printable ASCII, short enough for a pipe."""
    return line.isascii() and line.isprintable() and len(line) < LINE_MAX


def raised(action: Callable[[], object]) -> BaseException:
    """What `action` raises."""
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


# -- Any text --


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), _VALUES))
def test_any_value_in_any_field_is_one_line_that_parses(values: dict[str, object]) -> None:
    event = record("something happened", **values)
    in_text(event)
    read = in_json(event)
    assert tuple(read)[: len(REQUIRED)] == REQUIRED
    assert read.keys() - set(REQUIRED) <= values.keys()


@given(_TEXTS)
def test_a_text_that_is_short_enough_comes_back_as_it_was(text: str) -> None:
    """But lone surrogates, which readers of JSON need not take."""
    if len(text) > 256:
        return
    expected = text.encode("utf-8", "backslashreplace").decode()
    event = record(reason=text)
    assert in_json(event)["reason"] == expected
    name, value = _FIELD.findall(in_text(event))[-1]
    assert name == "reason"
    assert (json.loads(value) if value.startswith('"') else value) == expected


@given(_TEXTS, _TEXTS)
def test_any_event_of_any_logger_is_one_line(text: str, name: str) -> None:
    for each in (name, "fastchat.x"):
        event = record(text, logger=each)
        assert is_one_line(LineFormatter("worker-0", as_json=False).format(event))
        in_json(event)


def test_a_long_value_is_cut_and_says_so() -> None:
    read = in_json(record(reason="x" * 10_000))
    assert read["reason"] == "x" * 256 + "... (10000 characters)"


def test_many_long_values_still_fit_in_a_line() -> None:
    in_text(record(**dict.fromkeys(FIELDS, "😀" * 10000)))
    in_json(record(**{f"{name}{index}": "\n" * 999 for name in FIELDS for index in range(50)}))


@pytest.mark.parametrize("name", REQUIRED)
def test_a_field_does_not_take_the_place_of_what_each_event_has(name: str) -> None:
    assert in_json(record(**{name: "forged"}))[name] != "forged"


def test_what_is_not_known_is_left_out() -> None:
    assert in_json(record(code=None)).keys() == set(REQUIRED)


def test_a_value_of_which_nothing_can_be_told() -> None:
    assert in_json(record(reason=BadString()))["reason"] == "<BadString>"


def test_arguments_that_do_not_fit_are_no_reason_to_lose_an_event() -> None:
    event = record("%d of %d")
    event.args = ("one",)
    assert in_json(event)["event"] == "%d of %d"


def test_a_number_stays_a_number_in_json() -> None:
    read = in_json(record(code=CloseCode.POLICY_VIOLATION, count=3, seconds=0.5, big=2**70, odd=float("inf")))
    assert (read["code"], read["count"], read["seconds"]) == (1008, 3, 0.5)
    assert (read["big"], read["odd"]) == (str(2**70), "inf")


def test_the_time_is_in_utc_with_milliseconds() -> None:
    event = record()
    event.created = 1_767_225_600.25
    assert in_json(event)["time"] == "2026-01-01T00:00:00.250Z"
    assert in_text(event).startswith("2026-01-01T00:00:00.250Z INFO worker-0 worker: something happened")


def test_only_the_first_line_of_a_library() -> None:
    """Below it asyncio shows objects, with all that is in them."""
    event = record("Exception in callback f()\nhandle: <Handle f(b's3cret')>", logger="asyncio")
    assert in_json(event)["event"] == "Exception in callback f()"


# -- Exceptions --


@pytest.mark.parametrize(
    "action",
    [
        lambda: int("s3cret"),
        lambda: dict[str, int]()["s3cret"],
        lambda: json.loads('{"s3cret'),
        lambda: "s3cret".index("x"),
        lambda: b"s3cret\xff".decode(),
    ],
)
def test_an_exception_does_not_repeat_what_it_was_given(action: Callable[[], object]) -> None:
    error = raised(action)
    told = describe(error)
    assert "s3cret" not in told
    assert type(error).__name__ in told
    assert "process/test_logs.py:" in told


def test_an_exception_of_code_says_what_it_has_to_say() -> None:
    assert "OSError: [Errno 28] No space left on device" in describe(OSError(28, "No space left on device"))
    assert "AttributeError: 'NoneType'" in describe(raised(lambda: getattr(None, "x")))  # noqa: B009


def test_what_led_to_an_exception_is_told_too() -> None:
    def fail() -> None:
        try:
            int("s3cret")
        except ValueError as error:
            raise TypeError("outer") from error

    told = describe(raised(fail))
    assert re.search(r"> TypeError: outer; because of .*test_logs.py:\d+ fail > ValueError$", told)


def test_an_endless_exception_has_an_end() -> None:
    def again() -> None:
        again()

    told = describe(raised(again))
    assert told.count(" > ") == 16
    circle, other = ValueError(), KeyError()
    circle.__context__, other.__context__ = other, circle
    assert describe(circle).count("because of") == 1
    event = record()
    event.exc_info = (type(circle), circle, None)
    assert in_json(event)["exception"] == describe(circle)


def test_a_group_of_exceptions() -> None:
    assert "because of OSError: no" in describe(
        ExceptionGroup("s3cret", [OSError("no"), ValueError("s3cret")])
    )
    assert "s3cret" not in describe(ExceptionGroup("s3cret", [ValueError("s3cret")]))


# -- Severities --


def test_how_severe_a_close_is() -> None:
    assert close_level(CloseCode.INTERNAL_ERROR) == logging.ERROR
    for code in (1002, 1003, 1007, 1008, 1009, 1013):
        assert close_level(code) == logging.INFO
    for code in (1001, 1012, 4001, 4002):
        assert close_level(code) == logging.DEBUG


@pytest.mark.parametrize("wrong", ["", "loud", "INFO", "10"])
def test_what_is_no_level_or_format_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="one of debug, info, warning, error"):
        set_log_level(wrong)
    with pytest.raises(ValueError, match="text or json"):
        configure_logging("worker-0", "info", wrong)


# -- A process of its own --

_PROGRAM: Final = """
import asyncio, gc, logging, sys, threading, warnings
from core.events import fields
from core.process.logs import configure_logging, set_log_level
configure_logging("test", "info", sys.argv[1])
log = logging.getLogger("fastchat.worker")
"""


def run(program: str, format: str = "json", **keywords: Any) -> list[dict[str, Any]]:
    """The events that a program leaves which logs like a process of ours."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM + program, format],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": python_path()},
        stderr=subprocess.PIPE,
        timeout=60,
        **keywords,
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_the_level_changes_at_once() -> None:
    events = run(
        """
log.debug("not yet"); set_log_level("debug"); log.debug("now"); set_log_level("error"); log.warning("no more"); log.error("still")
logging.getLogger("library").warning("no"); set_log_level("debug"); logging.getLogger("library").info("never")
"""
    )
    assert [event["event"] for event in events] == ["now", "still"]


def test_what_python_would_write_itself_comes_out_as_events() -> None:
    events = run(
        """
class Bad:
    def __del__(self): raise ValueError("s3cret")
def fail(): raise KeyError("s3cret")
warnings.warn("beware\\nof this")
Bad(); gc.collect()
thread = threading.Thread(target=fail); thread.start(); thread.join()
async def wrong(): asyncio.get_running_loop().call_soon(fail); await asyncio.sleep(0)
asyncio.run(wrong())
raise LookupError("s3cret")
"""
    )
    assert "s3cret" not in json.dumps(events)
    assert [event["component"] for event in events] == [
        "py.warnings",
        "process",
        "process",
        "asyncio",
        "process",
    ]
    assert events[0]["event"].endswith("UserWarning: beware")
    assert [event.get("exception", "").rpartition("> ")[2] for event in events] == [
        *("", "ValueError", "KeyError", "KeyError", "LookupError")
    ]
    assert [event["level"] for event in events] == ["warning", "error", "critical", "error", "critical"]


@pytest.mark.slow
def test_aiohttp_tells_of_bugs_and_not_of_clients() -> None:
    events = run(
        """
from aiohttp.http_exceptions import BadStatusLine
server = logging.getLogger("aiohttp.server")
for error in (BadStatusLine("s3cret"), OSError("a bug")):
    server.error("Error handling request from %s", "::1", exc_info=error)
server.debug("Error handling request")
"""
    )
    (event,) = events
    assert event["exception"].endswith("OSError: a bug")


def test_every_event_has_the_required_keys_in_both_formats() -> None:
    program = """
try: 1 / 0
except ZeroDivisionError: log.exception("bug %s", "here", extra=fields(user="alice", code=1011))
"""
    (event,) = run(program)
    assert tuple(event) == (*REQUIRED, "user", "code", "exception")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM + program, "text"],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": python_path()},
        stderr=subprocess.PIPE,
        timeout=60,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    match = TEXT_LINE.fullmatch(line)
    assert match is not None
    assert (match["level"], match["process"], match["component"]) == ("ERROR", "test", "worker")
    assert match["event"] == "bug here"
    assert dict(_FIELD.findall(match["fields"]))["user"] == "alice"


def test_levels_are_those_of_the_settings() -> None:
    from core.process.settings import Settings

    assert get_args(get_type_hints(Settings)["log_level"]) == tuple(LEVELS)
