"""A real worker process, with the test in the place of its supervisor and of a front.

`WorkerProcess` starts ``python -m workers`` as the supervisor does and holds the other end of the control pipe. Its `connect` does what a
front does: it makes a TCP connection, sends what the client says first, and hands the server's end over with a ticket.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from core.process.allocator import environment_of_children
from core.process.control import PACKET_MAX_BYTES, READY, STATS, decode_control, encode_control
from core.process.handover import Ticket, decode_adopted, encode_ticket, endpoint
from core.process.settings import Settings
from tests.system.raw_client import PATIENCE, RawClient
from workers.limits import DEFAULT_LIMITS, Limits

PROJECT: Final = Path(__file__).resolve().parents[2]
#: ``python -m workers`` with limits that a test chooses.
PROGRAM: Final = """
from workers.__main__ import main
from workers.connection import Connection
from workers.limits import Limits

class Limited(Connection):
    __slots__ = ()
    limits = Limits(*{})

raise SystemExit(main(Limited))
"""


class WorkerProcess:
    """Worker 0 of `workers`, in a run directory of its own; a context manager. Keywords are settings, in lower case."""

    def __init__(
        self,
        *,
        workers: int = 1,
        generations: Sequence[int] | None = None,
        succeeds: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        **settings: object,
    ) -> None:
        """`succeeds` is the generation of the process whose place it takes, which the test is then."""
        # Not below pytest's directory: the path of a Unix socket ends at 107 bytes.
        self.run_dir = tempfile.mkdtemp(prefix="fastchat-test-")
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Files are made by others before a worker starts; what is tested with this has nothing to do with them.
        defaults = {
            "run_dir": Path(self.run_dir),
            "workers": workers,
            "store": "memory",
            "messages_per_minute": 0,
        }
        chosen = Settings(**cast(Any, defaults | settings))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
        inherited |= environment_of_children(inherited)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", PROGRAM.format(tuple(limits)), "--index", "0"),
                *("--generations", ",".join(map(str, generations or [1] * workers))),
                *("--control", str(theirs.fileno())),
                *(() if succeeds is None else ("--succeeds", str(succeeds))),
            ],
            cwd=PROJECT,
            env=inherited | chosen.environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.front: socket.socket | None = None
        self._tickets = 0
        self._adopted: set[int] = set()

    def __enter__(self) -> Self:
        self.heard(READY)
        self.front = self.open_queue()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.control.close()
        if self.front is not None:
            self.front.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            assert self.process.stderr is not None
            sys.stderr.write(self.process.stderr.read().decode())
            self.process.stderr.close()
            shutil.rmtree(self.run_dir, ignore_errors=True)

    # -- As the supervisor --

    def say(self, op: str, **fields: Any) -> None:
        """Tell the worker something."""
        self.control.send(encode_control(op, **fields))

    def heard(self, op: str) -> dict[str, Any]:
        """The next thing of this kind that the worker says."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.control.settimeout(max(0.01, deadline - time.monotonic()))
            packet = self.control.recv(PACKET_MAX_BYTES)
            assert packet, "the worker ended"
            said = decode_control(packet)
            if said["op"] == op:
                return said

    def stats(self, timeout: float = PATIENCE, **expected: int) -> dict[str, int]:
        """Wait for a report with these figures that is made after this call."""
        self.control.setblocking(False)
        with suppress(BlockingIOError):
            while self.control.recv(PACKET_MAX_BYTES):
                pass
        deadline = time.monotonic() + timeout
        while True:
            stats: dict[str, int] = self.heard(STATS)["stats"]
            if expected.items() <= stats.items():
                return stats
            assert time.monotonic() < deadline, f"expected {expected} within {timeout:g} s; last came {stats}"

    def descriptors(self) -> int:
        """How many file descriptors the worker has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # -- As a front --

    def open_queue(self) -> socket.socket:
        """A connection to the hand-over endpoint, as each front has one."""
        queue = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        queue.settimeout(PATIENCE)
        queue.connect(endpoint(self.run_dir, 0))
        return queue

    def hand_over(self, sock: socket.socket, user_id: str, carried: bytes = b"") -> int:
        """Hand a socket over and give up this process's copy; the ticket's number."""
        assert self.front is not None
        self._tickets += 1
        ticket = encode_ticket(Ticket(self._tickets, user_id, "127.0.0.1", 0, carried))
        socket.send_fds(self.front, [ticket], [sock.fileno()])
        sock.close()
        return self._tickets

    def wait_adopted(self, number: int) -> None:
        """Wait until the worker has said `adopted` for this ticket."""
        assert self.front is not None
        while number not in self._adopted:
            self._adopted.update(decode_adopted(self.front.recv(4096)))
        self._adopted.discard(number)

    def connect(
        self,
        user_id: str | None = None,
        name: str = "Somebody",
        *,
        first: bytes | None = None,
        carried: bytes = b"",
        claimed: str | None = None,
        send_buffer: int = 0,
        receive_buffer: int = 0,
    ) -> RawClient:
        """A client whose socket has been handed over, behind a HELLO that has not been answered yet.

        `first` is sent instead of HELLO, `carried` is what the front had to take out of the kernel before, and `claimed` is what
        the ticket says instead of the user id. The two buffers are the kernel's, for tests of a client that does not read.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = socket.socket()
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(listener.getsockname())
            server_end, _ = listener.accept()
        if send_buffer:
            server_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        client = RawClient(sock, user_id, name)
        client.send(client.hello_bytes() if first is None else first)
        self.wait_adopted(self.hand_over(server_end, claimed or client.user_id, carried))
        return client

    def chatter(self, user_id: str | None = None, name: str = "Somebody", **parameters: Any) -> RawClient:
        """A client that has been greeted."""
        client = self.connect(user_id, name, **parameters)
        client.receive("HELLO_ACK")
        client.receive("PRESENCE")
        return client
