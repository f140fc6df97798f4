"""Whole stories: several people and devices, messages right and wrong, restarts, troubles, time. After each step everybody reads.

An input is text; its first line says what the world is like, and each other line is a step:

| line | what happens |
|---|---|
| `*...` | the first line: `l` in it puts the limits in force, without `*` nobody is here yet |
| `0{...}` to `4{...}` | a device says this; while it is not greeted, to the lobby, as before a hand-over |
| `+2` `-2` | a device comes and says HELLO, going on where it was; it leaves |
| `.2` | it answers the pings that it got |
| `%2` | it stops reading; or reads again |
| `~3` | time passes: from a tenth of a second to two minutes |
| `!1` | a worker is killed, and comes back |
| `?4` | a store is slow, fails, can't be read; or all of that is over |
| `;` in front | nothing is settled before the next step |
"""

from __future__ import annotations

from random import Random
from typing import Final

from core.chat.lobby import Lobby
from core.wire.codec import from_json
from core.wire.frames import FrameError
from core.wire.validation import Hello
from fuzz.mutate_bytes import SIZE_MAX, mutate_bytes
from fuzz.mutate_json import ANN, BOB, CAT, mutate_json
from fuzz.small_world import CAPABILITIES, VALIDATOR, Client, new_world, people
from fuzz.target import Target
from fuzz.targets import message
from tests.core.world import TIMESTAMP, World

#: (user, name, whether with all capabilities) of the devices 0 to 4.
_DEVICES: Final = (
    (ANN, "Ann Lee", False),
    (ANN, "Ann Lee", True),
    (BOB, "Bob Ray", False),
    (BOB, "Bob Ray", True),
    (CAT, "Cat Poe", False),
)
_SECONDS: Final = (0.1, 1.0, 4.0, 6.0, 16.0, 26.0, 61.0, 130.0)
_STEPS_MAX: Final = 40
_STEPS: Final = b"01234+-.%~!?"
_NEW_STEPS: Final = (
    b"+0",
    b"+1",
    b"+3",
    b"-0",
    b"-1",
    b"-3",
    b".2",
    b".3",
    b"%3",
    b"~1",
    b"~3",
    b"~6",
    b"~7",
    b"!0",
    b"!1",
    b"?0",
    b"?1",
    b"?4",
)


class Story:
    """One run."""

    def __init__(self, first: bytes) -> None:
        self.world: World = new_world(b"l" in first)
        self.clients: list[Client | None] = (
            [*people(self.world)] if first.startswith(b"*") else [None] * len(_DEVICES)
        )
        self.lobbies: dict[int, Lobby] = {}
        self.past = 0
        self.said = 0

    def step(self, line: bytes) -> None:
        settle = not line.startswith(b";")
        line = line.lstrip(b";")
        if not line or line[0] not in _STEPS:
            return
        number = line[1] % 10 if len(line) > 1 else 0
        match line[:1]:
            case b"+":
                self.come(number % 5, settle)
            case b"-":
                client = self.clients[number % 5]
                if client is not None and client.open:
                    client.leave()
            case b".":
                client = self.clients[number % 5]
                if client is not None and client.open:
                    client.answer_those_that_came()
            case b"%":
                self.read_slowly(number % 5)
            case b"~":
                self.pass_time(_SECONDS[number % len(_SECONDS)])
            case b"!":
                self.world.restart(number % 2)
            case b"?":
                self.trouble(number)
            case _:
                self.say(line[0] - ord("0"), line[1:], settle)
        if settle:
            self.world.settle()
        self.read()

    def read(self) -> None:
        for index, client in enumerate(self.clients):
            if client is not None:
                client.read()
                if not client.open:
                    self.clients[index] = None

    def say(self, index: int, payload: bytes, settle: bool) -> None:
        self.said += 1
        self.past += _is_json(payload)
        client = self.clients[index]
        if client is not None:
            client.say_bytes(payload, settle)
            return
        lobby = self.lobbies.setdefault(index, Lobby(VALIDATOR, self.world.now))
        try:
            outcome = lobby.receive(payload, self.world.now, TIMESTAMP)
        except FrameError:
            del self.lobbies[index]
            return
        if isinstance(outcome, Hello):
            del self.lobbies[index]
            client = self.clients[index] = Client(self.world, outcome.user_id, lobby.strikes(self.world.now))
            client.say_bytes(payload, settle)

    def come(self, index: int, settle: bool) -> None:
        if self.clients[index] is not None:
            return
        user_id, name, capable = _DEVICES[index]
        client = self.clients[index] = Client(self.world, user_id)
        client.hello(name, settle, **({"capabilities": CAPABILITIES} if capable else {}))

    def read_slowly(self, index: int) -> None:
        client = self.clients[index]
        if client is None or not client.open:
            return
        if client.waiting:
            client.drain()
        else:
            client.waiting = 1 << 19

    def pass_time(self, seconds: float) -> None:
        step = max(0.1, seconds / 8)
        for _ in range(round(seconds / step)):
            self.world.pass_time(step, step)
            self.read()

    def trouble(self, number: int) -> None:
        store = self.world.stores[number % 2]
        match number // 2:
            case 0:
                store.slow = True
            case 1:
                store.fail_next = 1
            case 2:
                store.read_failure = "unreadable"
            case 3:
                store.slow_reads = True
            case _:
                store.slow = store.slow_reads = False
                store.read_failure, store.fail_next = None, 0


def play(data: bytes) -> Story:
    """Play a whole story, and let its troubles end."""
    first, *lines = data.split(b"\n")
    story = Story(first)
    for line in lines[:_STEPS_MAX]:
        story.step(line)
    for number in (8, 9):
        story.trouble(number)
    story.pass_time(16.0)
    return story


def check(data: bytes) -> bool:
    """Whether at least half of what was said was JSON."""
    story = play(data)
    return story.said > 0 and 2 * story.past >= story.said


def _is_json(payload: bytes) -> bool:
    try:
        from_json(payload)
    except ValueError:
        return False
    return True


def mutate(data: bytes, rng: Random) -> bytes:
    """Make a step more, less, twice or elsewhere; or another message in one."""
    if rng.randrange(40) == 0:
        return mutate_bytes(data, rng)
    first, *lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = rng.randrange(len(lines) + 1)
        match rng.randrange(8):
            case 0:
                lines.insert(index, rng.choice(_NEW_STEPS))
            case 1 if lines:
                del lines[index % len(lines)]
            case 2 if lines:
                lines.insert(index, rng.choice(lines))
            case 3:
                lines.insert(index, b"%d" % rng.randrange(5) + _one_line(mutate_json(b"", rng)))
            case 4 if lines and lines[index % len(lines)][:1].isdigit():
                line = lines[index % len(lines)]
                lines[index % len(lines)] = b"%d" % rng.randrange(5) + line[1:]
            case 5 if lines:
                line = lines[index % len(lines)]
                lines[index % len(lines)] = line[1:] if line.startswith(b";") else b";" + line
            case 6 if not rng.randrange(8):
                first = rng.choice((b"*", b"*l", b"", b"l"))
            case _ if lines:
                line = lines[index % len(lines)]
                if line[:1].isdigit():
                    lines[index % len(lines)] = line[:1] + _one_line(mutate_json(line[1:], rng))
    return b"\n".join([first, *lines[:_STEPS_MAX]])[:SIZE_MAX]


def _one_line(payload: bytes) -> bytes:
    return payload.replace(b"\n", b" ")


TARGET: Final = Target(
    check,
    mutate,
    "the JSON decoder (half of the messages in it, or more)",
    (
        *message.TARGET.modules,
        "core.chat.lobby",
        "core.chat.shard",
        "core.chat.presence",
        "core.chat.mailbox",
        "core.chat.user",
        "core.chat.command_queue",
        "core.chat.exchange",
        "core.chat.ratelimit",
    ),
)
