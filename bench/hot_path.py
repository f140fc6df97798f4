"""What messages cost: bytes in through `Session.receive`, frames out into connections that only count.

Each scenario is one thing that clients do all day, done over and over by 4 pairs of users on shards with the memory store (`bench.cast`).
`Cast.end_turn` ends the loop turns of all shards. What clients will say is made before it is needed. `wired` is in a module of its own.

A scenario is a `Workload`: it is built for a number of turns, and then each `turn` handles `MESSAGES_A_TURN` messages. `written` says
how many frames (or rows) have come of it, which must be `written_each` for each message: so what is refused is not taken for what is fast.
To add one: a class here and its row in SCENARIOS; ``python -m bench.guard --update`` gives it a budget.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from bench.cast import CONTENT, MESSAGES_A_TURN, NOON, PAIRS, TURN, Cast, Client, new_id, said
from bench.wired import Wired
from core.chat.chat import Chat
from core.chat.user import Message, User
from core.process.settings import Settings
from core.wire import codec
from core.wire.timestamps import format_timestamp
from workers.chance import SystemChance
from workers.store.rows import id_hash, message_row

#: So many seconds that the 20 invalid messages a minute are never reached, by 8 users who say 4 in each turn.
_SLOW_TURN: Final = 20.0


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


class _Talk:
    """What the scenarios with clients have in common: somebody says something prepared, and the turn ends."""

    written_each = 1
    _seconds = TURN

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
            for _ in range(MESSAGES_A_TURN // PAIRS):
                for sender, recipient in self.cast.pairs:
                    message_id = new_id(source)
                    payload = said("MSG", to=recipient.user_id, content=CONTENT, message_id=message_id)
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
            for repeat in range(MESSAGES_A_TURN // (2 * PAIRS)):
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
        every = [(client, payload) for client in self.cast.clients] * (MESSAGES_A_TURN // (2 * PAIRS))
        self._turns.extend([every] * turns)


class Refuse(_Talk):
    """An invalid message, and the ERROR that explains it: the id of the recipient is none."""

    _seconds = _SLOW_TURN

    def __init__(self, turns: int) -> None:
        super().__init__(workers=1)
        source = random.Random(turns)
        for _ in range(turns):
            turn: list[tuple[Client, bytes]] = []
            for _ in range(MESSAGES_A_TURN // (2 * PAIRS)):
                for client in self.cast.clients:
                    invalid = said("MSG", to="somebody", content=CONTENT, message_id=new_id(source))
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
        user = User(new_id(source), "Somebody", settings, SystemChance().epoch())
        chat = Chat(new_id(source), "Somebody")
        for number in range(turns):
            timestamp = format_timestamp(NOON + round(number * TURN * 1000))
            turn: list[Message] = []
            for _ in range(MESSAGES_A_TURN):
                message_id = new_id(source)
                frame = codec.msg(chat.peer, user.user_id, codec.to_json(CONTENT), message_id, timestamp)
                turn.append(Message(user, chat, message_id, frame))
            self._turns.append(turn)

    def turn(self) -> None:
        """Make the rows of one commit."""
        for message in self._turns.popleft():
            self.last = message_row(message, id_hash(message.message_id), 1, self.written + 1)
            self.written += 1


SCENARIOS: Final[Mapping[str, Build]] = {
    "same shard": same_shard,
    "wired": Wired,
    "other shard": other_shard,
    "typing": Typing,
    "ping": Ping,
    "refuse": Refuse,
    "rows": Rows,
}
