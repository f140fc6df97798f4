"""Where the chat page asks for a token: scripts in one never run, it is accessible, and it leaves alone who needs none."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.core.token_forge import SECRET, forge
from tests.system.browser import DESKTOP, PATIENCE, PHONE, Browser, Visitor, page_url
from tests.system.harness import Server, StartServer
from tests.system.test_chat_page_safety import SCRIPTS, assert_accessible, assert_only_text, axe
from tests.system.test_chat_page_tokens import RUN_OUT, SHORT, come, field, server, token, user_of

pytestmark = pytest.mark.slow

__all__ = ["axe", "server"]  # fixtures of the others


def test_scripts_in_tokens(browser: Browser, server: Server) -> None:
    """As the name, as the subject, as the token, and in what the server says of it: text, or nothing at all."""
    for script in (script for script in SCRIPTS[::6] if not script.isidentifier()):
        visitor = browser.visitor(page_url(server))
        tab = visitor.tab(f"#token={forge({'sub': script, 'name': script, 'exp': time.time() + 600})}")
        expect(tab.page.get_by_label("What is your name?")).to_be_visible()
        assert_only_text(tab)
        assert tab.page.url == page_url(server)
        tab.page.goto("about:blank")
        tab.page.goto(f"{page_url(server)}#token={script}")
        expect(tab.page.get_by_label("What is your name?")).to_be_visible()
        assert tab.page.url == page_url(server)
        assert tab.page.evaluate("sessionStorage.length") == 0

    script = "<img src=x onerror=alert(6)>"

    def refuse(route: WebSocketRoute) -> None:
        details = {"type": "HELLO", "reason": script}
        error = {"code": "UNAUTHORIZED", "message": script, "details": details}
        route.on_message(lambda _: route.send(json.dumps({"type": "ERROR", "data": error})))

    visitor = browser.visitor(page_url(server))
    visitor.context.route_web_socket("**/ws", refuse)
    tab = visitor.tab(f"#token={token(str(uuid4()), name=script)}")
    expect(tab.bar).to_contain_text(f"The server does not take your token: {script}.")
    expect(tab.page.locator("#me-name .name")).to_have_text(script)
    field(tab).fill(script)
    field(tab).press("Enter")
    assert_only_text(tab)


def test_a_server_that_wants_no_token(browser: Browser, start_server: StartServer) -> None:
    """Does not look at it; its user is still the one of the tab, and only of that."""
    server = start_server()
    user = str(uuid4())
    visitor: Visitor = browser.visitor(page_url(server))
    tab = visitor.tab(f"#token={forge({'sub': user, 'name': 'Not Looked At'}, SECRET + '!')}")
    tab.wait_online()
    assert user_of(tab) == user
    plain = visitor.tab()
    plain.join("Without One")
    assert user_of(plain) != user
    expect(plain.person("Not Looked At")).to_be_visible()
    browser.assert_well()
    browser.close_visitors()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_axe_finds_nothing_in_the_question(
    browser: Browser, server: Server, axe: str, scheme: str, screen: str
) -> None:
    """For a token that is missing, about to end, and no good; by keyboard alone, and without anything beyond the edge of the screen."""
    size = DESKTOP if screen == "desktop" else PHONE
    options: dict[str, Any] = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
    tab = browser.visitor(page_url(server), **options).tab()
    tab.page.get_by_label("What is your name?").fill("Looking")
    tab.page.keyboard.press("Enter")
    expect(field(tab)).to_be_focused()
    assert_accessible(tab, axe, "no token")
    tab.page.keyboard.type("no token")
    tab.page.keyboard.press("Tab")
    expect(tab.bar.get_by_role("button", name="Use it")).to_be_focused()
    tab.page.keyboard.press("Enter")
    expect(tab.bar.get_by_role("alert")).not_to_be_empty()
    assert_accessible(tab, axe, "no token that is one")
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    soon = come(browser, server, f"Soon {scheme} {screen}", SHORT, **options)
    expect(soon.bar).to_contain_text("Your token ends in", timeout=PATIENCE)
    assert_accessible(soon, axe, "a token that ends")
    expect(soon.bar).to_contain_text(RUN_OUT, timeout=PATIENCE)
    assert_accessible(soon, axe, "a token that has ended")
    for each in (tab, soon):
        box = field(each).bounding_box()
        assert box is not None
        assert box["width"] >= 150
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]
