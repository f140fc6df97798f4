"""Tests of router.operator.client: how a server is found, and what is said when there is none, or something else in its place."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from core.wire.codec import to_json
from router.operator import client as operator_client
from router.operator.client import Refused, RunningServer, Unreachable
from router.supervisor.run_directory import OPERATOR_SOCKET
from tests.router.server_process import ServerProcess

#: What `/status` of a server has that is in that run directory.
STATUS: Final = {"status": "ok", "version": "1", "pid": 1, "processes": []}


@pytest.fixture(autouse=True)
def _nothing_else_runs(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of whoever runs the tests do not get into the sentences."""
    monkeypatch.setattr(tempfile, "tempdir", str(run_dir))


@contextmanager
def listening(listener: socket.socket, answer: bytes, hang: bool = False) -> Iterator[None]:
    """Somebody who answers every connection the same way, or not at all."""
    held = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            held.append(client)
            if not hang:
                with suppress(OSError):  # who asked may have left
                    client.recv(65536)
                    client.sendall(answer)
                client.close()

    listener.listen()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        for client in held:
            client.close()


@contextmanager
def admin_port(body: bytes, status: bytes = b"200 OK", hang: bool = False) -> Iterator[str]:
    """The URL of something that answers like this."""
    listener = socket.create_server(("127.0.0.1", 0))
    head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    with listening(listener, head + body if status else body, hang):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def operator_socket(run_dir: Path, answer: bytes, hang: bool = False) -> Iterator[Path]:
    """A run directory in which something answers like this."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(run_dir / OPERATOR_SOCKET))
    with listening(listener, answer, hang):
        yield run_dir


def unreachable(**where: object) -> str:
    """The sentence when a server is asked that is named like this."""
    environ = where.pop("environ", {})
    with pytest.raises(Unreachable) as caught:
        RunningServer(environ, **where).ask("who", user="x")  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 400
    return sentence


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# -- The admin port --


def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert unreachable(admin=url) == f"no server answers at {url} (connection refused)"


def test_the_environment_names_the_admin_port() -> None:
    port = str(free_port())
    said = unreachable(environ={"FASTCHAT_ADMIN_PORT": port})
    assert said == f"no server answers at http://localhost:{port} (connection refused)"
    for everywhere in ("0.0.0.0", "::"):
        said = unreachable(environ={"FASTCHAT_ADMIN_PORT": port, "FASTCHAT_ADMIN_HOST": everywhere})
        assert f"http://localhost:{port}" in said
    said = unreachable(environ={"FASTCHAT_ADMIN_PORT": port, "FASTCHAT_ADMIN_HOST": "::1"})
    assert f"http://[::1]:{port}" in said


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8001",
        "8001",
        "https://localhost:8001",
        "http://localhost",
        "http://localhost:0",
        "http://localhost:99999",
        "http://localhost:x",
        "http://:8001",
        "http://localhost:8001/status",
        "http://[::1:8001",
        "http://local\x1bhost:8001",
        "http://" + "x" * 5000,
    ],
)
def test_what_is_no_address(url: str) -> None:
    assert unreachable(admin=url).startswith(
        "the server's admin port must be named as http://HOST:PORT, not as "
    )


def test_a_bad_port_in_the_environment() -> None:
    assert "http://HOST:PORT" in unreachable(environ={"FASTCHAT_ADMIN_PORT": "many"})
    assert "http://HOST:PORT" in unreachable(environ={"FASTCHAT_ADMIN_PORT": "0"})


def test_a_name_that_nobody_knows() -> None:
    assert "can't be resolved" in unreachable(admin="http://no.such.name.invalid:1")
    assert "can't be resolved" in unreachable(admin="http://a..b:1")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"hello", b"200 OK"),
        (b"[]", b"200 OK"),
        (b"{}", b"200 OK"),
        (b'{"status": "up"}', b"200 OK"),
        (b"nothing here", b"404 Not Found"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b""),
        (b"", b""),
        (b"\x00\xff" * 100, b""),
    ],
)
def test_something_else_on_that_port(body: bytes, status: bytes) -> None:
    with admin_port(body, status) as url:
        assert unreachable(admin=url) == f"the program that answers at {url} is not a FastChat server"


def test_something_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_client, "_PATIENCE", 0.2)
    with admin_port(b"", hang=True) as url:
        assert unreachable(admin=url) == f"the program that listens at {url} does not answer in time"


def test_a_server_that_does_not_know_itself_by_that_name() -> None:
    with admin_port(b"no", b"403 Forbidden") as url:
        assert "does not accept this host name" in unreachable(admin=url)


def test_a_server_that_is_just_starting() -> None:
    with admin_port(to_json({**STATUS, "settings": {"run_dir": None}})) as url:
        assert unreachable(admin=url) == f"the server at {url} is still starting: try again in a moment"


def test_a_server_on_another_machine(run_dir: Path) -> None:
    with admin_port(to_json({**STATUS, "settings": {"run_dir": "/no/such/place"}})) as url:
        assert f"of the server at {url}: run the command on the machine of that server" in unreachable(
            admin=url
        )
        assert RunningServer({}, url).status()["status"] == "ok"


# -- The run directory --


@pytest.mark.parametrize("below", ["", "run-12ab"])
def test_the_directory_that_was_set_and_the_one_in_it_do(run_dir: Path, below: str) -> None:
    (run_dir / below).mkdir(exist_ok=True)
    with operator_socket(run_dir / below, b'{"known":true}\n'):
        assert RunningServer({}, run_dir=run_dir).ask("who", user="x") == {"known": True}
        assert RunningServer({"FASTCHAT_RUN_DIR": str(run_dir)}).ask("who", user="x") == {"known": True}


def test_a_directory_without_a_server(run_dir: Path) -> None:
    assert unreachable(run_dir=run_dir) == f"no server has its operator socket in the run directory {run_dir}"
    missing = run_dir / "missing"
    assert unreachable(run_dir=missing) == (
        f"can't read the run directory {missing} (no such file or directory)"
    )


def test_a_socket_that_a_killed_server_left(run_dir: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(run_dir / OPERATOR_SOCKET))
    listener.close()
    path = run_dir / OPERATOR_SOCKET
    assert (
        unreachable(run_dir=run_dir)
        == f"no process listens on {path}: the server that created this socket has ended"
    )


def test_a_line_before_the_socket_is_stood_in(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody accepts there, and no more can wait."""
    monkeypatch.setattr(operator_client, "_PATIENCE", 0.3)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run_dir / OPERATOR_SOCKET))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(run_dir / OPERATOR_SOCKET))
            assert "does not answer on" in unreachable(run_dir=run_dir)


def test_a_file_in_its_place(run_dir: Path) -> None:
    (run_dir / OPERATOR_SOCKET).touch()
    assert "has ended" in unreachable(run_dir=run_dir) or "can't send" in unreachable(run_dir=run_dir)


def test_a_name_that_is_too_long_for_a_socket(run_dir: Path) -> None:
    deep = run_dir / ("x" * 120)
    deep.mkdir()
    (deep / OPERATOR_SOCKET).touch()
    assert "can't send a request to the server on" in unreachable(run_dir=deep)


@pytest.mark.parametrize("answer", [b"hello\n", b"[]\n", b"\xff\n"])
def test_something_else_on_that_socket(run_dir: Path, answer: bytes) -> None:
    with operator_socket(run_dir, answer):
        assert "is not a FastChat server" in unreachable(run_dir=run_dir)


@pytest.mark.parametrize("answer", [b"", b'{"known":'])
def test_a_server_that_ends_meanwhile(run_dir: Path, answer: bytes) -> None:
    with operator_socket(run_dir, answer):
        assert "ended before it answered" in unreachable(run_dir=run_dir)


@pytest.mark.slow
def test_a_server_that_hangs(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_client, "_PATIENCE", 0.2)
    with operator_socket(run_dir, b"", hang=True):
        assert "does not answer on" in unreachable(run_dir=run_dir)


def test_what_the_server_refuses_is_its_own_sentence(run_dir: Path) -> None:
    with operator_socket(run_dir, b'{"problem":"not today"}\n'), pytest.raises(Refused, match=r"^not today$"):
        RunningServer({}, run_dir=run_dir).ask("who", user="x")


def test_a_status_that_is_none_is_no_servers(run_dir: Path) -> None:
    with (
        operator_socket(run_dir, b'{"problem":"not today"}\n'),
        pytest.raises(Unreachable, match=r"is not a FastChat"),
    ):
        RunningServer({}, run_dir=run_dir).status()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_users_server(run_dir: Path) -> None:
    """Asked by somebody else, who is told; whose own socket would be is checked too, so that nobody can play the server."""
    program = f"""
import os
from pathlib import Path
from router.operator.client import RunningServer, Unreachable
os.setgid(65534); os.setuid(65534)  # who may not read the programs of whoever runs the tests
try:
    print(RunningServer({{}}, run_dir=Path({str(run_dir)!r})).ask("who", user="x"))
except Unreachable as problem:
    print(problem)
"""
    with operator_socket(run_dir, b"{}\n"):
        for directory, mode in ((0o700, 0o600), (0o755, 0o600), (0o755, 0o666)):
            run_dir.chmod(directory)
            (run_dir / OPERATOR_SOCKET).chmod(mode)
            environment = {**os.environ, "TMPDIR": "/nowhere"}
            asked = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=30
            )
            assert (
                "belongs to another user: run the command as the user who runs the server, or as root"
                in asked.stdout
            ), asked


@pytest.mark.slow
def test_a_server_that_runs_elsewhere_is_named(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerProcess(run_dir, workers=1, store="memory") as server:
        monkeypatch.setattr(tempfile, "tempdir", str(server.temporary))
        said = unreachable(admin=f"http://127.0.0.1:{free_port()}")
        where = server.temporary / f"fastchat-{os.geteuid()}" / str(server.port)
        assert said.endswith(
            f"; a server runs with the run directory {where}: select that server with --run-dir"
        )
        assert RunningServer({}, run_dir=where).status()["pid"] == server.process.pid
        # One that was killed is not named, though its socket is there still.
        dead = where.parent / "9" / "run-0000"
        dead.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(dead / OPERATOR_SOCKET))
        assert unreachable(admin=f"http://127.0.0.1:{free_port()}").endswith(
            f" {where}: select that server with --run-dir"
        )
        shutil.rmtree(dead.parent)
