"""A reconnect storm: 5,000 clients drop and return at once, all are back within 10 s, and nothing is left between the processes."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

import pytest

from tests.system.harness import PROJECT, Server, StartServer, wait_until
from tests.system.status import descriptors, sockets, status

pytestmark = pytest.mark.slow

CLIENTS: Final = 5000
#: Those who stay: the bystanders.
PAIR: Final = 2


class Storm:
    """The process with all the clients (`tests.system.storm_client`)."""

    def __init__(self, server: Server, clients: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.storm_client", f"{server.port}", f"{clients}"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    def do(self, command: str) -> float:
        """Let it do something; the number that it answers with."""
        self._in.write(f"{command}\n")
        self._in.flush()
        answer = self._out.readline()
        assert answer, f"the clients failed to {command}; their traceback is among what was captured"
        return float(answer)

    def close(self) -> None:
        self._in.close()
        self._process.wait(30.0)
        self._out.close()


@contextmanager
def storm(server: Server, clients: int) -> Iterator[Storm]:
    process = Storm(server, clients)
    try:
        yield process
    finally:
        process.close()


def total(server: Server, kind: str, *names: str) -> int:
    """The sum of these figures over all fronts, or workers; a name stands for all figures that begin with it."""
    figures: list[dict[str, Any]] = [p["stats"] for p in status(server)["processes"] if p["kind"] == kind]
    return sum(value for stats in figures for name, value in stats.items() if name.startswith(names))


def nothing_in_between(server: Server) -> bool:
    """No socket is in the handshake, in the lobby, waits for a worker or is on its way to one."""
    between = ("front_handshakes", "front_lobby", "front_waiting", "front_in_flight", "front_lingering")
    return total(server, "front", *between) == 0


@pytest.mark.attack("reconnect storm")
@pytest.mark.parametrize("fronts", [1, 2])
def test_5000_clients_drop_and_return(start_server: StartServer, fronts: int) -> None:
    """Twice; next to a pair that was there before and stays."""
    needed = CLIENTS + 1000
    if (allowed := resource.getrlimit(resource.RLIMIT_NOFILE)[1]) < needed:
        pytest.skip(f"{needed} file descriptors are needed and {allowed} are allowed: ulimit -Hn")
    server = start_server(fronts=fronts, host="127.0.0.1")
    with storm(server, CLIENTS) as clients:
        before = weather(server, clients)
        clients.do("drop")

    def as_before() -> bool:
        now = descriptors(server)
        return sum(sockets(server).values()) == PAIR and all(now[title] <= before[title] for title in before)

    wait_until(as_before, f"descriptors and sockets to return to their level, {before}", 30.0)
    assert len(status(server)["processes"]) == 2 + fronts
    assert sum(process["restarts"] for process in status(server)["processes"]) == 0


def weather(server: Server, clients: Storm) -> dict[str, int]:
    """All storms; the clients are connected afterwards. The descriptors that each process had when none was."""
    clients.do("connect")
    clients.do("drop")
    wait_until(lambda: sum(sockets(server).values()) == PAIR, "the first storm to pass", timeout=30.0)
    before = descriptors(server)
    for _ in range(2):
        clients.do("connect")
        assert clients.do("count") == CLIENTS
        clients.do("drop")
    clients.do("connect")
    clients.do("ping")
    wait_until(lambda: nothing_in_between(server), "the fronts to have handed everything over", timeout=60.0)
    wait_until(
        lambda: total(server, "worker", "sessions") == CLIENTS + PAIR,
        "each client to be one session",
        timeout=60.0,
    )
    assert total(server, "worker", "handover_truncated_total") == 0
    held = sockets(server)
    assert sum(count for title, count in held.items() if "worker" in title) == CLIENTS + PAIR
    assert sum(count for title, count in held.items() if "front" in title) == 0
    return before
