"""A fixed piece of work that has nothing to do with FastChat: the unit in which the guard states what a message costs.

How many instructions the same Python code takes depends on the interpreter (its version, its compiler, its flags), on orjson's build and
on the C library. `Reference` is made of what the core's hot path is made of, and its cost moves along: parse JSON, look fields up and
check them, call methods on small objects, match a pattern, splice bytes, pack a struct, queue and take, enter and leave dictionaries,
now and then an exception. So the quotient of the two stays when the machine changes, and moves when FastChat does.

It must not import FastChat, and must not change: each change here makes all budgets mean something else, and needs
``python -m bench.guard --update``.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson

#: How often a unit looks at all desks. So many, since then CPython 3.11, 3.12 and 3.13, and builds of it with and without
#: profile-guided optimisation, agree best on what the core's messages cost in units.
_ROUNDS: Final = 2
#: Units done in one `turn`; as many as a workload handles messages.
UNITS_A_TURN: Final = 32

_NAME: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)
_WORD: Final = re.compile(r"[!-~]{1,64}")
_HEAD: Final = struct.Struct("!BBQd")
_TEXT: Final = "The quick brown fox jumps over the lazy dog, and back again."


class _Wrong(Exception):
    def __init__(self, code: str, text: str, **details: Any) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.details = details


class _Parcel:
    __slots__ = ("bytes", "number", "owner", "sender", "taken", "waiting")

    def __init__(self, owner: _Desk, sender: str, payload: bytes) -> None:
        self.owner = owner
        self.sender = sender
        self.bytes = payload
        self.number = 0
        self.taken = False
        self.waiting: list[tuple[int, int]] = []


class _Head(NamedTuple):
    kind: int
    flags: int
    ticket: int
    due: float


class _Desk:
    """Somebody who takes parcels in and gives them out again."""

    __slots__ = ("by_name", "head", "kept", "out", "times")

    def __init__(self) -> None:
        self.head = 0
        self.kept: dict[int, _Parcel] = {}
        self.by_name: dict[tuple[str, str], _Parcel] = {}
        self.out: list[bytes] = []
        self.times: deque[float] = deque()

    def find(self, sender: str, name: str) -> _Parcel | None:
        return self.by_name.get((sender, name))

    def enter(self, sender: str, name: str, parcel: _Parcel) -> None:
        self.by_name[sender, name] = parcel
        self.head += 1
        parcel.number = self.head
        self.kept[parcel.number] = parcel

    def leave(self, sender: str, name: str) -> bool:
        parcel = self.by_name.pop((sender, name), None)
        if parcel is None or not parcel.number:
            return False
        del self.kept[parcel.number]
        parcel.taken = True
        return True

    def wait(self, now: float) -> float:
        times = self.times
        if len(times) < 100:
            return 0.0
        left = times[0] + 60.0 - now
        return left if left > 0.0 else 0.0

    def send(self, frame: bytes) -> None:
        self.out.append(frame)

    def ask(self, number: int, now: float) -> bool:
        return self.head >= number and self.is_open(number, now)

    def is_open(self, number: int, now: float) -> bool:
        if self.wait(now) > 0.0:
            return False
        return not self.has_left(number)

    def has_left(self, number: int) -> bool:
        parcel = self.kept.get(number)
        return parcel is not None and parcel.taken


class Reference:
    """Implements ``bench.hot_path.Workload``."""

    written_each = 1

    def __init__(self, turns: int) -> None:
        self.written = 0
        self._now = 0.0
        self._desks = {str(number): _Desk() for number in range(8)}
        self._ready: deque[Callable[[float], None]] = deque()
        self._counts: dict[str, int] = {}
        self._handlers = {"parcel": self._parcel, "token": self._token}
        self._turns = turns
        self._payloads = [
            orjson.dumps(
                {
                    "type": "parcel",
                    "data": {
                        "to": f"0123456{number % 8}-89ab-4def-8123-456789abcd{number:02}",
                        "content": _TEXT,
                        "name": f"fedcba98-7654-4210-9edc-ba98765432{number:02}",
                    },
                }
            )
            for number in range(UNITS_A_TURN)
        ]

    def turn(self) -> None:
        """Do `UNITS_A_TURN` units."""
        self._turns -= 1
        self._now += 1.0
        for payload in self._payloads:
            self._receive(payload, self._now)
        ready = self._ready
        while ready:
            ready.popleft()(self._now)
        for desk in self._desks.values():
            self.written += len(desk.out)
            desk.out.clear()

    def _receive(self, payload: bytes, now: float) -> None:
        kind: str | None = None
        try:
            message = orjson.loads(payload)
            kind = message.get("type")
            data = message.get("data")
            if type(kind) is not str or type(data) is not dict:
                raise _Wrong("SHAPE", f"{kind!r} is no kind", expected="a string")
            handle = self._handlers.get(kind)
            if handle is None:
                raise _Wrong("KIND", f"{kind!r} is unknown", expected=sorted(self._handlers))
            handle(data, now)
        except _Wrong as wrong:
            self._counts[f"wrong_{wrong.code}_total"] = self._counts.get(f"wrong_{wrong.code}_total", 0) + 1

    def _checked(self, value: Any, pattern: re.Pattern[str], field: str) -> str:
        if type(value) is not str or pattern.fullmatch(value) is None:
            raise _Wrong("FIELD", f"`{field}` can't be {value!r}", field=field)
        return value.lower()

    def _parcel(self, data: dict[str, Any], now: float) -> None:
        target = self._checked(data.get("to"), _NAME, "to")
        name = self._checked(data.get("name"), _WORD, "name")
        content = data.get("content")
        if type(content) is not str or not 1 <= len(content.strip()) <= 1000:
            raise _Wrong("FIELD", "`content` has a wrong length", field="content")
        desk = self._desks[target[7]]
        if desk.wait(now) > 0.0 or desk.find(target, name) is not None:
            raise _Wrong("AGAIN", f"{name} is here already", field="name")
        frame = b'{"type":"parcel","data":{"to":"%b","content":%b,"name":%b,"at":"%b%03dZ"}}' % (
            target.encode(),
            orjson.dumps(content),
            orjson.dumps(name),
            b"2024-01-01T12:00:00.",
            int(now) % 1000,
        )
        size = len(frame)
        head = bytes((0x81, size)) if size < 126 else bytes((0x81, 126)) + size.to_bytes(2, "big")
        parcel = _Parcel(desk, target, head + frame)
        parcel.waiting.append((crc32(target.encode()) & 1023, desk.head))
        desk.enter(target, name, parcel)
        self._ready.append(partial(self._travel, parcel, name))

    def _travel(self, parcel: _Parcel, name: str, now: float) -> None:
        fields = (parcel.sender.encode(), name.encode(), parcel.bytes)
        record = _HEAD.pack(1, 4, parcel.number, now) + b"\0".join(fields)
        head = _Head._make(_HEAD.unpack_from(record))
        sender, packed, frame = record[_HEAD.size :].split(b"\0", 2)
        self._look_around(parcel.number, now)
        waiting, parcel.waiting = parcel.waiting, []
        for _, _ in waiting:
            if parcel.owner.leave(sender.decode(), packed.decode()) and head.ticket == parcel.number:
                parcel.owner.send(frame)
        token = orjson.dumps({"type": "token", "data": {"name": name, "number": head.ticket}})
        self._receive(token, now)

    def _look_around(self, number: int, now: float) -> None:
        """Call small methods, which the interpreter does itself: much of what the core does."""
        open_desks = 0
        for _ in range(_ROUNDS):
            for desk in self._desks.values():
                if desk.ask(number, now) or desk.ask(0, now):
                    open_desks += 1
        self._counts["open"] = open_desks

    def _token(self, data: dict[str, Any], now: float) -> None:
        name = self._checked(data.get("name"), _WORD, "name")
        if data.get("number", 0) % 16 == 0:
            raise _Wrong("ODD", f"{name} is one of sixteen", field="number")
        self._counts["tokens"] = self._counts.get("tokens", 0) + 1
