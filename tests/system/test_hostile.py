"""Clients that dribble, stop, lie or leave half way, next to a pair that chats and must not notice; and nothing leaks.

What happens before HELLO happens in the front, so this is about the handshake, the lobby and the hand-over.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.system.harness import Server, wait_until
from tests.system.raw_client import (
    CONTINUATION,
    PING,
    TEXT,
    Ended,
    RawClient,
    client_frame,
    message,
    text,
    upgrade_request,
)
from tests.system.status import descriptors, sockets

#: Beside every test, also those that are no attack of their own.
pytestmark = pytest.mark.attack()


@pytest.fixture(scope="module")
def server(own_server: Server) -> Server:
    """Of its own, since descriptors and clients are counted."""
    return own_server


@pytest.fixture(scope="module", autouse=True)
def first_page(server: Server) -> None:
    """It costs a descriptor that stays."""
    answer(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


@pytest.fixture(autouse=True)
def nothing_leaks(server: Server, bystanders: None) -> Iterator[None]:
    """Around each test: front and workers have as many descriptors and clients as before."""
    wait_until(lambda: sockets(server)["fastchat: front 0"] == 0, "the front to be rid of the test before")
    clients, before = sockets(server), descriptors(server)
    yield

    def as_before() -> bool:
        now = descriptors(server)
        return sockets(server) == clients and all(now[title] <= before[title] for title in before)

    try:
        wait_until(as_before, "descriptors and sockets to return to their level", timeout=15.0)
    except AssertionError as error:
        raise AssertionError(
            f"{error}: {before} became {descriptors(server)}, {clients} {sockets(server)}"
        ) from None


def usable(client: RawClient) -> None:
    """The client is greeted and served."""
    client.receive("HELLO_ACK")
    client.say("PING")
    client.receive("PONG")


# -- Slowly --


@pytest.mark.attack("slow handshake", "slow HELLO")
def test_everything_byte_by_byte(server: Server) -> None:
    with RawClient.to(server.port) as client:
        client.dribble(upgrade_request())
        assert client.response()[0] == 101
        client.dribble(client.hello_bytes())
        usable(client)


@pytest.mark.attack("slow HELLO")
def test_a_fragmented_hello_byte_by_byte_with_pings_between(server: Server) -> None:
    """Pings are answered at once, though HELLO is not there yet."""
    with RawClient.upgraded(server.port) as client:
        hello = message("HELLO", user_id=client.user_id, display_name="Somebody")
        client.dribble(client_frame(TEXT, hello[:20], fin=False))
        client.dribble(client_frame(PING, b"one"))
        client.pong(b"one")
        client.dribble(client_frame(CONTINUATION, hello[20:30], fin=False))
        client.dribble(client_frame(PING, b"two"))
        client.pong(b"two")
        client.dribble(client_frame(CONTINUATION, hello[30:]))
        usable(client)


@pytest.mark.attack("fragment flood")
@pytest.mark.parametrize(
    "pieces", [2, *(pytest.param(pieces, marks=pytest.mark.slow) for pieces in (3, 7)), 50]
)
def test_a_fragmented_hello(server: Server, pieces: int) -> None:
    """In one segment, with a ping in the middle and more behind it."""
    with RawClient.upgraded(server.port) as client:
        hello = message("HELLO", user_id=client.user_id, display_name="Somebody")
        size = -(-len(hello) // pieces)
        parts = [hello[start : start + size] for start in range(0, len(hello), size)]
        burst = b""
        for index, part in enumerate(parts):
            burst += client_frame(TEXT if index == 0 else CONTINUATION, part, fin=index == len(parts) - 1)
            if index == 0:
                burst += client_frame(PING, b"between")
        client.send(burst + text("PING"))
        client.pong(b"between")
        client.receive("HELLO_ACK")
        client.receive("PONG")


@pytest.mark.attack("fragment flood")
def test_a_hello_of_which_each_fragment_is_16_kib_in_all(server: Server) -> None:
    """The most that can travel with a socket: 16 KiB of payload in many frames around pings."""
    with RawClient.upgraded(server.port) as client:
        empty = message("HELLO", user_id=client.user_id, display_name="Somebody", padding="")
        hello = message(
            "HELLO", user_id=client.user_id, display_name="Somebody", padding="x" * (16384 - len(empty))
        )
        parts = [hello[start : start + 512] for start in range(0, len(hello), 512)]
        for index, part in enumerate(parts):
            client.send(client_frame(TEXT if index == 0 else CONTINUATION, part, fin=index == len(parts) - 1))
            if index % 10 == 0 and index < len(parts) - 1:
                client.send(client_frame(PING, b"x"))
                client.pong(b"x")
        usable(client)


@pytest.mark.attack("fragment flood")
def test_a_hello_in_tiny_fragments(server: Server) -> None:
    """Headers many times the size of the payload."""
    with RawClient.upgraded(server.port) as client:
        hello = message("HELLO", user_id=client.user_id, display_name="Somebody", padding="x" * 1000)
        frames = [client_frame(TEXT, hello[:1], fin=False), client_frame(PING, b"x")]
        frames += [client_frame(CONTINUATION, hello[i : i + 1], fin=False) for i in range(1, len(hello) - 1)]
        client.send(b"".join([*frames, client_frame(CONTINUATION, hello[-1:])]) + text("PING"))
        client.pong(b"x")
        client.receive("HELLO_ACK")
        client.receive("PONG")


@pytest.mark.attack("fragment flood")
def test_endless_empty_fragments_are_ended(server: Server) -> None:
    """They never add up to 16 KiB of payload, yet must not pile up for ever: a close with a code, or the 10 s for HELLO are over."""
    with RawClient.upgraded(server.port) as client:
        client.send(client_frame(TEXT, b"", fin=False) + client_frame(PING, b"x"))
        empty = client_frame(CONTINUATION, b"", fin=False) * 100
        began = time.monotonic()
        with pytest.raises((ConnectionError, TimeoutError)):
            while time.monotonic() < began + 20.0:
                client.send(empty)
                time.sleep(0.05)
            raise AssertionError("the server listened for 20 s")


@pytest.mark.attack("request smuggling")
def test_everything_in_one_segment(server: Server) -> None:
    """HELLO, OPEN_CHAT and MSG behind the request for the upgrade, before it has been answered."""
    with RawClient.upgraded(server.port) as bob, RawClient.to(server.port) as alice:
        bob.hello()
        alice.send(
            upgrade_request()
            + alice.hello_bytes()
            + text("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
            + text("MSG", to=bob.user_id, content="in one go", message_id="m")
        )
        assert alice.response()[0] == 101
        alice.receive("HELLO_ACK")
        alice.receive("CHAT_OPENED")
        alice.receive("MSG_ACK", message_id="m")
        assert bob.receive("MSG")["content"] == "in one go"


def test_much_behind_hello(server: Server) -> None:
    """More than one read, in the kernel and on the way while the socket changes hands."""
    with RawClient.upgraded(server.port) as bob, RawClient.upgraded(server.port) as alice:
        bob.hello()
        burst = alice.hello_bytes() + text("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
        for number in range(200):
            burst += text("MSG", to=bob.user_id, content="x" * 500, message_id=f"{number}")
        alice.send(burst)
        for number in range(200):
            assert bob.receive("MSG")["message_id"] == f"{number}"


def test_pings_and_messages_before_hello(server: Server) -> None:
    """Everything in its order: pong, PONG, errors, then HELLO."""
    with RawClient.upgraded(server.port) as client:
        client.send(
            client_frame(PING, b"x")
            + text("PING")
            + text("MSG", to="x", content="y")
            + client_frame(TEXT, b"nonsense")
            + client_frame(0xA, b"unasked")
            + client.hello_bytes()
            + client_frame(PING, b"y")
        )
        client.pong(b"x")
        client.receive("PONG")
        client.error("UNAUTHORIZED")
        client.error("VALIDATION")
        client.receive("HELLO_ACK")
        client.pong(b"y")


@pytest.mark.attack("flood of messages")
def test_a_flood_before_hello_is_not_free(server: Server) -> None:
    """More than 20 invalid messages in a minute: 1008; whatever they are, the front neither grows nor hangs."""
    with RawClient.upgraded(server.port) as client:
        client.send(client_frame(TEXT, b"nonsense") * 21)
        for _ in range(20):
            client.error("VALIDATION")
        assert client.closed()[0] == 1008
    with RawClient.upgraded(server.port) as client:
        client.send(text("MSG") * 2000)
        for _ in range(2000):
            client.error("UNAUTHORIZED")
        client.hello()


@pytest.mark.slow
@pytest.mark.attack("never-reading client")
def test_who_never_reads_the_answers_is_ended(server: Server) -> None:
    """A client that sends and sends before HELLO, and reads nothing, must not fill the front's memory."""
    client = RawClient.upgraded(server.port)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    began = time.monotonic()
    try:
        client.socket.settimeout(0.5)
        while time.monotonic() < began + 12.0:
            try:
                client.socket.sendall(text("MSG") * 100)
            except TimeoutError:
                continue  # it is not read from any more, which is an answer too
            except ConnectionError:
                break
    finally:
        client.socket.close()
    assert time.monotonic() - began < 16.0


# -- Half way --

#: What a client has sent when it stops: bytes behind the connection, and whether an answer is read before.
HALF_WAY: Final = {
    "nothing": b"",
    "half a request": upgrade_request()[:40],
    "the request": upgrade_request(),
    "half a frame's header": upgrade_request() + b"\x81",
    "half a HELLO": upgrade_request() + text("HELLO", user_id="x")[:-5],
    "half a fragmented HELLO": upgrade_request() + client_frame(TEXT, b'{"type"', fin=False),
    "half a fragmented HELLO with a ping": upgrade_request()
    + client_frame(TEXT, b'{"type"', fin=False)
    + client_frame(PING, b"x"),
}


#: How it leaves; and both together, of which the first tier takes each of either once or more.
HOW: Final = ("close", "half close", "reset")
LEAVING: Final = [
    pytest.param(HALF_WAY[sent], how, id=f"{sent}-{how}", marks=[] if place % 3 == way else pytest.mark.slow)
    for place, sent in enumerate(HALF_WAY)
    for way, how in enumerate(HOW)
]


@pytest.mark.attack("leaving half way")
@pytest.mark.parametrize(("sent", "how"), LEAVING)
def test_leaving_half_way(server: Server, sent: bytes, how: str) -> None:
    """The server lets go of it soon, not only when a deadline has passed."""
    clients = [RawClient.to(server.port) for _ in range(5)]
    for client in clients:
        client.send(sent)
        if sent.endswith(b"\r\n\r\n"):
            client.response()
        if how == "reset":
            client.reset()
        elif how == "half close":
            client.end_of_sending()
    if how == "half close":
        for client in clients:
            client.until_end()
    for client in clients:
        client.socket.close()


@pytest.mark.attack("leaving half way")
@pytest.mark.parametrize("how", [pytest.param("close", marks=pytest.mark.slow), "half close", "reset"])
def test_leaving_right_behind_hello(server: Server, how: str) -> None:
    """While the socket is on its way to the worker."""
    for _ in range(20):
        with RawClient.upgraded(server.port) as client:
            client.send(client.hello_bytes())
            if how == "reset":
                client.reset()
            elif how == "half close":
                client.end_of_sending()
                client.until_end()


@pytest.mark.slow
@pytest.mark.attack("slow handshake", "slow HELLO", "silent socket")
@pytest.mark.parametrize(
    "name", ["nothing", "half a request", "half a HELLO", "half a fragmented HELLO with a ping"]
)
def test_stopping_half_way(server: Server, name: str) -> None:
    """10 s after the upgrade it is 1008; a request that does not end is ended too."""
    began = time.monotonic()
    with RawClient.to(server.port) as client:
        client.send(HALF_WAY[name])
        if "HELLO" in name:
            assert client.response()[0] == 101
            code, reason = client.closed(timeout=15.0)
            assert (code, bool(reason)) == (1008, True)
            assert time.monotonic() - began > 9.5
        else:
            client.until_end(20.0)


# -- HTTP --


def answer(server: Server, request: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer, and the end of the connection behind it."""
    with RawClient.to(server.port) as client:
        client.send(request)
        status, headers = client.response()
        if status != 101:
            client.until_end()
        return status, dict(headers)


REQUESTS: Final = {
    "no version": (upgrade_request(Sec_WebSocket_Version=None), 400),
    "another version": (upgrade_request(Sec_WebSocket_Version="8"), 426),
    "no upgrade": (b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
    "another upgrade": (upgrade_request(Upgrade="h2c"), 426),
    "no key": (upgrade_request(Sec_WebSocket_Key=None), 400),
    "a bad key": (upgrade_request(Sec_WebSocket_Key="short"), 400),
    "no Host": (upgrade_request(Host=None), 400),
    "POST": (upgrade_request().replace(b"GET", b"POST", 1), 405),
    "a foreign origin": (upgrade_request(Origin="https://evil.example"), 403),
    "another path": (upgrade_request("/elsewhere"), 404),
    "nonsense": (b"nonsense\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400),
    "a header without a colon": (upgrade_request()[:-2] + b"nonsense\r\n\r\n", 400),
    "a folded header": (upgrade_request()[:-2] + b"X: a\r\n b\r\n\r\n", 400),
    "HTTP/1.0": (upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
}


#: One or more for each status; the tests in tests/router/front have all that is refused.
FIRST: Final = (
    "no version",
    "another version",
    "no upgrade",
    "POST",
    "a foreign origin",
    "another path",
    "HTTP/1.0",
)


@pytest.mark.attack("malformed request")
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(*case, id=name, marks=[] if name in FIRST else pytest.mark.slow)
        for name, case in REQUESTS.items()
    ],
)
def test_requests_that_are_no_upgrade(server: Server, request_: bytes, expected: int) -> None:
    """The right status, and `Connection: close`, or a proxy would send the next one's request down the same connection."""
    status, headers = answer(server, request_)
    assert status == expected
    assert headers["connection"].lower() == "close"
    if expected == 426:
        assert headers["upgrade"].lower() == "websocket"
    if request_ == REQUESTS["another version"][0]:
        assert headers["sec-websocket-version"] == "13"
    if expected == 405:
        assert "GET" in headers["allow"]


@pytest.mark.attack("malformed request")
def test_requests_that_are_an_upgrade_all_the_same(server: Server) -> None:
    for request in (
        upgrade_request("/ws?token=x"),
        upgrade_request(Connection="keep-alive, upgrade"),
        upgrade_request(Upgrade="WebSocket"),
        upgrade_request(Sec_WebSocket_Extensions="permessage-deflate"),
        upgrade_request(Sec_WebSocket_Protocol="chat"),
        upgrade_request(X_Large="x" * 4000),
    ):
        status, headers = answer(server, request)
        assert status == 101
        assert "sec-websocket-extensions" not in headers
        assert "sec-websocket-protocol" not in headers


@pytest.mark.attack("header flood", "oversized header")
@pytest.mark.parametrize(
    "header", [b"X: " + b"x" * 20_000, b"\r\n".join(b"X-%d: %s" % (n, b"x" * 100) for n in range(200))]
)
def test_16_kib_of_headers(server: Server, header: bytes) -> None:
    """An answer rather than a reset, or at least an end; and soon."""
    with RawClient.to(server.port) as client:
        client.send(upgrade_request()[:-2] + header + b"\r\n\r\n")
        assert client.response()[0] in (400, 431)


@pytest.mark.attack("header flood")
def test_headers_without_an_end(server: Server) -> None:
    with RawClient.to(server.port) as client, pytest.raises((ConnectionError, TimeoutError, Ended)):
        client.send(b"GET /ws HTTP/1.1\r\n")
        began = time.monotonic()
        while time.monotonic() < began + 20.0:
            client.send(b"X: " + b"x" * 1000 + b"\r\n")
            time.sleep(0.01)


@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_pages_are_served_from_the_same_port(server: Server, path: str) -> None:
    with RawClient.to(server.port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert client.response()[0] == 200


@pytest.mark.attack("silent socket")
def test_connections_that_only_open(server: Server) -> None:
    """200 at once that say nothing; others get in meanwhile."""
    idle = [RawClient.to(server.port) for _ in range(200)]
    try:
        with RawClient.upgraded(server.port) as client:
            client.send(client.hello_bytes())
            usable(client)
    finally:
        for each in idle:
            each.socket.close()
