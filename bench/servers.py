"""The server under test: a real one, started as users start it, in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, Final

from bench.usage import cpu_seconds, resident_bytes
from router.operator.client import RunningServer
from router.operator.operations import RELOAD, RELOAD_PATIENCE, RESIZE, RESIZE_PATIENCE
from scripts.compiled_core import environment_for, find_or_build

#: Name -> settings.
STORES: Final = {
    "memory": {"STORE": "memory"},
    "os": {"STORE": "sqlite", "DURABILITY": "os"},
    "fsync": {"STORE": "sqlite", "DURABILITY": "fsync"},
}
#: Seconds between two scrapes, as in deploy/prometheus.
_SCRAPE_INTERVAL: Final = 5
#: Limits are counted, so that their cost is in, but nobody meets them.
_GENEROUS: Final = {
    "MESSAGES_PER_MINUTE": "600000",
    "OPEN_CHATS_PER_MINUTE": "60000",
    "HELLOS_PER_MINUTE": "60000",
    "PINGS_PER_SECOND": "0",
}


class Server:
    """A running server."""

    def __init__(self, url: str, admin: str, workers: int) -> None:
        self.url = url
        self.workers = workers
        self._admin = admin
        #: Name, such as ``worker 0``, -> process.
        status = self._status()
        self.pids = {f"{each['kind']} {each['index']}": int(each["pid"]) for each in status["processes"]}
        self.pids["supervisor"] = int(status["pid"])

    def stats(self, worker: int = 0) -> dict[str, Any]:
        """Return what a worker reported last, at most a second ago; by the names of ``core.process.metrics``."""
        return self.stats_of_workers()[worker]

    def stats_of_workers(self) -> list[dict[str, Any]]:
        """Return the same of all workers, as many as there are now."""
        return [dict(each["stats"]) for each in self._status()["processes"] if each["kind"] == "worker"]

    def process(self, name: str) -> int:
        """Return the process that has this name now, such as ``worker 0``."""
        reports = self._status()["processes"]
        found = (each for each in reports if f"{each['kind']} {each['index']}" == name)
        return int(next(found)["pid"])

    def setting(self, name: str) -> Any:
        """Return a setting as the server has it."""
        return self._status()["settings"][name]

    def reload(self) -> None:
        """Replace all workers and fronts. Raises Refused when one could not be."""
        RunningServer({}, self._admin).ask(RELOAD, RELOAD_PATIENCE)

    def resize(self, workers: int) -> None:
        """Change the number of workers. Raises Refused when it stays as it was."""
        RunningServer({}, self._admin).ask(RESIZE, RESIZE_PATIENCE, workers=workers)

    def cpu(self, kind: str = "") -> float:
        """Seconds that all processes have computed, or those of one kind."""
        return cpu_seconds(pid for name, pid in self.pids.items() if name.startswith(kind))

    def resident(self) -> int:
        """Bytes of memory in all processes."""
        return resident_bytes(self.pids.values())

    def get(self, path: str) -> bytes:
        """Return what the admin port answers."""
        with urllib.request.urlopen(f"{self._admin}{path}") as answer:  # noqa: S310 - our own server
            body: bytes = answer.read()
        return body

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.get("/status"))
        return status


@contextmanager
def watched(server: Server) -> Iterator[None]:
    """Ask a server what a dashboard and Prometheus ask it, as often as they do."""
    over = Event()

    def watch() -> None:
        latest, second = 0, 0
        while not over.wait(1.0):
            samples = json.loads(server.get(f"/dashboard/samples?step=1&after={latest}"))
            latest = samples["latest"]["1"]
            if second % _SCRAPE_INTERVAL == 0:
                server.get("/metrics")
            second += 1

    thread = Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def serving(
    store: str = "memory", workers: int = 1, *, compiled: bool = False, **settings: str
) -> Iterator[Server]:
    """Start a server with one of `STORES` and with settings by their names without ``FASTCHAT_``; stop it at the end.

    `compiled`: with the core compiled to machine code, as `make run` does. Raises Unavailable when it can't be compiled.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
    if compiled:
        environment |= environment_for(find_or_build())
    chosen = {"PORT": "0", "ADMIN_PORT": "0", "WORKERS": str(workers), "LOG_LEVEL": "warning"}
    chosen |= {**_GENEROUS, **STORES[store], **settings}
    with tempfile.TemporaryDirectory(prefix="fastchat-bench-", dir=".") as directory:
        environment["FASTCHAT_DATA_DIR"] = f"{directory}/data"
        environment |= {f"FASTCHAT_{name}": value for name, value in chosen.items()}
        command = [sys.executable, "-m", "router", "serve"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None, "a pipe"
            line = process.stdout.readline().split()
            if len(line) < 5:
                raise SystemExit("the server did not start")
            yield Server(line[2], line[4], workers)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
