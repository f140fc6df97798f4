"""The list of chats on the page, which is the server's: two devices of one user, reading, hiding, muting, blocking, in a real browser."""

from __future__ import annotations

from typing import Any, Final

import pytest
from playwright.sync_api import expect

from tests.system.browser import DESKTOP, PATIENCE, PHONE, Browser, Tab, page_url
from tests.system.harness import Server

pytestmark = pytest.mark.slow

MANY: Final = 30
#: What the browser keeps of this person, without who it is and the copy of the list.
KEPT: Final = "() => Object.keys(localStorage).filter((key) => !/:(identity|chats)$/.test(key))"


def identity(tab: Tab) -> dict[str, str]:
    """Who the person of a tab is, as another browser would be told."""
    found: dict[str, str] = tab.page.evaluate("() => ({...localStorage})")
    return {name: value for name, value in found.items() if name.endswith("identity")}


def second_device(browser: Browser, server: Server, tab: Tab, viewport: Any = None) -> Tab:
    """A browser of its own for the same user: it knows who that is, and nothing else."""
    visitor = browser.visitor(page_url(server), viewport=viewport or DESKTOP)
    script = "".join(f"localStorage[{name!r}] = {value!r};" for name, value in identity(tab).items())
    visitor.context.add_init_script(f"if (!localStorage.length) {{ {script} }}")
    other = visitor.tab()
    other.wait_online()
    return other


def badge(tab: Tab, name: str) -> Any:
    return tab.person(name).locator(".badge")


def test_d30_d31_two_devices_of_one_user(browser: Browser, server: Server) -> None:
    """The second one has the list at once; reading on it clears the badge on the first, and it shows where reading begins."""
    first, friend = (
        browser.join(page_url(server), "Two Devices"),
        browser.join(page_url(server), "List Friend"),
    )
    first.open_chat("List Friend")
    first.write("begin")
    first.wait_status("begin", "Delivered")
    first.page.locator("#back").evaluate("back => back.click()")
    friend.open_chat("Two Devices")
    friend.write(*[f"text {number}" for number in range(MANY)])
    expect(badge(first, "List Friend")).to_contain_text(str(MANY), timeout=PATIENCE)
    second = second_device(browser, server, first)
    expect(badge(second, "List Friend")).to_contain_text(str(MANY))
    expect(second.person("List Friend").locator(".preview")).to_have_text(f"text {MANY - 1}")
    second.open_chat("List Friend")
    line = second.page.locator(".new")
    expect(line).to_be_in_viewport()
    expect(second.page.locator(".new + .message .text")).to_have_text("text 0")
    second.page.locator("#log").evaluate("log => { log.scrollTop = log.scrollHeight; }")
    expect(badge(second, "List Friend")).to_have_count(0)
    expect(badge(first, "List Friend")).to_have_count(0)
    friend.wait_status(f"text {MANY - 1}", "Read")
    # What was read elsewhere is read here, and there is no line any more.
    first.open_chat("List Friend")
    first.page.locator(".message").last.wait_for()
    expect(first.page.locator(".new")).to_have_count(0)
    assert first.page.evaluate(KEPT) == []


def test_d30_mute_and_hide(browser: Browser, server: Server) -> None:
    """A muted chat counts, but is not announced; a hidden one is back with the next message. Both on all devices."""
    tab, other = browser.join(page_url(server), "Muting Now"), browser.join(page_url(server), "Muted One")
    other.open_chat("Muting Now")
    other.write("one")
    expect(badge(tab, "Muted One")).to_contain_text("1")
    tab.open_chat("Muted One")
    more, menu = tab.page.locator("#more"), tab.page.locator("#chat-menu")
    more.click()
    menu.get_by_role("button", name="Mute", exact=True).click()
    expect(menu).to_be_hidden()
    second = second_device(browser, server, tab)
    expect(second.person("Muted One").locator(".icon.muted")).to_be_visible()
    tab.hide()  # who looks at it reads it
    other.write("two")
    expect(badge(second, "Muted One")).to_have_class("badge still")
    expect(second.page).to_have_title("FastChat")
    tab.hide(False)
    more.click()
    menu.get_by_role("button", name="Hide").click()
    expect(tab.page.locator("#nothing")).to_be_visible()
    # Who is online is among the others now.
    expect(tab.person("Muted One").locator(".preview")).to_have_count(0)
    expect(second.person("Muted One").locator(".preview")).to_have_count(0)
    other.write("three")
    expect(tab.person("Muted One").locator(".preview")).to_have_text("three")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_d32_block_and_unblock(browser: Browser, server: Server, viewport: Any) -> None:
    """The composer gives way to a word about it; the list has a section; nothing comes until it is over, and then only what is new."""
    name = f"Blocked {viewport['width']}"
    tab = browser.visitor(page_url(server), viewport=viewport).tab()
    tab.join(f"Blocking {viewport['width']}")
    other = browser.join(page_url(server), name)
    tab.open_chat(name)
    tab.write("hello")
    other.open_chat(f"Blocking {viewport['width']}")
    other.wait_texts("hello")
    tab.page.locator("#more").click()
    menu = tab.page.locator("#chat-menu")
    menu.get_by_role("button", name="Block", exact=True).click()
    expect(tab.page.locator("#blocked")).to_contain_text(f"You have blocked {name}.")
    expect(tab.field).to_be_hidden()
    other.write("unheard")
    other.wait_status("unheard", "Sent")
    tab.page.reload()
    tab.wait_online()
    expect(tab.page.locator("#blocked")).to_be_visible()
    tab.wait_texts("hello")
    tab.page.locator("#unblock").click()
    expect(tab.field).to_be_visible()
    other.write("heard")
    tab.wait_texts("hello", "heard")
    tab.page.locator("#more").click()
    menu.get_by_role("button", name="Block", exact=True).click()
    expect(tab.page.locator("#blocked")).to_be_visible()
    if viewport is PHONE:
        tab.page.locator("#back").click()
    expect(tab.page.get_by_role("heading", name="Blocked", exact=True)).to_be_visible()
    tab.page.locator(".blocked").get_by_role("button", name=f"Unblock {name}").click()
    expect(tab.page.locator(".blocked")).to_have_count(0)
