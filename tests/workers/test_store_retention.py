"""Retention in files, over restarts, and whatever clocks do (D20, D23)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from core.chat.store import nobody_waits
from tests.workers.log_files import query
from tests.workers.store_driver import DAY, NOON, StoreDriver
from workers.store import database


class Lives:
    """One file, and a server that runs, stops and runs again; its mail is from before: a delivered message, and one that waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        #: Seconds since noon.
        self.time = 0.0
        with self.life() as driver:
            bob = driver.user("bob")
            driver.append(bob, "alice", "delivered", "waits")
            driver.settle()
            bob.mailbox.acknowledge(1)
            driver.store.save_acknowledged(bob, nobody_waits)
            driver.later(3600)

    @contextmanager
    def life(self, wrong_by: float = 0.0) -> Iterator[StoreDriver]:
        driver = StoreDriver("sqlite", self._path, self.time, retention_days=30)
        driver.wrong_by = wrong_by
        driver.settle()
        yield driver
        self.time = driver.time_of_day() - NOON - driver.wrong_by
        driver.close()

    def left(self) -> list[str]:
        """The messages that are there."""
        return [
            message_id
            for (message_id,) in query(self._path, "SELECT message_id FROM messages ORDER BY number")
        ]


class TestClocks:
    """D20: no mail goes on the word of a clock that has jumped, and none that has not been delivered before it has waited."""

    @pytest.mark.parametrize("wrong_by", [60 * DAY, 60 * 365 * DAY])
    def test_a_start_with_a_clock_that_is_ahead(
        self, path: Path, wrong_by: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        lives = Lives(path)
        for _ in range(3):
            with lives.life(wrong_by) as driver:
                driver.later(2)
            assert "jumped" in caplog.text
        with lives.life() as driver:
            driver.later(29 * DAY)
            assert driver.purged == []
        assert lives.left() == ["delivered", "waits"]

    def test_a_server_that_is_killed_while_the_clock_is_ahead(self, path: Path) -> None:
        lives = Lives(path)
        with lives.life(60 * DAY) as driver:
            driver.later(70)
            killed = path.with_name("killed.db")
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(killed)) as copy:
                source.backup(copy)
        driver = StoreDriver("sqlite", killed, lives.time, retention_days=30)
        driver.later(29 * DAY)
        assert driver.purged == []
        driver.close()

    def test_the_first_start_is_in_1970(self, path: Path) -> None:
        """A board without a clock: it is put right later."""
        driver = StoreDriver("sqlite", path, retention_days=30)
        driver.wrong_by = -driver.time_of_day()
        bob = driver.user("bob")
        driver.append(bob, "alice", "1", "2")
        driver.settle()
        bob.mailbox.acknowledge(1)
        driver.store.save_acknowledged(bob, nobody_waits)
        driver.later(3600)
        driver.close()
        driver = StoreDriver("sqlite", path, retention_days=30)
        driver.later(29 * DAY)
        assert driver.purged == []
        driver.later(2 * DAY)
        assert driver.purged[-1] == ("bob", 2)
        driver.close()

    def test_what_passed_while_no_server_ran(self, path: Path) -> None:
        """It makes older what was delivered, up to 24 times as fast as time passes, and not what waits."""
        lives = Lives(path)
        lives.time += 40 * DAY
        with lives.life() as driver:
            driver.later(DAY)
            assert driver.purged == []
            driver.append(driver.loaded("bob"), "alice", "new")
            driver.later(DAY)
            assert driver.purged == [("bob", 1)]
        assert lives.left() == ["waits", "new"]
        with lives.life() as driver:
            driver.later(27.5 * DAY)
            assert driver.purged == []
            driver.later(DAY)
            assert driver.purged == [("bob", 2)]
            driver.later(DAY)
            assert driver.purged == [("bob", 2), ("bob", 3)]

    def test_numbers_that_are_given_again(self, path: Path) -> None:
        """All messages went; those that come get the numbers of the old ones, and not their age."""
        lives = Lives(path)
        with lives.life() as driver:
            driver.later(30.1 * DAY)
            assert driver.purged[-1] == ("bob", 2)
            assert query(path, "SELECT count(*) FROM marks") == [(0,)]
            driver.append(driver.loaded("bob"), "alice", "new")
            driver.later(29 * DAY)
        assert lives.left() == ["new"]

    def test_strangers_are_not_forgotten_on_the_word_of_a_clock(self, path: Path) -> None:
        """D23: a day offline is a day."""
        for wrong_by in (0.0, 60 * DAY):
            driver = StoreDriver("sqlite", path)
            driver.wrong_by = wrong_by
            driver.store.save_user(driver.user("zoe"), nobody_waits)
            driver.later(2)
            assert driver.strangers == []
            driver.close()


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        # How many days old they are by the newest of them; those behind one that is too new hold.
        ([40, 20, 0], [40, 20, 0]),
        ([40, -60, 20, 0], [40, 20, 20, 0]),
        ([40, 20, 0, -60], [40, 20, 0, 0]),
        ([40, 20_000, 0], [20_000, 20_000, 0]),
        ([40, 20_000], [0, 0]),
        ([], []),
    ],
)
def test_d20_messages_of_an_older_version(path: Path, times: list[float], expected: list[float]) -> None:
    """They are as old as their times say, by the newest; nothing of that is on the word of the clock at the start of this version."""
    now = time.time_ns() // 1_000_000
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for seq, days in enumerate(times, 1):
            row = (seq, 1, seq, 1, seq, f"{seq}", "hello", now - days * DAY * 1000, 0, 0)
            connection.exec_driver_sql("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    engine.dispose()
    database.upgrade(path)
    ages = [-passed / DAY / 1000 for (passed,) in query(path, "SELECT passed FROM marks ORDER BY number")]
    assert ages == pytest.approx(expected, abs=0.01)
    assert query(path, "SELECT DISTINCT ran FROM marks") == ([(0,)] if times else [])
