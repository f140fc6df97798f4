"""The chat page without a server, in a real browser: what it opens with is what the last version of the server had."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from tests.router.front_process import FrontProcess
from tests.system.browser import Browser
from tests.system.harness import wait_until

LOGIN: Final = "https://app.example.com/login"


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A directory with a name that is short enough for sockets; pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="fastchat-") as name:
        yield Path(name)


def test_it_opens_without_a_server(browser: Browser, run_dir: Path) -> None:
    """With all of its files; and it says who invites."""
    with FrontProcess(run_dir) as front:
        url = f"http://localhost:{front.port}/"
        tab = browser.visitor(url).tab()
        tab.page.evaluate("navigator.serviceWorker.ready")
        front.stop()
        front.wait()
    tab.page.goto("about:blank")
    tab.page.goto(f"{url}#{uuid4()}&name=Ada")
    expect(tab.page.locator("#welcome-text")).to_have_text("Ada invites you to chat.")
    expect(tab.page.get_by_label("What is your name?")).to_be_focused()


@pytest.mark.slow
def test_a_new_version_of_the_page_replaces_the_one_that_is_kept(browser: Browser, run_dir: Path) -> None:
    """At the next load, and as a whole."""
    with FrontProcess(run_dir) as old:
        url = f"http://localhost:{old.port}/"
        tab = browser.visitor(url).tab()
        tab.page.evaluate("navigator.serviceWorker.ready")
        (kept,) = tab.page.evaluate("caches.keys()")
        old.stop()
        old.wait()
        with FrontProcess(run_dir, beside=old, login_url=LOGIN):
            tab.page.reload()
            login = tab.page.get_by_role("link", name="Log in")
            expect(login).to_have_attribute("href", LOGIN)
            wait_until(
                lambda: tab.page.evaluate("caches.keys()") not in ([kept], []), "the new version to be kept"
            )
            wait_until(lambda: kept not in tab.page.evaluate("caches.keys()"), "the old version to be gone")
    tab.page.goto("about:blank")
    tab.page.goto(url)
    expect(login).to_have_attribute("href", LOGIN)
