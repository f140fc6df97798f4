"""Tokens in the Python client, as far as no scenario can say it: kinds of functions, what can be no token, logs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from websockets.asyncio.server import ServerConnection, serve

from fastchat_client import FastChat, FastChatError, Token
from tests.clients.network import Link, Network, VirtualLoop
from tests.clients.python_subject import URL, MemoryTransport

ME: Final = "11111111-1111-4111-8111-aaaaaaaaaaaa"
ACK: Final = f'{{"type":"HELLO_ACK","data":{{"user_id":"{ME}","status":"connected"}}}}'
NOTICE: Final = '{"type":"ERROR","data":{"code":"UNAUTHORIZED","message":"it ends","details":{"type":"HELLO","expires_in":9}}}'
SECRET: Final = "header.payload-of-a-secret.signature"  # noqa: S105 - of the tests


class Stage:
    """A client in virtual time, its server, and what it was told."""

    def __init__(self, loop: VirtualLoop, token: Token | None) -> None:
        self.loop = loop
        self.network = Network(loop)
        self.client = FastChat(URL, ME, "Me Myself", token=token, connector=self._connect, random=lambda: 0.5)
        self.errors: list[FastChatError] = []
        self.client.on("error", self.errors.append)

    async def _connect(self, url: str) -> MemoryTransport:
        return MemoryTransport(await self.network.connect(url))

    def connect(self) -> None:
        """As far as it gets without time passing."""
        connecting = self.loop.create_task(self.client.connect())
        connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        self.loop.settle()

    def greet(self) -> str | None:
        """Accept the attempt that waits and its HELLO; the token that this one had."""
        link: Link = self.network.links[-1]
        link.accepted.set_result(None)
        self.loop.settle()
        link.tell(ACK)
        self.loop.settle()
        assert self.client.state == "online"
        return self.hellos[-1].get("token")

    @property
    def hellos(self) -> list[dict[str, Any]]:
        """All HELLOs on the newest connection."""
        return [frame.data for frame in self.network.links[-1].frames if frame.type == "HELLO"]


MakeStage = Callable[[Token | None], Stage]


@pytest.fixture
def make_stage() -> Iterator[MakeStage]:
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    yield lambda token: Stage(loop, token)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.settle()
    asyncio.set_event_loop(None)
    loop.close()


async def coroutine() -> str:
    return SECRET


class Callable_:  # noqa: N801 - anything that can be called
    async def __call__(self) -> str:
        await asyncio.sleep(3)
        return SECRET


@pytest.mark.parametrize(
    ("token", "seconds"), [(SECRET, 0), (lambda: SECRET, 0), (coroutine, 0), (Callable_(), 3)]
)
def test_whatever_gives_a_token(make_stage: MakeStage, token: Token, seconds: float) -> None:
    stage = make_stage(token)
    stage.connect()
    assert len(stage.network.links) == (not seconds)
    stage.loop.advance(seconds)
    assert stage.greet() == SECRET


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "é", "\ud800", "x" * 8193, 7, b"abc"], ids=ascii)
def test_what_can_be_no_token(make_stage: MakeStage, token: Any) -> None:
    """Neither as the option, nor later, nor from a function; and it is not shown."""
    with pytest.raises(FastChatError) as refused:
        make_stage(token)
    assert refused.value.code == "VALIDATION"
    assert token in ("", " ", 7) or str(token) not in str(refused.value)
    stage = make_stage(lambda: token)
    stage.connect()
    assert [error.code for error in stage.errors] == ["TOKEN"]
    assert stage.network.links == []
    with pytest.raises(FastChatError):
        stage.client.renew(token)


def test_a_long_token_is_taken(make_stage: MakeStage) -> None:
    """As long as the server takes one."""
    stage = make_stage("x" * 8192)
    stage.connect()
    assert stage.greet() == "x" * 8192


def test_why_a_function_failed_is_the_cause(make_stage: MakeStage) -> None:
    problem = OSError("the issuer is away")

    def fails() -> str:
        raise problem

    stage = make_stage(fails)
    stage.connect()
    assert [error.__cause__ for error in stage.errors] == [problem]


def test_a_coroutine_that_is_not_wanted_any_more_is_cancelled(make_stage: MakeStage) -> None:
    """After 15 seconds, and when the client is closed."""
    cancelled = []

    async def hangs() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(stage.loop.time())
            raise
        return SECRET

    stage = make_stage(hangs)
    began = stage.loop.time()
    stage.connect()
    stage.loop.advance(20.0)
    assert cancelled == [began + 15.0]
    assert stage.client.state == "connecting"
    stage.loop.create_task(stage.client.close())
    stage.loop.settle()
    assert len(cancelled) == 2


def test_another_token_at_any_time(make_stage: MakeStage) -> None:
    """Before it is connected, while it waits, while it is online, as a string or as a function; and when it is closed, to no effect."""
    stage = make_stage(None)
    stage.client.renew("first")
    stage.connect()
    assert stage.greet() == "first"
    stage.client.renew(lambda: "second")
    stage.loop.settle()
    assert [hello["token"] for hello in stage.hellos] == ["first", "second"]
    stage.network.links[-1].close_from_server(1006, "")
    stage.loop.settle()
    stage.client.renew("third")
    stage.loop.advance(1.0)
    assert stage.greet() == "third"
    stage.client.renew(coroutine)
    stage.client.renew("fourth")
    stage.loop.advance(20.0)
    assert [hello["token"] for hello in stage.hellos] == ["third", "fourth"]
    stage.loop.create_task(stage.client.close())
    stage.loop.settle()
    stage.client.renew("fifth")
    stage.client.renew(coroutine)
    stage.loop.advance(20.0)
    assert len(stage.network.links) == 2
    assert stage.errors == []


def test_a_function_in_the_place_of_a_string(make_stage: MakeStage) -> None:
    """That the string runs out is no news then, while the function is asked and after it."""
    answers: list[asyncio.Future[str]] = []

    async def ask() -> str:
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    stage = make_stage("first")
    stage.connect()
    assert stage.greet() == "first"
    stage.client.renew(ask)
    stage.loop.settle()
    for _ in range(2):
        stage.network.links[-1].tell(NOTICE)
        stage.loop.settle()
    assert len(answers) == 1
    answers[0].set_result("second")
    stage.loop.settle()
    assert [hello["token"] for hello in stage.hellos] == ["first", "second"]
    stage.network.links[-1].tell(NOTICE)
    stage.loop.settle()
    assert len(answers) == 2
    assert stage.errors == []


def test_no_token_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """Not even where everything is logged."""
    caplog.set_level(logging.DEBUG)
    came: list[str] = []

    async def greet(connection: ServerConnection) -> None:
        came.append(str(await connection.recv()))
        await connection.send(ACK)
        await connection.wait_closed()

    async def run() -> None:
        asyncio.get_running_loop().set_debug(True)
        quiet = logging.getLogger("tests.quiet")
        quiet.disabled = True
        async with serve(greet, "127.0.0.1", 0, logger=quiet) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with FastChat(f"ws://127.0.0.1:{port}/", ME, "Me Myself", token=coroutine):
                pass

    asyncio.run(run())
    assert SECRET in came[0]
    assert caplog.records
    assert not [record for record in caplog.records if "HELLO" in record.getMessage()]
    assert "signature" not in caplog.text
