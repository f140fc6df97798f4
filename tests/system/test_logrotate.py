"""``deploy/logrotate/fastchat`` on the log of a real server that writes to a file."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.system.harness import PROJECT, READY, START_TIMEOUT, STOP_TIMEOUT, clean_environment, wait_until

SHIPPED: Final = PROJECT / "deploy" / "logrotate" / "fastchat"
#: What the server logs for each SIGHUP.
LINE: Final = "SIGHUP"


def find_logrotate() -> str | None:
    """Debian installs it where only root's PATH leads."""
    return shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin")


@pytest.mark.slow
@pytest.mark.skipif(find_logrotate() is None, reason="logrotate is not installed (apt-get install logrotate)")
def test_the_log_is_rotated_while_the_server_writes(tmp_path: Path) -> None:
    log = tmp_path / "fastchat.log"
    text = SHIPPED.read_text()
    assert text.count("/var/log/fastchat/fastchat.log {") == 1
    rules = tmp_path / "rules"
    rules.write_text(text.replace("/var/log/fastchat/fastchat.log {", f"{log} {{"))
    rules.chmod(0o644)
    settings = {"PORT": "0", "ADMIN_PORT": "0", "WORKERS": "1", "STORE": "memory"}
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [".venv/bin/fastchat", "serve"],
            cwd=PROJECT,
            env=clean_environment() | {f"FASTCHAT_{name}": value for name, value in settings.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
        assert readable
        assert READY.search(os.read(process.stdout.fileno(), 4096).decode()), log.read_text()
        for rotation in (1, 2):
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: LINE in log.read_text(), "the line to be in the log")
            before = log.read_text()
            rotate = [find_logrotate() or "", "--force", "--state", str(tmp_path / "state"), str(rules)]
            done = subprocess.run(rotate, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, "")
            assert (tmp_path / "fastchat.log.1").read_text() == before
            assert log.read_bytes() == b"", f"rotation {rotation}"
        # It goes on at the beginning: a file that was not opened for appending would have a hole there.
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: LINE in log.read_text(), "the line to be in the new log")
        assert b"\0" not in log.read_bytes()
        assert (tmp_path / "fastchat.log.2.gz").exists()
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT)
        process.stdout.close()
