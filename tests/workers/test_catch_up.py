"""workers.store.catch_up: tools and the re-sharding know the commit log, whether a killed server has left it or a running one writes it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest

from core.placement import Placement
from core.process.settings import ConfigurationError
from tests.workers.store_driver import StoreDriver
from tests.workers.store_files import content, shards
from workers.store import catch_up as module
from workers.store.backup import backup, restore
from workers.store.catch_up import catch_up
from workers.store.check import check
from workers.store.data_directory import existing_layout, is_locked, locked
from workers.store.export import export
from workers.store.prepare import prepare
from workers.store.purge import purge
from workers.store.segment import segment_paths

WORKERS = 2


class Server:
    """The stores of all workers of a data directory, without a server; and what was sent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.drivers = [StoreDriver("sqlite", path, durability="fsync") for path in shards(directory)]
        self.placement = Placement(WORKERS)

    def send(self, sender: str, recipient: str, *message_ids: str) -> None:
        driver = self.drivers[self.placement.worker_of(recipient)]
        user = driver.load(recipient) or driver.user(recipient)
        driver.append(user, sender, *message_ids, content=f"from {sender}")
        driver.settle()

    def fold(self) -> None:
        for driver in self.drivers:
            driver.fold()

    def killed(self) -> Path:
        """A copy of the directory as a kill would leave it."""
        target = self.directory.with_name("killed")
        shutil.copytree(self.directory, target, ignore=shutil.ignore_patterns("*-shm", "lock"))
        return target

    def close(self) -> None:
        for driver in self.drivers:
            driver.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "data").mkdir()
    prepare(tmp_path / "data", WORKERS)
    server = Server(tmp_path / "data")
    for recipient in ("bob", "carol", "dave", "erin"):
        server.send("alice", recipient, "1", "2")
    server.send("bob", "alice", "3")
    yield server
    server.close()


def logs(directory: Path) -> list[Path]:
    return [segment for path in shards(directory) for segment in segment_paths(path) if segment.exists()]


def exported(directory: Path, user_id: str) -> list[tuple[str, str]]:
    out = StringIO()
    export(directory, user_id, out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    return [(line["from"], line["message_id"]) for line in lines if line["type"] == "message"]


def test_an_export_has_what_a_killed_server_has_left(server: Server) -> None:
    directory = server.killed()
    assert len(logs(directory)) == WORKERS
    assert sorted(exported(directory, "bob")) == [("alice", "1"), ("alice", "2"), ("bob", "3")]
    assert logs(directory) == []


def test_an_export_waits_for_a_running_server(server: Server) -> None:
    with locked(server.directory):
        folding = threading.Timer(0.2, server.fold)
        folding.start()
        assert sorted(exported(server.directory, "bob")) == [("alice", "1"), ("alice", "2"), ("bob", "3")]
        folding.join()


def test_a_server_that_does_not_fold_is_told_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with locked(server.directory):
        with pytest.raises(ConfigurationError, match="has not moved the commit log"):
            export(server.directory, "bob", StringIO())
        out = StringIO()
        assert check(server.directory, out) == 0
        assert "commits are in the commit logs only" in out.getvalue()


def test_check_only_reads(server: Server) -> None:
    directory = server.killed()
    before = {path: path.read_bytes() for path in logs(directory)}
    out = StringIO()
    assert check(directory, out) == 0
    assert "commits are in the commit logs only and were not checked" in out.getvalue()
    assert {path: path.read_bytes() for path in logs(directory)} == before


def test_check_finds_a_gap(server: Server) -> None:
    directory = server.killed()
    path = shards(directory)[0]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE commit_log SET folded = folded - 1")
        connection.commit()
    out = StringIO()
    assert check(directory, out) == 1
    assert "shard-0.db: the commit log is damaged" in out.getvalue()


def test_a_start_goes_on_behind_a_gap(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """And what is behind it never comes back."""
    directory = server.killed()
    path = shards(directory)[0]
    (log,) = [segment for segment in segment_paths(path) if segment.exists()]
    lost = log.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE commit_log SET folded = folded - 1")
        connection.commit()
    StoreDriver("sqlite", path).close()
    assert "commits behind the damage are lost" in caplog.text
    log.write_bytes(lost)
    driver = StoreDriver("sqlite", path)
    for user_id in ("alice", "bob", "carol", "dave", "erin"):
        assert driver.load(user_id) is None
    driver.close()


def test_a_backup_and_its_restore(server: Server, tmp_path: Path) -> None:
    directory = server.killed()
    assert backup(directory, tmp_path / "backup", StringIO()) == 0
    assert logs(tmp_path / "backup") == []
    assert restore(tmp_path / "backup", tmp_path / "restored", StringIO()) == 0
    found = content(tmp_path / "restored")
    assert len(found.mailboxes["bob"]) == 2
    assert found.mailboxes == content(directory).mailboxes
    driver = StoreDriver("sqlite", shards(tmp_path / "restored")[Placement(WORKERS).worker_of("bob")])
    bob = driver.loaded("bob")
    driver.append(bob, "alice", "2", "9")
    driver.settle()
    assert driver.log == [("2", "repeat"), ("9", 3)]
    driver.close()


def test_a_purge_leaves_nothing_in_the_log(server: Server) -> None:
    directory = server.killed()
    purge(directory, "alice")
    assert logs(directory) == []
    for file in (directory / existing_layout(directory).directory).iterdir():
        assert b"from alice" not in file.read_bytes()
    found = content(directory)
    assert "alice" not in found.users
    assert [row[1] for row in found.mailboxes["bob"]] == [None, None]


def test_another_number_of_workers(server: Server) -> None:
    directory = server.killed()
    prepare(directory, 3)
    assert logs(directory) == []
    found = content(directory)
    assert {user: len(rows) for user, rows in found.mailboxes.items()} == {
        "alice": 1,
        **dict.fromkeys(("bob", "carol", "dave", "erin"), 2),
    }


def test_whether_it_is_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_nothing_is_done_where_nothing_waits(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in server.drivers:
        driver.fold()
    monkeypatch.setattr(module, "replay", lambda path: pytest.fail("nothing is to be folded"))
    catch_up(server.directory, existing_layout(server.directory).shards())
