"""Whoever reads a file for long must not make its log grow without end: our own tools never do, and others are told of."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from io import StringIO
from pathlib import Path

import pytest

from tests.workers.store_driver import StoreDriver
from tests.workers.store_files import connect, fill, layout_of, shards
from workers.store import database, export, write_ahead_log
from workers.store.backup import backup
from workers.store.check import check

LIMIT = 512 * 1024


@pytest.fixture(params=[True, False])
def driver(
    path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StoreDriver]:
    """Its log is too long at 512 KiB; what a long one takes to be moved goes by a thread of its own, or by the ordinary way."""
    monkeypatch.setattr(database, "LOG_BYTES", LIMIT)
    monkeypatch.setattr(write_ahead_log, "LOG_BYTES", LIMIT if request.param else 2**40)
    driver = StoreDriver("sqlite", path)
    yield driver
    driver.close()


def log_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def write(driver: StoreDriver, name: str, count: int = 2000) -> None:
    bob = driver.loaded("bob") if driver.load("bob") else driver.user("bob")
    for begin in range(0, count, 100):
        driver.append(bob, "alice", *(f"{name}-{begin + number}" for number in range(100)), content="x" * 500)
        driver.settle()


@pytest.mark.slow
@pytest.mark.parametrize("then", ["more is written", "nothing is written"])
def test_a_log_that_grew_beside_a_reader_gets_short_again(driver: StoreDriver, path: Path, then: str) -> None:
    """As soon as the reader is gone; and what it has grown to is reported while it is there."""
    write(driver, "before")
    driver.later(61)
    with closing(connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        write(driver, "beside", 6000)
        driver.later(61)
        grown = log_bytes(path)
        assert grown > 4 * LIMIT
        assert driver.store.stats()["store_log_bytes"] == pytest.approx(grown, rel=0.2)
        assert reader.execute("SELECT count(*) FROM messages").fetchone() == (2000,)

    def is_short() -> bool:
        if then == "more is written":
            write(driver, f"after-{driver.now}", 100)
        driver.later(61)
        return log_bytes(path) <= LIMIT and int(driver.store.stats()["store_log_bytes"]) <= LIMIT

    assert any(is_short() for _ in range(60))


def test_what_is_committed_while_a_long_log_is_moved_is_there(driver: StoreDriver, path: Path) -> None:
    with closing(connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchone()
        write(driver, "beside")
    for number in range(5):
        write(driver, f"moved-{number}")
    driver.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (12_000,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


class Beside:
    """A server that writes to all files; `is_free` begins their logs again, which succeeds only if nobody reads."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._files = [stack.enter_context(closing(connect(path))) for path in shards(directory)]
        for file in self._files:
            file.execute("PRAGMA busy_timeout = 0")
            file.execute("PRAGMA wal_autocheckpoint = 0")

    def are_free(self, files: slice = slice(None)) -> bool:
        for file in self._files[files]:
            file.execute("UPDATE users SET seen_at = seen_at + 1")
        checkpoints = [
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() for file in self._files[files]
        ]
        return all(busy == 0 for busy, _, _ in checkpoints)


class SlowReader(StringIO):
    """Somebody reads the output of a tool, `export | less`: with each line the tool is stopped for as long as one likes."""

    def __init__(self, look: Callable[[], bool]) -> None:
        super().__init__()
        self._look = look
        self.looks: list[bool] = []

    def write(self, text: str) -> int:
        self.looks.append(self._look())
        return super().write(text)


@pytest.mark.parametrize("tool", ["export", "check"])
def test_a_tool_whose_output_is_read_slowly_keeps_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setattr(export, "_BATCH", 7)
    users = fill(tmp_path, 3, users=10, messages=400)
    with ExitStack() as stack:
        beside = Beside(tmp_path, stack)
        out = SlowReader(beside.are_free)
        if tool == "export":
            export.export(tmp_path, users[0], out)
        else:
            with closing(connect(shards(tmp_path)[1])) as file:
                file.execute("INSERT INTO acknowledged SELECT number, 1000 FROM users")
            assert check(tmp_path, out)
    assert len(out.looks) > 3
    assert all(out.looks)


def test_an_export_leaves_out_what_goes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes nothing of others for the user's own, whose numbers are given again."""
    monkeypatch.setattr(export, "_BATCH", 7)
    user, *_ = fill(tmp_path, 1, users=10, messages=400)
    with closing(connect(shards(tmp_path)[0])) as file:

        def forget() -> bool:
            file.execute(
                "DELETE FROM messages WHERE chat NOT IN (SELECT number FROM chats WHERE peer = ?)", (user,)
            )
            file.execute(
                "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 400)"
                " INSERT OR IGNORE INTO messages"
                " SELECT value, 999, 1000 + value, 0, value, 'other', 'not for you', 0, 0, NULL FROM n"
            )
            return True

        out = SlowReader(forget)
        export.export(tmp_path, user, out)
    assert "not for you" not in out.getvalue()


def test_a_backup_lets_go_of_each_file_that_it_has_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    fill(tmp_path / "data", 3, users=10, messages=100)
    layout = layout_of(tmp_path / "data")
    with ExitStack() as stack:
        beside = Beside(tmp_path / "data", stack)
        free: list[bool] = []
        from workers.store import backup as module

        copy_file = module._copy_file

        def look(source: sqlite3.Connection, path: Path, statements: object) -> None:
            free.append(beside.are_free(slice(layout.shards().index(f"{path.parent.name}/{path.name}"))))
            copy_file(source, path, ())

        monkeypatch.setattr(module, "_copy_file", look)
        assert backup(tmp_path / "data", tmp_path / "copy", StringIO()) == 0
    assert free == [True, True, True]
