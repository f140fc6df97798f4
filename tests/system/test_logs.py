"""The logs of a whole server: one event a line, nothing of what clients write, never too much, and nobody waits for them."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from core.placement import Placement
from core.process.log_throttle import KIND_MAX, WHO_MAX
from core.process.logs import FIELDS, LINE_MAX, REQUIRED
from tests.router.server_process import ServerProcess
from tests.system.harness import NO_LIMITS, StartServer, wait_until
from tests.system.raw_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    RawClient,
    client_frame,
    upgrade_request,
)

#: What must not be in any log, and how somebody would try to forge a line of it.
SECRET: Final = "s3cret"  # noqa: S105
FORGED: Final = f"{SECRET}\n2026-01-01T00:00:00.000Z ERROR forged: {SECRET} \x1b[2J\u202e\r\x00\x9b"
_TEXT_LINE: Final = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:DEBUG|INFO|WARNING|ERROR|CRITICAL)"
    r" (?:supervisor|prepare|front-\d+|worker-\d+) [a-z_.]+: "
    r'[^"\\=]+(?: [a-z_]+=(?:"(?:[^"\\]|\\.)*"|[^\s"=]+))*'
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """With a name that is short enough for sockets; pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="fastchat-") as name:
        yield Path(name)


def lines_of(server: ServerProcess, log_format: str, *, ended: bool = True) -> list[str]:
    """All lines of its log, each of which must be well-formed; while it runs the last one may be half there."""
    return well_formed(
        (server.directory / "stderr.txt").read_bytes().decode("ascii"), log_format, ended=ended
    )


def well_formed(logged: str, log_format: str, *, ended: bool) -> list[str]:
    """The lines of a log."""
    assert logged.isascii()
    lines = logged.split("\n")
    rest = lines.pop()
    assert not ended or rest == "", "the last line has no end"
    for line in lines:
        assert line.isprintable(), line
        assert len(line) < LINE_MAX
        if log_format == "json":
            event = json.loads(line)
            assert tuple(event)[: len(REQUIRED)] == REQUIRED
            assert event.keys() <= set(REQUIRED) | FIELDS.keys(), line
        else:
            assert _TEXT_LINE.fullmatch(line), line
    return lines


def events_of(server: ServerProcess, *, ended: bool = True) -> list[dict[str, Any]]:
    """The same of a log in JSON, read."""
    return [json.loads(line) for line in lines_of(server, "json", ended=ended)]


def start(directory: Path, **settings: Any) -> ServerProcess:
    """A server, without limits that would be in the way."""
    return ServerProcess(directory, **{**NO_LIMITS, "log_format": "json", **settings})


# -- What hostile clients do --


def _say_everything(port: int) -> None:
    """What is allowed, with the secret wherever a client may put text of its own."""
    other = str(uuid4())
    with RawClient.upgraded(port, other, SECRET) as bob, RawClient.upgraded(port, name=SECRET) as alice:
        bob.hello()
        alice.hello(capabilities=[SECRET, "receipts", "history", "resume"])
        alice.say("OPEN_CHAT", target_user_id=other, target_display_name=SECRET)
        alice.receive("CHAT_OPENED")
        alice.say("MSG", to=other, content=FORGED, message_id=SECRET)
        assert SECRET in bob.receive("MSG")["content"]
        bob.say("MSG_ACK", message_id=SECRET)
        alice.say("READ", message_id=SECRET, **{"from": other})
        alice.say("TYPING", is_typing=True)
        bob.receive("TYPING")
        alice.say("HISTORY", **{"with": other})
        alice.receive("HISTORY")
        alice.send(client_frame(PING, SECRET.encode()))
        alice.send(client_frame(CLOSE, struct.pack("!H", 4999) + SECRET.encode()))
        alice.closed()
        bob.reset()


def _break_rules(port: int) -> None:
    """What is not, on connections that have said HELLO."""
    wrong: list[tuple[str, dict[str, Any]]] = [
        (FORGED, {}),
        ("MSG", {"to": FORGED, "content": FORGED}),
        ("MSG", {"to": str(uuid4()), "content": FORGED, "message_id": FORGED}),
        ("TYPING", {"is_typing": FORGED}),
        ("OPEN_CHAT", {"target_user_id": FORGED, "target_display_name": FORGED}),
        ("MSG_ACK", {"message_id": FORGED}),
        ("HISTORY", {"with": FORGED, "before": FORGED}),
        ("HELLO", {"user_id": FORGED, "display_name": FORGED}),
        ("HELLO", {"user_id": str(uuid4()), "display_name": SECRET}),
    ]
    with RawClient.upgraded(port) as client:
        client.hello()
        for kind, data in wrong:
            client.say(kind, **data)
            client.receive("ERROR")
        client.send(client_frame(TEXT, f'{{"type": "{SECRET}'.encode()))
        client.receive("ERROR")
    secret = SECRET.encode()
    for frames in (
        client_frame(BINARY, secret),
        client_frame(TEXT, secret + b"\xff\xfe"),
        client_frame(TEXT, secret * 9999),
        client_frame(TEXT, secret, rsv=4),
        client_frame(TEXT, secret, mask=False),
        client_frame(0x3, secret),
        client_frame(CONTINUATION, secret),
        client_frame(CLOSE, b"\x03\xe8" + secret + b"\xff"),
        client_frame(TEXT, b'"' + secret + b'"') * 30,
    ):
        with RawClient.upgraded(port) as client:
            client.hello()
            client.send(frames)
            client.closed()
        with RawClient.upgraded(port) as client:
            client.send(frames)
            client.closed()
    with RawClient.upgraded(port) as client:
        for kind, data in wrong:
            client.say(kind, **data)
            if kind == "HELLO" and data["user_id"] != FORGED:
                break
            client.receive("ERROR")


def _send_no_http(port: int) -> None:
    """What is no request, or a request for what there is not."""
    raw = FORGED.encode()
    for request in (
        upgrade_request(Origin=f"http://{SECRET}.example"),
        upgrade_request(path=f"/ws?token={SECRET}", Sec_WebSocket_Key=SECRET),
        upgrade_request(X_Secret=f"{SECRET}\x1b[2J"),
        upgrade_request(Host=f"{SECRET}@"),
        upgrade_request(path=f"/{SECRET}%0a%1b"),
        raw + b"\r\n\r\n",
        b"GET /" + raw + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + raw + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + raw + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + raw + b"\r\n\r\n",
        b"\x16\x03\x01" + raw,
        SECRET.encode() + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), 10.0) as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while client.recv(65536):
                    pass


@pytest.mark.slow
@pytest.mark.attack("log injection")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_hostile_clients_forge_no_line_and_nothing_of_what_they_write_is_logged(
    start_server: StartServer, log_format: str
) -> None:
    """At debug level too, which has most to say."""
    server = start_server(log_format=log_format, log_level="debug")
    _say_everything(server.port)
    _break_rules(server.port)
    _send_no_http(server.port)
    admin_port = urlsplit(server.admin_url).port
    assert admin_port is not None
    _send_no_http(admin_port)
    # It is not silent about them either.
    for told in ("a client came", "a message was refused", "a request was refused", "closed by its client"):
        wait_until(lambda told=told: told in server.output(), f"the log to say: {told}")  # type: ignore[misc]
    for code in (1002, 1003, 1007, 1008, 1009):
        said = re.compile(rf'code={code}\b|"code":{code}\b')
        wait_until(lambda said=said: said.search(server.output()) is not None, f"code {code}")  # type: ignore[misc]
    ready, _, logged = server.output().partition("\n")
    assert ready.startswith("fastchat ready: ")
    lines = well_formed(logged, log_format, ended=False)
    assert not [line for line in lines if SECRET in line or "forged" in line]
    assert not [line for line in lines if re.search(r"\bbug\b|Traceback", line)]


@pytest.mark.slow
def test_one_name_follows_a_connection_through_front_and_worker(directory: Path) -> None:
    with start(directory, log_level="debug", workers=2) as server:
        ports = {}
        for _ in range(2):
            with RawClient.upgraded(server.port) as client:
                client.say("PONG")  # refused by the front
                client.receive("ERROR")
                client.hello()
                client.say("PONG")  # refused by the worker
                client.receive("ERROR")
                client.send(client_frame(BINARY, b""))
                client.closed()
                ports[client.user_id] = client.socket.getsockname()[1]
    names: dict[str, str] = {}
    for user, port in ports.items():
        told = [event for event in events_of(server) if event.get("address") == f"127.0.0.1:{port}"]
        (name,) = {event["connection"] for event in told}
        names[user] = name
        about = [event for event in events_of(server) if event.get("connection") == name]
        # Each process writes its lines when it comes to it.
        (front,) = [event for event in about if event["process"] == "front-0"]
        worker = [event for event in about if event["process"] == f"worker-{Placement(2).worker_of(user)}"]
        assert len(about) == 1 + len(worker)
        assert front["event"] == "a message was refused"
        assert [event["event"] for event in worker] == [
            *("a client came", "a message was refused", "a connection was closed by the server")
        ]
        assert "user" not in front
        assert {event["user"] for event in worker} == {user}
        assert (front["type"], front["error"]) == ("PONG", "UNAUTHORIZED")
        assert (worker[1]["type"], worker[1]["error"], worker[1]["field"]) == ("other", "VALIDATION", "type")
        assert (worker[2]["level"], worker[2]["code"]) == ("info", 1003)
    assert len(set(names.values())) == 2


# -- Floods --


@pytest.mark.slow
def test_a_flood_of_misbehaving_clients_is_a_bounded_number_of_lines(directory: Path) -> None:
    many = KIND_MAX + 40
    with start(directory, workers=1, store="memory") as server:
        for _ in range(many):
            with RawClient.upgraded(server.port) as client:
                client.hello()
                client.send(client_frame(BINARY, b""))
                client.closed()
        mallory = str(uuid4())
        for _ in range(20):
            with RawClient.upgraded(server.port, mallory) as client:
                client.hello()
                client.send(client_frame(TEXT, b"\xff"))
                client.closed()
        for _ in range(30):
            with RawClient.upgraded(server.port) as client:
                client.send(client_frame(TEXT, b"\xff"))
                client.closed()
    events = [event for event in events_of(server) if "connection was closed" in event["event"]]
    lines = Counter((e["process"], e["code"]) for e in events if "count" not in e)
    assert lines == {("worker-0", 1003): KIND_MAX, ("worker-0", 1007): WHO_MAX, ("front-0", 1007): WHO_MAX}
    summaries = {(e["process"], e["code"]): e["count"] for e in events if "count" in e}
    assert summaries == {
        ("worker-0", 1003): many - KIND_MAX,
        ("worker-0", 1007): 20 - WHO_MAX,
        ("front-0", 1007): 30 - WHO_MAX,
    }


# -- A standard error that takes nothing --


@contextmanager
def small_pipe(path: Path) -> Iterator[int]:
    """A named pipe that holds a page; the reading end, which nobody reads from unless the test does."""
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
        yield reading
    finally:
        with suppress(OSError):
            os.close(reading)


def _misbehave_and_chat(server: ServerProcess, misdeeds: int) -> float:
    """Flood the log from other connections while two users chat; the longest that one of them had to wait, in seconds."""
    longest = 0.0
    bob_id = str(uuid4())
    with ExitStack() as stack:
        alice = stack.enter_context(RawClient.upgraded(server.port))
        bob = stack.enter_context(RawClient.upgraded(server.port, bob_id))
        bob.hello()
        alice.hello()
        alice.say("OPEN_CHAT", target_user_id=bob_id, target_display_name="Bobby")
        alice.receive("CHAT_OPENED")
        for number in range(misdeeds):
            with RawClient.upgraded(server.port) as mallory:
                mallory.hello()
                for _ in range(5):
                    mallory.say("nothing")
                mallory.send(client_frame(BINARY, b""))
                mallory.closed()
            began = time.monotonic()
            alice.say("MSG", to=bob_id, content=str(number))
            bob.receive("MSG", content=str(number))
            longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.slow
@pytest.mark.parametrize(
    "standard_error", ["a pipe that nobody reads", "a broken pipe", "a full disk", "closed"]
)
def test_the_server_goes_on_whatever_standard_error_is(directory: Path, standard_error: str) -> None:
    path = directory / "pipe"
    redirect = {"a full disk": "2>/dev/full", "closed": "2>&-"}.get(standard_error, f"2>{path}")
    with small_pipe(path) as reading:
        with start(directory, workers=2, log_level="debug", first=f"exec {redirect};") as server:
            if standard_error == "a broken pipe":
                os.close(reading)
            assert _misbehave_and_chat(server, 40) < 5.0
            dead = server.child("worker 1")
            os.kill(dead, signal.SIGKILL)
            wait_until(lambda: server.status("worker 1")["restarts"] == 1, "the worker to be started again")
            wait_until(lambda: server.get("/status")[1]["status"] == "ok", "everybody to be there again")
            assert _misbehave_and_chat(server, 5) < 5.0
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 10.0
        if standard_error == "a pipe that nobody reads":
            # It was full, or nothing was tried here.
            logged = os.read(reading, 65536)
            assert len(logged) > 3000
            for line in logged.splitlines()[:-1]:
                assert json.loads(line).keys() >= set(REQUIRED)


# -- Levels --


def _ask(server: ServerProcess, **request: Any) -> dict[str, Any]:
    """The answer of the operator socket."""
    run_dir = server.get("/status")[1]["settings"]["run_dir"]
    with socket.socket(socket.AF_UNIX) as operator:
        operator.settimeout(10.0)
        operator.connect(f"{run_dir}/operator.sock")
        operator.sendall(json.dumps(request).encode() + b"\n")
        with operator.makefile() as answers:
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer


def _visit(server: ServerProcess, worker: int) -> str:
    """A client of this worker comes and goes; its user id."""
    placement = Placement(2)
    while placement.worker_of(user := str(uuid4())) != worker:
        pass
    with RawClient.upgraded(server.port, user) as client:
        client.hello()
        client.send(client_frame(CLOSE, b"\x03\xe8"))
        client.closed()
    return user


@pytest.mark.slow
def test_the_level_changes_in_all_processes_and_in_those_that_are_started_later(directory: Path) -> None:
    with start(directory, workers=2, log_level="warning") as server:

        def level() -> str:
            return str(server.get("/status")[1]["settings"]["log_level"])

        def debugged(worker: int) -> bool:
            _visit(server, worker)
            process = f"worker-{worker}"
            return any(
                event["process"] == process and event["level"] == "debug"
                for event in events_of(server, ended=False)
            )

        assert level() == "warning"
        quiet = _visit(server, 0)
        assert _ask(server, what="log_level", level="debug") == {"level": "debug"}
        assert level() == "debug"
        wait_until(lambda: debugged(0), "a worker to tell more")
        wait_until(lambda: debugged(1), "the other one too")
        os.kill(server.child("worker 0"), signal.SIGKILL)
        wait_until(lambda: server.status("worker 0")["restarts"] == 1, "the worker to be started again")
        later = _visit(server, 0)
        wait_until(
            lambda: any(event.get("user") == later for event in events_of(server, ended=False)),
            "the new one to tell as much",
        )
        assert "one of" in _ask(server, what="log_level", level="loud")["problem"]
        assert _ask(server, what="log_level", level="error") == {"level": "error"}
        assert level() == "error"
        os.kill(server.child("worker 0"), signal.SIGTERM)
        wait_until(lambda: server.status("worker 0")["restarts"] == 2, "the worker to be started again")
        silent = _visit(server, 0)
    events = events_of(server)
    assert not [event for event in events if event.get("user") in (quiet, silent)]
    assert any(event["process"] == "front-0" for event in events)


# -- A life --


@pytest.mark.slow
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_all_lines_of_a_life_are_events(directory: Path, log_format: str) -> None:
    with start(directory, workers=2, log_format=log_format, log_level="debug") as server:
        _visit(server, 0)
        os.kill(server.child("worker 1"), signal.SIGKILL)
        wait_until(lambda: server.status("worker 1")["restarts"] == 1, "the worker to be started again")
        _visit(server, 1)
        os.kill(server.child("front 0"), signal.SIGTERM)
        wait_until(lambda: server.status("front 0")["restarts"] == 1, "the front to be started again")
        wait_until(lambda: server.get("/status")[1]["status"] == "ok", "everybody to be there again")
        _visit(server, 0)
    lines = lines_of(server, log_format)
    told = "\n".join(lines)
    for sentence in (
        "worker 1 ended with signal SIGKILL",
        "worker 1 is back",
        "front 0 ended with exit code 0",
        "stopping",
    ):
        assert sentence in told


def test_why_a_server_does_not_start_is_an_event_too(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ServerProcess(directory, host="127.0.0.1", port=taken.getsockname()[1], log_format="json")
        code, _ = server.fails()
    assert code == 2
    (event,) = events_of(server)
    assert event["level"] == "critical"
    assert "is taken" in event["event"]
