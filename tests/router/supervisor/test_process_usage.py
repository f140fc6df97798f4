"""Tests of router.supervisor.process_usage, with real processes."""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from router.supervisor.process_usage import ProcessUsage, Usage
from tests.router.front_process import TIMEOUT, wait_until


@contextmanager
def process(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has run the program, and then waits to be ended."""
    command = [sys.executable, "-c", f"import sys\n{program}\nprint(flush=True)\nsys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield running
        running.kill()


def read(pid: int) -> Usage:
    usage = ProcessUsage().read(pid)
    assert usage is not None
    return usage


def test_it_agrees_with_what_a_process_knows_of_itself() -> None:
    before = sum(os.times()[:2])
    usage = read(os.getpid())
    assert before - 0.02 <= usage.cpu_seconds <= sum(os.times()[:2]) + 0.02
    assert usage.open_fds == pytest.approx(len(os.listdir("/proc/self/fd")), abs=1)
    assert usage.max_fds == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # The kernel keeps the most there was a little less exactly than what there is.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 2**20 < usage.resident_bytes <= 1.1 * most


def test_what_a_process_uses_shows() -> None:
    """Memory, descriptors and CPU time of another process, all of which the test can reckon."""
    program = """
import os, time
block = b"x" * (64 << 20)
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
while sum(os.times()[:2]) < 0.3:
    pass
"""
    with process("") as idle, process(program) as busy:
        little, much = read(idle.pid), read(busy.pid)
    assert much.open_fds - little.open_fds == 100
    assert 60 << 20 < much.resident_bytes - little.resident_bytes < 80 << 20
    assert 0.28 <= much.cpu_seconds < 5
    assert little.cpu_seconds < much.cpu_seconds


def test_when_a_process_started() -> None:
    """In seconds since 1970, and the same however often it is asked."""
    before = time.time()
    with process("") as running:
        after = time.time()
        usage = ProcessUsage()
        first = usage.read(running.pid)
        assert first is not None
        # The kernel counts in hundredths.
        assert before - 0.05 <= first.started_at <= after + 0.05
        assert read(os.getpid()).started_at < first.started_at
        for _ in range(20):
            again = usage.read(running.pid)
            assert again is not None
            assert again.started_at == first.started_at


def test_a_lower_limit_shows() -> None:
    with process("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (123, 123))") as running:
        assert read(running.pid).max_fds == 123


@pytest.mark.parametrize("name", [") Z 1 2 3 (", "a b c", "((", "\t)"])
def test_no_name_of_a_process_misleads(name: str) -> None:
    """What stands in parentheses in its line may look like the fields that follow."""
    program = f"open('/proc/self/comm', 'w').write({name!r}); import os; os.close(os.open('/dev/null', 0))"
    with process(program) as running:
        usage = read(running.pid)
        assert usage.resident_bytes > 2**20
        assert usage.cpu_seconds < 60


def test_a_process_that_is_gone_uses_nothing() -> None:
    usage = ProcessUsage()
    with process("") as running:
        assert usage.read(running.pid) is not None
        running.kill()
        # Nobody has asked for its exit code yet, so the kernel still lists it.
        wait_until(lambda: usage.read(running.pid) is None, "the process to have ended", TIMEOUT)
        assert os.path.exists(f"/proc/{running.pid}")
    assert usage.read(running.pid) is None
    assert usage.read(2**22 + 1) is None


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Linux before 6.2, where the size of a directory of descriptors is 0; the directories that were listed."""
    stat: Callable[..., Any] = os.stat
    listdir: Callable[..., list[str]] = os.listdir
    listed: list[str] = []

    def old_stat(path: Any, *arguments: Any, **keywords: Any) -> Any:
        if re.fullmatch(r"/proc/\d+/fd", str(path)):
            return SimpleNamespace(st_size=0)
        return stat(path, *arguments, **keywords)

    def noted_listdir(path: Any) -> list[str]:
        listed.append(str(path))
        return listdir(path)

    monkeypatch.setattr(os, "stat", old_stat)
    monkeypatch.setattr(os, "listdir", noted_listdir)
    return listed


def test_an_old_kernel_is_asked_for_descriptors_now_and_then_only(old_kernel: list[str]) -> None:
    """Each costs something, and a worker may have 100,000."""
    usage = ProcessUsage(count_holds=3600)
    with process("") as first, process("") as second:
        counts = [usage.read(each.pid) for each in (first, second, first, second, first)]
        assert sorted(old_kernel) == sorted(f"/proc/{each.pid}/fd" for each in (first, second))
    assert all(each is not None and each.open_fds >= 3 for each in counts)


def test_an_old_kernel_is_asked_again_in_time(old_kernel: list[str]) -> None:
    usage = ProcessUsage(count_holds=0)
    before = usage.read(os.getpid())
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    after = usage.read(os.getpid())
    for file in files:
        os.close(file)
    assert before is not None
    assert after is not None
    assert after.open_fds - before.open_fds == 10
    assert len(old_kernel) == 2


def test_a_new_kernel_is_not_asked_to_list(monkeypatch: pytest.MonkeyPatch) -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if version < (6, 2):
        pytest.skip(f"Linux {platform.release()} does not count descriptors")

    def listdir(path: Any) -> list[str]:
        raise AssertionError(f"{path} was listed")

    expected = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "listdir", listdir)
    assert read(os.getpid()).open_fds == pytest.approx(expected, abs=1)
