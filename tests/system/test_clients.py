"""The JavaScript client under Node against the real server: all that it offers, and whatever happens to the server in between.

``test_python_client.py`` is the same for the Python client.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.system.client_device import Device, node_command
from tests.system.harness import Server, user_on_worker
from tests.system.servers import two_users

#: Messages that each of the two sends before and after each thing that happens to the server.
MESSAGES: Final = 40
#: Seconds between two of them.
PACE: Final = 0.03

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])


@pytest.fixture(scope="module", params=["ws", pytest.param("native", marks=pytest.mark.slow)])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How a device is started, with the WebSocket of the package ws and with Node's own."""
    return node_command(request.param, tmp_path_factory.mktemp("client"))


@contextmanager
def devices(command: list[str], url: str, *people: tuple[Any, ...]) -> Iterator[list[Device]]:
    """Clients that are online, each with what `Device` takes; in the end they are closed, and nothing went wrong unnoticed."""
    with ExitStack() as stack:
        made = [stack.enter_context(Device(command, url, *person)) for person in people]
        yield made
    for device in made:
        assert device.came("error") == [], f"{device.name} was told of errors"
        assert device.states[-1] == "closed"


@WHERE
def test_a_conversation(command: list[str], server: Server, where: str) -> None:
    """Presence, a chat, typing, messages with their receipts, history, and another device of one of the two."""
    first, second = two_users(server, where)
    with devices(command, server.url, (first, "Alice"), (second, "Bobby"), (first, "Alice")) as (
        alice,
        bob,
        tablet,
    ):
        people = {first: "Alice", second: "Bobby"}
        for device in (alice, bob, tablet):
            device.until(lambda d: people.items() <= (d.came("presence") or [{}])[-1].items(), "presence")
        alice.call("openChat", second, "Bobby")
        chat = alice.resolved("openChat")
        assert (chat["userId"], chat["displayName"]) == (second, "Bobby")
        bob.until(lambda d: len(d.came("chat")) == 1, "CHAT_OPENED at the other side")
        assert bob.came("chat") == [{"chatId": chat["chatId"], "userId": first, "displayName": "Alice"}]

        alice.call("typing", second, True)
        alice.call("typing", second, True)
        bob.until(lambda d: d.came("typing") == [{"userId": first, "isTyping": True}], "typing")
        alice.send(bob, "Hi")
        alice.resolved("Hi.accepted")
        alice.resolved("Hi.delivered")
        bob.until(lambda d: len(d.came("typing")) == 2, "the message to end the typing")
        message = bob.came("message")[0]
        assert (message["from"], message["to"], message["content"], message["messageId"]) == (
            first,
            second,
            "Hi",
            "Hi",
        )
        assert message["seq"] == 1
        bob.call("markRead", "Hi", first)
        assert alice.resolved("Hi.read") == "read"

        tablet.until(lambda d: len(d.came("message")) == 1, "the carbon")
        assert tablet.came("message")[0]["own"] is True
        for number in range(4):
            bob.send(alice, f"answer-{number}")
        answers = [f"answer-{number}" for number in range(4)]
        for device in (alice, tablet):
            device.until(lambda d: d.contents == answers, "the answers on both devices")

        alice.call("history", second, {"limit": 3}, name="page 1")
        page = alice.resolved("page 1")
        assert [message["content"] for message in page["messages"]] == answers[:0:-1]
        alice.call("history", second, {"limit": 3, "before": page["next"]}, name="page 2")
        page = alice.resolved("page 2")
        assert [(m["content"], m.get("own", False)) for m in page["messages"]] == [
            ("answer-0", False),
            ("Hi", True),
        ]
        assert page["next"] is None


def test_refusals(command: list[str], server: Server) -> None:
    """What the server refuses for good is told to whoever waits, and nothing else stops."""
    people = ((str(uuid4()), "Alice"), (str(uuid4()), "Bobby"))
    with devices(command, server.url, *people) as (alice, bob):
        alice.call("openChat", str(uuid4()), "Nobody", name="nobody")
        assert alice.rejected("nobody") == "USER_NOT_FOUND"
        alice.send(bob, "before-the-chat")
        assert alice.rejected("before-the-chat.accepted") == "CHAT_NOT_OPENED"
        alice.call("history", bob.user_id)
        assert alice.rejected("history") == "CHAT_NOT_OPENED"
        alice.call("openChat", bob.user_id, "Bobby")
        for name, content in (("empty", ""), ("long", "x" * 1001), ("huge", "x" * 20_000)):
            alice.call("send", bob.user_id, content, name=name)
        alice.send(bob, "after-all-that")
        for name in ("empty", "long", "huge"):
            assert alice.rejected(f"{name}.accepted") == "VALIDATION"
        alice.resolved("after-all-that.delivered")
        assert bob.contents == ["after-all-that"]


@pytest.mark.slow
def test_nothing_is_lost_or_doubled(command: list[str], tmp_path: Path) -> None:
    """Two users write to each other while one's worker is killed, then the other's asked to restart, and then the whole server."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path))
        people = ((user_on_worker(0, 2), "Alice"), (user_on_worker(1, 2), "Bobby"))
        with devices(command, server.url, *people) as (alice, bob):
            alice.call("openChat", bob.user_id, "Bobby")
            alice.resolved("openChat")
            talk(alice, bob, 0)
            os.kill(server.child("worker 1"), signal.SIGKILL)
            talk(alice, bob, 1)
            bob.until(lambda d: "online" in d.states[2:], "to be back")
            os.kill(server.child("worker 0"), signal.SIGTERM)
            talk(alice, bob, 2)
            for person in (alice, bob):
                # Of what is under way in a restart a client asks for the latest receipts only.
                person.until(lambda d: len(d.contents) >= 3 * MESSAGES, "to have caught up")
            assert server.stop() == 0
            stack.enter_context(Server(tmp_path, port=server.port))
            talk(alice, bob, 3)
            for sender, recipient in ((alice, bob), (bob, alice)):
                expected = [content for part in range(4) for content in contents(sender, part)]
                recipient.until(lambda d: len(d.contents) >= 4 * MESSAGES, "all messages")
                assert recipient.contents == expected, "in the order of sending, each once"
                for content in expected:
                    sender.resolved(f"{content}.accepted")
                    sender.resolved(f"{content}.delivered")
                assert sender.states.count("waiting") >= 2
                assert sender.states[-1] == "online"
                assert "failed" not in [change["status"] for change in sender.came("receipt")]


def contents(sender: Device, part: int) -> list[str]:
    return [f"{sender.name}-{part}-{number}" for number in range(MESSAGES)]


def talk(alice: Device, bob: Device, part: int) -> None:
    """Each writes to the other, without waiting for anything."""
    pause = threading.Event()
    for one, other in zip(contents(alice, part), contents(bob, part), strict=True):
        alice.send(bob, one)
        bob.send(alice, other)
        pause.wait(PACE)
