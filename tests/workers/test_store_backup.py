"""Tests of ``python -m workers.store backup`` and ``restore``. Beside a real server: ``tests/system/test_backup.py``."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from core.process.data_directory import read_layout
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from tests.workers.store_files import connect, content, layout_of, shards
from workers.store import backup as module
from workers.store.__main__ import main
from workers.store.backup import backup, restore

Tool = Callable[[Path, Path, StringIO], int]


def epochs(directory: Path) -> dict[str, str]:
    """User -> what cursors begin with."""
    found: dict[str, str] = {}
    for path in shards(directory):
        with closing(connect(path)) as connection:
            found |= dict(connection.execute("SELECT user_id, epoch FROM users").fetchall())
    return found


def refused(tool: Tool, directory: Path, target: Path) -> str:
    """The sentence; nothing that was begun may be left."""
    with pytest.raises(ConfigurationError) as refusal:
        tool(directory, target, StringIO())
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert not target.with_name(f"{target.name}.unfinished").exists()
    return sentence


def test_a_backup_is_a_data_directory_with_the_same_in_it(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "copy"
    assert main(["backup", str(directory), str(target)]) == 0
    assert content(target) == content(directory)
    assert epochs(target) == epochs(directory)
    assert layout_of(target) == Layout(1, 3)
    summary, last = capsys.readouterr().out.splitlines()
    assert summary == f"{target}: generation 1 for 3 workers; 10 users, 60 chats, 400 messages; no problem"
    assert last.startswith(f"the backup is {target}, ")


def test_it_is_files_without_logs_that_only_the_owner_reads(directory: Path, tmp_path: Path) -> None:
    for tool in (backup, restore):
        target = tmp_path / tool.__name__
        tool(directory, target, StringIO())
        modes = {
            str(path.relative_to(target)): stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*")
        }
        files = {"layout.json": 0o600, **{f"shards-1/shard-{worker}.db": 0o600 for worker in range(3)}}
        assert modes == {"shards-1": 0o700, **files}
        assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_what_is_only_in_the_log_is_copied(directory: Path, tmp_path: Path) -> None:
    with closing(connect(shards(directory)[1])) as server:
        server.execute("PRAGMA wal_autocheckpoint = 0")
        server.execute("UPDATE users SET display_name = 'Fresh from the log'")
        before = content(directory)
        backup(directory, tmp_path / "copy", StringIO())
    assert content(tmp_path / "copy") == before


def test_all_files_are_of_one_moment_and_the_server_goes_on(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written while the first file is copied is in none of them, and nobody who writes has to wait."""
    before = content(directory)
    copy_file = module._copy_file

    def write_and_copy(*arguments: Any) -> None:
        for path in shards(directory):
            with closing(connect(path)) as server:
                server.execute("PRAGMA busy_timeout = 0")
                server.execute("UPDATE users SET display_name = display_name || '!'")
        copy_file(*arguments)

    monkeypatch.setattr(module, "_copy_file", write_and_copy)
    assert backup(directory, tmp_path / "copy", StringIO()) == 0
    assert content(tmp_path / "copy") == before
    assert content(directory) != before


def test_a_restored_directory_has_the_same_but_for_the_cursors(directory: Path, tmp_path: Path) -> None:
    """Positions of the lost future are given again to other messages, so no cursor may be understood any more."""
    backup(directory, tmp_path / "copy", StringIO())
    assert main(["restore", str(tmp_path / "copy"), str(tmp_path / "one")]) == 0
    restore(tmp_path / "copy", tmp_path / "other", StringIO())
    seen: dict[str, set[str]] = {user: {epoch} for user, epoch in epochs(directory).items()}
    for name in ("one", "other"):
        for user, epoch in epochs(tmp_path / name).items():
            assert len(epoch) == 12
            assert epoch not in seen[user]
            seen[user].add(epoch)
    assert len({epoch for found in seen.values() for epoch in found}) == 3 * len(seen)
    column = 4
    for path in (*shards(tmp_path / "one"), *shards(directory)):
        with closing(connect(path)) as connection:
            assert connection.execute("PRAGMA table_info(users)").fetchall()[column + 1][1] == "epoch"
            connection.execute("UPDATE users SET epoch = ''")
    assert content(tmp_path / "one") == content(directory)


@pytest.mark.parametrize("tool", [backup, restore])
@pytest.mark.parametrize("what", ["a directory", "a file", "a link to nowhere"])
def test_a_target_that_exists_is_left_alone(directory: Path, tmp_path: Path, tool: Tool, what: str) -> None:
    target = tmp_path / "target"
    if what == "a directory":
        target.mkdir()
    elif what == "a file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    assert f"{target} is there already" in refused(tool, directory, target)
    assert what != "a file" or target.read_text() == "mine"


def test_wrong_places_are_sentences(directory: Path, tmp_path: Path) -> None:
    assert f"is inside {directory}" in refused(backup, directory, directory / "backup")
    assert "No such file or directory" in refused(backup, directory, tmp_path / "no" / "where")
    assert "is no data directory of FastChat" in refused(backup, tmp_path, tmp_path / "copy")
    assert "No such file or directory" in refused(backup, tmp_path / "nowhere", tmp_path / "copy")


def test_another_backup_that_is_not_finished_is_left_alone(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy.unfinished"
    other.mkdir()
    with pytest.raises(ConfigurationError, match="another backup or restore is running, or was interrupted"):
        backup(directory, tmp_path / "copy", StringIO())
    assert other.is_dir()


@pytest.mark.parametrize("damage", ["missing", "empty", "rubbish"])
def test_what_cannot_be_copied_leaves_nothing(directory: Path, tmp_path: Path, damage: str) -> None:
    path = shards(directory)[2]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"rubbish" * 5000 if damage == "rubbish" else b"")
    sentence = refused(backup, directory, tmp_path / "copy")
    assert ("not a database" if damage == "rubbish" else damage) in sentence
    assert os.listdir(tmp_path) == ["data"]


def test_a_copy_that_is_interrupted_is_removed(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "switch", interrupt)
    assert main(["backup", str(directory), str(tmp_path / "copy")]) == 130
    assert os.listdir(tmp_path) == ["data"]


def test_damage_is_copied_and_told(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(connect(shards(directory)[0])) as connection:
        connection.execute("DELETE FROM messages WHERE number = (SELECT max(number) - 5 FROM messages)")
    assert main(["backup", str(directory), str(tmp_path / "copy")]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "shards-1/shard-0.db" in told[0]
    assert told[-1].endswith("1 problems were found in it, see above")
    assert content(tmp_path / "copy") == content(directory)


def test_another_number_of_workers_meanwhile(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = iter([Layout(1, 3), Layout(1, 3), Layout(2, 5)])
    monkeypatch.setattr(module, "existing_layout", lambda _: next(layouts))
    assert "another number of workers" in refused(backup, directory, tmp_path / "copy")
    assert read_layout(directory) == Layout(1, 3)
