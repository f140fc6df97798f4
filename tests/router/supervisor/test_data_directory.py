"""Tests of router.supervisor.data_directory."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from core.process import data_directory
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from router.supervisor import ownership
from router.supervisor.data_directory import (
    DataDirectory,
    create_data_directory,
    lock_data_directory,
)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that refusals do not take two seconds each."""
    monkeypatch.setattr(data_directory, "_PATIENCE", 0.1)


def lock(path: Path) -> DataDirectory:
    return asyncio.run(lock_data_directory(path))


def make(path: Path, layout: Layout) -> None:
    """The files of a layout, whatever is in them, and the layout."""
    for name in layout.shards():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("something")
    (path / "layout.json").write_bytes(layout.encode())


# -- Creating --


def test_it_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    create_data_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "a" / "b") == []
    create_data_directory(tmp_path / "a" / "b")


def test_one_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(
            ConfigurationError, match=r"can't write to the data directory .*FASTCHAT_DATA_DIR"
        ):
            create_data_directory(directory)


# -- Whose it is --


def used(path: Path) -> Path:
    """A data directory as a server leaves it."""
    create_data_directory(path)
    make(path, Layout(3, 2))
    (path / "lock").write_text("1\n")
    (path / "shards-3" / "shard-0.db-wal").touch()
    (path / "notes of the operator.txt").touch()
    for file in path.rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o600)
    create_data_directory(path)
    return path


def as_somebody_else(monkeypatch: pytest.MonkeyPatch) -> int:
    """From here on this process takes itself for one of another user."""
    other = os.geteuid() + 54_321
    monkeypatch.setattr(os, "geteuid", lambda: other)
    return other


def test_one_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made in it; the sentence says who owns it, who runs, and what to do."""
    used(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    owner = ownership.user_name(os.geteuid())
    us = as_somebody_else(monkeypatch)
    with pytest.raises(
        ConfigurationError,
        match=rf"data directory {tmp_path}/data belongs to another user, {owner}, and the server runs as {us}: start the server as {owner},"
        rf" or run `chown -R {us} {tmp_path}/data`; or choose another directory with FASTCHAT_DATA_DIR",
    ):
        create_data_directory(tmp_path / "data")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory someone else's")
def test_root_is_no_exception(tmp_path: Path) -> None:
    path = used(tmp_path / "data")
    os.chown(path, 12_345, 12_345)
    with pytest.raises(
        ConfigurationError, match="belongs to another user, 12345, and the server runs as root"
    ):
        create_data_directory(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file someone else's")
@pytest.mark.parametrize(
    "name", ["lock", "layout.json", "shards-3", "shards-3/shard-0.db", "shards-3/shard-0.db-wal"]
)
def test_a_file_of_another_user_in_it_is_refused(tmp_path: Path, name: str) -> None:
    """As a tool may have left it that was run by somebody else."""
    path = used(tmp_path / "data")
    os.chown(path / name, 12_345, 12_345)
    with pytest.raises(ConfigurationError, match=f"{path / name} belongs to another user, 12345"):
        create_data_directory(path)


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o720, 0o702])
@pytest.mark.parametrize("name", [".", "shards-3", "shards-3/shard-1.db"])
def test_one_that_others_can_write_to_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    path = used(tmp_path / "data")
    (path / name).chmod(mode)
    with pytest.raises(
        ConfigurationError, match=rf"is writable by other users \(mode {mode:04o}\): run `chmod go-w"
    ):
        create_data_directory(path)


def test_others_may_read_and_the_operator_may_keep_things_there(tmp_path: Path) -> None:
    path = used(tmp_path / "data")
    path.chmod(0o755)
    (path / "layout.json").chmod(0o644)
    (path / "notes of the operator.txt").chmod(0o666)
    create_data_directory(path)


def test_a_link_to_a_directory_elsewhere(tmp_path: Path) -> None:
    """Of our own; what counts is what it leads to. A link in the place of a file is refused."""
    path = used(tmp_path / "disk")
    (tmp_path / "data").symlink_to(path)
    create_data_directory(tmp_path / "data")
    path.chmod(0o777)
    with pytest.raises(ConfigurationError, match="is writable by other users"):
        create_data_directory(tmp_path / "data")
    path.chmod(0o700)
    (path / "shards-3" / "shard-1.db").rename(tmp_path / "elsewhere")
    (path / "shards-3" / "shard-1.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=r"shard-1\.db is a symbolic link"):
        create_data_directory(tmp_path / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link someone else's")
def test_a_link_that_another_user_can_turn_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(used(tmp_path / "disk"))
    os.chown(tmp_path / "data", 12_345, 12_345, follow_symlinks=False)
    with pytest.raises(ConfigurationError, match="is a symbolic link that belongs to another user, 12345"):
        create_data_directory(tmp_path / "data")


# -- The lock --


def test_a_second_one_is_refused_until_the_first_has_let_go(tmp_path: Path) -> None:
    first = lock(tmp_path)
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError) as refusal:
        lock(tmp_path)
    assert str(refusal.value) == (
        f"the data directory {tmp_path} is in use by a server or a tool (process {os.getpid()}): stop that process first;"
        " or choose another directory with FASTCHAT_DATA_DIR"
    )
    first.release()
    lock(tmp_path).release()


def test_it_lasts_as_long_as_a_process_that_got_it(tmp_path: Path) -> None:
    """Which may live longer than a supervisor that was killed, and would write into the files of the next one."""
    first = lock(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[first.lock]
    )
    first.release()
    with pytest.raises(ConfigurationError, match="is in use by a server or a tool"):
        lock(tmp_path)
    child.communicate()
    lock(tmp_path).release()


def test_it_waits_for_one_that_is_just_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_directory, "_PATIENCE", 60.0)
    first = lock(tmp_path)
    tries = 0
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            first.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    lock(tmp_path).release()
    assert tries == 3


def test_who_holds_it_is_left_out_when_nobody_knows(tmp_path: Path) -> None:
    first = lock(tmp_path)
    (tmp_path / "lock").write_text("rubbish")
    with pytest.raises(ConfigurationError, match="in use by a server or a tool: stop that"):
        lock(tmp_path)
    first.release()


def test_a_lock_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(ConfigurationError, match=r"can't open .*/lock: Is a directory; .*FASTCHAT_DATA_DIR"):
        lock(tmp_path)
    (tmp_path / "lock").rmdir()
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=r"can't open .*/lock: "):
        lock(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


# -- Whether it is prepared --


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path, -1)


def test_a_new_one_is_not_prepared(directory: DataDirectory) -> None:
    assert not directory.is_prepared(1)


def test_one_for_as_many_workers_is(directory: DataDirectory) -> None:
    make(directory.path, Layout(7, 3))
    assert directory.is_prepared(3)
    assert not directory.is_prepared(2)
    assert not directory.is_prepared(4)


def test_files_that_are_missing_and_files_that_are_left(directory: DataDirectory) -> None:
    layout = Layout(7, 3)
    make(directory.path, layout)
    (directory.path / "shards-6").mkdir()
    assert not directory.is_prepared(3)
    (directory.path / "shards-6").rename(directory.path / "other")
    assert directory.is_prepared(3)
    (directory.path / layout.shard(2)).unlink()
    assert not directory.is_prepared(3)


def test_a_layout_that_cannot_be_read(directory: DataDirectory) -> None:
    path = directory.path / "layout.json"
    path.write_text('{"format": 9}')
    with pytest.raises(ConfigurationError, match=rf"{path} can't be used: `format` is 9, but .*backup"):
        directory.is_prepared(1)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match=rf"can't read {path}: Is a directory"):
        directory.is_prepared(1)
