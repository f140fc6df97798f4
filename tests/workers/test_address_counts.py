"""workers.address_counts: what each front is told. Two fronts of one index may be there at once, while one takes the other's place."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator

import pytest

from core.process.counting import Counted, decode_counts
from core.process.handover import Ticket
from workers.address_counts import AddressCounts


@pytest.fixture
def run_dir() -> Iterator[str]:
    """A short path: that of a Unix socket ends at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fastchat-test-") as directory:
        yield directory


class Front:
    """A front that listens, with the process id `pid`."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pid = pid
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, counts: AddressCounts, pid: int) -> Front:
        reader, writer = await asyncio.open_unix_connection(counts.path)
        writer.write(f"{pid}\n".encode())
        return cls(pid, reader, writer)

    def ticket(self, number: int) -> Ticket:
        """The ticket of a connection that it has handed over."""
        return Ticket(number, "user", "192.0.2.1:40000", 0, b"", f"{self._pid}-{number}")

    async def told(self) -> Counted:
        return decode_counts(await self._reader.readline())

    async def end(self) -> None:
        """Close, and return when the worker has noticed."""
        self._writer.write_eof()
        await self._reader.read()
        self._writer.close()


def test_each_of_two_fronts_is_told_its_own_last_ticket(run_dir: str) -> None:
    """Each numbers its tickets from 1, and the new one goes on when the old one has ended."""

    async def run() -> None:
        counts = AddressCounts(run_dir, 0)
        await counts.start()
        old = await Front.connect(counts, 100)
        assert await old.told() == Counted(0, {}, None)
        for number in (1, 2, 3):
            counts.enter(old.ticket(number))
        new = await Front.connect(counts, 101)
        assert await new.told() == Counted(3, {"192.0.2.1": 3}, None)
        counts.enter(new.ticket(1))
        counts.tick()
        assert await old.told() == Counted(4, {"192.0.2.1": 4}, 3)
        assert await new.told() == Counted(4, {"192.0.2.1": 4}, 1)
        await old.end()
        counts.leave(old.ticket(1).address)
        counts.tick()
        assert await new.told() == Counted(3, {"192.0.2.1": 3}, 1)
        counts.close()
        await new.end()

    asyncio.run(run())
