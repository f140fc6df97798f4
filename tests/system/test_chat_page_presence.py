"""The chat page says the truth about who is here, also where the server tells of nobody but the people one chats with (D21)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.system.browser import PATIENCE, Browser, Tab, page_url
from tests.system.harness import Server
from tests.system.servers import shared_server

pytestmark = pytest.mark.slow

ALONE = "Nobody else is here yet."
NONE_OF_THEM = "Nobody you chat with is online. Other people are not listed."
ONE_OF_THEM = "One of the people you chat with is online. Other people are not listed."


def wait_note(tab: Tab, text: str) -> None:
    """Wait until this is said below the list, with one's link."""
    expect(tab.page.locator("#nobody-text")).to_have_text(text, timeout=PATIENCE)
    expect(tab.page.locator("#invitation-link")).to_be_visible()


def test_d21_where_only_contacts_are_listed_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    """A stranger is here, so it does not say that nobody is; the link that it offers brings the two together, on two shards or one."""
    with Server(tmp_path, workers=3, presence="contacts") as server:
        ada, grace = browser.join(page_url(server), "Ada"), browser.join(page_url(server), "Grace")
        for tab in (ada, grace):
            wait_note(tab, NONE_OF_THEM)
            expect(tab.page.locator("#people a")).to_have_count(0)
            expect(tab.page.locator("#alone")).to_be_hidden()
        link = ada.page.locator("#invitation-link").input_value()
        grace.page.goto(link)
        expect(grace.page.locator("#peer-state")).to_have_text("Online", timeout=PATIENCE)
        grace.write("I have your link")
        for tab in (ada, grace):
            wait_note(tab, ONE_OF_THEM)
        ada.open_chat("Grace")
        ada.wait_texts("I have your link")
        expect(ada.page.locator("#peer-state")).to_have_text("Online")
        grace.page.close()
        wait_note(ada, NONE_OF_THEM)
        expect(ada.page.locator("#peer-state")).to_have_text("Offline")
        browser.assert_well()
        browser.close_visitors()


def test_d21_the_page_follows_a_switch_of_the_scope(
    browser: Browser, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What a server with more than 200 users says, and with fewer again, put on the wire between what the real one says."""
    routes: list[WebSocketRoute] = []

    def pass_on(route: WebSocketRoute) -> None:
        route.connect_to_server()
        routes.append(route)

    def tell(scope: str, *names: str) -> None:
        users = [{"user_id": name, "display_name": name, "online": True} for name in names]
        data: dict[str, Any] = {"users": users, "scope": scope}
        routes[0].send(json.dumps({"type": "PRESENCE", "data": data}))

    with shared_server(pytestconfig, tmp_path_factory, workers=2) as server:
        visitor = browser.visitor(page_url(server))
        visitor.context.route_web_socket("**/ws", pass_on)
        tab = visitor.tab()
        tab.join("Looking")
        tell("everyone")
        wait_note(tab, ALONE)
        expect(tab.page.locator("#alone")).to_be_visible()
        tell("everyone", "Ann", "Bob")
        expect(tab.person("Bob")).to_be_visible()
        expect(tab.page.locator("#nobody")).to_be_hidden()
        tell("contacts")
        wait_note(tab, NONE_OF_THEM)
        tell("contacts", "Ann", "Bob")
        wait_note(tab, "2 of the people you chat with are online. Other people are not listed.")
        tell("contacts", "Bob")
        wait_note(tab, ONE_OF_THEM)
        tell("contacts", *(f"Friend {number}" for number in range(9)))
        tab.page.locator("#search").fill("somebody else")
        wait_note(tab, "Nobody of that name is among the people you chat with.")
        tab.page.locator("#search").fill("Friend")
        wait_note(tab, "Other people are not listed.")
        tab.page.locator("#search").fill("")
        tell("everyone")
        wait_note(tab, ALONE)
        browser.assert_well()
        browser.close_visitors()
