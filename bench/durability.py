"""What durability costs: the same load with `fsync`, with `os`, and with the store in memory. ``make bench`` runs it.

Starts a server with one worker for each, in a directory of its own, and lets 50 pairs chat: closed loops with 1, 8 and 32 messages of
each sender unacknowledged, and 5,000 messages a second whatever comes back. The stores take turns, so that what else the machine does
hits all of them.

For each load it prints the acknowledged messages a second, the worker's CPU (all threads) for each of them and beside that with the store
in memory, how many of them a whole core would carry, the time from MSG to MSG_ACK, the time of a commit and its rows, and the longest
turn of the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final, NamedTuple

import uvloop

from bench.chatter import Chatter, percentile

#: Name -> settings.
STORES: Final = {
    "memory": {"FASTCHAT_STORE": "memory"},
    "os": {"FASTCHAT_STORE": "sqlite", "FASTCHAT_DURABILITY": "os"},
    "fsync": {"FASTCHAT_STORE": "sqlite", "FASTCHAT_DURABILITY": "fsync"},
}
_UNLIMITED: Final = (
    "MESSAGES_PER_MINUTE",
    "OPEN_CHATS_PER_MINUTE",
    "HELLOS_PER_MINUTE",
    "PINGS_PER_SECOND",
)
#: Seconds before each measurement, for caches and the pacing of commits to come to what they will be.
_WARM_UP: Final = 1.0
#: Seconds between two reports of a worker.
_REPORT: Final = 1.0
#: Times are in milliseconds where they are not in us.
_COLUMNS: Final = (
    "       load",
    "  store",
    "  msg/s",
    "us/msg",
    "x memory",
    "msg/s/core",
    "core %",
    "ack p50",
    "  p99",
    "commit p50",
    "  p99",
    "rows",
    "longest turn",
    "  max",
)


class Server:
    """A running server with one worker."""

    def __init__(self, url: str, admin: str) -> None:
        self.url = url
        self._admin = admin
        worker = self._worker()
        self._pid = int(worker["pid"])

    def stats(self) -> dict[str, float]:
        """What the worker reported last, at most a second ago."""
        return dict(self._worker()["stats"])

    def cpu(self) -> float:
        """Seconds that all threads of the worker have computed."""
        nanoseconds = 0
        for thread in Path(f"/proc/{self._pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def _worker(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._admin}/status") as answer:  # noqa: S310 - our own server
            processes: list[dict[str, Any]] = json.load(answer)["processes"]
        return next(process for process in processes if process["kind"] == "worker")


@contextmanager
def serving(settings: dict[str, str]) -> Iterator[Server]:
    """Start a server, and stop it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
    environment |= {f"FASTCHAT_{name}": "0" for name in (*_UNLIMITED, "PORT", "ADMIN_PORT")}
    environment |= {"FASTCHAT_WORKERS": "1", "FASTCHAT_LOG_LEVEL": "warning", **settings}
    with tempfile.TemporaryDirectory(prefix="fastchat-bench-", dir=".") as directory:
        environment["FASTCHAT_DATA_DIR"] = f"{directory}/data"
        process = subprocess.Popen(
            [sys.executable, "-m", "router"], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None, "a pipe"
            line = process.stdout.readline().split()
            if len(line) < 5:
                raise SystemExit("the server did not start")
            yield Server(line[2], line[4])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


class Result(NamedTuple):
    """One measurement."""

    rate: float
    cpu_us: float
    ack_p50_ms: float
    ack_p99_ms: float
    #: Of the commits of each second; the median over the seconds.
    commit_p50_ms: float
    commit_p99_ms: float
    #: The longest turn of the event loop in each second: the median over the seconds, and the longest.
    turn_ms: float
    turn_max_ms: float
    rows_a_commit: float


async def measure(server: Server, pairs: int, load: str, seconds: float) -> Result:
    """One load: ``window 8`` or ``rate 5000``."""
    chatter = Chatter(server.url, pairs, workers=1)
    await chatter.connect()
    kind, amount = load.split()

    async def run(duration: float) -> None:
        if kind == "window":
            await chatter.closed_loop(int(amount), duration)
        else:
            await chatter.open_loop(float(amount), duration)

    await run(_WARM_UP)
    chatter.forget()
    cpu, started = server.cpu(), perf_counter()
    watching = asyncio.create_task(watch(server, seconds))
    await run(seconds)
    cpu, elapsed = server.cpu() - cpu, perf_counter() - started
    reports = await watching
    await chatter.close()

    def total(name: str) -> float:
        return reports[-1].get(name, 0) - reports[0].get(name, 0)

    def each(name: str) -> list[float]:
        return [report.get(name, 0) / 1000 for report in reports[1:]]

    return Result(
        rate=chatter.acks / elapsed,
        cpu_us=cpu / chatter.acks * 1e6,
        ack_p50_ms=percentile(chatter.latencies, 0.5) * 1000,
        ack_p99_ms=percentile(chatter.latencies, 0.99) * 1000,
        commit_p50_ms=median(each("store_commit_p50_us")),
        commit_p99_ms=median(each("store_commit_p99_us")),
        turn_ms=median(each("longest_turn_us")),
        turn_max_ms=max(each("longest_turn_us")),
        rows_a_commit=total("store_rows_total") / max(1.0, total("store_commits_total")),
    )


async def watch(server: Server, seconds: float) -> list[dict[str, float]]:
    """The reports of the worker while it is measured: one a second, and the first only counts what was before."""
    loop = asyncio.get_running_loop()
    reports = [await loop.run_in_executor(None, server.stats)]
    for _ in range(max(1, int(seconds) - 1)):
        await asyncio.sleep(_REPORT)
        reports.append(await loop.run_in_executor(None, server.stats))
    return reports


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.durability")
    parser.add_argument("--pairs", type=int, default=50, help="pairs of users")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each is measured; the median is shown"
    )
    parser.add_argument(
        "--loads",
        default="window 1,window 8,window 32,rate 5000",
        help="closed loops (window N) and open loops (rate N), separated by commas",
    )
    parser.add_argument("--stores", default=",".join(STORES), help="which of memory, os and fsync")
    arguments = parser.parse_args()
    stores = arguments.stores.split(",")
    print(" ".join(_COLUMNS))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for load in arguments.loads.split(","):
            results: dict[str, list[Result]] = {store: [] for store in stores}
            for _ in range(arguments.rounds):
                for store in stores:
                    with serving(STORES[store]) as server:
                        results[store].append(
                            runner.run(measure(server, arguments.pairs, load, arguments.seconds))
                        )
            for store in stores:
                show(load, store, results[store], results.get("memory"))


def show(load: str, store: str, results: list[Result], yardstick: list[Result] | None) -> None:
    """One line: the medians, but the longest turn of all."""
    middle = Result(*(median(values) for values in zip(*results, strict=True)))
    ratio = middle.cpu_us / median(result.cpu_us for result in yardstick) if yardstick else 0.0
    texts = (
        load,
        store,
        f"{middle.rate:.0f}",
        f"{middle.cpu_us:.1f}",
        f"{ratio:.2f}",
        f"{1e6 / middle.cpu_us:.0f}",
        f"{middle.rate * middle.cpu_us / 1e4:.0f}",
        f"{middle.ack_p50_ms:.1f}",
        f"{middle.ack_p99_ms:.1f}",
        f"{middle.commit_p50_ms:.1f}",
        f"{middle.commit_p99_ms:.1f}",
        f"{middle.rows_a_commit:.0f}",
        f"{middle.turn_ms:.1f}",
        f"{max(result.turn_max_ms for result in results):.1f}",
    )
    print(" ".join(text.rjust(len(column)) for text, column in zip(texts, _COLUMNS, strict=True)), flush=True)


if __name__ == "__main__":
    main()
