"""Clients that send without end, one process each: what `bench.neighbours` puts beside healthy ones.

Each sends one kind of message as fast as the server takes it, reads the answers, and connects again when it is closed. A `burner` does
nothing but compute: beside it one sees what the machine alone does to the neighbours.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Any, Final, NamedTuple
from uuid import uuid4

from bench.crowd import text_frame, upgrade

#: Bytes that are given to the kernel in one go, about.
_CHUNK: Final = 64 * 1024
#: Seconds until a flood that was closed comes back, so that not connecting becomes the flood.
_PAUSE: Final = 0.25
#: Seconds that an answer may take before the flood.
_PATIENCE: Final = 60.0
_HELLO_EXTRA: Final = {"capabilities": ["receipts", "history"]}
_LONG: Final = "x" * 900


class Pair(NamedTuple):
    """Who floods, and with whom that one has a chat."""

    me: str
    peer: str


#: Makes one frame, number so-and-so.
Make = Callable[[Pair, int], bytes]


def _frame(first: int, payload: bytes) -> bytes:
    """Any frame of less than 126 bytes, masked with zeros."""
    return bytes((first, 0x80 | len(payload))) + bytes(4) + payload


def _open(pair: Pair, number: int) -> bytes:
    return text_frame("OPEN_CHAT", target_user_id=pair.peer, target_display_name="Peer")


#: Every message type, and what can be done beneath messages.
KINDS: Final[dict[str, Make]] = {
    "PING": lambda pair, number: text_frame("PING"),
    "TYPING": lambda pair, number: text_frame("TYPING", is_typing=bool(number % 2)),
    "OPEN_CHAT": _open,
    "OPEN_CHAT, unknown user": lambda pair, number: text_frame(
        "OPEN_CHAT", target_user_id=str(uuid4()), target_display_name="Nobody"
    ),
    "HISTORY": lambda pair, number: text_frame("HISTORY", **{"with": pair.peer, "limit": 100}),
    "HELLO again": lambda pair, number: text_frame(
        "HELLO", user_id=pair.me, display_name="Flood", **_HELLO_EXTRA
    ),
    "HELLO, new names": lambda pair, number: text_frame(
        "HELLO", user_id=pair.me, display_name=f"Flood {number}", **_HELLO_EXTRA
    ),
    "MSG": lambda pair, number: text_frame("MSG", to=pair.peer, content=f"flood {number}"),
    "MSG, repeated": lambda pair, number: text_frame(
        "MSG", to=pair.peer, content="again", message_id="again"
    ),
    "MSG, much markup": lambda pair, number: text_frame("MSG", to=pair.peer, content="x" + "<b>" * 5000),
    "MSG, unknown user": lambda pair, number: text_frame("MSG", to=str(uuid4()), content="hello"),
    "MSG_ACK, unknown id": lambda pair, number: text_frame("MSG_ACK", message_id=f"id-{number}"),
    "READ, unknown id": lambda pair, number: text_frame(
        "READ", **{"from": pair.peer, "message_id": f"id-{number}"}
    ),
    "ping frames": lambda pair, number: _frame(0x89, b"x"),
    "pong frames": lambda pair, number: _frame(0x8A, b"x"),
    "fragments": lambda pair, number: _frame(0x01, b"{") if number == 0 else _frame(0x00, b" "),
    "PING before HELLO": lambda pair, number: text_frame("PING"),
    "MSG before HELLO": lambda pair, number: text_frame("MSG", to=pair.peer, content="hello"),
}
_BEFORE_HELLO: Final = frozenset({"PING before HELLO", "MSG before HELLO"})


@contextmanager
def flooding(kind: str, port: int, floods: int) -> Iterator[None]:
    """So many processes that flood with `kind`, from when all are ready until the end; `kind` may be ``burners``."""
    context = get_context("fork")
    ready, go = context.Barrier(floods + 1), context.Event()
    processes = [
        context.Process(target=_run, args=(kind, port, ready, go), daemon=True) for _ in range(floods)
    ]
    for process in processes:
        process.start()
    try:
        ready.wait(_PATIENCE)
        go.set()
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _run(kind: str, port: int, ready: Any, go: Any) -> None:
    if kind == "burners":
        ready.wait()
        while True:
            pass
    pair = Pair(str(uuid4()), str(uuid4()))
    with _connected(port, pair.peer) as peer:
        peer.setblocking(True)
        chunk = b"".join(_numbered(kind, pair))
        sock = _prepared(kind, port, pair)
        ready.wait()
        go.wait()
        while True:
            with suppress(OSError):
                _flood(sock, chunk)
            sock.close()
            time.sleep(_PAUSE)
            with suppress(OSError):
                sock = _arrive(kind, port, pair)


def _numbered(kind: str, pair: Pair) -> Iterator[bytes]:
    size = number = 0
    while size < _CHUNK:
        frame = KINDS[kind](pair, number)
        size, number = size + len(frame), number + 1
        yield frame


def _flood(sock: socket.socket, chunk: bytes) -> None:
    """Until the server ends it."""
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    view = memoryview(chunk)
    sent = 0
    while True:
        for _, events in poll.poll():
            if events & ~select.POLLOUT and not sock.recv(1 << 20):
                return
            if events & select.POLLOUT:
                sent += sock.send(view[sent:])
                if sent == len(view):
                    # What is a beginning once is none in the middle: the first frame of a message is not sent again.
                    view, sent = _again(view), 0


def _again(view: memoryview) -> memoryview:
    return view[7:] if view[0] == 0x01 else view


def _prepared(kind: str, port: int, pair: Pair) -> socket.socket:
    """Open a connection that may do what it is going to do too often."""
    sock = _arrive(kind, port, pair)
    if kind not in _BEFORE_HELLO:
        sock.sendall(_open(pair, 0))
        _expect(sock, b'"CHAT_OPENED"')
    if kind == "HISTORY":
        for number in range(50):
            sock.sendall(text_frame("MSG", to=pair.peer, content=_LONG, message_id=f"old-{number}"))
            _expect(sock, b'"accepted"')
    return sock


def _arrive(kind: str, port: int, pair: Pair) -> socket.socket:
    if kind in _BEFORE_HELLO:
        sock = socket.create_connection(("127.0.0.1", port), _PATIENCE)
        sock.sendall(upgrade())
        _expect(sock, b"101 Switching")
        return sock
    return _connected(port, pair.me)


def _connected(port: int, user: str) -> socket.socket:
    """Open a connection that has said HELLO."""
    sock = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    sock.sendall(upgrade() + text_frame("HELLO", user_id=user, display_name="Flood", **_HELLO_EXTRA))
    with suppress(TimeoutError):
        _expect(sock, b'"HELLO_ACK"')
    return sock


def _expect(sock: socket.socket, what: bytes) -> None:
    """Read until it has come, and what comes with it."""
    seen = b""
    while what not in seen:
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionError(f"process {os.getpid()} was closed: {seen[-200:]!r}")
        seen = seen[-len(what) :] + data
