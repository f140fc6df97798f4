"""Who is who on the chat page, in a real browser: who invites, and people of one name."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from tests.system.browser import PATIENCE, PHONE, Browser, Tab, page_url
from tests.system.harness import Server
from tests.system.test_chat_page_safety import SCRIPTS, assert_only_text

pytestmark = pytest.mark.slow

NOBODY: Final = "One-to-one chat with whoever is here."


def link_of(tab: Tab) -> str:
    """The invitation that the page offers."""
    tab.page.locator("#me").click()
    link = tab.page.get_by_label("Your link").input_value()
    tab.page.keyboard.press("Escape")
    return link


def user_of(tab: Tab) -> str:
    return link_of(tab).rpartition("#")[2].partition("&")[0]


def test_an_invitation_says_who_invites(browser: Browser, server: Server) -> None:
    """Before the guest has said a name, and in the chat until the server says it; a new name makes another link."""
    owner = browser.join(page_url(server), "Ünal & Söhne")
    link = link_of(owner)
    user = user_of(owner)
    assert link == f"{page_url(server)}#{user}&name={quote('Ünal & Söhne', safe='')}"
    guest = browser.visitor(link).tab()
    expect(guest.page.locator("#welcome-text")).to_have_text("Ünal & Söhne invites you to chat.")
    guest.join("A Guest")
    expect(guest.page.locator("#peer-name")).to_have_text("Ünal & Söhne")
    assert guest.page.url == f"{page_url(server)}#{user}", "the name is not kept in the address"
    guest.write("I am here.")
    guest.wait_status("I am here.", "Delivered")

    owner.page.locator("#me").click()
    owner.page.get_by_label("Name", exact=True).fill("Another Name")
    owner.page.get_by_role("button", name="Save").click()
    owner.wait_online()
    assert link_of(owner) == f"{page_url(server)}#{user}&name=Another%20Name"


def test_a_link_can_not_name_somebody_else(browser: Browser, server: Server) -> None:
    """What the server says counts as soon as it says something, also for the chats of somebody who is offline."""
    owner = browser.join(page_url(server), "Real Name")
    user = user_of(owner)
    owner.page.close()
    guest = browser.visitor(f"{page_url(server)}#{user}&name=Your%20Bank").tab()
    expect(guest.page.locator("#welcome-text")).to_have_text("Your Bank invites you to chat.")
    guest.join("Careful Guest")
    expect(guest.page.locator("#peer-name")).to_have_text("Real Name", timeout=PATIENCE)
    stranger = browser.visitor(f"{page_url(server)}#{uuid4()}&name=Real%20Name").tab()
    stranger.join("Other Guest")
    expect(stranger.page.locator("#top")).to_contain_text("Nobody with this link has been here yet")


@pytest.mark.attack("HTML and scripts")
def test_scripts_in_the_name_of_an_invitation_stay_text(browser: Browser, server: Server) -> None:
    """It is cleaned as display names are: no markup, nothing that can't be seen or turns text round, and no more than a name has."""
    visitor = browser.visitor(page_url(server))
    tab = visitor.tab()
    user = uuid4()
    shown = tab.page.locator("#welcome-text")
    for script in SCRIPTS[::3]:
        tab.page.goto("about:blank")
        tab.page.goto(f"{page_url(server)}#{user}&name={quote(script, safe='')}")
        expect(tab.page.get_by_label("What is your name?")).to_be_focused()
        assert_only_text(tab)
    for name, cleaned in (
        ("\u202eecaf\u202c dnA\u200b", "ecaf dnA"),
        ("two\nlines\x00\x07", "two lines"),
        ("<b>Bold</b> <img src=x onerror=alert(1)>", "Bold"),
        ("x" * 50, "x" * 50),
        ("x" * 51, ""),
        ("x" * 100_000, ""),
        ("e\u0301" * 50, "é" * 50),
        ("\u200b \u2060", ""),
        ("%", ""),
    ):
        tab.page.goto("about:blank")
        encoded = name if name == "%" else quote(name, safe="")
        tab.page.goto(f"{page_url(server)}#{user}&name={encoded}")
        expect(shown).to_have_text(f"{cleaned} invites you to chat." if cleaned else NOBODY)
        assert_only_text(tab)
    for fragment in ("#&name=Ada", "#<b>&name=Ada", "#name=Ada", f"#{user}&names=Ada"):
        tab.page.goto("about:blank")
        tab.page.goto(page_url(server) + fragment)
        expect(shown).to_have_text(NOBODY)


@pytest.mark.parametrize("viewport", [None, PHONE])
def test_people_of_one_name_are_told_apart(browser: Browser, server: Server, viewport: object) -> None:
    """By the beginning of their ids, in the list and above the chat; a name that nobody else has stands alone."""
    options = {} if viewport is None else {"viewport": viewport}
    name = "Twin " + ("Desk" if viewport is None else "Phone")
    tab = browser.join(page_url(server), f"Watching {name}", **options)
    twins = [browser.join(page_url(server), each) for each in (name, name.upper())]
    other = browser.join(page_url(server), f"Only {name}")
    ids = [user_of(twin) for twin in twins]
    for twin, user in zip((name, name.upper()), ids, strict=True):
        entry = tab.page.locator(f'#people a[href="#{user}"]')
        expect(entry.locator(".name")).to_have_text(twin, timeout=PATIENCE)
        expect(entry.locator(".tag")).to_have_text(user[:4])
        entry.click()
        expect(tab.page.locator("#peer-tag")).to_have_text(user[:4])
        tab.page.keyboard.press("Escape")
    expect(tab.person(f"Only {name}").locator(".tag")).to_have_count(0)
    tab.open_chat(f"Only {name}")
    expect(tab.page.locator("#peer-tag")).to_have_text("")
    tab.page.keyboard.press("Escape")
    # One of them takes another name.
    twins[1].page.locator("#me").click()
    twins[1].page.get_by_label("Name", exact=True).fill(f"No {name}")
    twins[1].page.get_by_role("button", name="Save").click()
    expect(tab.page.locator(f'#people a[href="#{ids[0]}"] .tag')).to_have_count(0, timeout=PATIENCE)
    other.wait_online()
