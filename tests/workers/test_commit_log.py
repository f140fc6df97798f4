"""workers.store.commit_log: what was answered is there again, wherever the process was killed and whatever became of the end of the log."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.process.settings import ConfigurationError
from tests.workers.log_files import active, copied, mailbox, query
from tests.workers.store_driver import StoreDriver
from workers.store import commit_log, sqlite, statements
from workers.store.commit_log import CommitLog
from workers.store.database import Database, upgrade
from workers.store.jobs import Job
from workers.store.log_record import Changes, Record, decode
from workers.store.retention import Bite, KeepTime
from workers.store.retention_clock import ClockState
from workers.store.segment import read_log, segment_paths
from workers.store.storage import Storage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard.db"


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
        content = read_log(path, synced[-1])
        assert content.lost == 0
        assert content.last == synced[-1] + len(content.records) > last
        last = content.last
    assert len(synced) > 3
    driver.close()


# -- A fold in slices --


def name(number: int) -> Record:
    """A record about one user; the last name holds."""
    row = [1, "bob", 0, f"name {number}", 0, "e", 0, 0, 0, 0]
    return Record(0, b"", Changes([row], [], [], [], [], []))


@pytest.fixture
def folding(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """Two of four records are in the transaction of a fold."""
    monkeypatch.setattr(commit_log, "SLICE_ROWS", 2)
    storage = Storage(path, "fsync")
    for number in range(4):
        storage.log.append(name(number))
    storage.fold()
    assert storage.log.is_folding
    yield storage
    storage.close()


def test_commits_go_on_between_the_slices_of_a_fold(folding: Storage, path: Path) -> None:
    folding.log.append(name(4))
    assert query(path, "SELECT count(*) FROM users") == [(0,)]
    while folding.log.is_folding:
        folding.fold()
    assert query(path, "SELECT display_name FROM users") == [("name 4",)]
    assert folding.log.rows == 0
    assert folding.database.value("PRAGMA synchronous") == 2


@pytest.mark.parametrize("job", [KeepTime(ClockState(1, 1, 0, 1), None), Bite(0, 0, 0)])
def test_what_needs_no_fold_completes_one_that_has_begun(folding: Storage, path: Path, job: Job) -> None:
    job.execute(folding)
    assert job.failure is None
    assert not folding.log.is_folding
    assert query(path, "SELECT display_name FROM users") == [("name 1",)]
    assert folding.log.rows == 2


def test_a_slice_that_fails_takes_the_fold_back(
    folding: Storage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = Database.execute

    def fail(self: Database, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == statements.SAVE_USERS:
            raise sqlite3.OperationalError("disk I/O error")
        return execute(self, sql, *parameters)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "execute", fail)
        with pytest.raises(sqlite3.OperationalError):
            folding.fold()
    assert not folding.log.is_folding
    assert folding.log.rows == 4
    assert folding.database.value("PRAGMA synchronous") == 2
    assert query(path, "SELECT count(*) FROM users") == [(0,)]
    folding.fold_all()
    assert query(path, "SELECT display_name FROM users") == [("name 3",)]


def test_a_file_that_is_opened_again_in_a_fold(folding: Storage, path: Path) -> None:
    folding.reconnect()
    assert not folding.log.is_folding
    folding.fold_all()
    assert query(path, "SELECT display_name FROM users") == [("name 3",)]


# -- Failures --


class Disk:
    """Lets writes to segments, or their syncs, fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails: str | None = None
        self.synced: list[int] = []
        for name in ("pwrite", "fdatasync"):
            monkeypatch.setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(descriptor: int, *arguments: Any) -> Any:
            if name == "fdatasync":
                self.synced.append(os.fstat(descriptor).st_ino)
            if self.fails == name:
                if name == "pwrite":
                    call(descriptor, bytes(arguments[0])[:20], arguments[1])
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(descriptor, *arguments)

        return maybe


@pytest.mark.parametrize("what", ["pwrite", "fdatasync"])
def test_a_log_that_can_not_be_written(
    driver: StoreDriver, path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The commit fails, what came before stays, the segment is never synced again, and what fails may be sent again."""
    disk = Disk(monkeypatch)
    bob = driver.user("bob")
    driver.append(bob, "alice", "1")
    driver.settle()
    disk.fails = what
    driver.append(bob, "alice", "2")
    driver.settle()
    assert driver.log[0] == ("1", 1)
    assert "No space left" in driver.log[1][1]
    assert driver.store.failure is not None
    failed = active(path).stat().st_ino
    os.link(active(path), path.with_name("kept"))  # or the number would be given again
    copy = copied(path, "copy")
    disk.fails = None
    disk.synced.clear()
    driver.append(bob, "alice", "3", "2")
    driver.settle()
    assert driver.log[2:] == [("3", 2), ("2", 3)]
    assert failed not in disk.synced
    assert mailbox(copied(path, "after")) == ["1", "3", "2"]
    assert mailbox(copy) == ["1"] + (["2"] if what == "fdatasync" else []), "killed before, who knows"


def test_a_failed_record_stays_void_when_its_segment_comes_back(
    driver: StoreDriver, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    bob = driver.user("bob")
    disk.fails = "fdatasync"
    driver.append(bob, "alice", "1")
    driver.settle()
    old = active(path).read_bytes()
    disk.fails = None
    driver.append(bob, "alice", "2")
    driver.settle()
    copy = copied(path, "copy")
    copy.with_name("shard.db-log-2").write_bytes(old)
    assert mailbox(copy) == ["2"]


def test_a_probe_finds_a_log_that_can_not_be_written(
    driver: StoreDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    disk.fails = "pwrite"
    driver.append(driver.user("bob"), "alice", "1")
    driver.settle()
    failures = driver.store.stats()["store_failures_total"]
    driver.advance(1.1)
    driver.until(lambda: driver.store.stats()["store_failures_total"] > failures)
    disk.fails = None
    driver.advance(1.1)
    driver.until(lambda: driver.store.failure is None)


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


def test_folds_that_a_reconnected_file_does_not_have_are_made_again(path: Path) -> None:
    """The write-ahead log was not synced, and SQLite gives up what is in it: the segments have it still."""
    storage = Storage(path, "fsync")
    log = storage.log
    for user in (1, 2, 3):
        row = [user, f"user-{user}", 0, "name", 0, "e", 0, 0, 0, 0]
        log.append(Record(0, b"", Changes([row], [], [], [], [], [])))
        if user == 1:
            log.fold_all()
    folded = storage.database.value(statements.LOAD_FOLDED)
    storage.database.execute("DELETE FROM users")
    storage.database.execute("UPDATE commit_log SET folded = folded - 1")
    storage.reconnect()
    assert storage.database.value("SELECT count(*) FROM users") == 3
    assert storage.database.value(statements.LOAD_FOLDED) > folded
    storage.close()


def user_record(user: int) -> Record:
    """A user, as a record of the log has it."""
    row = [user, f"user-{user}", 0, "name", 0, "e", 0, 0, 0, 0]
    return Record(0, b"", Changes([row], [], [], [], [], []))


def users(path: Path) -> int:
    return int(query(path, "SELECT count(*) FROM users")[0][0])


def test_a_fold_that_had_begun_when_the_file_could_not_be_opened_again_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction goes with the connection, whatever fails behind that, and whatever comes next."""
    monkeypatch.setattr(commit_log, "SLICE_ROWS", 2)
    storage = Storage(path, "fsync")
    for user in range(1, 6):
        storage.log.append(user_record(user))
    storage.log.fold()
    assert storage.log.is_folding
    with monkeypatch.context() as troubles:
        troubles.setattr(Database, "settle", _refuse)
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            storage.reconnect()
    storage.complete_fold()
    storage.fold_all()
    assert users(path) == 5
    storage.close()
    assert users(path) == 5


def test_a_file_that_was_never_looked_at_again_keeps_its_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be behind what was answered; the next start has it."""
    storage = Storage(path, "fsync")
    for user in range(1, 4):
        storage.log.append(user_record(user))
    with monkeypatch.context() as troubles:
        troubles.setattr(Database, "settle", _refuse)
        with pytest.raises(sqlite3.OperationalError):
            storage.reconnect()
        storage.close()
    assert any(segment.exists() for segment in segment_paths(path))
    with closing(Storage(path, "fsync")) as again:
        assert again.replayed == 3
    assert users(path) == 3


def test_whatever_keeps_a_record_from_being_written_leaves_no_gap(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number was given; records behind a gap would not be read after a kill."""
    storage = Storage(path, "fsync")
    storage.log.append(user_record(1))
    with monkeypatch.context() as troubles:
        troubles.setattr(commit_log, "encode", _no_memory)
        with pytest.raises(MemoryError):
            storage.log.append(user_record(2))
    storage.settle()
    storage.log.append(user_record(3))
    copy = copied(path, "copy")
    Storage(copy, "fsync").close()
    assert users(copy) == 2
    storage.close()


def test_a_probe_leaves_nothing_to_fold(path: Path) -> None:
    """On a quiet server nothing else would fold it, and tools would wait for that."""
    with closing(Storage(path, "fsync")) as storage:
        storage.log.append(user_record(1))
        storage.reconnect()
        assert read_log(path, 0).last == query(path, "SELECT folded FROM commit_log")[0][0]


def test_a_start_that_finds_the_file_locked_says_so_and_keeps_the_log(path: Path) -> None:
    """The log has acknowledged messages: to restore a backup in place of it would be wrong advice."""
    storage = Storage(path, "fsync")
    storage.log.append(user_record(1))
    copy = copied(path, "copy")
    storage.close()
    with closing(sqlite3.connect(copy, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigurationError, match=r"can't be used \(database is locked\): .*keep both"):
            StoreDriver("sqlite", copy)
    with closing(Storage(copy, "fsync")) as again:
        assert again.replayed == 1


def test_a_reader_does_not_make_a_failed_sync_good(path: Path) -> None:
    """While somebody reads an old state the log can't be moved and synced as a whole, so the doubt stays."""
    storage = Storage(path, "fsync")
    storage.log.append(user_record(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchone()
        storage.fold_all()
        storage.database.doubt()
        with pytest.raises(sqlite3.OperationalError, match="a reader of the file"):
            storage.settle()
        with pytest.raises(sqlite3.OperationalError, match="a reader of the file"):
            storage.settle()
    storage.settle()
    storage.close()
    assert users(path) == 1


def _refuse(self: Database) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def _no_memory(record: Record) -> bytes:
    raise MemoryError


def test_a_sync_of_folds_that_fails_is_not_believed_when_it_succeeds_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(path, "fsync")
    settled: list[bool] = []
    settle = Database.settle

    def note(self: Database) -> None:
        settled.append(self._in_doubt)
        settle(self)

    monkeypatch.setattr(Database, "settle", note)
    execute = Database.execute

    def fail(self: Database, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == statements.COUNT_SYNC:
            raise sqlite3.OperationalError("disk I/O error")
        return execute(self, sql, *parameters)

    storage.log.append(Record(0, b"", None))
    with monkeypatch.context() as patch:
        patch.setattr(Database, "execute", fail)
        with pytest.raises(sqlite3.OperationalError):
            storage.log.close()
    storage.fold_all()
    assert settled == [False, True]
    storage.close()


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
    assert query(path, "SELECT version_num FROM alembic_version") == [("0005",)]


def test_a_new_log_begins_with_any_number(tmp_path: Path) -> None:
    numbers = set()
    for name in "abc":
        path = tmp_path / f"{name}.db"
        upgrade(path)
        Storage(path, "os").close()
        numbers.add(query(path, "SELECT folded FROM commit_log")[0][0])
    assert len(numbers) == 3
