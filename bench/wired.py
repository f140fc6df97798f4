"""A message to the same shard with all that a worker has around it but the kernel: `Wired`.

What a read would have brought is given to picows, which parses it for `Connection`; the loop turn ends itself, and each connection writes
its frames with one system call, to /dev/null.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import Any, Final, cast

from bench.cast import A_MINUTE, CONTENT, MESSAGES_A_TURN, PAIRS, Bus, TurnClock, new_id, said
from core.chat.shard import Shard
from core.process.handover import Ticket
from core.process.settings import Settings
from core.wire.frames import Opcode, client_frame
from workers.adoption import AdoptedProtocol
from workers.chance import SystemChance
from workers.connection import Connection
from workers.heartbeat import TimerWheel
from workers.rounds import Rounds
from workers.slow_readers import SlowReaders
from workers.store.memory import MemoryStore
from workers.turn import Turn

#: Seconds in which everybody has heard who is online.
_A_WHILE: Final = 5.0


@cache
def _null() -> int:
    """Return the descriptor of /dev/null."""
    return os.open(os.devnull, os.O_WRONLY)


class _Loop:
    """What `Turn` asks of an event loop."""

    def __init__(self) -> None:
        self._due: deque[Callable[[], None]] = deque()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._due.append(callback)

    def add_reader(self, *about: object) -> None:
        """Raise OSError: turns are not paced."""
        raise OSError

    def run(self) -> None:
        """Call what is due."""
        while self._due:
            self._due.popleft()()


class _Stream:
    """What they ask of the event loop's transport."""

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """Do nothing: all is taken at once."""

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class _Host:
    """What connections share. Implements ``workers.connection.Host``."""

    def __init__(self, shard: Shard, loop: Any) -> None:
        self.shard = shard
        self.turn = Turn(loop)
        self.turn.attach(shard.end_turn, shard.written)
        self.rounds = Rounds(loop, self.turn.schedule)
        self.wheel = TimerWheel(monotonic())
        self.slow_readers = SlowReaders(monotonic())
        self.scrap = memoryview(bytearray(1024))
        self.writes = 0
        self.frames = 0
        self.frozen = False

    def entered(self, connection: Connection) -> None:
        """Do nothing."""

    def left(self, connection: Connection) -> None:
        """Do nothing."""


class _Client:
    """One device of one user."""

    def __init__(self, host: _Host, user_id: str) -> None:
        self.user_id = user_id
        connection = Connection(host, Ticket(0, user_id, "", 0, b""), monotonic())
        self._parser = AdoptedProtocol(connection, _null(), b"")
        self._parser.connection_made(cast(asyncio.Transport, _Stream()))

    def say(self, kind: str, **data: Any) -> None:
        """Say one thing."""
        self.send(client_frame(Opcode.TEXT, said(kind, **data)))

    def send(self, frames: bytes) -> None:
        """Do what the event loop does with what it has read."""
        buffer = self._parser.get_buffer(-1)
        buffer[: len(frames)] = frames
        self._parser.buffer_updated(len(frames))


class Wired:
    """MSG, its delivery, MSG_ACK to the sender, and the MSG_ACK of the recipient in the turn after.

    Implements ``bench.hot_path.Workload``.
    """

    written_each = 2

    def __init__(self, turns: int) -> None:
        settings = Settings(workers=1, messages_per_minute=A_MINUTE)
        store = MemoryStore(settings)
        self._shard = Shard(0, 1, settings, Bus(), store, TurnClock(), SystemChance())
        store.listen(self._shard.listeners)
        store.start()
        self._shard.start()
        self._loop = _Loop()
        self._host = _Host(self._shard, self._loop)
        source = random.Random(turns)
        ids = [new_id(source) for _ in range(2 * PAIRS)]
        # picows looks for an event loop, and asks it for nothing.
        clients = asyncio.run(self._connect(ids))
        pairs = list(zip(clients[::2], clients[1::2], strict=True))
        for first, second in pairs:
            first.say("OPEN_CHAT", target_user_id=second.user_id, target_display_name="Somebody")
        self._loop.run()
        # Who is online is told a little later.
        self._shard.tick(monotonic() + _A_WHILE)
        self._loop.run()
        self._before = self._host.frames
        #: For each turn, who sends what.
        self._turns: deque[list[tuple[_Client, bytes]]] = deque()
        acknowledgements: list[tuple[_Client, bytes]] = []
        for _ in range(turns):
            turn, acknowledgements = acknowledgements, []
            for sender, recipient in pairs:
                message_ids = [new_id(source) for _ in range(MESSAGES_A_TURN // PAIRS)]
                messages = [
                    said("MSG", to=recipient.user_id, content=CONTENT, message_id=each)
                    for each in message_ids
                ]
                turn.append((sender, _frames(messages)))
                acknowledgements.append(
                    (recipient, _frames([said("MSG_ACK", message_id=each) for each in message_ids]))
                )
            self._turns.append(turn)

    async def _connect(self, user_ids: list[str]) -> list[_Client]:
        clients = [_Client(self._host, user_id) for user_id in user_ids]
        for client in clients:
            client.say("HELLO", user_id=client.user_id, display_name="Somebody")
        self._end_turn()
        return clients

    def turn(self) -> None:
        """Let the clients say what they have to say."""
        for client, frames in self._turns.popleft():
            client.send(frames)
        self._end_turn()

    def _end_turn(self) -> None:
        self._loop.run()
        self._shard.tick(monotonic())

    @property
    def written(self) -> int:
        """Frames to clients."""
        return self._host.frames - self._before


def _frames(payloads: list[bytes]) -> bytes:
    return b"".join(client_frame(Opcode.TEXT, payload) for payload in payloads)
