"""Tests of router.front: handshake, peeked_socket and lingering, a connection up to its first answer, in a real front."""

from __future__ import annotations

import pytest

from tests.router.front_process import HEAD, FakeWorker, FrontProcess, accept_key, hello, text, user_on


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_an_upgrade_that_comes_byte_by_byte(front: FrontProcess) -> None:
    with front.client(upgrade=False) as client:
        client.dribble(HEAD)
        assert accept_key(client.read_head()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        client.dribble(text("PING"))
        assert client.json()["type"] == "PONG"


def test_what_follows_the_head_in_the_same_segment_is_not_lost(front: FrontProcess) -> None:
    with front.client(upgrade=False) as client:
        client.send(HEAD + text("PING"))
        assert client.read_head().startswith(b"HTTP/1.1 101 ")
        assert client.json()["type"] == "PONG"


@pytest.mark.parametrize("cut", [1, 10, len(HEAD) - 1])
def test_a_client_that_stops_in_the_middle_and_goes_leaves_nothing(front: FrontProcess, cut: int) -> None:
    with front.client(upgrade=False) as client:
        client.send(HEAD[:cut])
    with front.client(upgrade=False) as client:
        client.send(HEAD[:cut])
        client.reset()


def test_a_client_that_goes_without_a_word_leaves_nothing(front: FrontProcess) -> None:
    with front.client(upgrade=False):
        pass
    with front.client(upgrade=False) as client:
        client.reset()


def test_a_head_that_does_not_come_in_time_is_answered_with_408(hasty_front: FrontProcess) -> None:
    with hasty_front.client(upgrade=False) as client:
        client.send(HEAD[:30])
        assert status(client.read_all()) == 408
    with hasty_front.client(upgrade=False) as client:
        assert status(client.read_all()) == 408


def test_a_head_of_16_kib_is_answered_with_431_however_it_comes(front: FrontProcess) -> None:
    fields = b"".join(b"x-%04d: %s\r\n" % (number, b"x" * 1000) for number in range(17))
    request = HEAD[:-2] + fields + b"\r\n"
    assert len(request) > 16 * 1024
    assert status(front.http(request)) == 431
    with front.client(upgrade=False) as client:
        for start in range(0, len(request), 1000):
            client.send(request[start : start + 1000])
        assert status(client.read_all()) == 431


def test_a_head_just_below_16_kib_is_fine(front: FrontProcess) -> None:
    fields = b"".join(b"x-%04d: %s\r\n" % (number, b"x" * 1000) for number in range(15))
    with front.client(upgrade=False) as client:
        client.send(HEAD[:-2] + fields + b"\r\n")
        assert client.read_head().startswith(b"HTTP/1.1 101 ")


def test_a_refusal_reaches_a_client_that_goes_on_sending(front: FrontProcess) -> None:
    """Lingering: closing at once would answer these bytes with RST, which destroys the answer."""
    with front.client(upgrade=False) as client:
        client.send(
            b"POST /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000
        )
        answer = client.read_all()
    assert status(answer) == 405
    assert b"\r\nAllow: GET\r\n" in answer


def test_a_client_that_never_stops_sending_is_cut_off(front: FrontProcess) -> None:
    with front.client(upgrade=False) as client, pytest.raises(ConnectionError):
        client.send(b"POST /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(10_000):
            client.send(b"x" * 10_000)


def test_a_client_that_does_not_close_after_a_refusal_is_closed(front: FrontProcess) -> None:
    """The front's own two seconds; `front` waits for the descriptor to be gone while the client is still here."""
    client = front.client(upgrade=False)
    client.send(b"POST /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status(client.read_head()) == 405
    front.wait_for_stat("front_lingering", 0)
    client.socket.close()


@pytest.mark.parametrize(
    ("request_head", "expected"),
    [
        (b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
        (b"GET /ws HTTP/1.0\r\n\r\n", 505),
        (b"GET /ws HTTP/1.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /ws HTTP/1.1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"\r\n", 400),
        (HEAD.replace(b"Version: 13", b"Version: 8"), 426),
        (HEAD.replace(b"\r\n\r\n", b"\r\nOrigin: https://evil.example\r\n\r\n"), 403),
    ],
)
def test_what_is_not_a_handshake_gets_an_answer_and_the_end(
    front: FrontProcess, request_head: bytes, expected: int
) -> None:
    answer = front.http(request_head)
    assert status(answer) == expected
    assert b"\r\nConnection: close\r\n" in answer


def test_refusals_are_counted_by_status(front: FrontProcess) -> None:
    name = 'front_refused_total{status="426"}'
    before = front.next_stats().get(name, 0)
    front.http(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
    front.wait_for_stat(name, before + 1)


def test_half_finished_sockets_cost_no_cpu(front: FrontProcess) -> None:
    """Heads, frames and goodbyes that were begun and not finished: the kernel must not wake the front for them."""
    clients = [front.client(upgrade=False) for _ in range(20)]
    for client in clients:
        client.send(HEAD[:50])
    clients += (lobby := [front.client() for _ in range(30)])
    for client in lobby:
        client.send(text("PING")[:-1])
    parked = front.next_stats().get("front_parked_total", 0)
    before = front.cpu_seconds()
    for _ in range(2):
        front.next_stats()  # one a second
    assert front.cpu_seconds() - before < 0.3
    assert front.stats.get("front_parked_total", 0) == parked
    for client in clients:
        client.socket.close()


def test_a_frame_that_comes_byte_by_byte_costs_no_wake_up_a_byte(front: FrontProcess) -> None:
    with front.client() as client:
        frame = text("PING", padding="x" * 15_000)
        client.send(frame[:8])
        parked = front.next_stats().get("front_parked_total", 0)
        before = front.cpu_seconds()
        client.dribble(frame[8:])
        assert client.json()["type"] == "PONG"
        assert front.cpu_seconds() - before < 0.1
        assert front.next_stats().get("front_parked_total", 0) == parked


def test_a_stranger_does_not_disturb_the_others(front: FrontProcess) -> None:
    with (
        FakeWorker(front.run_dir, 0) as worker,
        front.client(upgrade=False) as slow,
        front.client() as client,
    ):
        slow.send(HEAD[:20])
        client.send(hello(user_on(0, 2)))
        worker.receive().socket.close()
