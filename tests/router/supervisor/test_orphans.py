"""router.supervisor.orphans: what others have left to this process is reaped, and its own children are not (as process 1)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
#: Becomes the parent of orphans, as process 1 is, and gets two of them and two children of its own, one of which has ended.
PROGRAM = """
import ctypes, os, subprocess, sys, time
from router.supervisor.orphans import reap_orphans
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
assert reap_orphans([]) == 0, "no children"
for _ in range(2):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.05)
            os._exit(9)
        os._exit(0)
    os.wait()
running = subprocess.Popen(["sleep", "60"])
reaped = 0
while reaped < 2:
    reaped += reap_orphans([running.pid])
ended = subprocess.Popen(["sh", "-c", "exit 7"])
os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
assert reap_orphans([running.pid, ended.pid]) == 0
assert ended.wait() == 7, "its exit code is still there"
assert running.poll() is None
running.kill()
running.wait()
"""


def test_orphans_are_reaped_and_own_children_are_not() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=PROJECT, check=True, timeout=60)
