"""Tests of router.supervisor.listeners."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from core.process.settings import ConfigurationError
from router.supervisor import listeners

BOTH = ["127.0.0.1", "::1"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(stack: ExitStack, addresses: list[str], port: int = 0, setting: str = "") -> list[socket.socket]:
    opened = asyncio.run(listeners.open_listeners(setting, addresses, port))
    for listener in opened:
        stack.callback(listener.close)
    return opened


def test_a_free_port_is_free_on_all_addresses(stack: ExitStack) -> None:
    opened = listen(stack, BOTH)
    assert [listener.family for listener in opened] == [socket.AF_INET, socket.AF_INET6]
    assert {listener.getsockname()[1] for listener in opened} == {listeners.port_of(opened)}


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_port_on_which_someone_listens_is_taken(
    stack: ExitStack, reuse_port: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "PATIENCE", 0.1)
    other = stack.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=reuse_port))
    port = other.getsockname()[1]
    with pytest.raises(
        ConfigurationError, match=f"port {port} on 127.0.0.1 is taken: .* with FASTCHAT_ADMIN_PORT"
    ):
        listen(stack, BOTH, port, "ADMIN_")


@pytest.mark.parametrize("mine", [["0.0.0.0"], ["127.0.0.1"]])
def test_our_own_shared_port_is_taken_for_everybody_else(
    stack: ExitStack, mine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The point of it all: with SO_REUSEPORT alone a second server would get half of the clients."""
    monkeypatch.setattr(listeners, "PATIENCE", 0.1)
    first = listen(stack, mine)
    stack.enter_context(listeners.share(first[0]))
    for theirs in (["127.0.0.1"], ["0.0.0.0"]):
        with pytest.raises(ConfigurationError, match=r"is taken"):
            listen(stack, theirs, listeners.port_of(first))


def test_a_port_that_is_let_go_in_time_is_had(stack: ExitStack) -> None:
    other = socket.create_server(("127.0.0.1", 0))
    port = other.getsockname()[1]
    timer = threading.Timer(0.3, other.close)
    timer.start()
    try:
        assert listeners.port_of(listen(stack, BOTH, port)) == port
    finally:
        timer.join()


def test_connections_of_a_server_that_has_ended_do_not_keep_the_port(stack: ExitStack) -> None:
    """TIME_WAIT is on the side that closes first."""
    (listener,) = listen(stack, ["127.0.0.1"])
    port = listeners.port_of([listener])
    with socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = socket.socket.accept(_blocking(listener))
        accepted.close()
        assert client.recv(1) == b""
    listener.close()
    assert listeners.port_of(listen(stack, ["127.0.0.1"], port)) == port


def _blocking(listener: socket.socket) -> socket.socket:
    listener.settimeout(10)
    return listener


def test_connections_are_spread_over_the_sockets_that_share_a_port(stack: ExitStack) -> None:
    (first,) = listen(stack, ["127.0.0.1"])
    second = stack.enter_context(listeners.share(first))
    clients = [stack.enter_context(socket.create_connection(first.getsockname())) for _ in range(100)]
    counts = []
    for listener in (first, second):
        count = 0
        while True:
            try:
                stack.enter_context(listener.accept()[0])
            except BlockingIOError:
                break
            count += 1
        counts.append(count)
    assert sum(counts) == len(clients)
    assert min(counts) > 0


def test_a_family_that_the_machine_lacks_is_left_out(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoIPv6(socket.socket):
        def __init__(
            self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
        ) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, type, proto, fileno)

    monkeypatch.setattr(socket, "socket", NoIPv6)
    assert [listener.family for listener in listen(stack, BOTH)] == [socket.AF_INET]
    with pytest.raises(ConfigurationError, match=r"FASTCHAT_HOST: ::1 is not an address of this machine"):
        listen(stack, ["::1"])


def test_the_unspecified_ipv6_address_means_both_families(stack: ExitStack) -> None:
    opened = listen(stack, ["::"])
    for address in BOTH:
        stack.enter_context(socket.create_connection((address, listeners.port_of(opened))))


def test_names_and_addresses() -> None:
    assert listeners.addresses_of("HOST", "localhost") == BOTH
    assert listeners.addresses_of("HOST", "::") == ["::"]
    assert listeners.are_loopback(BOTH)
    assert not listeners.are_loopback(["127.0.0.1", "0.0.0.0"])
    with pytest.raises(ConfigurationError, match=r"FASTCHAT_ADMIN_HOST: 'no.such.invalid' is neither"):
        listeners.addresses_of("ADMIN_HOST", "no.such.invalid")
    with pytest.raises(ConfigurationError, match=r"FASTCHAT_HOST"):
        listeners.addresses_of("HOST", "a" * 100 + ".example")
