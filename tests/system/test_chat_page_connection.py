"""The chat page when the server restarts, the network is cut, or the server ends the connection.

Nothing is lost or doubled, and what is shown is true at each moment.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.system.browser import PATIENCE, Browser, Tab, page_url
from tests.system.harness import Server, wait_until
from tests.system.stalling_proxy import StallingProxy

pytestmark = pytest.mark.slow

#: Milliseconds until a silent network is found out (a PING every 15 s, 5 s for the answer), and until the next attempt succeeds.
SILENCE: Final = 35_000


def two_who_chat(browser: Browser, server: Server, port: int | None = None) -> tuple[Tab, Tab]:
    """Ada, who may be behind a proxy, and Grace, each with the other's chat open and a message from there."""
    visitor = browser.visitor(page_url(server, port))
    # Short delays before the page connects again; how they are spread is tested elsewhere.
    visitor.context.add_init_script("Math.random = () => 0.2")
    ada = visitor.tab()
    ada.join("Ada")
    grace = browser.join(page_url(server), "Grace")
    ada.open_chat("Grace")
    grace.open_chat("Ada")
    ada.write("one")
    grace.wait_texts("one")
    grace.write("two")
    ada.wait_texts("one", "two")
    return ada, grace


def test_a_restart_in_the_middle(browser: Browser, tmp_path: Path) -> None:
    """What is written while the server is away says that it waits, and is sent when it is back, once and in order.

    So is what was written on a page that has been closed meanwhile.
    """
    with Server(tmp_path, workers=3) as server:
        ada, grace = two_who_chat(browser, server)
        port = server.port
        closing = browser.join(page_url(server), "Closing")
        closing.open_chat("Grace")
    for tab in (ada, grace):
        expect(tab.bar).to_have_text(
            re.compile(r"Reconnecting(?: in \d+ s)?….*Try now", re.DOTALL), timeout=PATIENCE
        )
        expect(tab.page.locator("#me-state")).to_have_text("Connecting…")
        expect(tab.page.locator("#peer-state")).to_have_text("")
    for number in range(3):
        ada.write(f"ada {number}")
        grace.write(f"grace {number}")
    for number in range(3):
        ada.wait_status(f"ada {number}", "Waiting to be sent")
    closing.write("from a page that is gone")
    closing.wait_status("from a page that is gone", "Waiting to be sent")
    context = closing.page.context
    closing.page.close()
    with Server(tmp_path, workers=3, port=port) as server:
        ada.wait_online()
        grace.wait_online()
        expect(ada.bar).to_be_hidden()
        for number in range(3):
            ada.wait_status(f"ada {number}", "Read")
            grace.wait_status(f"grace {number}", "Read")
        for tab in (ada, grace):
            assert tab.texts()[:2] == ["one", "two"]
            texts = tab.texts()[2:]
            assert [text for text in texts if "ada" in text] == ["ada 0", "ada 1", "ada 2"]
            assert [text for text in texts if "grace" in text] == ["grace 0", "grace 1", "grace 2"]
            assert len(texts) == 6
        again = Tab(context.new_page(), browser.problems)
        again.page.goto(page_url(server))
        again.wait_online()
        grace.wait_unread("Closing", 1)
        grace.open_chat("Closing")
        grace.wait_texts("from a page that is gone")
        # After a reload both see the same, in the server's order. (Live, each sees what crosses on the way in its own.)
        grace.open_chat("Ada")
        for tab in (ada, grace):
            shown = tab.texts()
            tab.page.reload()
            tab.wait_online()
            expect(tab.page.locator(".message")).to_have_count(len(shown), timeout=PATIENCE)
            assert sorted(tab.texts()) == sorted(shown)
        ada.wait_texts(*grace.texts())
        browser.assert_well(may_lose_connection=True)
        browser.close_visitors()


def test_a_worker_dies_in_the_middle(browser: Browser, tmp_path: Path) -> None:
    """The page comes back by itself, and nothing is lost or doubled."""
    with Server(tmp_path, workers=2) as server:
        ada, grace = two_who_chat(browser, server)
        sent = ["one", "two"]
        for number in range(12):
            ada.write(f"number {number}")
            sent.append(f"number {number}")
            if number == 4:
                for worker in range(2):
                    os.kill(server.child(f"worker {worker}"), signal.SIGKILL)
        grace.wait_texts(*sent)
        ada.wait_texts(*sent)
        ada.wait_status("number 11", "Read")
        browser.assert_well(may_lose_connection=True)
        browser.close_visitors()


def test_a_network_that_goes_silent(browser: Browser, tmp_path: Path) -> None:
    """Nothing closes the connection, yet the page finds out and says so; both sides' messages arrive once when the network is back."""
    with Server(tmp_path, workers=2) as server, StallingProxy(server.port) as proxy:
        ada, grace = two_who_chat(browser, server, proxy.port)
        proxy.stall()
        ada.write("into the tunnel")
        grace.write("to the train")
        # Nobody can know yet: it says that it is being sent, and not that it was.
        ada.wait_status("into the tunnel", "Being sent")
        grace.wait_status("to the train", "Sent")
        expect(ada.bar).to_be_visible(timeout=SILENCE)
        ada.wait_status("into the tunnel", "Waiting to be sent")
        expect(grace.page.locator("#peer-state")).to_have_text("Offline", timeout=SILENCE)
        proxy.restore()
        expect(ada.bar).to_be_hidden(timeout=SILENCE)
        ada.wait_status("into the tunnel", "Read")
        grace.wait_status("to the train", "Read")
        for tab in (ada, grace):
            assert sorted(tab.texts()) == ["into the tunnel", "one", "to the train", "two"]
        browser.assert_well(may_lose_connection=True)
        browser.close_visitors()


def test_a_network_that_is_cut_again_and_again(browser: Browser, tmp_path: Path) -> None:
    """A brief cut is not worth a word; every message arrives, once, in order."""
    with Server(tmp_path, workers=3) as server, StallingProxy(server.port) as proxy:
        ada, grace = two_who_chat(browser, server, proxy.port)
        ada_sent, grace_sent = [], []
        for number in range(9):
            ada.write(f"ada {number}")
            ada_sent.append(f"ada {number}")
            if number % 3 == 1:
                proxy.cut()
            grace.write(f"grace {number}")
            grace_sent.append(f"grace {number}")
        ada.wait_online()
        ada.wait_status("ada 8", "Read")
        grace.wait_status("grace 8", "Read")
        for tab in (ada, grace):
            wait_until(lambda tab=tab: len(tab.texts()) == 20, "all messages")  # type: ignore[misc]
            assert [text for text in tab.texts() if text.startswith("ada")] == ada_sent
            assert [text for text in tab.texts() if text.startswith("grace")] == grace_sent
        browser.assert_well(may_lose_connection=True)
        browser.close_visitors()


@pytest.mark.parametrize(
    ("code", "reason", "says", "button"),
    [
        (4001, "replaced", "You are connected in more places than the server allows", "Use it here"),
        (
            1008,
            "too many invalid messages",
            "ended the connection (1008: too many invalid messages)",
            "Connect again",
        ),
    ],
)
def test_an_end_for_good(
    browser: Browser, tmp_path: Path, code: int, reason: str, says: str, button: str
) -> None:
    """The page does not come back by itself, says why, and has a button; what was written meanwhile is sent then."""
    routes: list[WebSocketRoute] = []

    def pass_on(route: WebSocketRoute) -> None:
        route.connect_to_server()
        routes.append(route)

    with Server(tmp_path, workers=2) as server:
        other = browser.join(page_url(server), "Other One")
        visitor = browser.visitor(page_url(server))
        visitor.context.route_web_socket("**/ws", pass_on)
        tab = visitor.tab()
        tab.join("Ended")
        tab.open_chat("Other One")
        routes[0].close(code=code, reason=reason)
        expect(tab.bar).to_contain_text(says)
        expect(tab.page.locator("#me-state")).to_have_text("Disconnected")
        tab.write("written meanwhile")
        tab.wait_status("written meanwhile", "Waiting to be sent")
        assert len(routes) == 1
        tab.bar.get_by_role("button", name=button).click()
        tab.wait_online()
        expect(tab.bar).to_be_hidden()
        other.open_chat("Ended")
        other.wait_texts("written meanwhile")
        tab.wait_status("written meanwhile", "Read")
        browser.assert_well()
        browser.close_visitors()


def test_a_server_that_refuses_the_page(browser: Browser, tmp_path: Path) -> None:
    """A browser does not say why; the page finds out that the server is there, and what may have to be set. One need not wait."""
    refusing = True

    def refuse(route: WebSocketRoute) -> None:
        if refusing:
            route.close(code=1011)
        else:
            route.connect_to_server()

    with Server(tmp_path, workers=1) as server:
        visitor = browser.visitor(page_url(server))
        # The longest delays, so that the page does not come back by itself before the button is used.
        visitor.context.add_init_script("Math.random = () => 0.99")
        visitor.context.route_web_socket("**/ws", refuse)
        tab = visitor.tab()
        tab.page.get_by_label("What is your name?").fill("Refused")
        tab.page.keyboard.press("Enter")
        expect(tab.bar).to_contain_text("it may have to be allowed", timeout=PATIENCE)
        expect(tab.bar).to_contain_text(re.compile(r"Connecting in [678] s…"), timeout=PATIENCE)
        refusing = False
        tab.bar.get_by_role("button", name="Try now").click()
        expect(tab.page.locator("#me-state")).to_have_text("Online", timeout=2000)
        expect(tab.bar).to_be_hidden()
        browser.assert_well(may_lose_connection=True)
        browser.close_visitors()
