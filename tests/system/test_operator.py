"""An operator at work: `fastchat` against the real server, on good days and on bad ones, and what a load balancer is told meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.router import command
from tests.system.harness import (
    PROJECT,
    ChatClient,
    Server,
    StartServer,
    clean_environment,
    run_async,
    user_on_worker,
    wait_until,
)
from tests.system.status import status

#: Seconds that a command may take on a machine that is busy with other tests.
TIMEOUT: Final = 30.0
#: Bytes that a file of a worker may have, so that its store can commit nothing.
TINY: Final = 64


@pytest.fixture(scope="module")
def server(own_server: Server) -> Server:
    """Of its own, since what operators did is counted."""
    return own_server


def fastchat(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """Ask this server something; no stack trace may come of it."""
    done = subprocess.run(
        [".venv/bin/fastchat", *words, "--admin", server.admin_url],
        cwd=PROJECT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "Traceback" not in done.stderr
    return done


async def ask(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """The same, while connections are kept alive."""
    return await asyncio.to_thread(fastchat, server, *words)


async def who(server: Server, user_id: str) -> dict[str, Any]:
    done = await asyncio.to_thread(command.fastchat, "who", user_id, "--json", "--admin", server.admin_url)
    facts: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if facts["known"] else 1)
    return facts


def ready(server: Server) -> tuple[bool, list[str]]:
    """What `/readyz` says: 200 or 503 and the reasons."""
    try:
        with build_opener(ProxyHandler({})).open(f"{server.admin_url}/readyz", timeout=10.0) as response:
            code, answer = response.status, json.load(response)
    except HTTPError as error:
        code, answer = error.code, json.load(error)
    assert (code, bool(answer["reasons"])) in ((200, False), (503, True))
    assert answer["ready"] is (code == 200)
    return answer["ready"], answer["reasons"]


def operator_socket(server: Server) -> Path:
    return Path(status(server)["settings"]["run_dir"]) / "operator.sock"


# -- Users --


@run_async
async def test_who_is_connected_offline_or_unknown(server: Server) -> None:
    for index in (0, 1):
        alice = ChatClient(server.url, user_on_worker(index, 2), "Alice Liddell")
        bob = ChatClient(server.url, user_on_worker(1, 2), "Bob")
        assert (await who(server, bob.user_id))["known"] is False
        async with alice:
            async with bob:
                await alice.hello(capabilities=["receipts", "history"])
                await bob.hello()
                await alice.open_chat(bob)
                await alice.message(bob, "one")
                await bob.send("MSG_ACK", message_id=(await bob.receive("MSG"))["message_id"])
                await bob.drain()
                facts = await who(server, alice.user_id)
                assert (facts["display_name"], facts["online"], facts["worker"]) == (
                    "Alice Liddell",
                    True,
                    index,
                )
                (device,) = facts["devices"]
                assert device["capabilities"] == ["history", "receipts"]
                assert 0 <= device["heard"] <= device["connected"] < 20
                assert device["address"].startswith("127.0.0.1:")
                assert device["connection"]
            for content in ("two", "three"):
                await alice.message(bob, content)
            facts = await who(server, bob.user_id)
            assert (facts["known"], facts["online"], facts["devices"], facts["chats"]) == (True, False, [], 1)
            assert facts["mailbox"] == {"head": 3, "waiting": 2, "uncommitted": 0}
            close = facts["last_close"]
            assert (close["by"], close["code"]) == ("client", 1000)
            assert 0 <= close["ago"] < 20


@pytest.mark.slow
@run_async
async def test_who_closed_a_connection_and_why(server: Server) -> None:
    user = user_on_worker(0, 2)
    for by, code, reason in (
        ("client", 4999, "by \x1b[31me"),
        ("server", 1003, "messages are text, not binary"),
    ):
        async with ChatClient(server.url, user) as client:
            await client.hello()
            if by == "client":
                await client.websocket.close(code, reason)
            else:
                await client.send_raw(b"binary")
            await client.expect_close()
        told = (await who(server, user))["last_close"]
        assert (told["by"], told["code"], told["reason"]) == (by, code, reason)
        shown = (await ask(server, "who", user)).stdout
        assert shown.replace("\n", "").isprintable()
    async with ChatClient(server.url, user) as client:
        await client.hello()
        client.websocket.transport.abort()
    deadline = time.monotonic() + 10
    while (told := (await who(server, user))["last_close"])["by"] != "nobody":
        assert time.monotonic() < deadline, told
    assert (told["code"], told["reason"]) == (1006, "")


@run_async
async def test_kick_closes_all_devices_and_the_user_may_come_back(server: Server) -> None:
    alice, bob = ChatClient(server.url, user_on_worker(0, 2)), ChatClient(server.url, user_on_worker(1, 2))
    async with alice, bob, ChatClient(server.url, bob.user_id) as second:
        for client in (alice, bob, second):
            await client.hello()
        await alice.open_chat(bob)
        done = await ask(server, "kick", bob.user_id)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 connections closed\n", "")
        for client in (bob, second):
            assert await client.expect_close() == (1008, "closed by the operator")
        await alice.message(bob, "are you there?")
        async with ChatClient(server.url, bob.user_id) as again:
            await again.hello()
            assert (await again.receive("MSG"))["content"] == "are you there?"
        counted = 'closes_total{by="server",code="1008",reason="closed by the operator"}'
        await asyncio.to_thread(
            wait_until,
            lambda: sum(each["stats"].get(counted, 0) for each in status(server)["processes"]) == 2,
            "the closes to be counted",
        )
        assert server.output().count('reason="closed by the operator"') == 2


@run_async
async def test_who_does_not_read_is_kicked_too(server: Server) -> None:
    """And does not hold up the answer."""
    user = user_on_worker(1, 2)
    async with ChatClient(server.url, user) as deaf:
        await deaf.hello()
        deaf.websocket.transport.pause_reading()
        assert (await ask(server, "kick", user)).stdout == "1 connection closed\n"
        deaf.websocket.transport.resume_reading()


# -- The server --


@pytest.mark.slow
def test_the_status_while_a_worker_is_away_and_when_it_is_back(start_server: StartServer) -> None:
    server = start_server(workers=2)
    assert ready(server) == (True, [])
    first = server.child("worker 1")
    deadline = time.monotonic() + TIMEOUT
    # It is started again at once at first, and later each time: until a command finds it away.
    while (done := fastchat(server, "status")).returncode == 0:
        assert time.monotonic() < deadline
        os.kill(server.child("worker 1"), signal.SIGKILL)
        wait_until(lambda: not ready(server)[0], "/readyz to say that a worker is away")
    assert (done.returncode, done.stderr) == (1, "")
    assert "FastChat" in done.stdout
    assert "is not ready (degraded)" in done.stdout
    assert "not ready:\n  worker " in done.stdout
    wait_until(lambda: ready(server)[0], "the worker to be back", TIMEOUT)
    done = fastchat(server, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the process before this one ended with signal SIGKILL" in done.stdout
    told = json.loads(fastchat(server, "status", "--json").stdout)
    (worker,) = [each for each in told["processes"] if (each["kind"], each["index"]) == ("worker", 1)]
    assert worker["pid"] == server.child("worker 1") != first
    assert worker["restarts"] >= 1
    assert (told["status"], told["reasons"]) == ("ok", [])


@pytest.mark.slow
def test_ready_means_that_the_workers_hear_each_other(start_server: StartServer) -> None:
    """The ready line does not come before; a worker that stops listening is not one that has not been heard."""
    server = start_server(workers=4)
    assert ready(server) == (True, [])
    workers = [each for each in status(server)["processes"] if each["kind"] == "worker"]
    assert [each["stats"]["bus_unheard"] for each in workers] == [0] * 4


@pytest.mark.slow
def test_a_disk_that_fails_shows_and_so_does_its_end(start_server: StartServer) -> None:
    server = start_server(workers=2)
    worker = server.child("worker 0")

    @run_async
    async def newcomer() -> None:
        async with ChatClient(server.url, user_on_worker(0, 2)) as client:
            await client.send("HELLO", user_id=client.user_id, display_name="Somebody")
            assert (await client.expect_close())[0] == 1013

    limits = resource.prlimit(worker, resource.RLIMIT_FSIZE, (TINY, resource.RLIM_INFINITY))
    newcomer()
    wait_until(lambda: not ready(server)[0], "/readyz to say that the store fails")
    _, reasons = ready(server)
    assert reasons == ["worker 0: its store can't write, so messages to its users are refused: see its log"]
    done = fastchat(server, "status")
    assert (done.returncode, "worker 0: its store can't write" in done.stdout) == (1, True)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
    wait_until(lambda: ready(server)[0], "the disk to be back", TIMEOUT)
    assert fastchat(server, "status").returncode == 0


@pytest.mark.slow
@run_async
async def test_a_worker_that_hangs_is_a_sentence(start_server: StartServer) -> None:
    server = start_server(workers=2)
    os.kill(server.child("worker 1"), signal.SIGSTOP)
    hanging, other = await asyncio.gather(
        ask(server, "who", user_on_worker(1, 2)), ask(server, "who", user_on_worker(0, 2))
    )
    assert (hanging.returncode, hanging.stdout) == (2, "")
    # On a busy machine the next process may be there before the question is.
    states = (f"is {state}: try again in a moment\n" for state in ("backing off", "starting"))
    sentences = ("ended before it answered\n", *states)
    assert hanging.stderr.removeprefix("fastchat: worker 1, where this user lives, ") in sentences
    assert other.returncode == 1
    wait_until(lambda: ready(server)[0], "the next process of the worker", TIMEOUT)
    assert (await ask(server, "who", user_on_worker(1, 2))).returncode == 1


@pytest.mark.slow
def test_the_log_level_holds_for_processes_that_come_later(start_server: StartServer) -> None:
    server = start_server(workers=2)
    assert fastchat(server, "log-level", "debug").stdout == "the log level is debug\n"
    old = server.child("worker 1")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: ready(server)[0] and old not in server.children(), "the worker to be back")

    @run_async
    async def visit() -> None:
        async with ChatClient(server.url, user_on_worker(1, 2)) as client:
            await client.hello()

    visit()
    wait_until(lambda: " DEBUG worker-1 " in server.output(), "the new worker to log more")


@pytest.mark.slow
def test_make_reaches_the_same(server: Server) -> None:
    port = server.admin_url.rpartition(":")[2]
    user = user_on_worker(0, 2)
    for words, code, said in (
        (["status"], 0, "is ready (ok)"),
        (["status", "ARGS=--json"], 0, '"status":"ok"'),
        (["who", f"USER_ID={user}"], 2, f"{user} has never been here"),  # make's own code for any failure
        (["kick", f"USER_ID={user}"], 2, "0 connections closed"),
        (["drain", "ARGS=--help"], 0, "one after the other"),
    ):
        done = subprocess.run(
            ["make", "--no-print-directory", *words, f"ADMIN_PORT={port}"],
            cwd=PROJECT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, said in done.stdout) == (code, True), done


# -- The operator socket --


def test_the_socket_is_the_operators_alone(server: Server) -> None:
    path = operator_socket(server)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.lstat().st_mode) == 0o700
    assert path.lstat().st_uid == os.geteuid()


@pytest.mark.parametrize("kind", ["silent", "endless", "garbage", "deaf"])
def test_hostile_operators_do_no_harm(server: Server, kind: str) -> None:
    """As many as there may be at once; clients chat all the while, and an operator who behaves is served when they have gone."""
    path = str(operator_socket(server))
    with ExitStack() as stack:
        hostile = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(40)]
        for each in hostile:
            each.connect(path)
            each.settimeout(TIMEOUT)
            try:
                if kind == "endless":
                    each.sendall(b"x" * 100_000)
                elif kind == "garbage":
                    each.sendall(os.urandom(4000) + b"\n" + b'{"what":["who"],"user":{}}\n')
                elif kind == "deaf":
                    each.setblocking(False)
                    while True:
                        each.send(b'{"what":"status"}\n' * 50)
            except (BrokenPipeError, BlockingIOError, ConnectionResetError):
                pass

        @run_async
        async def chat() -> None:
            alice, bob = (
                ChatClient(server.url, user_on_worker(0, 2)),
                ChatClient(server.url, user_on_worker(1, 2)),
            )
            async with alice, bob:
                await alice.hello()
                await bob.hello()
                await alice.open_chat(bob)
                assert (await alice.message(bob, "hi"))["status"] == "delivered"

        chat()
        assert ready(server) == (True, [])
    unknown = ("who", user_on_worker(0, 2), "--admin", server.admin_url)
    wait_until(
        lambda: command.fastchat(*unknown).returncode == 1,
        "an operator to be served",
        TIMEOUT,
    )
    assert "bug" not in server.output()
