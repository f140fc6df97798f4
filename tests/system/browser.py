"""The chat page in a real browser: Debian's Chromium, driven by playwright.

`Browser` starts it; a `Visitor` is a person in a browser of their own (a context: its storage is nobody else's), and each of their
tabs is a `Tab`. Whatever must never happen on the page, in no test, is noted by the tab and asserted by `Browser.assert_well`: an
exception, an error on the console, a dialog, a request that leaves this machine.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Locator, Page, expect, sync_playwright

from tests.system.harness import Server

#: Milliseconds that a test waits for something to be seen; a busy machine has to manage it.
PATIENCE: Final = 15_000
DESKTOP: Final = {"width": 1280, "height": 800}
PHONE: Final = {"width": 390, "height": 844}

#: What the browser itself and the client say of a server that is down; only tests that take it down allow it.
NO_CONNECTION: Final = re.compile(
    r"WebSocket connection to .* failed|FastChat: can't connect to|Failed to load resource: net::ERR_CONNECTION_REFUSED"
)


def page_url(server: Server, port: int | None = None) -> str:
    """Where the chat page of `server` is; `port` is that of a proxy before it."""
    return f"http://localhost:{port or server.port}/"


class Tab:
    """One page, and what can be seen on it."""

    def __init__(self, page: Page, problems: list[str]) -> None:
        self.page = page
        self._problems = problems
        page.set_default_timeout(PATIENCE)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
        page.on("dialog", self._on_dialog)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._problems.append(f"console: {message.text}")

    def _on_dialog(self, dialog: Dialog) -> None:
        self._problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    # -- Doing --

    def join(self, name: str) -> None:
        """Answer the question for one's name, and wait until the server has greeted."""
        self.page.get_by_label("What is your name?").fill(name)
        self.page.get_by_role("button", name="Start chatting").click()
        self.wait_online()

    def wait_online(self) -> None:
        expect(self.page.locator("#me-state")).to_have_text("Online", timeout=PATIENCE)

    def open_chat(self, name: str) -> None:
        """Click on somebody in the list."""
        self.person(name).click()
        expect(self.page.locator("#peer-name")).to_have_text(name)

    def write(self, *texts: str) -> None:
        """Send messages in the chat that is open."""
        for text in texts:
            self.field.fill(text)
            self.field.press("Enter")

    def hide(self, hidden: bool = True) -> None:
        """Let the page believe that it is in a background tab; a headless browser has none."""
        state = "hidden" if hidden else "visible"
        self.page.evaluate(
            "state => {"
            " Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            state,
        )

    # -- Seeing --

    @property
    def field(self) -> Locator:
        return self.page.locator("#text")

    @property
    def bar(self) -> Locator:
        """What is said about the connection."""
        return self.page.locator("#connection")

    def person(self, name: str) -> Locator:
        """Somebody's entry in the list."""
        return self.page.locator("#people a", has=self.page.locator(".name", has_text=name))

    def message(self, text: str) -> Locator:
        """The one message with exactly this text."""
        exactly = re.compile(rf"^{re.escape(text)}$")
        return self.page.locator(".message", has=self.page.locator(".text", has_text=exactly))

    def texts(self) -> list[str]:
        """All messages, from top to bottom."""
        return self.page.locator(".message .text").all_inner_texts()

    def wait_texts(self, *texts: str) -> None:
        """Wait until exactly these messages are there, in this order."""
        expect(self.page.locator(".message .text")).to_have_text(list(texts), timeout=PATIENCE)

    def wait_status(self, text: str, status: str) -> None:
        """Wait until the tick of an own message says this."""
        mark = self.message(text).locator(".status .quiet")
        expect(mark).to_have_text(status, timeout=PATIENCE)

    def wait_title(self, title: str) -> None:
        expect(self.page).to_have_title(title, timeout=PATIENCE)

    def wait_unread(self, name: str, count: int) -> None:
        """Wait for the number at somebody's entry; 0: there is none."""
        badge = self.person(name).locator(".badge")
        if count:
            expect(badge).to_have_text(re.compile(rf"^{count} "), timeout=PATIENCE)
        else:
            expect(badge).to_have_count(0, timeout=PATIENCE)


class Visitor:
    """A person in a browser of their own."""

    def __init__(self, context: BrowserContext, url: str, problems: list[str], here: frozenset[str]) -> None:
        self.context = context
        self.url = url
        self._problems = problems
        self._here = here
        context.on("request", self._on_request)

    def tab(self, path: str = "") -> Tab:
        """A new tab with the page."""
        tab = Tab(self.context.new_page(), self._problems)
        tab.page.goto(self.url + path)
        return tab

    def adopt(self, page: Page) -> Tab:
        """A tab that the page itself has opened."""
        return Tab(page, self._problems)

    def _on_request(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.hostname not in self._here:
            self._problems.append(f"a request left this machine: {request.url}")


class Browser:
    """A running Chromium; `here` are the names that mean this machine."""

    def __init__(self, chromium: Any, here: frozenset[str]) -> None:
        self._chromium = chromium
        self._here = here
        self.problems: list[str] = []
        self._contexts: list[BrowserContext] = []

    def visitor(self, url: str, **options: Any) -> Visitor:
        """A new person; `options` are those of a playwright context."""
        options.setdefault("viewport", DESKTOP)
        context = self._chromium.new_context(locale="en-GB", timezone_id="Europe/Berlin", **options)
        self._contexts.append(context)
        return Visitor(context, url, self.problems, self._here)

    def join(self, url: str, name: str, **options: Any) -> Tab:
        """A new person with one tab, under this name."""
        tab = self.visitor(url, **options).tab()
        tab.join(name)
        return tab

    def assert_well(self, may_lose_connection: bool = False) -> None:
        """Nothing has happened that must not."""
        problems = [
            problem
            for problem in self.problems
            if not (may_lose_connection and NO_CONNECTION.search(problem))
        ]
        assert problems == [], problems

    def close_visitors(self) -> None:
        """Close everybody's browser."""
        for context in self._contexts:
            context.close()
        self._contexts.clear()
        self.problems.clear()


@contextmanager
def running_browser(*pointed_here: str) -> Iterator[Browser]:
    """Chromium as it is installed; the test is skipped where it is not. `pointed_here` are domains whose address is 127.0.0.1 for it."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # The sandbox does not work as root, as which CI runs; all pages are ours.
        arguments = ["--no-sandbox", "--no-proxy-server"]
        if pointed_here:
            rules = ", ".join(f"MAP {name} 127.0.0.1" for name in pointed_here)
            arguments.append(f"--host-resolver-rules={rules}")
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield Browser(chromium, frozenset({"localhost", *pointed_here}))
        finally:
            chromium.close()
