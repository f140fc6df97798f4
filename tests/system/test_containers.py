"""The server where containers put it: as process 1, and with less of the machine than there is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.core.process.test_cgroups import real_group
from tests.system.harness import PROJECT, READY, clean_environment, wait_until

pytestmark = pytest.mark.slow

MIB: Final = 2**20
_NAMESPACE: Final = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


class Contained:
    """``fastchat serve`` behind `prefix`, without make."""

    def __init__(self, directory: Path, prefix: list[str], settings: Mapping[str, object]) -> None:
        chosen = {"port": 0, "admin_port": 0, "data_dir": directory / "data", **settings}
        environment = {f"FASTCHAT_{name.upper()}": str(value) for name, value in chosen.items()}
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "router", "serve"],
                cwd=PROJECT,
                env=clean_environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        return self._output.read_text()

    def ready(self) -> re.Match[str]:
        """Wait for the ready line."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.output()
            return READY.search(self.output()) is not None

        wait_until(is_ready, "the server to be ready", 60)
        found = READY.search(self.output())
        assert found is not None
        return found


@contextmanager
def contained(directory: Path, prefix: list[str], **settings: object) -> Iterator[Contained]:
    server = Contained(directory, prefix, settings)
    try:
        yield server
    finally:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


def children(pid: int) -> dict[int, str]:
    """Process -> its state, as ps shows it; of those whose parent is `pid`."""
    found = {}
    for directory in Path("/proc").iterdir():
        with suppress(OSError):
            if directory.name.isdigit():
                state, parent, *_ = (directory / "stat").read_text().rpartition(")")[2].split()
                if int(parent) == pid:
                    found[int(directory.name)] = state
    return found


def test_as_process_1_it_reaps_whom_others_have_left(tmp_path: Path) -> None:
    """And goes on to see the ends of its own children."""
    if subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no PID namespace can be made here: that takes root")
    if shutil.which("nsenter") is None:
        pytest.skip("nsenter is not here")
    with contained(tmp_path, list(_NAMESPACE), workers=1, store="memory") as server:
        assert server.ready()["pid"] == "1"
        (first,) = children(server.process.pid)
        own = set(children(first))
        assert len(own) == 2, "a worker and a front"
        # The shell ends at once, and leaves to process 1 who it has started.
        command = "sleep 0.3 & sleep 0.4 & exit 0"
        subprocess.run(["nsenter", "-t", str(first), "-p", "-m", "sh", "-c", command], check=True)
        wait_until(lambda: len(children(first)) == 4, "the orphans to be children of process 1")
        wait_until(lambda: set(children(first)) == own, "the orphans to be reaped")
        front = max(own)
        os.kill(front, signal.SIGKILL)
        wait_until(lambda: "front 0 ended with signal SIGKILL" in server.output(), "its end to be seen")
        wait_until(lambda: len(children(first)) == 2 and front not in children(first), "another front", 30)


@contextmanager
def in_container(cpu_percent: int, mib: int) -> Iterator[list[str]]:
    """What to put before a command so that it has so much of a CPU and of memory."""
    limits = {
        "cpu/cpu.cfs_quota_us": str(cpu_percent * 1000),
        "cpu/cpu.max": f"{cpu_percent * 1000} 100000",
        "memory/memory.limit_in_bytes": str(mib * MIB),
        "memory/memory.max": str(mib * MIB),
    }
    with real_group(limits) as tasks:
        enter = "; ".join(f"echo $$ > {task}" for task in tasks)
        yield ["sh", "-c", f'{enter}; exec "$@"', "sh"]


@pytest.mark.slow
def test_in_a_small_container_it_takes_what_there_is(tmp_path: Path) -> None:
    """And says so."""
    with in_container(80, 256) as prefix, contained(tmp_path, prefix, store="memory") as server:
        assert server.ready()["workers"] == "1"
        assert re.search(
            r"this container may use 1 of \d+ CPUs and 256 of \d+ MiB of memory", server.output()
        )


@pytest.mark.slow
def test_in_a_small_container_workers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Rather than ended by the kernel again and again; and where it is only tight, the operator is told."""
    with in_container(400, 256) as prefix:
        with contained(tmp_path, prefix, workers=32) as server:
            assert server.process.wait(60) == 2
            assert "FASTCHAT_WORKERS: 32 workers do not even start in 256 MiB of memory" in server.output()
        with contained(tmp_path, prefix, workers=3, store="memory") as server:
            server.ready()
            assert "256 MiB of memory are little for 3 workers" in server.output()
