"""core.chat.announcements: CHAT_OPENED comes again until a device has confirmed it, at the pace of the connection (D7, D13)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.wire.protocol import CONFIRM_PING_INTERVAL, PRESENCE_GRACE, REPLAY_WINDOW_BYTES
from tests.core.pair import Pair
from tests.core.world import Device, World

#: More chats than fit into 64 KiB.
MANY = 400


def opened(device: Device) -> list[str]:
    """The other person of each CHAT_OPENED that has come, in order, removing them."""
    return [chat["target_user_id"] for chat in device.take("CHAT_OPENED")]


def told_again(pair: Pair, user: str) -> bool:
    """Whether a connection that comes now is told about a chat; it confirms nothing."""
    probe = pair.world.device(user).hello()
    told = bool(opened(probe))
    probe.leave()
    return told


def answer_pings(device: Device) -> None:
    """Wait for the ping behind what was opened last, and answer it."""
    device.world.pass_time(CONFIRM_PING_INTERVAL + 0.1)
    device.answer_those_that_came()


def unconfirmed(pair: Pair) -> tuple[Device, Device]:
    """Ann has opened a chat with Bob while both were here; nobody has answered a ping yet."""
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.open_chat(pair.bob)
    ann.take()
    bob.take()
    return ann, bob


def explicit(bob: Device) -> None:
    """Bob acknowledges with MSG_ACK from now on."""
    bob.say("MSG_ACK", message_id="none-of-that-id")


# -- Written is not seen --


def test_d7_who_was_told_on_a_dead_line_is_told_again(pair: Pair) -> None:
    """However often the line dies, and whether it was noticed before the next HELLO or not."""
    _, bob = unconfirmed(pair)
    for _ in range(3):
        bob = pair.come(pair.bob)
        assert opened(bob) == [pair.ann]
        pair.world.pass_time(30, step=1)
    bob.leave()
    assert told_again(pair, pair.bob)


def test_d7_and_so_is_the_opener(pair: Pair) -> None:
    """The answer may get lost like anything else."""
    ann, _ = unconfirmed(pair)
    ann.leave()
    assert told_again(pair, pair.ann)


def test_d7_a_pong_behind_it_confirms_it(pair: Pair) -> None:
    """At once, without the 5 s of messages, and for all devices."""
    _, bob = unconfirmed(pair)
    answer_pings(bob)
    assert not told_again(pair, pair.bob)
    assert not opened(bob), "and it is not told twice on one connection"


def test_d7_a_pong_confirms_it_for_those_who_acknowledge_messages_explicitly(pair: Pair) -> None:
    """Their pongs count for chats, and for nothing else."""
    ann, bob = pair.online(pair.ann, pair.bob)
    explicit(bob)
    ann.open_chat(pair.bob)
    ann.msg(pair.bob, "Hi.")
    answer_pings(bob)
    bob.leave()
    bob = pair.come(pair.bob)
    assert not opened(bob)
    assert bob.contents() == ["Hi."]
    pair.world.pass_time(3)
    assert not bob.pings, "a ping would have nothing to confirm"


def test_d7_a_pong_to_a_ping_before_it_confirms_nothing(pair: Pair) -> None:
    """Nor does one that nobody asked for."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    ann.msg(pair.bob, "Hi.")
    pair.world.pass_time(0.2)
    assert len(bob.pings) == 1
    cat.open_chat(pair.bob)
    bob.answer_those_that_came()
    for payload in (b"", b"alive?", b"seq 0", b"seq 1", b"seq 2"):
        bob.session.pong(payload, pair.world.now)
    assert told_again(pair, pair.bob)
    pair.world.pass_time(CONFIRM_PING_INTERVAL)
    bob.answer_those_that_came()
    assert not told_again(pair, pair.bob)


@pytest.mark.parametrize("named", [True, False])
def test_d7_a_msg_ack_of_a_message_behind_it_confirms_it(pair: Pair, named: bool) -> None:
    """The client that acknowledges has read so far; whichever chat the message belongs to."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    ann.msg(pair.bob, "Hi.", "1")
    bob.say("MSG_ACK", message_id="1", **({"from": pair.ann} if named else {}))
    assert not told_again(pair, pair.bob)


def test_d7_a_msg_ack_of_a_message_before_it_confirms_nothing(pair: Pair) -> None:
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    ann.msg(pair.bob, "Hi.", "1")
    cat.open_chat(pair.bob)
    bob.say("MSG_ACK", message_id="1")
    assert told_again(pair, pair.bob)


def test_d7_d13_a_resume_does_not_move_what_was_written_before(pair: Pair) -> None:
    """HELLO goes back to an earlier cursor on the same connection: an old message written then is not behind a new CHAT_OPENED."""
    ann, _ = pair.chatting("resume")
    (cat,) = pair.online(pair.cat)
    bob = pair.come(pair.bob, "resume")
    bob.take()
    for number in range(3):
        ann.msg(pair.bob, f"{number}", f"{number}")
    cursors = [message["cursor"] for message in bob.take("MSG")]
    bob.waiting = 1 << 20
    bob.hello("Bob Ray", capabilities=["resume"], resume={"cursor": cursors[0]})
    bob.waiting = 0
    cat.open_chat(pair.bob)
    bob.say("MSG_ACK", message_id="1", **{"from": pair.ann})
    assert told_again(pair, pair.bob)


ACTS: dict[str, Callable[[Pair, Device], None]] = {
    "MSG": lambda pair, bob: bob.msg(pair.ann),
    "TYPING": lambda pair, bob: bob.typing(to=pair.ann),
    "TYPING without to": lambda pair, bob: bob.typing(),
    "HISTORY": lambda pair, bob: bob.say("HISTORY", **{"with": pair.ann}),
    "READ": lambda pair, bob: bob.say("READ", message_id="any", **{"from": pair.ann}),
    "OPEN_CHAT": lambda pair, bob: bob.open_chat(pair.ann),
}


@pytest.mark.parametrize("act", ACTS)
def test_d7_whatever_the_target_does_in_the_chat_confirms_it(pair: Pair, act: str) -> None:
    """And survives the end of the process, since it is stored."""
    ann = pair.come(pair.ann)
    bob = pair.come(pair.bob, "receipts", "history")
    ann.open_chat(pair.bob)
    ACTS[act](pair, bob)
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    assert not told_again(pair, pair.bob)


def test_d7_what_is_done_in_another_chat_confirms_nothing(pair: Pair) -> None:
    _, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    bob.msg(pair.ann)
    bob.typing(to=pair.ann)
    assert told_again(pair, pair.bob)


def test_d7_one_device_that_has_read_it_is_enough(pair: Pair) -> None:
    """The others are told in this connection all the same."""
    ann, bob = pair.online(pair.ann, pair.bob)
    slow = pair.come(pair.bob)
    slow.take()
    slow.waiting = 1 << 20
    ann.open_chat(pair.bob)
    answer_pings(bob)
    assert not told_again(pair, pair.bob)
    assert not opened(slow)
    slow.drain()
    assert opened(slow) == [pair.ann]


def test_d7_each_new_connection_is_told_until_one_has_confirmed(pair: Pair) -> None:
    """Nobody knows yet which of them is alive."""
    unconfirmed(pair)
    devices = [pair.come(pair.bob) for _ in range(3)]
    assert [opened(device) for device in devices] == [[pair.ann]] * 3
    answer_pings(devices[1])
    assert not told_again(pair, pair.bob)


def test_d7_nothing_is_told_twice_on_one_connection(pair: Pair) -> None:
    """However long it takes, and whatever else happens in the chat; opening it again is answered, to the one who asks."""
    ann, bob = unconfirmed(pair)
    ann.msg(pair.bob, "Hi.")
    bob.hello("Robert")
    pair.world.pass_time(30, step=1)
    assert not opened(ann)
    assert not opened(bob)
    ann.open_chat(pair.bob)
    assert opened(ann) == [pair.bob]
    assert not opened(bob)


def test_d7_both_opening_at_once_on_dead_lines_are_told_again(pair: Pair) -> None:
    """Neither answer was read."""
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.open_chat(pair.bob, settle=False)
    bob.open_chat(pair.ann, settle=False)
    pair.world.settle()
    assert set(opened(ann)) == {pair.bob}
    assert set(opened(bob)) == {pair.ann}
    assert told_again(pair, pair.ann)
    assert told_again(pair, pair.bob)


# -- Durable --


@pytest.mark.parametrize("confirmed", [False, True])
def test_d7_a_kill_forgets_no_chat_that_was_not_confirmed(pair: Pair, confirmed: bool) -> None:
    """The process dies between the writing and the confirmation, or behind both."""
    _, bob = unconfirmed(pair)
    if confirmed:
        answer_pings(bob)
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    assert told_again(pair, pair.bob) is not confirmed


def test_d7_a_confirmation_that_could_not_be_saved_costs_a_repeat(pair: Pair) -> None:
    """And it is saved with whatever is saved next."""
    ann, bob = unconfirmed(pair)
    store = pair.world.store_of(pair.bob)
    store.failure = "disk full"
    answer_pings(bob)
    store.failure = None
    assert not told_again(pair, pair.bob)
    ann.msg(pair.bob, "Hi.", "1")
    bob.say("MSG_ACK", message_id="1")
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    assert not told_again(pair, pair.bob)


# -- Pings --


def test_d7_d12_one_ping_does_for_all_that_come_together(pair: Pair) -> None:
    """At most one on its way, at most one a second, for chats and messages together."""
    world = pair.world
    (bob,) = pair.online(pair.bob)
    pings = 0
    strangers = [world.user_on(number % 2) for number in range(30)]
    for number, stranger in enumerate(strangers):
        device = world.device(stranger).hello()
        device.open_chat(pair.bob)
        if number % 3 == 0:
            device.msg(pair.bob)
        world.pass_time(0.1)
        pings += len(bob.pings)
        assert len(bob.pings) <= 1
        bob.answer_those_that_came()
    assert 3 <= pings <= 4
    world.pass_time(CONFIRM_PING_INTERVAL)
    bob.answer_those_that_came()
    assert not told_again(pair, pair.bob)


def test_d7_d12_a_chat_and_the_first_message_in_it_share_a_ping(pair: Pair) -> None:
    """The ping waits for a second for that message; one pong confirms both."""
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.open_chat(pair.bob)
    pair.world.pass_time(0.5)
    assert not bob.pings
    ann.msg(pair.bob, "Hi.")
    pair.world.pass_time(0.1)
    assert len(bob.pings) == 1
    bob.answer_those_that_came()
    bob.leave()
    bob = pair.come(pair.bob)
    assert not opened(bob)
    assert not bob.contents()


def test_d7_d12_who_answers_no_ping_gets_no_other(pair: Pair) -> None:
    world = pair.world
    (bob,) = pair.online(pair.bob)
    for number in range(10):
        world.device(world.user_on(number % 2)).hello().open_chat(pair.bob)
        world.pass_time(1.5, step=0.5)
    assert len(bob.pings) == 1


def test_d7_d12_who_comes_to_fetch_what_waits_and_leaves_at_once_has_it(pair: Pair) -> None:
    """The ping comes right behind the last of it, also for who acknowledges explicitly."""
    ann, bob = pair.online(pair.ann, pair.bob)
    explicit(bob)
    bob.leave()
    ann.open_chat(pair.bob)
    bob = pair.come(pair.bob)
    assert len(bob.pings) == 1
    bob.session.pong(bob.pings[0], pair.world.now)
    bob.leave()
    assert not told_again(pair, pair.bob)


# -- Thousands --


class Reader(Device):
    """A device whose kernel takes nothing until it reads."""

    def __init__(self, world: World, user_id: str) -> None:
        self.buffered = 0
        super().__init__(world, user_id)

    def send(self, frame: bytes) -> None:
        super().send(frame)
        self.buffered += len(frame)

    def unsent(self) -> int:
        return self.buffered

    def read(self) -> None:
        """Take all that was written."""
        self.buffered = 0
        self.session.writable(self.world.now)
        self.world.settle()


@pytest.fixture
def crowded(far: bool) -> tuple[Pair, list[str]]:
    """Bob was away while many people opened a chat with him; in order. The first and the last of them are here."""
    pair = Pair(far)
    world = pair.world
    (bob,) = pair.online(pair.bob)
    bob.leave()
    strangers = [world.user_on(0) for _ in range(MANY)]
    for stranger in strangers:
        device = world.device(stranger).hello()
        device.open_chat(pair.bob)
        if stranger not in (strangers[0], strangers[-1]):
            device.leave()
    world.pass_time(2 * PRESENCE_GRACE, step=1)
    return pair, strangers


def test_d7_d13_thousands_are_paced_by_what_the_client_has_read(crowded: tuple[Pair, list[str]]) -> None:
    """64 KiB at a time, in the order in which they were opened; what opens meanwhile comes behind them."""
    pair, strangers = crowded
    world = pair.world
    bob = Reader(world, pair.bob)
    bob.hello("Bob Ray")
    seen = opened(bob)
    assert 100 < len(seen) < 300
    late = world.device(world.user_on(1)).hello("Late Comer")
    late.open_chat(pair.bob)
    while len(seen) < MANY + 1:
        assert bob.buffered < REPLAY_WINDOW_BYTES + 1024
        bob.read()
        news = opened(bob)
        assert news
        seen += news
    assert seen == [*strangers, late.user_id]
    answer_pings(bob)
    bob.leave()
    assert not told_again(pair, pair.bob)


def test_d7_d18_messages_come_behind_them(crowded: tuple[Pair, list[str]]) -> None:
    """Also those that are sent while they are being written; order is kept for everybody."""
    pair, strangers = crowded
    world = pair.world
    first = next(device for device in world.devices if device.user_id == strangers[0])
    last = next(device for device in world.devices if device.user_id == strangers[-1])
    bob = Reader(world, pair.bob)
    last.msg(pair.bob, "before")
    bob.hello("Bob Ray")
    first.msg(pair.bob, "during")
    first.take("MSG_ACK")
    last.msg(pair.bob, "behind")
    kinds = bob.kinds()[2:]
    while len(kinds) < MANY + 3:
        bob.take()
        bob.read()
        kinds += bob.kinds()
    assert kinds == ["CHAT_OPENED"] * MANY + ["MSG"] * 3
    assert bob.contents() == ["before", "during", "behind"]
    last.msg(pair.bob, "live again")
    assert bob.contents() == ["live again"]


def test_d7_what_was_read_of_thousands_does_not_come_again(crowded: tuple[Pair, list[str]]) -> None:
    """The line dies in the middle: what the last pong stands behind is done."""
    pair, strangers = crowded
    bob = Reader(pair.world, pair.bob)
    bob.hello("Bob Ray")
    seen = opened(bob)
    answer_pings(bob)
    bob.read()
    assert opened(bob)
    bob.leave()
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    again = Reader(pair.world, pair.bob)
    again.hello("Bob Ray")
    assert opened(again)[0] == strangers[len(seen)]


def test_d7_a_slow_device_holds_up_no_other(crowded: tuple[Pair, list[str]]) -> None:
    """Each is told at its own pace."""
    pair, strangers = crowded
    slow = Reader(pair.world, pair.bob)
    slow.hello("Bob Ray")
    fast = pair.come(pair.bob)
    assert opened(fast) == strangers
    answer_pings(fast)
    seen = opened(slow)
    while len(seen) < MANY:
        slow.read()
        seen += opened(slow)
    assert seen == strangers
    answer_pings(slow)
    pair.world.pass_time(CONFIRM_PING_INTERVAL)
    answer_pings(slow)
    assert slow.session.announcements is None
    assert fast.session.announcements is None, "nothing is kept of what is done"
