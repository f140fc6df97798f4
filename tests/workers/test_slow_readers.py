"""workers.slow_readers: clients that have stopped reading are closed, and all others are not (D29)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from core.wire.protocol import SLOW_READER_BYTES, SLOW_READER_SECONDS
from tests.system.harness import wait_until
from tests.system.raw_client import PING, RawClient, client_frame, text
from tests.workers.process import WorkerProcess
from workers.limits import DEFAULT_LIMITS, Limits
from workers.slow_readers import SlowReaders, acknowledged_bytes, queued_bytes

MUCH = SLOW_READER_BYTES + 1


class FakeReader:
    """A client for which `waiting` bytes wait here and `queued` in the kernel, and which has taken `read`."""

    def __init__(self, waiting: int = MUCH, queued: int = 0) -> None:
        self.waiting, self.queued, self.read = waiting, queued, 0
        self.broken = False
        self.closed_at: float | None = None
        self.limits = DEFAULT_LIMITS

    def unsent(self) -> int:
        return self.waiting

    def unread(self) -> int:
        return 0 if self.closed_at is not None else self.waiting + self.queued

    def taken(self) -> int:
        if self.broken:
            raise OSError
        return self.read

    def stopped_reading(self, now: float) -> None:
        assert self.closed_at is None, "once"
        self.closed_at = now


class Looks:
    """Looks at readers once a second, on a clock of its own that begins with 0."""

    def __init__(self, *readers: FakeReader) -> None:
        self.now = 0.0
        self.slow = SlowReaders(0.0)
        for reader in readers:
            self.slow.watch(reader)

    def look(self, seconds: float, step: float = 1.0) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.slow.sample(self.now)


@pytest.mark.parametrize(("waiting", "queued"), [(MUCH, 0), (0, MUCH), (SLOW_READER_BYTES, 1)])
def test_d29_who_takes_nothing_for_a_minute_is_closed(waiting: int, queued: int) -> None:
    """Wherever it waits: in this process, in the kernel, or in both."""
    reader = FakeReader(waiting, queued)
    looks = Looks(reader)
    looks.look(SLOW_READER_SECONDS)
    assert reader.closed_at is None, "nothing moved for less than that"
    looks.look(1)
    assert reader.closed_at == SLOW_READER_SECONDS + 1
    looks.look(200)


def test_d29_one_byte_a_minute_is_enough() -> None:
    reader = FakeReader()
    looks = Looks(reader)
    for _ in range(20):
        looks.look(SLOW_READER_SECONDS)
        reader.read += 1
    assert reader.closed_at is None


def test_d29_more_that_is_written_meanwhile_is_not_something_read() -> None:
    reader = FakeReader()
    looks = Looks(reader)
    for _ in range(61):
        looks.look(1)
        reader.waiting += 1000
    assert reader.closed_at is not None


def test_d29_64_kib_may_wait_for_ever() -> None:
    """Also behind more than that, which was read."""
    reader = FakeReader(SLOW_READER_BYTES)
    looks = Looks(reader)
    looks.look(1000)
    reader.waiting += 1
    looks.look(SLOW_READER_SECONDS - 10)
    reader.waiting -= 1
    looks.look(1000)
    reader.waiting += 1
    looks.look(SLOW_READER_SECONDS)
    assert reader.closed_at is None


def test_d27_a_server_that_stood_still_blames_nobody() -> None:
    """Nobody could be sent anything: an hour counts no more than a moment."""
    reader = FakeReader()
    looks = Looks(reader)
    looks.look(10)
    looks.look(3600, step=3600)
    looks.look(SLOW_READER_SECONDS - 13)
    assert reader.closed_at is None
    looks.look(5)
    assert reader.closed_at is not None


def test_what_waits_for_all_is_counted_and_who_has_read_everything_is_forgotten() -> None:
    slow, broken, gone, done = FakeReader(100, 7), FakeReader(200_000), FakeReader(), FakeReader(1)
    looks = Looks(slow, broken, gone, done)
    broken.broken = True
    looks.slow.forget(gone)
    done.waiting = 0
    assert looks.slow.sample(1.0) == 200_100
    assert looks.slow.sample(2.0) == 100


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def test_the_kernel_says_what_it_holds_and_what_was_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    before = acknowledged_bytes(ours)
    ours.send(b"x" * 1000)
    wait_until(lambda: queued_bytes(ours.fileno()) == 0, "the other side's kernel to have it")
    assert acknowledged_bytes(ours) - before == 1000
    ours.setblocking(False)
    written = 0
    try:
        while True:
            written += ours.send(b"x" * 65536)
    except BlockingIOError:
        pass
    wait_until(
        lambda: queued_bytes(ours.fileno()) + acknowledged_bytes(ours) - before == 1000 + written,
        "each byte to be in one of the two places",
    )
    assert queued_bytes(ours.fileno()) > 0
    descriptor = ours.fileno()
    ours.close()
    assert queued_bytes(descriptor) == 0


def _stop_reading(worker: WorkerProcess, sender: RawClient, slow: RawClient) -> None:
    """Write to `slow`, which reads nothing of it, until more than twice as much waits as may wait for ever."""
    sender.say("OPEN_CHAT", target_user_id=slow.user_id, target_display_name=slow.name)
    sender.receive("CHAT_OPENED")
    for number in range(60):
        sender.send(text("MSG", to=slow.user_id, content="😀" * 1000, message_id=f"m{number}"))
        sender.receive("MSG_ACK", message_id=f"m{number}")


@pytest.mark.slow
def test_d29_a_client_that_goes_on_sending_but_reads_nothing_is_closed_with_1013() -> None:
    """By a real worker, which waits for less than a minute; one that reads a little now and then is not, and a heartbeat is no excuse."""
    small, patience = 16 * 1024, 3.0
    with (
        WorkerProcess(limits=Limits(slow_reader=patience)) as worker,
        worker.chatter() as sender,
        worker.chatter(send_buffer=small, receive_buffer=small) as slow,
        worker.chatter(send_buffer=small, receive_buffer=small) as slower,
    ):
        _stop_reading(worker, sender, slow)
        _stop_reading(worker, sender, slower)
        began = time.monotonic()
        closed = 'closes_total{by="server",code="1013",reason="you read too slowly: nothing for 3 seconds; reconnect"}'
        reports: list[dict[str, int]] = []
        while closed not in (reports or [{}])[-1]:
            assert time.monotonic() - began < 10 * patience, "nobody was closed"
            slow.send(client_frame(PING, b"here"))
            slower.send(client_frame(PING, b"here"))
            sender.say("PING")
            sender.receive("PONG")
            slower.socket.recv(32 * 1024)
            reports.append(worker.stats())
        assert time.monotonic() - began >= patience - 1
        assert reports[-1][closed] == 1
        slower.socket.recv(32 * 1024)
        assert worker.stats()["connections"] >= 2, "the other two are here"
