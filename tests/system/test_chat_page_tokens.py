"""The chat page where the server wants tokens, in a real browser: from a link, from the field, refused, run out and renewed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from playwright.sync_api import WebSocket, expect

from tests.core.token_forge import SECRET, encode, forge
from tests.system.browser import PATIENCE, Browser, Tab, page_url
from tests.system.harness import Server, StartServer
from tests.system.servers import shared_server

pytestmark = pytest.mark.slow

#: Seconds that a token of these tests holds which has to end; it is announced when half of that is over.
SHORT: Final = 6.0
WANTED: Final = "This server wants a token that proves who you are."
RUN_OUT: Final = "Your token has run out. What you write waits for a new one."


@pytest.fixture(scope="module")
def server(
    chromium: Browser, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that wants tokens, with two workers."""
    settings = {"auth": "jwt", "jwt_key": SECRET, "jwt_leeway": 0, "log_level": "debug", "workers": 2}
    with shared_server(pytestconfig, tmp_path_factory, **settings) as server:
        yield server


def token(user: str, seconds: float = 600.0, **claims: Any) -> str:
    return forge({"sub": user, "exp": time.time() + seconds} | claims)


def come(browser: Browser, server: Server, name: str, seconds: float = 600.0, **options: Any) -> Tab:
    """Somebody new, by a link, whose token says the name."""
    user = str(uuid4())
    tab = browser.visitor(page_url(server), **options).tab(f"#token={token(user, seconds, name=name)}")
    tab.wait_online()
    return tab


def field(tab: Tab) -> Any:
    return tab.page.get_by_label("Token", exact=True)


def kept(tab: Tab) -> dict[str, str]:
    """Everything that the browser keeps for all tabs."""
    stored: dict[str, str] = tab.page.evaluate("({...localStorage})")
    return stored


def user_of(tab: Tab) -> str:
    """Whose link the page offers."""
    tab.page.locator("#me").click()
    link = tab.page.get_by_label("Your link").input_value()
    tab.page.keyboard.press("Escape")
    return str(link.rpartition("#")[2].partition("&")[0])


# -- From the link --


def test_a_link_with_a_token(browser: Browser, server: Server) -> None:
    """Nobody is asked anything; the token is nowhere but in the tab, and holds for a reload."""
    user = str(uuid4())
    made = token(user, name="Ada Lovelace")
    visitor = browser.visitor(page_url(server))
    tab = visitor.tab()
    tab.page.goto("about:blank")
    tab.page.goto(f"{page_url(server)}#token={made}")
    assert tab.page.url == page_url(server)
    tab.wait_online()
    expect(tab.page.locator("#me-name .name")).to_have_text("Ada Lovelace")
    assert user_of(tab) == user
    expect(tab.bar).to_be_hidden()
    grace = come(browser, server, "Grace Hopper")
    grace.open_chat("Ada Lovelace")
    grace.write("Hello, Ada!")
    tab.open_chat("Grace Hopper")
    tab.wait_texts("Hello, Ada!")
    tab.page.reload()
    tab.wait_online()
    tab.wait_texts("Hello, Ada!")
    assert made not in json.dumps(kept(tab))
    assert made not in tab.page.content()
    tab.page.go_back()
    assert "token" not in tab.page.url
    tab.page.go_back()
    assert tab.page.url == "about:blank"
    assert not [part for part in made.split(".")[1:] if part in server.output()]


def test_a_link_without_a_name(browser: Browser, server: Server) -> None:
    """Who has none is asked for it, once; a token that says one decides (D34)."""
    user = str(uuid4())
    tab = browser.visitor(page_url(server)).tab(f"#token={token(user.upper())}")
    tab.join("Said It Myself")
    assert user_of(tab) == user
    for claimed in (None, "Said By The Token"):
        made = token(user) if claimed is None else token(user, name=claimed)
        again = Tab(tab.page.context.new_page(), browser.problems)
        again.page.goto(f"{page_url(server)}#token={made}")
        again.wait_online()
        expect(again.page.locator("#me-name .name")).to_have_text(
            claimed or "Said It Myself", timeout=PATIENCE
        )


def test_a_link_in_a_tab_that_is_open(browser: Browser, server: Server) -> None:
    """The same user goes on without a new connection; another one has the page to themselves, and nothing of the first one's."""
    first, second = str(uuid4()), str(uuid4())
    other = come(browser, server, "Other One")
    visitor = browser.visitor(page_url(server))
    tab = visitor.tab(f"#token={token(first, name='First One')}")
    tab.wait_online()
    tab.open_chat("Other One")
    tab.write("from the first")
    tab.field.fill("a draft")
    sockets: list[WebSocket] = []
    tab.page.on("websocket", lambda socket: sockets.append(socket))
    tab.page.evaluate("token => { location.hash = `token=${token}` }", token(first, name="Whoever"))
    expect(tab.page.locator("#announcer")).to_have_text("The new token is used.")
    assert tab.page.url == page_url(server)
    tab.open_chat("Other One")
    expect(tab.field).to_have_value("a draft")
    tab.page.evaluate("token => { location.hash = `token=${token}` }", token(second, name="Second One"))
    expect(tab.page.locator("#me-name .name")).to_have_text("Second One", timeout=PATIENCE)
    tab.wait_online()
    assert len(sockets) == 1, "one for the second user, and none for the first"
    assert user_of(tab) == second
    tab.open_chat("Other One")
    expect(tab.field).to_have_value("")
    tab.wait_texts()
    tab.write("from the second")
    other.open_chat("Second One")
    other.wait_texts("from the second")


def test_a_new_tab_has_no_token(browser: Browser, server: Server) -> None:
    """It asks for one, and is then another device of the same user, with all that the browser keeps of it."""
    user = str(uuid4())
    other = come(browser, server, "Companion")
    first = browser.visitor(page_url(server)).tab(f"#token={token(user, name='Two Tabs')}")
    first.wait_online()
    first.open_chat("Companion")
    first.write("from the first tab")
    second = Tab(first.page.context.new_page(), browser.problems)
    second.page.goto(page_url(server))
    second.page.get_by_label("What is your name?").fill("Nobody Yet")
    second.page.keyboard.press("Enter")
    expect(second.bar).to_contain_text(WANTED)
    assert "from the first tab" not in second.page.content()
    field(second).fill(token(user))
    field(second).press("Enter")
    second.wait_online()
    expect(second.page.locator("#me-name .name")).to_have_text("Two Tabs")
    second.open_chat("Companion")
    second.wait_texts("from the first tab")
    other.open_chat("Two Tabs")
    other.write("to both")
    for tab in (first, second):
        tab.wait_texts("from the first tab", "to both")


def test_to_be_forgotten_takes_the_token_along(browser: Browser, server: Server) -> None:
    tab = come(browser, server, "Forget Me")
    tab.page.locator("#me").click()
    for name in ("Forget me in this browser", "Really forget?"):
        tab.page.get_by_role("button", name=name).click()
    expect(tab.page.get_by_label("What is your name?")).to_be_visible()
    assert tab.page.evaluate("sessionStorage.length") == 0
    assert kept(tab) == {}


# -- From the field --


def test_the_field(browser: Browser, server: Server) -> None:
    """It says that a token is wanted, and why what was pasted is none; a link will do. The name that was said need not be said again."""
    user = str(uuid4())
    tab = browser.visitor(page_url(server)).tab()
    tab.page.get_by_label("What is your name?").fill("Barbara Liskov")
    tab.page.keyboard.press("Enter")
    expect(tab.bar.locator("#connection-text")).to_have_text(WANTED)
    expect(tab.page.locator("#announcer")).to_have_text(WANTED)
    expect(field(tab)).to_be_focused()
    assert tab.bar.get_by_role("button").all_inner_texts() == ["Use it"]
    for wrong in (
        "",
        "no token",
        "a.b.c",
        f"{encode(b'{}')}.{encode(b'[]')}.c",
        token("not <i>a</i> user"),
        "a.b",
    ):
        field(tab).fill(wrong)
        field(tab).press("Enter")
        expect(tab.bar.get_by_role("alert")).to_contain_text("This is not a token")
        expect(field(tab)).to_be_focused()
        expect(field(tab)).to_have_attribute("aria-invalid", "true")
    field(tab).fill(f"  {page_url(server)}#token={token(user)}\n")
    tab.bar.get_by_role("button", name="Use it").click()
    tab.wait_online()
    expect(tab.bar).to_be_hidden()
    expect(tab.page.locator("#me-name .name")).to_have_text("Barbara Liskov")
    assert user_of(tab) == user


def test_what_was_written_before_the_first_token(browser: Browser, server: Server) -> None:
    """By somebody who opened a friend's link: it is sent, the draft stays, and nobody else is left in the browser."""
    friend = come(browser, server, "Friend")
    user = str(uuid4())
    tab = browser.visitor(page_url(server)).tab(f"#{user_of(friend)}")
    tab.page.get_by_label("What is your name?").fill("Newcomer")
    tab.page.keyboard.press("Enter")
    expect(tab.bar).to_contain_text(WANTED)
    tab.write("written at once")
    tab.field.fill("a draft")
    field(tab).fill(token(user))
    field(tab).press("Enter")
    tab.wait_online()
    tab.wait_status("written at once", "Delivered")
    expect(tab.field).to_have_value("a draft")
    assert user_of(tab) == user
    assert {key.rpartition(":")[0] for key in kept(tab)} <= {f"fastchat:@{user}", f"fastchat:@{user}:draft"}
    friend.open_chat("Newcomer")
    friend.wait_texts("written at once")


def test_what_was_written_by_somebody_else_stays_theirs(browser: Browser, start_server: StartServer) -> None:
    """Who was online without a token does not become the user of a link that is opened in the same tab."""
    server = start_server()
    friend = browser.join(page_url(server), "Friend")
    tab = browser.join(page_url(server), "Known Here")
    tab.open_chat("Friend")
    tab.field.fill("a draft")
    made = token(str(uuid4()), name="Said By The Token")
    tab.page.evaluate("token => { location.hash = `token=${token}` }", made)
    expect(tab.page.locator("#me-name .name")).to_have_text("Said By The Token", timeout=PATIENCE)
    tab.open_chat("Friend")
    expect(tab.field).to_have_value("")
    again = Tab(tab.page.context.new_page(), browser.problems)
    again.page.goto(page_url(server))
    again.wait_online()
    expect(again.page.locator("#me-name .name")).to_have_text("Known Here")
    again.open_chat("Friend")
    expect(again.field).to_have_value("a draft")
    expect(friend.person("Said By The Token")).to_be_visible()
    browser.assert_well()
    browser.close_visitors()


def test_a_link_where_a_name_is_asked_for(browser: Browser, server: Server) -> None:
    """Opened in a tab that has the page already."""
    tab = browser.visitor(page_url(server)).tab()
    expect(tab.page.get_by_label("What is your name?")).to_be_visible()
    tab.page.evaluate("token => { location.hash = `token=${token}` }", token(str(uuid4()), name="Late Link"))
    tab.wait_online()
    expect(tab.page.locator("#me-name .name")).to_have_text("Late Link")
    assert tab.page.url == page_url(server)


def test_who_was_here_without_a_token_stays_who_it_is(browser: Browser, tmp_path: Path) -> None:
    """When the operator begins to want tokens: drafts and what waits belong to the user id, and go on with a token for it."""
    with Server(tmp_path) as server:
        port = server.port
        other = browser.join(page_url(server), "Other One")
        tab = browser.join(page_url(server), "Here Before")
        tab.open_chat("Other One")
        tab.write("before")
        other.open_chat("Here Before")
        other.wait_texts("before")
        ids = {each: user_of(each) for each in (tab, other)}
    expect(tab.bar).to_be_visible(timeout=PATIENCE)
    tab.write("meanwhile")
    tab.field.fill("a draft")
    with Server(tmp_path, port=port, auth="jwt", jwt_key=SECRET):
        for each in (tab, other):
            expect(each.bar).to_contain_text(WANTED, timeout=2 * PATIENCE)
            field(each).fill(token(ids[each]))
            field(each).press("Enter")
            each.wait_online()
        tab.wait_status("meanwhile", "Read")
        expect(tab.field).to_have_value("a draft")
        other.wait_texts("before", "meanwhile")
        browser.assert_well(may_lose_connection=True)
        browser.close_visitors()


# -- Refused --


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("signature", "The server does not take your token: the signature of the token is not right."),
        (
            "audience",
            "The server does not take your token: the token is not meant for this server: its `aud` says so.",
        ),
        ("early", "The server does not take your token: the token is not valid yet."),
        ("expired", RUN_OUT),
    ],
)
def test_a_token_that_is_refused(browser: Browser, server: Server, wrong: str, says: str) -> None:
    """The page says why, in words, and takes another; what was written meanwhile is sent then."""
    user = str(uuid4())
    other = come(browser, server, f"Friend of {wrong}")
    claims = {"sub": user, "exp": time.time() + 600, "name": f"With {wrong}"}
    made = {
        "signature": forge(claims, SECRET + "!"),
        "audience": forge(claims | {"aud": "shop"}),
        "early": forge(claims | {"nbf": time.time() + 300}),
        "expired": forge(claims | {"exp": time.time() - 1}),
    }[wrong]
    tab = browser.visitor(page_url(server)).tab(f"#token={made}")
    expect(tab.bar.locator("#connection-text")).to_have_text(says)
    expect(tab.page.locator("#me-state")).to_have_text("Disconnected")
    tab.page.reload()
    expect(tab.bar.locator("#connection-text")).to_have_text(says)
    tab.page.goto(f"{page_url(server)}#{user_of(other)}")
    tab.write("written meanwhile")
    tab.wait_status("written meanwhile", "Waiting to be sent")
    field(tab).fill(token(user))
    field(tab).press("Enter")
    tab.wait_online()
    expect(tab.bar).to_be_hidden()
    expect(tab.field).to_be_focused()
    tab.wait_status("written meanwhile", "Delivered")
    other.open_chat(f"With {wrong}")
    other.wait_texts("written meanwhile")


# -- Running out --


def test_a_token_that_runs_out(browser: Browser, server: Server) -> None:
    """The page says so; a draft, what waits and what was written to one meanwhile are there when there is another token, once."""
    other = come(browser, server, "Long Token")
    tab = come(browser, server, "Short Token", SHORT)
    user = user_of(tab)
    tab.open_chat("Long Token")
    tab.write("before")
    other.open_chat("Short Token")
    other.wait_texts("before")
    expect(tab.bar.locator("#connection-text")).to_have_text(RUN_OUT, timeout=PATIENCE)
    expect(tab.page.locator("#announcer")).to_contain_text(RUN_OUT)
    expect(tab.page.locator("#me-state")).to_have_text("Disconnected")
    tab.write("one", "two")
    tab.wait_status("two", "Waiting to be sent")
    tab.field.fill("a draft")
    other.write("to somebody who is away")
    tab.page.reload()
    expect(tab.bar.locator("#connection-text")).to_have_text(RUN_OUT)
    expect(tab.field).to_have_value("a draft")
    field(tab).fill(token(user))
    field(tab).press("Enter")
    tab.wait_online()
    expect(tab.bar).to_be_hidden()
    tab.wait_status("two", "Read")
    expect(tab.field).to_have_value("a draft")
    other.wait_texts("before", "to somebody who is away", "one", "two")
    expect(tab.page.locator(".message")).to_have_count(4)


def test_a_token_that_is_renewed_in_time(browser: Browser, server: Server) -> None:
    """A notice counts down, the field takes another one on the same connection, and nothing else happens."""
    other = come(browser, server, "Onlooker")
    visitor = browser.visitor(page_url(server))
    user = str(uuid4())
    sockets: list[WebSocket] = []
    visitor.context.on("page", lambda page: page.on("websocket", lambda socket: sockets.append(socket)))
    tab = visitor.tab(f"#token={token(user, SHORT, name='Renewed')}")
    tab.wait_online()
    tab.open_chat("Onlooker")
    notice = re.compile(r"^Your token ends in \d s\. With a new one you stay connected\.$")
    expect(tab.bar.locator("#connection-text")).to_have_text(notice, timeout=PATIENCE)
    expect(tab.page.locator("#announcer")).to_contain_text("Your token ends in")
    expect(tab.page.locator("#me-state")).to_have_text("Online")
    expect(tab.field).to_be_focused()  # who writes is not disturbed
    tab.field.press_sequentially("not lost")
    made = token(user)
    field(tab).fill(made)
    field(tab).press("Enter")
    expect(tab.bar).to_be_hidden()
    expect(tab.field).to_be_focused()
    tab.field.press("Enter")
    other.open_chat("Renewed")
    other.wait_texts("not lost")
    # A token that ends with the first one's time shows when that is over.
    late = come(browser, server, "Later One", SHORT)
    expect(late.bar.locator("#connection-text")).to_have_text(RUN_OUT, timeout=PATIENCE)
    expect(tab.page.locator("#me-state")).to_have_text("Online")
    expect(tab.bar).to_be_hidden()
    tab.write("and another")
    tab.wait_status("and another", "Read")
    assert len(sockets) == 1
    tab.page.reload()
    tab.wait_online()
    expect(tab.bar).to_be_hidden()
    assert not [part for part in made.split(".")[1:] if part in server.output()]


def test_a_token_of_somebody_who_can_not_be(browser: Browser, server: Server) -> None:
    """A subject that is no UUID, as an operator may try first: the page says so, and takes another."""
    tab = browser.visitor(page_url(server)).tab(f"#token={token('alice', name='Alice')}")
    expect(tab.bar).to_contain_text("The server does not take your token: `user_id` must be UUID v4")
    user = str(uuid4())
    field(tab).fill(token(user, name="Alice"))
    field(tab).press("Enter")
    tab.wait_online()
    assert user_of(tab) == user


def test_a_new_token_that_is_refused(browser: Browser, server: Server) -> None:
    """Of another key, while the old one still holds: the page says so, and takes the next."""
    tab = come(browser, server, "Wrong Then Right", SHORT)
    user = user_of(tab)
    expect(tab.bar).to_contain_text("Your token ends in", timeout=PATIENCE)
    field(tab).fill(forge({"sub": user, "exp": time.time() + 600}, SECRET + "!"))
    field(tab).press("Enter")
    expect(tab.bar).to_contain_text(
        "The server does not take your token: the signature of the token is not right."
    )
    field(tab).fill(token(user))
    field(tab).press("Enter")
    tab.wait_online()
    expect(tab.bar).to_be_hidden()


# -- The name in the token --


def test_d34_a_name_in_the_token_holds_whatever_the_page_says(browser: Browser, server: Server) -> None:
    """Also one that is too short for HELLO: the page comes back with it after a reload, and another name does not stay."""
    tab = come(browser, server, "Li")
    expect(tab.page.locator("#me-name")).to_contain_text("Li")
    tab.page.locator("#me").click()
    tab.page.get_by_label("Name", exact=True).fill("The Boss")
    tab.page.get_by_role("button", name="Save").click()
    expect(tab.page.locator("#me-name")).to_contain_text("Li", timeout=PATIENCE)
    tab.page.reload()
    tab.wait_online()
    expect(tab.page.locator("#me-name")).to_contain_text("Li")
