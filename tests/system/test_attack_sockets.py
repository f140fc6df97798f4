"""Thousands of sockets that never say HELLO, from several addresses: they cost little, for a while, and nobody else notices."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.system.crowd import PER_ADDRESS, Crowd, as_many_as
from tests.system.harness import Server, StartServer, user_on_worker, wait_until
from tests.system.raw_client import RawClient, upgrade_request
from tests.system.status import descriptors, figure

pytestmark = pytest.mark.slow

SOCKETS: Final = 10_000
#: Fewer would prove nothing.
LEAST: Final = 2000
#: Seconds within which the server has ended all of them, on a machine that is busy with other tests.
ENDED_WITHIN: Final = 60.0
#: Seconds within which a newcomer is served meanwhile.
SERVED_WITHIN: Final = 8.0
#: What one address may have.
HALF_OPEN: Final = 256
#: Bytes of the front for each socket; and those by which it may be larger after the second time than after the first, from which some
#: memory is kept for the next ones.
BYTES_EACH: Final = 4096
GROWTH_MAX: Final = 4 * 1024 * 1024


def resident(server: Server) -> int:
    """Bytes in RAM of the front."""
    lines = Path(f"/proc/{server.child('front 0')}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def chat(server: Server) -> None:
    """Two newcomers, on both workers, find each other and chat."""
    with (
        RawClient.upgraded(server.port, user_on_worker(0, 2)) as one,
        RawClient.upgraded(server.port, user_on_worker(1, 2)) as two,
    ):
        one.hello()
        two.hello()
        one.say("OPEN_CHAT", target_user_id=two.user_id, target_display_name="Two")
        one.receive("CHAT_OPENED")
        one.say("MSG", to=two.user_id, content="hi", message_id="m")
        two.receive("MSG", message_id="m", timeout=SERVED_WITHIN)


def wave(server: Server, size: int) -> int:
    """They come, half of them ask for the upgrade, and the server ends them; the most memory that the front had, in bytes."""
    accepted = figure(server, "front", "front_accepted_total")
    at_once, most = 0, 0
    chatty = range(0, size, 2)
    with Crowd(server.port, size, lambda index: upgrade_request() if index in chatty else b"") as crowd:

        def all_in() -> bool:
            nonlocal at_once, most
            crowd.look()
            at_once, most = (
                max(at_once, descriptors(server)["fastchat: front 0"]),
                max(most, resident(server)),
            )
            answered = all(crowd.received[index] for index in chatty)
            return answered and figure(server, "front", "front_accepted_total") >= accepted + size

        wait_until(all_in, "the front to have let all of them in", ENDED_WITHIN)
        assert at_once > size / 2, "most of them were there at once"
        chat(server)

        def all_ended() -> bool:
            crowd.look()
            return len(crowd.ended) == size

        wait_until(all_ended, "the server to end all of them", ENDED_WITHIN)
        for index, received in enumerate(crowd.received):
            if index in chatty:
                assert received.startswith(b"HTTP/1.1 101 "), received
                assert b"\x03\xf0" in received, "1008"
            else:
                assert received.startswith(b"HTTP/1.1 408 "), received
    print(f"{at_once} descriptors at once, and {most / 2**20:.0f} MiB")
    return most


@pytest.mark.attack("10,000 sockets without HELLO", "silent socket")
@pytest.mark.timeout(240)
def test_10000_sockets_that_never_say_hello(start_server: StartServer) -> None:
    """Twice: the second time costs no more than the first, and nothing is left."""
    size = as_many_as(SOCKETS, LEAST)
    server = start_server(host="127.0.0.1")
    chat(server)
    open_before, memory_before = descriptors(server), resident(server)

    def as_before() -> bool:
        now = descriptors(server)
        return all(now[title] <= open_before[title] for title in open_before)

    kept = []
    for _ in range(2):
        most = wave(server, size)
        assert most - memory_before < BYTES_EACH * size
        wait_until(as_before, f"descriptors to return to their level, {open_before}", 20.0)
        chat(server)
        kept.append(resident(server))
    print(f"before {memory_before / 2**20:.1f} MiB, then {[f'{size / 2**20:.1f}' for size in kept]}")
    assert kept[1] - kept[0] < GROWTH_MAX


@pytest.mark.attack("10,000 sockets without HELLO")
def test_beyond_the_limit_they_are_told_to_come_later(start_server: StartServer) -> None:
    """503 with Retry-After, or the end for a crowd that is too large for an answer each; each address has its own limit."""
    size = as_many_as(2 * PER_ADDRESS, 2 * PER_ADDRESS)
    server = start_server(host="127.0.0.1", half_open_per_ip=HALF_OPEN)
    with Crowd(server.port, size) as crowd:

        def refused() -> bool:
            crowd.look()
            return len(crowd.ended) >= size - 2 * HALF_OPEN

        wait_until(refused, "those who are too many to be ended", 9.0)
        answers = [crowd.received[index] for index in crowd.ended]
        assert any(answers)
        for received in filter(None, answers):
            assert received.startswith(b"HTTP/1.1 503 "), received
            assert b"\r\nRetry-After: " in received
        for first in range(0, size, PER_ADDRESS):
            ended = sum(index in crowd.ended for index in range(first, first + PER_ADDRESS))
            assert ended == PER_ADDRESS - HALF_OPEN
        chat(server)
