"""Floods of every kind of message, by several clients at once, beside people who chat (D23).

The kinds are those of `bench.neighbours`, which says in milliseconds what neighbours notice; here it is that they notice nothing that
matters, and that an honest burst beside a flood ends well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bench.floods import KINDS, flooding
from tests.system.harness import Server, user_on_worker, wait_until
from tests.system.raw_client import RawClient, text
from tests.system.servers import shared_server
from tests.system.status import figure

#: Clients that flood, and seconds for which they do.
FLOODS = 4
SECONDS = 1.0
#: Kinds that `make test` tries: one that reaches the store, and one that is not refused.
AT_LEAST = ("OPEN_CHAT, unknown user", "MSG")


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it comes: with its limits, and two workers."""
    with shared_server(pytestconfig, tmp_path_factory, limits=True) as server:
        yield server


def chatting(server: Server) -> tuple[RawClient, RawClient]:
    """Two with an open chat, on one worker."""
    ann, bob = (RawClient.upgraded(server.port, user_on_worker(0, 2)) for _ in range(2))
    for client in (ann, bob):
        client.hello()
    ann.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
    ann.receive("CHAT_OPENED")
    return ann, bob


def answers(client: RawClient, number: int, *kinds: str) -> list[int]:
    """How many of each kind there are among so many answers, which is waited for."""
    counts = dict.fromkeys(kinds, 0)

    def all_there() -> bool:
        for kind, _ in client.everything():
            if kind in counts:
                counts[kind] += 1
        return sum(counts.values()) >= number

    wait_until(all_there, f"{number} answers")
    return list(counts.values())


@pytest.mark.attack("flood of messages")
@pytest.mark.parametrize(
    "kind", [kind if kind in AT_LEAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_flood_of_any_kind(server: Server, kind: str) -> None:
    """And somebody else opens a chat, writes and is answered meanwhile."""
    with flooding(kind, server.port, FLOODS):
        ann, bob = chatting(server)
        with ann, bob:
            ann.say("MSG", to=bob.user_id, content="beside a flood")
            assert bob.receive("MSG")["content"] == "beside a flood"
            ann.receive("MSG_ACK")
            time.sleep(SECONDS)
            ann.say("PING")
            ann.receive("PONG")


@pytest.mark.attack("flood of messages")
def test_an_outbox_that_is_sent_in_one_go(server: Server) -> None:
    """300 messages after a reconnection: 60 arrive, each of the others is refused, and the PING behind them is answered."""
    ann, bob = chatting(server)
    with ann, bob, flooding("TYPING", server.port, FLOODS):
        ann.send(
            b"".join(
                text("MSG", to=bob.user_id, content=f"{number}", message_id=f"{number}")
                for number in range(300)
            )
            + text("PING")
        )
        assert answers(ann, 301, "MSG_ACK", "ERROR", "PONG") == [60, 240, 1]
        assert [bob.receive("MSG")["content"] for _ in range(60)] == [f"{number}" for number in range(60)]


@pytest.mark.attack("flood of messages")
def test_all_chats_opened_again_in_one_go(server: Server) -> None:
    """A client that opens 230 of them gets an answer to each, and to the PING behind them."""
    ann, bob = chatting(server)
    with ann, bob, flooding("OPEN_CHAT", server.port, FLOODS):
        again = text("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
        ann.send(again * 230 + text("PING"))
        assert answers(ann, 231, "CHAT_OPENED", "ERROR", "PONG") == [19, 211, 1]


def test_what_was_slowed_is_counted(server: Server) -> None:
    with flooding("PING", server.port, 1):
        wait_until(lambda: figure(server, "worker", "slowed_total") > 0, "a flood to be slowed")
        wait_until(lambda: figure(server, "worker", "metered_total") > 0, "a flood to be metered")
