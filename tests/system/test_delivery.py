"""Acknowledgement by the recipient and redelivery: D12; and one order for all devices: D18. As seen from the wire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import pytest

from tests.system.harness import Server
from tests.system.raw_client import PONG, RawClient, client_frame, text
from tests.system.servers import two_users

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])


@contextmanager
def chat(server: Server, where: str) -> Iterator[tuple[RawClient, RawClient]]:
    """Two users with an open chat. They answer no pings."""
    first, second = two_users(server, where)
    with RawClient.upgraded(server.port, first) as alice, RawClient.upgraded(server.port, second) as bob:
        alice.hello()
        bob.hello()
        alice.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
        alice.receive("CHAT_OPENED")
        bob.receive("CHAT_OPENED")
        yield alice, bob


def send(sender: RawClient, recipient: RawClient, *identifiers: str) -> None:
    """Send a message for each id and wait for the MSG_ACKs."""
    for identifier in identifiers:
        sender.say("MSG", to=recipient.user_id, content=f"content of {identifier}", message_id=identifier)
        sender.receive("MSG_ACK", message_id=identifier)


def receive(client: RawClient, *identifiers: str) -> None:
    """Receive the messages with these ids in this order."""
    for identifier in identifiers:
        message = client.receive("MSG")
        assert (message["message_id"], message["content"]) == (identifier, f"content of {identifier}")


def redelivered(server: Server, user: RawClient) -> list[str]:
    """The ids of the messages that come with a new HELLO of this user."""
    with RawClient.upgraded(server.port, user.user_id) as again:
        again.hello()
        return [data["message_id"] for kind, data in again.everything() if kind == "MSG"]


def leave(client: RawClient) -> None:
    """Disconnect in order, so that the server has noticed when this returns."""
    client.send(client_frame(8, b"\x03\xe8"))
    client.closed()


@WHERE
def test_d12_what_is_not_acknowledged_comes_again(server: Server, where: str) -> None:
    """In order, with the same ids, at every HELLO until it is."""
    with chat(server, where) as (alice, bob):
        send(alice, bob, "1", "2", "3")
        receive(bob, "1", "2", "3")
        leave(bob)
        send(alice, bob, "4")
        for _ in range(2):
            assert redelivered(server, bob) == ["1", "2", "3", "4"]


@WHERE
def test_d12_msg_ack_is_for_one_message(server: Server, where: str) -> None:
    """Not cumulative."""
    with chat(server, where) as (alice, bob):
        send(alice, bob, "1", "2", "3", "4")
        receive(bob, "1", "2", "3", "4")
        bob.say("MSG_ACK", message_id="2")
        bob.send(text("MSG_ACK", message_id="4", **{"from": alice.user_id}))
        leave(bob)
        assert redelivered(server, bob) == ["1", "3"]


def test_d12_from_says_whose_message_is_meant(server: Server) -> None:
    """Without it the oldest of that id is; other senders may use the same one."""
    with chat(server, "other shard") as (alice, bob), RawClient.upgraded(server.port) as carol:
        carol.hello()
        carol.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
        carol.receive("CHAT_OPENED")
        send(alice, bob, "same")
        send(carol, bob, "same")
        receive(bob, "same", "same")
        bob.send(text("MSG_ACK", message_id="same", **{"from": carol.user_id}))
        leave(bob)
        with RawClient.upgraded(server.port, bob.user_id) as again:
            again.hello()
            assert again.receive("MSG")["from"] == alice.user_id
            again.say("MSG_ACK", message_id="same")
            leave(again)
        assert redelivered(server, bob) == []


def test_d12_acknowledging_what_does_not_wait_is_no_error(server: Server) -> None:
    """Another device may have been first."""
    with chat(server, "other shard") as (alice, bob):
        send(alice, bob, "1")
        receive(bob, "1")
        for identifier in ("1", "1", "never-sent"):
            bob.say("MSG_ACK", message_id=identifier)
        assert [kind for kind, _ in bob.everything() if kind == "ERROR"] == []
        bob.say("MSG_ACK", message_id="not valid")
        bob.error("VALIDATION")
        bob.say("MSG_ACK")
        bob.error("VALIDATION")


@WHERE
def test_d12_the_first_device_counts_for_the_user(server: Server, where: str) -> None:
    with chat(server, where) as (alice, bob), RawClient.upgraded(server.port, bob.user_id) as other:
        other.hello()
        send(alice, bob, "1", "2")
        receive(bob, "1", "2")
        receive(other, "1", "2")
        other.say("MSG_ACK", message_id="1")
        leave(other)
        leave(bob)
        assert redelivered(server, bob) == ["2"]


def test_d12_a_pong_acknowledges_at_the_disconnect(server: Server) -> None:
    """For who has never sent MSG_ACK: what was written before the ping has arrived when its pong comes."""
    with chat(server, "other shard") as (alice, bob):
        send(alice, bob, "1")
        bob.send(client_frame(PONG, bob.ping()))
        receive(bob, "1")
        leave(bob)
        assert redelivered(server, bob) == []


def test_d12_a_pong_to_anything_else_acknowledges_nothing(server: Server) -> None:
    with chat(server, "other shard") as (alice, bob):
        send(alice, bob, "1")
        bob.ping()
        bob.send(client_frame(PONG, b"unasked") + client_frame(PONG))
        leave(bob)
        assert redelivered(server, bob) == ["1"]


def test_d12_a_pong_acknowledges_after_5_seconds(server: Server) -> None:
    """Until then a MSG_ACK may come, and another device still gets the message."""
    with chat(server, "other shard") as (alice, bob):
        send(alice, bob, "1")
        payload = bob.ping()
        bob.send(client_frame(PONG, payload))
        confirmed = time.monotonic()
        bob.everything()
        if time.monotonic() - confirmed < 3.0:  # or this machine is too busy to tell
            assert redelivered(server, bob) == ["1"]
        deadline = confirmed + 15.0
        while redelivered(server, bob) == ["1"]:
            assert time.monotonic() < deadline, "the pong was never taken for an acknowledgement"
            time.sleep(0.2)
        assert time.monotonic() - confirmed > 4.8


@pytest.mark.slow
@pytest.mark.parametrize("stays", [0.0, 6.5], ids=["leaves at once", "stays"])
def test_d12_a_msg_ack_overrules_the_pong_before_it(server: Server, stays: float) -> None:
    """Also when more than the 5 s pass after which the pong would have counted; who has ever sent MSG_ACK acknowledges explicitly."""
    with chat(server, "other shard") as (alice, bob):
        send(alice, bob, "1", "2")
        receive(bob, "1", "2")
        bob.send(client_frame(PONG, bob.ping()))
        bob.say("MSG_ACK", message_id="2")
        time.sleep(stays)  # nothing happens in this time, which is what is tested
        leave(bob)
        assert redelivered(server, bob) == ["1"]
        send(alice, bob, "3")
        with RawClient.upgraded(server.port, bob.user_id) as again:
            again.hello()
            receive(again, "1", "3")
            again.everything()
            assert again.inbox == [], "no ping asks who acknowledges by itself"
            leave(again)
        assert redelivered(server, bob) == ["1", "3"]


def test_d12_at_most_one_ping_a_second(server: Server) -> None:
    """However fast messages and pongs come."""
    with chat(server, "other shard") as (alice, bob):
        began, pings = time.monotonic(), 0
        while time.monotonic() < began + 3.5:
            send(alice, bob, f"{time.monotonic()}")
            bob.receive("MSG")
            with suppress(TimeoutError):
                bob.send(client_frame(PONG, bob.ping(timeout=0.05)))
                pings += 1
        assert 2 <= pings <= time.monotonic() - began + 1


def test_d12_at_most_one_ping_is_out(server: Server) -> None:
    with chat(server, "other shard") as (alice, bob):
        send(alice, bob, *(f"{number}" for number in range(50)))
        payload = bob.ping()
        alice.everything()
        with pytest.raises(TimeoutError):
            bob.ping(timeout=1.5)
        bob.send(client_frame(PONG, payload))
        assert bob.ping() != payload
        receive(bob, *(f"{number}" for number in range(50)))
        leave(bob)
        assert redelivered(server, bob) == [f"{number}" for number in range(int(payload.split()[-1]), 50)]


@WHERE
def test_d12_and_d18_a_long_mailbox_comes_again_in_order(server: Server, where: str) -> None:
    """Behind it, in order too, comes what is sent meanwhile."""
    with chat(server, where) as (alice, bob):
        leave(bob)
        content = "x" * 900
        for number in range(1000):
            alice.say("MSG", to=bob.user_id, content=content, message_id=f"{number}")
        for _ in range(1000):
            assert alice.receive("MSG_ACK")["status"] == "stored"
        with RawClient.upgraded(server.port, bob.user_id) as again:
            again.hello()
            for number in range(1000, 1200):
                alice.say("MSG", to=bob.user_id, content=content, message_id=f"{number}")
            for number in range(1200):
                assert again.receive("MSG")["message_id"] == f"{number}"
            assert "MSG" not in [kind for kind, _ in again.everything()]


def test_d18_all_devices_of_a_user_see_one_order(server: Server) -> None:
    """Messages of two senders on two shards, mixed as they come."""
    first, second = two_users(server, "other shard")
    target = str(uuid4())
    with (
        RawClient.upgraded(server.port, first) as alice,
        RawClient.upgraded(server.port, second) as bob,
        RawClient.upgraded(server.port, target) as one,
        RawClient.upgraded(server.port, target) as two,
    ):
        one.hello()
        two.hello()
        for sender in (alice, bob):
            sender.hello()
            sender.say("OPEN_CHAT", target_user_id=target, target_display_name="Target")
            sender.receive("CHAT_OPENED")
        for number in range(200):
            for sender in (alice, bob):
                sender.say("MSG", to=target, content=f"{number}")
        orders = [
            [(m["from"], m["content"]) for m in (device.receive("MSG") for _ in range(400))]
            for device in (one, two)
        ]
        assert orders[0] == orders[1]
        for sender in (alice, bob):
            assert [content for user, content in orders[0] if user == sender.user_id] == [
                f"{n}" for n in range(200)
            ]
