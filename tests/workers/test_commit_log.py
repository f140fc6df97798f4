"""workers.store.commit_log: what was answered is there again, wherever the process was killed and whatever became of the end of the log."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.workers.log_files import active, copied, mailbox, query
from tests.workers.store_driver import StoreDriver
from workers.store import commit_log, sqlite
from workers.store.commit_log import CommitLog
from workers.store.database import upgrade
from workers.store.log_record import decode
from workers.store.migrations import REVISION
from workers.store.segment import read_log, segment_paths
from workers.store.storage import Storage


@pytest.fixture
def driver(path: Path) -> Iterator[StoreDriver]:
    driver = StoreDriver("sqlite", path, durability="fsync")
    yield driver
    driver.close()


# -- A kill, at any place --


def test_a_log_that_ends_anywhere_has_all_commits_before(driver: StoreDriver, path: Path) -> None:
    bob = driver.user("bob")
    sizes = []
    driver.append(bob, "alice", "first")
    driver.fold()
    for number in range(3):
        driver.append(bob, "alice", f"{number}-a", f"{number}-b")
        driver.settle()
        sizes.append(max(end for _, end in decode(active(path).read_bytes())))
    content = active(path).read_bytes()
    assert sizes[-1] == len(content)
    for cut in range(0, len(content), 31):
        copy = copied(path, f"cut-{cut}")
        active(copy).write_bytes(content[:cut])
        whole = sum(size <= cut for size in sizes)
        ids = ["first"] + [f"{number}-{half}" for number in range(whole) for half in "ab"]
        assert mailbox(copy) == ids
        assert [file.name for file in copy.parent.iterdir()] == ["shard.db"]
        shutil.rmtree(copy.parent)


def test_a_flipped_byte_ends_the_log(driver: StoreDriver, path: Path) -> None:
    bob = driver.user("bob")
    for number in range(4):
        driver.append(bob, "alice", f"{number}")
        driver.settle()
    ends = [end for _, end in decode(active(path).read_bytes())]
    for index in (1, 2, 3):
        copy = copied(path, f"flipped-{index}")
        content = bytearray(active(copy).read_bytes())
        content[ends[index] - 5] ^= 1
        active(copy).write_bytes(content)
        assert mailbox(copy) == [f"{number}" for number in range(index)]


def test_a_kill_between_a_fold_and_the_end_of_the_segment(driver: StoreDriver, path: Path) -> None:
    """What has been folded is not folded again, also when it is gone meanwhile."""
    bob = driver.user("bob")
    driver.append(bob, "alice", "1", "2")
    driver.fold()
    driver.append(bob, "alice", "3")
    driver.settle()
    copy = copied(path, "copy")
    assert read_log(copy, 0).last == query(path, "SELECT folded FROM commit_log")[0][0] + 1
    query(copy, "DELETE FROM messages WHERE seq = 1")
    query(copy, "UPDATE users SET purged_through = 1")
    again = StoreDriver("sqlite", copy)
    bob = again.loaded("bob")
    assert [message.message_id for message in again.read(bob, 0)] == ["2", "3"]
    again.close()


def test_a_segment_comes_back_whose_removal_was_lost(driver: StoreDriver, path: Path) -> None:
    """With the power: its records have been folded, and count for nothing."""
    bob = driver.user("bob")
    driver.append(bob, "alice", "1", "2")
    driver.settle()
    segment = active(path)
    content = segment.read_bytes()
    driver.store.close()
    segment.write_bytes(content)
    assert mailbox(path) == ["1", "2"]
    assert not segment.exists()


def test_a_log_of_another_file_is_not_taken_for_its_own(
    tmp_path: Path, path: Path, driver: StoreDriver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.append(driver.user("bob"), "alice", "1")
    driver.settle()
    other = tmp_path / "other" / "shard.db"
    other.parent.mkdir()
    second = StoreDriver("sqlite", other)
    second.append(second.user("bob"), "alice", "2")
    second.close()
    shutil.copyfile(active(path), other.with_name("shard.db-log-1"))
    assert mailbox(other) == ["2"]


# -- Two segments --


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments are full after a few commits, and folds are small."""
    monkeypatch.setattr(commit_log, "SEGMENT_BYTES", 2000)
    monkeypatch.setattr(commit_log, "FOLD_ROWS", 8)
    monkeypatch.setattr(commit_log, "SLICE_ROWS", 4)
    monkeypatch.setattr(sqlite, "FOLD_ROWS", 8)


@pytest.mark.usefixtures("small")
def test_segments_are_written_in_turn(driver: StoreDriver, path: Path) -> None:
    bob = driver.user("bob")
    for number in range(100):
        driver.append(bob, "alice", f"{number}")
        driver.settle()
        if number % 7 == 0:
            assert mailbox(copied(path, f"copy-{number}")) == [f"{before}" for before in range(number + 1)]
    assert all(segment.stat().st_size < 3000 for segment in segment_paths(path))
    assert driver.log == [(f"{number}", number + 1) for number in range(100)]


@pytest.mark.usefixtures("small")
def test_a_segment_is_not_written_over_before_sqlite_has_synced_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file as it was at the last sync, and the segments as they are now, have everything at any time: as after a loss of power."""
    synced: list[int] = []
    sync_folds = CommitLog._sync_folds

    def note(self: CommitLog, number: int) -> None:
        sync_folds(self, number)
        synced.append(number)

    monkeypatch.setattr(CommitLog, "_sync_folds", note)
    driver = StoreDriver("sqlite", path, durability="fsync")
    bob = driver.user("bob")
    last = 0
    for number in range(150):
        driver.append(bob, "alice", f"{number}")
        driver.settle()
        through = synced[-1]  # the store's thread goes on
        content = read_log(path, through)
        assert content.lost == 0
        assert content.last == through + len(content.records) > last
        last = content.last
    assert len(synced) > 3
    driver.close()


@pytest.mark.usefixtures("small")
def test_a_full_log_refuses_what_can_not_be_folded(driver: StoreDriver, path: Path) -> None:
    """It does not grow without end while SQLite can't be written."""
    bob = driver.user("bob")
    with closing(sqlite3.connect(path, isolation_level=None)) as tool:
        tool.execute("PRAGMA busy_timeout = 0")
        tool.execute("BEGIN IMMEDIATE")
        number = 0
        while not any(isinstance(result, str) for _, result in driver.log):
            driver.append(bob, "alice", *(f"{number}-{index}" for index in range(8)), content="x" * 100)
            driver.settle()
            number += 1
        assert number < 10
    kept = [name for name, result in driver.log if isinstance(result, int)]
    driver.advance(1.1)
    driver.until(lambda: driver.store.failure is None)
    driver.fold()
    assert [message.message_id for message in driver.read(bob, 0)] == kept


# -- Old and new --


def test_files_from_before_have_no_log(path: Path) -> None:
    from tests.workers.test_store_database import old_file

    old_file(path, "0004")
    query(path, "INSERT INTO users VALUES (1, 'bob', 0, 'Bob', 0, 'e', 0, 0, 0, 0)")
    driver = StoreDriver("sqlite", path)
    driver.append(driver.loaded("bob"), "alice", "1")
    driver.settle()
    driver.crash()
    assert mailbox(path) == ["1"]
    assert query(path, "SELECT version_num FROM alembic_version") == [(REVISION,)]


def test_a_new_log_begins_with_any_number(tmp_path: Path) -> None:
    numbers = set()
    for name in "abc":
        path = tmp_path / f"{name}.db"
        upgrade(path)
        Storage(path, "os").close()
        numbers.add(query(path, "SELECT folded FROM commit_log")[0][0])
    assert len(numbers) == 3
