"""What a killed supervisor leaves, and the next start of the server: workers and fronts serve on, and nobody notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from router.operator.client import RunningServer, Unreachable
from tests.system.couple import chat, couple
from tests.system.harness import Server, process_title, processes, wait_until
from tests.system.raw_client import RawClient
from tests.system.status import status

pytestmark = pytest.mark.slow


@contextmanager
def killed(directory: Path, **settings: Any) -> Iterator[Server]:
    """A server that can be killed; in the end nothing is left of it in any case."""
    server = Server(directory, **settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def kill_supervisor(server: Server) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.wait()


def pids(server: Server) -> dict[str, int]:
    """The processes of all workers and fronts, by name."""
    return {f"{each['kind']} {each['index']}": each["pid"] for each in status(server)["processes"]}


def running(found: dict[str, int]) -> list[str]:
    return [name for name, pid in found.items() if pid in processes()]


def test_two_people_chat_on_and_see_nothing_of_it(tmp_path: Path) -> None:
    with killed(tmp_path, fronts=2) as first, couple(first) as (ann, bob):
        before = pids(first)
        kill_supervisor(first)
        chat(ann, bob, "without")
        # A front that has no supervisor lets people in.
        with RawClient.upgraded(first.port) as newcomer:
            newcomer.hello()
        with killed(tmp_path, fronts=2, port=first.port) as second:
            wait_until(lambda: "a supervisor was killed: this one goes on" in second.output(), "it to say so")
            assert pids(second) == before
            chat(ann, bob, "with-another")
            kill_supervisor(second)
            chat(ann, bob, "without-that")
            with Server(tmp_path, fronts=2, port=first.port) as third:
                # It is a supervisor as any other: it replaces who dies, has all replaced, and stops them in order.
                os.kill(before["front 0"], signal.SIGKILL)
                wait_until(
                    lambda: pids(third)["front 0"] not in (None, before["front 0"]), "front 0 to be replaced"
                )
                wait_until(
                    lambda: {each["state"] for each in status(third)["processes"]} == {"ready"},
                    "all to be ready",
                )
                replaced = RunningServer({}, third.admin_url).ask("reload", 60.0)["replaced"]
                assert [each["process"] for each in replaced] == [*before, "supervisor"]
                chat(ann, bob, "after")
                wait_until(lambda: not running(before), "the old processes to end")
                after = pids(third)
            ann.until_end()
            bob.until_end()
            assert not running(after)


def test_who_dies_meanwhile_is_started_again(tmp_path: Path) -> None:
    """And the others hear of it: a message for a user of the dead worker gets there afterwards."""
    with killed(tmp_path) as first, couple(first) as (ann, bob):
        before = pids(first)
        kill_supervisor(first)
        os.kill(before["worker 1"], signal.SIGKILL)
        bob.until_end()
        with Server(tmp_path, port=first.port) as second:
            assert pids(second)["worker 0"] == before["worker 0"]
            assert pids(second)["worker 1"] != before["worker 1"]
            with RawClient.upgraded(second.port, bob.user_id, "Bob Ray") as again:
                again.hello()
                ann.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob Ray")
                ann.receive("CHAT_OPENED")
                chat(ann, again, "after")


def test_other_settings_are_another_server(tmp_path: Path) -> None:
    """What was left ends at once, port and data are free, and why is said. A process that can't end by itself is killed."""
    with killed(tmp_path) as first, couple(first) as (ann, bob):
        before = pids(first)
        os.kill(before["worker 1"], signal.SIGSTOP)
        kill_supervisor(first)
        with Server(tmp_path, workers=3, port=first.port) as second:
            assert 'reason="other settings: workers"' in second.output()
            assert not running(before)
            ann.until_end()
            bob.until_end()
            assert len(status(second)["processes"]) == 4


def test_the_same_data_with_another_port(tmp_path: Path) -> None:
    """The lock in the data directory says where the processes are that have it."""
    with killed(tmp_path) as first:
        before = pids(first)
        kill_supervisor(first)
        with Server(tmp_path, run_dir=tmp_path / "run") as second:
            assert 'reason="other settings: run_dir"' in second.output()
            assert not running(before)


def test_nobody_comes(tmp_path: Path) -> None:
    """Those who are connected are let go when the time is over, and nothing is left."""
    with killed(tmp_path, takeover_seconds=2) as first, couple(first) as (ann, bob):
        before = pids(first)
        kill_supervisor(first)
        chat(ann, bob, "still-there")
        wait_until(lambda: not running(before), "the processes to end")
        ann.until_end()


def test_a_keeper_that_is_killed_is_started_again(tmp_path: Path) -> None:
    def keepers() -> list[int]:
        ours = [each.pid for each in processes().values() if each.parent == first.pid]
        return [pid for pid in ours if "keeper" in process_title(pid)]

    with killed(tmp_path) as first, couple(first) as (ann, bob):
        (keeper,) = keepers()
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: len(keepers()) == 1 and keepers() != [keeper], "the next keeper")
        # It has the state by the time that it is there, since the state is sent at once.
        kill_supervisor(first)
        chat(ann, bob, "without")
        with Server(tmp_path, port=first.port):
            chat(ann, bob, "after")


@pytest.mark.parametrize(
    ("what", "more", "begun"),
    [("reload", {}, 1), ("reload", {}, 2), ("reload", {}, 3), ("resize", {"workers": 3}, 1)],
)
def test_a_supervisor_that_is_killed_in_the_middle(
    tmp_path: Path, what: str, more: dict[str, Any], begun: int
) -> None:
    """When so many new processes have begun. Everything that was acknowledged is there afterwards, whoever had to come back."""
    with killed(tmp_path) as first, couple(first) as (ann, bob):
        known = first.children()

        def ask() -> None:
            with suppress(Unreachable, OSError):
                RunningServer({}, first.admin_url).ask(what, 60.0, **more)

        asking = Thread(target=ask)
        asking.start()
        seen = set()

        def have_begun() -> bool:
            seen.update(first.children().keys() - known.keys())
            return len(seen) >= begun

        wait_until(have_begun, f"new processes for the {what}")
        kill_supervisor(first)
        asking.join()
        # Without workers for three there is another number of workers, or there is not: both are what was asked for at some time.
        with Server(tmp_path, port=first.port) as second, couple(second):
            assert [each["state"] for each in status(second)["processes"]] == ["ready"] * 3
            with RawClient.upgraded(second.port, bob.user_id, "Bob Ray") as again:
                again.hello(capabilities=["history"])
                again.say("OPEN_CHAT", target_user_id=ann.user_id, target_display_name="Ann Lee")
                again.receive("CHAT_OPENED")
                again.say("HISTORY", **{"with": ann.user_id, "limit": 10, "before": None})
                contents = [message["content"] for message in again.receive("HISTORY")["messages"]]
                assert contents == ["before", "before"]
