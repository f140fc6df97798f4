"""A real server and independent clients, for the tests of the whole.

`Server` starts the real processes through ``make run`` on free ports, in a data directory of its own, and checks at the
end that they stopped cleanly. `ChatClient` is one connection, made with the independent ``websockets`` client, which knows
only the wire.

    with Server(tmp_path, workers=2) as server:
        async with ChatClient(server.url) as alice, ChatClient(server.url) as bob:
            await alice.hello()
            await bob.hello()
            await alice.open_chat(bob)
            await alice.message(bob, "hi")
            await bob.receive("MSG", content="hi")

Nothing in here sleeps for a fixed time in the hope that something has happened: `wait_until` polls a condition,
`ChatClient.receive` waits for a message, and `ChatClient.drain` asks for a round trip, after which everything that was on
its way has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, ParamSpec, Self
from uuid import uuid4

from core.placement import Placement
from tests.system.chat_client import ChatClient, Message

__all__ = [
    "ChatClient",
    "Message",
    "Server",
    "ServerFailed",
    "StartServer",
    "clean_environment",
    "run_async",
    "user_on_worker",
    "wait_until",
]

PROJECT: Final = Path(__file__).resolve().parents[2]

#: The line with which the supervisor says that everybody can connect.
READY: Final = re.compile(
    r"^fastchat ready: (?P<url>ws://(?P<host>\S+):(?P<port>\d+)/ws) admin (?P<admin_url>http://\S+:\d+)"
    r" workers=(?P<workers>\d+) fronts=(?P<fronts>\d+) pid=(?P<pid>\d+)$",
    re.MULTILINE,
)
#: Where make tells the exit code of a recipe that failed; its own is always 2.
MAKE_ERROR: Final = re.compile(r"^make: \*\*\* \[.*\] Error (?P<code>\d+)", re.MULTILINE)

#: What a test is willing to wait for; a machine that is busy with other tests has to manage it.
START_TIMEOUT: Final = 90.0
STOP_TIMEOUT: Final = 20.0

#: Limits that are in the way of tests of everything else.
NO_LIMITS: Final[Mapping[str, object]] = {
    "messages_per_minute": 0,
    "typing_per_minute": 0,
    "open_chats_per_minute": 0,
    "hellos_per_minute": 0,
    "pings_per_second": 0,
}

Parameters = ParamSpec("Parameters")


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    """Return as soon as `condition` holds; AssertionError naming `what` when it still does not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain: {what}"
        time.sleep(0.01)


def run_async(test: Callable[Parameters, Coroutine[Any, Any, None]]) -> Callable[Parameters, None]:
    """Make a test out of a coroutine function; its fixtures and parameters work as with any test."""

    @functools.wraps(test)
    def run(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> None:
        asyncio.run(test(*arguments, **keywords))

    return run


def user_on_worker(index: int, workers: int) -> str:
    """A new user id (UUID v4) that lives on worker `index` of `workers`."""
    placement = Placement(workers)
    while placement.worker_of(user_id := str(uuid4())) != index:
        pass
    return user_id


def clean_environment() -> dict[str, str]:
    """This process's environment without FastChat's settings and without what an outer make left there."""
    inherited = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FASTCHAT_") and k not in inherited}
    return kept | {"LC_ALL": "C.UTF-8"}


class Process(NamedTuple):
    """A process as /proc shows it. A number alone could be given to another process; with the start time it cannot."""

    pid: int
    started: str
    parent: int
    session: int


def processes() -> dict[int, Process]:
    """All processes of this machine that have not ended. A zombie has: all that it holds is its exit code."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                stat = file.read()
        except OSError:
            continue  # it ended meanwhile
        # The name in parentheses may contain anything, so the fields are counted from its end.
        state, parent, _, session, *rest = stat.rpartition(")")[2].split()
        if state != "Z":
            pid = int(name)
            found[pid] = Process(pid, rest[15], int(parent), int(session))
    return found


def process_title(pid: int) -> str:
    """What ``ps`` shows for a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


class ServerFailed(AssertionError):
    """The server ended, or never got ready, when a test needed it. `exit_code` is the server's own, None if it still ran."""

    def __init__(self, message: str, exit_code: int | None, output: str) -> None:
        super().__init__(f"{message}\n{output}")
        self.exit_code = exit_code
        self.output = output


class Server:
    """A server of its own for a test; a context manager, or `start` and `stop` by hand.

    `directory` takes the data and the output. The other keywords are FastChat's settings, in lower case and without prefix:
    ``Server(tmp_path, workers=8, user_ids="any")``. Limits are off unless `limits` is true. Port 0 is a free port. `compiled` is
    whether the core is compiled to machine code, None if that is left to `make run`. `descriptors` is what each process may have open,
    None for as many as this one.
    """

    url: str
    port: int
    admin_url: str
    #: The supervisor's process number.
    pid: int

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        fronts: int = 1,
        port: int = 0,
        admin_port: int = 0,
        limits: bool = False,
        compiled: bool | None = False,
        descriptors: int | None = None,
        **settings: object,
    ) -> None:
        self.workers = workers
        self.fronts = fronts
        #: Whether the limits by user are those of a server as it comes.
        self.limits = limits
        #: The other settings that were chosen.
        self.settings: Mapping[str, object] = settings
        self._directory = directory
        data = directory / "data"
        self._command = [] if descriptors is None else ["prlimit", f"--nofile={descriptors}"]
        self._command += ["make", "--no-print-directory", "run", f"WORKERS={workers}", f"FRONTS={fronts}"]
        self._command += [f"PORT={port}", f"ADMIN_PORT={admin_port}", f"DATA={data}"]
        self._command += [] if compiled is None else [f"COMPILED={compiled:d}"]
        if not limits:
            settings = {**NO_LIMITS, **settings}
        self._environment = clean_environment() | {
            f"FASTCHAT_{k.upper()}": str(v) for k, v in settings.items()
        }
        self._make: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._make is None:
            return
        if error is not None or self._make.poll() is not None:
            self.kill()  # what is left, if a test ended the supervisor the hard way
            return
        code = self.stop()
        if code != 0:
            raise ServerFailed(
                f"the server was asked to stop and ended with {code} instead of 0", code, self.output()
            )

    def __repr__(self) -> str:
        return f"Server(workers={self.workers}, fronts={self.fronts}, url={getattr(self, 'url', None)!r})"

    # -- Life --

    def start(self) -> None:
        """Start it and wait for the ready line. Raises ServerFailed when the server ends before, or takes too long."""
        ensure_installed()
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._file("stdout").open("wb") as stdout, self._file("stderr").open("wb") as stderr:
            # A session of its own: signals meant for the tests do not reach it, and what is left of it can be found.
            self._make = subprocess.Popen(
                self._command,
                cwd=PROJECT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while (ready := READY.search(self._read("stdout"))) is None:
            if self._make.poll() is not None and READY.search(self._read("stdout")) is None:
                raise ServerFailed("the server ended before it was ready", self._exit_code(), self.output())
            if time.monotonic() > deadline:
                output = self.output()
                self.kill()
                raise ServerFailed(f"the server was not ready after {START_TIMEOUT:g} s", None, output)
            time.sleep(0.01)
        self.url = ready["url"]
        self.port = int(ready["port"])
        self.admin_url = ready["admin_url"]
        self.pid = int(ready["pid"])

    def stop(self, signal_number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the supervisor to stop and wait for its end; its exit code. AssertionError if a process of the server is left."""
        make = self._running()
        ours = self._family()
        os.kill(self.pid, signal_number)
        try:
            make.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            output = self.output()
            self.kill()
            raise ServerFailed(
                f"the server still ran {STOP_TIMEOUT:g} s after {signal_number.name}", None, output
            ) from None
        left = self._left_of(ours)
        if left:
            titles = {process.pid: process_title(process.pid) for process in left}
            self.kill()
            raise ServerFailed(
                f"processes were left when the supervisor had ended: {titles}", None, self.output()
            )
        return self._exit_code()

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Wait until the server has ended, for whatever reason; its exit code, or make's 2 when a signal ended it."""
        self._running().wait(timeout)
        return self._exit_code()

    def kill(self) -> None:
        """End everything at once, without a question."""
        make = self._running()
        ours = self._family()
        for process in self._left_of(ours):
            _kill(process.pid)
        make.wait(STOP_TIMEOUT)
        wait_until(lambda: not self._left_of(ours), "the server's processes to be gone after SIGKILL")

    # -- What is to be seen of it --

    def output(self) -> str:
        """Everything that it has written so far, standard output first."""
        return self._read("stdout") + self._read("stderr")

    def children(self) -> dict[int, str]:
        """The running processes below the supervisor: process number -> title, such as ``fastchat: worker 3``. Not the keeper."""
        titles = {process.pid: process_title(process.pid) for process in _descendants(self.pid, processes())}
        return {pid: title for pid, title in titles.items() if "keeper" not in title}

    def child(self, title: str) -> int:
        """The process number of the child with this title after ``fastchat: ``, such as ``worker 3``."""
        children = self.children()
        found = [pid for pid, name in children.items() if name == f"fastchat: {title}"]
        assert len(found) == 1, f"one process 'fastchat: {title}' expected, there are {children}"
        return found[0]

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._make is not None, "the server has not been started"
        return self._make

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.txt"

    def _read(self, name: str) -> str:
        try:
            return self._file(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _exit_code(self) -> int:
        failed = MAKE_ERROR.search(self._read("stderr"))
        return int(failed["code"]) if failed else self._running().returncode

    def _family(self) -> set[Process]:
        """All processes of this server, also those that went to another session or lost their parent."""
        running = processes()
        make = self._running()
        ours = {process for process in running.values() if process.session == make.pid}
        return ours | _descendants(make.pid, running) | _descendants(getattr(self, "pid", make.pid), running)

    def _left_of(self, ours: set[Process]) -> set[Process]:
        """Those of `ours`, and of the session, that still run."""
        running = processes()
        session = self._running().pid
        known = {(process.pid, process.started) for process in ours}
        return {p for p in running.values() if (p.pid, p.started) in known or p.session == session}


#: What the fixture `start_server` is: it takes what `Server` takes after the directory.
StartServer = Callable[..., Server]


def _descendants(pid: int, running: Mapping[int, Process]) -> set[Process]:
    found: set[Process] = set()
    parents = {pid}
    while parents:
        generation = {process for process in running.values() if process.parent in parents} - found
        found |= generation
        parents = {process.pid for process in generation}
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was faster
        os.kill(pid, signal.SIGKILL)


@functools.cache
def ensure_installed() -> None:
    """Let make set up what running needs, which may take longer than a server may take to start; once is enough."""
    subprocess.run(
        ["make", "--silent", ".venv/.installed-run"], cwd=PROJECT, env=clean_environment(), check=True
    )
