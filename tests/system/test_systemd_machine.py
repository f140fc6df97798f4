"""The machine of namespaces in which the units run (``systemd_machine``): it comes and goes without a trace on this one."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.system.harness import PROJECT, clean_environment, processes, wait_until
from tests.system.systemd_machine import ADDRESS, Machine, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

#: Seconds in which something has to happen on a machine that is busy with other tests.
TIMEOUT: Final = 90.0
#: capabilities(7): SYS_MODULE, SYS_RAWIO, SYS_BOOT, SYS_TIME, AUDIT_WRITE, AUDIT_CONTROL, SYSLOG.
OF_THE_HOST: Final = sum(1 << number for number in (16, 17, 22, 25, 29, 30, 34))


#: What runs in a machine, and in none but these.
LASTING: Final = ("sleep", "98765.4321")


def traces(directory: Path, group: Path) -> list[str]:
    """What is left on this machine of one with this directory and control group. Others may run meanwhile."""
    mounts = Path("/proc/self/mountinfo").read_text()
    left = [line for line in mounts.splitlines() if str(directory) in line or group.name in line]
    left += [str(group)] if group.exists() else []
    for process in processes():
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        if words[:2] == list(LASTING) or str(directory) in words or str(group) in words:
            left.append(" ".join(words))
    return left


def test_a_machine_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither a process nor a mount nor a control group, while something runs in it; its name and address were never this one's."""
    name = socket.gethostname()
    machine = Machine(tmp_path)
    try:
        machine.start()
        machine.shell(
            f"{' '.join(LASTING)} >/dev/null 2>&1 & hostname changed; mkdir /srv /sys/fs/cgroup/more; mount -t tmpfs none /srv"
        )
        assert len(traces(tmp_path, machine.group)) >= 3
        assert machine.run("hostname").stdout == "changed\n"
        assert socket.gethostname() == name
        assert ADDRESS not in Path("/proc/net/fib_trie").read_text()
    finally:
        machine.stop()
    assert machine.init not in processes()
    assert traces(tmp_path, machine.group) == []


def test_a_machine_that_does_not_start_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was wrong is told."""
    monkeypatch.setattr("tests.system.systemd_machine._INNER", "echo out of order; exit 1")
    machine = Machine(tmp_path)
    try:
        with pytest.raises(AssertionError, match="out of order"):
            machine.start()
    finally:
        machine.stop()
    assert traces(tmp_path, machine.group) == []


def test_a_machine_ends_with_the_test_that_has_started_it(tmp_path: Path) -> None:
    """Also when that is killed."""
    program = (
        "import os, pathlib, sys; from tests.system.systemd_machine import Machine;"
        "machine = Machine(pathlib.Path(sys.argv[1])); machine.start();"
        "print(machine.init, machine.group, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    first, group = done.stdout.split()
    wait_until(lambda: int(first) not in processes(), "PID 1 to end", TIMEOUT)
    wait_until(lambda: traces(tmp_path, Path(group)) == [], "everything to be gone", TIMEOUT)


def test_what_is_the_hosts_can_not_be_changed_from_inside(tmp_path: Path) -> None:
    """Programs, sources, sysctl; and neither its PID 1 nor what a test runs in it may touch clock, modules, kernel log or auditing."""
    kept = Path("/proc/sys/vm/swappiness").read_text().strip()
    machine = Machine(tmp_path)
    try:
        machine.start()
        for words in (
            "touch /usr/changed",
            "touch /opt/fastchat/source/changed",
            "touch /opt/fastchat/packages/changed",
            f"echo {kept} >/proc/sys/vm/swappiness",
        ):
            assert "Read-only file system" in machine.run("/bin/sh", "-c", words, check=False).stderr
        for status in (
            Path(f"/proc/{machine.init}/status").read_text(),
            machine.shell("cat /proc/self/status"),
        ):
            found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
            assert found is not None
            assert int(found[1], 16) & OF_THE_HOST == 0
        assert not {"kmsg", "mem", "rtc0", "vda", "sda"} & set(machine.shell("ls -A /dev").split())
    finally:
        machine.stop()
