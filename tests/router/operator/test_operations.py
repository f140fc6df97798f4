"""router.operator.operations in real servers, some of whose workers misbehave: whatever an operator asks, there is an answer in time."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import pytest

from core.placement import Placement
from router.operator.client import Refused, RunningServer
from tests.router.front_process import wait_until
from tests.router.server_process import FAKE_WORKER, ServerProcess, elapsed

#: What a fake worker does after it said that it is ready, with each question.
ASKED: Final = """
while packet := control.recv(65536):
    message = json.loads(packet)
    if message["op"] == "stop":
        sys.exit(0)
    if message["op"] == "ask":
        {asked}
"""


def worker(asked: str) -> str:
    """A worker's program."""
    return FAKE_WORKER.format(boot="", served=ASKED.format(asked=asked))


def operator(server: ServerProcess) -> RunningServer:
    return RunningServer({}, f"http://127.0.0.1:{server.admin_port}")


def refused(server: ServerProcess, what: str, **fields: str | float) -> str:
    """The sentence with which a request is refused."""
    with pytest.raises(Refused) as caught:
        operator(server).ask(what, **cast(Any, fields))
    return str(caught.value)


@pytest.fixture(scope="module")
def shared() -> Iterator[ServerProcess]:
    """A server with real workers."""
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        ServerProcess(Path(name), workers=2) as server,
    ):
        yield server


def user_on(index: int, prefix: str = "") -> str:
    placement = Placement(2)
    return next(user for number in range(1000) if placement.worker_of(user := f"{prefix}{number}") == index)


@pytest.fixture(scope="module")
def pretending() -> Iterator[ServerProcess]:
    """A server whose workers tell who was asked, and end when the user is a mortal one; each test leaves all of them ready.

    A worker takes 3 s to boot as long as there is a file `slow`.
    """
    boot = 'if os.path.exists(os.path.join(notes, "slow")): time.sleep(3)'
    asked = """
        if message["user"].startswith("mortal"):
            sys.exit(9)
        say("answer", id=message["id"], answer={"by": options.index, "what": message["what"], "user": message["user"]})
"""
    program = FAKE_WORKER.format(boot=boot, served=ASKED.format(asked=asked))
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        ServerProcess(Path(name), worker=program, user_ids="any") as server,
    ):
        yield server


def all_ready(server: ServerProcess) -> bool:
    """Whether all workers serve, also one that has just been started again."""
    return {process["state"] for process in server.get("/status")[1]["processes"]} == {"ready"}


def test_the_worker_that_owns_the_user_is_asked(pretending: ServerProcess) -> None:
    for index in (0, 1):
        user = user_on(index)
        for what in ("who", "kick", "delete"):
            assert operator(pretending).ask(what, user=user) == {"by": index, "what": what, "user": user}


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_a_sentence_and_others_do_not_wait(run_dir: Path) -> None:
    """And what it says too late, or to nobody, is not the answer to another question."""
    asked = """
        if options.index == 0:
            say("answer", id=message["id"], answer={"number": message["id"]})
        else:
            say("answer", id=message["id"] - 1, answer={"wrong": 1})
            say("answer", id=message["id"] + 1, answer={"wrong": 1})
"""
    with ServerProcess(run_dir, worker=worker(asked), user_ids="any") as server:
        before = time.monotonic()
        sentence = refused(server, "who", user=user_on(1))
        assert sentence == "worker 1, where this user lives, has not answered within 5 s"
        assert 4.5 < elapsed(before) < 9
        before = time.monotonic()
        assert operator(server).ask("who", user=user_on(0)).keys() == {"number"}
        assert elapsed(before) < 4


def test_a_worker_that_dies_of_the_question_is_a_sentence(pretending: ServerProcess) -> None:
    sentence = refused(pretending, "who", user=user_on(1, "mortal-"))
    assert sentence == "worker 1, where this user lives, ended before it answered"
    wait_until(lambda: all_ready(pretending), "the worker to be back")


def test_a_worker_that_is_away_is_a_sentence_at_once(pretending: ServerProcess) -> None:
    slow = pretending.directory / "slow"
    slow.touch()
    os.kill(pretending.status("worker 1")["pid"], signal.SIGKILL)
    try:
        before = time.monotonic()
        while "try again" not in (sentence := refused(pretending, "who", user=user_on(1))):
            assert elapsed(before) < 3  # the supervisor has not noticed yet, or has just
    finally:
        slow.unlink()
    assert sentence.startswith("worker 1, where this user lives, is ")
    wait_until(lambda: all_ready(pretending), "the worker to be back")


@pytest.mark.parametrize(
    ("what", "fields", "sentence"),
    [
        (
            "restart",
            {},
            "`what` must be one of status, who, kick, ban, unban, delete, log_level, drain, reload and resize",
        ),
        ("who", {}, "`user` must be UUID v4; it is missing or null"),
        ("kick", {"user": "alice"}, "`user` must be UUID v4; it is 'alice'"),
        ("who", {"user": "x" * 3000}, "`user` must be UUID v4; it is 'xxxx"),
        ("drain", {"seconds": "soon"}, "`seconds` must be a number from 0 to 3600"),
        ("drain", {"seconds": -1.0}, "`seconds` must be a number from 0 to 3600"),
        ("drain", {"seconds": 3601}, "`seconds` must be a number from 0 to 3600"),
        ("log_level", {}, "`level` must be a string"),
        ("log_level", {"level": "loud"}, "not 'loud'"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    shared: ServerProcess, what: str, fields: dict[str, Any], sentence: str
) -> None:
    said = refused(shared, what, **fields)
    assert sentence in said
    assert len(said) < 200


def test_the_status_is_that_of_the_admin_port(shared: ServerProcess) -> None:
    over_socket = operator(shared).ask("status")
    assert over_socket["pid"] == shared.process.pid
    assert over_socket.keys() == shared.get("/status")[1].keys()


def test_a_user_id_is_asked_for_in_its_canonical_form(shared: ServerProcess) -> None:
    upper = "ABCDEF01-1111-4111-8111-111111111111"
    assert operator(shared).ask("who", user=upper)["user"] == upper.lower()
