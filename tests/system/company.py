"""Talkers on one server (``tests.system.talker``), from their first connection to their last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from tests.system.ledger import Ledger
from tests.system.talker import Talker


async def until(condition: Callable[[], bool], what: str, patience: float) -> None:
    """Like `wait_until`, while the talkers go on."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def chatting(talkers: Sequence[Talker], url: str, patience: float) -> AsyncIterator[None]:
    """Let all connect, open their chats and write, and leave at the end."""
    lives = [asyncio.create_task(talker.live(url)) for talker in talkers]
    try:
        await until(lambda: all(talker.connected for talker in talkers), "everybody to be there", patience)
        for talker in talkers:
            await talker.open_chats()
        await until(lambda: all(talker.has_all_chats for talker in talkers), "all chats to be open", patience)
        for talker in talkers:
            talker.write(True)
        yield
        for talker in talkers:
            await talker.leave()
        await asyncio.gather(*lives)
    finally:
        for life in lives:
            life.cancel()


async def fall_silent(talkers: Sequence[Talker], patience: float) -> None:
    """Let nobody write anything new, and wait until everything is acknowledged."""
    for talker in talkers:
        talker.write(False)
    await until(
        lambda: not any(talker.waiting for talker in talkers), "everything to be acknowledged", patience
    )


async def come_to_rest(ledger: Ledger, talkers: Sequence[Talker], patience: float) -> None:
    """Let everybody fall silent and have everything."""
    await fall_silent(talkers, patience)
    await until(lambda: not ledger.undelivered(), "everything to be delivered", patience)
    for talker in talkers:
        await talker.drain()
