"""workers.rounds: what one client may take of a loop turn, and that everybody gets their turn (D23, D29).

`Stage` puts real connections on a real event loop, with a session that only notes what it gets and in which turn of the loop.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from core.process.handover import Ticket
from tests.system.raw_client import CONTINUATION, PING, TEXT, client_frame
from workers import rounds as module
from workers.adoption import adopt
from workers.connection import Connection
from workers.rounds import DIRECT, Rounds
from workers.turn import Turn

#: The least that is still parsed of a client's bytes is more than its share, when frames are shorter than any message.
_PARSED_MORE = 6


class Session:
    """Notes what comes."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self.name = self.claimed = name
        self.user = object()
        self.closed = self.behind = False
        self.hello_deadline = math.inf
        self.payloads: list[bytes] = []
        self.connection: Any = None
        #: What it does with each message, beside noting it.
        self.reacts: Callable[[float], None] = lambda now: None

    def receive(self, payload: bytes, now: float) -> None:
        self._stage.log.append((self._stage.turn.number, self.name))
        self.payloads.append(payload)
        self.reacts(now)

    def pong(self, payload: bytes, now: float) -> None:
        pass

    def note_close(self, *about: object) -> None:
        pass

    def on_closed(self, now: float) -> None:
        self.closed = True


class Stage:
    """Stands for the connections of a worker. To be made within an event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.turn = Turn(self.loop)
        self.rounds = Rounds(self.loop, self.turn.schedule)
        self.turn.attach(self.rounds.serve, lambda now: None)
        #: (turn, who) for each message, in order.
        self.log: list[tuple[int, str]] = []
        self.sessions: dict[str, Session] = {}
        self.clients: dict[str, socket.socket] = {}
        self._host: Any = SimpleNamespace(
            turn=self.turn,
            rounds=self.rounds,
            shard=SimpleNamespace(
                connect=self._session,
                count_close=lambda *about: None,
                close=lambda session, code, reason, now: session.connection.close(code, reason),
            ),
            wheel=SimpleNamespace(watch=lambda watched, due: None),
            slow_readers=SimpleNamespace(watch=lambda connection: None),
            entered=lambda connection: None,
            left=lambda connection: None,
            writes=0,
            frames=0,
            scrap=memoryview(bytearray(65536)),
            frozen=False,
        )

    def _session(self, connection: Any, name: str, *rest: object) -> Session:
        session = self.sessions[name] = Session(self, name)
        session.connection = connection
        return session

    async def client(self, name: str) -> Session:
        """A client whose socket has been adopted."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        server.setblocking(False)
        self.clients[name] = client
        connection = Connection(self._host, Ticket(1, name, "127.0.0.1", 0, b""), monotonic())
        await adopt(connection, server, b"")
        return self.sessions[name]

    def send(self, name: str, data: bytes) -> asyncio.Task[None]:
        """Send as fast as the kernel takes it."""
        return self.loop.create_task(self.loop.sock_sendall(self.clients[name], data))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let turns pass."""
        async with asyncio.timeout(60.0):
            while not condition():  # noqa: ASYNC110 - turn by turn is what it is about
                await asyncio.sleep(0)

    async def until_got(self, session: Session, number: int) -> None:
        """Let turns pass until so many messages have come to a session."""
        await self.until(lambda: len(session.payloads) == number)

    def shares(self, name: str) -> list[int]:
        """Messages of one client, turn by turn."""
        return list(Counter(turn for turn, who in self.log if who == name).values())

    def close(self) -> None:
        for session in self.sessions.values():
            stream = session.connection.stream
            if stream is not None:
                stream.abort()
        for client in self.clients.values():
            client.close()


def play(scenario: Callable[[Stage], Awaitable[None]]) -> None:
    """Run a scenario on a stage."""

    async def main() -> None:
        stage = Stage()
        try:
            await scenario(stage)
        finally:
            stage.close()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def messages(number: int) -> bytes:
    return b"".join(
        client_frame(TEXT, b"message number %06d %s" % (index, b"." * 8)) for index in range(number)
    )


def test_d23_a_flood_gets_a_bounded_share_of_each_turn() -> None:
    """In order, and nothing is lost; only at first may it be as much as an honest client sends in one go."""

    async def scenario(stage: Stage) -> None:
        flood = await stage.client("flood")
        sending = stage.send("flood", messages(5000))
        await stage.until(lambda: len(flood.payloads) == 5000)
        await sending
        assert flood.payloads == sorted(flood.payloads)
        first, *others = stage.shares("flood")
        # Two allowances, since the first may be of another turn, and the rest of what picows had read.
        assert first <= 4 * DIRECT
        assert max(others) <= 2 * module._SHARE + _PARSED_MORE

    play(scenario)


def test_d23_all_get_their_turn_and_a_healthy_client_is_served_in_the_next() -> None:
    """Eight floods: no turn takes more than its share from all of them, none waits longer than the others, and a message of
    a client that sends one now and then is handled in the turn in which it can be read."""

    async def scenario(stage: Stage) -> None:
        names = [f"flood {number}" for number in range(8)]
        for name in names:
            await stage.client(name)
        healthy = await stage.client("healthy")
        sending = [stage.send(name, messages(4000)) for name in names]
        await stage.until(lambda: all(len(stage.sessions[name].payloads) > 500 for name in names))
        begun = stage.turn.number
        for sent in range(1, 21):
            stage.clients["healthy"].send(messages(1))
            asked = stage.turn.number
            await stage.until_got(healthy, sent)
            assert stage.turn.number <= asked + 3
        ended = stage.turn.number
        for task in sending:
            task.cancel()
        shares: defaultdict[int, Counter[str]] = defaultdict(Counter)
        for number, name in stage.log:
            if begun < number < ended and name != "healthy":
                shares[number][name] += 1
        assert all(max(turn.values()) <= 2 * module._SHARE + _PARSED_MORE for turn in shares.values())
        assert all(sum(turn.values()) <= module._TURN + 2 * module._SHARE for turn in shares.values())
        total = Counter[str]()
        for turn in shares.values():
            total += turn
        assert max(total.values()) - min(total.values()) <= 2 * (2 * module._SHARE + _PARSED_MORE)

    play(scenario)


def test_d23_bytes_count_too() -> None:
    """Of messages of 16 KiB far fewer are handled in a turn."""

    async def scenario(stage: Stage) -> None:
        flood = await stage.client("flood")
        sending = stage.send("flood", client_frame(TEXT, b"x" * 16384) * 100)
        await stage.until(lambda: len(flood.payloads) == 100)
        await sending
        first, *others = stage.shares("flood")
        assert first <= 4
        assert max(others) <= 2

    play(scenario)


@pytest.mark.parametrize("kind", ["pings", "fragments"])
def test_d23_frames_that_are_no_messages_count(kind: str) -> None:
    """A flood of them is metered, what is behind them comes, and a healthy client is served meanwhile."""

    async def scenario(stage: Stage) -> None:
        flood, healthy = await stage.client("flood"), await stage.client("healthy")
        if kind == "pings":
            data = client_frame(PING, b"") * 900
        else:
            data = client_frame(TEXT, b"x", fin=False) + client_frame(CONTINUATION, b"x", fin=False) * 5000
            data += client_frame(CONTINUATION, b"x")
        sending = stage.send("flood", data + messages(1))
        await stage.until(lambda: stage.rounds.metered == 1)
        stage.clients["healthy"].send(messages(1))
        await stage.until(lambda: bool(healthy.payloads))
        assert not flood.payloads
        await stage.until(lambda: len(flood.payloads) == (1 if kind == "pings" else 2))
        await sending

    play(scenario)


def test_d23_a_client_that_sends_a_window_at_a_time_is_not_metered() -> None:
    async def scenario(stage: Stage) -> None:
        client = await stage.client("busy")
        for number in range(1, 101):
            stage.clients["busy"].send(messages(DIRECT // 2))
            await stage.until_got(client, number * DIRECT // 2)
        assert stage.rounds.metered == 0

    play(scenario)


def test_d23_who_is_calm_again_is_metered_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CALM", 0.0)

    async def scenario(stage: Stage) -> None:
        client = await stage.client("once")
        await stage.send("once", messages(1000))
        await stage.until(lambda: len(client.payloads) == 1000)
        assert stage.rounds.metered >= 1
        stage.clients["once"].send(messages(1))
        await stage.until(lambda: len(client.payloads) == 1001)
        await stage.until(lambda: client.connection.meter is None)
        stage.clients["once"].send(messages(1))
        await stage.until(lambda: len(client.payloads) == 1002)

    play(scenario)


# -- Held --


def test_d23_who_is_held_is_not_read_until_then() -> None:
    """The server knows that the silence is its own doing; and what waits comes in order, once."""

    async def scenario(stage: Stage) -> None:
        client = await stage.client("slowed")

        def slow(now: float) -> None:
            if len(client.payloads) % 100 == 0:
                client.connection.hold(now + 0.05)

        client.reacts = slow
        began = monotonic()
        sending = stage.send("slowed", messages(500))
        await stage.until(lambda: len(client.payloads) >= 100)
        assert not client.connection.may_be_judged
        await stage.until(lambda: len(client.payloads) == 500)
        await sending
        assert monotonic() - began >= 4 * 0.05
        assert client.payloads == sorted(client.payloads)
        assert stage.rounds.slowed == 5

    play(scenario)


@pytest.mark.parametrize("metered", [False, True])
def test_d29_who_is_held_without_end_waits_for_the_word(metered: bool) -> None:
    async def scenario(stage: Stage) -> None:
        client, other = await stage.client("ahead"), await stage.client("other")
        if metered:
            stage.rounds.meter(cast("Connection", client.connection))
        client.connection.hold(math.inf)
        client.connection.hold(math.inf)
        stage.clients["ahead"].send(messages(3))
        for number in range(1, 11):
            stage.clients["other"].send(messages(1))
            await stage.until_got(other, number)
        assert not client.connection.may_be_judged
        assert not client.payloads
        client.connection.hold(0.0)
        await stage.until(lambda: len(client.payloads) == 3)
        assert client.connection.stream.is_reading()

    play(scenario)


def test_the_last_word_holds() -> None:
    """A moment that was named before is over when another one has been named since."""

    async def scenario(stage: Stage) -> None:
        client = await stage.client("client")
        client.connection.hold(monotonic() + 0.01)
        client.connection.hold(math.inf)
        await asyncio.sleep(0.05)
        assert not client.connection.may_be_judged
        client.connection.hold(monotonic() - 1.0)
        assert client.connection.stream.is_reading()

    play(scenario)


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_metered_connection_ends_like_any_other(how: str) -> None:
    """With what it has sent; and nothing waits for it afterwards."""

    async def scenario(stage: Stage) -> None:
        client = await stage.client("client")
        await stage.send("client", messages(500))
        if how == "closed":
            stage.clients["client"].shutdown(socket.SHUT_WR)
        else:
            await stage.until(lambda: stage.rounds.metered == 1)
            client.connection.close(1011, "enough")
            stage.clients["client"].close()
        await stage.until(lambda: client.closed or client.connection.stream is None)
        if how == "closed":
            assert len(client.payloads) == 500
        await stage.until(lambda: not stage.rounds.serve(monotonic()))

    play(scenario)
