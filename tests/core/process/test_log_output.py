"""core.process.log_output: lines get out, whole and in order; when standard error takes nothing, nobody waits, and lost lines are told."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from core.events import fields
from core.process.log_output import QUEUE_MAX, LogOutput
from core.process.log_throttle import WHO_MAX, Throttle
from core.process.logs import LINE_MAX, LineFormatter

PROJECT: Final = Path(__file__).parents[3]
PATIENCE: Final = 20.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as it holds; AssertionError when it does not."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


class Generous(Throttle):
    """Admits everything."""

    def admit(self, *_: object) -> bool:
        return True


@contextmanager
def logger(descriptor: int, throttle: Throttle | None = None) -> Iterator[tuple[logging.Logger, LogOutput]]:
    """A logger that writes there."""
    output = LogOutput(descriptor, LineFormatter("test", as_json=False), throttle or Generous())
    log = logging.Logger("fastchat.test")
    log.addHandler(output)
    yield log, output
    output.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Reading and writing end."""
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue  # the test has closed it


def read_lines(reading: int) -> list[str]:
    """Everything that is in a pipe whose other end is closed."""
    with open(reading, encoding="ascii", closefd=False) as file:
        return file.read().splitlines()


def test_lines_come_in_order(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file, logger(file.fileno()) as (log, output):
        for number in range(500):
            log.info("line %d", number)
        output.flush()
        lines = (tmp_path / "log").read_text().splitlines()
    assert [int(line.rpartition(" ")[2]) for line in lines] == list(range(500))


def test_there_is_no_thread_before_the_first_line() -> None:
    before = threading.active_count()
    with logger(2) as (_, output):
        output.flush()
        assert threading.active_count() == before


def test_a_pipe_that_nobody_reads_makes_nobody_wait(pipe: tuple[int, int]) -> None:
    """Memory stays bounded; when somebody reads again, the loss is told and what comes then gets through."""
    reading, writing = pipe
    with logger(writing) as (log, output):
        began = time.monotonic()
        for number in range(20_000):
            log.info("%s", "x" * 200, extra=fields(count=number))
        assert time.monotonic() - began < PATIENCE
        assert output._queue.qsize() <= QUEUE_MAX
        came = b""
        while b"count=0\n" not in came or b"log lines were lost" not in came:
            came += os.read(reading, 65536)
            log.info("again")
        ended = threading.Event()

        def read() -> None:
            while os.read(reading, 65536):
                pass
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        output.flush()
        os.close(writing)
        assert ended.wait(PATIENCE)
    for line in came.split(b"\n")[:-1]:
        assert b"test: xxx" in line or b"again" in line or b"log lines were lost" in line


def test_the_end_of_a_process_does_not_wait_for_long(pipe: tuple[int, int]) -> None:
    program = (
        "import logging; from core.process.logs import configure_logging; configure_logging('test', 'info', 'json')\n"
        "for number in range(3000): logging.getLogger(f'fastchat.{number % 50}').error('x' * 500)"
    )
    began = time.monotonic()
    code = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, stderr=pipe[1], timeout=PATIENCE, check=False
    ).returncode
    assert code == 0
    assert time.monotonic() - began < PATIENCE / 2


def test_a_closed_pipe_is_no_error(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    with logger(writing) as (log, output):
        for _ in range(100):
            log.info("nobody hears this")
        output.flush()
        assert output._lost == 100
        assert output._thread is not None
        assert output._thread.is_alive()


def test_a_closed_descriptor_is_no_error(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.close(descriptor)
    with logger(descriptor) as (log, output):
        log.info("nobody hears this")
        output.flush()
        assert output._lost == 1


def test_a_full_disk_tears_no_line_in_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What did not fit is told once there is room, on a line of its own."""
    path = tmp_path / "log"
    room = [20]
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if descriptor != file.fileno():
            return real(descriptor, data)
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    with open(path, "wb") as file, logger(file.fileno()) as (log, output):
        monkeypatch.setattr("core.process.log_output.os.write", write)
        log.info("first")
        output.flush()
        log.info("second")
        output.flush()
        room[0] = 10**6
        log.info("third")
        output.flush()
        torn, loss, third = path.read_text().splitlines()
    assert len(torn) == 20
    assert loss.endswith("log lines were lost, since standard error did not take them count=2")
    assert third.endswith("test: third")


def test_a_standard_error_that_somebody_made_non_blocking(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
    with logger(writing) as (log, output):
        for number in range(900):
            log.info("%s", "x" * 200, extra=fields(count=number))
        came = b""
        while came.count(b"\n") < 900:
            came += os.read(reading, 65536)
        output.flush()
    assert [int(line.rpartition(b"=")[2]) for line in came.splitlines()] == list(range(900))


def test_lines_of_several_processes_are_not_mixed_up(pipe: tuple[int, int]) -> None:
    """All of ours write to one pipe, and a line is written at once, however little room there is and however many wait."""
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    program = (
        "import logging, sys, time; from core.events import fields; from core.process.logs import configure_logging\n"
        "configure_logging('p', 'debug', 'text')\n"
        "for number in range(900): logging.getLogger('fastchat.x').debug('event', extra=fields(reason=sys.argv[1] * 200))\n"
        "print('all waits', flush=True)\n"
        "while not logging.getLogger().handlers[-1]._queue.empty(): time.sleep(0.01)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, letter], cwd=PROJECT, stdout=subprocess.PIPE, stderr=writing
        )
        for letter in "abc"
    ]
    for process in processes:
        assert process.stdout is not None
        with process.stdout as said:
            assert said.readline() == b"all waits\n"
    os.close(writing)
    lines = read_lines(reading)
    assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0]
    told = Counter(line.rpartition("=")[2] for line in lines)
    assert told == {letter * 200: 900 for letter in "abc"}


def test_no_line_is_longer_than_a_pipe_takes_whole(pipe: tuple[int, int]) -> None:
    assert os.fpathconf(pipe[1], "PC_PIPE_BUF") >= LINE_MAX


def test_a_flood_is_a_few_lines_and_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary comes by itself, though nothing else happens."""
    monkeypatch.setattr("core.process.log_throttle.WINDOW", 0.5)
    path, many = tmp_path / "log", 2000

    def told() -> list[int]:
        """Of each line, how many events it stands for."""
        counts = [re.search(r" count=(\d+)", line) for line in path.read_text().split("\n")[:-1]]
        return [int(count[1]) if count else 1 for count in counts]

    with open(path, "wb") as file, logger(file.fileno(), Throttle()) as (log, _):
        began = time.monotonic()
        for number in range(many):
            log.info("closed %d", number, extra=fields(address=f"192.0.2.1:{number}", code=1008))
        windows = 1 + int((time.monotonic() - began) / 0.5)
        wait_until(lambda: sum(told()) == many, "the summary")
    assert len(told()) <= (WHO_MAX + 1) * windows
    assert "closed ...: " in path.read_text().splitlines()[-1]
    assert "more like this in the last" in path.read_text().splitlines()[-1]


def test_the_end_tells_what_was_held_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open(path, "wb") as file:
        with logger(file.fileno(), Throttle()) as (log, _):
            for _ in range(WHO_MAX + 3):
                log.info("closed", extra=fields(user="mallory"))
        assert "closed: 3 more like this" in path.read_text().splitlines()[-1]


def test_a_record_that_cannot_be_told_is_counted(tmp_path: Path) -> None:
    class Bad:
        def __str__(self) -> str:
            raise ValueError

    with open(tmp_path / "log", "wb") as file, logger(file.fileno()) as (log, output):
        log.info(Bad())
        assert output._lost == 1
        log.info("next")
        output.flush()
        assert (tmp_path / "log").read_text().count("\n") == 2
