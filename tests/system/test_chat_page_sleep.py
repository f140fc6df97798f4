"""A device with the chat page on it sleeps longer than the server waits for a sign of life, and wakes (D27, D28).

All processes of the browser are suspended, as with the lid of a laptop: its sockets stay, and what comes meanwhile waits in them. On
loopback alone the server's Close and the browser's last words cross at once; behind a network that takes its time they do not.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.system.browser import Browser, Tab, page_url
from tests.system.delaying_proxy import DelayingProxy
from tests.system.harness import Server
from tests.system.test_chat_page import Bot

pytestmark = pytest.mark.slow

#: Milliseconds within which a page that woke must be there again, on a machine that has other things to do.
AWAKE: Final = 30_000
DELAY: Final = 0.04


def processes_of_the_browser() -> list[int]:
    """All processes of the Chromium that this test process has started."""
    parents: dict[int, int] = {}
    browsers: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if b"chrom" in (entry / "cmdline").read_bytes().partition(b"\0")[0]:
                browsers.add(int(entry.name))
        except OSError:
            continue  # it has just ended
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sorted(ours & browsers)


def sleep(seconds: float) -> None:
    """Suspend the whole browser for so long: that is what is tested, and not waited for."""
    suspended = processes_of_the_browser()
    assert len(suspended) >= 3, "a browser has more than one process"
    try:
        for pid in suspended:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for pid in suspended:
            os.kill(pid, signal.SIGCONT)


def watch(tab: Tab) -> None:
    """Let the page remember whether it ever shows a message as failed, or that it is disconnected for good."""
    tab.page.evaluate(
        """() => {
            window.shown = [];
            const look = () => {
                if (document.querySelector('.message[data-status="failed"]')) window.shown.push("failed");
                if (document.getElementById("connection").dataset.state === "closed") window.shown.push("closed");
            };
            new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true});
        }"""
    )


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [30.0, 60.0])
def test_d28_a_page_that_slept_comes_back_by_itself(browser: Browser, tmp_path: Path, seconds: float) -> None:
    """At once, and sends what is written after waking; nothing is ever shown as failed, and nobody is asked to do anything."""
    with (
        Server(tmp_path, workers=2, log_level="debug") as server,
        DelayingProxy(server.port, DELAY) as proxy,
        Bot(server, "Grace") as grace,
    ):
        ada = browser.join(page_url(server, proxy.port), "Ada")
        ada.open_chat("Grace")
        ada.write("before")
        assert grace.receive("MSG")["content"] == "before"
        watch(ada)
        sleep(seconds)
        ada.write("after waking")
        received = grace.receive("MSG")
        assert received["content"] == "after waking"
        expect(ada.page.locator("#me-state")).to_have_text("Online", timeout=AWAKE)
        expect(ada.bar).to_be_hidden(timeout=AWAKE)
        grace.write(received["from"], "good morning")
        ada.wait_texts("before", "after waking", "good morning")
        assert ada.page.evaluate("window.shown") == []
        assert "code=4002" in server.output(), "the server had given it up"
        assert "code=1008" not in server.output()
        browser.assert_well(may_lose_connection=True)
        browser.close_visitors()
