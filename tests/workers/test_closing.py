"""workers.closing in a real worker: our FIN follows the client's Close frame or the end of the linger time, never our own Close (D28)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from core.process.control import ASK
from tests.system.raw_client import BINARY, CLOSE, CONTINUATION, TEXT, RawClient, client_frame, text
from tests.workers.process import WorkerProcess
from workers.limits import DEFAULT_LIMITS

#: Seconds that a client has to close its side after our Close frame.
LINGER_SECONDS = DEFAULT_LIMITS.linger


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess(open_chats_per_minute=0, hellos_per_minute=0, pings_per_second=0) as worker:
        yield worker


def sends(data: bytes) -> Callable[[WorkerProcess, RawClient], None]:
    """The client breaks a rule."""
    return lambda worker, client: client.send(data)


def kick(worker: WorkerProcess, client: RawClient) -> None:
    """The operator closes the user's connections."""
    worker.say(ASK, id=1, what="kick", user=client.user_id)


#: What ends a connection from our side, and the code.
ENDS = {
    "1002": (sends(client_frame(TEXT, b"{}", rsv=4)), 1002),
    "1002 unreadable": (sends(client_frame(TEXT, b"{}", mask=False)), 1002),
    "1003": (sends(client_frame(BINARY, b"{}")), 1003),
    "1007": (sends(client_frame(TEXT, b"\xff", fin=False)), 1007),
    "1008 kick": (kick, 1008),
    "1008 strikes": (sends(text("NONSENSE") * 21), 1008),
    "1009": (sends(client_frame(TEXT, b"x" * 70_000)), 1009),
    "1009 fragments": (
        sends(client_frame(TEXT, b"x" * 16_000, fin=False) + client_frame(CONTINUATION, b"x" * 16_000)),
        1009,
    ),
}


def read_until_close(client: RawClient) -> tuple[int, str]:
    """The Close frame; what came before it is forgotten."""
    while (frame := client.frame()).opcode != CLOSE:
        pass
    return frame.close()


def stays_open(client: RawClient, seconds: float) -> None:
    """Nothing comes for so long, and no FIN."""
    client.socket.settimeout(seconds)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS.keys())
def test_d28_fin_follows_the_clients_close(
    worker: WorkerProcess, end: Callable[[WorkerProcess, RawClient], None], code: int
) -> None:
    """Whatever else the client was sending meanwhile. It is a FIN, not a reset."""
    with worker.chatter() as client:
        end(worker, client)
        assert read_until_close(client)[0] == code
        client.send(text("PING") * 3)
        stays_open(client, 0.5)
        client.send(client_frame(CLOSE, code.to_bytes(2, "big")))
        client.socket.settimeout(LINGER_SECONDS / 2)
        assert client.socket.recv(1) == b""
    worker.stats(connections=0)


def test_d28_fin_comes_at_the_end_of_the_linger_time_to_who_does_not_answer(worker: WorkerProcess) -> None:
    with worker.chatter() as client:
        client.send(client_frame(BINARY, b"{}"))
        assert read_until_close(client)[0] == 1003
        stays_open(client, LINGER_SECONDS - 1.0)
        client.socket.settimeout(10.0)
        assert client.socket.recv(1) == b""
        worker.stats(connections=0)


def test_d28_a_close_of_the_clients_is_answered_with_fin_right_behind(worker: WorkerProcess) -> None:
    """RFC 6455, 7.1.1: the server closes first. So also when the client's Close is not as it should be."""
    for payload, code in ((b"\x03\xe8", 1000), (b"\x03\xec", 1002), (b"\x03", 1002)):
        with worker.chatter() as client:
            client.send(client_frame(CLOSE, payload))
            assert read_until_close(client)[0] == code
            client.socket.settimeout(LINGER_SECONDS / 2)
            assert client.socket.recv(1) == b""


def test_d28_a_close_that_came_with_what_ended_the_connection_counts(worker: WorkerProcess) -> None:
    with worker.chatter() as client:
        client.send(client_frame(BINARY, b"{}") + client_frame(CLOSE, b"\x03\xe8"))
        assert read_until_close(client)[0] == 1003
        client.socket.settimeout(LINGER_SECONDS / 2)
        assert client.socket.recv(1) == b""


def test_d28_a_client_that_ends_without_a_close_frame_is_not_waited_for(worker: WorkerProcess) -> None:
    with worker.chatter() as client:
        client.send(client_frame(BINARY, b"{}"))
        assert read_until_close(client)[0] == 1003
        client.socket.shutdown(socket.SHUT_WR)
        client.socket.settimeout(LINGER_SECONDS / 2)
        assert client.socket.recv(1) == b""


@pytest.mark.parametrize("code", [pytest.param(1001, marks=pytest.mark.slow), 1012])
def test_d28_an_orderly_end_waits_for_the_close_frames(code: int) -> None:
    """Of those that answer; the process ends without the others."""
    with WorkerProcess() as worker, worker.chatter() as answering, worker.chatter() as deaf:
        if code == 1001:
            worker.say("stop", code=1001, reason="server is shutting down")
        else:
            worker.process.terminate()
        assert read_until_close(answering)[0] == code
        assert read_until_close(deaf)[0] == code
        stays_open(answering, 0.5)
        answering.send(client_frame(CLOSE, code.to_bytes(2, "big")))
        answering.socket.settimeout(10.0)
        assert answering.socket.recv(1) == b""
        assert worker.process.wait(10.0) == 0


def test_d21_who_is_kicked_is_offline_though_the_socket_lingers(worker: WorkerProcess) -> None:
    """And counts among the connections as long as it does."""
    with worker.chatter() as client:
        worker.stats(connections=1, sessions=1)
        kick(worker, client)
        assert read_until_close(client)[0] == 1008
        worker.stats(connections=1, sessions=0)
