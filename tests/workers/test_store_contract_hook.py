"""core.chat.store.Store, continued: what the hook is told (D33)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from core.chat.chat import HookCall
from core.chat.store import nobody_waits
from core.chat.user import User
from tests.workers.store_driver import StoreDriver
from workers.store import statements
from workers.store.new_file import create


def save(driver: StoreDriver, user: User, **calls: HookCall) -> None:
    """Save these calls, and that there are no others."""
    known = {*(user.hook_calls or {}), *calls}
    user.hook_calls = calls or None
    for peer in sorted(known):
        driver.store.save_hook_call(user, peer, nobody_waits)


def fold(driver: StoreDriver) -> None:
    """What was called is found also by reads that are about all users."""
    driver.settle()
    if driver.store.stats()["store_unfolded_rows"]:
        driver.fold()


def untold(driver: StoreDriver) -> list[str]:
    """The users of all looks, one after the other."""
    found: list[str] = []
    after, some = driver.ask(driver.store.untold, 0)
    while after:
        found += some
        after, some = driver.ask(driver.store.untold, after)
    assert not some
    return found


def test_calls_come_back_change_and_go(driver: StoreDriver, bob: User) -> None:
    for calls in (
        {"alice": HookCall(1000, 2000), "carol": HookCall(1, None)},
        {"alice": HookCall(1000, None), "carol": HookCall(5, 7)},
        {"carol": HookCall(5, 8)},
        {},
    ):
        save(driver, bob, **calls)
        assert (driver.loaded("bob").hook_calls or {}) == calls
    assert driver.loaded("bob").saved


def test_what_is_called_at_once_is_saved_as_it_was_called_last(driver: StoreDriver, bob: User) -> None:
    save(driver, bob, alice=HookCall(1, 2))
    save(driver, bob)
    save(driver, bob, alice=HookCall(3, None))
    assert driver.loaded("bob").hook_calls == {"alice": HookCall(3, None)}


def test_those_that_are_due_come_first_due_first(driver: StoreDriver, bob: User) -> None:
    carol = driver.user("carol")
    save(driver, bob, alice=HookCall(1, 30), dave=HookCall(1, 10), erin=HookCall(1, None))
    save(driver, carol, alice=HookCall(1, 20), dave=HookCall(1, 41))
    fold(driver)
    due = driver.store.hook_calls_due
    assert driver.ask(due, 40, 10) == [("bob", "dave"), ("carol", "alice"), ("bob", "alice")]
    assert driver.ask(due, 40, 2) == [("bob", "dave"), ("carol", "alice")]
    assert driver.ask(due, 20, 10) == [("bob", "dave"), ("carol", "alice")]
    assert driver.ask(due, 9, 10) == []


def test_pending_calls_are_counted(driver: StoreDriver, bob: User) -> None:
    assert driver.ask(driver.store.hook_calls_pending) == (0, 0)
    save(driver, bob, alice=HookCall(50, 60), dave=HookCall(40, 90), erin=HookCall(10, None))
    fold(driver)
    assert driver.ask(driver.store.hook_calls_pending) == (2, 40)


def test_who_has_a_message_of_which_no_call_knows(driver: StoreDriver) -> None:
    """Not if it is acknowledged, withheld, in a muted chat, or in one of which a call knows, whether told or not."""
    names = ("waits", "acknowledged", "ahead", "withheld", "muted", "told", "two")
    users = {name: driver.user(name) for name in names}
    for name, user in users.items():
        driver.append(user, "alice", f"1-{name}", f"2-{name}", withheld=name == "withheld")
    driver.append(users["two"], "carol", "3")
    driver.settle()
    for name, positions in (("acknowledged", (1, 2)), ("ahead", (2,)), ("muted", (1,))):
        for position in positions:
            users[name].mailbox.acknowledge(position)
        driver.store.save_acknowledged(users[name], nobody_waits)
    users["muted"].chats["alice"].muted = True
    driver.store.save_chat(users["muted"], users["muted"].chats["alice"], nobody_waits)
    save(driver, users["told"], alice=HookCall(1, None))
    save(driver, users["two"], alice=HookCall(1, 2))
    fold(driver)
    assert sorted(untold(driver)) == ["ahead", "two", "waits"]


def test_one_look_does_not_go_through_all_users(driver: StoreDriver) -> None:
    for number in range(450):
        user = driver.user(f"user-{number}")
        driver.append(user, "alice", "1")
        if number % 100 == 0:
            driver.settle()
    fold(driver)
    after, some = driver.ask(driver.store.untold, 0)
    assert after
    assert 0 < len(some) < 450
    assert sorted(untold(driver)) == sorted(f"user-{number}" for number in range(450))


def test_the_index_finds_what_is_due(tmp_path: Path) -> None:
    """Not all rows are looked at, of which most may have been told."""
    path = tmp_path / "shard.sqlite3"
    create(path)
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statements.HOOK_CALLS_DUE}", (1, 1)).fetchall()
    assert any("hook_calls_by_due" in row[-1] for row in plan)
