"""The two pages of docs/integrate.md in a real browser: the plain one, and the one with the React hook."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from core.placement import Placement
from tests.clients.node import CLIENT, node, packages
from tests.system.browser import PATIENCE, Browser, Tab
from tests.system.harness import PROJECT, StartServer, wait_until
from tests.system.integration import TIMEOUT, App, commands, files, free_port, make_app

pytestmark = pytest.mark.slow


@pytest.fixture
def app(tmp_path: Path, start_server: StartServer) -> App:
    """With both users, and one message of Bob to Ann."""
    app = make_app(tmp_path, start_server)
    app.run("backend.py")
    return app


@pytest.fixture
def address(app: App) -> Iterator[str]:
    """Where the server of the app is, which serves the directory ``public``."""
    checkout = app.directory.parent / "fastchat"
    checkout.symlink_to(PROJECT)
    app.run("sh", "-e", "-c", commands()[4])
    shutil.copy(app.directory / "chat.html", app.directory / "public")
    port = free_port()
    with app.running("app.py", port):
        yield f"http://localhost:{port}/"


def connections(app: App, user_id: str) -> int:
    """How many devices of a user are online."""
    found: dict[str, Any] = app.backend().call("GET", f"/v1/users/{user_id}/connections").body
    return len(found["connections"])


def wait_lines(tab: Tab, *lines: str) -> None:
    """Wait until exactly these messages are shown, in this order."""
    expect(tab.page.locator("li")).to_have_text(list(lines), timeout=PATIENCE)


def write(tab: Tab, text: str) -> None:
    """Send a message."""
    tab.page.get_by_label("Message").fill(text)
    tab.page.get_by_label("Message").press("Enter")


def wait_online(tab: Tab) -> None:
    expect(tab.page.locator("#state")).to_have_text("online", timeout=PATIENCE)


def test_the_plain_page(browser: Browser, app: App, address: str) -> None:
    ann = browser.visitor(address).tab("chat.html?user=ann&with=bob")
    wait_lines(ann, "bob: Your parcel is here.")
    wait_online(ann)
    bob = browser.visitor(address).tab("chat.html?user=bob&with=ann")
    wait_lines(bob, "bob: Your parcel is here.")
    write(ann, "Thanks, I <3 it!")
    write(bob, "Fine.")
    for tab in (ann, bob):
        expect(tab.page.locator("li")).to_have_count(3, timeout=PATIENCE)
        shown = tab.page.locator("li").all_inner_texts()
        assert sorted(shown[1:]) == ["ann: Thanks, I <3 it!", "bob: Fine."]
    bob.page.reload()
    expect(bob.page.locator("li")).to_have_count(3, timeout=PATIENCE)


@pytest.fixture
def react(app: App, address: str) -> str:
    """The address of the page with the hook. The page's command bundles the development build, in which StrictMode does what it does."""
    modules = app.directory / "node_modules"
    modules.mkdir()
    install, bundle = commands()[5].splitlines()
    # npm may not be able to get them here: they are those of the tests.
    for name in install.removeprefix("npm install ../fastchat/router/web/client ").split():
        (modules / name).symlink_to(packages() / name)
    (modules / "fastchat-client").symlink_to(CLIENT)
    bundler = f"{node()} node_modules/esbuild/bin/esbuild"
    app.run("sh", "-e", "-c", f"{bundle.replace('npx esbuild', bundler)} --log-level=warning")
    shutil.copy(app.directory / "react.html", app.directory / "public")
    return f"{address}react.html"


def test_the_react_hook_in_strict_mode(browser: Browser, app: App, react: str) -> None:
    """One connection, nothing twice, and nothing left when the page has gone; what was missed comes after an outage."""
    visitor = browser.visitor(react)
    ann = visitor.tab("?user=ann&with=bob")
    assert "StrictMode" in files()["main.jsx"]
    wait_lines(ann, "bob: Your parcel is here.")
    wait_online(ann)
    wait_until(lambda: connections(app, "ann") == 1, "the first client of StrictMode to be gone", TIMEOUT)
    bob = browser.visitor(react).tab("?user=bob&with=ann")
    wait_lines(bob, "bob: Your parcel is here.")
    write(ann, "Thanks!")
    wait_lines(ann, "bob: Your parcel is here.", "ann: Thanks! delivered")
    wait_lines(bob, "bob: Your parcel is here.", "ann: Thanks!")
    write(bob, "Fine.")
    wait_lines(ann, "bob: Your parcel is here.", "ann: Thanks! delivered", "bob: Fine.")
    # Her worker is started again; the client comes back by itself, and what Bob writes meanwhile is not lost.
    worker = Placement(app.server.workers).worker_of("ann")
    os.kill(app.server.child(f"worker {worker}"), signal.SIGTERM)
    write(bob, "Still there?")
    wait_lines(ann, "bob: Your parcel is here.", "ann: Thanks! delivered", "bob: Fine.", "bob: Still there?")
    ann.page.close()
    wait_until(lambda: connections(app, "ann") == 0, "Ann to be offline", TIMEOUT)


def test_the_react_hook_says_what_is_wrong(browser: Browser, app: App, react: str) -> None:
    """Nobody has created the other person."""
    ann = browser.visitor(react).tab("?user=ann&with=nobody-here")
    expect(ann.page.locator("#state")).to_contain_text("no user", timeout=PATIENCE)
