"""Tests of router.supervisor.service_manager: what a service manager hears, and that of a real server, which systemd would start so."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import pytest

from router.supervisor.service_manager import ServiceManager
from tests.router.front_process import TIMEOUT, wait_until
from tests.router.server_process import ServerProcess
from tests.system.harness import run_async

#: Half a second: a sign of life four times a second.
WATCHDOG: Final = "500000"


class Listener:
    """The service manager's end: a socket with a `name` as it would stand in NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)

    def hear(self, timeout: float = TIMEOUT) -> dict[str, str]:
        """The next words. AssertionError when none come."""
        self._socket.settimeout(timeout)
        try:
            text = self._socket.recv(4096).decode()
        except TimeoutError:
            raise AssertionError(f"nothing was said for {timeout:g} s") from None
        return dict(line.split("=", 1) for line in text.split("\n"))

    def hear_until(self, **words: str) -> list[dict[str, str]]:
        """All that is said until these words are; they are the last."""
        heard = [self.hear()]
        deadline = time.monotonic() + TIMEOUT
        while not words.items() <= heard[-1].items():
            assert time.monotonic() < deadline, f"{words} expected, came {heard}"
            heard.append(self.hear())
        return heard

    def drain(self) -> list[dict[str, str]]:
        """What has come."""
        heard = []
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while text := self._socket.recv(4096).decode():
                heard.append(dict(line.split("=", 1) for line in text.split("\n")))
        return heard

    async def next_word(self) -> None:
        """Wait for one while the event loop goes on; after `drain`."""
        await asyncio.get_running_loop().sock_recv(self._socket, 4096)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a path", "an abstract name"])
def listener(request: pytest.FixtureRequest, run_dir: Path) -> Iterator[Listener]:
    listener = Listener(str(run_dir / "notify") if request.param == "a path" else f"@fastchat-{uuid4()}")
    yield listener
    listener.close()


@pytest.fixture
def path_listener(run_dir: Path) -> Iterator[Listener]:
    listener = Listener(str(run_dir / "notify"))
    yield listener
    listener.close()


class Timer:
    def cancel(self) -> None:
        pass


class Clock:
    """In place of an event loop: keeps what is to be called later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, action: Callable[[], None]) -> Any:
        self.later.append((delay, action))
        return Timer()

    def pass_time(self) -> float:
        """Call what is due next; how much later that is, in seconds."""
        delay, action = self.later.pop(0)
        action()
        return delay


#: Makes a server's side, with a state of "a state" unless another is given.
MakeManager = Callable[..., ServiceManager]


@pytest.fixture
def manager() -> Iterator[MakeManager]:
    with ExitStack() as ends:

        def make(clock: Clock, environ: dict[str, str], state: str = "a state") -> ServiceManager:
            made = ServiceManager(cast(asyncio.AbstractEventLoop, clock), lambda: state, environ)
            ends.callback(made.close)
            return made

        yield make


def test_the_life_of_a_server(manager: MakeManager, listener: Listener) -> None:
    clock = Clock()
    server = manager(clock, {"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": WATCHDOG})
    server.start()
    more_time = {"EXTEND_TIMEOUT_USEC": "60000000"}
    assert listener.drain() == [{"STATUS": "a state", "WATCHDOG": "1", **more_time}]
    server.ready()
    assert listener.drain() == [{"READY": "1", "STATUS": "a state"}]
    assert clock.pass_time() == 0.25
    assert listener.drain() == [{"STATUS": "a state", "WATCHDOG": "1"}]

    async def read_again() -> None:
        server._notify("STATUS=it is read")

    asyncio.run(server.reload(read_again))
    reloading, read, ready = listener.drain()
    assert abs(int(reloading.pop("MONOTONIC_USEC")) - time.monotonic_ns() // 1000) < 60_000_000
    assert (reloading, read["STATUS"], ready["READY"]) == ({"RELOADING": "1"}, "it is read", "1")
    server.stopping()
    assert listener.drain() == [{"STOPPING": "1", "STATUS": "stopping"}]
    assert clock.pass_time() == 0.25
    assert listener.drain() == [{"STATUS": "stopping", "WATCHDOG": "1"}]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": WATCHDOG, "WATCHDOG_PID": "1"},
    ],
)
def test_nobody_watches(manager: MakeManager, environ: dict[str, str], path_listener: Listener) -> None:
    clock = Clock()
    manager(clock, {"NOTIFY_SOCKET": path_listener.name, **environ}).start()
    assert clock.pass_time() == 10.0
    assert [heard.get("WATCHDOG") for heard in path_listener.drain()] == [None, None]


def test_a_watchdog_of_this_process(manager: MakeManager, path_listener: Listener) -> None:
    environ = {"NOTIFY_SOCKET": path_listener.name, "WATCHDOG_USEC": WATCHDOG}
    manager(Clock(), environ | {"WATCHDOG_PID": str(os.getpid())}).start()
    assert path_listener.hear()["WATCHDOG"] == "1"


def test_what_is_in_the_environment_is_for_this_process_only(
    manager: MakeManager, path_listener: Listener
) -> None:
    environ = {"NOTIFY_SOCKET": path_listener.name, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    manager(Clock(), environ)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("name", ["", "vsock:2:1234", "relative"])
def test_nobody_is_told(manager: MakeManager, name: str) -> None:
    clock = Clock()
    server = manager(clock, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": WATCHDOG})
    server.start()
    server.ready()
    done: list[bool] = []

    async def read() -> None:
        done.append(True)

    asyncio.run(server.reload(read))
    server.stopping()
    server.close()
    assert (clock.later, done) == ([], [True])


def test_a_service_manager_that_is_gone_does_no_harm(manager: MakeManager, run_dir: Path) -> None:
    clock = Clock()
    server = manager(clock, {"NOTIFY_SOCKET": str(run_dir / "nobody")})
    server.start()
    server.ready()
    clock.pass_time()
    assert len(clock.later) == 1


def test_what_had_no_room_is_said_at_the_next_beat(manager: MakeManager, path_listener: Listener) -> None:
    clock = Clock()
    server = manager(clock, {"NOTIFY_SOCKET": path_listener.name})
    server.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"FILL=1", path_listener.name)
    server.ready()
    assert all("READY" not in heard for heard in path_listener.drain())
    clock.pass_time()
    assert path_listener.drain() == [{"READY": "1", "STATUS": "a state"}, {"STATUS": "a state"}]


def test_a_state_is_one_short_line(manager: MakeManager, path_listener: Listener) -> None:
    manager(Clock(), {"NOTIFY_SOCKET": path_listener.name}, "first\nREADY=1 " + "é" * 1000).start()
    heard = path_listener.hear()
    assert heard.keys() == {"STATUS", "EXTEND_TIMEOUT_USEC"}
    assert heard["STATUS"].startswith("first READY=1 é")
    assert len(heard["STATUS"].encode()) <= 500


@run_async
async def test_a_loop_that_hangs_sends_no_sign_of_life(path_listener: Listener) -> None:
    environ = {"NOTIFY_SOCKET": path_listener.name, "WATCHDOG_USEC": "20000"}
    server = ServiceManager(asyncio.get_running_loop(), lambda: "", environ)
    server.start()
    path_listener.drain()
    async with asyncio.timeout(TIMEOUT):
        for _ in range(3):
            await path_listener.next_word()
    path_listener.drain()
    time.sleep(0.2)  # noqa: ASYNC251 - this is how it hangs: for ten beats
    assert path_listener.drain() == []
    server.close()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
def test_a_real_server_from_its_start_to_its_end(listener: Listener, run_dir: Path) -> None:
    environment = {"NOTIFY_SOCKET": listener.name, "WATCHDOG_USEC": WATCHDOG}
    with ServerProcess(run_dir, environment=environment) as server:
        heard = listener.hear_until(READY="1")
        assert "EXTEND_TIMEOUT_USEC" in heard[0]
        assert heard[-1]["STATUS"] == f"serving on port {server.port}, workers=2 fronts=1"
        assert "EXTEND_TIMEOUT_USEC" not in listener.hear_until(WATCHDOG="1")[-1]
        for pid in server.descendants():
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
        server.process.send_signal(signal.SIGHUP)
        listener.hear_until(RELOADING="1")
        listener.hear_until(READY="1")
        # A worker that hangs is no reason to start everything again.
        worker = next(pid for pid, title in server.descendants().items() if "worker 0" in title)
        os.kill(worker, signal.SIGSTOP)
        listener.drain()
        for _ in range(4):
            listener.hear_until(WATCHDOG="1")
        os.kill(worker, signal.SIGCONT)
        # The supervisor that hangs is.
        server.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(server.process.pid) == "T", "the supervisor to be stopped")
        listener.drain()
        with pytest.raises(AssertionError, match="nothing was said"):
            listener.hear(timeout=1.0)
        server.process.send_signal(signal.SIGCONT)
        listener.hear_until(WATCHDOG="1")
    assert "STOPPING" in listener.hear_until(STOPPING="1")[-1]
