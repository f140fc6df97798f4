"""Tests of router.operator.text: what people read, in 80 columns, whatever clients and servers put into it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.process.configuration import Origin
from router.operator.text import (
    WIDTH,
    describe_reload,
    describe_settings,
    describe_status,
    describe_user,
    duration,
    plain,
    table,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m 0s"),
        (3599, "59m 59s"),
        (3600, "1h 0m"),
        (86_399, "23h 59m"),
        (90_000, "1d 1h"),
        (86_400 * 400, "400d 0h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    assert plain(text).isprintable()
    if text.isprintable():
        assert plain(text) == text


def test_escapes_can_be_read() -> None:
    assert plain("a\x1b[2Jb\u202e\n") == "a\\x1b[2Jb\\u202e\\n"


def test_a_table() -> None:
    lines = table(("name", "state", "n"), [("a", "ready", "1"), ("bcdefg", "x", "1000")], 2)
    assert lines == ["name    state     n", "a       ready     1", "bcdefg  x      1000"]


def process(kind: str, index: int, **fields: Any) -> dict[str, Any]:
    stats = (
        {"connections": 123_456, "users": 120_000, "slots": 512} if kind == "worker" else {"front_lobby": 3}
    )
    usual = {"pid": 1_234_567, "state": "ready", "problem": None, "uptime": 86_000.0, "restarts": 0}
    return {"kind": kind, "index": index, "stats": stats, "messages_per_second": 12_345.6, **usual, **fields}


def status(**fields: Any) -> dict[str, Any]:
    settings = {
        "host": "localhost",
        "port": 8000,
        "admin_host": "::1",
        "admin_port": 8001,
        "data_dir": "/srv/data",
        "run_dir": "/tmp/f/run-1234",
        "store": "sqlite",
    }
    usual: dict[str, Any] = {
        "status": "ok",
        "reasons": [],
        "version": "1.0",
        "core": "compiled",
        "core_advice": None,
        "pid": 77,
        "uptime": 100.0,
        "settings": settings,
    }
    return {**usual, "processes": [process("worker", 0), process("front", 0)], **fields}


def test_a_server_that_is_well() -> None:
    assert describe_status(status()) == [
        "FastChat 1.0 is ready (ok), up 1m 40s, pid 77",
        "  clients  ws://localhost:8000/ws",
        "  admin    http://[::1]:8001",
        "  data     /srv/data",
        "  sockets  /tmp/f/run-1234",
        "  core     compiled",
        "",
        "process   state      pid       up  slots  clients   users  msg/s  restarts",
        "worker 0  ready  1234567  23h 53m    512   123456  120000  12346         0",
        "front 0   ready  1234567  23h 53m      -        3       -      -         0",
    ]


def test_a_server_that_is_not() -> None:
    away = process("worker", 63, pid=None, state="backing off", uptime=0.0, stats={}, restarts=2)
    away |= {"problem": "it is backing off", "last_end": "signal SIGKILL", "messages_per_second": 0.0}
    front = process(
        "front", 1, state="starting", problem="it is starting", restarts=1, last_end="exit code 9"
    )
    told = status(
        status="degraded",
        reasons=["worker 63: it is backing off"],
        processes=[process("worker", 0), away, front],
        core="pure",
        core_advice="install a compiler",
    )
    lines = describe_status(told)
    assert lines[0].startswith("FastChat 1.0 is not ready (degraded)")
    assert all(len(line) <= WIDTH for line in lines)
    assert "worker 63 backing off" in lines[9]
    assert lines[lines.index("not ready:") :] == [
        "not ready:",
        "  worker 63: it is backing off",
        "",
        "problems:",
        "  front 1: it is starting",
        "",
        "to make the core faster:",
        "  install a compiler",
        "",
        "started again:",
        "  worker 63 2 times; the process before this one ended with signal SIGKILL",
        "  front 1 once; the process before this one ended with exit code 9",
    ]


def test_a_server_whose_processes_were_replaced() -> None:
    stats = {"takeover_seconds": 0.071, "not_moved_total": 2}
    replaced = [process("worker", 0, replaced=3, stats=stats), process("front", 0, replaced=1)]
    lines = describe_status(status(processes=replaced, supervisor_replaced=3))
    assert lines[lines.index("replaced:") + 1 :] == [
        "  worker 0 3 times, the last time in 0.07 s for its clients; connections that",
        "    could not be moved: 2",
        "  front 0 once",
        "  supervisor 3 times",
    ]


def test_a_reload() -> None:
    replaced = [
        {"process": "worker 0", "pid": 12, "seconds": 0.34},
        {"process": "supervisor", "pid": 7, "seconds": 1.5},
    ]
    assert describe_reload({"replaced": replaced}) == [
        "worker 0 is process 12 now (0.34 s)",
        "supervisor is the new program in process 7 now (1.50 s)",
    ]
    assert describe_reload({"replaced": []}) == ["nothing was replaced"]


def test_a_server_that_is_drained() -> None:
    drain = {"why": "an operator", "elapsed": 12.3, "seconds_left": 17.7, "stops": False}
    drain |= {"connections": 34, "connections_before": 120}
    lines = describe_status(status(drain=drain))
    assert lines[lines.index("drain:") + 1 :] == [
        "  asked for by an operator 12s ago; 34 of 120 connections are left, to be closed",
        "    within 17s",
    ]
    drain |= {"why": "SIGTERM", "seconds_left": 0.0, "connections": 0, "stops": True}
    assert "asked for by SIGTERM 12s ago; 0 of 120 connections are left; then the server stops" in " ".join(
        line.strip() for line in describe_status(status(drain=drain))
    )
    assert "drain:" not in describe_status(status(drain=None))


def test_a_server_that_starts_and_one_of_another_version() -> None:
    starting = process("worker", 0, pid=None, state="not running", uptime=0.0, stats={})
    told = status(processes=[starting], settings={"store": "memory"})
    del told["reasons"]
    del starting["messages_per_second"]
    lines = describe_status(told)
    assert "not used" in lines[3]
    assert lines[8].split() == ["worker", "0", "not", "running", "-", "-", "-", "-", "-", "0.0", "0"]


def facts(**fields: Any) -> dict[str, Any]:
    device = {
        "connection": "77-1",
        "address": "[2001:db8::1]:4711",
        "connected": 3725.0,
        "heard": 2.5,
        "capabilities": ["receipts", "resume"],
        "unsent": 17,
        "behind": 3,
    }
    mailbox = {"head": 120, "waiting": 3, "uncommitted": 0}
    usual = {
        "user": "alice",
        "worker": 1,
        "slot": 512,
        "known": True,
        "display_name": "Alice",
        "online": True,
    }
    return {**usual, "devices": [device], "chats": 2, "mailbox": mailbox, "last_close": None, **fields}


def test_a_user() -> None:
    assert describe_user(facts()) == [
        "Alice (alice)",
        "  online on worker 1, slot 512",
        "  chats       2",
        "  mailbox     120 messages so far, 3 not acknowledged",
        "  last close  none in the last minutes",
        "",
        "  77-1 from [2001:db8::1]:4711",
        "    connected for 1h 2m, heard 2s ago",
        "    3 messages behind, 17 bytes unsent",
        "    capabilities: receipts, resume",
    ]


def test_a_user_who_has_left_and_what_the_client_gave_as_its_reason() -> None:
    close = {"by": "client", "code": 4000, "reason": "\x1b]0;pwned\x07", "ago": 61.0}
    mailbox = {"head": 4, "waiting": 2, "uncommitted": 1}
    lines = describe_user(facts(online=False, devices=[], last_close=close, mailbox=mailbox))
    assert lines[1] == "  offline on worker 1, slot 512"
    assert lines[3] == "  mailbox     4 messages so far, 2 not acknowledged (1 of them not stored yet)"
    assert lines[4] == "  last close  4000 '\\x1b]0;pwned\\x07', by the client, 1m 1s ago"
    lost = {"by": "nobody", "code": 1006, "reason": "", "ago": 1.0}
    assert describe_user(facts(last_close=lost))[4] == "  last close  1006, lost, 1s ago"


def test_nobody() -> None:
    unknown = {"user": "bob", "worker": 0, "slot": 7, "known": False}
    assert describe_user(unknown) == ["bob has never been here; that would be on worker 0, slot 7"]


def test_settings() -> None:
    origins = [Origin("FASTCHAT_PORT", 8000, "default"), Origin("FASTCHAT_RUN_DIR", None, "flag")]
    assert describe_settings(origins) == [
        "setting           value  from",
        "FASTCHAT_PORT     8000   default",
        "FASTCHAT_RUN_DIR  -      flag",
    ]
