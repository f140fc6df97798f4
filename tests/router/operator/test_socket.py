"""Tests of router.operator.socket: what operators send, well or not, and what each may cost the others."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import pytest
import uvloop

from router.operator.socket import CLIENTS_MAX, REQUEST_MAX_BYTES, OperatorSocket

#: Seconds that a test is willing to wait.
TIMEOUT: Final = 10.0
#: More than the kernel takes for a client that does not read.
LARGE: Final = 8 * 1024 * 1024


async def echo(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answers with the request, a large answer, late, never, or with a bug."""
    match request.get("what"):
        case "large":
            return {"text": "x" * LARGE}
        case "wait":
            await asyncio.sleep(1000)
        case "bug":
            raise RuntimeError("a bug")
    return {"answer": request}


class Client:
    """One operator."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> Self:
        return cls(*await asyncio.open_unix_connection(path, limit=2 * LARGE))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT):
            line = await self._reader.readline()
        assert line.endswith(b"\n"), line
        return dict(json.loads(line))

    async def ask(self, **request: Any) -> dict[str, Any]:
        self.send(json.dumps(request).encode() + b"\n")
        return await self.receive()

    async def ends(self) -> None:
        """Wait until the server has hung up; nothing else must come before."""
        async with asyncio.timeout(TIMEOUT):
            with suppress(ConnectionError):
                assert await self._reader.read(1) == b""


@asynccontextmanager
async def serving(run_dir: Path, **patience: float) -> AsyncIterator[Path]:
    operators = OperatorSocket(run_dir / "o.sock", echo, **patience)
    await operators.start()
    try:
        yield operators.path
    finally:
        await operators.stop()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """On the event loop that the supervisor has."""

    async def awaited() -> None:
        await test()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(awaited())


def test_requests_are_answered_one_after_the_other(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as path, await Client.connect(path) as client:
            for number in range(3):
                assert await client.ask(number=number) == {"answer": {"number": number}}
            client.send(b'{"number":1}\n{"number":2}\n{"num')
            client.send(b'ber":3}\n')
            numbers = [(await client.receive())["answer"]["number"] for _ in range(3)]
            assert numbers == [1, 2, 3]

    run(test)


def test_it_is_its_owners_alone_and_goes_with_the_server(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as path:
            status = path.lstat()
            assert stat.S_ISSOCK(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o600
        assert not path.exists()

    before = os.umask(0)
    try:
        run(test)
    finally:
        os.umask(before)


HOSTILE: Final = [
    b"\n",
    b"{\n",
    b"[]\n",
    b"7\n",
    b"null\n",
    b'"status"\n',
    b"\xff\xfe\x00\n",
    b"{'what': 'status'}\n",
    b'{"what": "status"} {"what": "status"}\n',
    b"[" * 4000 + b"\n",
    b"GET /status HTTP/1.1\r\n",
]


@pytest.mark.parametrize("line", HOSTILE)
def test_what_is_no_request_gets_a_sentence_and_the_next_an_answer(run_dir: Path, line: bytes) -> None:
    async def test() -> None:
        async with serving(run_dir) as path, await Client.connect(path) as client:
            client.send(line)
            assert (await client.receive())["problem"].startswith("a request is a JSON object in one line")
            assert await client.ask(number=1) == {"answer": {"number": 1}}

    run(test)


@pytest.mark.parametrize("size", [REQUEST_MAX_BYTES + 1, 1024 * 1024])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_request_that_does_not_end_is_the_end(run_dir: Path, size: int, end: bytes) -> None:
    async def test() -> None:
        async with serving(run_dir) as path, await Client.connect(path) as client:
            client.send(b"x" * size + end)
            assert await client.receive() == {"problem": f"a request has at most {REQUEST_MAX_BYTES} bytes"}
            await client.ends()

    run(test)


def test_a_request_of_the_largest_size(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as path, await Client.connect(path) as client:
            client.send(b'{"x":"' + b"x" * (REQUEST_MAX_BYTES - 10) + b'"}\n')
            assert len((await client.receive())["answer"]["x"]) == REQUEST_MAX_BYTES - 10

    run(test)


def test_half_a_request_is_none(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as path, await Client.connect(path) as client:
            client.send(b'{"what":')
            client._writer.write_eof()
            await client.ends()

    run(test)


@pytest.mark.parametrize("trickle", [False, True])
def test_who_never_finishes_a_request_is_disconnected_and_others_do_not_wait(
    run_dir: Path, trickle: bool
) -> None:
    async def test() -> None:
        async with (
            serving(run_dir, request_patience=0.3) as path,
            await Client.connect(path) as silent,
            await Client.connect(path) as other,
        ):
            assert await other.ask(number=1) == {"answer": {"number": 1}}
            ended = asyncio.ensure_future(silent.ends())
            while not ended.done():
                if trickle:
                    silent.send(b" ")
                await asyncio.sleep(0.02)
            await ended

    run(test)


def test_who_never_reads_is_disconnected_and_others_do_not_wait(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir, read_patience=0.5) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=1)
            writer.write(b'{"what":"large"}\n' * 20)
            async with await Client.connect(path) as other:
                assert await other.ask(number=1) == {"answer": {"number": 1}}
                # A second one that reads gets all of it meanwhile.
                assert len((await other.ask(what="large"))["text"]) == LARGE
            came = 0
            async with asyncio.timeout(TIMEOUT):
                while True:
                    # Only when the server must have given up; what it had written before may still be in the kernel.
                    if not came:
                        await asyncio.sleep(0.6)
                    try:
                        part = await reader.read(LARGE)
                    except ConnectionError:
                        break
                    if not part:
                        break
                    came += len(part)
            assert came < LARGE
            writer.transport.abort()

    run(test)


def test_an_answer_that_takes_long_holds_up_nobody(run_dir: Path) -> None:
    async def test() -> None:
        async with (
            serving(run_dir) as path,
            await Client.connect(path) as patient,
            await Client.connect(path) as other,
        ):
            patient.send(b'{"what":"wait"}\n')
            assert await other.ask(number=1) == {"answer": {"number": 1}}

    run(test)


def test_there_are_only_so_many_operators(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as path:
            clients = [await Client.connect(path) for _ in range(CLIENTS_MAX)]
            for client in clients:
                await client.ask(number=1)
            async with await Client.connect(path) as one_more:
                assert "operators are connected" in (await one_more.receive())["problem"]
                await one_more.ends()
            await clients.pop().__aexit__()
            async with asyncio.timeout(TIMEOUT):
                while True:  # until the server has seen that one has left
                    async with await Client.connect(path) as again:
                        if "answer" in await again.ask(number=1):
                            break
            for client in clients:
                assert await client.ask(number=2) == {"answer": {"number": 2}}
                await client.__aexit__()

    run(test)


def test_a_bug_is_logged_and_ends_that_connection_only(
    run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with (
            serving(run_dir) as path,
            await Client.connect(path) as unlucky,
            await Client.connect(path) as other,
        ):
            unlucky.send(b'{"what":"bug"}\n')
            await unlucky.ends()
            assert await other.ask(number=1) == {"answer": {"number": 1}}

    with caplog.at_level(logging.ERROR):
        run(test)
    assert "bug while answering an operator" in caplog.text


def test_stopping_ends_all_connections(run_dir: Path) -> None:
    async def test() -> None:
        operators = OperatorSocket(run_dir / "o.sock", echo)
        await operators.start()
        clients = [await Client.connect(operators.path) for _ in range(3)]
        for client in clients:
            await client.ask(number=1)
        clients[0].send(b'{"what":"wait"}\n')
        async with asyncio.timeout(TIMEOUT):
            await operators.stop()
        for client in clients:
            await client.ends()
            await client.__aexit__()

    run(test)


def test_a_place_where_no_socket_can_be_is_an_error(run_dir: Path) -> None:
    async def test() -> None:
        with pytest.raises(OSError, match=r"."):
            await OperatorSocket(run_dir / "missing" / "o.sock", echo).start()

    run(test)


#: What another user sees: whether one may connect, and the answer.
STRANGER: Final = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
    print(client.makefile().readline(), end="")
except PermissionError:
    print("not allowed")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_user_is_kept_out_also_where_the_modes_are_wrong(run_dir: Path, mode: int) -> None:
    async def test() -> None:
        async with serving(run_dir) as path:
            await asyncio.to_thread(run_dir.chmod, 0o755)
            await asyncio.to_thread(path.chmod, mode)
            stranger = await asyncio.create_subprocess_exec(
                sys.executable, "-c", STRANGER, str(path), stdout=subprocess.PIPE, cwd="/"
            )
            said, _ = await stranger.communicate()
            expected = (
                b"not allowed"
                if mode == 0o600
                else b'{"problem":"this server belongs to another user: run the command as that user, or as root"}'
            )
            assert said.strip() == expected

    run(test)
