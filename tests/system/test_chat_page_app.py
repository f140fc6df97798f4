"""The chat page as an app, in a real browser: notifications, sound, the number in its icon, and a start without a connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import expect

from tests.system.browser import PATIENCE, Browser, Tab, Visitor, page_url
from tests.system.harness import Server, wait_until
from tests.system.servers import shared_server

pytestmark = pytest.mark.slow

#: Counts the tones that a page plays, and keeps what it says of its icon, and the notifications that it has shown and not taken away: the
#: browser takes them away by itself after some seconds.
SPIES: Final = """
    window.tones = 0;
    window.badges = [];
    const create = AudioContext.prototype.createOscillator;
    AudioContext.prototype.createOscillator = function () { window.tones++; return create.call(this); };
    window.shown = new Map();
    const show = ServiceWorkerRegistration.prototype.showNotification;
    ServiceWorkerRegistration.prototype.showNotification = async function (title, options) {
        await show.call(this, title, options);
        window.shown.set(options.tag, {text: `${title}: ${options.body}`, data: options.data}); };
    ServiceWorkerRegistration.prototype.getNotifications = async () =>
        [...window.shown.keys()].map((tag) => ({tag, close: () => window.shown.delete(tag)}));
    navigator.setAppBadge = async (count) => void window.badges.push(count);
    navigator.clearAppBadge = async () => void window.badges.push(0);
"""


@pytest.fixture(scope="module")
def server(
    chromium: Browser, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with two workers."""
    with shared_server(pytestconfig, tmp_path_factory, workers=2) as server:
        yield server


def visitor_with_spies(browser: Browser, server: Server, *permissions: str, **options: Any) -> Visitor:
    """A person whose browser has these permissions, and keeps what the page does with sound and icon."""
    visitor = browser.visitor(page_url(server), permissions=list(permissions), **options)
    visitor.context.add_init_script(SPIES)
    return visitor


def wait_worker(tab: Tab) -> None:
    """Wait until the service worker keeps the files of the page."""
    tab.page.evaluate("navigator.serviceWorker.ready")


def wait_shown(tab: Tab, *texts: str) -> None:
    """Wait until the tab shows exactly these notifications."""
    tab.page.wait_for_function(
        "(texts) => JSON.stringify([...shown.values()].map(({text}) => text).sort()) === JSON.stringify(texts)",
        arg=sorted(texts),
        timeout=PATIENCE,
    )


def click_notification(tab: Tab, text: str) -> None:
    """Let the service worker hear that a notification was clicked; there is nobody who could."""
    data = tab.page.evaluate("(text) => [...shown.values()].find((each) => each.text === text).data", text)
    tab.page.context.service_workers[0].evaluate(
        """async (data) => {
            await registration.showNotification("clicked", {data, tag: "clicked", silent: true});
            const [notification] = await registration.getNotifications({tag: "clicked"});
            self.dispatchEvent(new NotificationEvent("notificationclick", {notification})); }""",
        data,
    )


def open_switches(tab: Tab) -> None:
    tab.page.locator("#me").click()


def switch(tab: Tab, name: str) -> Any:
    return tab.page.get_by_role("switch", name=name)


# -- Notifications and sound --


def test_a_notification_for_each_chat_while_the_page_is_hidden(browser: Browser, server: Server) -> None:
    """Offered at the first message that waits; one for a chat, whatever comes; a click opens the chat, and reading takes it away."""
    tab = visitor_with_spies(browser, server, "notifications").tab()
    tab.join("Far Away")
    wait_worker(tab)
    writers = [browser.join(page_url(server), name) for name in ("First Writer", "Second Writer")]
    expect(tab.page.locator("#offer")).to_be_hidden()
    writers[0].open_chat("Far Away")
    writers[0].write("Are you there?")
    expect(tab.page.locator("#offer")).to_be_visible(timeout=PATIENCE)
    tab.page.get_by_role("button", name="Turn on notifications").click()
    expect(tab.page.locator("#offer")).to_be_hidden()
    writers[0].write("Shown is the list, not the chat")
    tab.wait_unread("First Writer", 2)
    wait_shown(tab)

    tab.hide()
    writers[1].open_chat("Far Away")
    writers[1].write("Hello from me too", "<b")
    writers[0].write("And now?")
    wait_shown(tab, "First Writer: And now?", "Second Writer: < b")
    click_notification(tab, "First Writer: And now?")
    expect(tab.page.locator("#peer-name")).to_have_text("First Writer", timeout=PATIENCE)
    writers[0].write("Still hidden")
    wait_shown(tab, "First Writer: Still hidden", "Second Writer: < b")
    tab.hide(False)
    wait_shown(tab)
    assert tab.page.evaluate("tones") == 0


def test_who_has_not_asked_for_it_gets_none(browser: Browser, server: Server) -> None:
    """Neither before an answer to the offer, nor after a no, which is not asked again; nor for a muted chat."""
    visitor = visitor_with_spies(browser, server, "notifications")
    tab = visitor.tab()
    tab.join("Wants Quiet")
    wait_worker(tab)
    writer = browser.join(page_url(server), "Loud Writer")
    writer.open_chat("Wants Quiet")
    tab.hide()
    writer.write("one")
    tab.wait_title("(1) FastChat")
    tab.hide(False)
    tab.page.get_by_role("button", name="No, thanks").click()
    tab.page.reload()
    tab.wait_online()
    tab.hide()
    writer.write("two")
    tab.wait_title("(2) FastChat")
    wait_shown(tab)
    tab.hide(False)
    expect(tab.page.locator("#offer")).to_be_hidden()

    open_switches(tab)
    expect(switch(tab, "Notifications")).not_to_be_checked()
    switch(tab, "Notifications").check()
    switch(tab, "Sound").check()
    assert tab.page.evaluate("tones") == 1, "the switch shows what it sounds like"
    tab.page.keyboard.press("Escape")
    tab.open_chat("Loud Writer")
    tab.page.locator("#more").click()
    tab.page.locator("#chat-menu").get_by_role("button", name="Mute").click()
    expect(tab.person("Loud Writer").locator(".muted").first).to_be_visible()
    tab.page.keyboard.press("Escape")
    tab.hide()
    writer.write("three")
    tab.wait_unread("Loud Writer", 1)
    other = browser.join(page_url(server), "Quiet Writer")
    other.open_chat("Wants Quiet")
    other.write("for you")
    wait_shown(tab, "Quiet Writer: for you")
    assert tab.page.evaluate("tones") == 2


def test_several_tabs_tell_once(browser: Browser, server: Server) -> None:
    """One tone for all that are hidden; no notification while somebody looks at one of them."""
    visitor = visitor_with_spies(browser, server, "notifications")
    first = visitor.tab()
    first.join("Many Tabs")
    wait_worker(first)
    open_switches(first)
    switch(first, "Notifications").check()
    switch(first, "Sound").check()
    first.page.keyboard.press("Escape")
    second = visitor.tab()
    second.wait_online()
    second.page.locator("#me-name").click()
    second.page.keyboard.press("Escape")
    first.hide()
    writer = browser.join(page_url(server), "Tab Writer")
    writer.open_chat("Many Tabs")
    writer.write("one")
    second.wait_unread("Tab Writer", 1)
    first.wait_title("(1) FastChat")
    tones = [tab.page.evaluate("tones") for tab in (first, second)]
    assert tones == [1, 1], "the sample, and the tone of the tab that somebody looks at"
    assert [tab.page.evaluate("shown.size") for tab in (first, second)] == [0, 0]
    second.hide()
    writer.write("two")
    for tab in (first, second):
        tab.wait_title("(2) FastChat")
    held = "navigator.locks.query().then(({held}) => held.length)"
    wait_until(lambda: first.page.evaluate(held) == 0, "both tabs to have told")
    assert sum(tab.page.evaluate("shown.size") for tab in (first, second)) == 1
    assert sum(tab.page.evaluate("tones") for tab in (first, second)) <= 3


def test_a_browser_that_refuses(browser: Browser, server: Server) -> None:
    """It is said where the switch is, and nobody is asked."""
    visitor = visitor_with_spies(browser, server)
    visitor.context.add_init_script(
        "Object.defineProperty(Notification, 'permission', {get: () => 'denied'})"
    )
    tab = visitor.tab()
    tab.join("Refused Here")
    writer = browser.join(page_url(server), "Refused Writer")
    writer.open_chat("Refused Here")
    writer.write("one")
    tab.wait_unread("Refused Writer", 1)
    expect(tab.page.locator("#offer")).to_be_hidden()
    open_switches(tab)
    expect(switch(tab, "Notifications")).to_be_disabled()
    expect(tab.page.locator("#notify-note")).to_contain_text("The browser blocks notifications")


# -- The icon --


def test_the_number_in_the_icon(browser: Browser, server: Server) -> None:
    """In the tab's icon, in the installed app's, and in the title; gone when all is read."""
    tab = visitor_with_spies(browser, server).tab()
    tab.join("Icon Reader")
    icon = tab.page.locator("#icon")
    expect(icon).to_have_attribute("href", "/icon.svg")
    writer = browser.join(page_url(server), "Icon Writer")
    writer.open_chat("Icon Reader")
    writer.write("one", "two")
    tab.wait_title("(2) FastChat")
    tab.page.wait_for_function("() => document.getElementById('icon').href.startsWith('data:image/png')")
    assert tab.page.evaluate("badges.at(-1)") == 2
    tab.open_chat("Icon Writer")
    tab.wait_title("Icon Writer · FastChat")
    expect(icon).to_have_attribute("href", "/icon.svg")
    assert tab.page.evaluate("badges.at(-1)") == 0


# -- Without a connection --


def test_it_opens_without_a_server_and_sends_when_there_is_one(browser: Browser, tmp_path: Path) -> None:
    """The page, who one is and the chats are there; what is written waits until the server is back."""
    visitor = browser.visitor("")
    with Server(tmp_path, workers=1) as server:
        visitor.url = page_url(server)
        tab = visitor.tab()
        tab.join("Under Way")
        wait_worker(tab)
        friend = browser.join(page_url(server), "At Home")
        tab.open_chat("At Home")
        tab.write("See you later")
        tab.wait_status("See you later", "Delivered")
        tab.page.wait_for_function("() => localStorage['fastchat::chats']?.includes('See you later')")
        friend.page.close()
        tab.page.goto("about:blank")
    tab.page.goto(page_url(server))
    expect(tab.page.locator("#me-name .name")).to_have_text("Under Way")
    expect(tab.person("At Home").locator(".preview")).to_have_text("You: See you later")
    tab.open_chat("At Home")
    tab.write("Written under way")
    tab.wait_status("Written under way", "Waiting to be sent")
    other = visitor.tab("?user=2")
    expect(other.page.get_by_label("What is your name?")).to_be_visible()
    other.page.close()
    with Server(tmp_path, workers=1, port=server.port):
        tab.page.reload()
        tab.wait_online()
        tab.wait_texts("See you later", "Written under way")
        tab.wait_status("Written under way", "Sent")
    browser.assert_well(may_lose_connection=True)
    browser.problems.clear()
