"""workers.store.sqlite: what only the store on disk does (D20): it survives, it fails as a whole, and it commits in groups."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.chat.chat import Chat
from core.chat.store import nobody_waits
from core.chat.user import User
from core.placement import slot_of
from tests.workers.log_files import files_end_at, query
from tests.workers.process import PROJECT
from tests.workers.store_driver import DAY, NOON, StoreDriver
from workers.store import reads, rows, statements, writes
from workers.store.results import SLICE
from workers.store.sqlite import BATCH_MAX, COMMIT_INTERVAL, ENOUGH, FOLD_AFTER
from workers.store.writes import Batch


@pytest.fixture
def driver(path: Path) -> Iterator[StoreDriver]:
    driver = StoreDriver("sqlite", path)
    yield driver
    driver.close()


class TestReopen:
    def test_everything_is_there_again(self, path: Path) -> None:
        first = StoreDriver("sqlite", path)
        bob = first.user("bob", "Bobby")
        bob.acknowledges = True
        first.store.save_user(bob, nobody_waits)
        messages = first.append(bob, "alice", "1", "2", "3") + first.append(bob, "carol", "1", "4")
        first.settle()
        for seq in (1, 3, 5):
            bob.mailbox.acknowledge(seq)
        first.store.save_acknowledged(bob)
        first.mark_read(bob, "alice", 2)
        first.close()

        second = StoreDriver("sqlite", path)
        loaded = second.loaded("bob")
        assert (loaded.display_name, loaded.acknowledges) == ("Bobby", True)
        assert list(loaded.chats) == ["alice", "carol"]
        assert loaded.mailbox.epoch == bob.mailbox.epoch
        assert loaded.mailbox.head == 5
        assert [seq for seq in range(1, 6) if loaded.mailbox.is_acknowledged(seq)] == [1, 3, 5]
        found = second.read(loaded, 0)
        assert [message.frame for message in found] == [message.frame for message in messages]
        assert [message.read for message in found] == [True, True, False, False, False]
        # Numbers go on where they were.
        second.append(loaded, "dave", "1")
        second.append(second.user("erin"), "bob", "1")
        (repeat,) = second.append(loaded, "alice", "2")
        second.settle()
        assert second.log == [("1", 6), ("1", 1), ("2", "repeat")]
        assert repeat.original is not None
        assert repeat.original.read
        second.close()

    @pytest.mark.parametrize("often", [False, True])
    def test_what_was_called_back_survives_a_kill(self, path: Path, often: bool) -> None:
        """D20: the writer says which messages are committed, and is killed in the middle; also when it is nearly always in a fold."""
        script = """
            import sys
            from pathlib import Path
            sys.path.append(sys.argv[3])
            from tests.workers.store_driver import DAY, NOON, StoreDriver
            from workers.store import commit_log, sqlite

            if sys.argv[2] == "True":
                sqlite.FOLD_ROWS = commit_log.FOLD_ROWS = 16
                commit_log.SLICE_ROWS, commit_log.SEGMENT_BYTES = 4, 20_000
            driver = StoreDriver("sqlite", Path(sys.argv[1]), durability="fsync")
            users = [driver.user(name) for name in ("bob", "carol", "dave")]
            for number in range(1_000_000):
                driver.append(users[number % 3], "alice", f"m{number}", content="x" * (number % 900))
                driver.turn()
                if driver.log:
                    print(*(f"{name}={seq}" for name, seq in driver.log), flush=True)
                    driver.log.clear()
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(path), str(often), str(PROJECT)],
            stdout=subprocess.PIPE,
        ) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(30)]
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.readlines()[:-1]
        told = dict(word.decode().split("=") for line in said for word in line.split())
        assert len(told) >= 30
        driver = StoreDriver("sqlite", path)
        kept: dict[str, str] = {}
        for user_id in ("bob", "carol", "dave"):
            user, position = driver.loaded(user_id), 0
            while window := driver.read(user, position):
                assert [message.seq for message in window] == list(
                    range(position + 1, position + 1 + len(window))
                )
                kept |= {message.message_id: str(message.seq) for message in window}
                position = window[-1].seq
            assert position == user.mailbox.head
        assert told.items() <= kept.items()
        driver.close()
        assert query(path, "PRAGMA integrity_check") == [("ok",)]

    def test_the_log_is_moved_into_the_file_at_the_end(self, path: Path) -> None:
        driver = StoreDriver("sqlite", path)
        driver.append(driver.user("bob"), "alice", "1")
        driver.close()
        assert [file.name for file in path.parent.iterdir()] == ["shard.db"]


class TestGroups:
    """Group commit, pacing and slices."""

    def test_one_turn_is_one_commit(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", *(str(number) for number in range(200)))
        driver.store.save_user(bob, nobody_waits)
        driver.settle()
        stats = driver.store.stats()
        assert (stats["store_commits_total"], stats["store_rows_total"]) == (1, 200)
        assert sum(stats["commit_seconds"]["counts"]) == sum(stats["commit_rows"]["counts"]) == 1

    def test_a_batch_has_an_end(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", *(str(number) for number in range(3 * BATCH_MAX + 1)))
        driver.settle()
        assert driver.store.stats()["store_commits_total"] == 4

    def test_under_load_commits_are_paced(self, driver: StoreDriver, bob: User) -> None:
        began = time.monotonic()
        for number in range(100):
            driver.append(bob, "alice", str(number))
            driver.until(lambda number=number: len(driver.log) > number)  # type: ignore[misc]
        most = (time.monotonic() - began) / (COMMIT_INTERVAL - 0.001) + 1
        assert 100 == driver.store.stats()["store_commits_total"] <= most

    def test_alone_a_write_goes_at_once_and_the_next_waits_its_turn(
        self, driver: StoreDriver, bob: User
    ) -> None:
        driver.settle()
        driver.advance(10)
        now = driver.now
        driver.append(bob, "alice", "1")
        driver.store.flush(now)
        assert driver.store.stats()["store_waiting"] == 0
        driver.until(lambda: bool(driver.log))
        driver.append(bob, "alice", "2")
        driver.store.flush(now + COMMIT_INTERVAL / 2)
        assert driver.store.stats()["store_waiting"] == 1
        driver.store.flush(now + COMMIT_INTERVAL)
        assert driver.store.stats()["store_waiting"] == 0

    def test_reads_do_not_wait_for_the_next_commit(self, driver: StoreDriver, bob: User) -> None:
        driver.settle()
        driver.advance(10)
        now = driver.now
        driver.append(bob, "alice", "1")
        driver.store.flush(now)
        driver.until(lambda: bool(driver.log))
        found: list[object] = []
        driver.store.load("bob", lambda user, failure, now: found.append(user))
        driver.append(bob, "alice", "2")
        driver.store.flush(now)
        assert driver.store.stats()["store_waiting"] == 1, "the write still waits"
        driver.until(lambda: bool(found))

    def test_many_do_not_wait(self, driver: StoreDriver, bob: User) -> None:
        driver.settle()
        driver.advance(10)
        now = driver.now
        driver.append(bob, "alice", "1")
        driver.store.flush(now)
        driver.until(lambda: bool(driver.log))
        driver.append(bob, "alice", *(str(number) for number in range(2, 1 + ENOUGH)))
        driver.store.flush(now)
        assert driver.store.stats()["store_waiting"] == ENOUGH - 1
        driver.append(bob, "alice", "one more")
        driver.store.flush(now)
        assert driver.store.stats()["store_waiting"] == 0

    def test_callbacks_come_in_slices(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", *(str(number) for number in range(BATCH_MAX)))
        driver.turn()
        while not driver.log:
            driver.turn()
        assert len(driver.log) == SLICE
        driver.append(bob, "alice", "not before all others are told")
        for told in range(2 * SLICE, BATCH_MAX + 1, SLICE):
            assert driver.turn() is (told < BATCH_MAX)
            assert len(driver.log) == told
        driver.settle()
        assert driver.log[-1] == ("not before all others are told", BATCH_MAX + 1)
        assert max(driver.groups) <= SLICE

    def test_acknowledgements_are_collected(self, driver: StoreDriver) -> None:
        users = [driver.user(f"user-{number}") for number in range(200)]
        for user in users:
            driver.append(user, "alice", *map(str, range(5)))
        driver.settle()
        before = driver.store.stats()["store_commits_total"]
        for seq in range(1, 6):
            for user in users:
                user.mailbox.acknowledge(seq)
                driver.store.save_acknowledged(user)
            driver.turn()
        assert driver.store.stats()["store_commits_total"] == before
        driver.advance(0.9)
        driver.until(lambda: not any(user.pins for user in users))
        assert driver.store.stats()["store_commits_total"] == before + 1
        driver.fold()
        assert query(driver.path, "SELECT DISTINCT acknowledged_through FROM users") == [(5,)]


class TestFailure:
    """A disk that is full, or locked: everything fails as a whole, and it is tried again."""

    def test_a_full_disk(self, driver: StoreDriver, bob: User, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        driver.append(bob, "alice", "1", "2", "3")
        driver.settle()
        bob.mailbox.acknowledge(3)
        bob.mailbox.acknowledge(1)
        with files_end_at(Path(f"{driver.path}-wal").stat().st_size):
            driver.store.save_acknowledged(bob, driver.done("acknowledged"))
            driver.append(bob, "alice", *(f"lost-{number}" for number in range(300)), content="x" * 900)
            carol = driver.user("carol")
            carol.chats["bob"] = Chat("bob", "Bob")
            driver.store.save_chat(carol, carol.chats["bob"], driver.done("carol"))
            driver.until(lambda: len(driver.log) == 305)
            failures = driver.log[3:]
            assert [name for name, _ in failures] == [
                *("acknowledged", *(f"lost-{number}" for number in range(300)), "carol")
            ]
            assert driver.store.failure is not None
            assert driver.store.stats()["store_failing"] == 1
            assert all("storage" in failure for _, failure in failures)
        # It recovers without anybody writing anything.
        driver.advance(1.1)
        driver.until(lambda: driver.store.failure is None)
        assert query(driver.path, "SELECT count(*) FROM messages") == [(3,)]
        assert query(driver.path, "SELECT user_id FROM users") == [("bob",)]
        # What failed may be sent again, and takes the next positions (D10, D13).
        driver.append(bob, "alice", "lost-0")
        driver.settle()
        assert driver.log[-1] == ("lost-0", 4)
        # Acknowledgements were kept.
        driver.advance(1)
        driver.until(lambda: bob.pins == 0)
        mailbox = driver.loaded("bob").mailbox
        assert [seq for seq in (1, 2, 3) if mailbox.is_acknowledged(seq)] == [1, 3]
        assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
        assert driver.store.stats()["store_failures_total"] >= 1

    def test_somebody_holds_the_file(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        driver.fold()
        with closing(sqlite3.connect(driver.path, isolation_level=None)) as tool:
            tool.execute("BEGIN IMMEDIATE")
            assert driver.loaded("bob").mailbox.head == 1, "reading works"
            driver.append(bob, "alice", "2")
            driver.store.save_user(driver.user("carol"), driver.done("carol"))
            driver.settle()
            assert driver.log == [("1", 1), ("2", 2), "carol"], "so does committing, to the log"
            answers: list[Any] = []
            driver.store.load("bob", lambda found, failure, now: answers.append((found, failure)))
            driver.until(lambda: bool(answers))
            assert answers[0][0] is None
            assert "locked" in answers[0][1], "what is in the log only can't be read"
            assert driver.store.failure is not None
        driver.advance(1.1)
        driver.until(lambda: driver.store.failure is None)
        assert driver.loaded("bob").mailbox.head == 2
        driver.append(bob, "alice", "2", "3")
        driver.settle()
        assert driver.log[3:] == [("2", "repeat"), ("3", 3)]

    def test_a_fold_that_fails_is_made_later(self, driver: StoreDriver, bob: User) -> None:
        """Meanwhile the server says so, and goes on committing."""
        with closing(sqlite3.connect(driver.path, isolation_level=None)) as tool:
            tool.execute("BEGIN IMMEDIATE")
            driver.append(bob, "alice", "1")
            driver.settle()
            driver.advance(FOLD_AFTER)
            driver.until(lambda: driver.store.failure is not None)
            driver.append(bob, "alice", "2")
            driver.settle()
            assert driver.store.failure is not None
        assert driver.log == [("1", 1), ("2", 2)]
        driver.advance(1.1)
        driver.until(lambda: driver.store.failure is None)
        driver.fold()
        assert query(driver.path, "SELECT seq FROM messages") == [(1,), (2,)]

    def test_reads_fail_with_a_sentence(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        driver.settle()
        query(driver.path, "ALTER TABLE messages RENAME TO elsewhere")
        answers: list[Any] = []
        store = driver.store
        store.load("bob", lambda found, failure, now: answers.append((found, failure)))
        store.find(bob, None, "1", lambda found, failure, now: answers.append((found, failure)))
        store.read(bob, 0, lambda found, failure, now: answers.append((found, failure)))
        store.history("bob", "alice", None, 9, lambda found, failure, now: answers.append((found, failure)))
        driver.until(lambda: len(answers) == 4)
        assert [found for found, _ in answers] == [None, [], [], []]
        assert all("no such table" in failure for _, failure in answers)
        assert bob.pins == 0
        query(driver.path, "ALTER TABLE elsewhere RENAME TO messages")
        driver.advance(1.1)
        driver.until(lambda: driver.store.failure is None)
        assert len(driver.read(bob, 0)) == 1

    def test_a_bug_in_the_thread_ends_nothing(
        self, driver: StoreDriver, bob: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bug(self: Batch) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(Batch, "record", bug)
            driver.append(bob, "alice", "1")
            driver.settle()
        assert "bug" in driver.log[0][1]
        driver.append(bob, "alice", "1")
        driver.settle()
        assert driver.log[1] == ("1", 1)

    def test_close_does_not_wait_for_ever(self, path: Path) -> None:
        driver = StoreDriver("sqlite", path)
        with closing(sqlite3.connect(path, isolation_level=None)) as tool:
            tool.execute("BEGIN IMMEDIATE")
            driver.append(driver.user("bob"), "alice", "1")
            # The other program does not let go before this returns.
            driver.store.close(0.1)
        driver.loop.close()
        again = StoreDriver("sqlite", path)
        assert again.loaded("bob").mailbox.head == 1, "the commit log has what was committed"
        again.close()

    def test_what_a_failed_commit_left_in_the_log_is_removed(self, driver: StoreDriver, bob: User) -> None:
        """A disk may say that it could not sync, and have the bytes all the same when the file is opened again."""
        driver.append(bob, "alice", "1")
        driver.fold()
        ghost = "SELECT number + 1, mailbox, seq + 1, chat, id_hash + 1, 'ghost', content, sent_at, 0, lamport FROM messages"
        query(driver.path, f"INSERT INTO messages {ghost}")
        query(driver.path, f"INSERT INTO messages {ghost} WHERE seq = 2")
        driver.append(bob, "alice", "2")
        driver.settle()
        assert driver.log == [("1", 1), ("2", 2)]
        assert [message.message_id for message in driver.read(bob, 0)] == ["1", "2"]

    def test_what_a_failed_commit_has_of_somebody_who_came_again_is_removed(
        self, driver: StoreDriver, bob: User
    ) -> None:
        """The same of a user; in a commit that does not go through the commit log."""
        query(driver.path, "INSERT INTO users VALUES (99, 'bob', 0, 'ghost', 0, 'g', 0, 0, 0, 0, 0, 0)")
        outcome: list[str | None] = []
        driver.store.forget("nobody")
        driver.store.save_user(bob, lambda failure, now: outcome.append(failure))
        driver.settle()
        assert outcome == [None]
        assert query(driver.path, "SELECT number, display_name FROM users WHERE user_id = 'bob'") == [
            (bob.key, bob.display_name)
        ]


class TestRepeats:
    """D10, where the index can't tell two ids apart."""

    def test_ids_of_the_same_hash(
        self, driver: StoreDriver, bob: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (rows, writes, reads):
            monkeypatch.setattr(module, "id_hash", lambda message_id: 7)
        first, second = driver.append(bob, "alice", "1", "2")
        driver.append(bob, "carol", "1")
        driver.settle()
        (third,) = driver.append(bob, "alice", "3")
        driver.settle()
        assert driver.log == [("1", 1), ("2", "repeat"), ("1", 2), ("3", "repeat")]
        for message in (second, third):
            assert message.original is not None
            assert message.original.frame == first.frame != message.frame
        assert driver.find(bob, "alice", "2") == []
        assert [message.message_id for message in driver.find(bob, "alice", "1")] == ["1"]


def test_history_of_a_large_chat(driver: StoreDriver, bob: User) -> None:
    """D14: a large chat is read back through the mailbox, a small one as a whole."""
    messages = driver.append(bob, "alice", *(f"a{number}" for number in range(1100)))
    driver.append(bob, "carol", *(f"c{number}" for number in range(50)))
    driver.settle()
    expected = [(message.seq, message.frame) for message in reversed(messages)]
    assert driver.history("bob", "alice", limit=100) == expected[:100]
    assert driver.history("bob", "alice", before=expected[99][0], limit=100) == expected[100:200]
    assert driver.history("bob", "alice", before=4) == expected[-3:]


@pytest.mark.parametrize("small_chat", [0, 1000])
def test_messages_from_before_there_were_counts(
    driver: StoreDriver, bob: User, monkeypatch: pytest.MonkeyPatch, small_chat: int
) -> None:
    """D14: they are ordered by their times, and before all that have counts; the mailbox goes on from the count of its newest message."""
    monkeypatch.setattr(statements, "SMALL_CHAT", small_chat)
    driver.append(bob, "alice", "1", "2", "3", "4")
    driver.fold()
    query(driver.path, "UPDATE messages SET lamport = NULL, sent_at = 1000 * seq WHERE seq < 3")
    found = driver.ask(driver.store.history, "bob", "alice", None, 9)
    assert [(seq, lamport) for seq, lamport, _ in found] == [
        *((4, 4), (3, 3), (2, 2000 - 10**15), (1, 1000 - 10**15))
    ]
    assert driver.loaded("bob").mailbox.lamport == 4
    query(driver.path, "UPDATE messages SET lamport = NULL")
    assert driver.loaded("bob").mailbox.lamport == 0


def test_positions_without_a_message_are_passed_over(driver: StoreDriver, bob: User) -> None:
    """An operator may have deleted for good what somebody sent; its positions stay."""
    driver.append(bob, "alice", *(str(number) for number in range(600)))
    driver.fold()
    query(driver.path, "UPDATE messages SET chat = 0, id_hash = seq, message_id = '' WHERE seq < 600")
    assert [message.seq for message in driver.read(bob, 0)] == [600]
    assert driver.find(bob, None, "") == []


def test_a_time_in_the_future_does_not_stop_retention(tmp_path: Path) -> None:
    """The clock of a sender's shard was wrong once: a message is as old as it is."""
    driver = StoreDriver("sqlite", tmp_path / "shard.db", retention_days=1)
    bob = driver.user("bob")
    driver.store.append(driver.message(bob, "alice", "1", sent_at=NOON + 1000 * DAY))
    driver.append(bob, "alice", "2", "3")
    driver.settle()
    driver.later(1.5 * DAY)
    assert driver.purged == [("bob", 3)]
    assert driver.store.stats()["store_purged_total"] == 3
    driver.close()


def test_slots_are_those_of_the_users(driver: StoreDriver) -> None:
    """What a change of WORKERS goes by."""
    driver.store.save_user(driver.user("bob"), nobody_waits)
    driver.fold()
    assert query(driver.path, "SELECT user_id, slot FROM users") == [("bob", slot_of("bob"))]
