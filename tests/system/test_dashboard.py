"""The dashboard as an operator sees it: headless Chromium, a real server, and people who really chat.

The browser is the system's. What the page shows is compared with what the server says on
``/dashboard/samples``, ``/status`` and ``/metrics``, and with what the people did. A second of which the page tells has ended one or two
seconds ago, so tests let the chat end first.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.request import ProxyHandler, build_opener

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    sync_playwright,
)

from core.measures import quantile
from core.process.metrics import METRICS
from tests.router.command import fastchat
from tests.system.harness import ChatClient, Server, StartServer, user_on_worker, wait_until
from tests.system.raw_client import TEXT, RawClient, client_frame, message
from tests.system.status import status

CHROMIUM: Final = next(
    filter(
        None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    ),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium, as apt-get install chromium installs it"),
]

#: Invalid messages among those that people send.
ERRORS: Final = 7
#: What a tile shows that knows nothing, or of which there is none.
NOTHING: Final = ("\N{EN DASH}", "0/s")
#: Milliseconds that a busy machine may take to show something.
PATIENCE: Final = 20_000
#: Seconds within which an operator is to see that something is wrong.
SOON: Final = 3.0
#: What Chromium itself says on the console when a request finds nobody, which is nobody's fault.
NOBODY_THERE: Final = "net::ERR_CONNECTION_REFUSED"


class Watch:
    """Notes everything on a page that should not be."""

    def __init__(self, page: Page, admin_url: str) -> None:
        self.wrong: list[str] = []
        self.requested: list[str] = []
        self._admin_url = admin_url
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("request", self._asked)
        page.on(
            "requestfailed", lambda request: self.wrong.append(f"failed: {request.url} {request.failure}")
        )
        page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def _answered(self, answer: Response) -> None:
        if answer.status >= 400:
            self.wrong.append(f"{answer.status}: {answer.url}")

    def _asked(self, request: Request) -> None:
        self.requested.append(request.url)
        if not request.url.startswith((f"{self._admin_url}/", "data:", "blob:")):
            self.wrong.append(f"left this machine: {request.url}")


class Chatting:
    """Two people who chat in a thread of their own as long as the context lasts; what they did is known at its end."""

    def __init__(self, server: Server) -> None:
        self._url = server.url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._chat()))
        self._failed: BaseException | None = None
        self.messages = 0
        self.errors = 0

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.messages > 0 or not self._thread.is_alive(), "a message to arrive", 20.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30.0)
        assert not self._thread.is_alive()
        assert error is not None or self._failed is None, repr(self._failed)

    async def _chat(self) -> None:
        try:
            async with ChatClient(self._url) as alice, ChatClient(self._url) as bob:
                await alice.hello()
                await bob.hello()
                await alice.open_chat(bob)
                while not self._stop.is_set():
                    await alice.message(bob, "hello")
                    await bob.receive("MSG", content="hello")
                    self.messages += 1
                    # More invalid ones than 20 a minute would end the connection.
                    if self.messages % 20 == 0 and self.errors < ERRORS:
                        await alice.send("MSG", to=bob.user_id, content="")
                        await alice.receive("ERROR")
                        self.errors += 1
                    await asyncio.sleep(0.005)
                await alice.drain()
        except BaseException as error:
            self._failed = error
            raise


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Any]:
    """Opens the dashboard of a server in a browser of its own; the parameters are the context's."""
    with ExitStack() as opened:

        def open_page(server: Server, path: str = "/", **parameters: Any) -> tuple[Page, Watch]:
            parameters.setdefault("viewport", {"width": 1280, "height": 900})
            context: BrowserContext = opened.enter_context(closing(browser.new_context(**parameters)))
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            watch = Watch(page, server.admin_url)
            page.goto(server.admin_url + path)
            page.wait_for_selector("#chart-latency .main-svg")
            return page, watch

        yield open_page


@pytest.fixture(scope="module")
def server(own_server: Server) -> Server:
    """Of its own, since the page shows what happens on it."""
    return own_server


@pytest.fixture(scope="module")
def chatting(server: Server) -> Iterator[Chatting]:
    """People who chat on the server that the tests of this module share."""
    with Chatting(server) as chatting:
        yield chatting


def ask(server: Server, path: str) -> str:
    with build_opener(ProxyHandler({})).open(server.admin_url + path, timeout=10.0) as answer:
        text: str = answer.read().decode()
    return text


def samples(server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ask(server, "/dashboard/samples"))
    return answer


def total(server: Server, name: str) -> float:
    """A counter over all workers, as `/status` tells."""
    return float(sum(each["stats"].get(name, 0) for each in status(server)["processes"]))


def scraped(server: Server, name: str) -> float:
    """A counter over all of its labels, as `/metrics` tells."""
    return sum(
        map(
            float, re.findall(rf"^fastchat_{name}(?:\{{.*\}})? (\S+)$", ask(server, "/metrics"), re.MULTILINE)
        )
    )


def drawn(page: Page, chart: str) -> dict[str, list[float | None]]:
    """The lines of a chart, by name, as plotly has them; the chart is brought into view and drawn before."""
    page.locator(f"#chart-{chart}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#chart-{chart} .main-svg")
    lines = page.evaluate(
        f"document.querySelector('#chart-{chart} .plot').data.map((trace) => [trace.name, Array.from(trace.y)])"
    )
    return dict(lines)


def known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def tile(page: Page, name: str) -> str:
    return page.inner_text(f"#tile-{name} dd")


def free_port() -> int:
    """Free now, and not one that the system gives to whoever asks for any: it is needed a second time, after a pause."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as one, socket.socket(socket.AF_INET6) as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("::1", port))
            except OSError:
                continue
            return port


def test_the_charts_show_what_people_did(start_server: StartServer, open_page: Any) -> None:
    server = start_server()
    page, watch = open_page(server)
    assert page.inner_text("#chart-latency .empty") == "No messages yet: try make load"
    assert page.is_visible("#chart-latency .empty")
    with Chatting(server) as chatting:
        wait_until(lambda: chatting.messages > 300, "some hundred messages", 90.0)
        # Each tile shows what a worker has reported last, and reports of two workers do not come at once.
        for name, form in {
            "messages": r"[\d.,]+/s",
            "connections": "2",
            "online": "2",
            "p50": r"[\d.]+ (µs|ms|s)",
            "p99": r"[\d.]+ (µs|ms|s)",
        }.items():
            wait_until(
                lambda: tile(page, name) not in NOTHING and re.fullmatch(form, tile(page, name)) is not None,  # noqa: B023
                f"the tile {name}",
            )
    sent, errors = chatting.messages, chatting.errors

    # Everything that was counted is on the page, once, and the page, the samples, the status and the metrics agree.
    wait_until(
        lambda: round(sum(known(drawn(page, "throughput")["delivered"]))) == sent,
        "all deliveries to be drawn",
    )
    lines = drawn(page, "throughput")
    assert round(sum(known(lines["received"]))) == sent + errors
    assert total(server, "deliveries_total") == scraped(server, "deliveries_total") == sent
    answer = samples(server)
    assert sum(answer["server"]["deliveries_total"]) == sent
    refused = scraped(server, "errors_total")
    assert sum(answer["server"]['errors_total{code="VALIDATION"}']) == refused == errors
    assert set(drawn(page, "errors")) == {"VALIDATION"}
    by_worker = drawn(page, "worker-messages")
    assert set(by_worker) == {"worker 0", "worker 1"}
    assert round(sum(sum(known(values)) for values in by_worker.values())) == scraped(
        server, "received_total"
    )

    # Percentiles are those of the samples, reckoned as the rest of the program does.
    ranges = answer["histograms"]["delivery_seconds"]
    bounds = METRICS["delivery_seconds"].bounds
    expected = []
    for row in range(len(answer["times"])):
        counts = [ranges.get(str(index), [0] * (row + 1))[row] for index in range(len(bounds) + 1)]
        if any(counts):
            expected.append(quantile(bounds, counts, 0.99))
    assert len(expected) >= 2
    assert known(drawn(page, "latency")["p99"]) == pytest.approx(expected)

    page.locator("#chart-heat").scroll_into_view_if_needed()
    heat = page.evaluate("document.querySelector('#chart-heat .plot').data[0].z.flat()")
    assert sum(round(value**2) for value in heat if value) == sent
    for chart in ("connections", "turns", "commits", "rows", "cpu", "memory", "arrivals", "handover"):
        assert any(known(values) for values in drawn(page, chart).values()), chart
        assert not page.is_visible(f"#chart-{chart} .empty")
    assert any(
        line.startswith("/dashboard/plotly-")
        for line in (url[len(server.admin_url) :] for url in watch.requested)
    )
    assert watch.wrong == []


def show_whole(page: Page, width: int, path: Path) -> None:
    """Make the window as high as the page, wait until all charts are drawn, and take a screenshot, for people."""
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": width, "height": height})
    wait_until(
        lambda: page.locator(".chart:has(.main-svg)").count() == page.locator(".chart").count(),
        "all charts to be drawn",
        timeout=30.0,
    )
    page.screenshot(path=path)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_every_screen(
    server: Server, chatting: Chatting, open_page: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    """No scrolling sideways. Screenshots stay in pytest's temporary directory, for people."""
    page, watch = open_page(server, viewport={"width": width, "height": 900}, color_scheme=scheme)
    wait_until(lambda: tile(page, "messages") not in NOTHING, "the tile")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)))
    assert brightness > 600 if scheme == "light" else brightness < 120
    show_whole(page, width, tmp_path / f"dashboard-{width}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing sticks out of the box that it is in.
    wide = page.evaluate(
        "[...document.querySelectorAll('.panel, .tile, .bar, table, .legend')]"
        ".filter((e) => e.scrollWidth > e.clientWidth + 1 && !e.hidden).map((e) => e.id || e.className)"
    )
    assert wide == []
    assert watch.wrong == []


def test_a_killed_worker_shows_within_three_seconds(start_server: StartServer, open_page: Any) -> None:
    server = start_server()
    page, watch = open_page(server)
    wait_until(lambda: page.inner_text("#state-word") == "ok", "the state")
    assert page.is_visible("#no-events")
    row = page.locator("tr[data-process='worker 1']")
    wait_until(lambda: row.locator(".restarts").inner_text() == "0", "the table")

    os.kill(server.child("worker 1"), signal.SIGKILL)
    killed = time.monotonic()
    wait_until(
        lambda: "worker 1 ended with signal SIGKILL" in page.inner_text("#events"), "the event", timeout=SOON
    )
    wait_until(lambda: row.locator(".restarts").inner_text() == "1", "the restart to be counted")
    assert row.locator(".last_end").inner_text() == "signal SIGKILL"
    shapes = "document.querySelector('#chart-latency .plot').layout.shapes.length"
    wait_until(lambda: page.evaluate(shapes) >= 1, "the mark in the chart", timeout=SOON)
    assert time.monotonic() - killed < 2 * SOON
    wait_until(lambda: "worker 1 is back" in page.inner_text("#events"), "it to be back")
    wait_until(lambda: page.inner_text("#state-word") == "ok", "the state to be ok again")
    assert row.locator(".state").inner_text() == "ready"
    assert watch.wrong == []


def test_reloads_and_a_drain_show(start_server: StartServer, open_page: Any) -> None:
    """How often each process was replaced, for how long clients waited, who could not be moved, and how far a drain is."""
    server = start_server()
    page, watch = open_page(server)
    row = page.locator("tr[data-process='worker 1']")
    wait_until(lambda: row.locator(".replaced").inner_text() == "0", "the table")
    assert row.locator(".pause").inner_text() == ""
    with RawClient.upgraded(server.port, user_on_worker(1, 2)) as slow:
        slow.hello()
        slow.send(client_frame(TEXT, message("PING"))[:9])
        assert fastchat("reload", "--admin", server.admin_url).returncode == 0
        assert slow.closed()[0] == 1012
    wait_until(lambda: row.locator(".replaced").inner_text() == "1", "the replacement to be counted")
    wait_until(lambda: row.locator(".not_moved").inner_text() == "1", "the client to be counted")
    pauses = {
        each["index"]: each["stats"].get("takeover_seconds") for each in status(server)["processes"][:2]
    }
    wait_until(
        lambda: all(known(drawn(page, "takeovers")[f"worker {index}"]) for index in pauses), "the pauses"
    )
    shown = drawn(page, "takeovers")
    assert {index: known(shown[f"worker {index}"]) for index in pauses} == {
        index: [pytest.approx(pause, abs=1e-6)] for index, pause in pauses.items()
    }
    assert sum(known(drawn(page, "not-moved")["closed"])) == 1
    assert not page.is_visible("#drain")

    with RawClient.upgraded(server.port) as client:
        client.hello()
        wait_until(lambda: total(server, "connections") == 1, "the connection to be reported")
        assert fastchat("drain", "--seconds", "600", "--admin", server.admin_url).returncode == 0
        wait_until(lambda: page.is_visible("#drain"), "the drain")
        assert re.match(
            r"Asked for by an operator .+ ago: 1 of 1 connections left, ", page.inner_text("#drain")
        )
    wait_until(lambda: "0 of 1 connections left." in page.inner_text("#drain"), "the end of the drain")
    assert watch.wrong == []


def test_a_server_that_is_down_is_told_and_one_that_is_back_too(
    start_server: StartServer, open_page: Any
) -> None:
    ports = {"port": free_port(), "admin_port": free_port()}
    server = start_server(**ports)
    page, watch = open_page(server)
    wait_until(lambda: page.inner_text("#state-word") == "ok", "the state")
    assert not page.is_visible("#banner")
    assert watch.wrong == []

    server.kill()
    wait_until(lambda: page.is_visible("#banner"), "the banner", timeout=SOON)
    assert page.inner_text("#banner").startswith("The server has not answered since ")
    assert page.inner_text("#state-word") == "not answering"
    assert page.title() == "not answering · FastChat"

    start_server(**ports)
    wait_until(lambda: not page.is_visible("#banner"), "the banner to go")
    wait_until(lambda: page.inner_text("#state-word") == "ok", "the state")
    wait_until(lambda: "the server was started again" in page.inner_text("#events"), "the event")
    times = "document.querySelector('#chart-connections .plot').data[0].x.length"
    page.locator("#chart-connections").scroll_into_view_if_needed()
    before = page.evaluate(times)
    wait_until(lambda: page.evaluate(times) > before, "the charts to go on")
    assert [wrong for wrong in watch.wrong if NOBODY_THERE not in wrong and "ERR_EMPTY" not in wrong] == []


def test_it_can_be_used_without_a_mouse(start_server: StartServer, open_page: Any) -> None:
    page, watch = open_page(start_server(), "/dashboard/", color_scheme="light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the charts"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "5m"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.value") == "15m"
    assert page.url.endswith("#15m")
    page.keyboard.press("ArrowRight")
    wait_until(
        lambda: page.inner_text("#chart-latency .empty").startswith("The first minute is not over yet"),
        "the empty hours to be told",
    )
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_attribute("#pause", "aria-pressed") == "true"
    page.keyboard.press("Enter")
    assert page.get_attribute("#pause", "aria-pressed") == "false"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_attribute("html", "data-theme") == "dark"
    page.reload()
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.is_checked("input[value='6h']")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, figure, section, ol, [role=img]')].filter((e) =>"
        " !(e.textContent.trim() || e.labels?.length || e.ariaLabel || e.getAttribute('aria-labelledby')))"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert unnamed == []
    assert watch.wrong == []


def test_a_paused_page_stands_still_and_a_hidden_one_asks_nothing(
    server: Server, chatting: Chatting, open_page: Any
) -> None:
    page, watch = open_page(server)
    end = "document.querySelector('#chart-latency .plot').layout.xaxis.range[1]"
    page.click("#pause")
    stands = page.evaluate(end)
    asked = len(watch.requested)
    wait_until(lambda: page.evaluate("1") and len(watch.requested) >= asked + 2, "it to go on asking")
    assert page.evaluate(end) == stands
    page.click("#pause")
    wait_until(lambda: page.evaluate(end) != stands, "it to go on")

    page.evaluate(
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(1500)  # what was on its way comes, and then nothing
    asked = len(watch.requested)
    page.wait_for_timeout(2500)
    assert len(watch.requested) == asked
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(lambda: page.evaluate("1") and len(watch.requested) > asked, "it to ask again")
    assert watch.wrong == []
