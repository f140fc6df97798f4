"""Tests of core.process.data_directory; how a server and a tool use it is tested with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.process import data_directory
from core.process.data_directory import (
    generations,
    locking,
    missing_shards,
    open_lock,
    read_layout,
    read_lock,
    write_lock,
)
from core.process.layout import Layout
from core.process.settings import ConfigurationError


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    """A lock file that is open, and locked."""
    lock = open_lock(tmp_path)
    assert list(locking(lock, tmp_path)) == []
    yield lock
    os.close(lock)


def test_the_lock_says_which_process_has_it(tmp_path: Path, lock: int) -> None:
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_of_a_server_says_where_its_run_directory_is(lock: int) -> None:
    assert read_lock(lock) == (os.getpid(), "")
    write_lock(lock, "/run/some where/run-12ab")
    assert read_lock(lock) == (os.getpid(), "/run/some where/run-12ab")
    write_lock(lock)
    assert read_lock(lock) == (os.getpid(), "")


@pytest.mark.parametrize(
    ("damage", "known"),
    [
        (b"", (None, "")),
        (b"\n", (None, "")),
        (b"x\ny\n", (None, "y")),
        (b"7", (7, "")),
        ("\u0667\n".encode(), (None, "")),
    ],
)
def test_a_lock_file_that_says_something_else(
    lock: int, damage: bytes, known: tuple[int | None, str]
) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, damage, 0)
    assert read_lock(lock) == known


def test_another_waits_and_is_refused(tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_directory, "_PATIENCE", 0.0)
    other = open_lock(tmp_path)
    try:
        with pytest.raises(
            ConfigurationError,
            match=rf"{tmp_path} is in use by a server or a tool \(process {os.getpid()}\): stop that process first$",
        ):
            list(locking(other, tmp_path))
    finally:
        os.close(other)


def test_another_gets_it_when_it_is_let_go_meanwhile(tmp_path: Path) -> None:
    first, second = open_lock(tmp_path), open_lock(tmp_path)
    list(locking(first, tmp_path))
    tries = locking(second, tmp_path)
    assert 0 < next(tries) < 1
    os.close(first)
    assert list(tries) == []
    os.close(second)


def test_a_lock_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(ConfigurationError, match=f"can't open {tmp_path}/lock: Is a directory"):
        open_lock(tmp_path)


def test_the_layout_is_read_or_refused(tmp_path: Path) -> None:
    assert read_layout(tmp_path) is None
    path = tmp_path / "layout.json"
    path.write_bytes(Layout(3, 2).encode())
    assert read_layout(tmp_path) == Layout(3, 2)
    path.write_text('{"format": 9}')
    with pytest.raises(ConfigurationError, match=f"{path} can't be used: `format` is 9, .*backup"):
        read_layout(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match=f"can't read {path}: Is a directory"):
        read_layout(tmp_path)


def test_which_files_are_there(tmp_path: Path) -> None:
    layout = Layout(3, 3)
    assert missing_shards(tmp_path, layout) == [
        "shards-3/shard-0.db",
        "shards-3/shard-1.db",
        "shards-3/shard-2.db",
    ]
    for name in ("shards-3", "shards-12", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "shards-4").touch()
    (tmp_path / layout.shard(0)).write_text("something")
    (tmp_path / layout.shard(1)).touch()
    assert missing_shards(tmp_path, layout) == ["shards-3/shard-1.db", "shards-3/shard-2.db"]
    assert generations(tmp_path) == [3, 12]
