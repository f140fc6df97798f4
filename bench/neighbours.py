"""What healthy clients notice of floods beside them: ``python -m bench.neighbours --floods 1,4,16,48``, a table in Markdown.

For each kind of flood (`bench.floods`) and each number of them a server of its own starts, as users start it, with its limits as they
are by default. Pairs of healthy clients PING once a second and write to each other about as often, while so many processes flood; and the
control is the same with as many processes that only compute, since a machine that is busy is slow by itself. The controls are run in turns
with the floods. Given are p50 and p99 of the time from a PING to its PONG and from a MSG to its MSG_ACK, in milliseconds.

D23 asks for at most 10 ms between the p99 of PING beside floods and that beside the burners.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from bench.crowd import text_frame, upgrade
from bench.floods import KINDS, flooding
from bench.servers import STORES, serving

#: The limits are those of the default settings, which everybody else in bench/ goes without.
_DEFAULTS: Final[dict[str, Any]] = {
    "MESSAGES_PER_MINUTE": "60",
    "OPEN_CHATS_PER_MINUTE": "20",
    "HELLOS_PER_MINUTE": "30",
    "PINGS_PER_SECOND": "1",
}
BURNERS: Final = "burners"
#: Seconds between two messages of a healthy client, and two PINGs; a little more than its limits ask for.
_EVERY: Final = 1.05
#: Kinds between two controls.
_KINDS_A_CONTROL: Final = 4
#: Seconds in which everything must have been answered that healthy clients do before the flood.
_PATIENCE: Final = 60.0
_NUMBER: Final = re.compile(rb'"message_id":"([0-9]+)"')
#: The server's heartbeat and confirming pings are answered, as all clients do.
_PING: Final = 0x89
#: The share of D23, in milliseconds.
_ALLOWED: Final = 10.0


class Times(NamedTuple):
    """Milliseconds, of one run."""

    ping_p50: float
    ping_p99: float
    ack_p50: float
    ack_p99: float


class Healthy:
    """A client that behaves."""

    def __init__(self, port: int) -> None:
        self.user = str(uuid4())
        self.peer = ""
        self.socket = socket.create_connection(("127.0.0.1", port), _PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        #: When the PING went that has no PONG; and of each MSG without MSG_ACK.
        self._pinged: list[float] = []
        self._sent: dict[int, float] = {}
        self._number = 0

    def expect(self, request: bytes, answer: bytes) -> None:
        """Send a request and wait for its answer."""
        self.socket.sendall(request)
        seen = b""
        while answer not in seen:
            data = self.socket.recv(65536)
            if not data:
                raise SystemExit(f"the server closed a healthy client: {seen[-200:]!r}")
            seen += data

    def ping(self) -> None:
        """PING."""
        self._pinged.append(time.perf_counter())
        self.socket.sendall(text_frame("PING"))

    def write(self) -> None:
        """MSG to the peer."""
        self._number += 1
        self._sent[self._number] = time.perf_counter()
        frame = text_frame(
            "MSG", to=self.peer, content="Are you coming tonight?", message_id=str(self._number)
        )
        self.socket.sendall(frame)

    def read(self, pings: list[float], acks: list[float]) -> None:
        """Take what has come, and note how long it took."""
        data = self.socket.recv(65536)
        now = time.perf_counter()
        if not data:
            raise SystemExit("the server closed a healthy client")
        data = self._unread + data
        while len(data) >= 2:
            size, start = data[1], 2
            if size == 126:
                start = 4
                size = int.from_bytes(data[2:4], "big")
            elif size == 127:
                start = 10
                size = int.from_bytes(data[2:10], "big")
            if len(data) < start + size:
                break
            self._take(data[0], data[start : start + size], now, pings, acks)
            data = data[start + size :]
        self._unread = data

    def overdue(self, now: float) -> list[float]:
        """How long those have waited that were never answered."""
        return [now - sent for sent in (*self._pinged, *self._sent.values())]

    def _take(self, opcode: int, payload: bytes, now: float, pings: list[float], acks: list[float]) -> None:
        if opcode == _PING:
            self.socket.sendall(bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload)
        elif payload.startswith(b'{"type":"PONG"'):
            pings.append(now - self._pinged.pop(0))
        elif payload.startswith(b'{"type":"MSG_ACK"'):
            found = _NUMBER.search(payload)
            assert found is not None, payload
            acks.append(now - self._sent.pop(int(found[1])))
        elif payload.startswith(b'{"type":"MSG"'):
            message_id = json.loads(payload)["data"]["message_id"]
            self.socket.sendall(text_frame("MSG_ACK", message_id=message_id))
        elif payload.startswith(b'{"type":"ERROR"'):
            raise SystemExit(f"a healthy client was refused: {payload.decode()}")


def healthy_pairs(port: int, pairs: int) -> list[Healthy]:
    """Clients who have greeted, and have a chat two by two."""
    clients = [Healthy(port) for _ in range(2 * pairs)]
    for index, client in enumerate(clients):
        client.peer = clients[index ^ 1].user
        hello = text_frame("HELLO", user_id=client.user, display_name="Healthy")
        client.expect(upgrade() + hello, b'"HELLO_ACK"')
    for client in clients[::2]:
        opening = text_frame("OPEN_CHAT", target_user_id=client.peer, target_display_name="Healthy")
        client.expect(opening, b'"CHAT_OPENED"')
    return clients


def measure(kind: str, floods: int, *, pairs: int, seconds: float, store: str) -> Times:
    """One run."""
    with serving(store, **_DEFAULTS) as server:
        port = urlsplit(server.url).port
        assert port is not None, server.url
        clients = healthy_pairs(port, pairs)
        with flooding(kind, port, floods):
            return _times(clients, seconds)


def _times(clients: Sequence[Healthy], seconds: float) -> Times:
    """Let the clients live for so long."""
    pings: list[float] = []
    acks: list[float] = []
    poll = select.epoll()
    by_descriptor = {client.socket.fileno(): client for client in clients}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    began = time.perf_counter()
    # Everybody at moments of their own, PING and MSG apart.
    plan = sorted(
        (began + random.random() * _EVERY + step * _EVERY, action, index)
        for index in range(len(clients))
        for action in ("ping", "write")
        for step in range(int(seconds / _EVERY))
    )
    due, end = 0, began + seconds + _EVERY
    while (now := time.perf_counter()) < end:
        while due < len(plan) and plan[due][0] <= now:
            _, action, index = plan[due]
            getattr(clients[index], action)()
            due += 1
        until = min(plan[due][0], end) if due < len(plan) else end
        for descriptor, _ in poll.poll(max(0.0, until - time.perf_counter())):
            by_descriptor[descriptor].read(pings, acks)
    # What never came counts for as long as it was waited for.
    late = [waited for client in clients for waited in client.overdue(end) if waited > _EVERY]
    pings += late
    acks += late
    return Times(*_percentiles(pings), *_percentiles(acks))


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        raise SystemExit("nothing was answered")
    return ordered[len(ordered) // 2] * 1000, ordered[len(ordered) * 99 // 100] * 1000


def main() -> None:
    """Run all, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m bench.neighbours",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--floods",
        default="1,4,16,48",
        help="numbers of clients that flood at the same time, separated by commas (default %(default)s)",
    )
    parser.add_argument(
        "--kinds", default=";".join(KINDS), help="kinds of messages, separated by semicolons (default: all)"
    )
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="seconds of each run (default %(default)s)"
    )
    parser.add_argument(
        "--pairs", type=int, default=20, help="pairs of healthy clients (default %(default)s)"
    )
    parser.add_argument("--store", choices=tuple(STORES), default="fsync")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(";")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}; there are {'; '.join(KINDS)}")
    print("| beside | floods | PING p50 | PING p99 | over the burners | MSG_ACK p50 | MSG_ACK p99 |")
    print("|---|---|---|---|---|---|---|", flush=True)
    too_much = 0
    for floods in map(int, arguments.floods.split(",")):
        controls: list[Times] = []
        results: dict[str, Times] = {}
        for index, kind in enumerate(kinds):
            if index % _KINDS_A_CONTROL == 0:
                controls.append(_run(BURNERS, floods, arguments))
            results[kind] = _run(kind, floods, arguments)
        control = Times(*(sorted(column)[len(column) // 2] for column in zip(*controls, strict=True)))
        print(_row(BURNERS, floods, control, None), flush=True)
        for kind, times in results.items():
            over = times.ping_p99 - control.ping_p99
            too_much += over > _ALLOWED
            print(_row(kind, floods, times, over), flush=True)
    print(
        f"\n{too_much} of these are more than {_ALLOWED:g} ms over the burners."
        if too_much
        else f"\nNone is more than {_ALLOWED:g} ms over the burners."
    )
    sys.exit(int(bool(too_much)))


def _run(kind: str, floods: int, arguments: argparse.Namespace) -> Times:
    times = measure(kind, floods, pairs=arguments.pairs, seconds=arguments.seconds, store=arguments.store)
    print(_row(kind, floods, times, None), file=sys.stderr, flush=True)
    return times


def _row(kind: str, floods: int, times: Times, over: float | None) -> str:
    difference = "" if over is None else f"{over:+.1f}"
    return (
        f"| {kind} | {floods} | {times.ping_p50:.1f} | {times.ping_p99:.1f} | {difference} |"
        f" {times.ack_p50:.1f} | {times.ack_p99:.1f} |"
    )


if __name__ == "__main__":
    main()
