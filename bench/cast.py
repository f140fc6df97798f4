"""Who chats in the scenarios of `bench.hot_path`: pairs of users on shards, with connections that only count, and a bus within the process.

Nothing depends on the machine or on the moment: user ids, names and the clock are the same in every run.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import deque
from typing import Any, Final

from core.chat.envelope import pack_envelope
from core.chat.session import Session
from core.chat.shard import Shard
from core.placement import Placement
from core.process.settings import Settings
from core.wire.timestamps import format_timestamp
from workers.chance import SystemChance
from workers.store.memory import MemoryStore

#: What one loop turn of a busy worker finds to do: 8 users who each say 4 things, or 4 who each say 8.
MESSAGES_A_TURN: Final = 32
PAIRS: Final = 4
#: Seconds from one turn to the next, so that each has its tick.
TURN: Final = 0.1
#: Turns until everybody knows who is online.
_SETTLING: Final = 30
#: Far beyond what is said here, but counted as in production.
A_MINUTE: Final = 60_000
#: Noon of the first of January 2024, in milliseconds since 1970; the monotonic clock starts elsewhere.
NOON: Final = 1_704_110_400_000
_START: Final = 1000.0
CONTENT: Final = "Hello there, how are you today? I'll be a few minutes late."


class Wire:
    """A connection that takes everything and counts it. Implements ``core.chat.ports.Connection``."""

    __slots__ = ("_frames", "address", "kept", "label", "last_heard", "written")

    def __init__(self) -> None:
        self.address = self.label = ""
        self.last_heard = _START
        #: Frames of this turn, and the number of those before.
        self._frames: list[bytes] = []
        self.written = 0
        #: Where frames stay to be looked at, if anybody wants to.
        self.kept: list[bytes] | None = None

    def send(self, frame: bytes) -> None:
        """Take it until the end of the turn."""
        self._frames.append(frame)

    def flush(self) -> None:
        """Note that the turn is over."""
        self.written += len(self._frames)
        if self.kept is not None:
            self.kept += self._frames
        self._frames.clear()

    def ping(self, payload: bytes) -> None:
        """Nobody answers."""

    def close(self, code: int, reason: str) -> None:
        """No scenario is meant to get that far."""
        raise AssertionError(f"a client was closed with {code} ({reason})")

    def hold(self, until: float) -> None:
        """Nobody reads."""

    def unsent(self) -> int:
        """Return 0: this client reads as fast as can be."""
        return 0


class Bus:
    """Collects the records of a turn by worker. Implements ``core.chat.ports.Bus``."""

    __slots__ = ("_records", "turn")

    def __init__(self) -> None:
        self._records: dict[int, list[bytes]] = {}
        #: What the turn that has just ended sends.
        self.turn: dict[int, list[bytes]] = {}

    def send(self, worker: int, record: bytes) -> None:
        """Keep it until the end of the turn."""
        records = self._records.get(worker)
        if records is None:
            self._records[worker] = [record]
        else:
            records.append(record)

    def flush(self) -> list[tuple[int, list[bytes]]]:
        """End the turn; nothing is ever refused."""
        self.turn, self._records = self._records, {}
        return []


class TurnClock:
    """A time of day that stands still within a turn. Implements ``core.chat.ports.Clock``."""

    def __init__(self) -> None:
        self.milliseconds = NOON

    def timestamp(self) -> bytes:
        """Format it anew for each caller, as the worker's clock does."""
        return format_timestamp(self.milliseconds)

    def seconds(self) -> float:
        """Return the same in seconds since 1970."""
        return self.milliseconds / 1000


class Client:
    """One device of one user."""

    __slots__ = ("_cast", "session", "user_id", "wire")

    def __init__(self, cast: Cast, user_id: str) -> None:
        self._cast = cast
        self.user_id = user_id
        self.wire = Wire()
        self.session: Session = cast.shard_of(user_id).connect(self.wire, user_id, 0, cast.now)

    def say(self, payload: bytes) -> None:
        """Do what a worker does with the text of a message."""
        now = self._cast.now
        self.wire.last_heard = now
        self.session.receive(payload, now)


class Cast:
    """Shards, and pairs of users who have a chat open; the first of each pair lives on shard 0, the second on the last one."""

    def __init__(self, workers: int) -> None:
        self.settings = Settings(
            workers=workers,
            messages_per_minute=A_MINUTE,
            typing_per_minute=A_MINUTE,
            pings_per_second=1000.0,
        )
        self.now = _START
        self._clock = TurnClock()
        self._placement = Placement(workers)
        self._buses = [Bus() for _ in range(workers)]
        self._stores = [MemoryStore(self.settings) for _ in range(workers)]
        self.shards = [
            Shard(index, index + 1, self.settings, bus, store, self._clock, SystemChance())
            for index, (bus, store) in enumerate(zip(self._buses, self._stores, strict=True))
        ]
        #: (from, envelope) for each worker.
        self._in_transit: list[deque[bytes]] = [deque() for _ in range(workers)]
        for shard, store in zip(self.shards, self._stores, strict=True):
            store.listen(shard.listeners)
            store.start()
            shard.start()
        self.clients: list[Client] = []
        source = random.Random(workers)
        self.pairs = [(self._client(source, 0), self._client(source, workers - 1)) for _ in range(PAIRS)]
        self.end_turn()
        for first, second in self.pairs:
            target = {"target_user_id": second.user_id, "target_display_name": "Somebody"}
            first.say(said("OPEN_CHAT", **target))
        for _ in range(_SETTLING):
            self.end_turn()
        self.forget_written()

    def _client(self, source: random.Random, worker: int) -> Client:
        user_id = new_id(source)
        while self._placement.worker_of(user_id) != worker:
            user_id = new_id(source)
        client = Client(self, user_id)
        self.clients.append(client)
        client.say(said("HELLO", user_id=user_id, display_name="Somebody"))
        return client

    def shard_of(self, user_id: str) -> Shard:
        """Where a user lives."""
        return self.shards[self._placement.worker_of(user_id)]

    def end_turn(self, seconds: float = TURN) -> None:
        """End the loop turns of all workers until nothing is left to do; then time passes, and each has a tick."""
        busy = True
        while busy:
            busy = False
            for index, shard in enumerate(self.shards):
                busy |= self._end_turn(index, shard)
        for client in self.clients:
            client.wire.flush()
        self.now += seconds
        self._clock.milliseconds += round(seconds * 1000)
        for shard in self.shards:
            shard.tick(self.now)

    def _end_turn(self, index: int, shard: Shard) -> bool:
        now = self.now
        arrived = self._in_transit[index]
        while arrived:
            shard.receive_envelope(arrived.popleft(), now)
        busy = shard.end_turn(now)
        for worker, records in self._buses[index].turn.items():
            self._in_transit[worker].append(pack_envelope(index, shard.generation, now, records))
            busy = True
        shard.written(now)
        return busy

    @property
    def written(self) -> int:
        """Frames that went to all clients."""
        return sum(client.wire.written for client in self.clients)

    def forget_written(self) -> None:
        """Count from here."""
        for client in self.clients:
            client.wire.written = 0


def said(kind: str, **data: Any) -> bytes:
    """Return what a client sends."""
    return json.dumps({"type": kind, "data": data}).encode()


def new_id(source: random.Random) -> str:
    return str(uuid.UUID(int=source.getrandbits(128), version=4))
