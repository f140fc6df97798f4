"""The heartbeat: D27, as seen from the wire. It takes as long as it takes."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.system.harness import ChatClient, Server, run_async
from tests.system.raw_client import RawClient
from tests.system.servers import sees, two_users


@pytest.mark.slow
@pytest.mark.attack("silent socket")
@run_async
async def test_d27_a_silent_client_is_pinged_closed_and_offline(server: Server) -> None:
    """Ping after 20 s, close after 25 s, and 5 s later the others see it leave (D21)."""
    first, second = two_users(server, "other shard")
    async with ChatClient(server.url, first) as watcher:
        await watcher.hello()
        with RawClient.upgraded(server.port, second) as silent:
            await asyncio.to_thread(silent.hello)
            began = time.monotonic()
            await sees(watcher, lambda users: second in users)
            await asyncio.to_thread(silent.ping, 25.0)
            assert 19.5 < time.monotonic() - began < 22.5
            code, reason = await asyncio.to_thread(silent.closed, 10.0)
            assert (code, bool(reason)) == (4002, True)
            assert 24.5 < time.monotonic() - began < 28.0
        await sees(watcher, lambda users: second not in users, timeout=15.0)
        assert 29.0 < time.monotonic() - began < 36.0


@pytest.mark.slow
@run_async
async def test_d27_who_answers_the_ping_or_pings_by_itself_stays(server: Server) -> None:
    """Clients that follow docs/protocol.md send PING every 15 s and never see one from the server."""
    async with ChatClient(server.url) as answering:
        await answering.hello()
        with RawClient.upgraded(server.port) as pinging:
            await asyncio.to_thread(pinging.hello)
            for _ in range(2):
                await asyncio.sleep(15.0)
                pinging.say("PING")
                await asyncio.to_thread(pinging.receive, "PONG")
            assert all(frame.opcode == 1 for frame in pinging.inbox)
        await answering.send("PING")
        await answering.receive("PONG")
