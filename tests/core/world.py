"""A small world for testing the core: shards with recording ports, bytes in and frames out, and a clock that the test moves.

`World` runs any number of shards in one process. Everything that they do to the outside is recorded or, for the bus, carried in the same
order that the real one keeps. `Device` is one client's connection: what it says goes through JSON like the real thing.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from core.envelope import pack_envelope
from core.frames import FrameError, Opcode
from core.placement import Placement
from core.settings import Settings
from core.shard import Shard
from workers.store.memory import MemoryStore

#: Where the clock of every world starts, in monotonic seconds and as time of day.
START = 1000.0
TIMESTAMP = b"2024-01-01T12:00:00.000Z"


class FixedClock:
    """It is always noon of the first of January 2024."""

    def timestamp(self) -> bytes:
        return TIMESTAMP


class RecordingBus:
    """Collects records by destination; `World.settle` carries them over."""

    def __init__(self) -> None:
        self.records: dict[int, list[bytes]] = {}

    def send(self, worker: int, record: bytes) -> None:
        self.records.setdefault(worker, []).append(record)


class Device:
    """A client's connection as the shard sees it, and the client's end of it at once."""

    def __init__(self, world: World, user_id: str) -> None:
        self.world = world
        self.user_id = user_id
        self.last_heard = world.now
        #: Messages from the server, decoded, oldest first; and payloads of WebSocket pings.
        self.inbox: list[dict[str, Any]] = []
        self.pings: list[bytes] = []
        #: (code, reason) once the server has closed.
        self.closed: tuple[int, str] | None = None
        self.reading = True
        #: What the kernel does not take; raise it to make the device look slow.
        self.waiting = 0
        self.session = world.shard_of(user_id).connect(self, user_id, world.now)

    # -- The port --

    def send(self, frame: bytes) -> None:
        assert self.closed is None or frame, "the port ignores frames after a close"
        payload = _payload(frame)
        if frame[0] & 0x0F == Opcode.PING:
            self.pings.append(payload)
        else:
            self.inbox.append(json.loads(payload))

    def ping(self, payload: bytes) -> None:
        self.pings.append(payload)

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def unsent(self) -> int:
        return self.waiting

    # -- The client --

    def say(self, kind: str, settle: bool = True, **data: Any) -> None:
        """Send one message; with `settle`, let everything happen that follows from it."""
        self.say_bytes(json.dumps({"type": kind, "data": data}).encode(), settle)

    def say_bytes(self, payload: bytes, settle: bool = True) -> None:
        """Send any text."""
        self.last_heard = self.world.now
        try:
            self.session.receive(payload, self.world.now)
        except FrameError as error:
            self.world.shard_of(self.user_id).close(self.session, error.code, error.reason, self.world.now)
        if settle:
            self.world.settle()

    def hello(self, name: str = "Somebody", **data: Any) -> Device:
        """Say HELLO, and return the device."""
        self.say("HELLO", user_id=self.user_id, display_name=name, **data)
        return self

    def open_chat(self, peer: str) -> None:
        """Open a chat with `peer`."""
        self.say("OPEN_CHAT", target_user_id=peer, target_display_name="Whoever")

    def answer_pings(self) -> None:
        """Send the pong for every ping that came."""
        pings, self.pings = self.pings, []
        for payload in pings:
            self.session.pong(payload, self.world.now)
        self.world.settle()

    def leave(self) -> None:
        """Close the connection from the client's side."""
        self.session.on_closed(self.world.now)
        self.world.settle()

    def take(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The `data` of all messages of a kind that have come, removing them; of all kinds, whole messages."""
        taken = [
            message if kind is None else message["data"]
            for message in self.inbox
            if kind in (None, message["type"])
        ]
        self.inbox = [message for message in self.inbox if kind is not None and message["type"] != kind]
        return taken

    def one(self, kind: str) -> dict[str, Any]:
        """The `data` of the only message of a kind that has come."""
        taken = self.take(kind)
        assert len(taken) == 1, f"expected one {kind}, got {taken}; also here: {self.inbox}"
        return taken[0]

    def error(self) -> dict[str, Any]:
        """The only ERROR that has come."""
        return self.one("ERROR")


class World:
    """Shards, users on them, and time."""

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        self.now = START
        self.settings = Settings(workers=workers, **settings)
        self.placement = Placement(workers)
        self.buses = [RecordingBus() for _ in range(workers)]
        self.stores = [MemoryStore() for _ in range(workers)]
        self.shards: list[Shard] = []
        #: Workers to which nothing gets through, though the bus takes it.
        self.cut_off: set[int] = set()
        for index in range(workers):
            self.shards.append(self._shard(index))
        for shard in self.shards:
            shard.start()
        self.settle()

    def _shard(self, index: int) -> Shard:
        generation = uuid.uuid4().int >> 64
        store = self.stores[index] = MemoryStore()
        shard = Shard(index, generation, self.settings, self.buses[index], store, FixedClock())
        store.listen(shard.messages.appended)
        return shard

    def restart(self, index: int) -> None:
        """Kill worker `index` and start a new process in its place: its connections and its memory are gone."""
        old = self.shards[index]
        self.buses[index].records.clear()
        self.shards[index] = self._shard(index)
        for shard in self.shards:
            if shard.index != index:
                shard.worker_gone(index, old.generation, self.now)
        self.shards[index].start()
        self.settle()

    def user_on(self, worker: int) -> str:
        """A new user id that lives on `worker`."""
        while True:
            user_id = str(uuid.uuid4())
            if self.placement.worker_of(user_id) == worker:
                return user_id

    def shard_of(self, user_id: str) -> Shard:
        return self.shards[self.placement.worker_of(user_id)]

    def device(self, user_id: str) -> Device:
        """A new connection of a user, before HELLO."""
        return Device(self, user_id)

    def settle(self) -> None:
        """Let loop turns end until nothing is left to do."""
        busy = True
        while busy:
            busy = False
            for index, shard in enumerate(self.shards):
                shard.run_ready(self.now)
                busy |= self.stores[index].flush(self.now)
                shard.presence.publish()
                busy |= shard.ready
            for index, bus in enumerate(self.buses):
                turn, bus.records = bus.records, {}
                for worker, records in turn.items():
                    if worker not in self.cut_off:
                        envelope = pack_envelope(index, self.shards[index].generation, records)
                        self.shards[worker].receive_envelope(envelope, self.now)
                        busy = True

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass, with the ticks that a worker has."""
        for _ in range(max(1, round(seconds / step))):
            self.now += step
            for shard in self.shards:
                shard.tick(self.now)
            self.settle()


def _payload(frame: bytes) -> bytes:
    size = frame[1]
    if size < 126:
        return frame[2:]
    return frame[4:] if size == 126 else frame[10:]
