"""Who a connection belongs to, and who may connect: decisions D1 to D6, as seen from the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from uuid import uuid4

import pytest

from tests.system.harness import ChatClient, Server, ServerFailed, StartServer, run_async, user_on_worker
from tests.system.raw_client import RawClient, upgrade_request
from tests.system.servers import shared_server


@pytest.fixture(scope="module")
def permissive(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets everybody in: from all machines and origins, with any id."""
    settings = {"user_ids": "any", "host": "0.0.0.0", "auth": "none", "allowed_origins": "*"}
    with shared_server(pytestconfig, tmp_path_factory, **settings) as server:
        yield server


def url_of(server: Server, address: str = "127.0.0.1") -> str:
    """Where clients find a server that listens on all addresses."""
    return f"ws://{address}:{server.port}/ws"


# -- D1: user ids --


@run_async
async def test_d1_a_uuid4_in_any_case_goes_out_in_lower_case(server: Server) -> None:
    user_id = str(uuid4())
    async with ChatClient(server.url, user_id.upper()) as alice, ChatClient(server.url) as bob:
        assert (await alice.hello())["user_id"] == user_id
        await alice.receive(
            "PRESENCE", where=lambda data: user_id in [user["user_id"] for user in data["users"]]
        )
        await bob.hello()
        await bob.send("OPEN_CHAT", target_user_id=user_id.upper(), target_display_name="Alice")
        assert (await bob.receive("CHAT_OPENED"))["target_user_id"] == user_id
        await bob.send("MSG", to=user_id.upper(), content="hi")
        assert (await alice.receive("MSG"))["to"] == user_id


@pytest.mark.parametrize(
    "user_id",
    [
        "",
        "test-123",
        "0f8fad5b-d9cb-11ef-a165-70867728950e",  # version 1
        "0f8fad5b-d9cb-469f-7165-70867728950e",  # not that variant of UUIDs
        "{0f8fad5b-d9cb-469f-a165-70867728950e}",
        "0f8fad5bd9cb469fa16570867728950e",
        "0f8fad5b-d9cb-469f-a165-70867728950e\n",
        "0f8fad5b-d9cb-469f-a165-70867728950\uff10",
        7,
        None,
        ["0f8fad5b-d9cb-469f-a165-70867728950e"],
    ],
)
@run_async
async def test_d1_what_is_no_uuid4_is_refused(server: Server, user_id: object) -> None:
    async with ChatClient(server.url) as client:
        await client.send("HELLO", user_id=user_id, display_name="Somebody")
        assert (await client.error("VALIDATION"))["details"]["field"] == "user_id"
        await client.hello()


@run_async
async def test_d1_any_takes_the_ids_of_the_documents_examples(permissive: Server) -> None:
    url = url_of(permissive)
    async with ChatClient(url, "test-123", "Test User") as test, ChatClient(url, "user-456") as user:
        assert (await test.hello())["user_id"] == "test-123"
        await user.hello()
        await test.open_chat(user)
        await test.message(user, "Hello!")
        assert (await user.receive("MSG"))["from"] == "test-123"
        # As it is: nothing says that case does not matter.
        async with ChatClient(url, "User-456") as other:
            assert (await other.hello())["user_id"] == "User-456"
            await test.send("MSG", to="User-456", content="who?")
            await test.error("CHAT_NOT_OPENED")
        for wrong in ("", "with space", "x" * 129, "a/b", "é"):
            await user.send("HELLO", user_id=wrong, display_name="Test User")
            assert (await user.error("VALIDATION"))["details"]["field"] == "user_id"


@run_async
async def test_d1_the_documents_example_without_hello(permissive: Server) -> None:
    async with ChatClient(url_of(permissive)) as client:
        await client.send_raw('{"type":"MSG","data":{"to":"user-456","content":"Hello!"}}')
        await client.error("UNAUTHORIZED")


# -- D2: before HELLO --


@run_async
async def test_d2_before_hello_only_ping_is_answered(server: Server) -> None:
    async with ChatClient(server.url) as client:
        for type_ in ("MSG", "OPEN_CHAT", "TYPING", "MSG_ACK", "HISTORY", "NONSENSE"):
            await client.send(type_)
            error = await client.error("UNAUTHORIZED")
            assert error["details"]["type"] == type_
            await client.send("PING")
            await client.receive("PONG")
        await client.send("HELLO", user_id=client.user_id, display_name="x")
        assert (await client.error("VALIDATION"))["details"]["field"] == "display_name"
        await client.hello()
        await client.receive("PRESENCE")


@pytest.mark.slow
@pytest.mark.attack("slow HELLO")
@pytest.mark.parametrize("chatty", [False, True], ids=["silent", "with PINGs"])
@run_async
async def test_d2_hello_must_come_within_10_seconds(server: Server, chatty: bool) -> None:
    began = time.monotonic()
    async with ChatClient(server.url) as client:
        while chatty and time.monotonic() < began + 8.0:
            await client.send("PING")
            await client.receive("PONG")
            await asyncio.sleep(0.5)
        code, reason = await client.expect_close(timeout=15.0)
        assert (code, bool(reason)) == (1008, True)
        assert 9.5 < time.monotonic() - began < 13.0


# -- D3: HELLO again --


@run_async
async def test_d3_hello_again_with_a_new_name(server: Server) -> None:
    async with ChatClient(server.url, name="Before") as alice, ChatClient(server.url) as bob:
        await alice.hello()
        await alice.receive("PRESENCE")
        await bob.hello()
        await alice.hello(display_name="After")

        def renamed(data: dict[str, list[dict[str, object]]]) -> bool:
            return {"user_id": alice.user_id, "display_name": "After", "online": True} in data["users"]

        await alice.receive("PRESENCE", where=renamed)
        await bob.receive("PRESENCE", where=renamed)


@pytest.mark.attack("impersonation")
@run_async
async def test_d3_hello_again_as_another_user(server: Server) -> None:
    async with ChatClient(server.url) as alice, ChatClient(server.url) as bob:
        await alice.hello()
        await bob.hello()
        await alice.send("HELLO", user_id=str(uuid4()), display_name="Mallory")
        await alice.error("UNAUTHORIZED")
        await bob.open_chat(alice)
        await bob.message(alice, "still you?")
        await alice.receive("MSG")


# -- D4: devices --


@run_async
async def test_d4_all_devices_receive_everything_and_an_11th_is_refused(server: Server) -> None:
    user_id = str(uuid4())
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(ChatClient(server.url, user_id)) for _ in range(10)]
        for device in devices:
            await device.hello()
        sender = await stack.enter_async_context(ChatClient(server.url))
        await sender.hello()
        await sender.open_chat(devices[0])
        await sender.message(devices[0], "to all")
        await sender.send("TYPING", is_typing=True)
        for device in devices:
            await device.receive("CHAT_OPENED")
            assert (await device.receive("MSG"))["content"] == "to all"
            await device.receive("TYPING")
        eleventh = await stack.enter_async_context(ChatClient(server.url, user_id))
        await eleventh.send("HELLO", user_id=user_id, display_name="Somebody")
        code, reason = await eleventh.expect_close()
        assert (code, bool(reason)) == (1013, True)
        await sender.message(devices[0], "still there")
        for device in devices:
            await device.receive("MSG", content="still there")
        await devices[0].websocket.close()
        twelfth = await stack.enter_async_context(ChatClient(server.url, user_id))
        await twelfth.hello()


@pytest.mark.slow
def test_d4_a_silent_device_makes_room(server: Server) -> None:
    """One from which nothing came for 20 s, which is just when the heartbeat pings it, is closed with 4001."""
    user_id = str(uuid4())
    with ExitStack() as stack:
        devices = [stack.enter_context(RawClient.upgraded(server.port, user_id)) for _ in range(10)]
        for device in devices:
            device.hello()
        silent, *others = devices
        until = time.monotonic() + 18.0
        while time.monotonic() < until:
            time.sleep(2.0)
            for device in others:
                device.say("PING")
        assert silent.ping(timeout=10.0)
        newcomer = stack.enter_context(RawClient.upgraded(server.port, user_id))
        newcomer.hello()
        code, reason = silent.closed()
        assert (code, bool(reason)) == (4001, True)
        for device in others:
            device.everything()


# -- D5: identity is not proven, and cannot be borrowed --


@pytest.mark.attack("impersonation")
@run_async
async def test_d5_the_server_stamps_from(server: Server) -> None:
    async with ChatClient(server.url) as alice, ChatClient(server.url) as bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        forged = {"from": str(uuid4()), "timestamp": "1999-01-01T00:00:00Z", "user_id": str(uuid4())}
        await alice.message(bob, "it is me", **forged)
        message = await bob.receive("MSG")
        assert message["from"] == alice.user_id
        assert not message["timestamp"].startswith("1999")
        await bob.receive("CHAT_OPENED")
        await alice.send("TYPING", is_typing=True, **forged)
        assert (await bob.receive("TYPING"))["user_id"] == alice.user_id


@pytest.mark.slow
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])
def test_d5_listening_to_the_world_needs_a_decision(start_server: StartServer, host: str) -> None:
    with pytest.raises(ServerFailed) as failure:
        start_server(host=host)
    assert failure.value.exit_code == 2
    assert "FASTCHAT_AUTH" in failure.value.output
    assert "Traceback" not in failure.value.output


@run_async
async def test_d5_listening_to_the_world_with_a_decision(permissive: Server) -> None:
    async with ChatClient(url_of(permissive, "127.0.0.2")) as client:
        await client.hello()


@pytest.mark.slow
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "127.0.0.2"])
@run_async
async def test_d5_loopback_needs_none(start_server: StartServer, host: str) -> None:
    """The servers of the other tests listen on localhost."""
    server = start_server(host=host)
    authority = f"[{host}]" if ":" in host else host
    async with ChatClient(f"ws://{authority}:{server.port}/ws") as client:
        await client.hello()


# -- D6: Origin --

#: (Host, Origin) of requests, by what the default setting says.
ALLOWED = [
    ("localhost:8000", "http://localhost:3000"),
    ("localhost:8000", "https://localhost"),
    ("localhost", "http://127.0.0.1:5173"),
    ("localhost", "http://127.9.9.9"),
    ("localhost", "http://[::1]:8080"),
    ("192.0.2.7:8000", "http://192.0.2.7:8000"),
    ("[2001:db8::1]:8000", "http://[2001:db8::1]:8000"),
]
REFUSED = [
    ("localhost", "http://evil.example"),
    ("localhost", "http://localhost.evil.example"),
    ("localhost", "http://evil-localhost"),
    ("localhost", "http://127.0.0.1.evil.example"),
    ("localhost", "http://192.0.2.7"),
    ("evil.example", "http://evil.example"),  # DNS rebinding
    ("192.0.2.7", "http://192.0.2.8"),
    ("localhost", "null"),
    ("localhost", "nonsense"),
    ("localhost", "http://user@localhost"),
    ("localhost", ""),
]


def status(server: Server, host: str, origin: str) -> int:
    """What the server answers to an upgrade with these two headers."""
    with RawClient.to(server.port) as client:
        client.send(upgrade_request(Host=host, Origin=origin))
        return client.response()[0]


@pytest.mark.parametrize(("host", "origin"), ALLOWED)
def test_d6_allowed(server: Server, host: str, origin: str) -> None:
    assert status(server, host, origin) == 101


@pytest.mark.attack("cross-site WebSocket hijacking", "DNS rebinding")
@pytest.mark.parametrize(("host", "origin"), REFUSED)
def test_d6_refused_before_any_upgrade(server: Server, host: str, origin: str) -> None:
    assert status(server, host, origin) == 403


def test_d6_no_browser_no_origin(server: Server) -> None:
    with RawClient.upgraded(server.port) as client:
        client.hello()


@pytest.fixture(scope="module")
def listing_server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    origins = "https://*.example.com, http://chat.test:8080"
    with shared_server(pytestconfig, tmp_path_factory, workers=1, allowed_origins=origins) as server:
        yield server


@pytest.mark.attack("cross-site WebSocket hijacking")
@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://chat.example.com", 101),
        ("https://a.b.example.com", 101),
        ("https://CHAT.example.COM", 101),
        ("http://chat.test:8080", 101),
        ("http://chat.example.com", 403),
        ("https://example.com.evil.example", 403),
        ("https://evilexample.com", 403),
        ("http://chat.test", 403),
        ("https://chat.test:8080", 403),
    ],
)
def test_d6_listed_origins(listing_server: Server, origin: str, expected: int) -> None:
    assert status(listing_server, "somewhere.test", origin) == expected


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("chat.example.com:8443", "https://chat.example.com:8443", 101),
        ("chat.test:9000", "http://chat.test:9000", 101),
        ("chat.example.com", "http://chat.example.com", 403),
        ("chat.example.com:8443", "http://chat.example.com:8443", 403),
        ("chat.test", "https://chat.test", 403),
    ],
)
def test_d6_the_own_host_with_a_listed_scheme(
    listing_server: Server, host: str, origin: str, expected: int
) -> None:
    assert status(listing_server, host, origin) == expected


def test_d6_every_origin(permissive: Server) -> None:
    assert status(permissive, "anything.example", "https://evil.example") == 101


@run_async
async def test_users_of_all_workers_get_in(server: Server) -> None:
    for index in range(server.workers):
        async with ChatClient(server.url, user_on_worker(index, server.workers)) as client:
            await client.hello()
