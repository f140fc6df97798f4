"""Limits by address and in all, against a real server on the wire: exact, whatever becomes of the connections, and nobody else notices.

All of 127.0.0.0/8 is this machine, so a test has as many addresses as it likes.
"""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final

import pytest

from tests.router.command import fastchat
from tests.system.harness import Server, StartServer, user_on_worker, wait_until
from tests.system.raw_client import Ended, RawClient, upgrade_request
from tests.system.servers import shared_server
from tests.system.status import figure, status

#: Where a proxy is, and where clients are that use it.
PROXY: Final = "127.0.0.100"
NEAR_PROXY: Final = "127.0.0.101"
CLIENT: Final = "203.0.113.9"

LIMIT: Final = 4


def connect(server: Server, source: str, user: str | None = None) -> RawClient:
    """Connected from this address, nothing sent yet."""
    return RawClient.to(server.port, user, source=source)


def ask(server: Server, source: str, **headers: str) -> tuple[int, Mapping[str, str], RawClient]:
    """Connect from this address and ask for the upgrade: status and headers of the answer, and the client."""
    client = connect(server, source)
    with suppress(ConnectionError):  # refused before it was read; the answer is there
        client.send(upgrade_request(**headers))
    code, answer = client.response()
    return code, answer, client


def come(server: Server, source: str, worker: int = 0, **headers: str) -> RawClient:
    """A client from this address that has been greeted."""
    code, _, client = ask(server, source, **headers)
    assert code == 101, code
    client.user_id = user_on_worker(worker, server.workers)
    client.hello()
    return client


def refused(server: Server, source: str, **headers: str) -> bool:
    """Whether a connection from there is answered with 503 and Retry-After; anything but that or 101 fails."""
    code, answer, client = ask(server, source, **headers)
    client.socket.close()
    if code == 503:
        assert int(answer["retry-after"]) > 0
        return True
    assert code == 101, code
    return False


def counted(server: Server, limit: str) -> float:
    """How many were refused by this limit."""
    return figure(server, "front", f'front_limited_total{{limit="{limit}"}}')


@pytest.fixture(scope="module")
def limited(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with few connections for each address, that believes one proxy and the network beside it."""
    settings: dict[str, Any] = {
        "connections_per_ip": LIMIT,
        "trusted_proxies": f"{PROXY}, 127.0.1.0/24",
        "log_level": "debug",
    }
    with shared_server(pytestconfig, tmp_path_factory, **settings) as server:
        yield server


# -- One address --


@pytest.mark.attack("10,000 sockets without HELLO")
@pytest.mark.parametrize("worker", [0, 1, None])
def test_an_address_has_so_many_connections_wherever_they_live(limited: Server, worker: int | None) -> None:
    """On one worker or on several, before HELLO or behind it; and as soon as one ends, there is room again."""
    source = f"127.0.2.{1 if worker is None else 2 + worker}"
    before = counted(limited, "address")
    with ExitStack() as stack:
        clients = [
            stack.enter_context(come(limited, source, number % 2 if worker is None else worker))
            for number in range(LIMIT)
        ]
        for _ in range(5):
            assert refused(limited, source)
        wait_until(lambda: counted(limited, "address") >= before + 5, "the refusals to be counted")
        # Another address of the same machine has its own.
        come(limited, "127.0.2.99").socket.close()
        for client in clients[:2]:
            client.socket.close()
        wait_until(lambda: not refused(limited, source), "room for one more")


@pytest.mark.attack("10,000 sockets without HELLO")
def test_a_hundred_at_once_are_let_in_exactly_so_far(limited: Server) -> None:
    """No gap between the front and the worker through which one too many slips."""
    source = "127.0.2.10"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(limited, source)) for _ in range(100)]
        for number, client in enumerate(clients):
            client.user_id = user_on_worker(number % 2, 2)
            try:
                client.send(upgrade_request() + client.hello_bytes())
            except ConnectionError:
                continue
        let_in = 0
        for client in clients:
            try:
                let_in += client.response()[0] == 101
            except Ended:
                continue
        assert let_in == LIMIT
        assert refused(limited, source)
    wait_until(lambda: not refused(limited, source), "the others to be forgotten")


def test_coming_and_going_uses_nothing_up(limited: Server) -> None:
    """Many times the limit, one after the other, however they leave."""
    source = "127.0.2.11"
    for number in range(8 * LIMIT):
        wait_until(lambda: not refused(limited, source), "room")
        match number % 4:
            case 0:
                client = connect(limited, source)
            case 1:
                client = connect(limited, source)
                client.send(upgrade_request()[:30])
            case 2:
                _, _, client = ask(limited, source)
            case _:
                _, _, client = ask(limited, source)
                client.send(client.hello_bytes())
        if number % 8 < 4:
            client.socket.close()
        else:
            client.reset()
    with ExitStack() as stack:

        def full_house() -> bool:
            code, _, client = ask(limited, source)
            if code != 101:
                client.socket.close()
                return False
            stack.enter_context(client)
            return True

        for _ in range(LIMIT):
            wait_until(full_house, "all places to be free again")
        assert refused(limited, source)


def test_a_killed_worker_gives_its_places_back(limited: Server) -> None:
    source = "127.0.2.12"
    with ExitStack() as stack:
        for number in range(LIMIT):
            stack.enter_context(come(limited, source, number % 2))
        assert refused(limited, source)
        os.kill(limited.child("worker 1"), signal.SIGKILL)
        again = []

        def room() -> bool:
            code, _, client = ask(limited, source)
            again.append(client)
            return code == 101

        wait_until(room, "the places of the dead worker")
        wait_until(room, "its other place")
        for _ in range(3):
            assert not room(), "those on the living worker still count"
        for client in again:
            client.socket.close()
    wait_until(lambda: "worker 1" in " ".join(limited.children().values()), "worker 1 to be back")
    come_back(limited)


def come_back(server: Server) -> None:
    """Wait until worker 1 serves again, for the tests that follow."""

    def served() -> bool:
        return all(each["state"] == "ready" for each in status(server)["processes"])

    wait_until(served, "all processes to be ready", 20.0)


def test_a_front_that_is_started_again_knows_who_is_there(limited: Server) -> None:
    source = "127.0.2.13"
    with ExitStack() as stack:
        for number in range(LIMIT):
            stack.enter_context(come(limited, source, number % 2))
        front = limited.child("front 0")
        os.kill(front, signal.SIGKILL)
        wait_until(lambda: front not in limited.children(), "the front to be gone")
        come_back(limited)
        wait_until(lambda: refused(limited, source), "the new front to know")
        for _ in range(3):
            assert refused(limited, source)


def test_pages_count_only_while_they_are_served(limited: Server) -> None:
    for _ in range(4 * LIMIT):
        connection = http.client.HTTPConnection(
            "127.0.0.1", limited.port, timeout=10, source_address=("127.0.2.14", 0)
        )
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()


# -- Proxies --


def address_of(server: Server, client: RawClient) -> str:
    """What `fastchat who` says where a client is."""
    run_dir = status(server)["settings"]["run_dir"]
    told = fastchat("who", "--json", "--run-dir", run_dir, "--", client.user_id)
    assert told.returncode == 0, told.stderr
    return told.stdout.partition('"address":"')[2].partition('"')[0]


@pytest.mark.attack("spoofed forwarded headers")
def test_what_a_stranger_says_about_addresses_is_not_believed(limited: Server) -> None:
    """Neither to get more room, nor to take it from somebody else."""
    with ExitStack() as stack:
        for number in range(LIMIT):
            spoofed = f"198.51.100.{number}"
            stack.enter_context(come(limited, NEAR_PROXY, X_Forwarded_For=spoofed))
        for header in ({"X_Forwarded_For": "198.51.100.77"}, {"Forwarded": "for=198.51.100.77"}, {}):
            assert refused(limited, NEAR_PROXY, **header)
        with come(limited, "127.0.2.20", X_Forwarded_For=CLIENT) as honest:
            assert address_of(limited, honest).startswith("127.0.2.20:")


@pytest.mark.attack("spoofed forwarded headers")
def test_the_word_of_a_trusted_proxy_is_believed(limited: Server) -> None:
    """The limits are those of the clients behind it; logs and `fastchat who` name them."""
    with ExitStack() as stack:
        for client in range(3):
            for _ in range(LIMIT):
                stack.enter_context(come(limited, PROXY, X_Forwarded_For=f"198.51.100.{client}"))
        for client in range(3):
            assert refused(limited, PROXY, X_Forwarded_For=f"198.51.100.{client}")
        with come(limited, PROXY, X_Forwarded_For=f"1.2.3.4, {CLIENT}") as one:
            assert address_of(limited, one) == CLIENT
            wait_until(lambda: f"address={CLIENT}" in limited.output(), "the log to name the client")
        with come(limited, PROXY, X_Forwarded_For="2001:db8::17") as six:
            assert address_of(limited, six) == "[2001:db8::17]"


@pytest.mark.attack("spoofed forwarded headers")
def test_several_proxies_on_the_way(limited: Server) -> None:
    """The first address from the right that is no trusted proxy's is the client's."""
    for forwarded in (f"{CLIENT}, 127.0.1.5", f"198.51.100.1,127.0.0.1, {CLIENT} ,127.0.1.7,127.0.1.8"):
        with come(limited, PROXY, X_Forwarded_For=forwarded) as client:
            assert address_of(limited, client) == CLIENT


@pytest.mark.attack("spoofed forwarded headers")
def test_an_ipv6_network_behind_a_proxy_is_one_place(limited: Server) -> None:
    with ExitStack() as stack:
        for number in range(LIMIT):
            stack.enter_context(come(limited, PROXY, X_Forwarded_For=f"2001:db8:0:7::{number + 1}"))
        assert refused(limited, PROXY, X_Forwarded_For="2001:db8:0:7:ffff::1")
        assert not refused(limited, PROXY, X_Forwarded_For="2001:db8:0:8::1")


@pytest.mark.attack("spoofed forwarded headers")
@pytest.mark.parametrize(
    "garbage", ["", "unknown", "_hidden", "<b>", "1.2.3.4.5", "127.0.0.1 198.51.100.1", "%s", "\xff"]
)
def test_nonsense_from_a_proxy_is_the_proxys_own(limited: Server, garbage: str) -> None:
    """It counts as one place, so nobody gains room by it."""
    client = connect(limited, "127.0.1.77")
    client.send(upgrade_request(X_Forwarded_For="@").replace(b"@", f"{CLIENT}, {garbage}".encode("latin-1")))
    code, _ = client.response()
    with client:
        if code == 400:
            return  # no HTTP, which is an answer too
        client.hello()
        assert address_of(limited, client).startswith("127.0.1.77")


# -- Other limits --


@pytest.mark.slow
@pytest.mark.attack("10,000 sockets without HELLO")
def test_half_open_ones_are_limited_and_who_says_hello_makes_room(start_server: StartServer) -> None:
    server = start_server(workers=1, half_open_per_ip=3)
    source = "127.0.2.30"
    with ExitStack() as stack:
        clients = []
        for _ in range(3):
            code, _, client = ask(server, source)
            assert code == 101
            clients.append(stack.enter_context(client))
        assert refused(server, source)
        # Who has not even asked counts like who has not said HELLO.
        for client in clients:
            client.hello()
        silent = [stack.enter_context(connect(server, source)) for _ in range(3)]
        wait_until(lambda: refused(server, source), "the silent ones to be seen")
        with come(server, "127.0.2.31"):
            pass
        for client in silent:
            client.socket.close()
        wait_until(lambda: not refused(server, source), "room again")
    wait_until(lambda: counted(server, "half_open") > 0, "the refusals to be counted")


@pytest.mark.slow
@pytest.mark.attack("reconnect storm")
def test_new_connections_a_second_are_limited(start_server: StartServer) -> None:
    """The burst gets in, then only so many; another address has its own, and a while later it is all as before."""
    server = start_server(workers=1, connection_rate_per_ip=2)
    answers = [refused(server, "127.0.2.40") for _ in range(40)]
    assert not any(answers[:6])
    assert any(answers)
    for _ in range(6):
        assert not refused(server, "127.0.2.41")
    wait_until(lambda: not refused(server, "127.0.2.40"), "a place in the bucket")
    wait_until(lambda: counted(server, "rate") > 0, "the refusals to be counted")


@pytest.mark.slow
@pytest.mark.parametrize("fronts", [1, 2])
def test_the_server_has_so_many_connections_in_all(start_server: StartServer, fronts: int) -> None:
    """Wherever they come from; the page for health checks is answered all the same."""
    server = start_server(max_connections=5, fronts=fronts)
    with ExitStack() as stack:
        for number in range(5):

            def one_more(number: int = number) -> bool:
                code, _, client = ask(server, f"127.0.3.{number}")
                stack.enter_context(client)
                if code == 101:
                    client.user_id = user_on_worker(number % 2, 2)
                    client.hello()
                return code == 101

            wait_until(one_more, "room for all five")
        wait_until(lambda: refused(server, "127.0.3.100"), "the server to be full")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        wait_until(lambda: counted(server, "server") > 0, "the refusals to be counted")
    wait_until(lambda: not refused(server, "127.0.3.100"), "room again")


@pytest.mark.slow
def test_several_fronts_know_of_each_others_clients(start_server: StartServer) -> None:
    """What one has handed over counts for all of them, a moment later."""
    server = start_server(connections_per_ip=LIMIT, fronts=3)
    source = "127.0.2.50"
    with ExitStack() as stack:

        def one_more() -> bool:
            code, _, client = ask(server, source)
            stack.enter_context(client)
            if code == 101:
                client.hello()
            return code == 101

        for _ in range(LIMIT):
            wait_until(one_more, "room")
        # Whichever of the fronts it is that is asked.
        wait_until(lambda: all(refused(server, source) for _ in range(20)), "all of them to know")
    wait_until(lambda: not any(refused(server, source) for _ in range(3)), "room again")


@pytest.mark.parametrize(
    "entry",
    [
        "proxy.example",
        *(pytest.param(entry, marks=pytest.mark.slow) for entry in ("10.0.0.0/99", "10.0.0.1/8")),
    ],
)
def test_a_proxy_that_is_none_stops_the_start(entry: str) -> None:
    checked = fastchat("config", "check", "--trusted-proxies", entry)
    assert checked.returncode == 2
    assert "FASTCHAT_TRUSTED_PROXIES" in checked.stderr
