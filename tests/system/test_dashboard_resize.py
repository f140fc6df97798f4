"""The dashboard while the number of workers changes: headless Chromium, the real page, and a history that is made up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Self

import pytest
from aiohttp import web
from playwright.sync_api import Page, sync_playwright

from router.admin.columns import HISTOGRAMS, SUPERVISOR
from router.admin.dashboard import Dashboard
from router.admin.samples import MINUTE, SECOND, Reading, Samples, bounds
from tests.system.harness import wait_until
from tests.system.test_dashboard import CHROMIUM, PATIENCE, Watch, drawn, known, show_whole

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium, as apt-get install chromium installs it"),
]

#: Of all workers together.
CONNECTIONS: Final = 600
MESSAGES_PER_SECOND: Final = 1200


class MadeUpServer:
    """Serves the dashboard of a server that is not there; its time goes on when `go_on` is called."""

    def __init__(self, workers: int, seconds: int) -> None:
        """Begin with a history of so many seconds, which ends now."""
        self.workers = workers
        self.since = self.now = 0.0
        self._began = time.time() - seconds
        self.samples = Samples(workers, 1, 0.0)
        self.go_on(seconds)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.admin_url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._runner, self.admin_url = self._in_loop(self._serve()).result(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._runner.cleanup()).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    def run(self, change: Callable[[], None]) -> None:
        """Make a change between two answers."""

        async def make() -> None:
            change()

        self._in_loop(make()).result(30.0)

    def go_on(self, seconds: int) -> None:
        for _ in range(2 * seconds):
            self.now += 0.5
            self.samples.take(self.now, self._began + self.now, self._readings())

    def go_on_serving(self, seconds: int) -> None:
        """Go on without letting the page wait for an answer for long."""
        for _ in range(0, seconds, 20):
            self.run(lambda: self.go_on(20))

    def resize(self, workers: int) -> None:
        self.samples.resize(self.now, self._began + self.now, workers, self._readings())
        self.workers, self.since = workers, self.now

    def _in_loop(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _serve(self) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.add_routes(Dashboard(self.samples, self._status).routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"

    def _readings(self) -> list[Reading]:
        age = self.now - self.since
        messages = round(MESSAGES_PER_SECOND * age / self.workers)
        stats: dict[str, Any] = {
            'received_total{type="MSG"}': messages,
            "deliveries_total": messages,
            "connections": CONNECTIONS // self.workers,
            "online": CONNECTIONS,
            "longest_turn_seconds": 0.004,
            "takeover_seconds": 0.06 if self.since else 0.0,
        }
        for name in HISTOGRAMS:
            stats[name] = {
                "counts": [messages // 10 if 8 <= n < 18 else 0 for n in range(len(bounds()[name]) + 1)]
            }
        readings = [
            Reading(
                f"worker {index}",
                self.since,
                True,
                self.now,
                stats,
                age * (0.5 + index / 20),
                (90 + 9 * index) << 20,
            )
            for index in range(self.workers)
        ]
        front = {"front_accepted_total": round(self.now * 3), "front_adopted_total": round(self.now * 3)}
        readings.append(Reading("front 0", 0.0, True, self.now, front, self.now * 0.1, 60 << 20))
        readings.append(Reading(SUPERVISOR, 0.0, True, None, {}, self.now * 0.01, 50 << 20))
        return readings

    def _status(self) -> dict[str, Any]:
        each = {"state": "ready", "problem": None, "restarts": 0, "last_end": None}
        workers = [
            each | {"kind": "worker", "index": index, "pid": 100 + index, "uptime": self.now - self.since}
            for index in range(self.workers)
        ]
        front = each | {"kind": "front", "index": 0, "pid": 99, "uptime": self.now}
        processes = [each | {"replaced": 0, "stats": {}} for each in (*workers, front)]
        return {
            "status": "ok",
            "version": "1.0",
            "core": "python",
            "settings": {"store": "sqlite", "workers": 2, "fronts": 1},
            "pid": 98,
            "uptime": self.now,
            "reasons": [],
            "drain": None,
            "processes": processes,
        }


@pytest.fixture
def server() -> Iterator[MadeUpServer]:
    with MadeUpServer(workers=2, seconds=120) as server:
        yield server


@pytest.fixture
def open_page(server: MadeUpServer) -> Iterator[Callable[[int], tuple[Page, Watch]]]:
    """Opens the dashboard in a window of this width."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)

        def open_page(width: int) -> tuple[Page, Watch]:
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(PATIENCE)
            watch = Watch(page, server.admin_url)
            page.goto(f"{server.admin_url}/dashboard/")
            page.wait_for_selector("#chart-latency .main-svg")
            return page, watch

        yield open_page
        browser.close()


def table(page: Page) -> list[str]:
    """The processes in the table, in order."""
    names: list[str] = page.evaluate(
        "[...document.querySelectorAll('#processes tbody tr')].map((e) => e.dataset.process)"
    )
    return names


def names(workers: int) -> list[str]:
    return [*(f"worker {index}" for index in range(workers)), "front 0", SUPERVISOR]


@pytest.mark.parametrize("width", [1280, 390])
def test_workers_come_and_go_while_the_page_is_open(
    server: MadeUpServer, open_page: Callable[[int], tuple[Page, Watch]], tmp_path: Path, width: int
) -> None:
    """2 -> 5 -> 1 workers; a page that has seen all of it shows the same as one that comes at the end."""
    page, watch = open_page(width)
    for before, workers in ((2, 5), (5, 1)):
        wait_until(lambda: table(page) == names(before), "the table")  # noqa: B023
        server.run(lambda: server.go_on(1))
        server.run(lambda: server.resize(workers))  # noqa: B023
        server.go_on_serving(60)
        wait_until(lambda: table(page) == names(workers), "the table to change")  # noqa: B023
    last = server.samples.tiers[SECOND].last
    wait_until(lambda: len(drawn(page, "connections")["connections"]) == last, "all seconds to be drawn")
    assert page.inner_text("#summary").startswith("1 worker, 1 front, up ")
    events = page.inner_text("#events")
    assert "the server has 5 workers instead of 2" in events
    assert "the server has 1 worker instead of 5" in events

    late, late_watch = open_page(width)
    for shown in (page, late):
        # There is no second in which clients or messages are missing, and those of gone workers are not told as none.
        assert set(known(drawn(shown, "connections")["connections"])) == {CONNECTIONS}
        received = drawn(shown, "throughput")["received"]
        assert known(received) == received
        by_worker = drawn(shown, "worker-messages")
        assert list(by_worker) == [f"worker {index}" for index in range(5)]
        for index, values in enumerate(by_worker.values()):
            there = [second for second, value in enumerate(values) if value is not None]
            first, end = (0, last) if index == 0 else (0 if index == 1 else 121, 182)
            assert there == list(range(first, end))
        assert list(drawn(shown, "memory")) == names(5)
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert [drawn(page, chart) for chart in ("cpu", "memory", "takeovers", "worker-p99")] == [
        drawn(late, chart) for chart in ("cpu", "memory", "takeovers", "worker-p99")
    ]
    show_whole(page, width, tmp_path / f"dashboard-resize-{width}.png")
    assert watch.wrong == late_watch.wrong == []


def test_the_hours_show_a_worker_as_long_as_they_go_back(
    server: MadeUpServer, open_page: Callable[[int], tuple[Page, Watch]]
) -> None:
    server.run(lambda: server.resize(12))
    server.go_on_serving(180)
    page, watch = open_page(1280)
    # More than can be told apart as lines are rows.
    rows = "document.querySelector('#chart-worker-messages .plot').data?.[0].y.length"
    page.locator("#chart-worker-messages").scroll_into_view_if_needed()
    wait_until(lambda: page.evaluate(rows) == 12, "a row for each worker")
    server.run(lambda: server.resize(3))
    server.go_on_serving(900)
    wait_until(
        lambda: list(drawn(page, "worker-messages")) == ["worker 0", "worker 1", "worker 2"],
        "a line for each worker",
    )
    page.keyboard.press("End")
    page.check("input[value='6h']", force=True)
    page.locator("#chart-worker-messages").scroll_into_view_if_needed()
    wait_until(lambda: page.evaluate(rows) == 12, "the rows of the hours")
    assert server.samples.tiers[MINUTE].last == 20
    assert watch.wrong == []
