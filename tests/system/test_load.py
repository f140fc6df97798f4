"""``make load`` against a real server: every kind of request is made and none fails, and what does fail makes it fail."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.system.harness import PROJECT, StartServer, clean_environment


def make_load(url: str, report: Path, users: int, seconds: int) -> subprocess.CompletedProcess[str]:
    """Run it; `report` is where locust is to write its figures, without the suffix .json."""
    command = ["make", "--no-print-directory", "load", f"USERS={users}", f"DURATION={seconds}", f"URL={url}"]
    return subprocess.run(
        [*command, f"ARGS=--json-file {report}"],
        cwd=PROJECT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def figures(report: Path) -> dict[str, dict[str, Any]]:
    """Locust's figures by the name of the request."""
    return {entry["name"]: entry for entry in json.loads(Path(f"{report}.json").read_text())}


def test_every_request_is_made_and_none_fails(start_server: StartServer, tmp_path: Path) -> None:
    """With the limits that a server has by default, since the load is to stay within them."""
    server = start_server(limits=True)
    result = make_load(server.url, tmp_path / "report", users=20, seconds=8)
    assert result.returncode == 0, result.stdout + result.stderr
    requests = figures(tmp_path / "report")
    assert requests.keys() == {
        "connect",
        "HELLO->HELLO_ACK",
        "OPEN_CHAT->CHAT_OPENED",
        "TYPING->delivered",
        "MSG->MSG_ACK",
        "MSG->delivered",
        "PING->PONG",
    }
    for name, entry in requests.items():
        assert entry["num_requests"] >= 20, (name, entry)
        assert entry["num_failures"] == 0, (name, entry)


def test_failures_are_seen(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(limits=True, messages_per_minute=1)
    result = make_load(server.url, tmp_path / "report", users=2, seconds=5)
    assert result.returncode != 0
    requests = figures(tmp_path / "report")
    assert requests["MSG->MSG_ACK"]["num_failures"] > 0
    assert requests["HELLO->HELLO_ACK"]["num_failures"] == 0


def test_no_server(tmp_path: Path) -> None:
    result = make_load("ws://127.0.0.1:1/ws", tmp_path / "report", users=1, seconds=1)
    assert result.returncode != 0
    assert "never tried: HELLO->HELLO_ACK" in result.stderr
