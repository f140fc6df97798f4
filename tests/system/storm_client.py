"""``python -m tests.system.storm_client PORT CLIENTS``: thousands of connections in one process, for the reconnect storm.

Driven over standard input, a line at a time, and answering with a line: ``connect`` opens all of them at once, says HELLO on each and
prints the seconds until the last has its HELLO_ACK; ``ping`` makes a PING's round trip on each and prints the seconds; ``drop`` closes
all of them without a Close frame; ``count`` prints how many the server has left open. Every client is the same user each time.

Just sockets and epoll, since a machine with two cores has the server to run too. The clients come from several loopback
addresses, or the ephemeral ports might not suffice.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import sys
import time
from typing import Final
from uuid import uuid4

from tests.system.raw_client import text, upgrade_request

#: Clients for each source address.
PER_ADDRESS: Final = 1000
#: Seconds after which what has not been answered never will be.
PATIENCE: Final = 60.0


class Storm:
    """All clients."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._hellos = [text("HELLO", user_id=str(uuid4()), display_name="Somebody") for _ in range(count)]
        self._sockets: list[socket.socket] = []

    def connect(self) -> float:
        """Connect all at once; seconds until the last has its HELLO_ACK."""
        began = time.monotonic()
        request = upgrade_request()
        for index in range(len(self._hellos)):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((f"127.0.0.{2 + index // PER_ADDRESS}", 0))
            sock.setblocking(False)
            error = sock.connect_ex(("127.0.0.1", self._port))
            assert error in (0, errno.EINPROGRESS), errno.errorcode[error]
            self._sockets.append(sock)
        self._exchange([request + hello for hello in self._hellos], b'"HELLO_ACK"')
        return time.monotonic() - began

    def ping(self) -> float:
        """A PING's round trip on each; seconds until the last has its PONG."""
        began = time.monotonic()
        self._exchange([text("PING")] * len(self._sockets), b'"PONG"')
        return time.monotonic() - began

    def drop(self) -> None:
        """End all connections, as when the network goes away."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def count(self) -> int:
        """How many the server has not ended."""
        alive = 0
        for sock in self._sockets:
            try:
                while sock.recv(65536):
                    pass
            except BlockingIOError:
                alive += 1
            except OSError:
                pass
        return alive

    def _exchange(self, requests: list[bytes], answer: bytes) -> None:
        """Send each client's request as soon as it can, and wait until each has got `answer`."""
        poll = select.epoll()
        indices = {sock.fileno(): index for index, sock in enumerate(self._sockets)}
        received = [b""] * len(self._sockets)
        for descriptor in indices:
            poll.register(descriptor, select.EPOLLOUT)
        left, deadline = len(indices), time.monotonic() + PATIENCE
        while left:
            assert time.monotonic() < deadline, (
                f"{left} of {len(indices)} clients have got no {answer.decode()}"
            )
            for descriptor, _ in poll.poll(1.0):
                index = indices[descriptor]
                sock = self._sockets[index]
                if requests[index]:
                    assert sock.send(requests[index]) == len(requests[index])
                    requests[index] = b""
                    poll.modify(descriptor, select.EPOLLIN)
                    continue
                data = sock.recv(65536)
                assert data, f"the server closed a connection: {received[index]!r}"
                received[index] = received[index][-20:] + data
                if answer in received[index]:
                    poll.unregister(descriptor)
                    left -= 1
        poll.close()


def main() -> None:
    """See the module's docstring."""
    port, count = map(int, sys.argv[1:])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    storm = Storm(port, count)
    for line in sys.stdin:
        match line.strip():
            case "connect":
                print(f"{storm.connect():.3f}", flush=True)
            case "ping":
                print(f"{storm.ping():.3f}", flush=True)
            case "count":
                print(storm.count(), flush=True)
            case "drop":
                storm.drop()
                print("0", flush=True)


if __name__ == "__main__":
    main()
