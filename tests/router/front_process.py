"""A real front process between a test and fake workers.

`FrontProcess` starts ``python -m router.front`` with a control pipe and listeners of the test's own; `FakeWorker` is the far end of a
hand-over queue. Everything here blocks, with timeouts: the tests are plain functions. Nothing sleeps in the hope that something has
happened.
"""

from __future__ import annotations

import array
import base64
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, cast
from uuid import uuid4

from core.placement import Placement
from core.process.control import decode_control, encode_control
from core.process.handover import Ticket, decode_ticket, encode_adopted, endpoint
from core.process.settings import Settings
from core.wire import frames
from core.wire.frames import Opcode

PROJECT: Final = Path(__file__).resolve().parents[2]
#: What a test is willing to wait for; a machine that is busy with other tests has to manage it.
TIMEOUT: Final = 20.0

HEAD: Final = (
    b"GET /ws HTTP/1.1\r\nHost: localhost:8000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Return as soon as `condition` holds; AssertionError naming `what` when it still does not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain: {what}"
        time.sleep(0.01)


def user_on(worker: int, workers: int) -> str:
    """A new user id that lives on `worker` of `workers`."""
    placement = Placement(workers)
    while placement.worker_of(user_id := str(uuid4())) != worker:
        pass
    return user_id


def client_frame(
    opcode: int, payload: bytes, *, final: bool = True, mask: bytes = b"\x12\x34\x56\x78"
) -> bytes:
    """A masked frame as a client sends it; unlike `core.wire.frames.client_frame` with a mask that does something, and in fragments."""
    first = opcode | (0x80 if final else 0)
    size = len(payload)
    if size < 126:
        header = bytes((first, 0x80 | size))
    elif size < 65536:
        header = bytes((first, 0x80 | 126)) + struct.pack("!H", size)
    else:
        header = bytes((first, 0x80 | 127)) + struct.pack("!Q", size)
    return header + mask + frames.apply_mask(payload, mask)


def message(kind: str, **data: Any) -> bytes:
    """A message's JSON."""
    return json.dumps({"type": kind, "data": data}).encode()


def text(kind: str, **data: Any) -> bytes:
    """A message as one client frame."""
    return client_frame(Opcode.TEXT, message(kind, **data))


def hello(user_id: str | None = None) -> bytes:
    """A HELLO as one client frame."""
    return text("HELLO", user_id=user_id or str(uuid4()), display_name="Ada Lovelace")


class Client:
    """A blocking client that can send anything."""

    def __init__(self, port: int, *, upgrade: bool = True, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        if upgrade:
            self.send(HEAD)
            assert self.read_head().startswith(b"HTTP/1.1 101 ")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def dribble(self, data: bytes) -> None:
        """One byte at a time, each in a segment of its own."""
        for index in range(len(data)):
            self.socket.sendall(data[index : index + 1])

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.socket.recv(65536)
            assert data, f"the connection ended; {size} bytes expected, there are only {self._buffer!r}"
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_head(self) -> bytes:
        """The head of an HTTP answer."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.socket.recv(65536)
            assert data, f"the connection ended within a head: {self._buffer!r}"
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def read_all(self) -> bytes:
        """Everything up to the end of the connection, which must not be a reset."""
        while data := self.socket.recv(65536):
            self._buffer += data
        data, self._buffer = self._buffer, b""
        return data

    def ends(self) -> bool:
        """Whether the next thing to come is the end, a reset included."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        first, second = self.read(2)
        assert first & 0x80, "the server never fragments"
        assert not second & 0x80, "the server never masks"
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", self.read(2))
        return first & 0x0F, self.read(size)

    def json(self) -> dict[str, Any]:
        """The next message."""
        opcode, payload = self.frame()
        assert opcode == Opcode.TEXT, (opcode, payload)
        decoded: dict[str, Any] = json.loads(payload)
        return decoded

    def closed(self) -> tuple[int, str]:
        """Code and reason of the Close frame, which is the next and the last thing to come; it is answered."""
        opcode, payload = self.frame()
        assert opcode == Opcode.CLOSE, (opcode, payload)
        with contextlib.suppress(OSError):
            self.send(client_frame(Opcode.CLOSE, payload[:2]))
        assert self.read_all() == b""
        return (struct.unpack("!H", payload[:2])[0] if payload else 1005), payload[2:].decode()

    def is_silent(self) -> bool:
        """Whether nothing has come at this moment, not even the end."""
        return not self._buffer and not select.select([self.socket], [], [], 0)[0]


class Adopted(NamedTuple):
    """A socket as a worker gets it."""

    ticket: Ticket
    socket: socket.socket

    def waiting(self) -> bytes:
        """The bytes in the kernel, left where they are; at least one must come."""
        self.socket.setblocking(True)
        self.socket.settimeout(TIMEOUT)
        return self.socket.recv(65536, socket.MSG_PEEK)


class FakeWorker:
    """Listens for a front. A worker that is killed is `close`; its successor is another FakeWorker on the same path."""

    def __init__(self, run_dir: Path, index: int = 0) -> None:
        path = endpoint(str(run_dir), index)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.settimeout(TIMEOUT)
        self._listener.bind(path)
        self._listener.listen()
        self.queue: socket.socket | None = None
        #: Queues of fronts that connected before the one of `queue`.
        self._earlier: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connected(self) -> socket.socket:
        """The queue of the front, once it is there."""
        if self.queue is None:
            self.queue, _ = self._listener.accept()
            self.queue.settimeout(TIMEOUT)
        return self.queue

    def next_front(self) -> None:
        """Turn to the front that connects next; the queue of the one before stays open."""
        self._earlier.append(self.connected())
        self.queue = None

    def take(self) -> Adopted:
        """The next socket, not adopted yet."""
        data, ancillary, flags, _ = self.connected().recvmsg(65536, socket.CMSG_SPACE(4))
        assert data, "the front closed the queue"
        assert not flags & socket.MSG_CTRUNC
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2])
        return Adopted(decode_ticket(data), socket.socket(fileno=descriptors[0]))

    def adopt(self, *taken: Adopted) -> None:
        """Say that these are ours now."""
        self.connected().send(encode_adopted([each.ticket.number for each in taken]))

    def receive(self) -> Adopted:
        """Take and adopt one."""
        taken = self.take()
        self.adopt(taken)
        return taken

    def pending(self) -> bool:
        """Whether a socket waits in the queue at this moment."""
        return bool(select.select([self.connected()], [], [], 0)[0])

    def close(self) -> None:
        """Die: what is in the queue unread is lost."""
        if self.queue is not None:
            self._earlier.append(self.queue)
        for queue in self._earlier:
            queue.close()
        self._listener.close()


class FrontProcess:
    """A running front; `limits` are those of `router.front.reception.Limits` that differ. It shares the listener of the front `beside`."""

    def __init__(
        self,
        run_dir: Path,
        *,
        workers: int = 1,
        limits: dict[str, float] | None = None,
        beside: FrontProcess | None = None,
        **settings: object,
    ) -> None:
        self.run_dir = run_dir
        if beside is None:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        else:
            self.listener = beside.listener.dup()
        self.port: int = self.listener.getsockname()[1]
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(TIMEOUT)
        settings = {
            "workers": workers,
            "run_dir": run_dir,
            "port": self.port,
            "user_ids": "uuid4",
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
        environment |= Settings(**cast(Any, settings)).environment()
        arguments = [
            "--index",
            "0",
            "--control",
            str(theirs.fileno()),
            "--listeners",
            str(self.listener.fileno()),
        ]
        command = [sys.executable, "-m", "router.front", *arguments]
        if limits is not None:
            # Shorter limits are for tests: there is no switch for them.
            program = f"import sys; from router.front import front; sys.exit(front.main(sys.argv[1:], front.Limits(**{limits!r})))"
            command = [sys.executable, "-c", program, *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            pass_fds=(theirs.fileno(), self.listener.fileno()),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.stats: dict[str, float] = {}
        self._warm = False
        self.ready = self._wait_for("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.control.close()
        self.listener.close()
        try:
            _, logged = self.process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if error is None:
            assert b"bug" not in logged, logged.decode()
            assert b"Traceback" not in logged, logged.decode()

    def client(self, *, upgrade: bool = True) -> Client:
        """A new connection."""
        return Client(self.port, upgrade=upgrade)

    def http(self, request: bytes) -> bytes:
        """The whole answer to `request`."""
        with self.client(upgrade=False) as client:
            client.send(request)
            return client.read_all()

    # -- What the front says --

    def _wait_for(self, op: str) -> dict[str, Any]:
        while True:
            packet = self.control.recv(65536)
            assert packet, "the front ended"
            said = decode_control(packet)
            if said["op"] == "stats":
                self.stats = said["stats"]
            if said["op"] == op:
                return said

    def next_stats(self) -> dict[str, float]:
        """A report that was made after this call."""
        while select.select([self.control], [], [], 0)[0]:
            self._wait_for("stats")
        self._wait_for("stats")
        return self.stats

    def wait_for_stats(self, expected: Mapping[str, float]) -> None:
        """Wait until the front reports these numbers."""
        deadline = time.monotonic() + TIMEOUT
        while any(
            stats.get(name, 0) != value for stats in [self.next_stats()] for name, value in expected.items()
        ):
            assert time.monotonic() < deadline, f"{expected} expected; {self.stats}"

    def wait_for_stat(self, name: str, value: float) -> None:
        """The same for one number."""
        self.wait_for_stats({name: value})

    # -- What is done to it --

    def stop(self, code: int = 1001, reason: str = "server is shutting down") -> None:
        self.control.send(encode_control("stop", code=code, reason=reason))

    def leave(self) -> None:
        """Tell it to leave, and return when it accepts no more."""
        self.control.send(encode_control("leave"))
        wait_until(lambda: not self.has_listener(), "the front to close its listener")

    def resize(self, workers: int) -> None:
        """Tell it that there are so many workers now, and return when it has said that clients wait for these."""
        self.control.send(encode_control("resize", id=1, workers=workers))
        assert self._wait_for("answer")["id"] == 1

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(TIMEOUT)

    # -- What can be seen from outside --

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def has_listener(self) -> bool:
        """Whether it has the listener open; not when it has ended."""
        name = f"socket:[{os.fstat(self.listener.fileno()).st_ino}]"
        folder = Path(f"/proc/{self.process.pid}/fd")
        with contextlib.suppress(OSError):  # a descriptor was closed meanwhile, or the process has ended
            return name in [os.readlink(link) for link in folder.iterdir()]
        return self.process.poll() is None

    def cpu_seconds(self) -> float:
        """CPU time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks: int = os.sysconf("SC_CLK_TCK")
        return (int(fields[11]) + int(fields[12])) / ticks

    @contextlib.contextmanager
    def no_leak(self) -> Iterator[None]:
        """What happens in here leaves no descriptor behind; the worker must be connected before, and stay."""
        if not self._warm:
            # The first connection that libuv serves makes it open a spare descriptor, for good.
            self.http(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.wait_for_stat("front_pages", 0)
            self._warm = True
        before = self.descriptors()
        yield
        wait_until(lambda: self.descriptors() == before, f"{before} open descriptors again, as before")


def accept_key(head: bytes) -> str:
    """The Sec-WebSocket-Accept of an answer."""
    for line in head.decode().split("\r\n"):
        if line.lower().startswith("sec-websocket-accept:"):
            value = line.partition(":")[2].strip()
            assert len(base64.b64decode(value)) == 20
            return value
    raise AssertionError(f"no Sec-WebSocket-Accept in {head!r}")
