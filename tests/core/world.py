"""A small world for testing the core: shards with recording ports, bytes in and frames out, and a clock that the test moves.

`World` runs any number of shards in one process. Everything that they do to the outside is recorded or, for the bus, carried in the same
order that the real one keeps. `Device` is one client's connection: what it says goes through JSON like the real thing. The usual cast is
in ``tests/core/pair.py``.

`World.settle` lets everything happen that follows from what was said. A test that wants to look between two steps says things with
``settle=False`` and uses `World.turn` and `World.carry`, or stops a store (`RecordingStore.slow`) or a way (`World.stalled`).
"""

from __future__ import annotations

import dataclasses
import json
import random
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import count
from typing import Any, Final

from core.auth.tokens import TokenVerifier
from core.chat.envelope import pack_envelope
from core.chat.ports import HookOutcome, WaitingCall
from core.chat.session import Session
from core.chat.shard import Shard
from core.chat.succession import SHARD, divide, export, gather, resume, unfinished
from core.placement import Placement
from core.process.settings import Settings
from core.wire.frames import FrameError
from tests.core.recording_hook import RecordingHook
from tests.core.recording_store import RecordingStore

#: Where the clock of every world starts, in monotonic seconds and as time of day.
START: Final = 1000.0
TIMESTAMP: Final = b"2024-01-01T12:00:00.000Z"


#: What a worker gives to its successor: records, and the devices that each is about.
Taken = list[tuple[dict[str, Any], "list[Device]"]]


class FixedClock:
    """It is noon of the first of January 2024, until somebody changes `now`."""

    def __init__(self) -> None:
        self.now = TIMESTAMP

    def timestamp(self) -> bytes:
        return self.now

    def seconds(self) -> float:
        return datetime.fromisoformat(self.now.decode()).timestamp()


class SeededChance:
    """The same in every run. Implements ``core.chat.ports.Chance``."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def message_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def epoch(self) -> str:
        return f"{self._random.getrandbits(48):012x}"

    def fraction(self) -> float:
        return self._random.random()


class RecordingBus:
    """Collects records by destination, and makes envelopes of them at the end of a turn."""

    def __init__(self, world: World, index: int) -> None:
        self._world = world
        self._index = index
        self.records: dict[int, list[bytes]] = {}
        #: Whether the last turn sent something.
        self.busy = False

    def send(self, worker: int, record: bytes) -> None:
        self.records.setdefault(worker, []).append(record)

    def flush(self) -> list[tuple[int, list[bytes]]]:
        world, generation = self._world, self._world.shards[self._index].generation
        turn, self.records = self.records, {}
        self.busy = bool(turn)
        for worker, records in turn.items():
            if worker not in world.cut_off | world.refusing:
                way = world.in_transit.setdefault((self._index, worker), deque())
                way.append(pack_envelope(self._index, generation, world.now, records))
        return [(worker, records) for worker, records in turn.items() if worker in world.refusing]


class Device:
    """A client's connection as the shard sees it, and the client's end of it at once."""

    def __init__(self, world: World, user_id: str, strikes: int = 0) -> None:
        self.world = world
        self.user_id = user_id
        self.address = "192.0.2.7"
        self.label = "1-1"
        self.last_heard = world.now
        #: Payloads of WebSocket pings from the server, and its frames that have not been decoded yet.
        self.pings: list[bytes] = []
        self._frames: list[bytes] = []
        self._inbox: list[dict[str, Any]] = []
        #: (code, reason) once the server has closed; 1006 when its worker was killed.
        self.closed: tuple[int, str] | None = None
        #: Whether the client has closed.
        self.left = False
        self.held_until = 0.0
        #: What the kernel does not take; raise it to make the device look slow.
        self.waiting = 0
        world.devices.append(self)
        self.session = world.shard_of(user_id).connect(self, user_id, strikes, world.now)

    @property
    def open(self) -> bool:
        """Whether neither end has closed."""
        return self.closed is None and not self.left

    @property
    def reading(self) -> bool:
        """Whether the worker would read from it now."""
        return self.held_until <= self.world.now

    # -- The port --

    def send(self, frame: bytes) -> None:
        if self.open:
            self._frames.append(frame)

    def ping(self, payload: bytes) -> None:
        if self.open:
            self.pings.append(payload)

    def close(self, code: int, reason: str) -> None:
        if self.open:
            self.closed = (code, reason)

    def hold(self, until: float) -> None:
        self.held_until = until

    def unsent(self) -> int:
        return self.waiting

    # -- The client --

    def say(self, kind: str, settle: bool = True, /, **data: Any) -> None:
        """Send one message; with `settle`, let everything happen that follows from it."""
        self.say_bytes(json.dumps({"type": kind, "data": data}).encode(), settle)

    def say_bytes(self, payload: bytes, settle: bool = True) -> None:
        """Send any text."""
        assert self.open, f"this connection is closed: {self.closed}"
        self.last_heard = self.world.now
        try:
            self.session.receive(payload, self.world.now)
        except FrameError as error:
            self.session.close(error.code, error.reason, self.world.now)
        if settle:
            self.world.settle()

    def hello(self, name: str = "Somebody", settle: bool = True, **data: Any) -> Device:
        """Say HELLO, and return the device."""
        self.say("HELLO", settle, user_id=self.user_id, display_name=name, **data)
        return self

    def open_chat(self, peer: str, settle: bool = True) -> None:
        """Open a chat with `peer`."""
        self.say("OPEN_CHAT", settle, target_user_id=peer, target_display_name="Whoever")

    def msg(self, to: str, content: str = "Hi.", message_id: str | None = None, settle: bool = True) -> None:
        """Send a message, without an id of the client's unless one is given."""
        extra = {} if message_id is None else {"message_id": message_id}
        self.say("MSG", settle, to=to, content=content, **extra)

    def typing(self, is_typing: bool = True, settle: bool = True, **data: Any) -> None:
        """Say whether one is typing."""
        self.say("TYPING", settle, is_typing=is_typing, **data)

    def answer_pings(self) -> None:
        """Send the pong for every ping that has come, or comes soon behind the messages."""
        self.world.pass_time(0.1)
        self.answer_those_that_came()

    def answer_those_that_came(self) -> None:
        """Send the pong for every ping that has come."""
        pings, self.pings = self.pings, []
        for payload in pings:
            self.session.pong(payload, self.world.now)
        self.world.settle()

    def drain(self) -> None:
        """Be fast again: what waited has been taken."""
        self.waiting = 0
        self.session.writable(self.world.now)
        self.world.settle()

    def leave(self) -> None:
        """Close the connection from the client's side."""
        self.left = True
        self.session.on_closed(self.world.now)
        self.world.settle()

    # -- What has come --

    @property
    def inbox(self) -> list[dict[str, Any]]:
        """Messages from the server that have not been taken, decoded, oldest first."""
        frames, self._frames = self._frames, []
        self._inbox += [json.loads(payload_of(frame)) for frame in frames]
        return self._inbox

    def take(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The `data` of all messages of a kind that have come, removing them; of all kinds, whole messages."""
        taken = [
            message if kind is None else message["data"]
            for message in self.inbox
            if kind in (None, message["type"])
        ]
        self._inbox = [message for message in self._inbox if kind is not None and message["type"] != kind]
        return taken

    def one(self, kind: str) -> dict[str, Any]:
        """The `data` of the only message of a kind that has come."""
        taken = self.take(kind)
        assert len(taken) == 1, f"expected one {kind}, got {taken}; also here: {self.inbox}"
        return taken[0]

    def error(self) -> dict[str, Any]:
        """The only ERROR that has come."""
        return self.one("ERROR")

    def kinds(self) -> list[str]:
        """The types of the messages that have come, in order."""
        return [message["type"] for message in self.inbox]

    def contents(self) -> list[str]:
        """What the messages that have come say, in order, removing them."""
        return [message["content"] for message in self.take("MSG")]

    def statuses(self) -> list[tuple[str, str]]:
        """(message_id, status) of the MSG_ACKs that have come, removing them."""
        return [(ack["message_id"], ack["status"]) for ack in self.take("MSG_ACK")]

    def errors(self) -> list[str]:
        """The codes of the ERRORs that have come, removing them."""
        return [error["code"] for error in self.take("ERROR")]

    def typists(self) -> list[tuple[str, bool]]:
        """(user, is_typing) of the TYPINGs that have come, removing them."""
        return [(typing["user_id"], typing["is_typing"]) for typing in self.take("TYPING")]


class World:
    """Shards, users on them, and time."""

    def __init__(self, workers: int = 2, **settings: Any) -> None:
        self.now = START
        self.settings = Settings(workers=workers, **settings)
        self.placement = Placement(workers)
        self.clock = FixedClock()
        #: Checks the tokens that are shown to workers which begin from now on.
        self.tokens: TokenVerifier | None = None
        self.chance = SeededChance(-1 - workers)
        self.hook = RecordingHook(self._hook_answered)
        self.devices: list[Device] = []
        self.buses = [RecordingBus(self, index) for index in range(workers)]
        self.stores = [RecordingStore() for _ in range(workers)]
        self.shards: list[Shard] = []
        #: Workers to which nothing gets through, though the bus takes it; the way to them is full, so the bus refuses; or it waits.
        self.cut_off: set[int] = set()
        self.refusing: set[int] = set()
        self.stalled: set[int] = set()
        #: (from, to) -> envelopes on their way.
        self.in_transit: dict[tuple[int, int], deque[bytes]] = {}
        self._random = random.Random(workers)
        #: Those of later processes are higher.
        self._generations = count(self._random.getrandbits(62))
        for index in range(workers):
            self.shards.append(self._shard(index))
        for shard in self.shards:
            shard.start()
        self.settle()

    def _shard(self, index: int) -> Shard:
        store = self.stores[index] = RecordingStore(self.stores[index].records)
        bus = self.buses[index] = RecordingBus(self, index)
        generation = next(self._generations)
        hook = self.hook if self.settings.hook_url else None
        shard = Shard(
            index, generation, self.settings, bus, store, self.clock, self.chance, self.tokens, hook
        )
        store.listen(shard)
        return shard

    def _hook_answered(self, call: WaitingCall, outcome: HookOutcome) -> None:
        self.shard_of(call.user_id).hook_calls.answered(call, outcome, self.now)
        self.settle()

    # -- Users --

    def user_on(self, worker: int) -> str:
        """A new user id that lives on `worker`; the same ones in every run."""
        while True:
            user_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            if self.placement.worker_of(user_id) == worker:
                return user_id

    def shard_of(self, user_id: str) -> Shard:
        """The shard that owns a user, ever seen or not."""
        return self.shards[self.placement.worker_of(user_id)]

    def store_of(self, user_id: str) -> RecordingStore:
        """The store of the shard that owns a user."""
        return self.stores[self.placement.worker_of(user_id)]

    def device(self, user_id: str) -> Device:
        """A new connection of a user, before HELLO."""
        return Device(self, user_id)

    # -- What happens --

    def turn(self, index: int) -> bool:
        """End a loop turn of one worker; whether anything happened."""
        shard = self.shards[index]
        busy = shard.ready
        busy |= shard.end_turn(self.now)
        shard.written(self.now)
        return busy or self.buses[index].busy

    def carry(self, source: int, target: int) -> bool:
        """Let the next envelope on a way arrive; whether there was one."""
        way = self.in_transit.get((source, target))
        if not way or target in self.stalled:
            return False
        self.shards[target].receive_envelope(way.popleft(), self.now)
        return True

    def settle(self) -> None:
        """Let loop turns end until nothing is left to do."""
        busy = True
        while busy:
            busy = False
            for index in range(len(self.shards)):
                busy |= self.turn(index)
            for source, target in list(self.in_transit):
                while self.carry(source, target):
                    busy = True

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass, with the ticks that a worker has."""
        for _ in range(max(1, round(seconds / step))):
            self.now += step
            self.tick()

    def tick(self) -> None:
        """Let each worker do what is due by now."""
        for shard in self.shards:
            shard.tick(self.now)
        self.settle()

    def stand_still(self, seconds: float) -> None:
        """All workers are suspended for so long, and go on: what came meanwhile is there before their next tick."""
        self.now += seconds
        for shard in self.shards:
            shard.stood_still(seconds, self.now)

    def kill(self, index: int, lost: bool = False) -> None:
        """Kill worker `index`: its connections, its memory and what is on the way to or from it are gone; what is stored stays.

        With `lost` that is gone too, as with the store that keeps nothing on disk.
        """
        if lost:
            self.stores[index].records = {}
        dead = self.shards[index]
        self.stalled.add(index)
        for way in [way for way in self.in_transit if index in way]:
            del self.in_transit[way]
        for device in self.devices:
            if device.open and self.placement.worker_of(device.user_id) == index:
                device.closed = (1006, "killed")
        self.shards[index] = self._shard(index)
        for shard in self.shards:
            if shard.index != index:
                shard.send_again(index, [])
                shard.worker_gone(index, dead.generation, self.now)
        self.settle()

    def boot(self, index: int) -> None:
        """Start a new process in the place of a killed worker."""
        self.stalled.discard(index)
        self.shards[index].start()
        self.settle()

    def succeed(self, index: int, change: Callable[[Taken], None] | None = None) -> None:
        """Replace worker `index`, which must be quiet, by another process that takes its connections over.

        `change` may change what it is given.
        """
        self.settle()
        assert unfinished(self.shards[index]) is None
        assert not self.stores[index].waiting
        taken = self.export(index)
        if change is not None:
            change(taken)
        self.replace(index)
        self.resume(index, taken)
        self.settle()

    def replace(self, index: int) -> None:
        """Put a new shard in the place of a worker, from which nothing more comes to the others."""
        for shard in self.shards:
            if shard.index != index:
                shard.exchange.ended(index, self.shards[index].generation, self.now)
        self.shards[index] = self._shard(index)

    def export(self, index: int) -> Taken:
        """What a worker gives to its successor, and the devices that each record is about, in their order."""
        devices = self._devices_of(index)
        return [
            (json.loads(json.dumps(record)), [devices[session] for session in sessions])
            for record, sessions in export(self.shards[index], devices, self.now)
        ]

    def _devices_of(self, index: int) -> dict[Session, Device]:
        return {
            device.session: device
            for device in self.devices
            if device.open and self.placement.worker_of(device.user_id) == index
        }

    def resize(self, workers: int, change: Callable[[Taken], None] | None = None) -> None:
        """Replace all workers, which must be quiet, by so many that take their connections over, in whatever order these come.

        `change` may change what one of them is given.
        """
        self.settle()
        parts: list[Taken] = [[] for _ in range(workers)]
        for index, shard in enumerate(self.shards):
            assert unfinished(shard, resize=True) is None
            devices = self._devices_of(index)
            for worker, (record, sessions) in divide(shard, devices, workers, self.now):
                taken = json.loads(json.dumps(record)), [devices[session] for session in sessions]
                parts[worker].append(taken)
        assert not any(self.in_transit.values())
        assert not any(store.waiting for store in self.stores)
        self._place_anew(workers)
        for index, part in enumerate(parts):
            random.Random(workers).shuffle(part)
            if change is not None:
                change(part)
            self.resume(index, part)
        self.settle()

    def _place_anew(self, workers: int) -> None:
        """Put new shards in the place of all, each with what is stored of its users."""
        self.settings = dataclasses.replace(self.settings, workers=workers)
        self.placement = Placement(workers)
        stored = [item for store in self.stores for item in store.records.items()]
        self.stores = [RecordingStore() for _ in range(workers)]
        for user_id, record in stored:
            self.store_of(user_id).records[user_id] = record
        self.buses = [RecordingBus(self, index) for index in range(workers)]
        self.shards = [self._shard(index) for index in range(workers)]

    def resume(self, index: int, taken: Taken) -> None:
        """Give a new worker what `export` has returned, and let it go on. Nothing holds a connection that it makes."""
        shard = self.shards[index]
        gather(shard, [record for record, _ in taken if record["kind"] == SHARD])
        resumed: list[float] = []
        others = [(record, devices) for record, devices in taken if record["kind"] != SHARD]
        for record, devices in others:
            for device in devices:
                device.held_until = 0.0
                device.session = shard.connect(device, device.user_id, 0, self.now)
            resume(shard, record, [device.session for device in devices], resumed.append, self.now)
        while len(resumed) < len(others):
            shard.end_turn(self.now)
        shard.start()

    def restart(self, index: int, lost: bool = False) -> None:
        """Kill a worker, and start a new process in its place."""
        self.kill(index, lost)
        self.boot(index)


def payload_of(frame: bytes) -> bytes:
    """The payload of an unmasked, unfragmented text frame, which is all that the core writes."""
    assert frame[0] == 0x81, "a final text frame without RSV bits"
    size, start = frame[1], 2
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(frame[2:start], "big")
    assert len(frame) == start + size, "the length says where the frame ends"
    return frame[start:]
