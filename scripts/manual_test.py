"""Two users walk through everything that the protocol has, against a running server.

    python scripts/manual_test.py [ws://localhost:8000/ws]

Each step prints what was done, what was expected and what came. The exit code is 0 when all was as expected, 1 at the first
difference, and 2 when no server answers at that address. The users are new ones each time, so nobody's chats are touched. It
takes some ten seconds, most of them until a user who left is announced as gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Self
from uuid import uuid4

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
except ModuleNotFoundError:
    sys.exit(
        "The manual test needs the package `websockets`: use `make manual`, or `.venv/bin/python scripts/manual_test.py`."
    )

DEFAULT_URL: Final = "ws://localhost:8000/ws"
#: Seconds until an answer counts as missing. The longest legitimate wait is that for a user to be announced as gone, 5 s.
TIMEOUT: Final = 10.0

Message = dict[str, Any]


class Different(Exception):
    """What came is not what was expected."""


class NoServer(Exception):
    """Nobody speaks FastChat at the address."""


def show(label: str, value: object) -> None:
    print(f"    {label:<9} {value if isinstance(value, str) else as_json(value)}")


def as_json(value: object) -> str:
    return json.dumps(value, default=lambda _: "<anything>", ensure_ascii=False)


def contains(data: Message, expected: Message) -> bool:
    """Whether `data` has all that is expected; it may have more. ``...`` stands for a value that the server chooses."""
    return all(name in data and (wanted is ... or wanted == data[name]) for name, wanted in expected.items())


def same(what: str, came: object, expected: object) -> None:
    """Raise Different unless the two are the same."""
    if came != expected:
        raise Different(f"{what} is {as_json(came)} instead of {as_json(expected)}")


class Person:
    """One user with one connection."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self.name = name
        self.user_id = str(uuid4())
        #: What came while something else was waited for.
        self._inbox: list[Message] = []

    async def connect(self) -> Self:
        try:
            # Pings of its own would hide whether the server's work.
            self._socket: ClientConnection = await connect(
                self._url, ping_interval=None, proxy=None, max_queue=None
            )
        except (OSError, InvalidHandshake, InvalidURI) as error:  # OSError includes TimeoutError
            raise NoServer(
                f"No FastChat server answers at {self._url} ({error}). Start one with `make run`."
            ) from error
        self._inbox.clear()
        return self

    async def leave(self) -> None:
        show("do", f"{self.name} closes the connection")
        await self._socket.close()

    async def send(self, kind: str, **data: Any) -> None:
        await self.send_text(json.dumps({"type": kind, "data": data}))

    async def send_text(self, text: str) -> None:
        show("do", f"{self.name} sends {text if len(text) < 300 else text[:300] + ' ...'}")
        try:
            await self._socket.send(text)
        except ConnectionClosed as closed:
            raise Different(f"the connection was closed: {closed}") from None

    async def expect(self, kind: str, **expected: Any) -> Message:
        """Wait for the next message of this type, which has to contain what is expected, and return its data. Raises Different if not."""
        show("expected", f"{self.name} gets {kind} {as_json(expected)}")
        message = await self._next(kind, lambda data: True)
        show("came", message)
        if message["type"] != kind or not contains(message["data"], expected):
            raise Different(f"{self.name} did not get what was expected")
        data: Message = message["data"]
        return data

    async def expect_error(self, code: str) -> None:
        await self.expect("ERROR", code=code, message=..., details=...)

    async def expect_presence(self, online: Mapping[str, str], gone: tuple[str, ...] = ()) -> None:
        """PRESENCE in which these users are online under these names, and those who are gone are not.

        It comes whenever anybody's state changes, so others before it are passed over.
        """

        def is_it(data: Message) -> bool:
            users = {user["user_id"]: user["display_name"] for user in data["users"] if user["online"]}
            return online.items() <= users.items() and not users.keys() & set(gone)

        show(
            "expected",
            f"{self.name} gets PRESENCE with {', '.join(online.values())}{' only' if gone else ''} online",
        )
        message = await self._next("PRESENCE", is_it)
        if message["type"] != "PRESENCE":
            show("came", message)
            raise Different(f"{self.name} did not get what was expected")
        show("came", f"PRESENCE with {len(message['data']['users'])} users, these as expected")

    async def ping_frame(self) -> None:
        """Send a WebSocket ping, answered below the messages."""
        show("do", f"{self.name} sends a WebSocket ping frame")
        show("expected", "a pong frame")
        pong = await self._socket.ping()
        try:
            async with asyncio.timeout(TIMEOUT):
                latency = await pong
        except (TimeoutError, ConnectionClosed) as error:
            raise Different(f"no pong frame: {error!r}") from None
        show("came", f"the pong, after {latency * 1000:.1f} ms")

    async def _next(self, kind: str, where: Callable[[Message], bool]) -> Message:
        """Wait for the next message of this type whose data satisfies `where`, or else an ERROR. Raises Different when none comes."""

        def wanted(message: Message) -> bool:
            return bool(message["type"] == kind and where(message["data"]))

        for index, message in enumerate(self._inbox):
            if wanted(message):
                return self._inbox.pop(index)
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    message = json.loads(await self._socket.recv())
                    if wanted(message) or message["type"] == "ERROR":
                        return dict(message)
                    self._inbox.append(message)
        except TimeoutError:
            raise Different(f"nothing of the kind came within {TIMEOUT:g} s, but {self._inbox}") from None
        except ConnectionClosed as closed:
            raise Different(f"the connection was closed: {closed}") from None

    # -- What several steps do --

    async def hello(self, user_id: str | None = None, name: str | None = None) -> None:
        await self.send("HELLO", user_id=user_id or self.user_id, display_name=name or self.name)

    async def open_chat(self, peer: Person) -> None:
        await self.send("OPEN_CHAT", target_user_id=peer.user_id, target_display_name=peer.name)

    async def message(self, peer: Person, content: str) -> str:
        """Send a message with an id of its own; the id."""
        message_id = str(uuid4())
        await self.send("MSG", to=peer.user_id, content=content, message_id=message_id)
        return message_id

    async def expect_message(self, peer: Person, content: str, message_id: str) -> None:
        """Expect the message, with everything that the protocol says, and acknowledge it."""
        fields = {"from": peer.user_id, "to": self.user_id, "content": content, "message_id": message_id}
        await self.expect("MSG", **fields, timestamp=...)
        await self.send("MSG_ACK", message_id=message_id)


async def before_hello(alice: Person, bob: Person) -> None:
    """Before HELLO only PING is answered"""
    await alice.connect()
    await alice.send("PING")
    await alice.expect("PONG", timestamp=...)
    await alice.send("MSG", to=bob.user_id, content="too early")
    await alice.expect_error("UNAUTHORIZED")
    await alice.hello(user_id="not a user id")
    await alice.expect_error("VALIDATION")
    await alice.hello(name="Al")
    await alice.expect_error("VALIDATION")


async def hello(alice: Person, bob: Person) -> None:
    """HELLO says who is there, and others see it"""
    await alice.hello()
    await alice.expect("HELLO_ACK", user_id=alice.user_id, status="connected")
    await alice.expect_presence({alice.user_id: alice.name})
    await alice.open_chat(bob)
    await alice.expect_error("USER_NOT_FOUND")
    await alice.send("MSG", to=bob.user_id, content="anybody there?")
    await alice.expect_error("USER_NOT_FOUND")
    await bob.connect()
    await bob.hello()
    await bob.expect("HELLO_ACK", user_id=bob.user_id, status="connected")
    await bob.expect_presence({alice.user_id: alice.name, bob.user_id: bob.name})
    await alice.expect_presence({alice.user_id: alice.name, bob.user_id: bob.name})


async def hello_again(alice: Person, bob: Person) -> None:
    """HELLO again changes the name, not the user"""
    alice.name = "Alice Liddell"
    await alice.hello()
    await alice.expect("HELLO_ACK", user_id=alice.user_id, status="connected")
    await bob.expect_presence({alice.user_id: alice.name})
    await alice.hello(user_id=str(uuid4()))
    await alice.expect_error("UNAUTHORIZED")


async def open_chat(alice: Person, bob: Person) -> None:
    """OPEN_CHAT comes before messages, and opens for both"""
    await alice.send("MSG", to=bob.user_id, content="may I?")
    await alice.expect_error("CHAT_NOT_OPENED")
    await alice.open_chat(alice)
    await alice.expect_error("VALIDATION")
    await alice.open_chat(bob)
    names = {"target_user_id": bob.user_id, "target_display_name": bob.name}
    hers = await alice.expect("CHAT_OPENED", chat_id=..., participants=..., **names)
    names = {"target_user_id": alice.user_id, "target_display_name": alice.name}
    his = await bob.expect("CHAT_OPENED", chat_id=hers["chat_id"], participants=..., **names)
    for opened in (hers, his):
        same("the participants", sorted(opened["participants"]), sorted([alice.user_id, bob.user_id]))
    await bob.open_chat(alice)
    await bob.expect("CHAT_OPENED", chat_id=hers["chat_id"])


async def messages(alice: Person, bob: Person) -> None:
    """Messages are acknowledged to the sender and delivered to the recipient"""
    message_id = await alice.message(bob, "Hello, Bobby!")
    await alice.expect("MSG_ACK", message_id=message_id, status="delivered")
    await bob.expect_message(alice, "Hello, Bobby!", message_id)
    message_id = await bob.message(alice, "Hello, Alice \N{WAVING HAND SIGN}")
    await bob.expect("MSG_ACK", message_id=message_id, status="delivered")
    await alice.expect_message(bob, "Hello, Alice \N{WAVING HAND SIGN}", message_id)

    show("do", "a message without an id gets one from the server")
    await alice.send("MSG", to=bob.user_id, content="no id")
    acknowledged = await alice.expect("MSG_ACK", message_id=..., status="delivered")
    await bob.expect_message(alice, "no id", acknowledged["message_id"])

    show("do", "markup is removed, what only looks like it is not")
    message_id = await alice.message(bob, "<b>I</b> <3 you & 1 < 2<script>alert(1)</script>")
    await alice.expect("MSG_ACK", message_id=message_id, status="delivered")
    await bob.expect_message(alice, "I <3 you & 1 < 2", message_id)

    show("do", "1,000 characters are allowed")
    message_id = await alice.message(bob, "\N{GREEK SMALL LETTER PI}" * 1000)
    await alice.expect("MSG_ACK", message_id=message_id, status="delivered")
    await bob.expect_message(alice, "\N{GREEK SMALL LETTER PI}" * 1000, message_id)


async def bad_messages(alice: Person, bob: Person) -> None:
    """Messages that break a rule are answered with VALIDATION, and the connection stays"""
    await alice.message(bob, "")
    await alice.expect_error("VALIDATION")
    await alice.message(bob, "x" * 1001)
    await alice.expect_error("VALIDATION")
    await alice.send("MSG", to=bob.user_id)
    await alice.expect_error("VALIDATION")
    await alice.send("SING", song="Daisy Bell")
    await alice.expect_error("VALIDATION")
    await alice.send_text("this is not JSON")
    await alice.expect_error("VALIDATION")


async def typing(alice: Person, bob: Person) -> None:
    """TYPING shows at the other side, and ends with the message"""
    for is_typing in (True, False):
        await alice.send("TYPING", is_typing=is_typing)
        await bob.expect("TYPING", user_id=alice.user_id, is_typing=is_typing)
    await bob.send("TYPING", is_typing=True)
    await alice.expect("TYPING", user_id=bob.user_id, is_typing=True)
    message_id = await bob.message(alice, "that was me typing")
    await bob.expect("MSG_ACK", message_id=message_id, status="delivered")
    await alice.expect("TYPING", user_id=bob.user_id, is_typing=False)
    await alice.expect_message(bob, "that was me typing", message_id)


async def ping(alice: Person, bob: Person) -> None:
    """PING and the WebSocket's own ping are answered"""
    for person in (alice, bob):
        await person.send("PING")
        await person.expect("PONG", timestamp=...)
        await person.ping_frame()


async def offline(alice: Person, bob: Person) -> None:
    """Who is offline gets the messages later"""
    await bob.leave()
    await alice.expect_presence({alice.user_id: alice.name}, gone=(bob.user_id,))
    sent = []
    for content in ("you are away", "see this when you are back"):
        sent.append((await alice.message(bob, content), content))
        await alice.expect("MSG_ACK", message_id=sent[-1][0], status="stored")
    await bob.connect()
    await bob.hello()
    await bob.expect("HELLO_ACK", user_id=bob.user_id, status="connected")
    for message_id, content in sent:
        await bob.expect_message(alice, content, message_id)
    await alice.expect_presence({alice.user_id: alice.name, bob.user_id: bob.name})


async def goodbye(alice: Person, bob: Person) -> None:
    """Both leave"""
    await alice.leave()
    await bob.leave()


STEPS: Final = (
    before_hello,
    hello,
    hello_again,
    open_chat,
    messages,
    bad_messages,
    typing,
    ping,
    offline,
    goodbye,
)


async def walk(url: str) -> None:
    """All steps in order. Raises Different at the first difference, NoServer when there is none."""
    alice = Person(url, "Alice")
    bob = Person(url, "Bobby")
    for number, step in enumerate(STEPS, 1):
        print(f"\n{number}. {step.__doc__}", flush=True)
        await step(alice, bob)


def main() -> int:
    """Run the test; the exit code."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("url", nargs="?", default=DEFAULT_URL)
    url = arguments.parse_args().url
    try:
        asyncio.run(walk(url))
    except NoServer as error:
        print(error, file=sys.stderr)
        return 2
    except Different as error:
        print(f"\nDIFFERENT: {error}", file=sys.stderr)
        return 1
    print(f"\nAll {len(STEPS)} steps went as expected.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
