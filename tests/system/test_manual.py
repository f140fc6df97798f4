"""``scripts/manual_test.py`` against a real server."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.system.harness import PROJECT, Server


def run_manual_test(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/manual_test.py", url],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_all_flows(server: Server) -> None:
    result = run_manual_test(server.url)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "All 10 steps went as expected." in result.stdout
    assert result.stderr == ""


def test_no_server() -> None:
    """A port that is bound and does not listen refuses, and no one else can take it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{bound.getsockname()[1]}/ws"
        result = run_manual_test(url)
    assert result.returncode == 2
    assert f"No FastChat server answers at {url}" in result.stderr
    assert "make run" in result.stderr
    assert "Traceback" not in result.stderr
