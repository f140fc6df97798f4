"""``make run`` as people use it: settings as its parameters, and the terminal that is closed."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from core.process.settings import FIELDS
from tests.system.harness import (
    MAKE_ERROR,
    PROJECT,
    READY,
    Server,
    clean_environment,
    ensure_installed,
    processes,
    wait_until,
)
from tests.system.raw_client import RawClient
from tests.system.status import status

FREE_PORTS: Final = ("PORT=0", "ADMIN_PORT=0", "WORKERS=1", "COMPILED=0")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What make says that ends by itself."""
    ensure_installed()
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=PROJECT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


# -- Parameters --


def test_every_setting_is_a_parameter(tmp_path: Path) -> None:
    """And gets to the server as it stands, dollar signs included."""
    (tmp_path / "makefile").write_text(f"include {PROJECT}/Makefile\nrun: ; @env -0\n")
    values = {name.upper(): f"{name} a$b $(c)" for name in FIELDS}
    told = make(
        "-f", str(tmp_path / "makefile"), "run", *(f"{name}={value}" for name, value in values.items())
    )
    environment = dict(line.partition("=")[::2] for line in told.stdout.split("\0"))
    assert {name: environment.get(f"FASTCHAT_{name}") for name in values} == values


def test_tokens_are_wanted_when_they_were_asked_for() -> None:
    """It must not start without authentication; without a key it does not start at all."""
    ended = make("run", "AUTH=jwt", *FREE_PORTS)
    assert "tokens need a key" in ended.stderr
    assert MAKE_ERROR.search(ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameter", "meant"),
    [
        ("WORKER=8", "FASTCHAT_WORKERS"),
        ("port=9000", "FASTCHAT_PORT"),
        ("LOGLEVEL=debug", "FASTCHAT_LOG_LEVEL"),
        ("FASTCHAT_STOR=memory", "FASTCHAT_STORE"),
    ],
)
def test_a_slip_is_refused_and_the_name_that_was_meant_is_told(parameter: str, meant: str) -> None:
    ended = make("run", parameter)
    failed = MAKE_ERROR.search(ended.stderr)
    assert failed is not None
    assert failed["code"] == "2"
    assert f"did you mean {meant}?" in ended.stderr


@pytest.mark.parametrize("task", ["load", "fuzz", "manual", "test", "check"])
def test_other_tasks_refuse_what_they_do_not_take(task: str) -> None:
    ended = make(task, "USER=50")
    assert ended.returncode == 2
    assert f"make {task} does not know USER" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.slow
def test_parameters_win_over_the_environment(tmp_path: Path) -> None:
    server = Server(tmp_path, store="sqlite", presence="everyone")
    server._command += ["STORE=memory", "FASTCHAT_PRESENCE=contacts"]
    with server:
        settings = status(server)["settings"]
        assert (settings["store"], settings["presence"]) == ("memory", "contacts")


# -- The terminal --


@pytest.mark.slow
def test_a_closed_terminal_ends_the_server_in_order(tmp_path: Path) -> None:
    """SIGHUP to the group of `make run`: clients are told 1001, the port is free, nothing is left."""
    with Server(tmp_path) as server:
        with RawClient.upgraded(server.port) as client:
            client.hello()
            session = processes()[server.pid].session
            os.killpg(session, signal.SIGHUP)
            assert client.closed()[0] == 1001
        server.wait()
        assert [process for process in processes().values() if process.session == session] == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 10)
    assert "Traceback" not in server.output()


def test_sighup_to_the_server_alone_reads_the_keys_again(server: Server) -> None:
    """As `kill -HUP` and `systemctl reload` mean it; without tokens there is nothing to read, and it goes on."""
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: "SIGHUP" in server.output(), "the server to say what it does about SIGHUP")
    with RawClient.upgraded(server.port) as client:
        client.hello()


def terminal_of(pid: int) -> int:
    """Device number of a process's controlling terminal, 0 when it has none."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


class Terminal:
    """A command that runs in a terminal of its own, until that is closed."""

    def __init__(self, directory: Path, command: list[str]) -> None:
        ensure_installed()
        environment = clean_environment() | {
            "FASTCHAT_PORT": "0",
            "FASTCHAT_ADMIN_PORT": "0",
            "FASTCHAT_WORKERS": "1",
            "FASTCHAT_DATA_DIR": str(directory / "data"),
        }
        self._read = b""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.chdir(PROJECT)
            os.execvpe(command[0], command, environment)  # noqa: S606 - a command of the test's own
        os.set_blocking(self._screen, False)

    def shown(self) -> str:
        with suppress(OSError):
            self._read += os.read(self._screen, 1 << 16)
        return self._read.decode(errors="replace").replace("\r\n", "\n")

    def ready(self) -> int:
        """The supervisor's process number, once it is ready."""
        wait_until(lambda: READY.search(self.shown()) is not None, "the ready line", 60.0)
        found = READY.search(self.shown())
        assert found is not None
        return int(found["pid"])

    def close(self) -> None:
        os.close(self._screen)

    def left(self) -> list[str]:
        """Processes of the terminal's session that still run."""
        return [str(process) for process in processes().values() if process.session == self.pid]

    def reap(self) -> None:
        deadline = time.monotonic() + 20
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            assert time.monotonic() < deadline, self.left()
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["make", "--no-print-directory", "run", "COMPILED=0"], [".venv/bin/fastchat", "serve"]],
    ids=["make run", "fastchat serve"],
)
def test_hanging_up_a_real_terminal(tmp_path: Path, command: list[str]) -> None:
    terminal = Terminal(tmp_path, command)
    terminal.ready()
    terminal.close()
    terminal.reap()
    wait_until(lambda: not terminal.left(), "the processes of the terminal to be gone")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["nohup", "make", "--no-print-directory", "run", "COMPILED=0"],
        ["nohup", ".venv/bin/fastchat", "serve"],
    ],
    ids=["make run", "fastchat serve"],
)
def test_nohup_keeps_it_running(tmp_path: Path, command: list[str]) -> None:
    log = tmp_path / "output.txt"
    terminal = Terminal(tmp_path, ["sh", "-c", f'exec "$@" >{log} 2>&1', "sh", *command])
    wait_until(lambda: log.exists() and READY.search(log.read_text()) is not None, "the ready line", 60.0)
    ready = READY.search(log.read_text())
    assert ready is not None
    terminal.close()
    try:
        wait_until(lambda: terminal_of(int(ready["pid"])) == 0, "the terminal to be gone")
        with RawClient.upgraded(int(ready["port"])) as client:
            client.hello()
    finally:
        os.kill(int(ready["pid"]), signal.SIGTERM)
    terminal.reap()
    wait_until(lambda: not terminal.left(), "the processes of the terminal to be gone")
