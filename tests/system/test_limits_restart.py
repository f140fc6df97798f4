"""What counts against the limits survives an orderly restart, of a worker and of the server, and another number of workers (D23)."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import Server, user_on_worker, wait_until
from tests.system.raw_client import RawClient

pytestmark = pytest.mark.slow

LIMIT = 60
USERS = [user_on_worker(0, 2), user_on_worker(1, 2)]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Where a server without a data directory is found again; not below pytest's directory: paths of sockets are short."""
    directory = Path(tempfile.mkdtemp(prefix="fastchat-test-"))
    yield directory
    shutil.rmtree(directory)


def arrived(server: Server) -> tuple[RawClient, RawClient]:
    """Two users who have a chat, on different workers where there are two."""
    ann, bob = (RawClient.upgraded(server.port, user) for user in USERS)
    for client in (ann, bob):
        client.hello()
    ann.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
    ann.receive("CHAT_OPENED")
    return ann, bob


def use_up(server: Server) -> None:
    """Ann writes as much as she may."""
    ann, bob = arrived(server)
    with ann, bob:
        for number in range(LIMIT):
            ann.say("MSG", to=bob.user_id, content="hi", message_id=f"{number}")
        for number in range(LIMIT):
            ann.receive("MSG_ACK", message_id=f"{number}")


def restart_worker(server: Server) -> None:
    """Ann's worker ends in order, and the supervisor starts the next one."""
    worker = server.child("worker 0")
    os.kill(worker, signal.SIGTERM)
    wait_until(lambda: worker not in server.children(), "the worker to end")


def assert_used_up(server: Server) -> None:
    """Nothing more is accepted from her."""
    ann, bob = arrived(server)
    with ann, bob:
        ann.say("MSG", to=bob.user_id, content="more", message_id="more")
        assert 0.0 < ann.error("RATE_LIMITED")["details"]["retry_after"] <= 60.0


@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_d23_a_worker_that_is_restarted_in_order_knows_what_was_sent(
    tmp_path: Path, run_dir: Path, store: str
) -> None:
    with Server(tmp_path, limits=True, store=store, run_dir=run_dir) as server:
        use_up(server)
        restart_worker(server)
        assert_used_up(server)


def test_d23_a_worker_and_then_the_server_that_are_restarted_know_what_was_sent(
    tmp_path: Path, run_dir: Path
) -> None:
    """One start of a server less than with a test for each; these are below."""
    with Server(tmp_path, limits=True, run_dir=run_dir) as server:
        use_up(server)
        restart_worker(server)
        assert_used_up(server)
    with Server(tmp_path, limits=True, run_dir=run_dir) as server:
        assert_used_up(server)


@pytest.mark.parametrize("store", ["sqlite", "memory"])
@pytest.mark.parametrize(
    "workers",
    [
        pytest.param(2, id="the same"),
        pytest.param(1, id="fewer"),
        pytest.param(3, id="more"),
    ],
)
def test_d23_a_server_that_is_restarted_knows_what_was_sent(
    tmp_path: Path, run_dir: Path, store: str, workers: int
) -> None:
    """Also with another number of workers, where the users live elsewhere."""
    with Server(tmp_path, limits=True, store=store, run_dir=run_dir) as server:
        use_up(server)
    with Server(tmp_path, limits=True, store=store, run_dir=run_dir, workers=workers) as server:
        assert_used_up(server)


def test_d23_a_damaged_file_does_not_stop_the_start(tmp_path: Path, run_dir: Path) -> None:
    with Server(tmp_path, limits=True, run_dir=run_dir) as server:
        use_up(server)
    left = sorted((tmp_path / "data").glob("limits-*.json"))
    assert left
    for path in left:
        path.write_bytes(path.read_bytes()[:-10])
    with Server(tmp_path, limits=True, run_dir=run_dir) as server:
        use_up(server)
        assert "what counts against limits" in server.output()
