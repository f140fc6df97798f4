"""A real server, started as ``python -m router serve``, for the tests of the supervisor.

Its workers are the real ones, or a program of the test's own, so that they can misbehave.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.router.front_process import TIMEOUT, Client, wait_until
from tests.started_processes import python_path

READY: Final = re.compile(
    r"fastchat ready: ws://(?P<host>\S+):(?P<port>\d+)/ws admin http://(?P<admin_host>\S+):(?P<admin_port>\d+)"
    r" workers=(?P<workers>\d+) fronts=(?P<fronts>\d+) pid=(?P<pid>\d+)\n"
)

#: A worker that says it is ready, beats, and listens, as a program for `ServerProcess`; {boot} comes before, {served} after.
FAKE_WORKER: Final = """
import argparse, json, os, signal, socket, sys, threading, time
parser = argparse.ArgumentParser()
for name in ("index", "control"):
    parser.add_argument("--" + name, type=int)
parser.add_argument("--keep")
parser.add_argument("--generations")
parser.add_argument("--succeeds", type=int)
options = parser.parse_args()
generation = options.generations.split(",")[options.index]
control = socket.socket(fileno=options.control)
def say(op, **fields):
    control.send(json.dumps({{"op": op, **fields}}).encode())
def beat():
    while True:
        say("beat")
        time.sleep(0.5)
notes = os.environ["NOTES"]
def note(*words):
    with open(os.path.join(notes, f"worker-{{options.index}}"), "a") as file:
        print(*words, file=file)
def listen():
    while packet := control.recv(65536):
        note(packet.decode())
        if json.loads(packet)["op"] == "stop":
            sys.exit(0)
note("start", generation)
{boot}
say("ready")
threading.Thread(target=beat, daemon=True).start()
{served}
listen()
"""


class ServerProcess:
    """A server that may or may not start; `settings` are FastChat's, in lower case.

    By default it has free ports and two workers, and nothing serves on when its supervisor is killed.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        worker: str | None = None,
        prepare: str | None = None,
        first: str = "",
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **settings: object,
    ) -> None:
        """`worker` is the program of a fake one, which has no store unless `prepare` is the program of that.

        `first` is what a shell does before it becomes the server.
        """
        self.directory = directory
        self.temporary = directory / "t"
        self.temporary.mkdir(exist_ok=True)
        store = "memory" if worker is not None and prepare is None else "sqlite"
        settings = {
            "port": 0,
            "admin_port": 0,
            "workers": 2,
            "data_dir": directory / "data",
            "store": store,
            "takeover_seconds": 0,
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
        inherited |= {f"FASTCHAT_{name.upper()}": str(value) for name, value in settings.items()}
        inherited |= {"TMPDIR": str(self.temporary), "NOTES": str(directory), **(environment or {})}
        path = []
        if worker is not None:
            package = directory / "fake" / "workers"
            package.mkdir(parents=True)
            (package / "__init__.py").touch()
            (package / "__main__.py").write_text(worker)
            if prepare is not None:
                (package / "store").mkdir()
                (package / "store" / "__init__.py").touch()
                (package / "store" / "__main__.py").write_text(prepare)
            path.append(directory / "fake")
        # Without the working directory in front of the path, so that the fake workers are found.
        inherited |= {"PYTHONPATH": python_path(*path), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-m", "router", "serve", *arguments]
        if first:
            command = ["sh", "-c", f'{first} exec "$0" "$@"', *command]
        self._stderr = (directory / "stderr.txt").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=cwd or directory,
            env=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        """Wait for the ready line."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], TIMEOUT)
        line = os.read(self.process.stdout.fileno(), 4096).decode() if readable else ""
        ready = READY.fullmatch(line)
        if ready is None:
            self.kill()
            raise AssertionError(f"no ready line but {line!r}; {self.stderr()}")
        self.port = int(ready["port"])
        self.admin_port = int(ready["admin_port"])
        self.line = line
        assert int(ready["pid"]) == self.process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is not None or error is not None:
            self.kill()
            return
        assert self.stop() == 0, self.stderr()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code. Nothing must be left of it."""
        left = set(self.descendants())
        self.process.send_signal(number)
        return self.wait(left)

    def wait(self, left: set[int] | None = None) -> int:
        """Its exit code once it ended; neither processes nor files may be left then, but what counts against limits is."""
        left = set(self.descendants()) if left is None else left
        code = self.process.wait(TIMEOUT)
        assert not [pid for pid in left if is_running(pid)], "processes are left"
        left_files = [path for path in self.temporary.rglob("*") if not path.is_dir()]
        assert [path for path in left_files if not fnmatch(path.name, "limits-*.json")] == []
        assert left_files or list(self.temporary.iterdir()) == []
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        assert rest == b"", f"more on standard output than one line: {rest!r}"
        self.process.stdout.close()
        self._stderr.close()
        return code

    def fails(self) -> tuple[int, str]:
        """Exit code and standard error of a server that does not start."""
        code = self.wait(set())
        logged = self.stderr()
        assert "Traceback" not in logged, logged
        return code, logged

    def kill(self) -> None:
        """End everything."""
        for pid in [self.process.pid, *self.descendants()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(TIMEOUT)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._stderr.close()

    # -- What there is to see --

    def stderr(self) -> str:
        return (self.directory / "stderr.txt").read_text()

    def descendants(self) -> dict[int, str]:
        """Children: process number -> title."""
        found = {}
        for pid in _pids():
            with contextlib.suppress(OSError):
                if _parent(pid) == self.process.pid:
                    found[pid] = (
                        Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    )
        return found

    def child(self, title: str) -> int:
        """The number of the child with this title after ``fastchat: ``."""
        (pid,) = [pid for pid, name in self.descendants().items() if name == f"fastchat: {title}"]
        return pid

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and body of an answer of the admin port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=TIMEOUT)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(body) if is_json else body.decode()
        finally:
            connection.close()

    def status(self, name: str) -> dict[str, Any]:
        """What `/status` says of a process, such as ``worker 1``."""
        kind, index = name.split()
        processes = self.get("/status")[1]["processes"]
        (found,) = [each for each in processes if each["kind"] == kind and each["index"] == int(index)]
        return dict(found)

    def notes(self, worker: int) -> list[str]:
        """What a fake worker noted."""
        path = self.directory / f"worker-{worker}"
        return path.read_text().splitlines() if path.exists() else []

    def client(self, host: str = "127.0.0.1") -> Client:
        """A client, upgraded."""
        return Client(self.port, host=host)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_running(pid: int) -> bool:
    """Whether this process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_gone(pids: set[int], timeout: float) -> None:
    """Wait until none of these processes runs."""
    wait_until(lambda: not any(map(is_running, pids)), f"{pids} to end", timeout)


def elapsed(since: float) -> float:
    """Seconds."""
    return time.monotonic() - since
