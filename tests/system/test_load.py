"""``make load`` against a real server: every kind of request is made and none fails, and what does fail makes it fail.

Also the shapes, several processes, locust's page, and people who come back when their worker was killed under them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.system.harness import PROJECT, StartServer, clean_environment, wait_until

pytestmark = pytest.mark.slow

#: What every run has to have made.
KINDS: Final = {
    "connect",
    "HELLO->HELLO_ACK",
    "OPEN_CHAT->CHAT_OPENED",
    "TYPING->delivered",
    "MSG->MSG_ACK",
    "MSG->delivered",
    "PING->PONG",
}
#: What there may be besides when connections were lost.
KINDS_AFTER_LOSSES: Final = {"reconnect", "MSG again->MSG_ACK", "MSG->delivered after reconnect"}


class Figures(NamedTuple):
    """What locust counted of one kind of request."""

    requests: int
    failures: int


def make_load(
    url: str, results: Path, users: int, seconds: int, shape: str = "", processes: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run it; `results` is the directory for its report."""
    command = ["make", "--no-print-directory", "load", f"USERS={users}", f"DURATION={seconds}", f"URL={url}"]
    command += [f"RESULTS={results}", f"SHAPE={shape}", f"PROCESSES={processes}"]
    if processes:  # locust's own port may be taken by another test
        command.append("ARGS=--master-bind-port {0} --master-port {0}".format(free_port()))
    return subprocess.run(
        command,
        cwd=PROJECT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def figures(table: str) -> dict[str, Figures]:
    """The name of a request -> locust's figures, from its CSV; without the sum of all."""
    return {
        row["Name"]: Figures(int(row["Request Count"]), int(row["Failure Count"]))
        for row in csv.DictReader(io.StringIO(table))
        if row["Name"] != "Aggregated"
    }


def figures_in(results: Path) -> dict[str, Figures]:
    return figures((results / "load_stats.csv").read_text())


def test_every_request_is_made_and_none_fails(start_server: StartServer, tmp_path: Path) -> None:
    """With the limits that a server has by default, since the load is to stay within them."""
    server = start_server(limits=True)
    results = tmp_path / "results"
    result = make_load(server.url, results, users=20, seconds=8)
    assert result.returncode == 0, result.stdout + result.stderr
    requests = figures_in(results)
    assert requests.keys() == KINDS
    for name, entry in requests.items():
        assert entry.requests >= 20, (name, entry)
        assert entry.failures == 0, (name, entry)
    assert f"report: {results / 'report.html'}" in result.stdout
    assert "OPEN_CHAT" in (results / "report.html").read_text()


def test_failures_are_seen(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(limits=True, messages_per_minute=1)
    result = make_load(server.url, tmp_path, users=2, seconds=5)
    assert result.returncode != 0
    requests = figures_in(tmp_path)
    assert requests["MSG->MSG_ACK"].failures > 0
    assert requests["HELLO->HELLO_ACK"].failures == 0
    assert "RATE_LIMITED" in (tmp_path / "load_failures.csv").read_text()


@pytest.mark.parametrize("processes", ["", "2"])
def test_no_server(tmp_path: Path, processes: str) -> None:
    # With several processes the users begin only once all of them are there.
    seconds = 6 if processes else 1
    result = make_load("ws://127.0.0.1:1/ws", tmp_path, users=2, seconds=seconds, processes=processes)
    assert result.returncode != 0
    assert result.stderr.count("never tried: HELLO->HELLO_ACK") == 1


def test_ramp(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(limits=True)
    result = make_load(server.url, tmp_path, users=10, seconds=6, shape="ramp")
    assert result.returncode == 0, result.stdout + result.stderr
    steps = [int(users) for users in re.findall(r"Shape test updating to (\d+) users", result.stderr)]
    # A busy machine may skip a step.
    assert steps == sorted(set(steps))
    assert len(steps) > 1
    assert set(steps) <= {2, 4, 6, 8, 10}


@pytest.mark.parametrize("processes", ["", "2"])
def test_storm(start_server: StartServer, tmp_path: Path, processes: str) -> None:
    """All connections break off, all come back, and no request fails: what was sent is acknowledged and arrives."""
    server = start_server(limits=True)
    result = make_load(server.url, tmp_path, users=20, seconds=6, shape="storm", processes=processes)
    assert result.returncode == 0, result.stdout + result.stderr
    requests = figures_in(tmp_path)
    assert requests.keys() - KINDS_AFTER_LOSSES == KINDS | {"storm->all back"}
    assert all(entry.failures == 0 for entry in requests.values()), requests
    storms = requests["storm->all back"].requests
    assert 1 <= storms <= 2
    assert requests["reconnect"].requests >= 20
    assert requests["reconnect"].requests <= storms * 40


class Page:
    """Locust's page, of a ``make load-ui`` that runs."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._open = build_opener(ProxyHandler({})).open

    def get(self, path: str) -> str:
        with self._open(f"{self._address}{path}", timeout=20) as response:
            assert response.status == 200
            text: str = response.read().decode()
            return text

    def swarm(self, users: int) -> None:
        """What the button to start does."""
        form = urlencode({"user_count": users, "spawn_rate": users}).encode()
        with self._open(f"{self._address}/swarm", data=form, timeout=20) as response:
            answer = json.load(response)
        assert answer["success"] is True, answer

    def figures(self) -> dict[str, Figures]:
        return figures(self.get("/stats/requests/csv"))

    def failures(self) -> list[dict[str, Any]]:
        return list(csv.DictReader(io.StringIO(self.get("/stats/failures/csv"))))


@contextmanager
def load_ui(url: str, directory: Path) -> Iterator[Page]:
    """``make load-ui`` on a free port, until it is not needed any more."""
    output = directory / "load-ui.txt"
    with output.open("wb") as file:
        # A session of its own: make's child is locust, and both are to end.
        process = subprocess.Popen(
            ["make", "--no-print-directory", "load-ui", "UI_PORT=0", f"URL={url}"],
            cwd=PROJECT,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = re.compile(r"^locust's page: (http://127\.0\.0\.1:\d+)$", re.MULTILINE)
        wait_until(
            lambda: bool(address.search(output.read_text())) or process.poll() is not None,
            "locust to have its page",
            timeout=30,
        )
        found = address.search(output.read_text())
        assert found is not None, output.read_text()
        yield Page(found[1])
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=40)


def test_killed_worker(start_server: StartServer, tmp_path: Path) -> None:
    """Started from locust's page. The users of the worker come back and talk on, the others keep their connections."""
    server = start_server(limits=True)
    with load_ui(server.url, tmp_path) as page:
        assert "<title>Locust" in page.get("/")
        page.swarm(20)
        wait_until(lambda: page.figures().keys() >= KINDS, "all kinds of requests", timeout=30)
        wait_until(
            lambda: page.figures()["HELLO->HELLO_ACK"].requests >= 40, "all users to be there", timeout=30
        )
        before = page.figures()
        assert before.keys() == KINDS
        assert all(entry.failures == 0 for entry in before.values()), before

        os.kill(server.child("worker 0"), signal.SIGKILL)
        wait_until(lambda: "reconnect" in page.figures(), "somebody to come back", timeout=60)
        back = page.figures()
        enough = back["MSG->delivered"].requests + 40
        wait_until(
            lambda: page.figures()["MSG->delivered"].requests >= enough, "the talk to go on", timeout=60
        )

        after = page.figures()
        assert after.keys() - KINDS_AFTER_LOSSES == KINDS
        assert after["reconnect"].failures == 0
        assert 0 < after["reconnect"].requests < 40
        # Only what was on its way to or from the worker that was killed.
        for failure in page.failures():
            assert re.search(r"connection lost|MESSAGE_FAILED|within", failure["Error"]), failure
