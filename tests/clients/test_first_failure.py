"""What both clients tell of the first failure, at places of real sockets where there is no FastChat.

The scenarios have the rest: when it is told, and when the client ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from fastchat_client import FastChat, FastChatError, StateChange
from tests.clients.misbehaving import LOGGER, Log
from tests.clients.node import HERE, client_module, node, packages

#: Seconds within which what fails at once must have failed.
PATIENCE: Final = 60.0


@contextmanager
def place(answer: bytes) -> Iterator[int]:
    """The port of a server that gives every connection this answer, whatever it says, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            closed = free.getsockname()[1]
        page = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        port = {
            "not found": stack.enter_context(place(page % b"404 Not Found")),
            "overloaded": stack.enter_context(place(page % b"503 Service Unavailable")),
            "no HTTP": stack.enter_context(place(b"SSH-2.0-OpenSSH_9.6\r\n")),
            "no word": stack.enter_context(place(b"")),
        }
        yield {
            "nobody": f"ws://user:secret-1@127.0.0.1:{closed}/ws?token=secret-2",
            "no such name": "ws://there-is-no.invalid/ws",
            "no TLS": f"wss://127.0.0.1:{port['not found']}/ws",
            **{name: f"ws://127.0.0.1:{number}/ws" for name, number in port.items()},
        }


async def first_failure(url: str) -> dict[str, Any]:
    client = FastChat(url, str(uuid4()), "Client")
    told: asyncio.Future[StateChange] = asyncio.get_running_loop().create_future()

    def changed(change: StateChange) -> None:
        if change.state in ("waiting", "closed") and not told.done():
            told.set_result(change)

    client.on("state", changed)
    connect = asyncio.ensure_future(client.connect())
    async with asyncio.timeout(PATIENCE):
        change = await told
    await client.close()
    failure = (await asyncio.gather(connect, return_exceptions=True))[0]
    assert isinstance(failure, FastChatError)
    lost = change.lost or change.closed
    assert lost is not None
    return {"state": change.state, "reason": lost.reason, "status": lost.status, "connect": str(failure)}


@pytest.fixture(scope="module")
def python(urls: dict[str, str]) -> dict[str, dict[str, Any]]:
    """By name of the place: what the Python client tells."""
    log = logging.getLogger(LOGGER)
    found = {}
    for name, url in urls.items():
        handler = Log()
        log.addHandler(handler)
        try:
            found[name] = asyncio.run(first_failure(url)) | {"warnings": handler.said}
        finally:
            log.removeHandler(handler)
    return found


@pytest.fixture(scope="module")
def javascript(urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The same of the JavaScript client."""
    client: Path = client_module(tmp_path_factory.mktemp("client"))
    command = [node(), str(HERE / "first_failure.mjs"), str(client), str(packages() / "ws" / "wrapper.mjs")]
    done = subprocess.run([*command, *urls.values()], capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = {}
    for name, line in zip(urls, map(json.loads, done.stdout.splitlines()), strict=True):
        lost = line["lost"] or line["closed"]
        found[name] = {
            "state": line["state"],
            "reason": lost["reason"],
            "status": lost.get("status"),
            "connect": f"{line['connect']['code']}: {line['connect']['message']}",
            "warnings": line["warnings"],
        }
    return found


Told = Callable[[str], dict[str, Any]]


@pytest.fixture(params=["python", "javascript"])
def told(request: pytest.FixtureRequest) -> Told:
    """By name of the place: what one of the clients tells."""
    found: dict[str, dict[str, Any]] = request.getfixturevalue(request.param)
    return found.__getitem__


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", ["refused", "Connect call failed"]),
        ("no such name", ["can't be resolved", "ENOTFOUND", "EAI_AGAIN"]),
        ("no TLS", ["TLS", "SSL"]),
        ("no HTTP", ["valid HTTP", "Parse Error"]),
        ("no word", ["valid HTTP", "socket hang up", "empty"]),
        ("overloaded", ["HTTP 503"]),
    ],
)
def test_a_failure_that_may_pass_says_why(told: Told, name: str, words: list[str]) -> None:
    """In the event and in one line; and it goes on."""
    found = told(name)
    assert found["state"] == "waiting"
    assert any(word.lower() in found["reason"].lower() for word in words), found
    (line,) = found["warnings"]
    assert found["reason"] in line


def test_404_is_a_wrong_address(told: Told) -> None:
    """It ends, and connect() fails with the reason."""
    found = told("not found")
    assert found["state"] == "closed"
    assert found["status"] == 404
    assert found["connect"].startswith("CLOSED: ")
    assert "the server answers HTTP 404" in found["connect"]
    assert len(found["warnings"]) == 1


def test_what_an_address_may_hold_is_not_logged(told: Told) -> None:
    (line,) = told("nobody")["warnings"]
    assert "ws://127.0.0.1:" in line
    assert "secret" not in line
