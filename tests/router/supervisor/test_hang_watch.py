"""router.supervisor.hang_watch in a real server whose workers stop beating. Those of a real worker are in tests/system/test_hangs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.router.front_process import TIMEOUT, wait_until
from tests.router.server_process import FAKE_WORKER, ServerProcess

#: Worker 0 runs in an endless loop and worker 1 sleeps, both without beats; the next process of worker 1 is well.
SILENT = """
def beat():
    pass
again = os.path.exists(os.path.join(notes, f"worker-{options.index}-again"))
open(os.path.join(notes, f"worker-{options.index}-again"), "w").close()
if again:
    def beat():
        while True:
            say("beat")
            time.sleep(0.5)
"""
SERVED = """
while options.index == 0: pass
"""


@pytest.mark.slow
def test_who_sleeps_is_replaced_and_who_works_is_told_of(directory: Path) -> None:
    with ServerProcess(directory, worker=FAKE_WORKER.format(boot=SILENT, served=SERVED)) as server:
        working = server.status("worker 0")["pid"]

        def sleeper() -> dict[str, Any]:
            return server.status("worker 1")

        wait_until(lambda: sleeper()["restarts"] == 1 and sleeper()["state"] == "ready", "another", TIMEOUT)
        last_end = sleeper()["last_end"]
        assert last_end.startswith("signal SIGKILL, since its event loop has made no turn for ")
        assert last_end.endswith(" s: it sleeps and does nothing")
        assert "worker 1 hangs and is killed: its event loop" in server.stderr()
        wait_until(lambda: server.status("worker 0")["problem"] is not None, "the problem of worker 0")
        now = server.status("worker 0")
        assert (now["pid"], now["restarts"]) == (working, 0)
        assert now["problem"].endswith("it uses CPU time, in an endless loop perhaps")
        server.kill()
