"""Processes whose event loops make no turns: found, told, and replaced, and without harm when they go on. As seen from outside.

Which process counts as hung is tested in tests/router/supervisor/test_liveness.py, and that a server that stood still as a whole
blames nobody in test_stalls.py.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import suppress

import pytest

from tests.exposition import ask
from tests.system.harness import ChatClient, Server, StartServer, run_async, user_on_worker, wait_until
from tests.system.status import status

#: Seconds that a hang may take to be found, and another process to serve, on a machine that is busy with other tests.
PATIENCE = 30.0


def ended(server: Server, title: str) -> str | None:
    """How the process before the one that serves now ended; None if it is the first."""
    for process in status(server)["processes"]:
        if f"{process['kind']} {process['index']}" == title and process["state"] == "ready":
            return process["last_end"] if process["restarts"] else None
    return None


@pytest.mark.slow
@run_async
async def test_children_that_hang_are_replaced(start_server: StartServer) -> None:
    """By themselves: their users get in again, with all that was sent to them, and the others have stayed."""
    server = start_server()
    async with ChatClient(server.url, user_on_worker(0, 2), "Alice") as alice:
        await alice.hello()
        async with ChatClient(server.url, user_on_worker(1, 2), "Bob") as bob:
            await bob.hello()
            await alice.open_chat(bob)
            await alice.message(bob, "You have this.")
            hanging = {title: server.child(title) for title in ("worker 1", "front 0")}
            for pid in hanging.values():
                os.kill(pid, signal.SIGSTOP)
            await asyncio.to_thread(
                wait_until, lambda: all(ended(server, title) for title in hanging), "others", PATIENCE
            )
            assert (await bob.expect_close())[0] == 1006
        for pid in hanging.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        assert not hanging.values() & server.children().keys()
        for title in hanging:
            told = re.escape(f"{title} hangs and is killed: its event loop has made no turn for ")
            assert re.search(told + r"\d+ s: it was stopped", server.output())
            assert re.fullmatch(
                r"signal SIGKILL, since its event loop has made no turn for \d+ s: it was stopped",
                ended(server, title) or "",
            )
            assert (
                ask(int(server.admin_url.rpartition(":")[2])).value("process_hangs_total", process=title) == 1
            )
        async with ChatClient(server.url, bob.user_id, "Bob") as again:
            await again.hello()
            assert (await again.receive("MSG"))["content"] == "You have this."
            await alice.send("PING")
            await alice.receive("PONG")
            assert (await alice.message(again, "You are back."))["status"] == "delivered"
