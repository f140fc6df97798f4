"""router.supervisor and the data directory: the lock, the files for a number of workers, and preparing them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from core.process.layout import Layout
from tests.router.front_process import TIMEOUT, text, wait_until
from tests.router.server_process import ServerProcess, elapsed, wait_gone
from tests.router.supervisor.test_supervisor import fake

#: What makes the files, in {body}: `options` are its arguments, `say` tells the supervisor.
FAKE_PREPARE = """
import argparse, fcntl, json, os, socket, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("tool")
parser.add_argument("directory")
for name in ("workers", "lock", "control"):
    parser.add_argument("--" + name, type=int)
options = parser.parse_args()
control = socket.socket(fileno=options.control)
def say(op, **fields):
    control.send(json.dumps({{"op": op, **fields}}).encode())
with open(os.path.join(os.environ["NOTES"], "prepare"), "w") as file:
    print(options.tool, options.directory, options.workers, file=file)
{body}
"""


@pytest.mark.slow
def test_the_files_are_made_once_and_for_each_number_of_workers(directory: Path) -> None:
    data = directory / "data"
    for workers, generation in ((2, 1), (2, 1), (1, 2)):
        with ServerProcess(directory, workers=workers) as server:
            layout = Layout(generation, workers)
            assert (data / "layout.json").read_bytes() == layout.encode()
            # What workers have open may have a log beside it.
            files = sorted(path.name for path in (data / layout.directory).glob("*.db"))
            assert files == sorted(layout.shard_name(worker) for worker in range(workers))
            assert sorted(path.name for path in data.iterdir()) == ["layout.json", "lock", layout.directory]
            assert "Traceback" not in server.stderr()


@pytest.mark.slow
def test_a_second_server_on_the_same_data_is_refused(directory: Path) -> None:
    (directory / "second").mkdir()
    with ServerProcess(directory) as server, server.client() as client:
        code, logged = ServerProcess(directory / "second", data_dir=directory / "data").fails()
        assert (code, logged) == (
            2,
            f"fastchat: the data directory {directory}/data is in use by a server or a tool (process {server.process.pid}):"
            " stop that process first; or choose another directory with FASTCHAT_DATA_DIR\n",
        )
        client.send(text("PING"))
        assert client.json()["type"] == "PONG"


@pytest.mark.slow
def test_the_data_is_locked_until_the_last_worker_has_ended(directory: Path) -> None:
    """One that hangs does not notice that its supervisor was killed, and might write one day."""
    (directory / "second").mkdir()
    with ServerProcess(directory) as server:
        hanging = server.child("worker 1")
        left = set(server.descendants()) - {hanging}
        os.kill(hanging, signal.SIGSTOP)
        server.process.kill()
        wait_gone(left, 10)
        refused = ServerProcess(directory / "second", data_dir=directory / "data")
        code = refused.process.wait(TIMEOUT)
        os.kill(hanging, signal.SIGKILL)
        assert code == 2
        assert "is in use by a server or a tool" in refused.stderr()
        refused.kill()
    (directory / "third").mkdir()
    with ServerProcess(directory / "third", data_dir=directory / "data"):
        pass


def test_what_can_be_wrong_with_the_data_is_a_sentence(directory: Path) -> None:
    data = directory / "data"
    (data / "shards-1").mkdir(parents=True)
    (data / "shards-1" / "shard-0.db").write_text("something")
    (data / "layout.json").write_bytes(Layout(1, 2).encode())
    code, logged = ServerProcess(directory, workers=2).fails()
    assert (code, logged) == (
        2,
        f"fastchat: {data}/shards-1/shard-1.db is missing: restore the data directory from a backup, all of it at once\n",
    )


@pytest.mark.slow
def test_a_layout_that_is_damaged_is_a_sentence(directory: Path) -> None:
    data = directory / "data"
    data.mkdir()
    (data / "layout.json").write_text("{")
    code, logged = ServerProcess(directory, workers=2).fails()
    assert code == 2
    assert logged.startswith(
        f"fastchat: {data}/layout.json can't be used: the file is not JSON; expected JSON"
    )


def test_preparing_gets_what_it_needs_and_its_refusal_is_the_servers(directory: Path) -> None:
    body = """
fcntl.flock(options.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
assert os.path.samestat(os.fstat(options.lock), os.stat(os.path.join(options.directory, "lock")))
say("refused", reason="the disk is too full")
sys.exit(2)
"""
    server = ServerProcess(directory, workers=7, worker=fake(), prepare=FAKE_PREPARE.format(body=body))
    assert server.fails() == (2, "fastchat: the disk is too full\n")
    assert (directory / "prepare").read_text() == f"prepare {directory}/data 7\n"
    assert server.notes(0) == [], "no worker was started"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "how"),
    [
        ("sys.exit(1)", "exit code 1"),
        ("os.kill(os.getpid(), 9)", "signal SIGKILL"),
    ],
)
def test_preparing_that_fails_without_a_word_is_a_failure_to_boot(
    directory: Path, body: str, how: str
) -> None:
    server = ServerProcess(directory, worker=fake(), prepare=FAKE_PREPARE.format(body=body))
    assert server.fails() == (
        3,
        f"fastchat: the files in {directory}/data could not be prepared: the process `prepare` ended with {how}\n",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_preparing_too(directory: Path, number: signal.Signals) -> None:
    server = ServerProcess(directory, worker=fake(), prepare=FAKE_PREPARE.format(body="time.sleep(1000)"))
    wait_until((directory / "prepare").exists, "the child to run")
    assert len(server.descendants()) == 1
    before = time.monotonic()
    assert server.stop(number) == 0
    assert elapsed(before) < 3


@pytest.mark.slow
def test_preparing_that_does_not_listen_is_killed_by_the_second_signal(directory: Path) -> None:
    deaf = directory / "deaf"
    body = (
        f"signal.signal(15, signal.SIG_IGN); open({str(deaf)!r}, 'w').close(); say('ready'); time.sleep(1000)"
    )
    body = f"import signal; {body}"
    server = ServerProcess(directory, worker=fake(), prepare=FAKE_PREPARE.format(body=body))
    wait_until(deaf.exists, "the child not to listen")
    left = set(server.descendants())
    before = time.monotonic()

    def press() -> bool:
        server.process.send_signal(signal.SIGTERM)
        return "again: ending all processes" in server.stderr()

    wait_until(press, "the server to hurry")
    assert server.wait(left) == 0
    assert elapsed(before) < 4
