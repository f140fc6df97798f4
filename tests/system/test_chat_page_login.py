"""The chat page of a server whose users log in with an application, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

import pytest
from playwright.sync_api import Route, expect

from tests.core.token_forge import SECRET, forge
from tests.system.browser import PATIENCE, Browser, page_url
from tests.system.harness import Server
from tests.system.servers import shared_server
from tests.system.test_chat_page_names import link_of
from tests.system.test_chat_page_safety import assert_accessible, axe

__all__ = ["axe"]  # a fixture of the others

pytestmark = pytest.mark.slow

#: Where the application would be.
LOGIN: Final = "http://localhost/login?x=%27y%27&z=%22"


@pytest.fixture(scope="module")
def server(
    chromium: Browser, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that wants tokens, and knows where users get them."""
    settings = {"auth": "jwt", "jwt_key": SECRET, "jwt_leeway": 0, "login_url": LOGIN, "workers": 2}
    with shared_server(pytestconfig, tmp_path_factory, **settings) as server:
        yield server


def token(name: str, seconds: float = 600.0, user: str | None = None) -> str:
    return forge({"sub": user or str(uuid4()), "name": name, "exp": time.time() + seconds})


class Application:
    """The login page of an application: it sends the browser back at once, with a token for whoever it says."""

    def __init__(self, server: Server, name: str) -> None:
        self.user = str(uuid4())
        self.seconds = 600.0
        self.asked: list[str] = []
        self._home = page_url(server)
        self._name = name

    def __call__(self, route: Route) -> None:
        self.asked.append(route.request.url)
        made = token(self._name, self.seconds, self.user)
        route.fulfill(status=302, headers={"Location": f"{self._home}#token={made}"})


def test_a_guest_logs_in_and_is_where_the_link_led(browser: Browser, server: Server, axe: str) -> None:
    """No name and no token is asked for; the invitation is not lost on the way, and the token is not kept in the address."""
    owner = browser.visitor(page_url(server)).tab(f"#token={token('Ada Lovelace')}")
    owner.wait_online()
    link = link_of(owner)
    visitor = browser.visitor(link)
    application = Application(server, "Grace Hopper")
    visitor.context.route("http://localhost/login**", application)
    guest = visitor.tab()
    expect(guest.page.locator("#welcome-text")).to_have_text("Ada Lovelace invites you to chat.")
    expect(guest.page.get_by_label("What is your name?")).to_be_hidden()
    assert_accessible(guest, axe, "welcome with a login")
    login = guest.page.get_by_role("link", name="Log in")
    assert login.get_attribute("href") == LOGIN
    login.click()
    guest.wait_online()
    assert application.asked == [LOGIN]
    expect(guest.page.locator("#me-name .name")).to_have_text("Grace Hopper")
    expect(guest.page.locator("#peer-name")).to_have_text("Ada Lovelace")
    assert guest.page.url == link.partition("&name=")[0]
    guest.write("Hello, Ada!")
    owner.open_chat("Grace Hopper")
    owner.wait_texts("Hello, Ada!")


def test_a_login_that_has_run_out(browser: Browser, server: Server, axe: str) -> None:
    """The page says so with a link in place of the field; what was written meanwhile is sent after the way there and back."""
    friend = browser.visitor(page_url(server)).tab(f"#token={token('Friend')}")
    friend.wait_online()
    visitor = browser.visitor(page_url(server))
    application = Application(server, "Late Comer")
    application.seconds = 5.0
    visitor.context.route("http://localhost/login**", application)
    tab = visitor.tab()
    tab.page.get_by_role("link", name="Log in").click()
    tab.wait_online()
    tab.open_chat("Friend")
    said = tab.page.locator("#connection-text")
    expect(said).to_have_text(
        "Your login has run out. What you write waits until you log in again.", timeout=PATIENCE
    )
    expect(tab.page.get_by_label("Token", exact=True)).to_be_hidden()
    assert_accessible(tab, axe, "a login that has run out")
    tab.write("written too late")
    tab.wait_status("written too late", "Waiting to be sent")
    tab.field.fill("a draft")
    application.seconds = 600.0
    tab.bar.get_by_role("link", name="Log in").click()
    tab.wait_online()
    tab.wait_status("written too late", "Delivered")
    expect(tab.field).to_have_value("a draft")
    expect(tab.bar).to_be_hidden()


def test_who_is_known_here_and_has_no_token(browser: Browser, server: Server) -> None:
    """A new tab says that one has to log in; a token by hand still works, from a link."""
    visitor = browser.visitor(page_url(server))
    tab = visitor.tab()
    tab.page.evaluate(
        "user => localStorage.setItem('fastchat::identity', JSON.stringify({userId: user, name: 'Known Here'}))",
        str(uuid4()),
    )
    tab.page.reload()
    expect(tab.bar.locator("#connection-text")).to_have_text("Log in to chat here.", timeout=PATIENCE)
    expect(tab.bar.get_by_role("link", name="Log in")).to_be_focused()
    made: Any = token("By Hand")
    tab.page.evaluate("token => { location.hash = `token=${token}`; }", made)
    tab.wait_online()
    expect(tab.page.locator("#me-name .name")).to_have_text("By Hand")
