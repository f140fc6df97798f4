"""core.chat.store.Store, continued: a user is deleted in steps (D36)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from core.chat.chat import Block, HookCall
from core.chat.store import Removed, nobody_waits
from core.chat.user import User
from tests.workers.store_driver import StoreDriver
from workers.store import deletion
from workers.store.database import Database


def purge_sent(driver: StoreDriver, sender: str) -> list[Removed]:
    """All steps."""
    steps: list[Removed] = []
    following: int | None = 0
    while following is not None:
        steps.append(driver.ask(driver.store.purge_sent, sender, following))
        following = steps[-1].following
    return steps


def purge_user(driver: StoreDriver, user_id: str) -> list[Removed]:
    """All steps."""
    steps: list[Removed] = [driver.ask(driver.store.purge_user, user_id)]
    while steps[-1].following is not None:
        steps.append(driver.ask(driver.store.purge_user, user_id))
    return steps


def forget(user: User, peer: str) -> None:
    """What the core does before the first step, for who is in memory."""
    user.chats.pop(peer, None)
    if user.blocks is not None:
        user.blocks.pop(peer, None)
        user.blocks = user.blocks or None


def acknowledged(steps: list[Removed]) -> dict[str, list[int]]:
    """Positions of all steps."""
    found: dict[str, list[int]] = {}
    for step in steps:
        for user_id, positions in step.acknowledged:
            found.setdefault(user_id, []).extend(positions)
    return {user_id: sorted(positions) for user_id, positions in found.items()}


class TestSent:
    """What a user has sent to others."""

    def test_it_leaves_acknowledged_holes(self, driver: StoreDriver, bob: User) -> None:
        for number in range(9):
            driver.append(bob, ("alice", "carol", "dave")[number % 3], f"{number}")
        driver.append(bob, "alice", "hidden", withheld=True)
        driver.settle()
        bob.mailbox.acknowledge_through(2)
        driver.store.save_acknowledged(bob, nobody_waits)
        bob.blocks = {"alice": Block(True, False, 0), "carol": Block(True, False, 0)}
        driver.store.save_block(bob, "alice", nobody_waits)
        driver.store.save_block(bob, "carol", nobody_waits)
        driver.settle()
        forget(bob, "alice")
        steps = purge_sent(driver, "alice")
        assert sum(step.messages for step in steps) == 4
        assert acknowledged(steps) == {"bob": [4, 7]}
        loaded = driver.loaded("bob")
        assert list(loaded.chats) == ["carol", "dave"]
        assert list(loaded.blocks or ()) == ["carol"]
        assert [message.seq for message in driver.read(loaded, 0)] == [2, 3, 5, 6, 8, 9]
        assert [seq for seq, _ in driver.senders(loaded, 0)] == [2, 3, 5, 6, 8, 9]
        assert (loaded.mailbox.head, loaded.mailbox.waiting) == (9, 5)
        assert [chat.unread for chat in loaded.chats.values()] == [3, 3]
        assert driver.history("bob", "alice") == driver.withheld("bob", "alice") == []
        assert driver.lasts("alice", "bob") == {}
        assert driver.find(loaded, None, "0") == driver.find(loaded, "alice", "hidden") == []
        driver.append(loaded, "carol", "more")
        driver.settle()
        assert driver.log[-1] == ("more", 10)

    def test_whatever_was_called_before_goes_too(self, driver: StoreDriver, bob: User) -> None:
        """It may be in the commit log only, or not even there."""
        driver.append(bob, "alice", "1", "2")
        driver.append(bob, "carol", "3")
        forget(bob, "alice")
        assert acknowledged(purge_sent(driver, "alice")) == {"bob": [1, 2]}
        driver.append(bob, "carol", "4")
        driver.fold()
        assert [message.message_id for message in driver.read(driver.loaded("bob"), 0)] == ["3", "4"]

    def test_the_hook_is_told_of_nothing_of_it_any_more(self, driver: StoreDriver, bob: User) -> None:
        carol = driver.user("carol")
        for user, peer in ((bob, "alice"), (bob, "carol"), (carol, "alice")):
            driver.append(user, peer, f"from {peer}")
            user.hook_calls = {**(user.hook_calls or {}), peer: HookCall(1, 1)}
            driver.store.save_hook_call(user, peer, nobody_waits)
        driver.settle()
        forget(bob, "alice")
        purge_sent(driver, "alice")
        purge_user(driver, "carol")
        assert driver.ask(driver.store.hook_calls_due, 2, 10) == [("bob", "carol")]

    def test_it_takes_steps_that_are_small(
        self, driver: StoreDriver, bob: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Messages, chats, and what has to be gone through; the numbers of the steps make no difference."""
        monkeypatch.setattr(deletion, "STEP_ROWS", 3)
        monkeypatch.setattr(deletion, "SCAN_ROWS", 4)
        monkeypatch.setattr(deletion, "CHATS_ROWS", 2)
        users = [driver.user(f"user{number}") for number in range(7)]
        for number, user in enumerate([bob, *users]):
            for sender in ("alice", "carol"):
                driver.append(user, sender, *(f"{sender}{each}" for each in range(number + 1)))
        driver.settle()
        for user in (bob, *users):
            forget(user, "alice")
        steps = purge_sent(driver, "alice")
        assert sum(step.messages for step in steps) == 36
        for number, user_id in enumerate(["bob", *(user.user_id for user in users)]):
            loaded = driver.loaded(user_id)
            assert list(loaded.chats) == ["carol"]
            assert (loaded.mailbox.waiting, loaded.chats["carol"].unread) == (number + 1, number + 1)
        assert sum(step.messages for step in purge_sent(driver, "alice")) == 0, "again, there is nothing"

    def test_nobody_else_waits_for_all_of_it(
        self, driver: StoreDriver, bob: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is called meanwhile is committed between two steps."""
        monkeypatch.setattr(deletion, "STEP_ROWS", 2)
        driver.append(bob, "alice", *(f"{number}" for number in range(8)))
        driver.settle()
        forget(bob, "alice")
        driver.log.clear()
        driver.store.purge_sent("alice", 0, lambda found, failure, now: driver.log.append("step"))
        driver.append(bob, "carol", "between")
        driver.store.purge_sent("alice", 0, lambda found, failure, now: driver.log.append("step"))
        driver.settle()
        assert driver.log == ["step", ("between", 9), "step"]


class TestOwn:
    """What the user has."""

    def test_everything_goes(self, driver: StoreDriver, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deletion, "STEP_ROWS", 3)
        driver.append(bob, "alice", *(f"{number}" for number in range(7)))
        driver.append(bob, "alice", "hidden", "hidden too", withheld=True)
        for number in range(4):
            driver.append(bob, f"peer{number}", "1")
        bob.blocks = {f"peer{number}": Block(True, False, 0) for number in range(4)}
        driver.settle()
        for seq in range(2, 9, 2):
            bob.mailbox.acknowledge(seq)
        driver.store.save_acknowledged(bob, nobody_waits)
        for peer in bob.blocks:
            driver.store.save_block(bob, peer, nobody_waits)
        driver.append(driver.user("carol"), "alice", "for carol")
        driver.settle()
        steps = purge_user(driver, "bob")
        assert (sum(step.messages for step in steps), sum(step.chats for step in steps)) == (11, 5)
        assert driver.load("bob") is None
        assert driver.history("bob", "alice") == driver.withheld("bob", "alice") == []
        assert len(driver.read(driver.loaded("carol"), 0)) == 1
        again = driver.user("bob")
        driver.append(again, "alice", "0")
        driver.settle()
        loaded = driver.loaded("bob")
        assert (loaded.mailbox.head, list(loaded.chats), loaded.blocks) == (1, ["alice"], None)

    def test_of_somebody_without_chats(self, driver: StoreDriver) -> None:
        driver.store.save_user(driver.user("carol"), nobody_waits)
        assert driver.ask(driver.store.note_deletion, "carol") is True
        purge_user(driver, "carol")
        assert driver.load("carol") is None

    def test_of_nobody(self, driver: StoreDriver) -> None:
        assert driver.ask(driver.store.note_deletion, "nobody") is False
        assert purge_user(driver, "nobody") == [Removed([], 0, 0, None)]
        assert purge_sent(driver, "nobody")[-1].following is None


def test_a_note_stays_until_the_end(tmp_path: Path) -> None:
    """Also when the process dies behind any of the steps; SQLite only, since the other store ends with its process."""
    first = StoreDriver("sqlite", tmp_path / "1.db")
    user = first.user("bob")
    first.append(user, "alice", "1", "2")
    assert first.ask(first.store.note_deletion, "bob") is True
    first.append(first.user("carol"), "alice", "3")
    first.settle()
    first.crash()
    second = StoreDriver("sqlite", tmp_path / "1.db")
    assert second.store.deletions == ["bob"]
    purge_user(second, "bob")
    second.close()
    third = StoreDriver("sqlite", tmp_path / "1.db")
    assert third.store.deletions == []
    assert third.load("bob") is None
    third.close()


def test_nothing_of_it_is_left_in_the_file(tmp_path: Path) -> None:
    """Rows that are deleted, or changed, are overwritten."""
    path = tmp_path / "1.db"
    driver = StoreDriver("sqlite", path)
    bob = driver.user("bob")
    for number in range(50):
        driver.append(bob, "alice", f"secret {number}", content=f"a secret that nobody is to find {number}")
        driver.append(bob, "carol", f"plain {number}", content="what everybody may find")
    driver.fold()
    forget(bob, "alice")
    purge_sent(driver, "alice")
    driver.settle()
    driver.close()
    content = path.read_bytes()
    assert b"everybody may find" in content
    assert b"a secret that nobody" not in content
    assert not path.with_name("1.db-wal").exists()


def test_a_step_that_fails_has_done_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = StoreDriver("sqlite", tmp_path / "1.db")
    bob = driver.user("bob")
    driver.append(bob, "alice", "1", "2")
    driver.settle()
    forget(bob, "alice")
    with monkeypatch.context() as patched:
        patched.setattr(deletion, "_BURY", "UPDATE no_such_table SET chat = ?")
        failures: list[str | None] = []
        driver.store.purge_sent("alice", 0, lambda found, failure, now: failures.append(failure))
        driver.settle()
    assert failures[0] is not None
    assert acknowledged(purge_sent(driver, "alice")) == {"bob": [1, 2]}
    driver.close()
    with closing(Database(tmp_path / "1.db", "os")) as database:
        assert database.value("SELECT count(*) FROM messages WHERE chat = 0") == 2
        assert database.value("SELECT count(*) FROM chats") == 0
