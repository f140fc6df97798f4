"""workers.store.prepare, reshard and data_directory: what holds is what was there, whatever happens in between.

For how long a million messages take: ``python -m tests.workers.test_reshard 1000000``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.placement import Placement, slot_of
from core.process.data_directory import generations
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from tests.workers import store_files
from tests.workers.process import PROJECT
from tests.workers.store_files import DAY_MS, START, connect, content, fill, layout_of, shards, times
from workers.store import database, old_files, reshard, tools
from workers.store import prepare as preparing
from workers.store.check import check
from workers.store.data_directory import existing_layout, locked, shard_file
from workers.store.prepare import prepare

#: What `store_files.fill` has as the greatest distance between a message and one that comes later in a file and was sent before.
DISORDER_MS = 2


def is_sound(directory: Path) -> None:
    """`check` finds nothing, and there is nothing but what holds."""
    found = StringIO()
    assert check(directory, found) == 0, found.getvalue()
    layout = layout_of(directory)
    assert {path.name for path in directory.iterdir()} - {"lock"} == {"layout.json", layout.directory}
    # Reading a file makes an empty log beside it.
    logs = {f"{layout.shard_name(worker)}-{suffix}" for suffix in ("wal", "shm") for worker in range(64)}
    files = {layout.shard_name(worker) for worker in range(layout.workers)}
    assert {path.name for path in (directory / layout.directory).iterdir()} - logs == files


def one(path: Path, statement: str, *parameters: Any) -> Any:
    """The first column of the first row."""
    with closing(connect(path)) as connection:
        return connection.execute(statement, parameters).fetchone()[0]


def change(path: Path, statement: str, *parameters: Any) -> None:
    """Change a file behind everybody's back."""
    with closing(connect(path)) as connection:
        assert connection.execute(statement, parameters).rowcount


# -- New directories --


def test_a_new_directory_gets_empty_files(tmp_path: Path) -> None:
    assert prepare(tmp_path, 3) == Layout(1, 3)
    is_sound(tmp_path)
    for path in shards(tmp_path):
        assert path.stat().st_mode & 0o777 == 0o600
        assert one(path, "SELECT count(*) FROM messages") == 0
        assert one(path, "PRAGMA journal_mode") == "wal"
    assert (tmp_path / "shards-1").stat().st_mode & 0o777 == 0o700


def test_one_that_is_prepared_stays_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path, 2, users=5, messages=20)
    before = {path: path.stat().st_mtime_ns for path in [*shards(tmp_path), tmp_path / "layout.json"]}
    assert prepare(tmp_path, 2) == Layout(1, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_was_left_of_a_first_start_is_removed(tmp_path: Path) -> None:
    """One that was killed before there was a layout: with empty files, a file without tables, and one that is not even a file yet."""
    prepare(tmp_path, 3)
    (tmp_path / "layout.json").unlink()
    (tmp_path / "shards-1" / "shard-1.db").write_bytes(b"")
    change(tmp_path / "shards-1" / "shard-2.db", "DELETE FROM alembic_version")
    (tmp_path / "shards-1" / "shard-0.db").unlink()
    assert prepare(tmp_path, 2) == Layout(1, 2)
    is_sound(tmp_path)


def test_users_without_a_layout_are_not_thrown_away(tmp_path: Path) -> None:
    """Somebody has deleted it, or forgot it in a backup: it says what to write there."""
    ids = fill(tmp_path, 3, users=9, messages=9)
    layout = (tmp_path / "layout.json").read_text()
    (tmp_path / "layout.json").unlink()
    with pytest.raises(
        ConfigurationError, match=r"layout.json is missing, and there are users in .*backup"
    ) as refusal:
        prepare(tmp_path, 3)
    assert str(refusal.value).endswith(f"with the content {layout.strip()}")
    (tmp_path / "layout.json").write_text(str(refusal.value).rpartition("with the content ")[2])
    assert content(tmp_path).users.keys() == set(ids)


def test_a_file_that_cannot_be_read_may_be_precious(tmp_path: Path) -> None:
    prepare(tmp_path, 1)
    (tmp_path / "layout.json").unlink()
    (tmp_path / "shards-1" / "shard-0.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(ConfigurationError, match=r"layout\.json is missing"):
        prepare(tmp_path, 1)


def test_other_things_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shards-1.backup").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "shards-9").symlink_to(tmp_path / "shards-1.backup")
    prepare(tmp_path, 1)
    prepare(tmp_path, 2)
    assert {"shards-1.backup", "notes.txt", "shards-9"} < {path.name for path in tmp_path.iterdir()}


# -- Another number of workers --


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=3),
    st.integers(0, 40),
    st.integers(0, 300),
    st.sampled_from([40, 50_000]),
    st.integers(),
)
def test_nothing_is_lost_and_nothing_is_changed(
    counts: list[int], users: int, messages: int, slice_rows: int, seed: int
) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(old_files, "SLICE_ROWS", slice_rows)
        directory = Path(name)
        fill(directory, counts[0], users, messages if users > 1 else 0, seed)
        before = content(directory)
        for workers in counts[1:]:
            prepare(directory, workers)
            assert content(directory) == before
            is_sound(directory)
            in_order_and_dense(directory)


def in_order_and_dense(directory: Path) -> None:
    """Messages lie in the order of time, and numbers count from 1: otherwise they would grow with each change."""
    for path in shards(directory):
        sent = list(times(path))
        assert all(later >= earlier - DISORDER_MS for earlier, later in pairwise(sent))
        for table in ("users", "chats", "messages"):
            dense = f"SELECT coalesce(max(number), 0) = count(*) FROM {table}"  # noqa: S608
            assert one(path, dense), table


@pytest.mark.slow
def test_1_3_8_2(tmp_path: Path) -> None:
    fill(tmp_path, 1, users=60, messages=3000)
    before = content(tmp_path)
    for generation, workers in enumerate((3, 8, 2), 2):
        assert prepare(tmp_path, workers) == Layout(generation, workers)
        assert content(tmp_path) == before
        is_sound(tmp_path)
        placement = Placement(workers)
        for worker, path in enumerate(shards(tmp_path)):
            with closing(connect(path)) as connection:
                owners = {
                    placement.worker_of(user) for (user,) in connection.execute("SELECT user_id FROM users")
                }
            assert owners == {worker}


@pytest.mark.slow
def test_64_files_are_merged_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than SQLite can have attached at once."""
    monkeypatch.setattr(old_files, "SLICE_ROWS", 100)
    fill(tmp_path, 64, users=200, messages=1000)
    before = content(tmp_path)
    prepare(tmp_path, 1)
    assert content(tmp_path) == before
    in_order_and_dense(tmp_path)


def test_times_of_sending_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D20: a clock that was wrong for a moment moves no message: its age is what the marks say."""
    monkeypatch.setattr(old_files, "SLICE_ROWS", 100)
    fill(tmp_path, 3, users=30, messages=600)
    orders = []
    for name in ("right", "wrong"):
        directory = tmp_path / name
        shutil.copytree(tmp_path, directory, ignore=shutil.ignore_patterns("right", "wrong"))
        if name == "wrong":
            change(shards(directory)[1], "UPDATE messages SET sent_at = ? WHERE number IN (5, 80)", START * 3)
            change(shards(directory)[2], "UPDATE messages SET sent_at = 0 WHERE number > 100")
        prepare(directory, 1)
        with closing(connect(shards(directory)[0])) as connection:
            orders.append(connection.execute("SELECT message_id FROM messages ORDER BY number").fetchall())
    assert orders[0] == orders[1]


def ages(directory: Path) -> dict[str, tuple[int, int]]:
    """message id -> how much time has passed since it was stored, and how much of that a server ran; at least."""
    found: dict[str, tuple[int, int]] = {}
    for path in shards(directory):
        with closing(connect(path)) as connection:
            ((passed, ran, owed),) = connection.execute("SELECT passed, ran, owed FROM clock")
            marks = connection.execute("SELECT number, passed, ran FROM marks ORDER BY number").fetchall()
            assert all(
                earlier[1:] <= later[1:] and earlier[2] <= later[2] for earlier, later in pairwise(marks)
            )
            for number, message_id in connection.execute("SELECT number, message_id FROM messages"):
                mark = next((mark for mark in marks if mark[0] >= number), (0, passed + owed, ran))
                found[message_id] = (passed - mark[1], ran - mark[2])
    return found


@pytest.mark.parametrize("slice_rows", [40, pytest.param(50_000, marks=pytest.mark.slow)])
def test_d20_ages_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice_rows: int) -> None:
    """No message is older after it; nor younger by more than to the next mark of any file. Each old file has a clock of its own."""
    monkeypatch.setattr(old_files, "SLICE_ROWS", slice_rows)
    fill(tmp_path, 3, users=30, messages=600)
    week = 7 * DAY_MS
    change(
        shards(tmp_path)[0],
        f"UPDATE clock SET passed = passed + {week}, ran = ran + {week}, owed = 1000, wall = wall + 1",  # noqa: S608
    )
    change(shards(tmp_path)[1], "UPDATE clock SET owed = 500, wall = NULL")
    change(shards(tmp_path)[2], "UPDATE clock SET owed = 700")
    for path in shards(tmp_path):
        change(path, "DELETE FROM marks WHERE number % 5 = 0 OR number > 180")
    before = ages(tmp_path)
    for workers in (1, 2, 3):
        prepare(tmp_path, workers)
        after = ages(tmp_path)
        assert after.keys() == before.keys()
        assert all(after[name][0] <= age and after[name][1] <= ran for name, (age, ran) in before.items())
        assert all(after[name][0] >= age - DAY_MS / 4 for name, (age, _) in before.items() if age > DAY_MS)
    for path in shards(tmp_path):
        assert one(path, "SELECT owed FROM clock") == 500
        assert one(path, "SELECT wall FROM clock") == START + 40 * DAY_MS + 1


def test_the_rows_of_a_mailbox_stay_in_their_order(tmp_path: Path) -> None:
    """Retention removes the first rows of a file, and says that all positions up to theirs are gone."""
    fill(tmp_path, 2, users=6, messages=400)
    prepare(tmp_path, 3)
    prepare(tmp_path, 1)
    with closing(connect(shards(tmp_path)[0])) as connection:
        rows = connection.execute("SELECT mailbox, seq FROM messages ORDER BY number").fetchall()
    last: dict[int, int] = {}
    for mailbox, seq in rows:
        assert seq > last.get(mailbox, 0)
        last[mailbox] = seq


def test_what_is_only_in_the_log_comes_along(tmp_path: Path) -> None:
    """As it is after all processes were killed: nobody has moved the log into the file."""
    alive, crashed = tmp_path / "alive", tmp_path / "crashed"
    alive.mkdir()
    fill(alive, 2, users=10, messages=100)
    with closing(connect(shards(alive)[0])) as first, closing(connect(shards(alive)[1])) as second:
        for connection in (first, second):
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("UPDATE messages SET content = content || '!'")
        shutil.copytree(alive, crashed, ignore=shutil.ignore_patterns("*-shm"))
        assert all(Path(f"{path}-wal").stat().st_size for path in shards(crashed))
        expected = content(alive)
    prepare(crashed, 3)
    after = content(crashed)
    assert after == expected
    assert {row[4][-1] for box in after.mailboxes.values() for row in box} == {"!"}


def test_tombstones_come_along(tmp_path: Path) -> None:
    fill(tmp_path, 3, users=12, messages=200)
    for path in shards(tmp_path):
        change(
            path,
            "UPDATE messages SET chat = 0, id_hash = random(), message_id = '', content = '' WHERE seq = 4",
        )
    before = content(tmp_path)
    prepare(tmp_path, 2)
    assert content(tmp_path) == before
    assert one(shards(tmp_path)[0], "SELECT count(*) FROM messages WHERE chat = 0") > 0


def test_old_tables_are_upgraded_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 2, users=4, messages=10)
    upgraded: list[str] = []

    def upgrade(path: Path) -> None:
        upgraded.append(str(path.relative_to(tmp_path)))
        database.upgrade(path)

    monkeypatch.setattr(reshard, "upgrade", upgrade)
    prepare(tmp_path, 3)
    assert upgraded == ["shards-1/shard-0.db", "shards-1/shard-1.db"]


# -- What can't be done leaves everything as it was --


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """One for two workers, which a test fails to change; it holds still, and nothing else is left."""
    fill(tmp_path, 2, users=10, messages=100)
    yield tmp_path
    assert existing_layout(tmp_path) == Layout(1, 2)
    assert generations(tmp_path) == [1]


def refused(directory: Path, workers: int = 3) -> str:
    """The sentence with which it is refused."""
    with pytest.raises(ConfigurationError) as refusal:
        prepare(directory, workers)
    sentence = str(refusal.value)
    assert str(directory) in sentence
    assert "\n" not in sentence
    return sentence


def test_a_full_disk_is_found_out_before(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(directory)
    usage = shutil.disk_usage(directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200_000))
    assert "takes up to 0.6 MB, and 0.2 MB are free; the server still starts with WORKERS=2" in refused(
        directory
    )
    assert content(directory) == before


def test_a_disk_that_gets_full_meanwhile(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    before = content(directory)
    monkeypatch.setattr(preparing, "sync", full)
    assert "for 3 workers: No space left on device" in refused(directory)
    assert content(directory) == before


def test_a_damaged_file(directory: Path) -> None:
    path = shards(directory)[1]
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 3 * 4096)
    assert "malformed" in refused(directory)


def test_a_file_that_is_cut_off(directory: Path) -> None:
    path = shards(directory)[0]
    os.truncate(path, path.stat().st_size // 2)
    assert "malformed" in refused(directory)


def test_a_file_that_is_none(directory: Path) -> None:
    shards(directory)[0].write_bytes(b"not a database at all" * 1000)
    assert "file is not a database" in refused(directory)


def test_a_file_that_is_missing(directory: Path) -> None:
    shards(directory)[0].unlink()
    assert "shard-0.db is missing: restore the data directory from a backup" in refused(directory)
    shards(directory)[1].unlink()
    assert "shard-0.db is missing, and 1 more files are missing or empty: restore" in refused(directory)
    shards(directory)[0].touch()
    said = refused(directory)
    assert "shard-0.db is empty, and 1 more files are" in said, "opened, it would be made anew"
    shards(directory)[0].unlink()
    # And not even what is left over is touched, since it may be what is missing.
    (directory / "shards-5").mkdir()
    assert "is missing" in refused(directory)
    (directory / "shards-5").rmdir()


def test_a_message_that_belongs_to_nobody(directory: Path) -> None:
    """It could only be thrown away, and that is for a person to decide."""
    change(shards(directory)[0], "UPDATE messages SET mailbox = 12345 WHERE number = 1")
    sentence = refused(directory)
    assert "100 messages before and 99 after" in sentence
    assert "the server still starts with WORKERS=2" in sentence


def test_tables_of_a_newer_version(directory: Path) -> None:
    change(shards(directory)[0], "UPDATE alembic_version SET version_num = '9999'")
    assert "9999" in refused(directory)


def test_a_file_that_somebody_has_open(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person with sqlite3, who reads: the log can't be moved, and what is only in there would be lost."""
    monkeypatch.setattr(tools, "_BUSY_PATIENCE", 0.05)
    path = shards(directory)[0]
    with closing(connect(path)) as reader, closing(connect(path)) as writer:
        writer.execute("UPDATE users SET seen_at = 1")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM users").fetchone()
        writer.execute("UPDATE users SET seen_at = 2")
        assert "another program has the file open" in refused(directory)


# -- What workers and tools ask --


def test_a_worker_finds_its_file_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is no data directory of FastChat: it has no layout.json"):
        shard_file(tmp_path, 0, 2)
    prepare(tmp_path, 2)
    assert shard_file(tmp_path, 1, 2) == tmp_path / "shards-1" / "shard-1.db"
    with pytest.raises(ConfigurationError, match="are for 2 workers, not for 3"):
        shard_file(tmp_path, 1, 3)
    (tmp_path / "shards-1" / "shard-1.db").unlink()
    with pytest.raises(ConfigurationError, match=r"shard-1.db is missing"):
        shard_file(tmp_path, 1, 2)


def test_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.process.data_directory._PATIENCE", 0.05)
    with locked(tmp_path):
        with (
            pytest.raises(
                ConfigurationError, match=rf"in use by a server or a tool \(process {os.getpid()}\)"
            ),
            locked(tmp_path),
        ):
            pass
        # The same open file, as a supervisor hands it on, and another one.
        other = os.open(tmp_path / "lock", os.O_RDWR)
        with pytest.raises(ConfigurationError, match="can't lock"), locked(tmp_path, other):
            pass
        os.close(other)
    inherited = os.open(tmp_path / "lock", os.O_RDWR)
    with locked(tmp_path, inherited), locked(tmp_path, inherited):
        pass
    os.close(inherited)
    with (
        open(PROJECT / "README.md") as wrong,
        pytest.raises(ConfigurationError, match="is not the lock of"),
        locked(tmp_path, wrong.fileno()),
    ):
        pass


def test_slots_are_what_decides(tmp_path: Path) -> None:
    """And not where a user was found: so one that was misplaced comes right."""
    ids = fill(tmp_path, 2, users=10, messages=30)
    prepare(tmp_path, 3)
    with closing(connect(shards(tmp_path)[0])) as connection:
        for user, slot in connection.execute("SELECT user_id, slot FROM users"):
            assert user in ids
            assert slot == slot_of(user)


def measure(messages: int) -> None:
    """Print how long it takes."""
    with tempfile.TemporaryDirectory(dir=PROJECT) as name:
        directory = Path(name)
        store_files.fill(directory, 1, users=messages // 50, messages=messages)
        size = sum(path.stat().st_size for path in shards(directory))
        print(f"{messages:,} messages in {size / 1e6:,.0f} MB")
        for workers in (3, 8, 2, 64, 1):
            before, old = time.monotonic(), layout_of(directory).workers
            prepare(directory, workers)
            print(f"from {old} to {workers} workers: {time.monotonic() - before:.1f} s")


if __name__ == "__main__":
    measure(int(sys.argv[1]))
