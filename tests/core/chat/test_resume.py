"""core.chat.hello and core.chat.delivery: devices that know how far they have read, and go on from there (D13)."""

from __future__ import annotations

import pytest

from core.chat import mailbox
from tests.core.chat.test_replay import Trickle
from tests.core.pair import Pair
from tests.core.world import Device


def resuming(pair: Pair, cursor: str | None = None) -> Device:
    """A device of Bob's that resumes; it has read nothing yet."""
    extra = {} if cursor is None else {"resume": {"cursor": cursor}}
    return pair.come(pair.bob, "resume", **extra)


def greeting(device: Device) -> tuple[str, str]:
    """(resumed, cursor) of its HELLO_ACK."""
    ack = device.one("HELLO_ACK")
    return ack["resumed"], ack["cursor"]


def came(device: Device) -> list[tuple[int, str]]:
    """(seq, content) of the messages that have come."""
    return [(message["seq"], message["content"]) for message in device.take("MSG")]


def write(pair: Pair, count: int, ann: Device | None = None, start: int = 1) -> Device:
    """Ann has written `count` messages, the first being named `start`; Bob is as he was."""
    if ann is None:
        ann, bob = pair.chatting()
        bob.leave()
    for number in range(start, start + count):
        ann.msg(pair.bob, f"{number}", f"{number}")
    ann.take()
    return ann


def numbers(first: int, last: int) -> list[tuple[int, str]]:
    """What `came` says of these, when the content is the number."""
    return [(number, f"{number}") for number in range(first, last + 1)]


# -- What the client is told --


def test_d13_a_message_carries_its_position_and_a_cursor(pair: Pair) -> None:
    """After the fields that need no capability, and these stay as they are; a plain device of the same user sees nothing of it."""
    ann, plain = pair.chatting()
    bob = resuming(pair)
    bob.take()
    ann.msg(pair.bob, "Hi.", "1")
    ann.msg(pair.bob, "x" * 1000, "2")
    plainly = plain.take("MSG")
    numbered = bob.take("MSG")
    assert [message["seq"] for message in numbered] == [1, 2]
    for message, same in zip(numbered, plainly, strict=True):
        assert {key: message[key] for key in same} == same
        assert set(message) - set(same) == {"seq", "cursor"}
        assert isinstance(message["cursor"], str)


@pytest.mark.parametrize("capabilities", [(), ("receipts", "history", "carbons", "presence_delta")])
def test_d13_without_the_capability_there_are_no_cursors(pair: Pair, capabilities: tuple[str, ...]) -> None:
    """Even for a client that sends `resume` all the same."""
    ann, _ = pair.chatting()
    bob = pair.come(pair.bob, *capabilities, resume={"cursor": 7})
    assert not {"cursor", "resumed"} & set(bob.one("HELLO_ACK"))
    ann.msg(pair.bob, "Hi.", "1")
    assert set(bob.one("MSG")) == {"from", "to", "content", "message_id", "timestamp"}


def test_d13_an_empty_mailbox_has_a_cursor_too(pair: Pair) -> None:
    """So a client that never got a message misses none."""
    ann, _ = pair.chatting()
    bob = resuming(pair)
    resumed, cursor = greeting(bob)
    assert resumed == "reset", "it gave no cursor"
    bob.leave()
    write(pair, 2, ann)
    bob = resuming(pair, cursor)
    assert greeting(bob) == ("full", cursor)
    assert came(bob) == numbers(1, 2)


def test_d13_the_cursor_is_the_position_before_the_first_message_that_comes(pair: Pair) -> None:
    """Also when some of what came before is acknowledged: the client can always tell whether there was a gap."""
    ann = write(pair, 5)
    bob = resuming(pair)
    messages = bob.take("MSG")
    for number in (1, 2, 4):
        bob.say("MSG_ACK", message_id=f"{number}")
    bob.leave()
    bob = resuming(pair)
    assert greeting(bob) == ("reset", messages[1]["cursor"])
    assert came(bob) == [(3, "3"), (5, "5")], "a reset brings what waits for an acknowledgement"
    write(pair, 1, ann, start=6)
    assert came(bob) == numbers(6, 6)


def test_d13_a_new_device_begins_behind_what_is_acknowledged(pair: Pair) -> None:
    """It gets no history, but the position from which on it will miss nothing."""
    ann = write(pair, 3)
    bob = resuming(pair)
    last = bob.take("MSG")[-1]["cursor"]
    for number in (1, 2, 3):
        bob.say("MSG_ACK", message_id=f"{number}")
    new = resuming(pair)
    assert greeting(new) == ("reset", last)
    assert came(new) == []
    new.leave()
    write(pair, 2, ann, start=4)
    assert came(resuming(pair, last)) == numbers(4, 5)


# -- Going on --


def test_d13_every_cursor_works(pair: Pair) -> None:
    """That of each message, and that of HELLO_ACK: what follows is exactly what is behind it."""
    write(pair, 6)
    bob = resuming(pair)
    cursors = [bob.one("HELLO_ACK")["cursor"]] + [message["cursor"] for message in bob.take("MSG")]
    assert len(set(cursors)) == 7
    for position, cursor in enumerate(cursors):
        device = resuming(pair, cursor)
        assert greeting(device) == ("full", cursor)
        assert came(device) == numbers(position + 1, 6)
        device.leave()


def test_d13_a_resumed_device_gets_what_is_acknowledged_too(pair: Pair) -> None:
    """By another device, or by itself: the cursor is the device's own, and acknowledgements are the user's."""
    write(pair, 6)
    bob = resuming(pair)
    cursor = bob.one("HELLO_ACK")["cursor"]
    plain = pair.come(pair.bob)
    for number in (1, 2, 3, 5):
        plain.say("MSG_ACK", message_id=f"{number}")
    bob.leave()
    assert came(resuming(pair, cursor)) == numbers(1, 6)
    assert pair.come(pair.bob).contents() == ["4", "6"]


def test_d13_what_comes_twice_keeps_its_position(pair: Pair) -> None:
    """Ids and positions are stable; a plain device gets the same messages in the same order."""
    write(pair, 3)
    first = resuming(pair)
    again = resuming(pair)
    messages = first.take("MSG")
    assert again.take("MSG") == messages
    assert pair.come(pair.bob).contents() == ["1", "2", "3"]


def test_d13_resuming_many_times_in_a_row_leaves_no_gap(pair: Pair) -> None:
    """Whatever is written while the device is here or away."""
    ann, bob = pair.chatting()
    bob.leave()
    bob = resuming(pair)
    cursor = bob.one("HELLO_ACK")["cursor"]
    seen = []
    for round_ in range(8):
        write(pair, 1, ann, start=2 * round_ + 1)
        for message in bob.take("MSG"):
            seen.append((message["seq"], message["content"]))
            cursor = message["cursor"]
        bob.leave()
        write(pair, 1, ann, start=2 * round_ + 2)
        if round_ % 3 == 2:
            pair.world.restart(pair.world.placement.worker_of(pair.bob))
            if not ann.open:
                (ann,) = pair.online(pair.ann)
        bob = resuming(pair, cursor)
        assert greeting(bob) == ("full", cursor)
    assert seen + came(bob) == numbers(1, 16)


def test_d13_a_cursor_outlives_the_process(pair: Pair) -> None:
    """And positions go on where they were."""
    write(pair, 2)
    bob = resuming(pair)
    cursor = bob.take("MSG")[0]["cursor"]
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    bob = resuming(pair, cursor)
    assert greeting(bob) == ("full", cursor)
    (ann,) = pair.online(pair.ann)
    write(pair, 1, ann, start=3)
    assert came(bob) == numbers(2, 3)


def test_d13_a_store_that_forgets_resets(pair: Pair) -> None:
    """Without a disk positions begin anew after a restart; a cursor of before must not be taken for one of now."""
    ann = write(pair, 2)
    bob = resuming(pair)
    cursor = bob.take("MSG")[0]["cursor"]
    pair.world.restart(pair.world.placement.worker_of(pair.bob), lost=True)
    bob = resuming(pair)
    if not ann.open:
        (ann,) = pair.online(pair.ann)
    ann.open_chat(pair.bob)
    write(pair, 3, ann, start=11)
    bob.leave()
    bob = resuming(pair, cursor)
    assert greeting(bob)[0] == "reset"
    assert came(bob) == [(1, "11"), (2, "12"), (3, "13")]


@pytest.mark.parametrize("purged", [1, 2, 3, 5])
@pytest.mark.parametrize("how", ["told", "restarted"])
def test_d13_what_retention_has_removed_makes_it_partial(pair: Pair, purged: int, how: str) -> None:
    """The rest follows, and the cursor says where that begins."""
    ann = write(pair, 5)
    bob = resuming(pair)
    cursors = [bob.one("HELLO_ACK")["cursor"]] + [message["cursor"] for message in bob.take("MSG")]
    bob.leave()
    bobs = pair.world.placement.worker_of(pair.bob)
    if how == "told":
        pair.world.shards[bobs].users.purged(pair.world.stores[bobs].purge(pair.bob, purged), pair.world.now)
    else:
        pair.world.stores[bobs].purge(pair.bob, purged)
        pair.world.restart(bobs)
        ann = pair.online(pair.ann)[0]
    device = resuming(pair, cursors[2])
    expected = ("full", cursors[2]) if purged <= 2 else ("partial", cursors[purged])
    assert greeting(device) == expected
    assert came(device) == numbers(max(purged, 2) + 1, 5)
    write(pair, 1, ann, start=6)
    assert came(device) == numbers(6, 6)
    assert greeting(resuming(pair)) == ("reset", cursors[purged])


def test_d13_a_purge_while_a_device_is_behind_is_skipped(pair: Pair) -> None:
    """It gets what is left, in order, and what comes after."""
    ann = write(pair, 20)
    cursor = f"{pair.world.shard_of(pair.bob).users[pair.bob].mailbox.epoch}.0"
    bob = Trickle(pair.world, pair.bob)
    bob.hello("Bob Ray", capabilities=["resume"], resume={"cursor": cursor})
    assert came(bob) == numbers(1, 3)
    shard, store = pair.world.shard_of(pair.bob), pair.world.store_of(pair.bob)
    shard.users.purged(store.purge(pair.bob, 10), pair.world.now)
    for first in (11, 14, 17):
        bob.drain()
        assert came(bob) == numbers(first, first + 2)
    shard.users.purged(store.purge(pair.bob, 20), pair.world.now)
    bob.drain()
    assert came(bob) == []
    assert not bob.session.behind
    bob.drain()
    write(pair, 1, ann, start=21)
    assert came(bob) == numbers(21, 21)


@pytest.mark.replaces
@pytest.mark.parametrize("when", ["before", "behind"])
def test_d13_all_that_was_missed_is_purged_while_it_is_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A message that comes meanwhile is the next one, whether or not the read could see it."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", 1)
    ann = write(pair, 5)
    cursor = f"{pair.world.shard_of(pair.bob).users[pair.bob].mailbox.epoch}.1"
    shard, store = pair.world.shard_of(pair.bob), pair.world.store_of(pair.bob)
    store.slow_reads = True
    bob = resuming(pair, cursor)
    assert greeting(bob) == ("full", cursor)
    shard.users.purged(store.purge(pair.bob, 5), pair.world.now)
    if when == "before":
        write(pair, 2, ann, start=6)
    store.slow_reads = False
    pair.world.settle()
    if when == "behind":
        write(pair, 2, ann, start=6)
    assert came(bob) == numbers(6, 7)


def test_d13_beyond_the_head_is_a_reset(pair: Pair) -> None:
    """A position that this mailbox has not reached can't be one that it gave."""
    write(pair, 3)
    bob = resuming(pair)
    cursor = bob.take("MSG")[-1]["cursor"]
    epoch = cursor.split(".")[0]
    assert greeting(resuming(pair, f"{epoch}.4"))[0] == "reset"
    assert greeting(resuming(pair, f"{epoch}.3")) == ("full", cursor)


@pytest.mark.parametrize(
    "cursor", ["", "0", ".", "x.1", "ffffffffffff.1", "0" * 12 + ".0", "-1", "\0", "1.2.3", "é" * 1000]
)
def test_d13_what_is_no_cursor_of_this_mailbox_is_a_reset(pair: Pair, cursor: str) -> None:
    """Cursors are opaque: a client that kept one of another server is served, and told that it starts over."""
    write(pair, 2)
    bob = resuming(pair, cursor)
    resumed, start = greeting(bob)
    assert resumed == "reset"
    assert came(bob) == numbers(1, 2)
    assert start == pair.world.shard_of(pair.bob).users[pair.bob].mailbox.cursor(0)


def test_d13_a_cursor_of_somebody_else_is_a_reset(pair: Pair) -> None:
    """Each mailbox has its own epoch."""
    write(pair, 2)
    cursor = resuming(pair).take("MSG")[0]["cursor"]
    cat = pair.come(pair.cat, "resume", resume={"cursor": cursor})
    assert greeting(cat)[0] == "reset"


@pytest.mark.parametrize(
    ("resume", "field"),
    [
        ("cursor", "resume"),
        ([], "resume"),
        ({}, "resume.cursor"),
        ({"cursor": 7}, "resume.cursor"),
        ({"cursor": None}, "resume.cursor"),
    ],
)
def test_d25_a_resume_of_another_shape_is_refused(pair: Pair, resume: object, field: str) -> None:
    """That is a client with a bug; it may say HELLO again."""
    write(pair, 1)
    bob = pair.come(pair.bob, "resume", resume=resume)
    error = bob.error()
    assert error["code"] == "VALIDATION"
    assert error["details"]["field"] == field
    assert not bob.inbox
    bob.hello("Bob Ray", capabilities=["resume"], resume=None)
    assert came(bob) == numbers(1, 1)


def test_d13_hello_again_says_where_the_connection_is(pair: Pair) -> None:
    """It brings what a cursor asks for, and puts those capabilities in force that it names, which may be none."""
    ann = write(pair, 2)
    bob = resuming(pair)
    start = bob.one("HELLO_ACK")["cursor"]
    cursor = bob.take("MSG")[-1]["cursor"]
    bob.hello("Bob Ray", capabilities=["resume"])
    assert greeting(bob) == ("full", cursor)
    assert came(bob) == []
    bob.hello("Bob Ray", capabilities=["resume"], resume={"cursor": start})
    assert greeting(bob) == ("full", start)
    assert came(bob) == numbers(1, 2)
    bob.hello("Bob Ray", capabilities=["resume"], resume={"cursor": "nonsense"})
    assert greeting(bob) == ("reset", start)
    assert came(bob) == numbers(1, 2)
    bob.hello("Bob Ray")
    assert bob.one("HELLO_ACK").keys() == {"user_id", "status"}
    write(pair, 1, ann, start=3)
    assert "seq" not in bob.one("MSG")


# -- Acknowledging --


def test_d12_d13_a_resumed_device_may_acknowledge_what_an_earlier_connection_got(pair: Pair) -> None:
    """Its cursor says that it has them."""
    write(pair, 3)
    bob = resuming(pair)
    cursor = bob.take("MSG")[-1]["cursor"]
    bob.leave()
    bob = resuming(pair, cursor)
    for number in (3, 1):
        bob.say("MSG_ACK", message_id=f"{number}")
    bob.leave()
    assert pair.come(pair.bob).contents() == ["2"]


def test_d12_d13_pongs_of_a_resumed_device_confirm(pair: Pair) -> None:
    """The cursor says that all before it arrived, the pong that all behind it did."""
    ann = write(pair, 2)
    bob = resuming(pair)
    cursor = bob.take("MSG")[-1]["cursor"]
    bob.leave()
    bob = resuming(pair, cursor)
    write(pair, 1, ann, start=3)
    bob.answer_pings()
    bob.leave()
    assert pair.come(pair.bob).contents() == []
