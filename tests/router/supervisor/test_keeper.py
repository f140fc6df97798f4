"""Tests of the keeper, the real process, and of deposits. What becomes of a server is in ``tests/system/test_takeover.py``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.supervisor.deposit import (
    END,
    TAKEN,
    close_all,
    keeper_endpoint,
    receive_deposit,
    send_deposit,
)
from tests.started_processes import python_path
from tests.system.harness import wait_until

TIMEOUT = 20.0


def pair() -> tuple[socket.socket, socket.socket]:
    found = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for each in found:
        each.settimeout(TIMEOUT)
    return found


@pytest.mark.parametrize("count", [0, 1, 200, 201, 450])
def test_a_deposit_comes_as_it_was_sent(count: int) -> None:
    """The descriptors are others, of the same files in the same order, and no program inherits them."""
    files = [os.memfd_create(str(number)) for number in range(count)]
    ours, theirs = pair()
    with ours, theirs:
        send_deposit(ours, files)
        received = receive_deposit(theirs)
    try:
        assert [os.fstat(each).st_ino for each in received] == [os.fstat(each).st_ino for each in files]
        assert not set(received) & set(files)
        assert not any(map(os.get_inheritable, received))
    finally:
        close_all(files + received)


def test_an_end_is_no_empty_deposit() -> None:
    ours, theirs = pair()
    with theirs:
        ours.close()
        with pytest.raises(EOFError):
            receive_deposit(theirs)


class Keeper:
    """The process, and the supervisor's end of its sockets."""

    def __init__(self, run_dir: Path, seconds: float = 60.0) -> None:
        self.path = keeper_endpoint(str(run_dir))
        self.deposits, theirs = pair()
        self._control, control = pair()
        descriptors = (theirs.fileno(), control.fileno())
        command = [sys.executable, "-m", "router.supervisor.keeper", "--deposits", str(descriptors[0])]
        command += ["--control", str(descriptors[1]), "--run-dir", str(run_dir), "--seconds", str(seconds)]
        environment = {**os.environ, "PYTHONPATH": python_path()}
        self.process = subprocess.Popen(command, pass_fds=descriptors, env=environment)
        theirs.close()
        control.close()

    def keep(self, *descriptors: int) -> None:
        send_deposit(self.deposits, descriptors)

    def supervisor_ends(self) -> None:
        self.deposits.close()
        self._control.close()

    def connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.settimeout(TIMEOUT)

        def connected() -> bool:
            try:
                channel.connect(self.path)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True

        wait_until(connected, "the keeper to listen")
        return channel

    def end(self) -> int:
        return self.process.wait(TIMEOUT)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    keeper.supervisor_ends()
    keeper.process.kill()
    keeper.process.wait(TIMEOUT)


def test_the_last_deposit_is_kept_and_the_one_before_is_let_go(keeper: Keeper) -> None:
    before, of_before = os.pipe()
    keeper.keep(of_before)
    os.close(of_before)
    reading, writing = os.pipe()
    keeper.keep(writing)
    os.close(writing)
    assert os.read(before, 1) == b"", "nobody has the other end any more"
    keeper.supervisor_ends()
    with keeper.connect() as channel:
        (received,) = receive_deposit(channel)
        channel.send(TAKEN)
    assert keeper.end() == 0
    assert not os.path.exists(keeper.path)
    os.write(received, b"x")
    assert os.read(reading, 1) == b"x"
    close_all([before, reading, received])


def test_who_gets_it_and_goes_without_a_word_gets_nothing(keeper: Keeper) -> None:
    """The next one gets it, and may have no use for it."""
    reading, writing = os.pipe()
    keeper.keep(writing)
    os.close(writing)
    keeper.supervisor_ends()
    for word in (b"", b"?", END):
        with keeper.connect() as channel:
            close_all(receive_deposit(channel))
            if word:
                channel.send(word)
    assert keeper.end() == 0
    assert os.read(reading, 1) == b"", "it was let go"
    os.close(reading)


@pytest.mark.parametrize("deposits", [0, 2])
def test_without_a_deposit_it_ends_with_the_supervisor(keeper: Keeper, deposits: int) -> None:
    """As when there never was one, or when the last one is empty."""
    for number in range(deposits):
        keeper.keep(*[0] * (number == 0))
    keeper.supervisor_ends()
    assert keeper.end() == 0


def test_it_ends_when_nobody_comes(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, seconds=0.2)
    reading, writing = os.pipe()
    keeper.keep(writing)
    os.close(writing)
    began = time.monotonic()
    keeper.supervisor_ends()
    assert os.read(reading, 1) == b""
    assert time.monotonic() - began >= 0.2
    assert keeper.end() == 0
    os.close(reading)


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """Nobody could come."""
    keeper = Keeper(tmp_path / "gone")
    keeper.keep(0)
    keeper.supervisor_ends()
    assert keeper.end() == 0
