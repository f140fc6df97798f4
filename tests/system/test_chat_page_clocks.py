"""The chat page where clocks do not agree, jump, or tell two messages apart no more: nothing that it counts or orders goes by them."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from uuid import uuid4

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.system.browser import PATIENCE, Browser, Tab, page_url
from tests.system.harness import Server

pytestmark = pytest.mark.slow

HOUR: Final = 3_600_000
#: A clock that is wrong by `window.wrong` milliseconds, and can be set.
WRONG_CLOCK: Final = "{ const now = Date.now; window.wrong = 0; Date.now = () => now() + window.wrong; }"


class Sender:
    """Somebody whose messages a test puts on the wire of one page, with any timestamps."""

    def __init__(self, routes: list[WebSocketRoute], me: str) -> None:
        self._routes = routes
        self._me = me
        self._count = 0
        self.user_id = str(uuid4())

    def write(self, *timestamps: str) -> None:
        """A message for each; the first opens the chat."""
        for timestamp in timestamps:
            self._count += 1
            self._say(
                "MSG",
                to=self._me,
                content=f"text {self._count}",
                message_id=f"m{self._count}",
                timestamp=timestamp,
                seq=self._count,
                cursor=f"0.{self._count}",
                **{"from": self.user_id},
            )

    def introduce(self, name: str) -> None:
        self._say(
            "CHAT_OPENED",
            chat_id=str(uuid4()),
            participants=[self._me, self.user_id],
            target_user_id=self.user_id,
            target_display_name=name,
        )

    def _say(self, kind: str, **data: Any) -> None:
        self._routes[-1].send(json.dumps({"type": kind, "data": data}))


def test_messages_of_one_millisecond_and_of_a_clock_set_back_count_each(
    browser: Browser, server: Server
) -> None:
    """Three in the same millisecond; a fourth in it when those have been read; and one an hour before. So they do after a reload.

    With a server that keeps no list of chats: one that does counts by itself.
    """
    routes: list[WebSocketRoute] = []

    def pass_on(route: WebSocketRoute) -> None:
        real = route.connect_to_server()

        def say(text: str | bytes) -> None:
            # Nothing of these messages means anything to the server.
            message = json.loads(text)
            if message["type"] == "HELLO":
                message["data"]["capabilities"] = ["receipts", "history", "resume", "presence_delta"]
            if message["type"] in ("HELLO", "PING"):
                real.send(json.dumps(message))

        route.on_message(say)
        routes.append(route)

    visitor = browser.visitor(page_url(server))
    visitor.context.route_web_socket("**/ws", pass_on)
    tab = visitor.tab()
    tab.join("Counting")
    me = json.loads(tab.page.evaluate("localStorage.getItem('fastchat::identity')"))["userId"]
    sender = Sender(routes, me)
    sender.introduce("Quick Writer")
    noon = "2030-01-01T12:00:00.000Z"
    sender.write(noon, noon, noon)
    tab.wait_unread("Quick Writer", 3)
    tab.wait_title("(3) FastChat")
    tab.open_chat("Quick Writer")
    tab.wait_unread("Quick Writer", 0)
    tab.page.locator("body").press("Escape")
    sender.write(noon)
    tab.wait_unread("Quick Writer", 1)
    sender.write("2030-01-01T11:00:00.000Z")
    tab.wait_unread("Quick Writer", 2)
    tab.page.reload()
    tab.wait_online()
    tab.wait_unread("Quick Writer", 2)
    browser.assert_well()


def wrong_clock(browser: Browser, server: Server, name: str, routes: Any = None) -> Tab:
    """Somebody on a device with `WRONG_CLOCK`."""
    visitor = browser.visitor(page_url(server))
    visitor.context.add_init_script(WRONG_CLOCK)
    if routes is not None:
        visitor.context.route_web_socket("**/ws", routes)
    tab = visitor.tab()
    tab.join(name)
    return tab


@pytest.mark.parametrize("wrong", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_last_words_are_the_last_on_a_device_whose_clock_is_wrong(
    browser: Browser, server: Server, wrong: int
) -> None:
    """Its own words and those of the other side, in the chat and in the list."""
    name = f"Wrong by {wrong // HOUR}"
    ada, grace = wrong_clock(browser, server, name), browser.join(page_url(server), f"Right for {name}")
    ada.page.evaluate("wrong => { window.wrong = wrong; }", wrong)
    ada.open_chat(f"Right for {name}")
    grace.open_chat(name)
    preview = ada.person(f"Right for {name}").locator(".preview")
    for number in range(3):
        ada.write(f"question {number}")
        expect(preview).to_have_text(f"You: question {number}", timeout=PATIENCE)
        ada.wait_status(f"question {number}", "Read")
        grace.write(f"answer {number}")
        expect(preview).to_have_text(f"answer {number}", timeout=PATIENCE)
    exchange = [f"{kind} {number}" for number in range(3) for kind in ("question", "answer")]
    ada.wait_texts(*exchange)
    grace.wait_texts(*exchange)


def test_what_waits_is_sent_in_the_order_written_whatever_the_clock_did(
    browser: Browser, server: Server
) -> None:
    """The clock is set back between the messages, the page is closed, and another one sends them."""
    is_down = False

    def pass_on(route: WebSocketRoute) -> None:
        if is_down:
            route.close(code=1011)
        else:
            route.connect_to_server()
            routes.append(route)

    routes: list[WebSocketRoute] = []
    grace = browser.join(page_url(server), "Patient Reader")
    ada = wrong_clock(browser, server, "Wrong Writer", pass_on)
    ada.open_chat("Patient Reader")
    ada.write("before")
    ada.wait_status("before", "Delivered")
    is_down = True
    routes[-1].close(code=1012, reason="server is restarting")
    expect(ada.bar).to_contain_text("Reconnecting", timeout=PATIENCE)
    texts = [f"text {number}" for number in range(8)]
    for number, text in enumerate(texts):
        # Twice the same time, and each pair earlier than the one before.
        ada.page.evaluate("wrong => { window.wrong = wrong; }", -HOUR * (number // 2))
        ada.write(text)
    ada.wait_status(texts[-1], "Waiting to be sent")
    ada.page.close()
    is_down = False
    again = Tab(ada.page.context.new_page(), browser.problems)
    again.page.goto(page_url(server))
    again.wait_online()
    grace.open_chat("Wrong Writer")
    grace.wait_texts("before", *texts)
    browser.assert_well(may_lose_connection=True)
    browser.close_visitors()


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [
        (1013, "try later", "The server has no room for this connection: try later. "),
        (1012, "server is restarting", "The server is restarting. "),
        (4002, "no sign of life", ""),
    ],
)
def test_a_clock_that_jumps_does_not_put_off_the_next_try(
    browser: Browser, server: Server, code: int, reason: str, says: str
) -> None:
    """Set back an hour while the page waits: the seconds that it tells are those that it waits, and coming back to it tries at once."""
    is_down = False

    def pass_on(route: WebSocketRoute) -> None:
        if is_down:
            route.close(code=1011)
        else:
            route.connect_to_server()
            routes.append(route)

    routes: list[WebSocketRoute] = []
    visitor = browser.visitor(page_url(server))
    visitor.context.add_init_script(WRONG_CLOCK + "Math.random = () => 0.99;")
    visitor.context.route_web_socket("**/ws", pass_on)
    tab = visitor.tab()
    tab.join("Waiting One")
    is_down = True
    tab.page.evaluate("() => { window.wrong = -3600000; }")
    routes[-1].close(code=code, reason=reason)
    first = re.compile(rf"^\s*{re.escape(says)}Reconnecting in \d s…")
    expect(tab.bar).to_have_text(first, timeout=PATIENCE) if code != 4002 else None
    expect(tab.bar).to_contain_text(re.compile(r"Reconnecting in \d\d? s…"), timeout=PATIENCE)
    is_down = False
    tab.hide()
    tab.hide(False)
    tab.wait_online()
    expect(tab.bar).to_be_hidden()
    browser.assert_well(may_lose_connection=True)
    browser.close_visitors()


def test_d16_a_name_that_can_not_be_seen_is_none(browser: Browser, server: Server) -> None:
    """The page says so before the server would."""
    tab = browser.visitor(page_url(server)).tab()
    field, problem = tab.page.get_by_label("What is your name?"), tab.page.locator("#welcome-form-problem")
    for name in ("\u200b\u200b\u200b", "\u3164\u3164\u3164", "a\u200b\u200b"):
        field.fill(name)
        field.press("Enter")
        expect(problem).not_to_be_empty()
    for name in (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",
    ):
        field.fill(name)
        expect(problem).to_be_empty()
    field.press("Enter")
    tab.wait_online()
