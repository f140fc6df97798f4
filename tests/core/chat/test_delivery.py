"""core.chat.delivery: acknowledgements of both kinds, and what is sent again (D12); pacing is in test_replay."""

from __future__ import annotations

import pytest

from core.chat import mailbox
from core.wire.protocol import CONFIRM_PING_INTERVAL, IMPLICIT_ACK_DELAY
from tests.core.pair import Pair
from tests.core.world import Device


def again(pair: Pair) -> list[str]:
    """What Bob would be sent again if he came back now; his probe does not acknowledge anything."""
    probe = pair.world.device(pair.bob).hello()
    contents = probe.contents()
    probe.leave()
    return contents


def explicit(pair: Pair) -> list[Device]:
    """Ann and Bob chatting, Bob being one who acknowledges with MSG_ACK."""
    ann, bob = pair.chatting()
    bob.say("MSG_ACK", message_id="none-of-that-id")
    assert not bob.inbox, "an acknowledgement of nothing is ignored: another device may have been first"
    return [ann, bob]


# -- With MSG_ACK --


def test_d12_what_is_acknowledged_is_not_sent_again(pair: Pair) -> None:
    """And all else is, at the next HELLO, in order, under the same message_id."""
    ann, bob = explicit(pair)
    for name in "abcd":
        ann.msg(pair.bob, name, f"id-{name}")
    bob.say("MSG_ACK", message_id="id-b")
    bob.leave()
    bob = pair.world.device(pair.bob).hello()
    came = bob.take("MSG")
    assert [(message["content"], message["message_id"]) for message in came] == [
        ("a", "id-a"),
        ("c", "id-c"),
        ("d", "id-d"),
    ]


def test_d12_it_is_not_cumulative(pair: Pair) -> None:
    """Acknowledging the last says nothing about those before it."""
    ann, bob = explicit(pair)
    for name in "abc":
        ann.msg(pair.bob, name, name)
    bob.say("MSG_ACK", message_id="c")
    assert again(pair) == ["a", "b"]


@pytest.mark.parametrize("cache", [2, 128])
def test_d12_whoever_comes_back_at_once_is_not_sent_what_was_acknowledged(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, cache: int
) -> None:
    """However long the store takes to find what is no longer in memory: what is sent again is looked for behind it."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", cache)
    ann, bob = explicit(pair)
    for name in "abcde":
        ann.msg(pair.bob, name, name)
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    for name in "bd":
        bob.say("MSG_ACK", message_id=name)
    bob.leave()
    again = pair.world.device(pair.bob).hello()
    store.slow_reads = False
    pair.world.settle()
    assert again.contents() == ["a", "c", "e"]


def test_d12_without_acknowledgement_it_comes_again_every_time(pair: Pair) -> None:
    """Repeats are possible, ids are stable: an explicit user's pongs count for nothing."""
    ann, bob = explicit(pair)
    ann.msg(pair.bob, "Hi.", "same")
    bob.answer_pings()
    for _ in range(3):
        bob.leave()
        pair.world.pass_time(10)
        bob = pair.world.device(pair.bob).hello()
        assert [message["message_id"] for message in bob.take("MSG")] == ["same"]
        assert not bob.pings, "a ping would have nothing to confirm"


def test_d12_the_first_devices_acknowledgement_counts_for_all(pair: Pair) -> None:
    """Per user, not per device; the other devices' acknowledgements of the same message are ignored."""
    ann, bob = explicit(pair)
    (bob_too,) = pair.online(pair.bob)
    ann.msg(pair.bob, "one", "1")
    ann.msg(pair.bob, "two", "1-too")
    bob_too.say("MSG_ACK", message_id="1")
    bob.say("MSG_ACK", message_id="1")
    bob.say("MSG_ACK", message_id="1")
    assert again(pair) == ["two"]
    assert not bob.errors()


def test_d12_who_has_ever_sent_msg_ack_acknowledges_explicitly_from_then_on(pair: Pair) -> None:
    """On every device and every later connection: no pong confirms anything any more."""
    ann, bob = explicit(pair)
    bob.leave()
    bob, bob_too = pair.online(pair.bob, pair.bob)
    ann.msg(pair.bob, "Hi.")
    for device in (bob, bob_too):
        device.answer_pings()
    pair.world.pass_time(10)
    bob.leave()
    bob_too.leave()
    assert again(pair) == ["Hi."]


def test_d12_that_a_user_acknowledges_explicitly_is_stored(pair: Pair) -> None:
    """Once: it must survive a restart, and it does not change again."""
    _, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    writes = len(store.committed)
    for _ in range(3):
        bob.say("MSG_ACK", message_id="anything")
    assert store.committed[writes:] == [pair.world.shard_of(pair.bob).users[pair.bob]]


def test_d12_from_tells_two_messages_of_one_id_apart(pair: Pair) -> None:
    """`from` names the sender; without it the oldest unacknowledged message of that id is meant."""
    ann, bob = explicit(pair)
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    ann.msg(pair.bob, "from Ann", "1")
    cat.msg(pair.bob, "from Cat", "1")
    bob.say("MSG_ACK", message_id="1", **{"from": pair.cat.upper()})
    assert again(pair) == ["from Ann"]
    bob.say("MSG_ACK", message_id="1", **{"from": pair.cat})
    assert again(pair) == ["from Ann"], "Cat's was acknowledged already, and Ann's is not meant"
    bob.say("MSG_ACK", message_id="1")
    assert again(pair) == []


def test_d12_without_from_the_oldest_of_that_id_is_meant(pair: Pair) -> None:
    """One MSG_ACK for each, oldest first."""
    ann, bob = explicit(pair)
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    ann.msg(pair.bob, "from Ann", "1")
    cat.msg(pair.bob, "from Cat", "1")
    bob.say("MSG_ACK", message_id="1")
    assert again(pair) == ["from Cat"]
    bob.say("MSG_ACK", message_id="1")
    assert again(pair) == []


def test_d12_only_what_was_written_to_this_connection_can_be_meant(pair: Pair) -> None:
    """A slow device can't acknowledge the second message of an id before it has seen the first."""
    ann, bob = explicit(pair)
    bob.leave()
    ann.msg(pair.bob, "Hi.", "1")
    slow = pair.world.device(pair.bob)
    slow.waiting = 1 << 20
    slow.hello()
    slow.say("MSG_ACK", message_id="1")
    slow.drain()
    assert slow.contents() == ["Hi."]
    assert again(pair) == ["Hi."]


@pytest.mark.parametrize(
    "data", [{}, {"message_id": 1}, {"message_id": ""}, {"message_id": "1", "from": "nobody"}]
)
def test_d25_an_acknowledgement_that_breaks_a_rule_is_refused(pair: Pair, data: dict[str, object]) -> None:
    """And does not make an implicit user an explicit one."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.", "1")
    bob.take()
    bob.say("MSG_ACK", **data)
    assert bob.error()["code"] == "VALIDATION"
    bob.answer_pings()
    bob.leave()
    assert again(pair) == []


# -- With pongs --


def test_d12_a_ping_follows_the_messages_and_its_pong_confirms_them(pair: Pair) -> None:
    """5 s later, since a MSG_ACK may still come; then they are not sent again."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.")
    ann.msg(pair.bob, "How are you?")
    pair.world.pass_time(0.1)
    assert len(bob.pings) == 1, "one does for all that come together"
    bob.answer_pings()
    pair.world.pass_time(IMPLICIT_ACK_DELAY - 0.3)
    assert again(pair) == ["Hi.", "How are you?"]
    pair.world.pass_time(0.4)
    assert again(pair) == []


def test_d12_who_comes_to_fetch_what_waits_and_leaves_at_once_has_it(pair: Pair) -> None:
    """The ping comes right behind the last of it, so a client that answers it before it closes needs no time at all."""
    ann, bob = pair.chatting()
    bob.leave()
    for number in range(20):
        ann.msg(pair.bob, f"{number}")
    bob = pair.come(pair.bob)
    assert len(bob.contents()) == 20
    assert len(bob.pings) == 1
    bob.session.pong(bob.pings[0], pair.world.now)
    bob.leave()
    assert again(pair) == []


def test_d12_a_disconnect_makes_what_the_pong_confirmed_count_at_once(pair: Pair) -> None:
    """Somebody who reads and goes has read it."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.")
    bob.answer_pings()
    bob.leave()
    assert again(pair) == []


def test_d12_without_a_pong_it_is_sent_again(pair: Pair) -> None:
    """However long it takes: the bytes may have gone into a dead connection."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.")
    pair.world.pass_time(30, step=1)
    bob.leave()
    assert again(pair) == ["Hi."]


def test_d12_a_pong_confirms_only_what_was_written_before_its_ping(pair: Pair) -> None:
    """What came between ping and pong is confirmed by the next one."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "before")
    pair.world.pass_time(0.2)
    ann.msg(pair.bob, "behind")
    bob.answer_pings()
    bob.leave()
    assert again(pair) == ["behind"]


def test_d12_a_msg_ack_meanwhile_overrules_the_pong(pair: Pair) -> None:
    """The first MSG_ACK ever says that this user acknowledges explicitly, so what it does not name is not acknowledged."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "a", "a")
    pair.world.pass_time(2)
    ann.msg(pair.bob, "b", "b")
    bob.answer_pings()
    pair.world.pass_time(2)
    bob.answer_pings()
    bob.say("MSG_ACK", message_id="b")
    pair.world.pass_time(10)
    assert again(pair) == ["a"]
    bob.leave()
    assert again(pair) == ["a"]


def test_d12_at_most_one_ping_is_outstanding(pair: Pair) -> None:
    """A client that never answers gets one ping, however many messages and however much time."""
    ann, bob = pair.chatting()
    for _ in range(20):
        ann.msg(pair.bob)
        pair.world.pass_time(1.5, step=0.5)
    assert len(bob.pings) == 1


def test_d12_at_most_one_ping_a_second(far: bool) -> None:
    """A client that answers at once gets one a second while messages keep coming, and each message is confirmed in the end."""
    pair = Pair(far, messages_per_minute=0)
    ann, bob = pair.chatting()
    pinged = 0
    for _ in range(100):
        ann.msg(pair.bob)
        pair.world.pass_time(0.1)
        pinged += len(bob.pings)
        for payload in bob.pings:
            bob.session.pong(payload, pair.world.now)
        bob.pings.clear()
    assert 9 <= pinged <= 11
    pair.world.pass_time(CONFIRM_PING_INTERVAL + 0.1)
    bob.answer_pings()
    pair.world.pass_time(2)
    assert not bob.pings, "there is nothing left to confirm"
    bob.leave()
    assert again(pair) == []


def test_d12_the_ping_limits_are_per_connection(pair: Pair) -> None:
    """Each device confirms for itself, and one that answers is enough."""
    ann, bob = pair.chatting()
    (bob_too,) = pair.online(pair.bob)
    ann.msg(pair.bob, "Hi.")
    pair.world.pass_time(0.1)
    assert len(bob.pings) == len(bob_too.pings) == 1
    bob_too.answer_pings()
    bob_too.leave()
    bob.leave()
    assert again(pair) == []


def test_d12_a_pong_that_was_not_asked_for_confirms_nothing(pair: Pair) -> None:
    """Unsolicited pongs are legal (RFC 6455, 5.5.3), and so are the heartbeat's."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.")
    for payload in (b"", b"seq 2", b"seq 10", b"heartbeat"):
        bob.session.pong(payload, pair.world.now)
    bob.leave()
    assert again(pair) == ["Hi."]


def test_d12_a_pong_before_hello_is_ignored(pair: Pair) -> None:
    device = pair.world.device(pair.ann)
    device.session.pong(b"seq 0", pair.world.now)
    assert device.hello().kinds() == ["HELLO_ACK", "PRESENCE"]


def test_d12_redelivered_messages_are_confirmed_like_new_ones(pair: Pair) -> None:
    """What was missed is written at HELLO and confirmed by pongs: it does not come a third time."""
    ann, bob = pair.chatting()
    bob.leave()
    for name in "abc":
        ann.msg(pair.bob, name)
    bob = pair.world.device(pair.bob).hello()
    assert bob.contents() == ["a", "b", "c"]
    for _ in range(2):
        bob.answer_pings()
        pair.world.pass_time(1.1)
    pair.world.pass_time(IMPLICIT_ACK_DELAY)
    assert again(pair) == []


def test_d12_a_second_device_gets_what_is_not_acknowledged_yet(pair: Pair) -> None:
    """And nothing twice on one connection."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "one")
    bob_too = pair.world.device(pair.bob).hello()
    ann.msg(pair.bob, "two")
    assert bob.contents() == bob_too.contents() == ["one", "two"]


def test_d12_saying_hello_again_sends_nothing_twice(pair: Pair) -> None:
    """The next HELLO that redelivers is that of the next connection."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.")
    bob.hello("Bob Ray")
    assert bob.contents() == ["Hi."]


def test_acknowledged_messages_are_told_to_the_store(pair: Pair) -> None:
    """By either kind of acknowledgement, so that the next process does not send them again."""
    ann, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    ann.msg(pair.bob, "a", "a")
    bob.answer_pings()
    pair.world.pass_time(6)
    bob.say("MSG_ACK", message_id="a")
    ann.msg(pair.bob, "b", "b")
    ann.msg(pair.bob, "c", "c")
    ann.msg(pair.bob, "d", "d")
    bob.say("MSG_ACK", message_id="d")
    bob.say("MSG_ACK", message_id="b")
    assert store.records[pair.bob].acknowledged == (2, frozenset({4}))
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    assert pair.world.device(pair.bob).hello().contents() == ["c"]
