"""Tests of router.operator.cli and router.__main__: the program as operators call it, and what it never does to them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import pytest

from core.process.settings import FIELDS
from router.operator import cli
from tests.router.command import TIMEOUT, Done, environment, fastchat, process
from tests.router.front_process import hello, wait_until
from tests.router.server_process import FAKE_WORKER, ServerProcess

COMMANDS: Final = (
    *("serve", "status", "who", "kick", "ban", "unban", "delete"),
    *("drain", "reload", "log-level", "config"),
)
ALICE: Final = "11111111-1111-4111-8111-111111111111"
NOBODY: Final = "99999999-9999-4999-8999-999999999999"


def sentence(done: Done) -> str:
    """The sentence with which a command fails."""
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("fastchat: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("fastchat: ").rstrip("\n")


def refused(*words: str, **settings: object) -> str:
    """The sentence with which a command fails."""
    return sentence(fastchat(*words, **settings))


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """With real workers."""
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        ServerProcess(Path(name), workers=2) as server,
    ):
        yield server


@pytest.fixture
def admin(server: ServerProcess) -> tuple[str, str]:
    return ("--admin", f"http://127.0.0.1:{server.admin_port}")


# -- The program itself --


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_names_all_commands(words: list[str]) -> None:
    done = process(*words)
    assert done == fastchat(*words), "what this process would have said is what the other tests look at"
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)
    assert "..." not in done.stdout.replace("[ARGS]...", ""), "no explanation is cut off"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    done = fastchat(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"fastchat {command}" in done.stdout


def test_serve_lists_the_settings() -> None:
    shown = fastchat("serve", "--help").stdout
    assert all(f"--{name.replace('_', '-')} " in shown for name in FIELDS)


def test_the_version() -> None:
    done = fastchat("--version")
    assert (done.returncode, done.stdout.split()[0], len(done.stdout.split())) == (0, "fastchat", 2)


def test_a_command_that_there_is_not_and_one_with_too_few_words() -> None:
    done = fastchat("stats")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command" in done.stderr
    for words in (["who"], ["kick"], ["log-level"], ["who", "a", "b"], ["status", "--colour"]):
        done = fastchat(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Usage:" in done.stderr


def test_settings_without_a_command_are_told_where_they_belong() -> None:
    assert refused("--port", "9000") == "name a command first, as in: fastchat serve --port 9000"


def loaded_by(module: str) -> set[str]:
    """The packages that a module needs."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.slow
def test_a_server_loads_neither_the_command_line_nor_pydantic() -> None:
    """They take a third of the time in which a process starts; tools for development bring pydantic along."""
    programs = "router.__main__, router.supervisor.serve, router.front.__main__, workers.__main__, workers.store.__main__"
    assert not loaded_by(programs) & {"typer", "rich", "click", "pydantic"}


def test_help_loads_next_to_nothing() -> None:
    """What makes it slow; all of FastChat would be a quarter of a second."""
    assert not loaded_by("router.operator.cli") & {"aiohttp", "asyncio", "rich", "websockets"}


def test_a_bug_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("this can't be")

    monkeypatch.setattr(cli, "app", fail)
    assert cli.run(["status"]) == 70
    assert capsys.readouterr().err == "fastchat: bug: RuntimeError: this can't be\n"


@pytest.mark.parametrize(
    "words",
    [["--help"], ["config", "show"], pytest.param(["config", "show", "--json"], marks=pytest.mark.slow)],
)
def test_a_reader_who_has_seen_enough_is_no_error(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "router", *words],
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT,
    )
    os.close(writing)
    assert done.stderr == b""


def test_ctrl_c_is_quiet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        waiting = subprocess.Popen(
            [sys.executable, "-m", "router", "status", "--admin", url],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        silent.settimeout(TIMEOUT)
        client, _ = silent.accept()
        waiting.send_signal(signal.SIGINT)
        said, _ = waiting.communicate(timeout=TIMEOUT)
        client.close()
    assert (waiting.returncode, said) == (-signal.SIGINT, b"")


def test_a_terminal_that_cannot_show_a_name_shows_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "router", "config", "show", "--data-dir", "d\u00e4ten"],
        env=environment() | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0
    assert b"d\\xe4ten" in done.stdout


# -- A server that runs --


def test_the_status_as_a_table(server: ServerProcess, admin: tuple[str, str]) -> None:
    done = fastchat("status", *admin)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines if "/" not in line), "paths may be longer"
    assert f"is ready (ok), up {lines[0].split('up ')[1].split(',')[0]}, pid {server.process.pid}" in lines[0]
    assert lines[1] == f"  clients  ws://localhost:{server.port}/ws"
    # Advice may follow, after an empty line.
    rows = {line[:8].strip(): line.split() for line in takewhile(bool, lines[8:])}
    assert rows.keys() == {"worker 0", "worker 1", "front 0"}
    for name, row in rows.items():
        assert row[2:4] == ["ready", str(server.child(name))]
    slots = [int(rows[name][5]) for name in ("worker 0", "worker 1")]
    assert sum(slots) == 1024


def test_the_status_as_json(server: ServerProcess, admin: tuple[str, str]) -> None:
    done = fastchat("status", "--json", *admin)
    status = json.loads(done.stdout)
    assert (status["pid"], status["status"], status["reasons"]) == (server.process.pid, "ok", [])
    assert len(status["processes"]) == 3


@pytest.mark.slow
def test_the_run_directory_does_too_and_so_does_the_environment(server: ServerProcess) -> None:
    run_dir = server.get("/status")[1]["settings"]["run_dir"]
    for done in (
        fastchat("status", "--run-dir", run_dir),
        fastchat("status", "--run-dir", str(Path(run_dir).parent)),
        fastchat("status", run_dir=run_dir),
        fastchat("status", admin_port=server.admin_port),
    ):
        assert (done.returncode, done.stderr) == (0, "")
        assert str(server.process.pid) in done.stdout


def test_who_and_kick(server: ServerProcess, admin: tuple[str, str]) -> None:
    done = fastchat("who", ALICE, *admin)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"{ALICE} has never been here")
    with server.client() as client, server.client() as second:
        for each in (client, second):
            each.send(hello(ALICE))
            assert each.json()["type"] == "HELLO_ACK"
        done = fastchat("who", ALICE.upper(), *admin)
        assert done.returncode == 0
        assert f"({ALICE})\n  online on worker " in done.stdout
        assert done.stdout.count("connected for") == 2
        facts = json.loads(fastchat("who", ALICE, "--json", *admin).stdout)
        assert [device["address"][:10] for device in facts["devices"]] == ["127.0.0.1:"] * 2
        done = fastchat("kick", ALICE, *admin)
        assert (done.returncode, done.stdout) == (0, "2 connections closed\n")
        for each in (client, second):
            while (frame := each.frame())[0] != 8:
                assert frame[0] == 1
            assert frame[1] == (1008).to_bytes(2, "big") + b"closed by the operator"
    done = fastchat("kick", ALICE, *admin)
    assert (done.returncode, done.stdout) == (1, "0 connections closed\n")
    assert "1008 'closed by the operator', by the server" in fastchat("who", ALICE, *admin).stdout


def test_what_the_server_refuses(admin: tuple[str, str]) -> None:
    assert refused("who", "nobody", *admin) == "`user` must be UUID v4; it is 'nobody'"
    assert refused("kick", "a\x1b[2Jb", *admin) == "`user` must be UUID v4; it is 'a\\x1b[2Jb'"
    assert "'loud'" in refused("log-level", "loud", *admin)


def test_the_log_level_of_all_processes(server: ServerProcess, admin: tuple[str, str]) -> None:
    done = fastchat("log-level", "debug", *admin)
    assert (done.returncode, done.stdout) == (0, "the log level is debug\n")
    with server.client() as client:
        client.send(hello(ALICE))
        assert client.json()["type"] == "HELLO_ACK"
        wait_until(lambda: " DEBUG worker-" in server.stderr(), "a worker to log more")
    assert fastchat("log-level", "info", *admin).returncode == 0


@pytest.mark.slow
def test_a_server_that_is_not_ready(run_dir: Path) -> None:
    worker = FAKE_WORKER.format(boot="", served='say("stats", stats={"store_failing": options.index})')
    with ServerProcess(run_dir, worker=worker) as server:
        url = f"http://127.0.0.1:{server.admin_port}"
        wait_until(lambda: server.get("/readyz")[0] == 503, "the report to be there")
        done = fastchat("status", "--admin", url)
        assert (done.returncode, done.stderr) == (1, "")
        assert "is not ready (degraded)" in done.stdout
        assert "not ready:\n  worker 1: its store can't write" in done.stdout
        assert "problems:" not in done.stdout, "nothing is said twice"


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    tried = f"no server answers at http://localhost:{port} (connection refused)"
    for words in (["status"], ["who", ALICE], ["kick", ALICE], ["drain"], ["log-level", "info"]):
        assert refused(*words, admin_port=port) == tried


@pytest.mark.slow
def test_a_server_that_was_killed(run_dir: Path) -> None:
    with ServerProcess(run_dir, workers=1, store="memory") as server:
        where = server.get("/status")[1]["settings"]["run_dir"]
        left = set(server.descendants())
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in left), "the children to go")
        assert "has ended" in refused("status", "--run-dir", where)


# -- Settings --


def test_settings_that_are_right() -> None:
    done = fastchat("config", "check", "--workers", "3", port=9000)
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")


def test_settings_that_deserve_a_warning() -> None:
    done = fastchat("config", "check", "--host", "0.0.0.0", auth="none")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("warning: FASTCHAT_AUTH is none: every client that can connect")
    assert done.stdout.endswith("\nOK\n")


#: Settings with which no server starts, and words of the sentence that says so.
WRONG: Final[list[tuple[dict[str, Any], str]]] = [
    ({"host": "0.0.0.0"}, "lets other machines connect"),
    ({"prot": 1}, "FASTCHAT_PROT is not a setting; did you mean FASTCHAT_PORT?"),
    ({"workers": 0}, "FASTCHAT_WORKERS: "),
    (
        {"host": "no.such.name.invalid", "auth": "none"},
        "'no.such.name.invalid' is neither an IP address nor a host name",
    ),
    ({"port": 9000, "admin_port": 9000}, "both 9000: choose two different ports"),
    ({"allowed_origins": "https://a.example/path"}, "'https://a.example/path' is not an origin"),
]


@pytest.mark.parametrize(("settings", "words"), WRONG)
def test_settings_that_would_stop_the_server(settings: dict[str, Any], words: str) -> None:
    assert words in refused("config", "check", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [settings for settings, _ in WRONG])
def test_they_stop_the_server_with_the_same_sentence(settings: dict[str, Any]) -> None:
    assert sentence(process("serve", **settings)) == refused("config", "check", **settings)


def test_each_wrong_setting_is_a_sentence() -> None:
    done = fastchat("config", "check", "--port", "x", workers="many")
    assert done.returncode == 2
    assert [line[:18] for line in done.stderr.splitlines()] == ["fastchat: FASTCHAT"] * 2


def test_an_unknown_flag() -> None:
    for words in (["config", "check"], ["config", "show"], ["serve"]):
        done = fastchat(*words, "--prot", "1")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"fastchat {' '.join(words)}: error: " in done.stderr
        assert "--prot" in done.stderr


def test_where_settings_come_from() -> None:
    done = fastchat("config", "show", "--workers", "3", "--user-ids=any", port=9000)
    assert (done.returncode, done.stderr) == (0, "")
    shown = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert len(shown) == len(FIELDS)
    assert shown["FASTCHAT_PORT"] == ["9000", "environment"]
    assert shown["FASTCHAT_WORKERS"] == ["3", "flag"]
    assert shown["FASTCHAT_USER_IDS"] == ["any", "flag"]
    assert shown["FASTCHAT_HOST"] == ["localhost", "default"]


def test_settings_as_json() -> None:
    done = fastchat("config", "show", "--json", "--workers", "3")
    settings = json.loads(done.stdout)
    assert settings["FASTCHAT_WORKERS"] == {"value": 3, "from": "flag"}
    assert settings["FASTCHAT_RUN_DIR"] == {"value": None, "from": "default"}


# -- The tools of a data directory --


@pytest.mark.parametrize("tool", ["check", "export", "purge", "backup", "restore"])
def test_the_tools_of_a_data_directory_are_commands(tool: str) -> None:
    done = process(tool, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: fastchat {tool} ")


def test_a_tool_ends_as_it_does_by_itself(tmp_path: Path) -> None:
    done = process("check", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastchat: ")
