"""Text that is made to be more than text: markup in names and messages, nested to take its time, and characters that turn others round."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final
from uuid import uuid4

import pytest
from playwright.sync_api import Locator

from tests.system.browser import Browser, page_url
from tests.system.harness import Server, user_on_worker
from tests.system.raw_client import TEXT, RawClient

#: Bytes of a text that fits into a message with all that stands around it.
LONG: Final = 16_000
#: How often each is sent on a connection: any more of what is invalid in a minute, and it is closed.
TIMES: Final = 6

#: What is begun and not ended, and what comes to light when something else is taken out: the work of a cleaner that looks twice.
NESTED: Final = (
    *(
        "<",
        "<a",
        "<a>",
        "</",
        "</a",
        "<!",
        "<!-",
        "<!--",
        "<!-->",
        "<?",
        "<![CDATA[",
        "<a/",
        "<<<a<<<",
        "<<b>",
        "><",
    ),
    *(
        "<a b=",
        "<a b='",
        "<a b=' ",
        "<a b ",
        "<script>",
        "<script><!--",
        "<script><!--<script>",
        "<style>",
        "-->",
    ),
    *(
        "</script ",
        "<style></style",
        "&lt;",
        "&#60;b&#62;",
        "&",
        "<\x00b>",
        "<\x0cb>",
        "e\u0301",
        "\u0301",
        "\u202e",
    ),
    *("\u202e<", "<\u200bb>", "\u212a", "\ufb1d", "\U0001d15e"),
)
#: A beginning, and what is repeated behind it; and what is begun often and then ended often.
OPENED: Final = (
    ("<!--", "-"),
    ("<!--", "--!"),
    ("<a ", "x="),
    ("<a x='", '"'),
    ("<script>", "</script"),
    ("<p ", "a "),
)
CLOSED: Final = (
    ("<", "b>"),
    ("<b", ">"),
    ("<i<", ">b>"),
    ("<!--", "-->"),
    ("<script>", "</script>"),
    ("<<", "a>b>"),
)

#: Embeddings, overrides, isolates, marks, and what ends them.
TURNING: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
MARKUP: Final = re.compile(r"<[A-Za-z/!?]")


def shapes() -> Iterator[str]:
    """Texts that fill a message."""
    for piece in NESTED:
        yield piece * (LONG // len(json.dumps(piece, ensure_ascii=False).encode()))
    for head, piece in OPENED:
        yield head + piece * (LONG // len(json.dumps(piece, ensure_ascii=False).encode()))
    for left, right in CLOSED:
        count = LONG // (len(left) + len(right))
        yield left * count + right * count


def frame(type_: str, **data: Any) -> bytes:
    """A message in one frame, in UTF-8, with a mask of zeros, since thousands of others would take their time here."""
    payload = json.dumps({"type": type_, "data": data}, ensure_ascii=False).encode()
    if len(payload) < 126:
        return struct.pack("!BBI", 0x81, 0x80 | len(payload), 0) + payload
    return struct.pack("!BBHI", 0x81, 0xFE, len(payload), 0) + payload


def answers(client: RawClient, count: int) -> list[dict[str, Any]]:
    """So many answers to what was sent: errors, and acknowledgements of any kind."""
    came: list[dict[str, Any]] = []
    while len(came) < count:
        received = client.frame(timeout=30.0)
        if received.opcode == TEXT:
            kind, data = received.message()
            if kind in ("ERROR", "MSG_ACK", "HELLO_ACK"):
                came.append(data)
    return came


# -- Nested markup --


@pytest.mark.slow
@pytest.mark.attack("nested markup")
@pytest.mark.parametrize("where", ["content", "name", "name of the other", "name before HELLO"])
def test_nested_markup_takes_nobodys_time(server: Server, where: str) -> None:
    """Hundreds of the worst texts, each as long as may be, as fast as they go: all are answered, and people beside them do not wait."""
    peer = user_on_worker(1, server.workers)
    sent = 0
    with RawClient.upgraded(server.port, peer, "Bob") as bob:
        bob.hello()
        for number, shape in enumerate(shapes()):
            with RawClient.upgraded(server.port, user_on_worker(number % 2, 2), "Mallory") as mallory:
                if where != "name before HELLO":
                    mallory.hello()
                me = {"user_id": mallory.user_id}
                if where == "content":
                    mallory.say("OPEN_CHAT", target_user_id=peer, target_display_name="Bob")
                    mallory.receive("CHAT_OPENED")
                    one = frame("MSG", to=peer, content=shape)
                elif where == "name of the other":
                    one = frame("OPEN_CHAT", target_user_id=peer, target_display_name=shape)
                else:
                    one = frame("HELLO", display_name=shape, **me)
                assert len(one) < 16 * 1024
                # HELLO has to come within 10 s, and a front stops reading from who sends 100 KiB of something else in one go.
                times, at_once = (5, 1) if where == "name before HELLO" else (1, TIMES)
                for _ in range(times):
                    mallory.send(one * at_once)
                    for answer in answers(mallory, at_once):
                        # What is left is too long, or nothing; else it is text.
                        assert answer.get("code", "VALIDATION") == "VALIDATION", answer
                    sent += at_once
                mallory.say("PING")
                mallory.receive("PONG")
        for kind, data in bob.everything():
            assert kind != "MSG" or MARKUP.search(data["content"]) is None
    assert sent >= 200


# -- Markup, in every place that text gets to --


@pytest.mark.attack("HTML and scripts", "nested markup")
def test_no_tag_gets_to_anybody(server: Server) -> None:
    """As name, in PRESENCE and CHAT_OPENED; as content, live, as a carbon, and in HISTORY. Hidden in what is taken out, too."""
    tags = (
        "b",
        "script",
        "img src=x onerror=alert(1)",
        "/p",
        "!--",
        "!doctype html",
        "?php",
        "svg/onload=alert(1)",
    )
    hidden = [f"<{tag}>" for tag in tags] + [f"<{tag}" for tag in tags]
    hidden += [f"<<i>{tag}>" for tag in tags] + [f"<<i><i>{tag}>" for tag in tags]
    hidden += [f"<\x00{tag}>" for tag in tags] + [f"<<!---->{tag}>" for tag in tags]
    hidden += [f"{'<' * 5}{'<i>' * 5}{tag}{'>' * 5}" for tag in tags]
    hidden += [f"<s<script>x</script>{tag}>" for tag in tags]
    capabilities = ["carbons", "history"]
    shown: list[str] = []
    with ExitStack() as stack:
        bob = stack.enter_context(RawClient.upgraded(server.port, user_on_worker(1, 2), "Bob"))
        bob.hello(capabilities=capabilities)
        for begin in range(0, len(hidden), 16):
            mallory = stack.enter_context(RawClient.upgraded(server.port, user_on_worker(0, 2), "Mallory"))
            other = stack.enter_context(RawClient.upgraded(server.port, mallory.user_id, "Mallory"))
            for device in (mallory, other):
                device.hello(capabilities=capabilities)
            mallory.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
            shown += [
                device.receive("CHAT_OPENED")["target_display_name"] for device in (mallory, other, bob)
            ]
            for text in hidden[begin : begin + 16]:
                mallory.say("MSG", to=bob.user_id, content=f"before {text} behind")
                mallory.receive("MSG_ACK")
                shown += [device.receive("MSG")["content"] for device in (bob, other)]
            mallory.say("HISTORY", **{"with": bob.user_id})
            shown += [each["content"] for each in mallory.receive("HISTORY")["messages"]]
        for text in hidden:
            with RawClient.upgraded(server.port, user_on_worker(0, 2), f"abc{text}xyz") as named:
                named.hello()
                users = named.receive("PRESENCE")["users"]
                shown += [user["display_name"] for user in users if user["user_id"] == named.user_id]
                named.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name=f"abc{text}")
                named.receive("CHAT_OPENED")
                shown.append(bob.receive("CHAT_OPENED", target_user_id=named.user_id)["target_display_name"])
        shown += [
            user["display_name"]
            for kind, data in bob.everything()
            if kind == "PRESENCE"
            for user in data["users"]
        ]
    assert len(shown) > 5 * len(hidden)
    assert [text for text in shown if MARKUP.search(text) or "\x00" in text] == []
    assert all(text.startswith(("before", "abc", "Bob", "Mallory", "Somebody")) for text in shown)


# -- What turns text round --


@pytest.mark.attack("bidirectional overrides")
@pytest.mark.parametrize("character", TURNING, ids=lambda character: f"U+{ord(character):04X}")
def test_names_turn_nothing_round(server: Server, character: str) -> None:
    """Before, behind and in a name, also around a tag: the name is what it is without them, in PRESENCE and in CHAT_OPENED."""
    with RawClient.upgraded(server.port) as bob:
        bob.hello()
        for name in (
            f"{character}Alice",
            f"Al{character}ice",
            f"Alice{character}",
            f"<{character}b>Alice</b{character}>",
            character.join("Alice"),
        ):
            with RawClient.upgraded(server.port, str(uuid4()), name) as alice:
                alice.hello()
                users = alice.receive("PRESENCE")["users"]
                assert {"user_id": alice.user_id, "display_name": "Alice", "online": True} in users
                alice.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name=name)
                assert (
                    bob.receive("CHAT_OPENED", target_user_id=alice.user_id)["target_display_name"] == "Alice"
                )
        bob.send(bob.hello_bytes(display_name=character * 20))
        assert bob.error("VALIDATION")["details"]["field"] == "display_name"


def runs_left_to_right(text: Locator) -> bool:
    """Whether each character stands on the right of the one before it, as they are drawn; all of them on one line."""
    places: list[float] = text.evaluate(
        """element => {
            const text = element.firstChild;
            return [...text.data].map((_, index) => {
                const range = document.createRange();
                range.setStart(text, index);
                range.setEnd(text, index + 1);
                return range.getBoundingClientRect().left;
            });
        }"""
    )
    return len(places) > 1 and places == sorted(places)


@pytest.mark.slow
@pytest.mark.attack("bidirectional overrides")
@pytest.mark.parametrize(
    ("writer", "turning"),
    [
        ("Robin", "\u202e"),
        ("Bella", "\u202b\u202e"),
        ("Wanda", "\u2067\u202e"),
    ],
)
def test_a_message_turns_nothing_round_but_itself(
    browser: Browser, server: Server, writer: str, turning: str
) -> None:
    """On the chat page: neither the time nor the names; and not a link, which would then show where it does not lead."""
    reader = f"Reader of {writer[0]}"
    bob, ada = browser.join(page_url(server), writer), browser.join(page_url(server), reader)
    text = f"{turning}https://evil.example/moc.knab//:sptth and text"
    bob.open_chat(reader)
    bob.write(text)
    ada.wait_unread(writer, 1)
    person = ada.person(writer)
    assert runs_left_to_right(person.locator(".name"))
    assert runs_left_to_right(person.locator(".when"))
    ada.open_chat(writer)
    message = ada.page.locator(".message").last
    assert message.locator(".text").text_content() == text
    assert runs_left_to_right(message.locator("time"))
    link = message.locator(".text a")
    assert link.get_attribute("href") == "https://evil.example/moc.knab//:sptth"
    assert runs_left_to_right(link)
