"""workers.store.prepare, killed at any moment: what holds is all of the old or all of the new."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from core.process.data_directory import generations
from core.process.layout import Layout
from tests.system.raw_client import PATIENCE
from tests.workers.process import PROJECT
from tests.workers.store_files import content, fill, layout_of
from tests.workers.test_reshard import is_sound
from workers.store import prepare as preparing
from workers.store.prepare import prepare

#: How often it is killed, which takes a fifth of a second each time; a thousand times have been tried too.
ROUNDS = 25
#: Prepares one directory after the other, each in a process of its own that it kills after some time; tells the exit code and the seconds.
ZYGOTE = """
import os, select, signal, sys, time
from pathlib import Path
from workers.store import reshard
from workers.store.prepare import prepare
import sqlalchemy.dialects.sqlite
for line in sys.stdin:
    directory, workers, patience = line.rsplit(maxsplit=2)
    before = time.monotonic()
    pid = os.fork()
    if not pid:
        prepare(Path(directory), int(workers))
        os._exit(0)
    descriptor = os.pidfd_open(pid)
    if not select.select([descriptor], [], [], float(patience))[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(descriptor)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(code, time.monotonic() - before, flush=True)
"""


class Zygote:
    """Runs `prepare` without the time that it takes to import everything, so that many ends can be tried."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def prepare(self, directory: Path, workers: int, kill_after: float = PATIENCE) -> tuple[int, float]:
        """Its exit code, and how many seconds it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(directory, workers, kill_after, file=self._process.stdin, flush=True)
        code, seconds = self._process.stdout.readline().split()
        return int(code), float(seconds)

    def close(self) -> None:
        self._process.communicate()


class Killed(NamedTuple):
    """How many of the killed had changed what holds, and how many had not."""

    before: int
    after: int


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The times are random and spread over all that it does; what holds must be all of the old or all of the new."""
    generator = random.Random(20_260_101)
    directory = tmp_path / "data"
    directory.mkdir()
    fill(directory, 2, users=40, messages=1500)
    expected = content(directory)
    held, killed, took = 2, Killed(0, 0), 0.15
    with closing(Zygote()) as zygote:
        for _ in range(ROUNDS):
            workers = generator.choice([count for count in (1, 2, 3, 5) if count != held])
            code, seconds = zygote.prepare(directory, workers, took * generator.uniform(0.0, 1.2))
            layout = layout_of(directory)
            assert layout.workers in (held, workers)
            if code == 0:
                took = (3 * took + seconds) / 4
                assert layout.workers == workers
            else:
                assert code == -signal.SIGKILL
                killed = (
                    killed._replace(after=killed.after + 1)
                    if layout.workers == workers
                    else killed._replace(before=killed.before + 1)
                )
            assert content(directory) == expected
            held = layout.workers
            if generator.random() < 0.3:
                # As the next start does it, with either number.
                held = generator.choice([held, workers])
                assert zygote.prepare(directory, held)[0] == 0
                assert content(directory) == expected
                is_sound(directory)
    assert killed.before >= ROUNDS // 5, killed


@pytest.mark.slow
def test_killed_at_a_first_start(tmp_path: Path) -> None:
    generator = random.Random(20_260_102)
    with closing(Zygote()) as zygote:
        for index in range(15):
            directory = tmp_path / str(index)
            directory.mkdir()
            while (code := zygote.prepare(directory, 3, generator.uniform(0.0, 0.1))[0]) != 0:
                assert code == -signal.SIGKILL
                if generator.random() < 0.5:
                    assert zygote.prepare(directory, 3)[0] == 0
                    break
            is_sound(directory)


def test_killed_after_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old files are left, whole; the next start removes them, also one with the same number."""
    fill(tmp_path, 2, users=10, messages=50)
    expected = content(tmp_path)

    class Kill(BaseException):
        pass

    def kill(directory: Path, generation: int) -> None:
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "remove_generation", kill)
        with pytest.raises(Kill):
            prepare(tmp_path, 3)
    assert generations(tmp_path) == [1, 2]
    assert prepare(tmp_path, 3) == Layout(2, 3)
    is_sound(tmp_path)
    assert content(tmp_path) == expected
