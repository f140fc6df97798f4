"""What FastChat is measured against: tiny relays in memory that speak the same protocol, each one process on one core.

All of them answer HELLO, OPEN_CHAT, MSG and PING as docs/protocol.md says for a client that uses no capability, but without checks,
limits or storage: a message to somebody who is not there is acknowledged as ``stored`` and forgotten.

    with start("floor") as peer:
        ...  # connect to peer.url; peer.pids are whose CPU to count

`PEERS` lists them. What a peer needs is made when it is started for the first time: `floor` is compiled into ``build/``, and the packages
of those on Node are installed into ``node_modules/``, both in this directory. A peer whose needs cannot be met here is `Unavailable`.

To add one: a program in this directory that takes a port (0 for a free one), prints ``ready ws://127.0.0.1:PORT/ws pid=PID`` when it
listens and ends at SIGTERM; a function that returns its command; and a line in `PEERS`. The tests then include it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, NamedTuple

_HERE: Final = Path(__file__).resolve().parent
_PROJECT: Final = _HERE.parents[1]
_READY: Final = re.compile(rb"^ready (?P<url>ws://\S+) pid=(?P<pid>\d+)\n")

# Seconds that a peer may take; a machine that is busy with tests has to manage it.
_START_TIMEOUT: Final = 20.0
_STOP_TIMEOUT: Final = 5.0
_CHECK_TIMEOUT: Final = 20.0
#: The packages are about 100 MB, most of it prebuilt binaries for systems other than this one.
_INSTALL_TIMEOUT: Final = 150.0


class Unavailable(Exception):
    """A peer cannot run on this machine; the text is one sentence that says why."""


class PeerFailed(Exception):
    """A peer has what it needs, and did not start; the text has what it wrote."""


class Peer(NamedTuple):
    """A running peer."""

    name: str
    url: str
    #: All its processes.
    pids: tuple[int, ...]


class Recipe(NamedTuple):
    """How a peer is made and started."""

    #: What it is, for a table.
    title: str
    #: Makes what has to be made and returns the command, to which the port is added. Raises Unavailable.
    prepare: Callable[[], list[str]]
    #: Whether a MSG arrives with all fields that docs/protocol.md names; if not, as its sender wrote it.
    completes: bool = True


@contextmanager
def start(name: str, port: int = 0) -> Iterator[Peer]:
    """Make ready and start one of `PEERS` on a port, 0 being a free one; stop it at the end.

    Raises Unavailable, KeyError when there is none of that name, and PeerFailed. The thread that calls this has to live as long as the
    peer: should it end before, by whatever cause, the kernel ends the peer.
    """
    command = [*_until_death(), *PEERS[name].prepare(), str(port)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=_PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdout is not None, "a pipe"
        try:
            ready = _READY.match(_first_line(process.stdout))
            if ready is None:
                process.kill()
                process.wait()
                errors.seek(0)
                raise PeerFailed(
                    f"{name} did not start: {errors.read().decode(errors='replace').strip()[-2000:]}"
                )
            yield Peer(name, ready["url"].decode(), (int(ready["pid"]),))
        finally:
            _stop(process)
            process.stdout.close()


def _first_line(stdout: IO[bytes]) -> bytes:
    """Return the first line, or as much of it as came before the end or the time limit."""
    line = b""
    deadline = time.monotonic() + _START_TIMEOUT
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
            if not (more := os.read(stdout.fileno(), 4096)):
                break
            line += more
    return line


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _until_death() -> list[str]:
    """Return what goes before a command so that it ends when its parent does, even at SIGKILL; nothing where util-linux is missing."""
    return ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []


# -- What the peers need --


def _floor() -> list[str]:
    source, program = _HERE / "floor.c", _HERE / "build" / "floor"
    with _locked():
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            if shutil.which("cc") is None:
                raise Unavailable("there is no C compiler named cc")
            program.parent.mkdir(exist_ok=True)
            made = program.with_suffix(".new")
            _run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(made), str(source)], "cc", _CHECK_TIMEOUT)
            made.replace(program)
    return [str(program)]


def _python(module: str, *needs: str) -> Callable[[], list[str]]:
    def prepare() -> list[str]:
        for package in needs:
            if importlib.util.find_spec(package) is None:
                raise Unavailable(f"the Python package {package} is not installed")
        return [sys.executable, "-m", f"bench.peers.{module}"]

    return prepare


def _node(script: str, package: str) -> Callable[[], list[str]]:
    def prepare() -> list[str]:
        if shutil.which("node") is None:
            raise Unavailable("there is no Node")
        with _locked():
            _install_node_packages()
        # A package with binaries may have none for this system or this version of Node.
        _run(["node", "-e", f"require('{package}')"], f"loading {package} under Node", _CHECK_TIMEOUT)
        return ["node", str(_HERE / script)]

    return prepare


def _install_node_packages() -> None:
    """Bring node_modules to what the lock file says, unless it is there."""
    stamp = _HERE / "node_modules" / ".package-lock.json"  # npm writes it last
    wanted = max((_HERE / name).stat().st_mtime for name in ("package.json", "package-lock.json"))
    if stamp.exists() and stamp.stat().st_mtime >= wanted:
        return
    if shutil.which("npm") is None:
        raise Unavailable("there is no npm, and the packages of the peers on Node are not installed")
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    _run(command, "npm ci", _INSTALL_TIMEOUT)


def _run(command: list[str], what: str, timeout: float) -> None:
    """Run a command in this directory. Raises Unavailable with its first error when it fails or takes too long."""
    try:
        subprocess.run(
            [*_until_death(), *command],
            cwd=_HERE,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what} took longer than {timeout:g} s") from None
    except subprocess.CalledProcessError as error:
        lines = error.stdout.strip().splitlines() or ["it said nothing"]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise Unavailable(f"{what} failed: {reason.strip()}") from None


@contextmanager
def _locked() -> Iterator[None]:
    """Only one process at a time makes something here; the others wait, look again, and find it made."""
    directory = os.open(_HERE, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


#: Name -> how it is made and started, the least work for a message first.
PEERS: Final[Mapping[str, Recipe]] = MappingProxyType(
    {
        "floor": Recipe("a C epoll relay: one recv and two sends a message", _floor, completes=False),
        "uws": Recipe("uWebSockets.js (C++ under Node)", _node("uws_peer.js", "uwebsockets")),
        "picows": Recipe(
            "bare picows, uvloop and orjson", _python("picows_peer", "picows", "uvloop", "orjson")
        ),
        "ws": Recipe("Node and ws", _node("ws_peer.js", "ws")),
        "fastapi": Recipe("FastAPI on uvicorn", _python("fastapi_peer", "fastapi", "uvicorn", "httptools")),
    }
)
