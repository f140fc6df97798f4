"""workers.store.live_reshard, changes, tracking and resize: another number of workers, while the workers write."""

from __future__ import annotations

import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from core.process.control import (
    ANSWER,
    CATCH_UP,
    FILL,
    FINISH,
    PACKET_MAX_BYTES,
    REFUSED,
    REMOVE,
    STOP,
    decode_control,
    encode_control,
)
from core.process.data_directory import generations
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from tests.system.raw_client import PATIENCE
from tests.workers.live_writers import Writers
from tests.workers.process import PROJECT
from tests.workers.store_driver import DAY, NOON
from tests.workers.store_files import DAY_MS, START, content, fill, layout_of, shards
from tests.workers.store_tools import change
from tests.workers.test_reshard import ages, is_sound
from workers.store import prepare as preparing
from workers.store.data_directory import switch
from workers.store.filling import Stopped
from workers.store.live_reshard import live_reshard, remove_others
from workers.store.old_files import Source, slices
from workers.store.prepare import prepare

#: Calls before, during and after each step.
CALLS = 40


@pytest.mark.parametrize(
    ("old", "new"),
    [(2, 5), *(pytest.param(*change, marks=pytest.mark.slow) for change in ((5, 1), (1, 4), (4, 2)))],
)
def test_nothing_that_is_written_meanwhile_is_lost(tmp_path: Path, old: int, new: int) -> None:
    fill(tmp_path, old, users=15, messages=150, seed=old)
    with Writers(tmp_path, seed=new) as writers, ThreadPoolExecutor(1) as pool:
        writers.write(CALLS)
        with live_reshard(tmp_path, new, Event()) as change_:
            writers.begin()
            writers.write(CALLS)
            filling = pool.submit(change_.fill)
            while not filling.done():
                writers.write(5)
            filling.result()
            for _ in range(2):
                looks = writers.looks(change_.place)
                catching_up = pool.submit(change_.catch_up, looks)
                writers.write(CALLS)
                assert catching_up.result() > 0
            last = writers.looks(change_.place, at_rest=True)
            expected, shown = content(tmp_path), writers.shown()
            change_.finish(last)
        assert layout_of(tmp_path) == Layout(2, new)
        assert content(tmp_path) == expected
        known = {
            (user_id, row[1], row[3])
            for mailboxes in (expected.mailboxes, expected.withheld)
            for user_id, mailbox in mailboxes.items()
            for row in mailbox
        }
        assert known.issuperset(writers.sent)
    remove_others(tmp_path, Layout(2, new))
    is_sound(tmp_path)
    with Writers(tmp_path, seed=old) as writers:
        assert writers.shown() == shown
        # Numbers, positions and repeats go on.
        writers.write(CALLS)
        for driver in writers.drivers:
            driver.settle()
    is_sound(tmp_path)


def test_the_new_files_are_those_of_an_offline_change(tmp_path: Path) -> None:
    """Also the order in which messages lie, where two of different mailboxes do not come at the same time."""
    fill(tmp_path, 3, users=12, messages=200)
    with Writers(tmp_path, seed=1) as writers, live_reshard(tmp_path, 2, Event()) as change_:
        writers.begin()
        change_.fill()
        writers.write(CALLS)
        change_.finish(writers.looks(change_.place, at_rest=True))
    offline = tmp_path / "offline"
    offline.mkdir()
    shutil.copytree(tmp_path / "shards-1", offline / "shards-1")
    (offline / "layout.json").write_bytes(Layout(1, 3).encode())
    prepare(offline, 2)
    assert content(tmp_path) == content(offline)


@pytest.mark.slow
def test_d20_ages_survive(tmp_path: Path) -> None:
    """No message is older afterwards, and those that were there before are hardly younger."""
    fill(tmp_path, 2, users=12, messages=200)
    with Writers(tmp_path, seed=1) as writers:
        for driver in writers.drivers:
            driver.wrong_by = START / 1000 + 40 * DAY - NOON
        with live_reshard(tmp_path, 3, Event()) as change_:
            writers.begin()
            before = ages(tmp_path)
            writers.write(CALLS)
            change_.fill()
            writers.write(CALLS)
            change_.finish(writers.looks(change_.place, at_rest=True))
            after = ages(tmp_path)
    assert len(after) > len(before)
    assert all(after[name][0] <= age and after[name][1] <= ran for name, (age, ran) in before.items())
    assert all(after[name][0] >= age - DAY_MS / 4 for name, (age, _) in before.items())
    assert all(after[name][0] <= 0 for name in after.keys() - before.keys())


# -- What ends before the end leaves everything as it was --


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[Writers]:
    """Stores of two workers, for which a test fails to make other files; they go on, and nothing else is left."""
    fill(tmp_path, 2, users=10, messages=100)
    with Writers(tmp_path, seed=3) as writers:
        yield writers
        assert generations(tmp_path) == [1]
        writers.end()
        writers.write(CALLS)
        writers.rest()
        before = content(tmp_path)
    assert layout_of(tmp_path) == Layout(1, 2)
    assert content(tmp_path) == before
    is_sound(tmp_path)


@pytest.mark.parametrize(
    "phase",
    [
        "filled",
        *(
            pytest.param(phase, marks=pytest.mark.slow)
            for phase in ("begun", "copied", "caught up", "finished")
        ),
    ],
)
def test_it_can_be_stopped_at_any_time(writers: Writers, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = Event()

    def stop(paths: list[Path], now: int) -> list[Source]:
        stopped.set()
        return slices(paths, now)

    with pytest.raises(Stopped), live_reshard(writers.directory, 3, stopped) as change_:
        if phase == "begun":
            raise Stopped
        writers.begin()
        writers.write(CALLS)
        if phase == "copied":
            monkeypatch.setattr("workers.store.live_reshard.slices", stop)
        change_.fill()
        if phase == "filled":
            raise Stopped
        writers.write(CALLS)
        change_.catch_up(writers.looks(change_.place))
        if phase == "finished":
            stopped.set()
            change_.finish(writers.looks(change_.place, at_rest=True))
        raise Stopped


def refused(writers: Writers, workers: int = 3) -> str:
    """The sentence with which it is refused."""
    with (
        pytest.raises(ConfigurationError) as refusal,
        live_reshard(writers.directory, workers, Event()) as change_,
    ):
        writers.begin()
        change_.fill()
        writers.write(CALLS)
        change_.finish(writers.looks(change_.place, at_rest=True))
    return str(refusal.value)


def test_a_full_disk_is_found_out_before(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(writers.directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200_000))
    assert refused(writers).startswith("the disk is too full to change from 2 to 3 workers")


@pytest.mark.slow
def test_a_disk_that_fails_meanwhile(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparing, "sync", full)
    assert "can't make files for 3 workers" in (sentence := refused(writers))
    assert sentence.endswith("No space left on device; the current files are unchanged")


def test_a_switch_of_which_nobody_knows_whether_the_disk_has_it(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that held before are made to hold again, since messages are going to be written there."""
    switched: list[Layout] = []

    def fails_once(directory: Path, layout: Layout) -> None:
        switched.append(layout)
        switch(directory, layout)
        if len(switched) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(preparing, "switch", fails_once)
    assert "Input/output error" in refused(writers)
    assert switched == [Layout(2, 3), Layout(1, 2)]


def test_files_for_as_many_workers_are_there(writers: Writers) -> None:
    assert refused(writers, 2).endswith("are for 2 workers already")


def test_a_message_that_belongs_to_nobody(tmp_path: Path) -> None:
    """Only a person can decide that it may be thrown away."""
    fill(tmp_path, 2, users=10, messages=100)
    change(shards(tmp_path)[0], "UPDATE messages SET mailbox = 12345 WHERE number = 1")
    with (
        pytest.raises(ConfigurationError, match=r"100 messages before and 99 after the copy.*goes on with"),
        live_reshard(tmp_path, 3, Event()) as change_,
    ):
        change_.fill()
    assert generations(tmp_path) == [1]


def test_tables_of_another_version(tmp_path: Path) -> None:
    """The workers run another version than this process, and would write other rows than it copies."""
    fill(tmp_path, 2, users=10, messages=100)
    change(shards(tmp_path)[1], "UPDATE alembic_version SET version_num = '0001'")
    with (
        pytest.raises(ConfigurationError, match="have revision 0001"),
        live_reshard(tmp_path, 3, Event()) as change_,
    ):
        change_.fill()


def test_a_look_that_is_none(tmp_path: Path) -> None:
    fill(tmp_path, 2, users=10, messages=100)
    with (
        pytest.raises(ConfigurationError, match="look is no list of changes"),
        live_reshard(tmp_path, 3, Event()) as change_,
    ):
        change_.fill()
        (change_.place / "look").write_text("{")
        change_.catch_up([change_.place / "look"])


# -- The process --


class Resize:
    """``python -m workers.store resize``, with the test in the place of the supervisor; a context manager."""

    def __init__(self, directory: Path, workers: int, limit: int = resource.RLIM_INFINITY) -> None:
        """No file that it writes may be longer than `limit` bytes."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE)
        self.place = directory / Layout(2, workers).directory
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "workers.store", "resize", str(directory)),
                    *("--workers", str(workers), "--control", str(theirs.fileno())),
                ],
                cwd=PROJECT,
                pass_fds=[theirs.fileno()],
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
            )

    def __enter__(self) -> Resize:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        with self.process, self.control:
            pass

    def heard(self) -> dict[str, Any]:
        """The next message."""
        return decode_control(self.control.recv(PACKET_MAX_BYTES))

    def asked(self, op: str, looks: Sequence[Path] = ()) -> dict[str, Any]:
        """The answer to a request."""
        self.control.send(encode_control(op, id=7, looks=[*map(str, looks)]))
        message = self.heard()
        assert (message["op"], message["id"]) == (ANSWER, 7)
        answer: dict[str, Any] = message["answer"]
        return answer

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(PATIENCE)


def test_the_process_does_what_it_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, 2, users=10, messages=100)
    with Writers(tmp_path, seed=1) as writers, Resize(tmp_path, 3) as resize:
        writers.begin()
        assert resize.asked(FILL) == {}
        writers.write(CALLS)
        assert resize.asked(CATCH_UP, writers.looks(resize.place))["rows"] > 0
        writers.write(CALLS)
        last = writers.looks(resize.place, at_rest=True)
        expected = content(tmp_path)
        assert resize.asked(FINISH, last)["rows"] > 0
        assert layout_of(tmp_path) == Layout(2, 3)
        assert generations(tmp_path) == [1, 2], "somebody has the old files open"
        for driver in writers.drivers:
            driver.store.close()
        assert resize.asked(REMOVE) == {}
        assert resize.ended() == 0
        assert generations(tmp_path) == [2]
    assert content(tmp_path) == expected
    is_sound(tmp_path)


@pytest.mark.parametrize(
    "end", ["stop", *(pytest.param(end, marks=pytest.mark.slow) for end in ("end of input", "kill"))]
)
def test_the_process_ends_before_the_switch(tmp_path: Path, end: str) -> None:
    fill(tmp_path, 2, users=10, messages=100)
    expected = content(tmp_path)
    with Resize(tmp_path, 3) as resize:
        assert resize.asked(FILL) == {}
        if end == "stop":
            resize.control.send(encode_control(STOP))
        elif end == "kill":
            resize.process.kill()
        else:
            resize.control.close()
        assert resize.ended() == {"stop": 0, "end of input": 2, "kill": -signal.SIGKILL}[end]
    if end != "stop":
        assert generations(tmp_path) == [1, 2]
        assert prepare(tmp_path, 2) == Layout(1, 2), "the next start removes what is left"
    is_sound(tmp_path)
    assert content(tmp_path) == expected


def test_the_process_is_killed_after_the_switch(tmp_path: Path) -> None:
    fill(tmp_path, 2, users=10, messages=100)
    expected = content(tmp_path)
    with Resize(tmp_path, 3) as resize:
        resize.asked(FILL)
        assert resize.asked(FINISH) == {"rows": 0}
        resize.process.kill()
        assert resize.ended() == -signal.SIGKILL
    assert generations(tmp_path) == [1, 2]
    assert prepare(tmp_path, 3) == Layout(2, 3)
    is_sound(tmp_path)
    assert content(tmp_path) == expected


def test_the_next_one_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    fill(tmp_path, 2, users=10, messages=100)
    (tmp_path / "shards-2").mkdir()
    (tmp_path / "shards-2" / "shard-0.db").touch()
    with live_reshard(tmp_path, 3, Event()) as change_:
        change_.fill()
        change_.finish([])
    assert layout_of(tmp_path) == Layout(2, 3)


def test_a_disk_that_is_full_for_the_process(tmp_path: Path) -> None:
    fill(tmp_path, 2, users=10, messages=100)
    with Resize(tmp_path, 3, limit=shards(tmp_path)[0].stat().st_size - 1) as resize:
        resize.control.send(encode_control(FILL, id=1))
        said = resize.heard()
        assert said["op"] == REFUSED
        assert "the current files are unchanged" in said["reason"]
        assert resize.ended() == 2
    is_sound(tmp_path)
