"""The core's hot path without a socket: bytes in through `Session.receive`, frames out into connections that only count.

Each scenario is one thing that clients do all day, done over and over by 4 pairs of users on shards with the memory store and a bus that
carries envelopes within the process. `Cast.end_turn` ends the loop turns of all shards. Nothing depends on the machine or
on the moment: user ids, names and the clock are the same in every run, and what clients will say is made before it is needed.

A scenario is a `Workload`: it is built for a number of turns, and then each `turn` handles `MESSAGES_A_TURN` messages. `written` says
how many frames (or rows) have come of it, which must be `written_each` for each message: so what is refused is not taken for what is fast.
To add one: a class here and its row in SCENARIOS; ``python -m bench.guard --update`` gives it a budget.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from core.chat.chat import Chat
from core.chat.envelope import pack_envelope
from core.chat.session import Session
from core.chat.shard import Shard
from core.chat.user import Message, User
from core.placement import Placement
from core.process.settings import Settings
from core.wire import codec
from core.wire.timestamps import format_timestamp
from workers.chance import SystemChance
from workers.store.memory import MemoryStore
from workers.store.rows import id_hash, message_row

#: What one loop turn of a busy worker finds to do: 8 users who each say 4 things, or 4 who each say 8.
MESSAGES_A_TURN: Final = 32
_PAIRS: Final = 4
#: Seconds from one turn to the next, so that each has its tick.
_TURN: Final = 0.1
#: Turns until everybody knows who is online.
_SETTLING: Final = 30
#: So many seconds that the 20 invalid messages a minute are never reached, by 8 users who say 4 in each turn.
_SLOW_TURN: Final = 20.0
#: Far beyond what is said here, but counted as in production.
_A_MINUTE: Final = 60_000
#: Noon of the first of January 2024, in milliseconds since 1970; the monotonic clock starts elsewhere.
_NOON: Final = 1_704_110_400_000
_START: Final = 1000.0
_CONTENT: Final = "Hello there, how are you today? I'll be a few minutes late."


class Workload(Protocol):
    """One scenario, ready to run."""

    #: Frames, or rows, that one message leads to.
    written_each: int

    def turn(self) -> None:
        """Handle `MESSAGES_A_TURN` messages. To be called as often as the workload was built for."""

    @property
    def written(self) -> int:
        """Frames, or rows, so far."""
        ...


#: Builds a workload for that many turns.
Build = Callable[[int], Workload]


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
        self.milliseconds = _NOON

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
            messages_per_minute=_A_MINUTE,
            typing_per_minute=_A_MINUTE,
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
        self.pairs = [(self._client(source, 0), self._client(source, workers - 1)) for _ in range(_PAIRS)]
        self.end_turn()
        for first, second in self.pairs:
            target = {"target_user_id": second.user_id, "target_display_name": "Somebody"}
            first.say(said("OPEN_CHAT", **target))
        for _ in range(_SETTLING):
            self.end_turn()
        self.forget_written()

    def _client(self, source: random.Random, worker: int) -> Client:
        user_id = _new_id(source)
        while self._placement.worker_of(user_id) != worker:
            user_id = _new_id(source)
        client = Client(self, user_id)
        self.clients.append(client)
        client.say(said("HELLO", user_id=user_id, display_name="Somebody"))
        return client

    def shard_of(self, user_id: str) -> Shard:
        """Where a user lives."""
        return self.shards[self._placement.worker_of(user_id)]

    def end_turn(self, seconds: float = _TURN) -> None:
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


def _new_id(source: random.Random) -> str:
    return str(uuid.UUID(int=source.getrandbits(128), version=4))


class _Talk:
    """What the scenarios with clients have in common: somebody says something prepared, and the turn ends."""

    written_each = 1
    _seconds = _TURN

    def __init__(self, workers: int) -> None:
        self.cast = Cast(workers)
        #: For each turn, who says what.
        self._turns: deque[list[tuple[Client, bytes]]] = deque()

    def turn(self) -> None:
        """Say it."""
        for client, payload in self._turns.popleft():
            client.say(payload)
        self.cast.end_turn(self._seconds)

    @property
    def written(self) -> int:
        """Frames to clients."""
        return self.cast.written


class _Chat(_Talk):
    """MSG, its delivery, MSG_ACK to the sender, and the MSG_ACK of the recipient, who acknowledges everything in the turn after."""

    written_each = 2

    def __init__(self, turns: int, workers: int) -> None:
        super().__init__(workers)
        source = random.Random(turns)
        acknowledgements: list[tuple[Client, bytes]] = []
        for _ in range(turns):
            turn, acknowledgements = acknowledgements, []
            for _ in range(MESSAGES_A_TURN // _PAIRS):
                for sender, recipient in self.cast.pairs:
                    message_id = _new_id(source)
                    payload = said("MSG", to=recipient.user_id, content=_CONTENT, message_id=message_id)
                    turn.append((sender, payload))
                    acknowledgements.append((recipient, said("MSG_ACK", message_id=message_id)))
            self._turns.append(turn)


def same_shard(turns: int) -> Workload:
    """Both users live on one shard."""
    return _Chat(turns, workers=1)


def other_shard(turns: int) -> Workload:
    """Send the message and its outcome in envelopes."""
    return _Chat(turns, workers=2)


class Typing(_Talk):
    """TYPING of both users of each pair to the other, on and off in turn."""

    def __init__(self, turns: int) -> None:
        super().__init__(workers=1)
        for number in range(turns):
            turn: list[tuple[Client, bytes]] = []
            for repeat in range(MESSAGES_A_TURN // (2 * _PAIRS)):
                for pair in self.cast.pairs:
                    for client, peer in (pair, pair[::-1]):
                        is_typing = (number + repeat) % 2 == 0
                        turn.append((client, said("TYPING", is_typing=is_typing, to=peer.user_id)))
            self._turns.append(turn)


class Ping(_Talk):
    """PING and PONG."""

    def __init__(self, turns: int) -> None:
        super().__init__(workers=1)
        payload = said("PING")
        every = [(client, payload) for client in self.cast.clients] * (MESSAGES_A_TURN // (2 * _PAIRS))
        self._turns.extend([every] * turns)


class Refuse(_Talk):
    """An invalid message, and the ERROR that explains it: the id of the recipient is none."""

    _seconds = _SLOW_TURN

    def __init__(self, turns: int) -> None:
        super().__init__(workers=1)
        source = random.Random(turns)
        for _ in range(turns):
            turn: list[tuple[Client, bytes]] = []
            for _ in range(MESSAGES_A_TURN // (2 * _PAIRS)):
                for client in self.cast.clients:
                    invalid = said("MSG", to="somebody", content=_CONTENT, message_id=_new_id(source))
                    turn.append((client, invalid))
            self._turns.append(turn)


class Rows:
    """The row of a message, as the SQLite store makes it of what the core gives it."""

    written_each = 1

    def __init__(self, turns: int) -> None:
        source = random.Random(turns)
        settings = Settings(workers=1)
        self.written = 0
        #: The last of them, to be looked at.
        self.last = b""
        self._turns: deque[list[Message]] = deque()
        user = User(_new_id(source), "Somebody", settings, SystemChance().epoch())
        chat = Chat(_new_id(source), "Somebody")
        for number in range(turns):
            timestamp = format_timestamp(_NOON + round(number * _TURN * 1000))
            turn: list[Message] = []
            for _ in range(MESSAGES_A_TURN):
                message_id = _new_id(source)
                frame = codec.msg(chat.peer, user.user_id, codec.to_json(_CONTENT), message_id, timestamp)
                turn.append(Message(user, chat, message_id, frame))
            self._turns.append(turn)

    def turn(self) -> None:
        """Make the rows of one commit."""
        for message in self._turns.popleft():
            self.last = message_row(message, id_hash(message.message_id), 1, self.written + 1)
            self.written += 1


SCENARIOS: Final[Mapping[str, Build]] = {
    "same shard": same_shard,
    "other shard": other_shard,
    "typing": Typing,
    "ping": Ping,
    "refuse": Refuse,
    "rows": Rows,
}
