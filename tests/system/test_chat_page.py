"""The chat page as people use it, in a real browser, against a server with several workers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Self
from uuid import uuid4

import pytest
from playwright.sync_api import expect
from websockets.sync.client import connect

from tests.system.browser import PATIENCE, Browser, Tab, page_url
from tests.system.harness import Server
from tests.system.servers import shared_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(
    chromium: Browser, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with three workers."""
    with shared_server(pytestconfig, tmp_path_factory, workers=3) as server:
        yield server


class Bot:
    """Somebody who speaks the bare protocol and acknowledges nothing by hand. A context manager."""

    def __init__(self, server: Server, name: str) -> None:
        self.user_id = str(uuid4())
        self._name = name
        self._connect = connect(server.url)

    def __enter__(self) -> Self:
        self._connection = self._connect.__enter__()
        self.send("HELLO", user_id=self.user_id, display_name=self._name)
        self.receive("HELLO_ACK")
        return self

    def __exit__(self, *error: Any) -> None:
        self._connect.__exit__(*error)

    def send(self, kind: str, **data: Any) -> None:
        self._connection.send(json.dumps({"type": kind, "data": data}))

    def receive(self, kind: str) -> dict[str, Any]:
        """The data of the next message of this kind."""
        while True:
            message = json.loads(self._connection.recv(timeout=PATIENCE / 1000))
            if message["type"] == kind:
                data: dict[str, Any] = message["data"]
                return data

    def open_chat(self, user_id: str) -> None:
        self.send("OPEN_CHAT", target_user_id=user_id, target_display_name="Somebody")
        self.receive("CHAT_OPENED")

    def write(self, user_id: str, *texts: str) -> None:
        """Send messages, each when the one before it was taken."""
        for text in texts:
            self.send("MSG", to=user_id, content=text)
            self.receive("MSG_ACK")


def user_id_of(tab: Tab) -> str:
    """The user id that the page has chosen."""
    identity = tab.page.evaluate("localStorage.getItem('fastchat::identity')")
    return str(json.loads(identity)["userId"])


NAMES: Final = ("Ada Lovelace", "Grace Hopper", "Barbara Liskov")


def test_two_people_chat(browser: Browser, server: Server) -> None:
    """They see each other, open a chat by clicking, write, see typing, and what became of their messages."""
    ada, grace = (browser.join(page_url(server), name) for name in NAMES[:2])
    ada.open_chat(NAMES[1])
    ada.write("Hello, Grace!")
    grace.wait_unread(NAMES[0], 1)
    grace.wait_title("(1) FastChat")
    ada.wait_status("Hello, Grace!", "Delivered")
    grace.open_chat(NAMES[0])
    grace.wait_texts("Hello, Grace!")
    ada.wait_status("Hello, Grace!", "Read")
    grace.wait_unread(NAMES[0], 0)
    grace.wait_title("Ada Lovelace · FastChat")
    expect(grace.page.locator(".day")).to_have_text(["Today"])

    grace.field.press_sequentially("And")
    expect(ada.page.locator("#peer-state")).to_have_text("typing…")
    expect(ada.page.locator("#typing")).to_be_visible()
    expect(ada.person(NAMES[1]).locator(".preview")).to_have_text("typing…")
    grace.field.fill("one\ntwo <3")
    grace.field.press("Shift+Enter")
    expect(grace.field).to_have_value("one\ntwo <3\n")
    grace.field.press("Enter")
    expect(ada.page.locator("#typing")).to_be_hidden()
    ada.wait_texts("Hello, Grace!", "one\ntwo <3")
    grace.wait_status("one\ntwo <3", "Read")
    assert [element.get_attribute("class") for element in ada.page.locator(".message").element_handles()] == [
        "message own first last",
        "message theirs first last",
    ]


def test_three_people_come_and_go(browser: Browser, server: Server) -> None:
    """Who comes is seen by everybody else at once, who goes is gone after the grace; nobody sees themselves; chats are apart."""
    tabs = [browser.join(page_url(server), name) for name in ("Katherine", "Dorothy", "Mary Jackson")]
    katherine, dorothy, mary = tabs
    for tab, others in ((katherine, ("Dorothy", "Mary Jackson")), (mary, ("Dorothy", "Katherine"))):
        for name in others:
            expect(tab.person(name)).to_be_visible(timeout=PATIENCE)
    expect(katherine.person("Katherine")).to_have_count(0)
    katherine.open_chat("Dorothy")
    katherine.write("for Dorothy")
    katherine.open_chat("Mary Jackson")
    katherine.write("for Mary")
    dorothy.open_chat("Katherine")
    dorothy.wait_texts("for Dorothy")
    mary.open_chat("Katherine")
    mary.wait_texts("for Mary")
    dorothy.page.close()
    expect(mary.person("Dorothy")).to_have_count(0, timeout=PATIENCE)
    expect(katherine.person("Dorothy").locator(".dot")).to_have_count(0, timeout=PATIENCE)
    katherine.open_chat("Dorothy")
    expect(katherine.page.locator("#peer-state")).to_have_text("Offline")
    katherine.write("when you are back")
    katherine.wait_status("when you are back", "Sent")


def test_only_what_was_seen_is_read(browser: Browser, server: Server) -> None:
    """Not what came while the page was hidden, and not what is below the part of the chat that one looks at."""
    reader = browser.join(page_url(server), "Reader", viewport={"width": 900, "height": 500})
    writer = browser.join(page_url(server), "Writer")
    writer.open_chat("Reader")
    long = [f"line {number}\n" + "\n".join(["."] * 8) for number in range(6)]
    writer.write(*long)
    reader.open_chat("Writer")
    expect(reader.page.locator(".new h3")).to_have_text("New messages")
    # The reader begins at the first new message, and scrolls on.
    writer.wait_status(long[0], "Read")
    writer.wait_status(long[5], "Delivered")
    reader.page.locator("#log").press("End")
    writer.wait_status(long[5], "Read")
    reader.wait_unread("Writer", 0)

    reader.hide()
    writer.write("while hidden")
    reader.wait_title("(1) Writer · FastChat")
    writer.wait_status("while hidden", "Delivered")
    reader.hide(False)
    writer.wait_status("while hidden", "Read")
    reader.wait_title("Writer · FastChat")

    reader.page.locator("#log").press("Home")
    jump = reader.page.get_by_role("button", name="Latest messages")
    expect(jump).to_be_visible()
    writer.write("far below")
    jump = reader.page.get_by_role("button", name="1 new message")
    expect(jump).to_be_visible(timeout=PATIENCE)
    writer.wait_status("far below", "Delivered")
    jump.click()
    writer.wait_status("far below", "Read")
    expect(jump).to_be_hidden()


def test_history_comes_on_scrolling_back(browser: Browser, server: Server) -> None:
    """Page by page, up to the first message; what one reads does not move while older ones come above it."""
    tab = browser.join(page_url(server), "Archivist")
    me = user_id_of(tab)
    with Bot(server, "Chronicler") as bot:
        bot.open_chat(me)
        texts = [f"number {number}" for number in range(130)]
        bot.write(me, *texts)
        expect(tab.person("Chronicler").locator(".badge")).to_have_text(
            re.compile(r"^99\+"), timeout=PATIENCE
        )
        tab.page.reload()
        tab.wait_online()
        tab.open_chat("Chronicler")
        # Reading begins at the first one; here it ends at the last.
        expect(tab.page.locator(".new + .message .text")).to_have_text(texts[0])
        tab.page.locator("#jump").click()
        tab.wait_unread("Chronicler", 0)
        tab.page.reload()
        tab.wait_online()
        expect(tab.message(texts[-1])).to_be_visible()
        tab.page.wait_for_function("document.querySelectorAll('.message').length >= 40")
        # How far the message that is at the top moves when older ones are put above it.
        moved, pages = tab.page.evaluate(
            """async () => {
                const log = document.getElementById("log");
                let most = 0;
                for (let pages = 0; pages < 50; pages++) {
                    log.scrollTop = Math.min(log.scrollTop, 200);
                    const edge = log.getBoundingClientRect().top;
                    const messages = [...document.querySelectorAll(".message")];
                    const first = messages.find((message) => message.getBoundingClientRect().bottom > edge);
                    const before = first.getBoundingClientRect().top;
                    const start = performance.now();
                    while (document.querySelectorAll(".message").length === messages.length) {
                        if (document.getElementById("top").textContent.includes("begins")) return [most, pages];
                        if (performance.now() - start > 15000) throw new Error("no older messages came");
                        await new Promise(requestAnimationFrame);
                    }
                    most = Math.max(most, Math.abs(first.getBoundingClientRect().top - before));
                }
            }"""
        )
        assert pages >= 2, "older messages came before they were asked for"
        assert moved <= 2, f"what one reads moved by {moved} pixels"
        assert tab.texts() == texts
        expect(tab.page.locator("#top")).to_have_text(re.compile("This is where your chat begins"))


def test_two_tabs_are_two_devices_of_one_person(browser: Browser, server: Server) -> None:
    """Both show all that is written and received, and how far it is; what is read in one is read in both; a reload keeps it."""
    visitor = browser.visitor(page_url(server))
    first = visitor.tab()
    first.join("Twofold")
    second = visitor.tab()
    second.wait_online()
    other = browser.join(page_url(server), "Other One")
    expect(other.person("Twofold")).to_have_count(1, timeout=PATIENCE)
    first.open_chat("Other One")
    first.write("from the first tab")
    second.open_chat("Other One")
    second.wait_texts("from the first tab")
    second.write("from the second tab")
    first.wait_texts("from the first tab", "from the second tab")
    other.wait_unread("Twofold", 2)
    other.open_chat("Twofold")
    for tab in (first, second):
        for text in ("from the first tab", "from the second tab"):
            tab.wait_status(text, "Read")
    second.page.keyboard.press("Escape")
    first.hide()
    second.hide()
    other.write("for both")
    for tab in (first, second):
        tab.wait_title(re.sub("^", "(1) ", "Other One · FastChat" if tab is first else "FastChat"))
    first.hide(False)
    second.hide(False)
    second.wait_title("FastChat")
    other.wait_status("for both", "Read")
    second.page.reload()
    second.wait_online()
    second.wait_unread("Other One", 0)
    second.open_chat("Other One")
    second.wait_texts("from the first tab", "from the second tab", "for both")
    second.wait_status("from the first tab", "Read")


def test_a_second_person_in_a_new_tab(browser: Browser, server: Server) -> None:
    """Who is alone can try it as two: the link opens somebody who is the tab's own; `?user=2` is one whom the browser keeps."""
    visitor = browser.visitor(page_url(server))
    alone = visitor.tab()
    alone.join("All Alone")
    alone.page.locator("#me").click()
    with visitor.context.expect_page() as opened:
        alone.page.locator("#settings").get_by_role("link", name="Open a second person").click()
    second = visitor.adopt(opened.value)
    second.join("Second One")
    alone.page.keyboard.press("Escape")
    alone.open_chat("Second One")
    alone.write("Hello, me.")
    second.open_chat("All Alone")
    second.wait_texts("Hello, me.")
    second.page.reload()
    second.wait_online()
    second.wait_texts("Hello, me.")
    third = visitor.tab("?user=2")
    third.join("Third One")
    again = visitor.tab("?user=2")
    again.wait_online()
    expect(again.page.locator("#me-name .name")).to_have_text("Third One")
    for name in ("All Alone", "Second One"):
        expect(again.person(name)).to_be_visible()


def test_a_new_name_and_a_link(browser: Browser, server: Server) -> None:
    """A name can be changed, in all tabs; a link brings somebody to a chat with its owner, even one who is offline."""
    visitor = browser.visitor(page_url(server))
    owner = visitor.tab()
    owner.join("Old Name")
    tab = visitor.tab()
    tab.wait_online()
    owner.page.locator("#me").click()
    link = owner.page.get_by_label("Your link").input_value()
    owner.page.get_by_label("Name", exact=True).fill("Li")
    owner.page.get_by_role("button", name="Save").click()
    expect(owner.page.locator("#settings-form-problem")).to_have_text("A name has at least 3 characters.")
    owner.page.get_by_label("Name", exact=True).fill("New Name")
    owner.page.get_by_role("button", name="Save").click()
    guest = browser.visitor(link).tab()
    guest.join("The Guest")
    expect(guest.page.locator("#peer-name")).to_have_text("New Name", timeout=PATIENCE)
    for each in (owner, tab):
        expect(each.page.locator("#me-name .name")).to_have_text("New Name")
        each.wait_online()
    guest.write("I have your link.")
    owner.open_chat("The Guest")
    owner.wait_texts("I have your link.")
    stranger = browser.visitor(page_url(server)).tab(f"#{uuid4()}")
    stranger.join("Stranger")
    expect(stranger.page.locator("#top")).to_contain_text("Nobody with this link has been here yet")
