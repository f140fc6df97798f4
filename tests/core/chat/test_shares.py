"""core.chat.shares: how much of a mailbox one sender, and all strangers together, may fill (D20)."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from core.chat.chat import Chat
from core.chat.shares import Shares, sender_share, strangers_share
from tests.core.pair import Pair
from tests.core.recording_store import PAGE
from tests.core.world import Device

#: So a sender may have 2, strangers 10.
MAX = 20


class Crowd:
    """Bob, who is away, and people who have a chat with him; each has said HELLO and keeps the connection."""

    def __init__(self, far: bool, people: int, mailbox_max: int = MAX) -> None:
        self.pair = Pair(far, mailbox_max=mailbox_max, messages_per_minute=0, open_chats_per_minute=0)
        self.world = self.pair.world
        (bob,) = self.pair.online(self.pair.bob)
        self.people = [self.world.device(self.world.user_on(n % 2)).hello() for n in range(people)]
        for person in self.people:
            person.open_chat(self.pair.bob)
            person.take()
        bob.leave()
        self._number = 0

    @property
    def bob(self) -> str:
        return self.pair.bob

    def write(self, person: int, name: str | None = None) -> str:
        """Somebody writes to Bob: ``stored``, ``delivered``, or what of the mailbox is full."""
        self._number += 1
        name = name or f"m-{self._number}"
        device = self.people[person]
        device.msg(self.bob, name, name)
        return self.answer(device, name)

    def answer(self, device: Device, name: str) -> str:
        errors = device.take("ERROR")
        if not errors:
            ((message_id, status),) = device.statuses()
            assert message_id == name
            return status
        (error,) = errors
        assert error["code"] == "MESSAGE_FAILED"
        details: dict[str, Any] = error["details"]
        assert details["message_id"] == name
        assert (details["type"], details["field"], details["reason"]) == ("MSG", "to", "mailbox_full")
        limits = {"sender": 2, "strangers": 10, "mailbox": MAX}
        assert details["limit"] == limits[details["share"]]
        assert "the mailbox is full" in error["message"]
        assert f"at most {details['limit']} " in error["message"]
        return str(details["share"])

    def befriend(self, *people: int) -> None:
        """Bob comes, writes to these, and leaves without having read anything."""
        bob = self.world.device(self.bob).hello("Bob Ray")
        for person in people:
            bob.msg(self.people[person].user_id, "Hello.")
            self.people[person].take()
        bob.leave()

    def restart(self) -> None:
        """Kill Bob's worker, and bring back those who lived there."""
        index = self.world.placement.worker_of(self.bob)
        self.world.restart(index)
        for number, person in enumerate(self.people):
            if not person.open:
                self.people[number] = self.world.device(person.user_id).hello()
                self.people[number].take()

    def forget(self) -> None:
        """Two minutes go by, after which Bob is left to the store."""
        self.world.pass_time(130, step=5)
        for person in self.people:
            person.take()
        assert self.bob not in self.world.shard_of(self.bob).users


def test_d20_one_sender_may_have_a_tenth(far: bool) -> None:
    """Others still get through, and so do they again when something is acknowledged."""
    crowd = Crowd(far, 2)
    assert [crowd.write(0) for _ in range(4)] == ["stored", "stored", "sender", "sender"]
    assert [crowd.write(1) for _ in range(3)] == ["stored", "stored", "sender"]
    bob = crowd.world.device(crowd.bob).hello()
    bob.say("MSG_ACK", message_id="m-1")
    assert [crowd.write(0), crowd.write(0), crowd.write(1)] == ["delivered", "sender", "sender"]


def test_d20_strangers_may_have_half_of_it_together(far: bool) -> None:
    """Those to whom Bob has written are not refused for it: their part of the mailbox stays free."""
    crowd = Crowd(far, 11)
    crowd.befriend(0, 1, 2, 3, 4)
    told = [crowd.write(person) for person in range(5, 11) for _ in range(2)]
    assert told == ["stored"] * 10 + ["strangers"] * 2
    friends = [crowd.write(person) for person in range(5) for _ in range(3)]
    assert friends == ["stored", "stored", "sender"] * 4 + ["stored", "stored", "mailbox"]
    crowd.people.append(crowd.world.device(crowd.world.user_on(0)).hello())
    crowd.people[-1].open_chat(crowd.bob)
    crowd.befriend(11)
    crowd.people[-1].take()
    assert crowd.write(11) == "mailbox", "nobody gets more than there is"


def test_d20_opening_a_chat_makes_nobody_a_friend(far: bool) -> None:
    """Writing does; and from then on what somebody wrote before counts no longer as a stranger's."""
    crowd = Crowd(far, 6)
    bob = crowd.world.device(crowd.bob).hello("Bob Ray")
    bob.open_chat(crowd.people[0].user_id)
    bob.leave()
    for person in crowd.people:
        person.take()
    assert [crowd.write(person) for person in range(5) for _ in range(2)] == ["stored"] * 10
    assert crowd.write(5) == "strangers"
    crowd.befriend(0)
    assert [crowd.write(5) for _ in range(3)] == ["stored", "stored", "sender"]


def test_d20_a_message_that_was_refused_for_ever_makes_no_friend_of_the_other_side(far: bool) -> None:
    """What strangers write to Bob says nothing about whom Bob writes to."""
    crowd = Crowd(far, 6)
    for person in range(5):
        crowd.write(person)
        crowd.write(person)
    crowd.restart()
    assert crowd.write(5) == "strangers"


@pytest.mark.parametrize("how", ["restart", "forget"])
def test_d20_the_shares_survive(far: bool, how: str) -> None:
    """A kill, and leaving memory: counted again from what is stored, over several pages."""
    crowd = Crowd(far, 8)
    crowd.befriend(6, 7)
    assert [crowd.write(person) for person in range(5) for _ in range(2)] == ["stored"] * 10
    assert crowd.write(6) == "stored"
    assert PAGE < 11
    bob = crowd.world.device(crowd.bob).hello()
    bob.say("MSG_ACK", message_id="m-4")
    crowd.world.pass_time(1)
    bob.leave()
    getattr(crowd, how)()
    assert crowd.write(0) == "sender"
    assert crowd.write(6) == "stored"
    assert crowd.write(6) == "sender"
    assert [crowd.write(1), crowd.write(1), crowd.write(5)] == ["stored", "sender", "strangers"]
    assert crowd.write(7) == "stored"


def test_d20_d7_that_bob_has_written_is_durable_when_he_is_told(far: bool) -> None:
    """His worker dies right behind the MSG_ACK of the first message that he ever wrote to somebody."""
    crowd = Crowd(far, 6)
    bob = crowd.world.device(crowd.bob).hello("Bob Ray")
    store = crowd.world.store_of(crowd.bob)
    store.slow = True
    bob.msg(crowd.people[5].user_id, "Hello.")
    assert not bob.statuses()
    store.slow = False
    crowd.world.settle()
    assert len(bob.statuses()) == 1
    crowd.restart()
    for person in range(5):
        crowd.write(person)
        crowd.write(person)
    assert crowd.write(4) == "sender"
    assert crowd.write(5) == "stored"


def test_d20_retention_makes_room(far: bool) -> None:
    """Of whoever sent what is gone."""
    crowd = Crowd(far, 6)
    for person in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4):
        assert crowd.write(person) == "stored"
    assert crowd.write(5) == "strangers"
    shard = crowd.world.shard_of(crowd.bob)
    shard.users.purged(crowd.world.store_of(crowd.bob).purge(crowd.bob, 3), crowd.world.now)
    assert [crowd.write(person) for person in (0, 0, 3, 5, 5, 1)] == [
        *("stored", "sender", "sender"),
        *("stored", "stored", "strangers"),
    ]


def test_d20_pongs_make_room(far: bool) -> None:
    """What a plain client has read, of all senders."""
    crowd = Crowd(far, 6)
    for person in range(5):
        crowd.write(person)
        crowd.write(person)
    assert crowd.write(5) == "strangers"
    bob = crowd.pair.come(crowd.bob)
    bob.answer_pings()
    bob.leave()
    assert [crowd.write(person) for person in range(5) for _ in range(3)] == [
        "stored",
        "stored",
        "sender",
    ] * 5


def test_d18_d20_what_waits_while_the_store_counts_keeps_its_order(far: bool) -> None:
    """Several from each of two people, in one go; repeats among them are recognised."""
    crowd = Crowd(far, 2, mailbox_max=60)
    for person in crowd.people:
        for number in range(3):
            person.msg(crowd.bob, f"{number}", f"{number}")
        person.take()
    crowd.forget()
    store = crowd.world.store_of(crowd.bob)
    store.slow_reads = True
    for person in crowd.people:
        for name in ("3", "4", "3", "5", "6"):
            person.msg(crowd.bob, name, name, settle=False)
    crowd.world.settle()
    store.slow_reads = False
    crowd.world.settle()
    for person in crowd.people:
        assert sorted(message_id for message_id, _ in person.statuses()) == ["3", "3", "4", "5"]
        assert [error["details"]["message_id"] for error in person.take("ERROR")] == ["6"]
    came = crowd.world.device(crowd.bob).hello().take("MSG")
    for person in crowd.people:
        mine = [message["content"] for message in came if message["from"] == person.user_id]
        assert mine == ["0", "1", "2", "3", "4", "5"]


def test_d20_a_store_that_can_not_count_fails_and_may_be_asked_again(far: bool) -> None:
    """*Not confirmed*: nobody is refused for what is not known."""
    crowd = Crowd(far, 1)
    crowd.write(0)
    crowd.write(0)
    crowd.forget()
    store = crowd.world.store_of(crowd.bob)
    shard = crowd.world.shard_of(crowd.bob)
    shard.users.find(crowd.bob, lambda user, failure, now: None, crowd.world.now)
    crowd.world.settle()
    store.read_failure = "unreadable"
    crowd.people[0].msg(crowd.bob, "again", "again")
    error = crowd.people[0].error()
    assert error["code"] == "MESSAGE_FAILED"
    assert "same message_id" in error["message"]
    assert "share" not in error["details"]
    store.read_failure = None
    assert crowd.write(0, "again") == "sender"


@pytest.mark.parametrize(
    ("whole", "sender", "strangers"), [(1, 1, 1), (5, 1, 2), (10, 1, 5), (100_000, 10_000, 50_000)]
)
def test_d20_the_shares_of_small_mailboxes(far: bool, whole: int, sender: int, strangers: int) -> None:
    """Everybody may have one message waiting, if there is room at all."""
    assert (sender_share(whole), strangers_share(whole)) == (sender, strangers)
    if whole > 10:
        return
    pair = Pair(far, mailbox_max=whole)
    ann, bob = pair.chatting()
    bob.leave()
    ann.msg(pair.bob, "one", "1")
    ann.msg(pair.bob, "two", "2")
    assert ann.statuses() == [("1", "stored")]
    assert ann.errors() == ["MESSAGE_FAILED"]
    assert pair.come(pair.bob).contents() == ["one"]


def test_d20_below_a_tenth_nobody_asks_the_store(far: bool) -> None:
    """The way of a message costs what it did."""
    crowd = Crowd(far, 3, mailbox_max=100)
    for person in (0, 1, 2) * 3:
        crowd.write(person)
    store = crowd.world.store_of(crowd.bob)
    assert "senders" not in store.reads
    for person in (0, 1, 2):
        crowd.write(person)
    assert store.reads.count("senders") == 2, "once, in two pages"


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 20))]
)
def test_d20_any_sequence(far: bool, seed: int) -> None:
    """Writing, acknowledging, coming, going, retention, kills: what is refused is what a simple count says."""
    rng = random.Random(seed)
    crowd = Crowd(far, 12)
    friends: set[int] = set()
    #: (name, sender) of what waits, oldest first.
    waiting: list[tuple[str, int]] = []
    stored = 0
    bob: Device | None = None
    for step in range(150):
        what = rng.random()
        if what < 0.75:
            person = min(rng.randrange(14), 11)
            counts = Counter(sender for _, sender in waiting)
            strangers = sum(count for sender, count in counts.items() if sender not in friends)
            expected = "stored" if bob is None else "delivered"
            if len(waiting) >= MAX:
                expected = "mailbox"
            elif counts[person] >= 2:
                expected = "sender"
            elif person not in friends and strangers >= 10:
                expected = "strangers"
            name = f"{seed}-{step}"
            assert crowd.write(person, name) == expected
            if expected in ("stored", "delivered"):
                stored += 1
                waiting.append((name, person))
        elif what < 0.85 and bob is not None and waiting:
            name, sender = waiting.pop(rng.randrange(len(waiting)))
            bob.say("MSG_ACK", message_id=name, **{"from": crowd.people[sender].user_id})
        elif what < 0.9:
            if bob is None:
                bob = crowd.world.device(crowd.bob).hello("Bob Ray")
                bob.say("MSG_ACK", message_id="none")
            else:
                bob.leave()
                bob = None
        elif what < 0.93 and bob is not None:
            person = rng.randrange(12)
            friends.add(person)
            bob.msg(crowd.people[person].user_id, "Hello.")
            crowd.people[person].take()
        elif what < 0.96 and waiting:
            store = crowd.world.store_of(crowd.bob)
            oldest = waiting.pop(0)[0]
            through = next(row.seq for row in store.records[crowd.bob].rows if row.message_id == oldest)
            crowd.world.shard_of(crowd.bob).users.purged(store.purge(crowd.bob, through), crowd.world.now)
        elif what < 0.98:
            crowd.world.pass_time(1)
            crowd.restart()
            bob = None
    assert stored > 10


def test_a_long_line_of_acknowledged_messages_is_forgotten() -> None:
    """What is kept grows with what waits, not with what has ever gone by."""
    chat = Chat("ann", "Ann Lee")
    shares = Shares(0)
    shares.complete = True
    for seq in range(1, 100_001):
        shares.enter(chat)
        shares.committed(chat)
        if seq > 10:
            shares.acknowledged_through(seq - 10)
    assert shares.of(chat) == shares.of_strangers == 10
    assert len(shares._senders) < 5000
