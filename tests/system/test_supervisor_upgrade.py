"""The last step of a reload: the supervisor becomes the program on disk, in its process, and nobody notices.

The program of these servers is a copy of the project's, so that another one can be put in its place.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import pytest

from router.operator.client import Refused, RunningServer
from tests.router.front_process import wait_until
from tests.router.server_process import ServerProcess
from tests.system.harness import PROJECT, user_on_worker
from tests.system.raw_client import RawClient

pytestmark = pytest.mark.slow

#: Seconds that a reload may take on a machine that is busy with other tests.
TIMEOUT: Final = 120.0
#: In router/supervisor/serve.py: what the new program does when it is only asked, and when it goes on.
CHECKS: Final = "        print(UNDERSTOOD)\n"
GOES_ON: Final = "    for descriptor in state.descriptors:\n"


class Program:
    """A copy of the program, which a server of `directory` runs."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "program"
        for name in ("core", "router", "workers"):
            shutil.copytree(PROJECT / name, self.root / name)

    def change(self, name: str, old: str, new: str) -> None:
        """Put another program in its place."""
        path = self.root / name
        before = path.read_text()
        assert before.count(old) == 1, f"{name} is not as this test expects"
        # Another file: one that is written while it is read is no version.
        changed = path.with_suffix(".new")
        changed.write_text(before.replace(old, new))
        changed.replace(path)

    def restore(self, name: str) -> None:
        """Put the project's file in its place."""
        shutil.copy(PROJECT / name, self.root / name)

    def server(self, directory: Path, **arguments: Any) -> ServerProcess:
        environment = {"PROGRAM": str(self.root), **arguments.pop("environment", {})}
        first = 'export PYTHONPATH="$PROGRAM";' + arguments.pop("first", "")
        return ServerProcess(directory, first=first, environment=environment, **arguments)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place with a short name."""
    with tempfile.TemporaryDirectory(prefix="fastchat-") as name:
        yield Path(name)


@pytest.fixture
def program(directory: Path) -> Program:
    return Program(directory)


def reload(server: ServerProcess) -> list[dict[str, Any]]:
    """What was replaced."""
    url = f"http://127.0.0.1:{server.admin_port}"
    replaced: list[dict[str, Any]] = RunningServer({}, url).ask("reload", TIMEOUT)["replaced"]
    return replaced


def reload_beside(server: ServerProcess, client: RawClient) -> list[dict[str, Any]]:
    """The same, while a client is served."""
    with ThreadPoolExecutor(1) as executor:
        done = executor.submit(reload, server)
        while not done.done():
            is_served(client)  # at most once a second
            wait([done], timeout=1.5)
        return done.result()


def refused(server: ServerProcess) -> str:
    """Why it can't be reloaded."""
    with pytest.raises(Refused) as caught:
        reload(server)
    return str(caught.value)


def metric(server: ServerProcess, series: str) -> float:
    lines = server.get("/metrics")[1].splitlines()
    (value,) = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{series} ")]
    return float(value)


def supervisor_metric(server: ServerProcess, name: str) -> float:
    return metric(server, f'fastchat_process_{name}{{process="supervisor"}}')


def open_files(pid: int) -> list[str]:
    """What a process has open, without the numbers of sockets and the like."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0])
        except FileNotFoundError:
            continue  # closed meanwhile
    return sorted(found)


def samples(server: ServerProcess) -> dict[str, Any]:
    answer: dict[str, Any] = server.get("/dashboard/samples")[1]
    return answer


def is_served(client: RawClient) -> None:
    client.say("PING")
    client.receive("PONG")


def test_the_process_stays_and_runs_the_program_on_disk(directory: Path, program: Program) -> None:
    """With its children, ports, locks, counters and history; and so do the next reloads."""
    with (
        program.server(directory, workers=2) as server,
        RawClient.upgraded(server.port, user_on_worker(0, 2)) as client,
    ):
        client.hello()
        is_served(client)
        url = f"http://127.0.0.1:{server.admin_port}"
        RunningServer({}, url).ask("log_level", level="debug")
        wait_until(lambda: samples(server)["last"] >= 2, "some history")
        first, before = server.get("/status")[1], samples(server)
        started = supervisor_metric(server, "start_time_seconds")
        cpu = supervisor_metric(server, "cpu_seconds_total")
        os.kill(server.child("worker 1"), signal.SIGKILL)
        wait_until(lambda: server.status("worker 1")["restarts"] == 1, "its end to be noticed")
        wait_until(lambda: server.get("/readyz")[0] == 200, "worker 1 to be back")
        program.change(
            "router/supervisor/build.py", 'return version("fastchat")', 'return version("fastchat") + "+new"'
        )
        told = reload_beside(server, client)
        names = [each["process"] for each in told]
        assert names == ["worker 0", "worker 1", "front 0", "supervisor"]
        assert told[-1]["pid"] == server.process.pid
        now, after = server.get("/status")[1], samples(server)
        assert (first["supervisor_replaced"], now["supervisor_replaced"]) == (0, 1)
        assert now["version"] == first["version"] + "+new"
        assert now["uptime"] > first["uptime"]
        assert now["settings"] == {**first["settings"], "log_level": "debug"}
        assert [each["replaced"] for each in now["processes"]] == [1, 1, 1]
        assert [each["restarts"] for each in now["processes"]] == [0, 1, 0]
        assert server.status("worker 1")["last_end"] == "signal SIGKILL"
        assert supervisor_metric(server, "start_time_seconds") == started
        assert supervisor_metric(server, "cpu_seconds_total") > cpu
        assert supervisor_metric(server, "replaced_total") == 1
        assert after["last"] >= before["last"]
        assert after["times"][: len(before["times"])] == before["times"]
        assert after["instance"] != before["instance"], "its page has to be loaded again"
        events = [event["text"] for event in after["events"]]
        assert events[: len(before["events"])] == [event["text"] for event in before["events"]]
        assert events[-1] == "the supervisor runs a new program"

        wait_until(lambda: len(server.descendants()) == 3, "those that were replaced to end")
        files = open_files(server.process.pid)
        for number in (2, 3):
            reload_beside(server, client)
            assert server.get("/status")[1]["supervisor_replaced"] == number
            assert samples(server)["instance"] == after["instance"], "its page goes on"
            wait_until(lambda: len(server.descendants()) == 3, "those that were replaced to end")
            wait_until(lambda: open_files(server.process.pid) == files, "the same descriptors")
        is_served(client)
        with RawClient.upgraded(server.port) as another:
            another.hello()
            is_served(another)


def test_a_program_that_can_t_go_on_is_refused(directory: Path, program: Program) -> None:
    """It does not even start, or does not understand the state: everything else is replaced, and the supervisor goes on."""
    with program.server(directory, workers=1) as server:
        before = samples(server)
        worker = server.child("worker 0")
        program.change("router/supervisor/serve.py", "import asyncio\n", "import nowhere\n")
        sentence = "the supervisor goes on with the old program, and everything else was replaced: "
        said = refused(server)
        assert said.startswith(sentence)
        assert said.endswith("No module named 'nowhere'")
        assert server.child("worker 0") != worker
        program.restore("router/supervisor/serve.py")
        program.change("router/supervisor/handed_on.py", "VERSION: Final = 1", "VERSION: Final = 1000")
        assert "the state has version 1, and the program on disk understands version 1000 only" in refused(
            server
        )
        assert server.get("/status")[1]["supervisor_replaced"] == 0
        assert samples(server)["instance"] == before["instance"]
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(
            lambda: "SIGHUP: not everything was replaced" in server.stderr(), "the log to say so", TIMEOUT
        )
        program.restore("router/supervisor/handed_on.py")
        reload(server)
        assert server.get("/status")[1]["supervisor_replaced"] == 1


def test_an_exec_that_fails_leaves_everything_as_it_was(directory: Path, program: Program) -> None:
    """Python is gone after the new program has said that it could go on."""
    python = directory / "python" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(os.path.realpath(sys.executable))
    packages = sysconfig.get_path("purelib")
    first = f'export PYTHONPATH="$PROGRAM:{packages}"; exec "{python}" -m router serve;'
    with program.server(directory, workers=1, first=first) as server:
        gone = f"        os.rename({str(python)!r}, {str(python) + '.gone'!r})\n"
        program.change("router/supervisor/serve.py", CHECKS, gone + CHECKS)
        said = refused(server)
        assert said.endswith(
            "everything else was replaced: [Errno 2] No such file or directory: " + repr(str(python))
        )
        python.with_name("python.gone").rename(python)
        program.restore("router/supervisor/serve.py")
        with RawClient.upgraded(server.port) as client:
            client.hello()
            is_served(client)
        reload(server)
        assert server.get("/status")[1]["supervisor_replaced"] == 1


def test_a_worker_that_dies_meanwhile_is_replaced(directory: Path, program: Program) -> None:
    """The new program finds it dead."""
    with program.server(directory, workers=2) as server:
        dies = "    os.kill(next(each.child.pid for each in state.roles if each.child), 9)\n"
        program.change("router/supervisor/serve.py", GOES_ON, dies + GOES_ON)
        reload(server)
        wait_until(lambda: server.status("worker 0")["restarts"] == 1, "its end to be noticed")
        wait_until(lambda: server.get("/readyz")[0] == 200, "a new one")
        assert server.status("worker 0")["last_end"] == "signal SIGKILL"
        assert server.status("worker 1")["restarts"] == 0


def test_a_signal_that_comes_meanwhile_stops_the_server_in_order(directory: Path, program: Program) -> None:
    with program.server(directory, workers=1) as server:
        comes = "    os.kill(os.getpid(), 15)\n"
        program.change("router/supervisor/serve.py", GOES_ON, comes + GOES_ON)
        children = set(server.descendants())
        os.kill(server.process.pid, signal.SIGHUP)
        assert server.wait(children) == 0
        assert "SIGTERM: stopping" in server.stderr()


def test_who_asks_meanwhile_gets_an_answer(directory: Path, program: Program) -> None:
    """On the admin port and on the operators' socket, each time with a connection of its own."""
    with program.server(directory, workers=1) as server:
        socket_path = next(server.temporary.rglob("operator.sock"))
        done, problems, answers = threading.Event(), [], [0, 0]

        def ask_admin() -> None:
            while not done.is_set():
                connection = HTTPConnection("127.0.0.1", server.admin_port, timeout=TIMEOUT)
                try:
                    connection.request("GET", "/healthz")
                    assert connection.getresponse().status == 200
                    answers[0] += 1
                except (AssertionError, OSError) as problem:
                    problems.append(f"admin port: {problem!r}")
                finally:
                    connection.close()

        def ask_operator_socket() -> None:
            while not done.is_set():
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(TIMEOUT)
                    try:
                        client.connect(str(socket_path))
                        client.sendall(b'{"what":"status"}\n')
                        assert json.loads(client.makefile().readline())["pid"] == server.process.pid
                        answers[1] += 1
                    except (ValueError, OSError) as problem:
                        problems.append(f"operators' socket: {problem!r}")

        threads = [threading.Thread(target=ask) for ask in (ask_admin, ask_operator_socket)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                reload(server)
                answers[:] = [0, 0]
                wait_until(lambda: all(answers), "answers of the new program")
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert problems == []


def test_systemd_sees_a_reload_and_its_end(directory: Path, program: Program) -> None:
    address = directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(TIMEOUT)
        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "60000000"}
        with program.server(directory, workers=1, environment=environment) as server:

            def hear(*words: str) -> list[str]:
                """Everything up to the next message with all of these words."""
                heard: list[str] = []
                while not heard or not all(word in heard[-1].split("\n") for word in words):
                    heard.append(manager.recv(4096).decode())
                return heard

            hear("READY=1")
            os.kill(server.process.pid, signal.SIGHUP)
            hear("RELOADING=1")
            heard = hear("READY=1")
            serving = f"STATUS=serving on port {server.port}, workers=1 fronts=1"
            heard += hear(serving, "WATCHDOG=1")
            assert not any("STOPPING" in each or "STATUS=starting" in each for each in heard)
            assert server.get("/status")[1]["supervisor_replaced"] == 1
