"""The run directory is swept away while the server runs, by a cleaner of temporary files or by people: it heals, or says why it can't."""

from __future__ import annotations

import json
import os
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.operator.client import RunningServer
from tests.system.harness import ChatClient, Server, StartServer, run_async, user_on_worker, wait_until
from tests.system.status import status

pytestmark = pytest.mark.slow


def empty(run_dir: Path) -> None:
    """As tmpreaper does it: files and sockets, and not the directories."""
    for entry in run_dir.iterdir():
        entry.unlink()


def remove(run_dir: Path) -> None:
    shutil.rmtree(run_dir)


def remove_all(run_dir: Path) -> None:
    """The directory that is locked, too."""
    shutil.rmtree(run_dir.parent)


def readiness(server: Server) -> dict[str, Any]:
    """What `/readyz` says."""
    try:
        with urllib.request.urlopen(f"{server.admin_url}/readyz") as answer:  # noqa: S310 - an address of ours
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        return dict(json.load(error))


async def people_chat(server: Server) -> None:
    """Two newcomers, on different workers, who write to each other."""
    alice, bob = (user_on_worker(index, server.workers) for index in (0, server.workers - 1))
    async with ChatClient(server.url, alice) as one, ChatClient(server.url, bob) as other:
        await one.hello()
        await other.hello()
        await one.open_chat(other)
        await one.message(other, "hi")
        await other.receive("MSG", content="hi")
        await other.message(one, "hello")
        await one.receive("MSG", content="hello")


def processes(server: Server) -> dict[str, int]:
    """Number of each process by its title, those that are ready."""
    return {
        f"{each['kind']} {each['index']}": each["pid"]
        for each in status(server)["processes"]
        if each["state"] == "ready"
    }


def restart(server: Server, name: str) -> None:
    before = processes(server)
    os.kill(before[name], signal.SIGKILL)
    wait_until(lambda: processes(server).get(name, before[name]) != before[name], f"{name} to be back", 30.0)


@pytest.mark.parametrize("sweep", [empty, remove, remove_all])
@run_async
async def test_before_the_first_client(start_server: StartServer, sweep: Callable[[Path], None]) -> None:
    """Who comes meanwhile waits until the workers can be found again."""
    server = start_server(connections_per_ip=1000)
    run_dir = Path(status(server)["settings"]["run_dir"])
    names = set(os.listdir(run_dir))
    sweep(run_dir)
    await people_chat(server)
    wait_until(lambda: readiness(server)["ready"], "the server to be ready")
    assert "was removed, and is opened again" in server.output()
    assert {name.rpartition("-")[0] for name in names} >= {"bus-0", "bus-1", "handover", "counts"}
    wait_until(lambda: names <= set(os.listdir(run_dir)), "all sockets to be back")
    assert os.stat(run_dir).st_mode & 0o777 == 0o700


@pytest.mark.parametrize("sweep", [empty, remove, remove_all])
@pytest.mark.parametrize("name", ["front 0", "worker 0"])
@run_async
async def test_and_then_a_process_starts_again(
    start_server: StartServer, name: str, sweep: Callable[[Path], None]
) -> None:
    """It has never been connected to the others, and has to find them."""
    server = start_server()
    await people_chat(server)
    sweep(Path(status(server)["settings"]["run_dir"]))
    restart(server, name)
    await people_chat(server)
    wait_until(lambda: readiness(server)["ready"], "the server to be ready")
    RunningServer({}, server.admin_url).ask("log_level", level="info")


@run_async
async def test_a_place_that_is_taken_is_said_and_waited_for(start_server: StartServer) -> None:
    """Somebody else's directory of that name would not be safe: the server is not ready until that is gone."""
    server = start_server()
    run_dir = Path(status(server)["settings"]["run_dir"])
    shutil.rmtree(run_dir.parent)
    run_dir.parent.write_text("in the way")
    wait_until(lambda: not readiness(server)["ready"], "the server to say that it is not ready")
    assert any(str(run_dir.parent) in reason for reason in readiness(server)["reasons"])
    assert f"{run_dir.parent} is not a directory" in server.output()
    run_dir.parent.unlink()
    wait_until(lambda: readiness(server)["ready"], "the server to be ready again")
    await people_chat(server)


@run_async
async def test_nobody_who_is_here_notices(start_server: StartServer) -> None:
    server = start_server()
    alice, bob = (user_on_worker(index, 2) for index in (0, 1))
    async with ChatClient(server.url, alice) as one, ChatClient(server.url, bob) as other:
        await one.hello()
        await other.hello()
        await one.open_chat(other)
        for number in range(3):
            shutil.rmtree(Path(status(server)["settings"]["run_dir"]))
            await one.message(other, f"message {number}")
            await other.receive("MSG", content=f"message {number}")
            wait_until(
                lambda count=number + 1: server.output().count("the run directory was removed") == count,  # type: ignore[misc]
                "the directory to be made again",
            )
