"""Tests of workers.__main__: a worker that cannot boot says why, and its exit code says who can help."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from core.process.control import REFUSED, decode_control
from core.process.settings import Settings
from tests.system.raw_client import PATIENCE
from tests.workers.process import PROJECT


def boot(**settings: object) -> tuple[int, dict[str, str], bytes]:
    """Start a worker with these settings; its exit code, what it said first, and what it logged."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(PATIENCE)
        number = theirs.fileno()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
        process = subprocess.run(
            [sys.executable, "-m", "workers", "--index=0", "--generations=1,1", f"--control={number}"],
            cwd=PROJECT,
            env=inherited | Settings(**cast(Any, settings)).environment(),
            pass_fds=[number],
            timeout=PATIENCE,
            capture_output=True,
        )
        return process.returncode, decode_control(ours.recv(65536)), process.stderr


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"auth": "jwt", "store": "memory"}, "FASTCHAT_JWT"),
        ({"data_dir": Path("/dev/null")}, "/dev/null"),
    ],
)
def test_what_the_operator_has_to_change_is_2(
    tmp_path: Path, settings: dict[str, object], reason: str
) -> None:
    code, said, logged = boot(**({"run_dir": tmp_path, "workers": 1} | settings))
    assert (code, said["op"], logged) == (2, REFUSED, b"")
    assert reason in said["reason"]


def test_what_the_system_refuses_is_3(tmp_path: Path) -> None:
    """Another process holds the name of the hand-over endpoint, as a directory, so that it cannot be opened."""
    (tmp_path / "handover-0").mkdir()
    code, said, logged = boot(run_dir=tmp_path, workers=1, store="memory")
    assert (code, said["op"], logged) == (3, REFUSED, b"")
    assert said["reason"]
