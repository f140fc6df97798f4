"""core.chat.presence: who sees whom online, when, and how much of it (D21, D22)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from core.wire.protocol import (
    CONFIRM_TIMEOUT,
    PRESENCE_EVERYONE_AGAIN,
    PRESENCE_EVERYONE_MAX,
    PRESENCE_GRACE,
)
from tests.core.pair import Pair
from tests.core.world import Device, World


def seen(device: Device) -> dict[str, str]:
    """user -> name of those in the last PRESENCE that came; all must be said to be online."""
    users = device.take("PRESENCE")[-1]["users"]
    assert all(user["online"] is True for user in users)
    names = {user["user_id"]: user["display_name"] for user in users}
    assert len(names) == len(users), "nobody is listed twice"
    return names


def crowd(world: World, size: int, worker: int = 0) -> list[Device]:
    """That many users with one device each."""
    return [world.device(world.user_on(worker)).hello() for _ in range(size)]


# -- Everyone --


def test_d21_presence_follows_hello_and_lists_who_is_online_oneself_included(pair: Pair) -> None:
    """At once, with the names of the last HELLO."""
    pair.online(pair.bob)
    ann = pair.world.device(pair.ann).hello("Ann Lee")
    assert ann.kinds() == ["HELLO_ACK", "PRESENCE"]
    assert seen(ann) == {pair.ann: "Ann Lee", pair.bob: "Bob Ray"}


def test_d21_whoever_is_there_is_told_who_comes_and_goes(pair: Pair) -> None:
    """Those who come within a second, those who go after the grace; online users only."""
    (ann,) = pair.online(pair.ann)
    pair.world.pass_time(2)
    bob = pair.world.device(pair.bob).hello("Bob Ray")
    pair.world.pass_time(0.2)
    assert seen(ann) == {pair.ann: "Ann Lee", pair.bob: "Bob Ray"}
    bob.leave()
    pair.world.pass_time(PRESENCE_GRACE - 0.3)
    assert not ann.inbox
    pair.world.pass_time(0.5)
    assert seen(ann) == {pair.ann: "Ann Lee"}


def test_d21_a_reconnect_within_the_grace_is_seen_by_nobody(pair: Pair) -> None:
    """Again and again: a bad network makes nobody flicker."""
    ann, bob = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2)
    ann.take()
    for _ in range(4):
        bob.leave()
        pair.world.pass_time(PRESENCE_GRACE - 0.3)
        bob = pair.world.device(pair.bob).hello("Bob Ray")
        pair.world.pass_time(0.5)
    assert not ann.inbox
    bob.leave()
    pair.world.pass_time(PRESENCE_GRACE + 0.2)
    assert seen(ann) == {pair.ann: "Ann Lee"}


def test_d21_the_last_device_decides(pair: Pair) -> None:
    """A user is online as long as one device is."""
    ann, bob, bob_too = pair.online(pair.ann, pair.bob, pair.bob)
    pair.world.pass_time(2)
    ann.take()
    bob.leave()
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert not ann.inbox
    bob_too.leave()
    pair.world.pass_time(PRESENCE_GRACE + 0.2)
    assert seen(ann) == {pair.ann: "Ann Lee"}


def test_d21_a_connection_that_never_said_hello_is_nobody(pair: Pair) -> None:
    (ann,) = pair.online(pair.ann)
    device = pair.world.device(pair.bob)
    pair.world.pass_time(2)
    device.leave()
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert not ann.inbox


def test_d21_changes_are_coalesced_to_one_presence_a_second(pair: Pair) -> None:
    """However many come and go; the last state is always told."""
    (ann,) = pair.online(pair.ann)
    told = []
    for number in range(60):
        if number < 45:
            crowd(pair.world, 1, number % 2)
        pair.world.pass_time(0.1)
        told += [(pair.world.now, len(presence["users"])) for presence in ann.take("PRESENCE")]
    times = [time for time, _ in told]
    assert all(later - earlier >= 0.999 for earlier, later in pairwise(times))
    assert 4 <= len(told) <= 6
    assert told[-1][1] == 46


def test_d21_a_rename_is_a_change(pair: Pair) -> None:
    ann, bob = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2)
    ann.take()
    bob.hello("Robert")
    pair.world.pass_time(0.2)
    assert seen(ann) == {pair.ann: "Ann Lee", pair.bob: "Robert"}


def test_nobody_is_told_what_has_not_changed(pair: Pair) -> None:
    """A quiet server is quiet."""
    ann, _ = pair.chatting()
    pair.world.pass_time(2)
    ann.take()
    pair.world.pass_time(120, step=0.5)
    assert not ann.inbox


# -- Contacts, and the switch between the two --


def contacts(far: bool) -> tuple[Pair, list[Device]]:
    """Ann, Bob and Cat where each sees contacts only, and Ann has a chat with Bob; some time has passed."""
    pair = Pair(far, presence="contacts")
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    pair.world.pass_time(2)
    return pair, [ann, bob, cat]


def test_d21_contacts_sees_the_people_it_has_a_chat_with(far: bool) -> None:
    """And oneself; nobody else, and nobody else's coming and going."""
    pair, (ann, bob, cat) = contacts(far)
    assert seen(ann) == seen(bob) == {pair.ann: "Ann Lee", pair.bob: "Bob Ray"}
    assert not cat.inbox
    cat.leave()
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert not ann.inbox
    bob.leave()
    pair.world.pass_time(PRESENCE_GRACE + 0.2)
    assert seen(ann) == {pair.ann: "Ann Lee"}
    bob = pair.world.device(pair.bob).hello("Robert")
    pair.world.pass_time(1.1)
    assert seen(ann) == seen(bob) == {pair.ann: "Ann Lee", pair.bob: "Robert"}


def test_d21_contacts_sees_a_new_contact_at_once(far: bool) -> None:
    """On both sides, when the chat is opened, though nobody came or went."""
    pair, (ann, _, cat) = contacts(far)
    ann.take()
    cat.open_chat(pair.ann)
    pair.world.pass_time(1.1)
    assert set(seen(ann)) == {pair.ann, pair.bob, pair.cat}
    assert set(seen(cat)) == {pair.ann, pair.cat}


def test_d21_contacts_costs_as_much_as_there_are_chats(far: bool) -> None:
    """A hundred strangers come, and nobody is told."""
    pair, devices = contacts(far)
    for device in devices:
        device.take()
    crowd(pair.world, 100)
    pair.world.pass_time(3)
    assert not any(device.inbox for device in devices)


def test_d21_contacts_survives_a_chat_that_the_store_could_not_take(far: bool) -> None:
    """The chat was withdrawn, so its people are no contacts, then or later."""
    pair = Pair(far, presence="contacts")
    ann, bob = pair.online(pair.ann, pair.bob)
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.failure = "disk full"
    ann.open_chat(pair.bob)
    store.failure = None
    pair.world.pass_time(2)
    bob.take()
    ann.hello("Ann Smith")
    pair.world.pass_time(2)
    assert not bob.inbox
    bob.leave()
    pair.world.pass_time(PRESENCE_GRACE + 1)
    ann.take()
    ann.hello("Ann Third")
    pair.world.pass_time(2)
    assert seen(ann) == {pair.ann: "Ann Third"}


def test_d21_auto_switches_at_200_and_back_below_160(far: bool) -> None:
    """Above, each sees contacts only; in between, whatever it was; below, everybody again."""
    pair = Pair(far, presence="auto")
    ann, bob = pair.chatting()
    others = crowd(pair.world, PRESENCE_EVERYONE_MAX - 2, 1)
    pair.world.pass_time(1.1)
    assert len(seen(ann)) == PRESENCE_EVERYONE_MAX
    others += crowd(pair.world, 1, 1)
    pair.world.pass_time(2)
    assert set(seen(ann)) == set(seen(bob)) == {pair.ann, pair.bob}
    leaving = len(others) + 2 - PRESENCE_EVERYONE_AGAIN
    for other in others[:leaving]:
        other.leave()
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert not ann.take("PRESENCE"), "160 are not below 160"
    others[leaving].leave()
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert len(seen(ann)) == len(seen(bob)) == PRESENCE_EVERYONE_AGAIN - 1


@pytest.mark.parametrize(("mode", "expected"), [("everyone", 231), ("contacts", 1)])
def test_d21_the_mode_can_be_forced(mode: str, expected: int) -> None:
    """Whatever the number of users."""
    world = World(2, presence=mode)
    crowd(world, 230)
    world.pass_time(0.2)
    device = world.device(world.user_on(1)).hello()
    assert len(seen(device)) == expected


# -- Deltas --


def entries(device: Device) -> list[tuple[str, bool]]:
    """(user, online) in the only PRESENCE that has come, which must be a delta."""
    presence = device.one("PRESENCE")
    assert presence["delta"] is True
    return [(user["user_id"], user["online"]) for user in presence["users"]]


@pytest.mark.parametrize("mode", ["everyone", "contacts"])
def test_d22_presence_delta_carries_only_what_changed(far: bool, mode: str) -> None:
    """After the first, which is the whole list; a leave is an entry with `online` false and the name."""
    pair = Pair(far, presence=mode)
    ann, bob = pair.chatting()
    ann.leave()
    ann = pair.world.device(pair.ann).hello("Ann Lee", capabilities=["presence_delta"])
    assert "delta" not in ann.inbox[1]["data"]
    assert set(seen(ann)) == {pair.ann, pair.bob}
    bob.leave()
    pair.world.pass_time(PRESENCE_GRACE + 0.2)
    assert ann.one("HELLO_ACK")
    assert ann.one("PRESENCE") == {
        "users": [{"user_id": pair.bob, "display_name": "Bob Ray", "online": False}],
        "delta": True,
        "scope": mode,
    }
    pair.world.pass_time(2)
    bob = pair.world.device(pair.bob).hello("Robert")
    pair.world.pass_time(0.2)
    assert entries(ann) == [(pair.bob, True)]
    pair.world.pass_time(2)
    assert not ann.inbox


def test_d22_without_the_capability_the_list_is_always_full(pair: Pair) -> None:
    """For a client that uses no capability: no `delta` field, everybody who is online."""
    ann, _ = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2)
    ann.take()
    pair.online(pair.cat)
    pair.world.pass_time(0.2)
    presence = ann.one("PRESENCE")
    assert set(presence) == {"users"}
    assert len(presence["users"]) == 3


def test_d22_deltas_are_coalesced_to_the_last_state(pair: Pair) -> None:
    """Came, went and came back within a second is one entry."""
    ann = pair.world.device(pair.ann).hello(capabilities=["presence_delta"])
    pair.world.pass_time(0.1)
    ann.take()
    pair.world.device(pair.bob).hello("Bob Ray")
    pair.world.device(pair.bob).hello("Robert")
    pair.world.device(pair.cat).hello("Cat Poe")
    pair.world.pass_time(1.1)
    presence = ann.one("PRESENCE")
    assert {user["user_id"]: user["display_name"] for user in presence["users"]} == {
        pair.bob: "Robert",
        pair.cat: "Cat Poe",
    }


def test_d22_what_was_told_is_not_told_again(pair: Pair) -> None:
    """Each delta starts where the one before ended."""
    ann = pair.world.device(pair.ann).hello(capabilities=["presence_delta"])
    pair.world.pass_time(2)
    ann.take()
    for user in (pair.bob, pair.cat):
        pair.world.device(user).hello()
        pair.world.pass_time(2)
        assert entries(ann) == [(user, True)]


def test_d22_a_refused_hello_loses_no_delta(far: bool) -> None:
    """What is still to be told is told, although the client said HELLO once too often meanwhile."""
    pair = Pair(far, hellos_per_minute=1)
    ann = pair.world.device(pair.ann).hello(capabilities=["presence_delta"])
    pair.world.pass_time(0.1)
    pair.online(pair.bob)
    pair.world.pass_time(0.2)
    ann.take()
    ann.hello(capabilities=["presence_delta"])
    assert ann.errors() == ["RATE_LIMITED"]
    pair.world.pass_time(1.1)
    assert entries(ann) == [(pair.bob, True)]


def test_d22_a_new_hello_starts_again_with_the_whole_list(pair: Pair) -> None:
    """It is how a client that lost track finds back."""
    ann = pair.world.device(pair.ann).hello(capabilities=["presence_delta"])
    pair.online(pair.bob)
    pair.world.pass_time(2)
    ann.take()
    ann.hello(capabilities=["presence_delta"])
    pair.world.pass_time(1.1)
    assert set(seen(ann)) == {pair.ann, pair.bob}


# -- Other workers --


def test_d22_a_killed_worker_leaves_no_ghosts() -> None:
    """Its users are gone after the grace, whether a new process comes or not."""
    pair = Pair(True)
    ann, _, _ = pair.online(pair.ann, pair.bob, pair.cat)
    pair.world.pass_time(2)
    ann.take()
    pair.world.kill(1)
    pair.world.pass_time(PRESENCE_GRACE - 0.3)
    assert not ann.inbox, "they may come back"
    pair.world.pass_time(0.5)
    assert seen(ann) == {pair.ann: "Ann Lee"}
    pair.world.boot(1)
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert not ann.inbox


def test_d22_whoever_comes_back_to_the_new_process_was_never_away() -> None:
    """And whoever does not is gone; the new process knows who is online elsewhere."""
    pair = Pair(True)
    ann, _, _ = pair.online(pair.ann, pair.bob, pair.cat)
    pair.world.pass_time(2)
    ann.take()
    pair.world.restart(1)
    bob = pair.world.device(pair.bob).hello("Bob Ray")
    assert set(seen(bob)) == {pair.ann, pair.bob}
    pair.world.pass_time(PRESENCE_GRACE - 0.3)
    assert not ann.inbox
    pair.world.pass_time(0.5)
    assert seen(ann) == {pair.ann: "Ann Lee", pair.bob: "Bob Ray"}


@pytest.mark.replaces
def test_d22_ghosts_go_even_if_nobody_says_that_the_worker_died() -> None:
    """The new process's first words are enough, once nothing can come from the old one any more: it lists who is there."""
    pair = Pair(True)
    ann, _ = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2)
    ann.take()
    survivors = pair.world.shards[0]
    survivors.worker_gone = lambda worker, generation, now: None  # type: ignore[method-assign]
    pair.world.restart(1)
    pair.world.pass_time(CONFIRM_TIMEOUT + PRESENCE_GRACE + 0.4)
    assert seen(ann) == {pair.ann: "Ann Lee"}


def test_d22_news_of_a_death_that_comes_late_does_not_hurt_the_living() -> None:
    """The supervisor's word about the old process must not take the users of the new one away."""
    pair = Pair(True)
    ann, _ = pair.online(pair.ann, pair.bob)
    dead = pair.world.shards[1].generation
    pair.world.restart(1)
    pair.world.device(pair.bob).hello("Bob Ray")
    pair.world.shards[0].worker_gone(1, dead, pair.world.now)
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert set(seen(ann)) == {pair.ann, pair.bob}


def test_d21_the_grace_after_a_kill_is_not_cut_short_by_a_second_snapshot() -> None:
    """A new process that repeats itself, since the way was full before, must not make its users flicker."""
    pair = Pair(True)
    ann, _ = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2)
    ann.take()
    pair.world.restart(1)
    pair.world.shards[1].presence.send_snapshot(0)
    pair.world.pass_time(PRESENCE_GRACE - 0.5)
    pair.world.device(pair.bob).hello("Bob Ray")
    pair.world.pass_time(2)
    assert not ann.inbox


def test_d22_presence_heals_when_the_way_was_full() -> None:
    """A join and a leave that the bus refused are told as soon as it takes something again."""
    pair = Pair(True)
    ann, bob = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2)
    ann.take()
    bob.leave()
    pair.world.refusing.add(0)
    pair.online(pair.cat)
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert not ann.inbox
    pair.world.refusing.clear()
    pair.world.pass_time(0.3)
    assert seen(ann) == {pair.ann: "Ann Lee", pair.cat: "Cat Poe"}


def test_d22_presence_heals_when_records_were_lost() -> None:
    """A gap in the versions makes the other side ask for everything."""
    pair = Pair(True)
    (ann,) = pair.online(pair.ann)
    pair.world.cut_off.add(0)
    pair.online(pair.bob)
    pair.world.cut_off.clear()
    pair.online(pair.cat)
    pair.world.pass_time(1.1)
    assert set(seen(ann)) == {pair.ann, pair.bob, pair.cat}


def test_d22_presence_heals_when_a_new_process_could_not_ask() -> None:
    """Everything that it said at its start was refused; nobody comes or goes, yet it learns who is online."""
    pair = Pair(True)
    pair.online(pair.ann)
    pair.world.kill(1)
    pair.world.refusing.add(0)
    pair.world.boot(1)
    pair.world.pass_time(1)
    pair.world.refusing.clear()
    pair.world.pass_time(1)
    assert set(seen(pair.world.device(pair.bob).hello())) == {pair.ann, pair.bob}
