"""workers.store.commit_log, folds and failures: what was answered is there, whatever the disk or SQLite refuses in between."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.process.settings import ConfigurationError
from core.wire import codec
from tests.workers.log_files import active, copied, mailbox, query, user_record, users
from tests.workers.store_driver import StoreDriver
from workers.store import commit_log, statements
from workers.store.database import Database
from workers.store.jobs import Job
from workers.store.log_record import Record
from workers.store.retention import Bite, KeepTime
from workers.store.retention_clock import ClockState
from workers.store.segment import read_log, segment_paths
from workers.store.storage import Storage


@pytest.fixture
def driver(path: Path) -> Iterator[StoreDriver]:
    driver = StoreDriver("sqlite", path, durability="fsync")
    yield driver
    driver.close()


# -- A fold in slices --


@pytest.fixture
def folding(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """Two of four records about one user are in the transaction of a fold; the last name holds."""
    monkeypatch.setattr(commit_log, "SLICE_ROWS", 2)
    storage = Storage(path, "fsync")
    for number in range(4):
        storage.log.append(user_record(1, f"name {number}"))
    storage.fold()
    assert storage.log.is_folding
    yield storage
    storage.close()


def test_commits_go_on_between_the_slices_of_a_fold(folding: Storage, path: Path) -> None:
    folding.log.append(user_record(1, "name 4"))
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


def test_folds_that_a_reconnected_file_does_not_have_are_made_again(path: Path) -> None:
    """The write-ahead log was not synced, and SQLite gives up what is in it: the segments have it still."""
    storage = Storage(path, "fsync")
    log = storage.log
    for user in (1, 2, 3):
        log.append(user_record(user))
        if user == 1:
            log.fold_all()
    folded = storage.database.value(statements.LOAD_FOLDED)
    storage.database.execute("DELETE FROM users")
    storage.database.execute("UPDATE commit_log SET folded = folded - 1")
    storage.reconnect()
    assert storage.database.value("SELECT count(*) FROM users") == 3
    assert storage.database.value(statements.LOAD_FOLDED) > folded
    storage.close()


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

    last = ""

    def fail(self: Database, sql: str, *parameters: Any) -> sqlite3.Cursor:
        nonlocal last
        before, last = last, sql
        if (before, sql) == (statements.COUNT_SYNC, "COMMIT"):
            raise sqlite3.OperationalError("disk I/O error")
        return execute(self, sql, *parameters)

    storage.log.append(Record(0, b""))
    with monkeypatch.context() as patch:
        patch.setattr(Database, "execute", fail)
        with pytest.raises(sqlite3.OperationalError):
            storage.log.close()
    storage.fold_all()
    assert settled == [False, True]
    storage.close()


def test_what_a_failed_commit_of_sqlite_has_of_somebody_new_goes(path: Path) -> None:
    """When it comes back although the disk said that it failed, and the user has come again under another number."""
    storage = Storage(path, "fsync")
    storage.log.append(user_record(7))
    storage.fold_all()
    ghosts = (
        "INSERT INTO users SELECT 99, 'user-1', slot, 'ghost', 0, 'g', 0, 0, 0, 0, 0, 0, 0, 0 FROM users",
        "INSERT INTO chats (number, user, peer, peer_name, confirmed)"
        " VALUES (97, 99, 'alice', 'ghost', 0), (98, 7, 'alice', 'ghost', 0)",
        "INSERT INTO messages VALUES (1, 99, 1, 97, 1, 'ghost', 'x', 1, 0, 1)",
        "INSERT INTO messages VALUES (2, -99, 2, 97, 2, 'ghost', 'x', 1, 0, 2)",
        "INSERT INTO messages VALUES (3, -7, 1, 98, 1, 'ghost', 'x', 1, 0, 1)",
        "INSERT INTO blocks VALUES (99, 'alice', 1, 0, 0, 0)",
        "INSERT INTO hook_calls VALUES (99, 'alice', 1, NULL)",
        "INSERT INTO acknowledged VALUES (99, 2)",
    )
    for ghost in ghosts:
        query(path, ghost)
    chat = [5, 7, "alice", "Alice", 0, 1, 0, 0, 0, 0, 0, 0, 0]
    storage.log.append(user_record(1))
    storage.log.append(Record(0, b"", 1, codec.to_json([[], [chat], [], [], [], [], [], []])))
    storage.fold_all()
    assert query(path, "SELECT number, user_id FROM users") == [(1, "user-1"), (7, "user-7")]
    assert query(path, "SELECT number, peer_name FROM chats") == [(5, "Alice")]
    for table in ("messages", "acknowledged", "blocks", "hook_calls"):
        assert query(path, f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608
    storage.close()
