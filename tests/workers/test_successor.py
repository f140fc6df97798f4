"""Tests of workers.successor in a real process, of which the test is the predecessor: how that one's end is taken."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from core.process.control import EXIT_BOOT_FAILURE, READY, WAITING
from core.process.succession import Kind, send_packet
from core.wire.codec import to_json
from tests.system.raw_client import PATIENCE
from tests.workers.process import WorkerProcess
from workers.inheriting import TAKEN_OVER


@contextmanager
def taken_over() -> Iterator[tuple[WorkerProcess, socket.socket]]:
    """A worker that has taken over from this process, which had no clients; and the stream on which it is passed what still comes."""
    worker = WorkerProcess(workers=2, generations=[2, 1], succeeds=1)
    with ExitStack() as stack:
        stack.push(worker)
        channel = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        channel.settimeout(PATIENCE)
        channel.connect(worker.heard(WAITING)["path"])
        send_packet(channel, Kind.RECORDS, to_json([]))
        send_packet(channel, Kind.CLOSED, to_json({"frozen_at": time.monotonic(), "not_moved": 0}))
        assert channel.recv(1) == TAKEN_OVER
        worker.heard(READY)
        worker.front = worker.open_queue()
        yield worker, channel


def test_it_goes_on_when_it_has_everything() -> None:
    with taken_over() as (worker, channel), worker.chatter() as client:
        send_packet(channel, Kind.END)
        channel.close()
        client.say("PING")
        client.receive("PONG")
        worker.stats(connections=1)
        assert worker.process.poll() is None


def test_it_ends_when_it_can_not_get_everything_any_more() -> None:
    """Nobody knows what is missing: the next process gets all of that again."""
    with taken_over() as (worker, channel), worker.chatter() as client:
        channel.close()
        assert worker.process.wait(PATIENCE) == EXIT_BOOT_FAILURE
        client.until_end()
