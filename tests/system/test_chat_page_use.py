"""Writing and using the chat page: limits, drafts, links, by keys alone, with a screen reader, on a phone, in a real browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.system.browser import PATIENCE, PHONE, Browser, page_url
from tests.system.harness import Server
from tests.system.servers import shared_server

pytestmark = pytest.mark.slow


def test_a_message_that_can_not_be_sent(browser: Browser, server: Server) -> None:
    """Too long: the page says so before. Refused by the server: the message says so, and can be sent again or deleted."""
    tab = browser.join(page_url(server), "Failing")
    browser.join(page_url(server), "Receiving")
    tab.open_chat("Receiving")
    tab.field.fill("x" * 950)
    counter = tab.page.locator("#counter")
    expect(counter).to_have_text("50 characters left")
    tab.field.fill("😀" * 1001)
    expect(counter).to_have_text("1 character too many: at most 1000 can be sent")
    expect(tab.page.locator("#send")).to_have_attribute("aria-disabled", "true")
    tab.field.press("Enter")
    assert tab.texts() == []
    tab.field.fill("😀" * 1000)
    tab.field.press("Enter")
    tab.wait_status("😀" * 1000, "Delivered")
    expect(counter).to_be_hidden()
    # Nothing is left of it when the server has taken the markup out.
    tab.write("<b></b>")
    tab.wait_status("<b></b>", "Not delivered")
    message = tab.message("<b></b>")
    expect(message.locator(".problem")).to_contain_text(
        "Not delivered: the text must have 1 to 1000 characters"
    )
    message.get_by_role("button", name="Try again").click()
    tab.wait_status("<b></b>", "Not delivered")
    message.get_by_role("button", name="Delete").click()
    expect(message).to_have_count(0)


def test_d11_what_the_server_has_changed_is_shown_and_said(browser: Browser, server: Server) -> None:
    """Markup that was removed, a space that was added; nothing where nothing was changed. The other side has the same text."""
    tab, other = browser.join(page_url(server), "Using Markup"), browser.join(page_url(server), "Without It")
    tab.open_chat("Without It")
    other.open_chat("Using Markup")
    tab.write("<b>bold</b> words")
    tab.wait_texts("bold words")
    note = tab.message("bold words").locator(".problem")
    expect(note).to_have_text("Markup was removed. This is what was sent.")
    expect(tab.page.locator("#announcer")).to_contain_text(
        "Markup was removed. This is what was sent. bold words"
    )
    expect(tab.person("Without It").locator(".preview")).to_have_text("You: bold words")
    tab.wait_status("bold words", "Read")
    expect(note).to_be_visible()
    tab.write("x<y", "a < b && c")
    tab.wait_texts("bold words", "x< y", "a < b && c")
    expect(tab.message("x< y").locator(".problem")).to_have_text(
        "A space was added, so that nothing is taken for markup."
    )
    tab.wait_status("a < b && c", "Read")
    expect(tab.message("a < b && c").locator(".problem")).to_have_count(0)
    other.wait_texts("bold words", "x< y", "a < b && c")
    expect(other.page.locator(".problem")).to_have_count(0)


def test_a_limit_is_said_at_the_message(
    browser: Browser, pytestconfig: pytest.Config, tmp_path_factory: Any
) -> None:
    """A fourth message within the minute waits, says how long, and the ones behind it stay behind it."""
    with shared_server(
        pytestconfig, tmp_path_factory, workers=2, limits=True, messages_per_minute=3
    ) as server:
        tab = browser.join(page_url(server), "Hurried")
        browser.join(page_url(server), "Patient")
        tab.open_chat("Patient")
        tab.write("one", "two", "three", "four", "five")
        for text in ("one", "two", "three"):
            tab.wait_status(text, "Delivered")
        tab.wait_status("four", "Waiting to be sent")
        note = tab.message("four").locator(".problem")
        expect(note).to_have_text(re.compile(r"Too many messages in a minute; sending in \d+ s"))
        seconds = note.inner_text()
        expect(note).not_to_have_text(seconds)
        assert tab.texts() == ["one", "two", "three", "four", "five"]
        browser.assert_well()
        browser.close_visitors()


def test_drafts_are_kept_for_each_chat(browser: Browser, server: Server) -> None:
    tab = browser.join(page_url(server), "Drafting")
    browser.join(page_url(server), "Draft One")
    browser.join(page_url(server), "Draft Two")
    tab.open_chat("Draft One")
    tab.field.fill("not yet")
    tab.open_chat("Draft Two")
    expect(tab.field).to_have_value("")
    tab.field.fill("not either")
    tab.open_chat("Draft One")
    expect(tab.field).to_have_value("not yet")
    tab.page.reload()
    expect(tab.field).to_have_value("not yet")
    tab.wait_online()
    tab.open_chat("Draft Two")
    expect(tab.field).to_have_value("not either")


def test_without_a_mouse(browser: Browser, server: Server) -> None:
    """From the name to a chat and back, by keys; the focus is always somewhere that can be seen."""
    other = browser.join(page_url(server), "Keyboard Friend")
    tab = browser.visitor(page_url(server)).tab()
    keys = tab.page.keyboard
    keys.type("Keys Only")
    keys.press("Enter")
    tab.wait_online()
    expect(tab.person("Keyboard Friend")).to_be_visible(timeout=PATIENCE)
    keys.press("Tab")
    expect(tab.page.locator("#me")).to_be_focused()
    keys.press("Tab")
    for _ in range(20):
        if tab.person("Keyboard Friend").evaluate("link => link === document.activeElement"):
            break
        keys.press("ArrowDown")
    expect(tab.person("Keyboard Friend")).to_be_focused()
    keys.press("Enter")
    expect(tab.field).to_be_focused()
    keys.type("by keys")
    keys.press("Enter")
    expect(tab.field).to_be_focused()
    other.open_chat("Keys Only")
    other.wait_texts("by keys")
    keys.press("Escape")
    expect(tab.person("Keyboard Friend")).to_be_focused()


def test_the_focus_stays_when_somebody_leaves(browser: Browser, server: Server) -> None:
    """Whoever goes through the list by keys is not thrown out of it because the one in focus has gone."""
    staying, leaving = browser.join(page_url(server), "Staying"), browser.join(page_url(server), "Leaving")
    tab = browser.join(page_url(server), "Steady Focus")
    for name in ("Staying", "Leaving"):
        expect(tab.person(name)).to_be_visible(timeout=PATIENCE)
    tab.person("Leaving").focus()
    leaving.page.close()
    expect(tab.person("Leaving")).to_have_count(0, timeout=PATIENCE)
    assert tab.page.evaluate("document.activeElement.matches('#people a')")
    staying.wait_online()


def test_on_a_phone(browser: Browser, server: Server) -> None:
    """The list and the chat are two views; nothing is wider than the screen, whatever people write or are called."""
    long_name = "Wolfeschlegelsteinhausenbergerdorffwelchevoralternw"[:50]
    phone = browser.join(page_url(server), long_name, viewport=PHONE, is_mobile=True, has_touch=True)
    other = browser.join(page_url(server), "‏שרה כהן")
    expect(phone.page.locator("#conversation")).to_be_hidden()
    phone.person("שרה כהן").click()
    expect(phone.page.locator("#side")).to_be_hidden()
    other.open_chat(long_name)
    texts = ["W" * 300, "שלום, מה שלומך? 12:30", "‮reversed", "https://localhost/" + "a" * 200]
    other.write(*texts)
    expect(phone.page.locator(".message")).to_have_count(len(texts), timeout=PATIENCE)
    for tab in (phone, other):
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.page.evaluate(
            "(log => log.scrollWidth <= log.clientWidth)(document.getElementById('log'))"
        )
    bubble = phone.message(texts[1]).locator(".bubble")
    assert bubble.evaluate("bubble => getComputedStyle(bubble).direction") == "rtl"
    # A second line has a button, since a keyboard on a screen has no Shift+Enter; the keyboard stays.
    phone.field.fill("onetwo")
    phone.field.evaluate("field => field.setSelectionRange(3, 3)")
    phone.page.get_by_role("button", name="New line").tap()
    expect(phone.field).to_be_focused()
    phone.page.keyboard.type("and ")
    phone.field.press("Enter")
    phone.wait_status("one\nand two", "Read")
    expect(other.page.locator("#line")).to_be_hidden()
    phone.page.get_by_role("link", name="Back to all chats").click()
    expect(phone.page.locator("#side")).to_be_visible()
    expect(phone.page.locator("#conversation")).to_be_hidden()


def test_links_and_emoji(browser: Browser, server: Server) -> None:
    """Only http and https become links, to a new tab that learns nothing of this one; a few emoji alone are large."""
    tab = browser.join(page_url(server), "Linking")
    browser.join(page_url(server), "Linked")
    tab.open_chat("Linked")
    text = "See (http://localhost/a_(b)), HTTPS://localhost/c?d=e&f#g. And ftp://localhost javascript:x http:// https://"
    tab.write(text, "👍🏽", "🇩🇪 👨‍👩‍👧", "12", "so 👍")
    tab.wait_texts(text, "👍🏽", "🇩🇪 👨‍👩‍👧", "12", "so 👍")
    links = tab.message(text).get_by_role("link")
    expect(links).to_have_text(["http://localhost/a_(b)", "HTTPS://localhost/c?d=e&f#g"])
    for link in links.all():
        assert link.get_attribute("target") == "_blank"
        assert {"noopener", "noreferrer", "nofollow"} <= set(str(link.get_attribute("rel")).split())
    expect(tab.page.locator(".text.large")).to_have_text(["👍🏽", "🇩🇪 👨‍👩‍👧"])


def test_what_a_screen_reader_says(browser: Browser, server: Server) -> None:
    """New messages and what becomes of the connection are said once; who wrote, and how far a message is, stands in its text."""
    tab = browser.join(page_url(server), "Listening")
    other = browser.join(page_url(server), "Speaking")
    announcer = tab.page.locator("#announcer")
    other.open_chat("Listening")
    other.write("Are you there?")
    offer = "Shall this browser tell you of new messages while you are elsewhere?"
    expect(announcer.locator("p")).to_have_text(["New message from Speaking", offer], timeout=PATIENCE)
    expect(
        tab.page.get_by_role("link", name=re.compile("Online: .*Speaking.* 1 message not read"))
    ).to_be_visible()
    tab.open_chat("Speaking")
    other.write("Hello?")
    expect(announcer).to_contain_text("Speaking: Hello?", timeout=PATIENCE)
    tab.write("Yes.")
    tab.wait_status("Yes.", "Read")
    expect(tab.page.get_by_role("log", name="Messages with Speaking")).to_be_visible()
    expect(tab.message("Yes.")).to_have_text(re.compile(r"^You: Yes\.\d\d?:\d\dRead$"))
    expect(tab.message("Hello?")).to_have_text(re.compile(r"^Speaking: Hello\?"))
    expect(tab.page.get_by_role("textbox", name="Message to Speaking")).to_be_focused()


def test_a_click_counts_while_messages_come(browser: Browser, server: Server) -> None:
    """The entry shows another text between the button's way down and its way up."""
    reader, writer = (browser.join(page_url(server), name) for name in ("Slow Finger", "Quick Tongue"))
    writer.open_chat("Slow Finger")
    writer.write("one")
    reader.wait_unread("Quick Tongue", 1)
    reader.person("Quick Tongue").hover()
    reader.page.mouse.down()
    writer.write("two")
    reader.wait_unread("Quick Tongue", 2)
    reader.page.mouse.up()
    expect(reader.page.locator("#peer-name")).to_have_text("Quick Tongue", timeout=PATIENCE)
