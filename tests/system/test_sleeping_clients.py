"""A device that sleeps: a client in a process that is suspended for so long that the server gives it up (D27, D28).

Directly, and through a network that takes 40 ms each way: over plain loopback the end of a connection comes in the same moment as the
answer to what was written last, which hides what happens elsewhere.
"""

from __future__ import annotations

import contextlib
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from tests.system.client_device import Device, node_command, python_command
from tests.system.delaying_proxy import DelayingProxy
from tests.system.harness import Server, wait_until

#: Seconds each way.
DELAY: Final = 0.04
#: Seconds in which the server gives up who is suspended, announces that, and a client that was woken has sent all: more than 25 + 5.
PATIENCE: Final = 120.0


def _has(content: str, device: Device) -> bool:
    return content in device.contents


@pytest.mark.slow
def test_d28_a_device_that_slept_comes_back_and_sends_what_waits(server: Server, tmp_path: Path) -> None:
    """Both clients, with each WebSocket: nothing that was written before, while it slept, or right after fails, and it gets all."""
    commands = {"ws": node_command("ws", tmp_path), "python": python_command()}
    with contextlib.suppress(pytest.skip.Exception):  # an older Node has none
        commands["native"] = node_command("native", tmp_path)
    with ExitStack() as stack:
        proxy = stack.enter_context(DelayingProxy(int(server.url.rsplit(":", 1)[1].split("/")[0]), DELAY))
        urls = {"direct": server.url, "delayed": f"ws://127.0.0.1:{proxy.port}/ws"}
        awake = stack.enter_context(Device(commands["ws"], server.url, str(uuid4()), "Awake"))
        sleepers = [
            stack.enter_context(Device(command, url, str(uuid4()), f"Sleeper {kind} {way}"))
            for kind, command in commands.items()
            for way, url in urls.items()
        ]
        for number, sleeper in enumerate(sleepers):
            sleeper.call("openChat", awake.user_id, "Awake")
            sleeper.resolved("openChat")
            sleeper.send(awake, f"before-{number}")
            sleeper.resolved(f"before-{number}.accepted")
        for number, sleeper in enumerate(sleepers):
            sleeper.send(awake, f"last-{number}")
            sleeper.signal(signal.SIGSTOP)
        try:
            ids = {sleeper.user_id for sleeper in sleepers}
            wait_until(
                lambda: not ids & awake.came("presence")[-1].keys(), "all sleepers to be given up", PATIENCE
            )
            for number, sleeper in enumerate(sleepers):
                awake.send(sleeper, f"to-sleeper-{number}")
                awake.resolved(f"to-sleeper-{number}.accepted")
                sleeper.send(awake, f"asleep-{number}")
        finally:
            for sleeper in sleepers:
                sleeper.signal(signal.SIGCONT)
        for number, sleeper in enumerate(sleepers):
            sleeper.send(awake, f"awake-{number}")
        for number, sleeper in enumerate(sleepers):
            for content in (f"last-{number}", f"asleep-{number}", f"awake-{number}"):
                sleeper.resolved(f"{content}.accepted")
            sleeper.until(partial(_has, f"to-sleeper-{number}"), "what came while it slept")
            assert sleeper.states[-1] == "online", sleeper.states
            assert "closed" not in sleeper.states
            (lost,) = [change["lost"] for change in sleeper.came("state") if change["state"] == "waiting"]
            assert lost["code"] in (4002, 1006), lost
        expected = {
            f"{when}-{n}" for when in ("before", "last", "asleep", "awake") for n in range(len(sleepers))
        }
        awake.until(lambda d: set(d.contents) >= expected, "everything")
        assert len(awake.contents) == len(expected), "nothing twice"
