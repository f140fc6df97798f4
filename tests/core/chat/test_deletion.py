"""core.chat.deletion: after a user is deleted nobody is shown anything of the user, and nobody else has lost anything (D36)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat.deletion import DELETED_REASON, PATIENCE
from core.chat.operator import DELETE
from core.wire.protocol import PRESENCE_GRACE
from tests.core.chat.test_chat_lists import changes, listed
from tests.core.pair import Pair
from tests.core.world import Device, World

_ALL = ("chats", "block", "receipts", "history", "carbons", "resume")
#: Seconds in which a deletion ends that nothing holds up.
_ENOUGH = 3.0


def delete(world: World, user: str) -> list[dict[str, Any]]:
    """Ask the owner of a user to delete it; the answers, as they come."""
    told: list[dict[str, Any]] = []
    shard = world.shard_of(user)
    shard.operator.answer(DELETE, {"user": user}, told.append, world.now)
    world.settle()
    return told


def deleted(world: World, user: str) -> dict[str, Any]:
    """Delete a user to the end; what the operator is told."""
    told = delete(world, user)
    world.pass_time(_ENOUGH)
    (facts,) = told
    assert facts["state"] == "deleted"
    return facts


def history(device: Device, peer: str) -> list[str]:
    """The texts of a page, newest first; none if there is no chat."""
    device.take("HISTORY")
    device.say("HISTORY", **{"with": peer})
    if device.errors():
        return []
    return [message["content"] for message in device.one("HISTORY")["messages"]]


def assert_nothing_of(world: World, user: str) -> None:
    """No store and no memory has anything of the user."""
    for store in world.stores:
        assert user not in store.records
        for record in store.records.values():
            assert user not in record.chats
            assert user not in record.blocks
            assert all(row.sender != user for row in (*record.rows, *record.withheld))
    for shard in world.shards:
        assert user not in shard.users.deleted
        assert user not in shard.users
        assert shard.presence.name_of(user) is None
        assert not len(shard.deletions)
        for known in shard.users.known.values():
            assert user not in known.chats
            assert not known.is_apart(user)


def test_d36_all_devices_are_closed_and_everything_is_gone(pair: Pair) -> None:
    ann, bob = pair.chatting(*_ALL)
    second = pair.come(pair.ann, *_ALL)
    ann.msg(pair.bob, "from Ann", "1")
    bob.msg(pair.ann, "to Ann", "2")
    bob.take()
    facts = deleted(pair.world, pair.ann)
    assert facts == {
        "user": pair.ann,
        "state": "deleted",
        "received": 1,
        "sent": 1,
        "chats": 1,
        "closed": 2,
    }
    assert ann.closed == second.closed == (4004, DELETED_REASON)
    change = changes(bob)[-1]
    assert (change["user_id"], change["hidden"], change["last"]) == (pair.ann, True, None)
    assert listed(bob) == []
    assert history(bob, pair.ann) == []
    bob.take()
    bob.msg(pair.ann, "are you there?", "3")
    assert bob.errors() == ["USER_NOT_FOUND"]
    assert_nothing_of(pair.world, pair.ann)
    assert pair.world.shard_of(pair.ann).stats()["deletions_total"] == 1


def test_d36_positions_stay_and_other_chats_are_as_they_were(pair: Pair) -> None:
    """Also for a device that has not read what the deleted user has sent, and for one that resumes."""
    ann, bob = pair.chatting(*_ALL)
    cat = pair.come(pair.cat, *_ALL)
    cat.open_chat(pair.bob)
    start = bob.session.greeted.mailbox.cursor(0)
    bob.leave()
    for number in range(10):
        (cat if number % 3 == 0 else ann).msg(pair.bob, f"{number}", f"m{number}")
    bob = pair.world.device(pair.bob)
    bob.waiting = 10**6  # the device does not keep up
    bob.hello("Bob Ray", capabilities=list(_ALL))
    assert bob.take("MSG") == []
    deleted(pair.world, pair.ann)
    bob.drain()
    later = pair.come(pair.bob, *_ALL, resume={"cursor": start})
    for device in (bob, later):
        messages = device.take("MSG")
        assert [(message["seq"], message["content"]) for message in messages] == [
            (number + 1, f"{number}") for number in (0, 3, 6, 9)
        ]
        device.take()
    (chat,) = listed(later)
    assert (chat["user_id"], chat["unread"]) == (pair.cat, 4)
    for number in (0, 3, 6, 9):
        later.say("MSG_ACK", message_id=f"m{number}")
    mailbox = later.session.greeted.mailbox
    assert (mailbox.waiting, mailbox.acknowledged_through) == (0, 10)
    cat.msg(pair.bob, "one more", "m10")
    (message,) = later.take("MSG")
    assert message["seq"] == 11


def test_d36_the_same_id_begins_anew(pair: Pair) -> None:
    """With no chat, no name of before, another mailbox, and as somebody to whom nobody has a chat."""
    ann, bob = pair.chatting(*_ALL)
    bob.msg(pair.ann, "to the old one", "1")
    bob.say("BLOCK", user_id=pair.ann)
    pair.world.pass_time(2)
    epoch = ann.session.greeted.mailbox.epoch
    deleted(pair.world, pair.ann)
    new = pair.world.device(pair.ann).hello("Another", capabilities=list(_ALL))
    assert new.session.greeted.mailbox.epoch != epoch
    assert listed(new) == []
    assert new.take("MSG") == []
    bob.take()
    bob.msg(pair.ann, "hello", "2")
    assert bob.errors() == ["CHAT_NOT_OPENED"]
    assert not bob.session.greeted.is_apart(pair.ann), "who was blocked has been deleted"
    new.open_chat(pair.bob)
    new.msg(pair.bob, "from the new one", "1")
    assert bob.contents() == ["from the new one"]
    pair.world.pass_time(3)
    assert history(bob, pair.ann) == ["from the new one"]


def test_d36_who_is_blocked_without_a_chat_disappears_too(pair: Pair) -> None:
    pair.come(pair.ann)
    bob = pair.come(pair.bob, *_ALL)
    bob.say("BLOCK", user_id=pair.ann)
    pair.world.pass_time(2)
    assert [chat["user_id"] for chat in listed(bob)] == [pair.ann]
    deleted(pair.world, pair.ann)
    change = changes(bob)[-1]
    assert (change["user_id"], change["blocked"], change["hidden"]) == (pair.ann, False, True)
    assert listed(bob) == []
    assert_nothing_of(pair.world, pair.ann)


def test_d36_a_hello_meanwhile_is_closed_and_may_come_again(pair: Pair) -> None:
    """Also one that waited for the store when the deletion began."""
    pair.chatting()
    owner = pair.world.store_of(pair.ann)
    owner.slow = True
    told = delete(pair.world, pair.ann)
    waiting = pair.world.device(pair.ann).hello("Another name")
    owner.slow = False
    pair.world.settle()
    early = pair.world.device(pair.ann).hello()
    assert waiting.closed is not None
    assert waiting.closed[0] == 1013
    assert early.closed == (1013, "this user is being deleted")
    pair.world.pass_time(_ENOUGH)
    assert [facts["state"] for facts in told] == ["deleted"]
    assert pair.world.device(pair.ann).hello().open


def test_d36_who_is_unknown_is_nobody_to_be_deleted(pair: Pair) -> None:
    assert delete(pair.world, pair.ann) == [{"user": pair.ann, "state": "unknown"}]
    assert pair.come(pair.ann).open


def test_d36_a_note_that_can_not_be_stored_changes_nothing(pair: Pair) -> None:
    ann, bob = pair.chatting()
    store = pair.world.store_of(pair.ann)
    store.failure = "the disk is full"
    (told,) = delete(pair.world, pair.ann)
    assert "the disk is full" in told["problem"]
    store.failure = None
    ann.msg(pair.bob, "still here", "1")
    assert bob.contents() == ["still here"]


def test_d36_steps_that_fail_are_tried_again(pair: Pair) -> None:
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "one", "1")
    told = delete(pair.world, pair.ann)
    for store in pair.world.stores:
        store.failure = "the disk is full"
    pair.world.pass_time(2)
    assert told == []
    for store in pair.world.stores:
        store.failure = None
    pair.world.pass_time(_ENOUGH)
    assert told[-1]["state"] in ("deleted", "deleting")
    assert_nothing_of(pair.world, pair.ann)


def test_d36_an_operator_is_told_that_it_goes_on_and_may_ask_again() -> None:
    """Another worker does not answer, and is not written off."""
    pair = Pair(True)
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "one", "1")
    pair.world.stalled.add(1)
    first = delete(pair.world, pair.ann)
    pair.world.pass_time(PATIENCE + 1)
    assert first == [{"user": pair.ann, "state": "deleting"}]
    second = delete(pair.world, pair.ann)
    pair.world.stalled.clear()
    pair.world.pass_time(2)
    assert len(first) == 1
    assert second[0]["state"] == "deleted"
    assert second[0]["sent"] == 1


def test_d36_a_full_queue_loses_neither_what_is_asked_nor_the_answer() -> None:
    pair = Pair(True)
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "one", "1")
    for refusing in (1, 0):
        pair.world.refusing.add(refusing)
        delete(pair.world, pair.ann)
        pair.world.pass_time(1)
        pair.world.refusing.clear()
    pair.world.pass_time(_ENOUGH)
    assert_nothing_of(pair.world, pair.ann)


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("steps", range(8))
def test_d36_whoever_dies_meanwhile_it_goes_on(victim: int, steps: int) -> None:
    """After any number of steps; the owner is worker 0."""
    pair = Pair(True)
    ann, bob = pair.chatting(*_ALL)
    for number in range(3):
        ann.msg(pair.bob, f"{number}", f"{number}")
        bob.msg(pair.ann, f"to {number}", f"{number}")
    world = pair.world
    shard = world.shard_of(pair.ann)
    shard.operator.answer(DELETE, {"user": pair.ann}, lambda _: None, world.now)
    for store in world.stores:
        store.slow = True
    world.settle()
    world.stores[0].commit_one(world.now)  # the note
    for _ in range(steps):
        world.pass_time(0.1)
        for store in world.stores:
            store.commit_one(world.now)
    for store in world.stores:
        store.slow = False
    world.restart(victim)
    world.pass_time(PRESENCE_GRACE + _ENOUGH)
    assert_nothing_of(world, pair.ann)
    new = world.device(pair.ann).hello("Another", capabilities=list(_ALL))
    assert listed(new) == []
    back = pair.come(pair.bob, *_ALL)
    assert listed(back) == []
    assert back.contents() == []


@pytest.mark.parametrize("workers", [1, 3])
def test_d36_it_goes_on_after_a_resize(workers: int) -> None:
    pair = Pair(True)
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "one", "1")
    pair.world.stalled.add(1)
    delete(pair.world, pair.ann)
    pair.world.pass_time(1)
    pair.world.in_transit.clear()
    pair.world.stalled.clear()
    pair.world.resize(workers)
    pair.world.pass_time(_ENOUGH)
    assert_nothing_of(pair.world, pair.ann)


def test_d36_devices_that_a_predecessor_hands_on_are_closed(pair: Pair) -> None:
    """It has noted the deletion, and has not been told yet that the note is durable."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "one", "1")
    pair.world.pass_time(2)
    taken = pair.world.export(0)
    pair.world.stores[0].records[pair.ann].deleting = True
    pair.world.replace(0)
    pair.world.resume(0, taken)
    pair.world.pass_time(_ENOUGH)
    assert ann.closed == (4004, DELETED_REASON)
    assert bob.open
    assert_nothing_of(pair.world, pair.ann)


def test_d36_two_who_have_written_to_each_other_are_deleted_at_once(pair: Pair) -> None:
    ann, bob = pair.chatting()
    cat = pair.come(pair.cat, *_ALL)
    for device, peer in ((ann, pair.bob), (bob, pair.ann), (cat, pair.bob)):
        device.open_chat(peer)
        for number in range(3):
            device.msg(peer, f"{number}", f"{number}")
    told = [*map(partial(delete, pair.world), (pair.ann, pair.bob))]
    pair.world.pass_time(_ENOUGH)
    assert [[facts["state"] for facts in each] for each in told] == [["deleted"], ["deleted"]]
    for user in (pair.ann, pair.bob):
        assert_nothing_of(pair.world, user)
    assert listed(cat) == []


def test_d36_it_goes_on_with_a_successor(pair: Pair) -> None:
    """Of the owner, and of a worker that has not begun."""
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "one", "1")
    delete(pair.world, pair.ann)
    pair.world.succeed(0)
    pair.world.succeed(1)
    pair.world.pass_time(_ENOUGH)
    assert_nothing_of(pair.world, pair.ann)


def test_d36_what_comes_late_from_the_deleted_is_not_kept(pair: Pair) -> None:
    """A message and an OPEN_CHAT for somebody who has to be loaded, behind which the deletion begins."""
    ann, bob = pair.chatting()
    bob.leave()
    pair.world.pass_time(400)
    assert pair.bob not in pair.world.shard_of(pair.bob).users
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    ann.msg(pair.bob, "late", "1", settle=False)
    pair.world.settle()
    told = delete(pair.world, pair.ann)
    pair.world.pass_time(2)
    store.slow_reads = False
    pair.world.pass_time(8)
    assert [facts["state"] for facts in told][-1] in ("deleted", "deleting")
    assert_nothing_of(pair.world, pair.ann)
    assert pair.come(pair.bob).contents() == []


def test_d36_typing_presence_and_what_is_told_of_chats_end(pair: Pair) -> None:
    ann, bob = pair.chatting("chats", "presence_delta")
    ann.typing(to=pair.bob)
    pair.world.pass_time(2)
    bob.take()
    deleted(pair.world, pair.ann)
    assert bob.typists() == [(pair.ann, False)]
    gone = [user for each in bob.take("PRESENCE") for user in each["users"]]
    assert [(user["user_id"], user["online"]) for user in gone] == [(pair.ann, False)]
    bob.say("PRESENCE", user_ids=[pair.ann])
    assert bob.one("PRESENCE")["users"] == []


#: What three users may do: who, and what to whom.
_ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            ["open", "msg", "msg", "msg", "ack", "read", "hide", "mute", "block", "leave", "come", "pass"]
        ),
        st.integers(0, 2),
    ),
    max_size=20,
)


@given(before=_ACTIONS, meanwhile=_ACTIONS, far=st.booleans())
def test_d36_whatever_happened_before_and_meanwhile(
    before: list[tuple[int, str, int]], meanwhile: list[tuple[int, str, int]], far: bool
) -> None:
    """Nothing is left of the user, and what the two others have of each other is what a world without a deletion has."""
    pair = Pair(far)
    users = [pair.ann, pair.bob, pair.cat]
    talk = _Talk(pair, users)
    talk.act(before)
    left = talk.between(pair.bob, pair.cat)
    told = delete(pair.world, pair.ann)
    # A block of an id that is gone is one of whoever comes under that id.
    talk.act([each for each in meanwhile if each[0] != 0 and each[1] != "block" and each[2] == 0])
    pair.world.pass_time(8, step=0.5)
    if told[0]["state"] == "unknown":
        return
    assert_nothing_of(pair.world, pair.ann)
    assert talk.between(pair.bob, pair.cat) == left
    for user in users[1:]:
        device = pair.come(user, *_ALL)
        assert all(chat["user_id"] != pair.ann or chat["blocked"] for chat in listed(device))
        assert history(device, pair.ann) == []
        device.leave()
    for index in (0, 1):
        pair.world.restart(index)
    assert talk.between(pair.bob, pair.cat) == left


class _Talk:
    """Users who do what they are told to, as far as they can."""

    def __init__(self, pair: Pair, users: list[str]) -> None:
        self._pair = pair
        self._users = users
        self._devices: dict[str, Device] = {user: pair.come(user, *_ALL) for user in users}
        self._sent = 0

    def act(self, actions: list[tuple[int, str, int]]) -> None:
        for who, what, whom in actions:
            user, peer = self._users[who], self._users[whom]
            device = self._devices[user]
            if what == "come" and not device.open:
                self._devices[user] = self._pair.come(user, *_ALL)
            elif what == "pass":
                self._pair.world.pass_time(1, step=0.5)
            elif device.open and user != peer:
                self._do(device, what, peer)

    def _do(self, device: Device, what: str, peer: str) -> None:
        if what == "open":
            device.open_chat(peer)
        elif what == "msg":
            self._sent += 1
            device.msg(peer, f"{self._sent}", f"m{self._sent}")
        elif what in ("ack", "read"):
            for message in device.take("MSG")[-1:]:
                read = {"from": message["from"], "message_id": message["message_id"]}
                device.say("MSG_ACK" if what == "ack" else "READ", **read)
        elif what == "leave":
            device.leave()
        elif what in ("hide", "mute", "block"):
            device.say(what.upper(), user_id=peer)

    def between(self, user: str, peer: str) -> list[Any]:
        """What both have of each other: position, texts, how far they have read, and what is unread."""
        self._pair.world.pass_time(2, step=0.5)
        found: list[Any] = []
        for mine, theirs in ((user, peer), (peer, user)):
            record = self._pair.world.store_of(mine).records.get(mine)
            if record is None:
                continue
            rows = [(row.seq, row.message_id) for row in record.rows if row.sender == theirs]
            chat = record.chats.get(theirs)
            device = self._pair.come(mine, *_ALL)
            chats = [
                (chat["user_id"], chat["unread"], chat["read"], chat["last"])
                for chat in listed(device)
                if chat["user_id"] == theirs
            ]
            found.append([rows, chats, history(device, theirs), chat and chat.read_through])
            device.leave()
        return found
