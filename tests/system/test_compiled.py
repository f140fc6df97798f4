"""``make run COMPILED=1``: the core compiled to machine code serves as the other does. `make test-compiled` tests the core itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.system.harness import PROJECT, StartServer, clean_environment, wait_until
from tests.system.status import status

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def _compiled() -> None:
    """Compiling takes longer than a server may take to start."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (apt-get install gcc libc6-dev)")
    command = ["make", "--silent", "build/compiled/.done"]
    subprocess.run(command, cwd=PROJECT, env=clean_environment(), check=True, timeout=500)


@pytest.mark.usefixtures("_compiled")
def test_all_flows_on_a_compiled_core(start_server: StartServer) -> None:
    """With both kinds of processes that use it; and a worker that is killed is replaced by one that does too."""
    server = start_server(compiled=True)
    assert status(server)["core"] == "compiled"
    for name in ("front 0", "worker 0", "worker 1"):
        with open(f"/proc/{server.child(name)}/maps") as maps:
            assert "build/compiled/core" in maps.read(), name
    os.kill(server.child("worker 0"), signal.SIGKILL)

    def is_back() -> bool:
        told = status(server)
        return told["status"] == "ok" and any(process["restarts"] for process in told["processes"])

    wait_until(is_back, "a new worker")
    command = [sys.executable, "scripts/manual_test.py", server.url]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_it_the_core_is_what_stands_in_the_sources(start_server: StartServer) -> None:
    server = start_server(workers=1)
    assert status(server)["core"] == "python"
    with open(f"/proc/{server.child('worker 0')}/maps") as maps:
        assert "build/compiled" not in maps.read()
