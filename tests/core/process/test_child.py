"""Tests of core.process.child: the control pipe here; how a child boots in the tests of its two programs, front and worker."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from core.process import child
from core.process.child import ControlPipe, Handlers, reload_keys
from core.process.control import BEAT_INTERVAL, LOG_LEVEL, STOP, decode_control, encode_control
from core.process.settings import ConfigurationError


class Ended(BaseException):
    """In the place of the end of the process."""


class Pair:
    """A pipe, the supervisor's end of it, and an event loop that is a list of readers."""

    def __init__(self) -> None:
        self.supervisor, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pipe = ControlPipe(theirs.detach())
        self.readers: dict[int, Callable[[], None]] = {}
        self.heard: list[dict[str, Any]] = []

    def listen(self, handlers: Handlers) -> Callable[[], None]:
        self.pipe.listen(self.readers.__setitem__, handlers)
        (reader,) = self.readers.values()
        return reader


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    pair = Pair()
    yield pair
    pair.supervisor.close()
    pair.pipe._socket.close()


def test_what_a_child_sends_is_a_packet(pair: Pair) -> None:
    pair.pipe.send("stats", stats={"a": 1})
    assert decode_control(pair.supervisor.recv(1000)) == {"op": "stats", "stats": {"a": 1}}


def test_a_beat_is_sent_when_it_is_due(pair: Pair) -> None:
    """A busy loop, whose timers come late, sends one for each call, and an idle one not more than it has to."""
    for number in range(10):
        pair.pipe.beat(1000.0 + number * BEAT_INTERVAL / 4)
    pair.supervisor.setblocking(False)
    for _ in range(3):
        assert decode_control(pair.supervisor.recv(1000)) == {"op": "beat"}
    with pytest.raises(BlockingIOError):
        pair.supervisor.recv(1000)


def test_a_supervisor_that_does_not_read_does_not_hold_a_child_up(pair: Pair) -> None:
    for _ in range(10_000):
        pair.pipe.send("stats")
    pair.supervisor.close()
    pair.pipe.send("stats")


def test_each_message_goes_to_its_handler(pair: Pair) -> None:
    reader = pair.listen({STOP: pair.heard.append})
    pair.supervisor.send(encode_control(STOP, code=1001))
    pair.supervisor.send(encode_control("of a newer version"))
    pair.supervisor.send(encode_control(STOP, code=1012))
    reader()
    assert [message["code"] for message in pair.heard] == [1001, 1012]
    reader()  # a spurious wake-up
    assert len(pair.heard) == 2


def test_the_log_level_needs_no_handler(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str] = []
    monkeypatch.setattr(child, "set_log_level", levels.append)
    reader = pair.listen({})
    pair.supervisor.send(encode_control(LOG_LEVEL, level="debug"))
    reader()
    assert levels == ["debug"]


def test_a_child_ends_when_the_supervisor_is_gone_but_hears_all_it_said(pair: Pair) -> None:
    reader = pair.listen({STOP: pair.heard.append})
    pair.supervisor.send(encode_control(STOP))
    pair.supervisor.close()
    with pytest.raises(Ended, match="2"):
        reader()
    assert pair.heard == [{"op": STOP}]


def test_a_descriptor_that_is_no_socket_is_refused() -> None:
    with open(os.devnull) as file, pytest.raises(OSError, match="socket"):
        ControlPipe(file.fileno())


def test_keys_that_are_invalid_leave_the_current_ones(caplog: pytest.LogCaptureFixture) -> None:
    loaded: list[str] = []

    def refuse() -> None:
        raise ConfigurationError("no key in the file")

    log = logging.getLogger("fastchat.test")
    with caplog.at_level(logging.ERROR, "fastchat.test"):
        reload_keys(lambda: loaded.append("new"), log)
        reload_keys(refuse, log)
    assert loaded == ["new"]
    assert [record.message for record in caplog.records] == [
        "keeping the current keys: the new ones are invalid"
    ]
