"""The scenario of ``bench.driver`` in which a backend calls the server API while people chat."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import Any, Final, TypeVar
from uuid import uuid4

import aiohttp

from bench.crew import crew, latencies
from bench.servers import serving

Result = dict[str, Any]
T = TypeVar("T")

_KEY: Final = "k" * 40
#: Users in one call, and calls on their way at once.
_AT_ONCE: Final = 1000
_CALLERS: Final = 64
#: Seconds of chatting without a backend.
_QUIET: Final = 10.0


def api(
    users: int = 100_000,
    messages: int = 20_000,
    rate: float = 1000.0,
    pairs: int = 100,
    load: str = "rate 500",
    *,
    workers: int = 2,
    store: str = "fsync",
    core: str = "pure",
) -> Result:
    """Measure what pairs who chat notice of an import of users, and of messages that a backend sends at a rate."""
    with tempfile.TemporaryDirectory(prefix="fastchat-bench-", dir=".") as directory:
        keys = Path(directory) / "keys"
        keys.touch(0o600)
        keys.write_text(_KEY)
        settings = {
            "API_PORT": "0",
            "API_KEY_FILE": str(keys.absolute()),
            "API_CALLS_PER_SECOND": "0",
            "SERVICE_MESSAGES_PER_MINUTE": "0",
        }
        with (
            serving(store, workers, compiled=core == "compiled", **settings) as server,
            crew(server.url, pairs, 1, workers, "mixed") as members,
        ):
            url = f"http://127.0.0.1:{server.setting('api_port')}/v1"
            ids = [str(uuid4()) for _ in range(users)]
            result: Result = {"store": store, "core": core, "workers": workers, "load": load}
            members.chat(load, 1.0)
            quiet = members.chat(load, _QUIET)
            result |= latencies("quiet_ack", quiet.to_ack)
            works: tuple[tuple[str, Callable[[], float], float], ...] = (
                ("import", lambda: _import(url, ids), users / 5000),
                ("sending", lambda: _send(url, ids, messages, rate), messages / rate),
            )
            for name, work, seconds in works:
                calling = _Calling(work)
                outcome = members.chat(load, seconds)
                result |= {f"{name}_per_s": calling.finish(), **latencies(f"{name}_ack", outcome.to_ack)}
            return result


class _Calling:
    """Work of a backend in a thread of its own."""

    def __init__(self, work: Callable[[], float]) -> None:
        self._work = work
        self._rate = 0.0
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._rate = self._work()

    def finish(self) -> float:
        """Wait for the end; users or messages a second."""
        self._thread.join()
        return self._rate


def _import(url: str, ids: list[str]) -> float:
    chunks = [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]

    async def call(session: aiohttp.ClientSession, chunk: list[str]) -> None:
        users = [{"user_id": user, "display_name": f"User {user[:8]}"} for user in chunk]
        await _post(session, f"{url}/users", {"users": users})

    return len(ids) / asyncio.run(_all(call, chunks, callers=2))


def _send(url: str, ids: list[str], messages: int, rate: float) -> float:
    began = perf_counter()

    async def call(session: aiohttp.ClientSession, number: int) -> None:
        # An open loop: each is sent when it is due, whatever came of those before.
        await asyncio.sleep(max(0.0, began + number / rate - perf_counter()))
        sender, recipient = ids[number % 1000], ids[-1 - number % 1000]
        message = {
            "from": sender,
            "to": recipient,
            "content": "It is on its way.",
            "message_id": f"b-{number}",
        }
        await _post(session, f"{url}/messages", message)

    return messages / asyncio.run(_all(call, list(range(messages)), callers=_CALLERS))


async def _all(
    call: Callable[[aiohttp.ClientSession, T], Awaitable[None]], what: list[T], callers: int
) -> float:
    """Call it for each, so many at the same time; the seconds that took."""
    began = perf_counter()
    remaining = iter(what)

    async def caller(session: aiohttp.ClientSession) -> None:
        for each in remaining:
            await call(session, each)

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {_KEY}"}) as session:
        await asyncio.gather(*(caller(session) for _ in range(callers)))
    return perf_counter() - began


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> None:
    async with session.post(url, json=body) as answer:
        if answer.status != 200:
            raise SystemExit(f"{url}: {answer.status} {await answer.text()}")
