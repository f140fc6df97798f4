"""One message after the other in a session: ``core.wire.codec.decode``, all commands, and what follows from them.

The session belongs to a user who has devices, a chat and messages, in a world that a few hundred inputs share. When one of them fails, the
inputs before it matter too: all of them are written to a file that the target `session` takes.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Final

from fuzz.mutate_json import mutate_json
from fuzz.small_world import come, new_world, people
from fuzz.target import Target
from fuzz.targets import lobby

#: Inputs that share a world, and inputs after which everything that follows from them happens and is looked at.
_SHARED: Final = 320
_TOGETHER: Final = 8
#: Where those go that were before one that failed.
FOUND: Final = Path("build/fuzz/found")


class _Shared:
    """The world, and what has been said in it."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.world = new_world(False)
        self.clients = people(self.world)
        self.said: list[bytes] = []

    def say(self, payload: bytes) -> None:
        """Let Ann's second device, which has all capabilities, say it."""
        if len(self.said) >= _SHARED:
            self.start()
        self.said.append(payload)
        ann = self.clients[1]
        ann.say_bytes(payload, settle=False)
        if len(self.said) % _TOGETHER and ann.open:
            return
        self.world.settle()
        for client in self.clients:
            client.read()
        if not ann.open:
            self.clients[1] = come(self.world, ann.user_id, "Ann Lee", capabilities=["history", "receipts"])

    def write_down(self) -> Path:
        """Write the messages so far as an input of the target `session`; those with a line feed in them go on one line as JSON allows."""
        FOUND.mkdir(parents=True, exist_ok=True)
        path = FOUND / "messages"
        path.write_bytes(b"\n".join([b"*", *(b"1" + payload.replace(b"\n", b" ") for payload in self.said)]))
        return path


_shared = _Shared()


def check(data: bytes) -> bool:
    """Whether it is JSON."""
    try:
        _shared.say(data)
    except BaseException as error:
        error.add_note(f"the messages before it, and it: {_shared.write_down()}")
        _shared.start()
        raise
    return lobby.is_json(data)


def mutate(data: bytes, rng: Random) -> bytes:
    """Another message."""
    return mutate_json(data, rng)


TARGET: Final = Target(
    check,
    mutate,
    "the JSON decoder",
    (
        "core.wire.codec",
        "core.wire.validation",
        "core.chat.commands",
        "core.chat.session",
        "core.wire.sanitize",
        "core.chat.chats",
        "core.chat.messages",
        "core.chat.delivery",
        "core.chat.receipts",
        "core.chat.history",
        "core.chat.hello",
        "core.chat.typing",
    ),
)
