"""Both clients against a real server that wants tokens: one that is renewed while messages flow, and one that runs out."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.core.token_forge import SECRET, forge
from tests.system.client_device import Device as NodeDevice
from tests.system.harness import Server, run_async, user_on_worker
from tests.system.servers import shared_server
from tests.system.test_clients import command, devices
from tests.system.test_python_client import PATIENCE, Device, online, until

pytestmark = pytest.mark.slow

__all__ = ["command"]  # a fixture of test_clients

#: How long a token of these tests is valid, in seconds: it is announced when half of that is over.
SHORT: Final = 5.0
#: Seconds between two messages.
PACE: Final = 0.05


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that wants tokens and logs what it refuses; no token is in what it writes."""
    settings = {"auth": "jwt", "jwt_key": SECRET, "jwt_leeway": 0, "log_level": "debug"}
    with shared_server(pytestconfig, tmp_path_factory, **settings) as server:
        yield server
    assert SECRET not in server.output()


def token(user: str, seconds: float = 600.0) -> str:
    return forge({"sub": user, "exp": time.time() + seconds})


class Issuer:
    """Gives tokens to one user. `cached`: as long as the first one is valid it gives that again, as an issuer may, then a long one."""

    def __init__(self, user: str, seconds: float = SHORT, cached: bool = False) -> None:
        self.user = user
        self.seconds = seconds
        self.cached = cached
        self.given: list[str] = []
        self._expires = 0.0

    def __call__(self) -> str:
        if not self.cached or time.time() >= self._expires:
            seconds = 600.0 if self.cached and self.given else self.seconds
            self._expires = time.time() + seconds
            self.given.append(token(self.user, seconds))
        else:
            self.given.append(self.given[-1])
        return self.given[-1]

    def assert_not_shown(self, server: Server, *shown: object) -> None:
        """Neither in what the server writes nor in what the client has told."""
        told = server.output() + json.dumps([repr(each) for each in shown])
        for given in self.given:
            assert not [part for part in given.split(".")[1:] if part in told]


# -- Python --


@run_async
async def test_python_renews_on_the_same_connection(server: Server) -> None:
    """Several times, while both write to each other; nothing else happens, and nothing is lost."""
    first, second = user_on_worker(0, 2), user_on_worker(1, 2)
    issuer = Issuer(first)

    async def ask() -> str:
        return issuer()

    alice = Device(server.url, first, "Alice", token=ask)
    bob = Device(server.url, second, "Bobby", token=token(second))
    began = time.monotonic()
    sent: list[str] = []
    async with online(alice, bob):
        await alice.client.open_chat(second, "Bobby")
        while len(issuer.given) < 4 or time.monotonic() - began < 1.5 * SHORT:
            assert time.monotonic() - began < PATIENCE, f"asked only {len(issuer.given)} times"
            sent.append(f"number {len(sent)}")
            alice.client.send(second, sent[-1])
            bob.client.send(first, sent[-1])
            await asyncio.sleep(PACE)
        await until(lambda: bob.contents == sent == alice.contents, "all messages, once and in order")
        assert alice.states == ["connecting", "online"]
    assert len(set(issuer.given)) == len(issuer.given)
    issuer.assert_not_shown(server, alice.client, alice.errors, alice.states)


@run_async
async def test_python_when_a_token_runs_out(server: Server) -> None:
    """A string: the end. A function that had no newer one: closed, and back with the next; what was sent meanwhile arrives."""
    first, second = user_on_worker(0, 2), user_on_worker(1, 2)
    issuer = Issuer(second, cached=True)
    alice = Device(server.url, first, "Alice", token=token(first, SHORT))
    bob = Device(server.url, second, "Bobby", token=issuer)
    await asyncio.gather(alice.client.connect(), bob.client.connect())
    try:
        await alice.client.open_chat(second, "Bobby")
        await until(lambda: alice.client.state == "closed", "the end of Alice's token")
        assert alice.client.closed is not None
        assert (alice.client.closed.code, alice.client.closed.reason, alice.client.closed.refused) == (
            1008,
            "token expired",
            "expired",
        )
        assert [error.details["reason"] for error in alice.errors] == ["expires"]
        again = Device(server.url, first, "Alice", token=token(first), cursor=alice.client.cursor)
        async with online(again):
            await until(lambda: "waiting" in bob.states, "the end of Bob's token")
            again.client.send(second, "while you were away")
            await until(lambda: bob.contents == ["while you were away"], "Bob to be back")
            assert bob.states == ["connecting", "online", "waiting", "connecting", "online"]
            assert bob.errors == []
        assert len(set(issuer.given)) == 2
        assert len(issuer.given) == 3, "when it came, when it was about to run out, and when it had"
    finally:
        await asyncio.gather(alice.client.close(), bob.client.close())
    issuer.assert_not_shown(server, bob.client, bob.states)


# -- JavaScript --


def test_javascript_renews_on_the_same_connection(command: list[str], server: Server) -> None:
    """The same."""
    first, second = user_on_worker(0, 2), user_on_worker(1, 2)
    issuer = Issuer(first)
    people: list[Any] = [(first, "Alice", issuer), (second, "Bobby", token(second))]
    pause = threading.Event()
    began = time.monotonic()
    sent: list[str] = []
    with devices(command, server.url, *people) as (alice, bob):
        alice.call("openChat", second, "Bobby")
        alice.resolved("openChat")
        while len(issuer.given) < 4 or time.monotonic() - began < 1.5 * SHORT:
            assert time.monotonic() - began < PATIENCE, f"asked only {len(issuer.given)} times"
            sent.append(f"number-{len(sent)}")
            alice.send(bob, sent[-1])
            bob.send(alice, sent[-1])
            pause.wait(PACE)
        for device in (alice, bob):
            device.until(lambda d: d.contents == sent, "all messages, once and in order")
        assert alice.states == ["connecting", "online"]
    assert len(set(issuer.given)) == len(issuer.given)
    issuer.assert_not_shown(server, alice.events, alice.promises)


def test_javascript_when_a_token_runs_out(command: list[str], server: Server) -> None:
    """The same."""
    first, second = user_on_worker(0, 2), user_on_worker(1, 2)
    issuer = Issuer(second, cached=True)
    with (
        NodeDevice(command, server.url, first, "Alice", token(first, SHORT)) as alice,
        NodeDevice(command, server.url, second, "Bobby", issuer) as bob,
    ):
        alice.call("openChat", second, "Bobby")
        alice.resolved("openChat")
        alice.until(lambda d: d.states[-1] == "closed", "the end of Alice's token")
        end = {"code": 1008, "reason": "token expired", "refused": "expired"}
        assert alice.came("state")[-1]["closed"] == end
        assert [error["code"] for error in alice.came("error")] == ["UNAUTHORIZED"]
        with NodeDevice(command, server.url, first, "Alice", token(first)) as again:
            bob.until(lambda d: "waiting" in d.states, "the end of Bob's token")
            again.send(bob, "while-you-were-away")
            bob.until(lambda d: d.contents == ["while-you-were-away"], "to be back")
            assert bob.states == ["connecting", "online", "waiting", "connecting", "online"]
            assert bob.came("error") == []
        assert len(set(issuer.given)) == 2
        assert len(issuer.given) == 3, "when it came, when it was about to run out, and when it had"
    issuer.assert_not_shown(server, bob.events, bob.promises)
