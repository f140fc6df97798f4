"""Any conversation, twice: once with workers that are replaced by successors, or by more or fewer, and once without. No client can tell
the two apart.

Each client notes all that comes to it, and when: frames, pings, a close, and until when it is not read from. One thing may differ. Memory
has the last messages, and users who have left not long ago, and answers at once; a successor has to ask the store, which answers in its
turn, behind what was asked of it before. So here nothing else is under way where somebody says HELLO, repeats a message, acknowledges
one, or reads one, or is written to without a connection.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from core.wire.protocol import CAPABILITIES, PRESENCE_GRACE, PRESENCE_INTERVAL
from tests.core.noting import Event, Noting
from tests.core.world import World
from tests.examples import examples

_LIMITS: Final[dict[str, Any]] = {
    "messages_per_minute": 6,
    "typing_per_minute": 4,
    "open_chats_per_minute": 8,
    "hellos_per_minute": 10,
    "history_per_minute": 2,
    "presence_per_minute": 3,
    "lists_per_minute": 4,
}
_USERS: Final = 4


class Step(NamedTuple):
    """Something that happens: a method of `Conversation`, and what it is given."""

    what: str
    who: int = 0
    number: int = 0
    #: Whether everything is settled after it.
    settle: bool = True


class Client(Noting):
    """A device that keeps its capabilities."""

    def __init__(self, world: World, user_id: str, capabilities: list[str]) -> None:
        super().__init__(world, user_id)
        self.capabilities = capabilities


class Conversation:
    """A few users on one or two workers, and what they do, step by step."""

    def __init__(self, workers: int, presence: str, succeed: bool) -> None:
        self.world = World(workers, presence=presence, **_LIMITS)
        self.succeeds = succeed
        self.users = [self.world.user_on(index % workers) for index in range(_USERS)]
        self.clients: list[Client] = []
        self.number = 0

    def run(self, steps: list[Step]) -> list[list[Event]]:
        """All that came to each client."""
        for step in steps:
            live = [client for client in self.clients if client.open]
            if step.what in ("come", "pass_time", "wait_long", "succeed", "resize", "purge"):
                getattr(self, step.what)(step)
            elif live:
                client = live[step.who % len(live)]
                getattr(self, step.what)(client, step)
            if step.settle:
                self.world.settle()
        self._pass_time(20.0, 1.0)
        return [client.events for client in self.clients]

    def peer(self, client: Client, number: int) -> str:
        return [user for user in self.users if user != client.user_id][number % (_USERS - 1)]

    # -- What happens to all --

    def succeed(self, step: Step) -> None:
        """A worker is replaced, in one of the two conversations; in the other one it comes to rest too."""
        self.world.settle()
        if self.succeeds:
            self.world.succeed(step.number % len(self.world.shards))

    def pass_time(self, step: Step) -> None:
        self._pass_time((0.1, 0.3, 0.7, 1.0, 2.0)[step.number % 5], 0.1)

    def wait_long(self, step: Step) -> None:
        seconds = (6.0, 16.0, 61.0, 130.0)[step.number % 4]
        self._pass_time(seconds, seconds / 30)

    def _pass_time(self, seconds: float, step: float) -> None:
        self.world.settle()
        self.world.pass_time(seconds, step)

    def purge(self, step: Step) -> None:
        self.world.settle()
        user = self.users[step.who % _USERS]
        record = self.world.store_of(user).records.get(user)
        rows = record.rows[: step.number % 4] if record is not None else []
        if rows:
            purged = self.world.store_of(user).purge(user, rows[-1].seq)
            self.world.shard_of(user).users.purged(purged, self.world.now)

    def come(self, step: Step) -> None:
        self.world.settle()
        user = self.users[step.who % _USERS]
        if sum(client.user_id == user and client.open for client in self.clients) >= 3:
            return
        capabilities = [name for bit, name in enumerate(sorted(CAPABILITIES)) if step.number >> bit & 1]
        client = Client(self.world, user, capabilities)
        earlier = [one.cursor for one in self.clients if one.user_id == user and one.cursor is not None]
        self.clients.append(client)
        if step.number & 128:
            return  # HELLO comes later
        data: dict[str, Any] = {"capabilities": capabilities}
        if earlier and step.number & 256:
            data["resume"] = {"cursor": earlier[-1]}
        client.hello(f"Name {step.who % _USERS}", **data)

    # -- What clients do --

    def hello(self, client: Client, step: Step) -> None:
        self.world.settle()
        if client.open:
            client.hello(f"Other {step.number % 3}", capabilities=client.capabilities)

    def open_chat(self, client: Client, step: Step) -> None:
        peer = self.peer(client, step.number)
        self._settle_for(peer)
        if client.open:
            client.open_chat(peer, False)
        self._settle_for(peer)

    def write(self, client: Client, step: Step) -> None:
        peer = self.peer(client, step.number // 4)
        self._settle_for(peer)
        for _ in range(1 + step.number % 4):
            self.number += 1
            if client.open:
                client.msg(peer, f"text {self.number}", f"m{self.number}", False)
        self._settle_for(peer)

    def _settle_for(self, peer: str) -> None:
        """Let nothing else be under way if somebody has no connection."""
        if not any(client.user_id == peer and client.open for client in self.clients):
            self.world.settle()

    def repeat(self, client: Client, step: Step) -> None:
        self.world.settle()
        if self.number and client.open:
            number = 1 + step.number // 3 % self.number
            client.msg(self.peer(client, step.number), f"text {number}", f"m{number}")

    def type_to(self, client: Client, step: Step) -> None:
        extra = {} if step.number & 2 else {"to": self.peer(client, step.number // 4)}
        client.typing(bool(step.number & 1), step.settle, **extra)

    def acknowledge(self, client: Client, step: Step) -> None:
        self.world.settle()
        if client.came and client.open:
            sender, message_id = client.came[step.number // 2 % len(client.came)]
            extra = {"from": sender} if step.number & 1 else {}
            client.say("MSG_ACK", message_id=message_id, **extra)

    def read(self, client: Client, step: Step) -> None:
        self.world.settle()
        if client.came and client.open:
            sender, message_id = client.came[step.number % len(client.came)]
            client.say("READ", message_id=message_id, **{"from": sender})

    def ask_history(self, client: Client, step: Step) -> None:
        client.say(
            "HISTORY", step.settle, **{"with": self.peer(client, step.number)}, limit=1 + step.number % 9
        )

    def ask_chats(self, client: Client, step: Step) -> None:
        self.world.settle()
        if client.open:
            client.say("CHATS", limit=1 + step.number % 9)

    def change_list(self, client: Client, step: Step) -> None:
        self.world.settle()
        kinds = ("HIDE", "MUTE", "UNMUTE", "BLOCK", "BLOCK", "UNBLOCK")
        if client.open:
            client.say(kinds[step.number % 6], user_id=self.peer(client, step.number // 6))

    def ask_presence(self, client: Client, step: Step) -> None:
        client.say("PRESENCE", step.settle, user_ids=self.users)

    def say_ping(self, client: Client, step: Step) -> None:
        for _ in range(1 + step.number % 6):
            client.say("PING", False)

    def nonsense(self, client: Client, step: Step) -> None:
        for _ in range(1 + step.number % 12):
            if client.open:
                client.say_bytes(b'{"type":7}', False)

    def pong(self, client: Client, step: Step) -> None:
        client.answer_those_that_came()

    def slow(self, client: Client, step: Step) -> None:
        client.waiting = 1 << 20

    def drain(self, client: Client, step: Step) -> None:
        client.drain()

    def leave(self, client: Client, step: Step) -> None:
        client.leave()


class Resized(Conversation):
    """A conversation in which the number of workers changes.

    What comes from another worker comes a tick later than from the same one, and clients are told only once a second who is online. So
    there are two ticks at each moment, and who comes, goes, or has a new name does not do so within the same second as another one.
    """

    def __init__(self, workers: int, presence: str, resize: bool) -> None:
        super().__init__(workers, presence, resize)
        #: When clients are told of somebody.
        self._changes: list[float] = []

    def resize(self, step: Step) -> None:
        """All workers are replaced by others of another number, in one of the two conversations."""
        self.world.settle()
        if self.succeeds:
            self.world.resize(1 + step.number % 4)

    def wait_long(self, step: Step) -> None:
        self._pass_time((6.0, 16.0, 61.0, 130.0)[step.number % 4], _APART)

    def come(self, step: Step) -> None:
        self._change_in(0.0)
        super().come(step)

    def hello(self, client: Client, step: Step) -> None:
        self._change_in(0.0)
        super().hello(client, step)

    def leave(self, client: Client, step: Step) -> None:
        self._change_in(PRESENCE_GRACE)
        if client.open:
            super().leave(client, step)

    def nonsense(self, client: Client, step: Step) -> None:
        self._change_in(PRESENCE_GRACE)
        super().nonsense(client, step)

    def _change_in(self, seconds: float) -> None:
        """Wait until nothing else changes when something does that happens now."""
        while any(abs(self.world.now + seconds - at) < 2.0 * _APART for at in self._changes):
            self._pass_time(_APART, _APART)
        self._changes.append(self.world.now + seconds)

    def _pass_time(self, seconds: float, step: float) -> None:
        self.world.settle()
        for _ in range(max(1, round(seconds / step))):
            self.world.pass_time(step, step)
            self.world.tick()


#: Seconds in which clients are told once who has left, and some more.
_APART: Final = 1.2 * PRESENCE_INTERVAL

#: What happens, by how often it does.
_STEPS = st.builds(
    Step,
    st.sampled_from(
        ["come"] * 3
        + ["write"] * 6
        + ["type_to", "pong", "succeed"] * 4
        + ["pass_time"] * 5
        + ["open_chat", "repeat", "acknowledge", "read", "drain"] * 2
        + [
            "hello",
            "ask_history",
            "ask_presence",
            "ask_chats",
            "change_list",
            "say_ping",
            "nonsense",
            "slow",
            "leave",
            "purge",
            "wait_long",
        ]
    ),
    st.integers(0, 11),
    st.integers(0, 511),
    st.booleans(),
)
#: Three users are here, and have chats that they know of.
_BEGIN: Final = [
    Step("come", 0, 127),
    Step("come", 1, 0),
    Step("come", 2, 4),
    *(Step("open_chat", who, peer) for who, peer in ((0, 0), (1, 1), (2, 0))),
    *(Step("pass_time", 0, 2), Step("pong", 0), Step("pong", 1), Step("pong", 2)),
]


def _by_peer(event: Event) -> tuple[float, str]:
    """When it came and whom it is about."""
    at, what, value = event
    if what != "frame":
        return at, ""
    data = value["data"]
    return at, next((data[field] for field in ("from", "to", "user_id") if field in data), "")


def _with_receipts_by_message(events: list[Event]) -> list[Event]:
    """What came to a client, where receipts that came together are in the order of their messages.

    What READ covers is in memory, or is read from the store in bites: so those of several messages are told in one order or another.
    """
    ordered: list[Event] = []
    for _, group in groupby(events, key=lambda event: (event[0], _receipt_of(event) != "")):
        together = list(group)
        ordered += sorted(together, key=_receipt_of) if _receipt_of(together[0]) else together
    return ordered


def _receipt_of(event: Event) -> str:
    """The message of a receipt."""
    _, what, value = event
    is_receipt = what == "frame" and value["type"] == "MSG_ACK" and "to" in value["data"]
    return str(value["data"]["message_id"]) if is_receipt else ""


def _events(events: list[Event]) -> list[Event]:
    """What came to a client, in an order that does not depend on where others live: at the same moment, by whom it is about."""
    for _, what, value in events:
        if what == "frame" and value["type"] == "PRESENCE":
            value["data"]["users"].sort(key=lambda user: user["user_id"])
    return sorted(events, key=_by_peer)


@settings(max_examples=examples(40))
@given(
    st.integers(1, 2),
    st.sampled_from(["auto", "auto", "contacts"]),
    st.lists(_STEPS, min_size=30, max_size=60),
)
def test_no_client_can_tell_whether_a_worker_was_replaced(
    workers: int, presence: str, steps: list[Step]
) -> None:
    script = [*_BEGIN, *steps]
    expected = Conversation(workers, presence, False).run(script)
    came = Conversation(workers, presence, True).run(script)
    for one, other in zip(came, expected, strict=True):
        assert _with_receipts_by_message(one) == _with_receipts_by_message(other)


@settings(max_examples=examples(20))
@given(
    st.integers(1, 3),
    st.sampled_from(["auto", "auto", "contacts"]),
    st.lists(_STEPS | st.builds(Step, st.just("resize"), number=st.integers(0, 3)), min_size=20, max_size=40),
)
def test_no_client_can_tell_whether_the_number_of_workers_changed(
    workers: int, presence: str, steps: list[Step]
) -> None:
    """What is on its way at the same time from several workers, or from one, comes in one order or another, so nothing is."""
    script = [step._replace(settle=True) for step in [*_BEGIN, *steps]]
    expected = Resized(workers, presence, False).run(script)
    came = Resized(workers, presence, True).run(script)
    for one, other in zip(came, expected, strict=True):
        assert _events(one) == _events(other)
