"""workers.store.tracking: what a store says about changes. What is done with it, test_live_reshard.py tests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.chat.chat import Block
from core.chat.store import nobody_waits
from tests.workers.live_writers import store_of
from tests.workers.store_driver import DAY, StoreDriver
from tests.workers.store_files import shards
from workers.store.jobs import Visit
from workers.store.prepare import prepare
from workers.store.storage import Storage


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[StoreDriver]:
    """A store that notes changes, and has noted none."""
    prepare(tmp_path, 1)
    driver = StoreDriver("sqlite", shards(tmp_path)[0])
    assert tracked(driver, "begin", driver.now) is None
    yield driver
    driver.close()


def tracked(driver: StoreDriver, name: str, *arguments: Any) -> str | None:
    """Call one of the store's methods for tracking; the failure."""
    answers: list[str | None] = []

    def done(failure: str | None, now: float) -> None:
        answers.append(failure)

    method = getattr(store_of(driver).tracking, name)
    method(*arguments, done) if name == "look" else method(done, *arguments)
    driver.until(lambda: bool(answers))
    return answers[0]


def look(driver: StoreDriver) -> tuple[list[int], list[int], list[list[int]]]:
    path = driver.path.with_name("look")
    assert tracked(driver, "look", path) is None
    said = json.loads(path.read_text())
    assert said.pop("file") == "shard-0.db"
    return said["users"], said["chats"], said["messages"]


def test_a_look_has_what_was_called_before_and_nothing_twice(driver: StoreDriver) -> None:
    bob = driver.user("bob")
    driver.append(bob, "alice", "1", "2")
    assert look(driver) == ([1], [1], [[1, 1], [1, 2]])
    assert look(driver) == ([], [], [])
    driver.append(bob, "alice", "3")
    driver.append(bob, "dave", "1")
    assert look(driver) == ([], [2], [[1, 3], [1, 4]])
    driver.append(bob, "alice", "1")
    assert look(driver) == ([], [], [])


def test_no_mark_is_later_than_the_clock(driver: StoreDriver) -> None:
    """However long ago the store has looked at the time: files are cut at the ages that marks tell, and end at that of the clock."""
    driver.settle()
    driver.append(driver.user("bob"), "alice", "1")
    driver.advance(30.0)
    assert tracked(driver, "begin", driver.now) is None
    with closing(sqlite3.connect(driver.path)) as connection:
        (marked,) = connection.execute("SELECT max(passed) FROM marks").fetchone()
        (clock,) = connection.execute("SELECT passed + owed FROM clock").fetchone()
    assert clock >= marked >= 30_000


def test_acknowledgements_that_may_wait_are_in_a_look_at_rest(driver: StoreDriver) -> None:
    bob = driver.user("bob")
    driver.append(bob, "alice", "1", "2")
    look(driver)
    bob.mailbox.acknowledge(2)
    driver.store.save_acknowledged(bob)
    assert look(driver) == ([], [], [])
    driver.store.hurry(True)
    assert look(driver) == ([1], [], [])


def test_a_block_notes_its_user_and_what_is_withheld_its_own_mailbox(driver: StoreDriver) -> None:
    bob = driver.user("bob")
    driver.append(bob, "alice", "1")
    look(driver)
    for blocks in ({"alice": Block(True, False, 1)}, {"alice": Block(True, True, 1)}, None):
        bob.blocks = blocks
        driver.store.save_block(bob, "alice", nobody_waits)
        assert look(driver) == ([1], [], [])
    driver.append(bob, "alice", "2", withheld=True)
    assert look(driver) == ([], [], [[-1, 2]])
    driver.mark_read(bob, "alice", 1)
    assert look(driver) == ([], [1], [])


def test_chats_that_may_wait_are_in_a_look_at_rest(driver: StoreDriver) -> None:
    bob = driver.user("bob")
    driver.append(bob, "alice", "1")
    look(driver)
    bob.chats["alice"].muted = True
    bob.save_later(bob.chats.values())
    driver.store.save_acknowledged(bob)
    assert look(driver) == ([], [], [])
    driver.store.hurry(True)
    assert look(driver) == ([], [1], [])


def test_a_look_that_cannot_be_written_loses_nothing(driver: StoreDriver, tmp_path: Path) -> None:
    driver.append(driver.user("bob"), "alice", "1")
    failure = tracked(driver, "look", tmp_path / "missing" / "look")
    assert failure == "the storage of the server fails: No such file or directory"
    assert driver.store.failure is None, "messages can be stored"
    assert look(driver) == ([1], [1], [[1, 1]])


def test_after_a_failure_of_the_storage_looks_fail(driver: StoreDriver, tmp_path: Path) -> None:
    """The connection with the triggers is gone, and nobody knows what has changed since."""

    class Reopen(Visit):
        def run(self, storage: Storage) -> None:
            storage.reconnect()

    answers: list[str | None] = []
    store_of(driver)._visit(Reopen(lambda failure, now: answers.append(failure)))
    driver.until(lambda: bool(answers))
    assert "changes are not tracked" in str(tracked(driver, "look", tmp_path / "look"))
    assert tracked(driver, "end") is None
    assert tracked(driver, "begin", driver.now) is None
    assert look(driver) == ([], [], [])


def test_nothing_is_removed_while_changes_are_noted(tmp_path: Path) -> None:
    prepare(tmp_path, 1)
    driver = StoreDriver("sqlite", shards(tmp_path)[0], retention_days=1)
    with closing(driver):
        driver.append(driver.user("bob"), "alice", "1")
        driver.later(DAY)
        assert tracked(driver, "begin", driver.now) is None
        driver.later(2 * DAY)
        assert driver.purged == []
        assert tracked(driver, "end") is None
        driver.until(lambda: driver.purged == [("bob", 1)])
