"""Tests of router.supervisor.run_directory."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.placement import WORKERS_MAX
from core.process.bus import bus_endpoint
from core.process.counting import counts_endpoint
from core.process.handover import endpoint
from core.process.settings import ConfigurationError
from core.process.succession import succession_endpoint
from router.operator.socket import OperatorSocket
from router.supervisor import run_directory
from router.supervisor.run_directory import RunDirectory
from router.supervisor.run_directory_watch import RunDirectoryWatch


def create(setting: Path | None, port: int = 8000) -> RunDirectory:
    return asyncio.run(run_directory.create_run_directory(setting, port))


@pytest.fixture(autouse=True)
def temporary(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary directory, for these tests."""
    monkeypatch.setattr("tempfile.tempdir", str(run_dir))
    monkeypatch.setattr(run_directory, "_PATIENCE", 0.1)
    return run_dir


def test_it_is_private_and_leaves_nothing_behind(temporary: Path) -> None:
    directory = create(None)
    assert directory.path.parent == temporary / f"fastchat-{os.geteuid()}" / "8000"
    for path in (directory.path, directory.path.parent, directory.path.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (directory.path / "socket").touch()
    directory.remove()
    assert list(temporary.iterdir()) == []


def test_two_servers_on_different_ports_do_not_meet(temporary: Path) -> None:
    one, two = create(None, 8000), create(None, 8001)
    one.remove()
    assert two.path.is_dir()
    two.remove()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_server_left_is_removed_and_its_names_are_not_used_again(temporary: Path) -> None:
    killed = create(None)
    (killed.path / "handover-0").touch()
    os.close(killed._lock)  # as the end of its process would
    second = create(None)
    assert second.path != killed.path
    assert os.listdir(second.path.parent) == [second.path.name]
    second.remove()


def test_one_that_is_in_use_is_refused(temporary: Path) -> None:
    first = create(temporary / "run")
    with pytest.raises(
        ConfigurationError, match=f"{temporary}/run is in use by another server: .*FASTCHAT_RUN_DIR"
    ):
        create(temporary / "run", 8001)
    assert first.path.is_dir()
    first.remove()


def test_servers_that_come_and_go_never_share_it(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes the directories away that the next is just about to use."""
    monkeypatch.setattr(run_directory, "_PATIENCE", 30.0)
    monkeypatch.setattr(run_directory, "_RETRY", 0.001)

    def come_and_go() -> None:
        for _ in range(40):
            directory = create(None)
            assert os.listdir(directory.path.parent) == [directory.path.name]
            directory.remove()

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(come_and_go) for _ in range(4)]:
            done.result()
    assert list(temporary.iterdir()) == []


def test_one_that_goes_between_opening_and_locking_is_made_anew(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a directory that has no name any more would be worth nothing."""
    flock = fcntl.flock
    others = iter([temporary / f"fastchat-{os.geteuid()}" / "8000"])

    def late(descriptor: int, operation: int) -> None:
        for base in others:
            base.rmdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    directory = create(None)
    assert directory.path.is_dir()
    directory.remove()


def test_nothing_else_in_a_directory_of_the_operator_is_touched(temporary: Path) -> None:
    mine = temporary / "mine"
    mine.mkdir()
    (mine / "precious").write_text("data")
    (mine / "run-dry").mkdir()
    directory = create(mine)
    assert directory.path.parent == mine
    directory.remove()
    assert sorted(os.listdir(mine)) == ["precious", "run-dry"]


def test_a_directory_that_did_not_exist_is_created_and_removed(temporary: Path) -> None:
    directory = create(temporary / "a" / "b")
    assert directory.path.is_dir()
    directory.remove()
    assert not (temporary / "a" / "b").exists()


@pytest.mark.parametrize("setting", [True, False])
def test_one_that_others_can_write_to_is_refused(temporary: Path, setting: bool) -> None:
    base = temporary / "run" if setting else temporary / f"fastchat-{os.geteuid()}"
    base.mkdir()
    base.chmod(0o777)
    with pytest.raises(ConfigurationError, match=r"is writable by other users"):
        create(base if setting else None)


def test_a_symbolic_link_is_refused(temporary: Path) -> None:
    """Someone else may have put it there, in a directory where everybody can write."""
    (temporary / "elsewhere").mkdir()
    (temporary / f"fastchat-{os.geteuid()}").symlink_to(temporary / "elsewhere")
    with pytest.raises(ConfigurationError, match=r"is not a directory"):
        create(None)
    assert list((temporary / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory someone else's")
def test_one_of_another_user_is_refused(temporary: Path) -> None:
    base = temporary / f"fastchat-{os.geteuid()}"
    base.mkdir(mode=0o700)
    os.chown(base, 12345, 12345)
    with pytest.raises(ConfigurationError, match=r"belongs to another user"):
        create(None)


def test_a_name_that_is_too_long_for_sockets_is_refused(temporary: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"bytes too long .*FASTCHAT_RUN_DIR"):
        create(temporary / ("x" * 100))
    assert list(temporary.iterdir()) == []


def test_in_the_longest_one_all_sockets_can_be_opened(temporary: Path) -> None:
    """Those of the last worker, and of any of its processes."""
    longest = ""
    for length in range(1, 100):
        name = "x" * length
        try:
            create(temporary / name).remove()
        except ConfigurationError:
            break
        longest = name
    directory = create(temporary / longest)
    worker = WORKERS_MAX - 1
    for path in (
        bus_endpoint(str(directory.path), worker, 2**64 - 1),
        counts_endpoint(str(directory.path), worker),
        endpoint(str(directory.path), worker),
        succession_endpoint(str(directory.path), worker),
    ):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
    directory.remove()


def test_a_place_that_cannot_be_used_is_a_sentence(temporary: Path) -> None:
    (temporary / "file").touch()
    with pytest.raises(ConfigurationError, match=r"can't use .*: Not a directory"):
        create(temporary / "file" / "run")


def test_a_watch_that_has_stopped_makes_nothing_again() -> None:
    """The end of the server removes the directory, which must not look like the work of somebody else."""

    async def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError(f"nobody asks: {request}")

    async def scenario() -> None:
        directory = await run_directory.create_run_directory(None, 8000)
        watch = RunDirectoryWatch(directory, OperatorSocket(directory.path / "operator", answer))
        await watch.stop()
        directory.remove()
        watch.check()
        assert (watch.problem, directory.path.exists()) == (None, False)

    asyncio.run(scenario())
