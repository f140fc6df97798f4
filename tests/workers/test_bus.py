"""workers.bus over real ZeroMQ sockets: what ``core.chat.ports.Bus`` promises, and finite queues (D26)."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from core.chat.envelope import RecordKind, pack_record, record_head, unpack_envelope
from workers.bus import ZmqBus, remove_left_over


@pytest.fixture
def run_dir() -> Iterator[str]:
    """A short path: that of a Unix socket ends at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fastchat-test-") as directory:
        yield directory


class Inbox:
    """What came: (worker, generation, tickets of the records) for each envelope."""

    def __init__(self, bus: ZmqBus) -> None:
        self.envelopes: list[tuple[int, int, list[int]]] = []
        self.kinds: list[int] = []
        self._news = asyncio.Event()
        bus.listen(asyncio.get_running_loop(), self._received)

    def _received(self, envelope: bytes, now: float) -> None:
        worker, generation, _, records = unpack_envelope(envelope)
        heads = [record_head(record) for record in records]
        self.envelopes.append((worker, generation, [head.ticket for head in heads]))
        self.kinds += [head.kind for head in heads]
        self._news.set()

    @property
    def tickets(self) -> list[int]:
        return [ticket for _, _, tickets in self.envelopes for ticket in tickets]

    async def wait(self, records: int) -> list[int]:
        """Wait until at least this many records have come."""
        async with asyncio.timeout(10.0):
            while len(self.tickets) < records:
                await self._news.wait()
                self._news.clear()
        return self.tickets


def record(ticket: int, size: int = 0) -> bytes:
    return pack_record(RecordKind.TYPING, 0, ticket, 0.0, bytes(size))


def in_loop(scenario: Callable[[ExitStack], Awaitable[None]]) -> None:
    """Run it; what it enters into the stack is closed before the loop is."""

    async def main() -> None:
        with ExitStack() as stack:
            await scenario(stack)

    asyncio.run(main())


def test_records_arrive_once_in_order_and_say_where_from(run_dir: str) -> None:
    async def scenario(stack: ExitStack) -> None:
        first = stack.enter_context(closing(ZmqBus(run_dir, 0, (7, 8))))
        second = stack.enter_context(closing(ZmqBus(run_dir, 1, (7, 8))))
        inbox, back = Inbox(second), Inbox(first)
        for ticket in range(3000):
            first.send(1, record(ticket))
            if ticket % 10 == 9:
                assert first.flush() == []
                await asyncio.sleep(0)
        assert await inbox.wait(3000) == list(range(3000))
        assert {envelope[:2] for envelope in inbox.envelopes} == {(0, 7)}
        second.send(0, record(1))
        assert second.flush() == []
        assert await back.wait(1) == [1]
        assert back.envelopes[0][:2] == (1, 8)
        assert (first.stats()["bus_sent_total"], second.stats()["bus_received_total"]) == (300, 300)

    in_loop(scenario)


def test_the_records_of_a_turn_are_one_envelope_for_each_destination(run_dir: str) -> None:
    async def scenario(stack: ExitStack) -> None:
        buses = [stack.enter_context(closing(ZmqBus(run_dir, index, (1, 1, 1)))) for index in range(3)]
        inboxes = [Inbox(bus) for bus in buses]
        for ticket in range(10):
            buses[0].send(1 + ticket % 2, record(ticket))
        assert buses[0].flush() == []
        await inboxes[1].wait(5)
        await inboxes[2].wait(5)
        assert inboxes[1].envelopes == [(0, 1, [0, 2, 4, 6, 8])]
        assert inboxes[2].envelopes == [(0, 1, [1, 3, 5, 7, 9])]
        assert buses[0].stats()["bus_sent_total"] == 2

    in_loop(scenario)


def test_a_turn_without_records_sends_nothing(run_dir: str) -> None:
    async def scenario(stack: ExitStack) -> None:
        bus = stack.enter_context(closing(ZmqBus(run_dir, 0, (1, 1))))
        assert bus.flush() == []
        assert bus.stats()["bus_sent_total"] == 0

    in_loop(scenario)


def test_a_burst_is_read_to_its_end(run_dir: str) -> None:
    """The wake-up is edge-triggered: what is not read now would wait for the next message."""

    async def scenario(stack: ExitStack) -> None:
        sender = stack.enter_context(closing(ZmqBus(run_dir, 0, (1, 1))))
        receiver = stack.enter_context(closing(ZmqBus(run_dir, 1, (1, 1))))
        for ticket in range(900):
            sender.send(1, record(ticket))
            assert sender.flush() == []
        inbox = Inbox(receiver)
        assert await inbox.wait(900) == list(range(900))

    in_loop(scenario)


def test_a_full_queue_gives_the_records_back(run_dir: str) -> None:
    """D26: what can't be sent fails at once, it neither blocks nor vanishes; and the other destinations get theirs."""

    async def scenario(stack: ExitStack) -> None:
        sender = stack.enter_context(closing(ZmqBus(run_dir, 0, (1, 1, 1))))
        inbox = Inbox(stack.enter_context(closing(ZmqBus(run_dir, 2, (1, 1, 1)))))
        failed: list[tuple[int, list[bytes]]] = []
        sent = 0
        while not failed:
            sender.send(1, record(sent))  # worker 1 is never there
            failed = sender.flush()
            sent += 1
            assert sent < 10_000, "the queue has no end"
        sender.send(1, record(1))
        sender.send(2, record(2))
        sender.send(1, record(3))
        assert sender.flush() == [(1, [record(1), record(3)])]
        assert sender.stats()["bus_refused_total"] == 2
        assert await inbox.wait(1) == [2]

    in_loop(scenario)


def test_a_worker_that_comes_later_gets_what_waits(run_dir: str) -> None:
    async def scenario(stack: ExitStack) -> None:
        sender = stack.enter_context(closing(ZmqBus(run_dir, 0, (1, 1))))
        for ticket in range(20):
            sender.send(1, record(ticket))
            assert sender.flush() == []
        inbox = Inbox(stack.enter_context(closing(ZmqBus(run_dir, 1, (1, 1)))))
        assert await inbox.wait(20) == list(range(20))

    in_loop(scenario)


def test_a_restarted_worker_is_reached_again(run_dir: str) -> None:
    """Its predecessor's socket file is still there, as after a kill."""

    async def scenario(stack: ExitStack) -> None:
        sender = stack.enter_context(closing(ZmqBus(run_dir, 0, (1, 1))))
        with closing(ZmqBus(run_dir, 1, (1, 1))) as before:
            sender.send(1, record(1))
            sender.flush()
            assert await Inbox(before).wait(1) == [1]
        sender.send(1, record(2))
        assert sender.connect(1, 2) == [record(2)], "what was to go to the dead process"
        assert sender.connect(1, 2) is None
        sender.send(1, record(3))
        sender.flush()
        after = stack.enter_context(closing(ZmqBus(run_dir, 1, (1, 2))))
        assert await Inbox(after).wait(1) == [3]

    in_loop(scenario)


def test_a_successor_gets_what_follows_and_its_predecessor_is_told_that_nothing_does(run_dir: str) -> None:
    async def scenario(stack: ExitStack) -> None:
        sender = stack.enter_context(closing(ZmqBus(run_dir, 0, (1, 1))))
        before = Inbox(stack.enter_context(closing(ZmqBus(run_dir, 1, (1, 1)))))
        sender.send(1, record(1))
        sender.flush()
        sender.send(1, record(2))
        assert sender.move_on(1, 2)
        sender.send(1, record(3))
        sender.flush()
        after = Inbox(stack.enter_context(closing(ZmqBus(run_dir, 1, (1, 2)))))
        assert await after.wait(1) == [3]
        assert await before.wait(3) == [1, 2, 0]
        assert before.kinds[-1] == RecordKind.MOVED_ON

    in_loop(scenario)


def test_a_way_that_is_full_is_left_later(run_dir: str) -> None:
    async def scenario(stack: ExitStack) -> None:
        sender = stack.enter_context(closing(ZmqBus(run_dir, 0, (1, 1))))
        sent = 0
        while True:
            sender.send(1, record(sent))
            if sender.flush():
                break
            sent += 1
        sender.send(1, record(sent))
        assert not sender.move_on(1, 2)
        before = Inbox(stack.enter_context(closing(ZmqBus(run_dir, 1, (1, 1)))))
        assert await before.wait(sent) == list(range(sent))
        assert sender.move_on(1, 2)
        assert (await before.wait(sent + 2))[-2:] == [sent, 0]

    in_loop(scenario)


def test_what_a_killed_process_has_left_is_removed_and_nothing_of_other_workers(run_dir: str) -> None:
    names = [f"bus-{worker}-0000000{number}" for worker in (1, 11) for number in (1, 2)]
    for name in names:
        Path(run_dir, name).touch()
    remove_left_over(run_dir, 1, 2)
    assert sorted(os.listdir(run_dir)) == names[1:]
    remove_left_over(run_dir, 1)
    assert sorted(os.listdir(run_dir)) == names[2:]


def test_who_leaves_in_order_leaves_no_path(run_dir: str) -> None:
    with closing(ZmqBus(run_dir, 0, [5, 6])), closing(ZmqBus(run_dir, 1, [5, 6])):
        with closing(ZmqBus(run_dir, 0, [7, 6])):
            assert len(os.listdir(run_dir)) == 3
        assert len(os.listdir(run_dir)) == 2
    assert os.listdir(run_dir) == []


def test_large_records(run_dir: str) -> None:
    async def scenario(stack: ExitStack) -> None:
        sender = stack.enter_context(closing(ZmqBus(run_dir, 0, (1, 1))))
        inbox = Inbox(stack.enter_context(closing(ZmqBus(run_dir, 1, (1, 1)))))
        for ticket in range(200):
            sender.send(1, record(ticket, 16 * 1024))
        assert sender.flush() == []
        assert await inbox.wait(200) == list(range(200))

    in_loop(scenario)
