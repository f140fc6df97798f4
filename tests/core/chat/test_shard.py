"""core.chat.shard: HELLO, devices (D4), limits of HELLO and OPEN_CHAT (D23), whom it forgets, and what it closes (D28)."""

from __future__ import annotations

import gc

import pytest

from core.chat.envelope import RecordKind, pack_envelope, pack_record
from core.chat.user import User
from core.wire.protocol import DEVICE_SILENT, DEVICES_MAX, FORGET_AFTER, UNLOAD_AFTER
from tests.core.pair import Pair
from tests.core.world import Device, World

DAY = FORGET_AFTER


def alone() -> tuple[World, str]:
    """A world of one worker, and the id of its only user."""
    world = World(1)
    return world, world.user_on(0)


# -- Devices --


def full(world: World, user: str) -> list[Device]:
    """As many devices of one user as there may be."""
    devices = [world.device(user).hello() for _ in range(DEVICES_MAX)]
    assert all(device.one("HELLO_ACK") for device in devices)
    return devices


def test_d4_ten_devices_receive_everything_addressed_to_the_user(pair: Pair) -> None:
    """Whatever it is: CHAT_OPENED, MSG, TYPING."""
    (ann,) = pair.online(pair.ann)
    devices = full(pair.world, pair.bob)
    ann.open_chat(pair.bob)
    ann.typing()
    ann.msg(pair.bob, "Hi.")
    for device in devices:
        assert [kind for kind in device.kinds() if kind != "PRESENCE"] == [
            "CHAT_OPENED",
            "TYPING",
            "TYPING",
            "MSG",
        ]


def test_d4_d28_the_eleventh_takes_the_place_of_the_one_silent_longest() -> None:
    """If that one has been silent for 20 s; it is closed with 4001 and a reason, the others stay."""
    world, user = alone()
    devices = full(world, user)
    world.pass_time(DEVICE_SILENT + 1)
    for device in (*devices[:3], *devices[4:]):
        device.say("PING")
    devices[5].last_heard -= DEVICE_SILENT
    world.device(user).hello()
    closed = [device for device in devices if device.closed]
    assert closed == [devices[3]]
    assert closed[0].closed is not None
    assert closed[0].closed[0] == 4001
    assert closed[0].closed[1]


def test_d4_d28_the_eleventh_is_refused_while_all_others_are_alive() -> None:
    """With 1013 and a reason; a moment later, when one has fallen silent, it gets in."""
    world, user = alone()
    devices = full(world, user)
    world.pass_time(DEVICE_SILENT - 0.2)
    newcomer = world.device(user).hello()
    assert newcomer.closed is not None
    assert newcomer.closed[0] == 1013
    assert newcomer.closed[1]
    assert not newcomer.inbox
    assert all(device.open for device in devices)
    world.pass_time(0.4)
    assert world.device(user).hello().one("HELLO_ACK")
    assert sum(device.open for device in devices) == DEVICES_MAX - 1


def test_d4_a_device_that_left_makes_room() -> None:
    world, user = alone()
    devices = full(world, user)
    devices[4].leave()
    assert world.device(user).hello().one("HELLO_ACK")
    assert sum(device.open for device in devices) == DEVICES_MAX - 1


def test_d4_hello_again_needs_no_room() -> None:
    """A device that says HELLO a second time is not an eleventh."""
    world, user = alone()
    devices = full(world, user)
    devices[0].hello("New Name")
    assert devices[0].one("HELLO_ACK")
    assert all(device.open for device in devices)


def test_d4_devices_that_come_at_once_are_counted_one_by_one() -> None:
    """Twelve HELLOs while the store is busy with the first: ten get in."""
    world, user = alone()
    world.stores[0].slow = True
    devices = [world.device(user).hello(settle=False) for _ in range(DEVICES_MAX + 2)]
    world.stores[0].slow = False
    world.settle()
    assert [device.open for device in devices] == [True] * DEVICES_MAX + [False] * 2


# -- Limits --


def test_d23_thirty_hellos_a_minute_per_user() -> None:
    """All connections together; the connection that came too often stays usable."""
    world, user = alone()
    for _ in range(15):
        world.device(user).hello().leave()
    device = world.device(user).hello()
    for _ in range(14):
        device.hello()
    device.take()
    device.hello()
    error = device.error()
    assert error["code"] == "RATE_LIMITED"
    assert error["details"] == {
        "type": "HELLO",
        "limit": 30,
        "window": 60.0,
        "retry_after": pytest.approx(60),
    }
    newcomer = world.device(user).hello()
    assert newcomer.errors() == ["RATE_LIMITED"]
    assert world.device(world.user_on(0)).hello().one("HELLO_ACK"), "others are not concerned"
    world.pass_time(60.1, step=1)
    device.take()
    newcomer.hello()
    assert newcomer.one("HELLO_ACK")


def test_d2_d23_who_waits_as_long_as_told_has_time_for_hello() -> None:
    """10 s from the hand-over; from the end of the wait, when HELLO came too often."""
    world, user = alone()
    assert world.device(user).session.hello_deadline == world.now + 10
    for _ in range(30):
        world.device(user).hello().leave()
    device = world.device(user).hello()
    retry_after = device.error()["details"]["retry_after"]
    assert device.session.hello_deadline >= world.now + retry_after + 9.9


def test_d23_twenty_open_chats_a_minute_per_user(pair: Pair) -> None:
    """Whether they succeed or not: it is what keeps somebody from asking for all ids there are."""
    ann, _ = pair.chatting()
    (ann_too,) = pair.online(pair.ann)
    for number in range(19):
        (ann, ann_too)[number % 2].open_chat(pair.bob if number % 3 else pair.cat)
    assert "RATE_LIMITED" not in ann.errors() + ann_too.errors()
    ann.open_chat(pair.bob)
    error = ann.error()
    assert error["code"] == "RATE_LIMITED"
    assert error["details"] == {
        "type": "OPEN_CHAT",
        "limit": 20,
        "window": 60.0,
        "retry_after": pytest.approx(60),
    }
    pair.world.pass_time(60.1)
    ann.open_chat(pair.bob)
    assert not ann.errors()


@pytest.mark.parametrize("setting", ["hellos_per_minute", "open_chats_per_minute"])
def test_d23_zero_turns_a_limit_off(far: bool, setting: str) -> None:
    pair = Pair(far, **{setting: 0})
    ann, _ = pair.chatting()
    for _ in range(50):
        if setting == "hellos_per_minute":
            ann.hello()
        else:
            ann.open_chat(pair.bob)
    assert not ann.errors()


def test_d23_a_stranger_is_forgotten_when_the_store_says_that_a_day_has_passed(pair: Pair) -> None:
    """To others it is as if nobody of that id had ever been here."""
    ann, bob = pair.online(pair.ann, pair.bob)
    owner = pair.world.shard_of(pair.bob)
    writes = len(pair.world.stores[owner.index].committed)
    bob.leave()
    assert len(pair.world.stores[owner.index].committed) == writes + 1, "when a stranger left is kept"
    owner.users.strangers([pair.bob], pair.world.now)
    pair.world.settle()
    assert pair.world.stores[owner.index].forgotten == [pair.bob]
    assert pair.bob not in owner.users
    ann.open_chat(pair.bob)
    assert ann.error()["code"] == "USER_NOT_FOUND"
    assert pair.world.device(pair.bob).hello().kinds()[0] == "HELLO_ACK"


def test_d23_whoever_is_here_or_has_a_chat_by_now_is_not_forgotten(pair: Pair) -> None:
    """The store asks; who is online, who is being looked up, and who has got a chat meanwhile are no strangers."""
    ann, bob = pair.online(pair.ann, pair.bob)
    owner = pair.world.shard_of(pair.bob)
    owner.users.strangers([pair.bob], pair.world.now)
    bob.leave()
    pair.world.pass_time(130, step=10)
    pair.world.device(pair.bob).hello(settle=False)
    owner.users.strangers([pair.bob], pair.world.now)
    pair.world.settle()
    pair.world.devices[-1].leave()
    ann.open_chat(pair.bob)
    owner.users.strangers([pair.bob], pair.world.now)
    pair.world.settle()
    assert pair.world.stores[owner.index].forgotten == []
    assert ann.one("CHAT_OPENED")["target_user_id"] == pair.bob


def test_users_who_are_away_are_left_to_the_store(far: bool) -> None:
    """After two minutes; then everything about them is as it was."""
    pair = Pair(far)
    ann, bob = pair.chatting()
    bob.say("MSG_ACK", message_id="none")
    bob.leave()
    ann.msg(pair.bob, "one")
    owner = pair.world.shard_of(pair.bob)
    pair.world.pass_time(115, step=1)
    assert pair.bob in owner.users
    pair.world.pass_time(10, step=1)
    assert pair.bob not in owner.users
    ann.msg(pair.bob, "two")
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Bob Ray"
    pair.world.pass_time(130, step=1)
    assert pair.bob not in owner.users
    bob = pair.world.device(pair.bob).hello("Bob Ray")
    assert bob.contents() == ["one", "two"]
    assert not bob.pings, "Bob acknowledges explicitly, and that is remembered"
    assert "CHAT_OPENED" not in bob.kinds()


def test_who_was_left_to_the_store_is_really_gone(far: bool) -> None:
    """Messages in memory know their user, who knows them; the garbage collector is not to be needed."""
    pair = Pair(far)
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "one")
    bob.leave()
    pair.world.devices.remove(bob)
    del bob
    pair.world.store_of(pair.bob).committed.clear()
    gc.collect()
    gc.disable()
    try:
        pair.world.pass_time(130, step=10)
        assert not [
            known for known in gc.get_objects() if isinstance(known, User) and known.user_id == pair.bob
        ]
    finally:
        gc.enable()


def test_who_has_something_on_its_way_stays_in_memory(pair: Pair) -> None:
    """The callback would find somebody else in its place."""
    ann, bob = pair.chatting()
    bob.leave()
    owner = pair.world.shard_of(pair.bob)
    store = pair.world.stores[owner.index]
    pair.world.pass_time(UNLOAD_AFTER - 2, step=1)
    store.slow = True
    ann.msg(pair.bob, "one")
    pair.world.pass_time(4)
    assert pair.bob in owner.users
    store.slow = False
    pair.world.pass_time(200, step=1)
    assert pair.bob not in owner.users
    assert pair.world.device(pair.bob).hello().contents() == ["one"]


def test_d23_whoever_has_a_chat_is_not_forgotten(pair: Pair) -> None:
    """Even if it was opened by the other side after one had left."""
    ann, bob = pair.online(pair.ann, pair.bob)
    bob.leave()
    ann.open_chat(pair.bob)
    ann.leave()
    pair.world.pass_time(2 * DAY, step=3600)
    (ann,) = pair.online(pair.ann)
    ann.msg(pair.bob, "Still there?", "1")
    assert ann.statuses() == [("1", "stored")]


def test_d23_whoever_leaves_before_hello_is_answered_is_forgotten_too() -> None:
    """HELLO and a close in one segment: users must not pile up that nobody will ever see."""
    world, user = alone()
    world.device(user).hello(settle=False).leave()
    assert user in world.shards[0].users
    world.pass_time(DAY + 60, step=60)
    assert user not in world.shards[0].users


def test_d23_a_device_that_came_with_one_that_left_at_once_keeps_its_user() -> None:
    """Two HELLOs while the store is busy, one of which nobody waits for: the user stays as long as the other does."""
    world, user = alone()
    world.stores[0].slow = True
    goes, stays = world.device(user).hello(), world.device(user).hello()
    goes.leave()
    world.stores[0].slow = False
    world.settle()
    world.pass_time(2 * DAY, step=3600)
    assert user in world.shards[0].users
    assert stays.open


# -- The store --


def test_d20_hello_is_answered_when_the_user_is_durable() -> None:
    """Not before, and neither is the HELLO of a second device that comes meanwhile."""
    world, user = alone()
    world.stores[0].slow = True
    device = world.device(user).hello()
    second = world.device(user).hello()
    assert not device.inbox
    assert not second.inbox
    world.stores[0].slow = False
    world.settle()
    assert device.kinds() == second.kinds() == ["HELLO_ACK", "PRESENCE"]


def test_d28_a_hello_that_can_not_be_stored_closes_with_1013() -> None:
    """The client tries again later; then it is a new user as if nothing had been."""
    world, user = alone()
    world.stores[0].failure = "disk full"
    devices = [world.device(user).hello(settle=False) for _ in range(2)]
    world.settle()
    for device in devices:
        assert device.closed is not None
        assert device.closed[0] == 1013
        assert device.closed[1]
        assert not device.inbox
    world.stores[0].failure = None
    assert world.device(user).hello().one("HELLO_ACK")
    assert [write for write in world.stores[0].committed if isinstance(write, User)]


def test_a_known_user_is_not_stored_again() -> None:
    """HELLO of somebody known under the same name writes nothing."""
    world, user = alone()
    world.device(user).hello("Ann Lee").leave()
    writes = len(world.stores[0].committed)
    assert world.device(user).hello("Ann Lee").one("HELLO_ACK")
    assert len(world.stores[0].committed) == writes
    world.device(user).hello("Ann Smith")
    assert len(world.stores[0].committed) == writes + 1


def test_a_client_that_leaves_while_it_is_greeted_is_not_online() -> None:
    """HELLO, then gone before the store was ready."""
    world, user = alone()
    world.stores[0].slow = True
    device = world.device(user).hello()
    device.leave()
    world.stores[0].slow = False
    world.settle()
    assert not device.inbox
    assert not world.shards[0].users[user].sessions
    assert not len(world.shards[0].presence)


# -- Between shards --


def test_an_envelope_of_another_version_is_an_error_that_says_so() -> None:
    """ValueError, whatever it is that can't be read: the caller logs it and goes on."""
    world = World(2)
    shard = world.shards[0]
    for envelope in (b"", b"\xff" * 40, pack_envelope(1, 7, 0.0, [pack_record(99, 0, 0, 0.0)])):
        with pytest.raises(ValueError, match=r"."):
            shard.receive_envelope(envelope, world.now)


def test_records_are_handled_in_order_and_those_before_a_bad_one_count() -> None:
    """What can be read is done."""
    pair = Pair(True)
    ann, bob = pair.chatting()
    fields = (pair.ann.encode(), pair.bob.encode())
    good = [pack_record(RecordKind.TYPING, flag, 0, 0.0, *fields) for flag in (1, 0)]
    with pytest.raises(ValueError, match="99"):
        pair.world.shards[1].receive_envelope(
            pack_envelope(0, 7, 0.0, [*good, pack_record(99, 0, 0, 0.0)]), pair.world.now
        )
    pair.world.settle()
    assert bob.typists() == [(pair.ann, True), (pair.ann, False)]
    assert ann.open


def test_records_about_users_who_are_not_here_are_ignored() -> None:
    """A restarted worker gets what was meant for the old one."""
    pair = Pair(True)
    pair.online(pair.ann)
    fields = (pair.ann.encode(), pair.bob.encode())
    records = [
        pack_record(RecordKind.CHAT_OPENED, 0, 0, 0.0, *fields),
        pack_record(RecordKind.TYPING, 1, 0, 0.0, *fields),
        pack_record(RecordKind.RENAMED, 0, 0, 0.0, *fields, b"New Name"),
        pack_record(RecordKind.RESULT, 1, 12345, 0.0, b"Bob Ray"),
    ]
    pair.world.shards[1].receive_envelope(pack_envelope(0, 7, 0.0, records), pair.world.now)
    pair.world.settle()
    assert pair.bob not in pair.world.shards[1].users
    assert pair.world.device(pair.bob).hello().kinds() == ["HELLO_ACK", "PRESENCE"]
