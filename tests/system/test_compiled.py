"""``make run`` on the core compiled to machine code, and on that of the sources where nothing can be compiled.

Nothing else compiles: the other tests of the whole say COMPILED=0, and `make test-compiled` runs them on a compiled core all the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.router import command
from tests.system.harness import (
    PROJECT,
    Server,
    ServerFailed,
    StartServer,
    clean_environment,
    ensure_installed,
    process_title,
    processes,
    wait_until,
)
from tests.system.status import status

pytestmark = pytest.mark.replaces


@pytest.fixture(scope="module")
def _compiled() -> None:
    """Compiling takes longer than a server may take to start."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (apt-get install gcc libc6-dev)")
    command = [sys.executable, "-m", "scripts.compiled_core"]
    subprocess.run(command, cwd=PROJECT, env=clean_environment(), check=True, timeout=500)


@pytest.mark.slow
@pytest.mark.usefixtures("_compiled")
def test_all_flows_on_a_compiled_core(start_server: StartServer) -> None:
    """With both kinds of processes that use it; and a process that is replaced, or killed, is followed by one that does too."""
    server = start_server(compiled=True)
    assert status(server)["core"] == "compiled"
    for _ in range(2):
        for name in ("front 0", "worker 0", "worker 1"):
            with open(f"/proc/{server.child(name)}/maps") as maps:
                assert "build/compiled/" in maps.read(), name
        assert command.fastchat("reload", "--admin", server.admin_url).returncode == 0
        wait_until(lambda: len(server.children()) == 3, "the front that has left to end")
    os.kill(server.child("worker 0"), signal.SIGKILL)

    def is_back() -> bool:
        told = status(server)
        return told["status"] == "ok" and any(process["restarts"] for process in told["processes"])

    wait_until(is_back, "a new worker")
    manual = [sys.executable, "scripts/manual_test.py", server.url]
    done = subprocess.run(manual, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("_compiled")
def test_what_was_compiled_is_used_again(start_server: StartServer) -> None:
    server = start_server(compiled=None, workers=1)
    told = status(server)
    assert (told["core"], told["core_advice"]) == ("compiled", None)
    assert "compiling" not in server.output()
    assert first_line(server).endswith("the core is compiled")


def first_line(server: Server) -> str:
    """What the supervisor logged first."""
    return next(line for line in server.output().splitlines() if " supervisor: " in line)


def test_compiled_0_leaves_the_core_as_it_is(server: Server) -> None:
    told = status(server)
    advice = "leave out COMPILED=0, and `make run` compiles the core"
    assert (told["core"], told["core_advice"]) == ("pure", advice)
    assert first_line(server).endswith(f'the core is pure reason="{advice}"')
    with open(f"/proc/{server.child('worker 0')}/maps") as maps:
        assert "build/compiled" not in maps.read()
    command = [".venv/bin/fastchat", "status", "--admin", server.admin_url]
    shown = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert "  core     pure\n" in shown
    assert f"to make the core faster:\n  {advice}\n" in shown


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["/nowhere/cc", "a compiler that fails"])
def test_make_run_starts_where_nothing_can_be_compiled(tmp_path: Path, compiler: str) -> None:
    cores = tmp_path / "cores"
    server = Server(tmp_path, workers=1, compiled=None)
    server._environment |= {"COMPILED_CORES": str(cores), "CC": compiler}
    if compiler != "/nowhere/cc":
        failing = tmp_path / "cc"
        failing.write_text("#!/bin/sh\nexit 1\n")
        failing.chmod(0o755)
        server._environment["CC"] = str(failing)
    with server:
        told = status(server)
        assert told["core"] == "pure"
        assert "a C compiler and Python's headers" in told["core_advice"]
        assert told["core_advice"] in first_line(server)
        if cores.exists():
            assert str(cores / "compile.log") in told["core_advice"]


def test_compiled_1_does_not_start_without_a_compiled_core(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=1, compiled=True)
    server._environment |= {"COMPILED_CORES": str(tmp_path / "cores"), "CC": "/nowhere/cc"}
    with pytest.raises(ServerFailed, match="COMPILED=1: there is no C compiler"):
        server.start()


@pytest.mark.slow
def test_a_wrong_setting_is_told_before_anything_is_compiled(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=1, compiled=None, log_level="loud")
    server._environment |= {"COMPILED_CORES": str(tmp_path / "cores")}
    with pytest.raises(ServerFailed, match="FASTCHAT_LOG_LEVEL") as failed:
        server.start()
    assert failed.value.exit_code == 2
    assert "compiling" not in failed.value.output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_make_run_can_be_stopped_while_it_compiles(tmp_path: Path, number: signal.Signals) -> None:
    """With a signal to the whole group, as a terminal sends it. Nothing is left, neither a process nor a build."""
    ensure_installed()
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] || exec sleep 300\n')
    compiler.chmod(0o755)
    environment = {"COMPILED_CORES": str(tmp_path / "cores"), "CC": str(compiler)}
    running = subprocess.Popen(
        ["make", "--no-print-directory", "run", "PORT=0", "ADMIN_PORT=0", f"DATA={tmp_path}/data"],
        cwd=PROJECT,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_until(lambda: b"sleep" in commands_of(running.pid), "the compiler to run", 30.0)
    os.killpg(running.pid, number)
    running.communicate(timeout=30)
    wait_until(lambda: not commands_of(running.pid), "all processes to be gone")
    assert [path for path in (tmp_path / "cores").iterdir() if path.is_dir()] == []


def commands_of(session: int) -> bytes:
    """The command lines of all processes of a session."""
    ours = [process.pid for process in processes().values() if process.session == session]
    return b"\n".join(process_title(pid).encode() for pid in ours)
