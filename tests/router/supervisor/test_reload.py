"""Tests of router.supervisor.reload with workers that do what they are told here: what becomes of the old process and of the new one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from router.operator.client import Refused, RunningServer
from tests.router.front_process import wait_until
from tests.router.server_process import FAKE_WORKER, ServerProcess

#: What a successor says once it has booted, and what it does when it is told to go on, by a file.
WAITS = """
if options.succeeds:
    say("waiting", path="/nowhere")
    while not os.path.exists(os.path.join(notes, "go-on")):
        time.sleep(0.01)
"""
#: What the old process does when it is asked to give everything away.
SERVED = """
def listen():
    while packet := control.recv(65536):
        note(packet.decode())
        op = json.loads(packet)["op"]
        if op == "stop":
            sys.exit(0)
        if op == "succeed":
            {asked}
"""
LEAVES = 'say("leaving"); open(os.path.join(notes, "go-on"), "w").close(); time.sleep(0.2); os._exit(0)'
#: Makes no files, since these workers have none.
PREPARE = ""


def server(directory: Path, *, asked: str = "pass", boot: str = WAITS, **settings: Any) -> ServerProcess:
    """A server with one worker, which replaces workers as one with a store does."""
    worker = FAKE_WORKER.format(boot=boot, served=SERVED.format(asked=asked))
    return ServerProcess(directory, worker=worker, prepare=PREPARE, workers=1, **settings)


def reload(server: ServerProcess) -> list[dict[str, Any]]:
    replaced: list[dict[str, Any]] = RunningServer({}, f"http://127.0.0.1:{server.admin_port}").ask(
        "reload", 60.0
    )["replaced"]
    return replaced


def refused(server: ServerProcess) -> str:
    """The sentence with which a reload fails."""
    with pytest.raises(Refused) as caught:
        reload(server)
    return str(caught.value)


def test_the_new_process_takes_the_place_of_the_old_one(directory: Path) -> None:
    with server(directory, asked=LEAVES) as running:
        before = running.status("worker 0")
        told = reload(running)
        after = running.status("worker 0")
        assert [each["process"] for each in told] == ["worker 0", "front 0", "supervisor"]
        assert (after["pid"], after["state"]) == (told[0]["pid"], "ready")
        assert after["generation"] > before["generation"]
        assert (after["restarts"], after["replaced"]) == (0, 1)
        assert before["pid"] not in running.descendants()
        events = running.get("/dashboard/samples")[1]["events"]
        assert running.get("/dashboard/samples")[1]["now"]["processes"][0]["replaced"] == 1
        noted = "worker 0 is replaced while its clients stay connected"
        assert [event["text"] for event in events if event["process"] == "worker 0"] == [noted]


def test_a_new_process_that_refuses_to_start_changes_nothing(directory: Path) -> None:
    boot = 'if options.succeeds: say("refused", reason="it is broken"); sys.exit(2)'
    with server(directory, boot=boot) as running:
        before = running.descendants()
        assert refused(running) == "worker 0 goes on with the old process: it is broken"
        wait_until(lambda: running.descendants() == before, "the new process to be gone")
        assert running.get("/readyz")[0] == 200
        assert running.notes(0)[-1].startswith("start"), "the old one was not asked for anything"


@pytest.mark.slow
def test_a_new_process_that_crashes_changes_nothing(directory: Path) -> None:
    with server(directory, boot="if options.succeeds: os.abort()") as running:
        before = running.descendants()
        assert "ended with signal SIGABRT" in refused(running)
        wait_until(lambda: running.descendants() == before, "the new process to be gone")


@pytest.mark.slow
def test_an_old_process_that_does_not_come_to_rest_goes_on(directory: Path) -> None:
    """It is asked several times."""
    with server(directory, asked='say("stays", reason="3 requests")') as running:
        before = running.descendants()
        sentence = "worker 0 goes on with the old process: it did not come to rest: 3 requests"
        assert refused(running) == sentence
        wait_until(lambda: running.descendants() == before, "the new process to be gone")
        assert sum("succeed" in note for note in running.notes(0)) == 5


@pytest.mark.slow
def test_an_old_process_that_dies_of_the_question_is_started_again(directory: Path) -> None:
    with server(directory, asked="os.abort()") as running:
        assert "ended with signal SIGABRT" in refused(running)
        wait_until(lambda: running.status("worker 0")["state"] == "ready", "a new process")
        assert running.status("worker 0")["restarts"] == 1


@pytest.mark.slow
def test_a_new_process_that_dies_while_it_takes_over_is_started_again(directory: Path) -> None:
    """The old one has given everything away: both are gone, and there is another one."""
    boot = """
if options.succeeds:
    say("waiting", path="/nowhere")
    while not os.path.exists(os.path.join(notes, "go-on")):
        time.sleep(0.01)
    os.abort()
"""
    asked = 'say("leaving"); open(os.path.join(notes, "go-on"), "w").close()'
    with server(directory, asked=asked, boot=boot) as running:
        old = running.status("worker 0")["pid"]
        assert "ended with signal SIGABRT" in refused(running)
        wait_until(lambda: running.status("worker 0")["state"] == "ready", "a new process")
        wait_until(lambda: old not in running.descendants(), "the old process to be gone")
        assert running.status("worker 0")["restarts"] == 1


@pytest.mark.slow
def test_two_reloads_at_once(directory: Path) -> None:
    with server(directory) as running:
        os.kill(running.process.pid, signal.SIGHUP)
        wait_until(lambda: any("succeed" in note for note in running.notes(0)), "the reload to be under way")
        assert refused(running) == "a reload is under way already: try again when it is done"


def test_a_server_that_stops_meanwhile_stops_at_once(directory: Path) -> None:
    with server(directory) as running:
        os.kill(running.process.pid, signal.SIGHUP)
        wait_until(lambda: any("succeed" in note for note in running.notes(0)), "the reload to be under way")
