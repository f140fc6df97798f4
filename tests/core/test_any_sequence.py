"""Any sequence of what users, workers, stores and the bus can do, and what users rely on through all of it.

Four users on one to three workers say HELLO, open chats, write, repeat themselves, type, acknowledge, answer pings and leave; workers are
killed, stores are slow or fail, ways are full; and nothing is settled in between unless the machine says so. In the end all troubles
cease, and the promises are checked against what each connection saw.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import combinations
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.protocol import CONFIRM_TIMEOUT, PRESENCE_GRACE, RATE_WINDOW, TYPING_EXPIRY
from tests.core.world import Device, World

_PICK = st.integers(0, 1000)
_NOW = st.booleans()


class Saying:
    """One message of a user's, however often it was said."""

    def __init__(self, sender: str, recipient: str, message_id: str, content: str, epoch: int) -> None:
        self.sender, self.recipient, self.message_id, self.content = sender, recipient, message_id, content
        #: How often the recipient's worker had been killed.
        self.epoch = epoch
        #: (device, when in the order of all sayings)
        self.said: list[tuple[Client, int]] = []
        #: Whether the sender was told that it is delivered or stored.
        self.accepted = False


class Client(Device):
    """A device that keeps what it saw, and applies presence as a client would."""

    def __init__(self, world: World, user_id: str, epoch: int, delta: bool) -> None:
        super().__init__(world, user_id)
        self.epoch = epoch
        self.delta = delta
        self.greeted = False
        #: Message ids, in the order in which they were sent; answers to them; messages that came, acknowledged or not.
        self.asked: list[str] = []
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.came: list[dict[str, Any]] = []
        self.acknowledged: set[str] = set()
        self.online: dict[str, str] = {}
        self.typing_shown: dict[str, bool] = {}

    def look(self) -> None:
        """Read what has come."""
        for message in self.take():
            kind, data = message["type"], message["data"]
            if kind == "HELLO_ACK":
                self.greeted = True
            elif kind == "MSG":
                self.came.append(data)
            elif kind == "MSG_ACK":
                self.answers.append((data["message_id"], message))
            elif kind == "ERROR":
                assert data["details"]["type"] in ("HELLO", "OPEN_CHAT", "MSG", "TYPING")
                if data["details"]["type"] == "MSG":
                    self.answers.append((data["details"]["message_id"], message))
            elif kind == "TYPING":
                self.typing_shown[data["user_id"]] = data["is_typing"]
            elif kind == "PRESENCE":
                assert ("delta" in data) <= self.delta
                if not data.get("delta"):
                    self.online = {}
                for user in data["users"]:
                    if user["online"]:
                        self.online[user["user_id"]] = user["display_name"]
                    else:
                        self.online.pop(user["user_id"], None)


class ChatMachine(RuleBasedStateMachine):
    """See the module's docstring."""

    @initialize(workers=st.integers(1, 3), limit=st.sampled_from([0, 4]), seed=_PICK)
    def build(self, workers: int, limit: int, seed: int) -> None:
        """A world, and users who are spread over it."""
        self.limit = limit
        self.world = World(workers, messages_per_minute=limit, typing_per_minute=0, hellos_per_minute=0)
        rng = random.Random(seed)
        self.users = [self.world.user_on(rng.randrange(workers)) for _ in range(4)]
        self.epochs: Counter[int] = Counter()
        self.names: dict[str, str] = {}
        self.clients: list[Client] = []
        self.sayings: dict[tuple[str, str, str], Saying] = {}
        self.number = 0
        #: user -> when each of its messages was accepted, since its worker was last killed.
        self.accepted: defaultdict[str, list[float]] = defaultdict(list)
        self.dead: set[int] = set()
        self.store_failed = False

    # -- Inside --

    def worker(self, user: str) -> int:
        return self.world.placement.worker_of(user)

    def live(self) -> list[Client]:
        return [client for client in self.clients if client.open]

    def look(self) -> None:
        """Let every client read, and keep the books."""
        for client in self.clients:
            seen = len(client.answers)
            client.look()
            for message_id, answer in client.answers[seen:]:
                saying = next(saying for saying in self.sayings.values() if saying.message_id == message_id)
                if answer["type"] == "MSG_ACK" and not saying.accepted:
                    saying.accepted = True
                    if client.epoch == self.epochs[self.worker(client.user_id)]:
                        self.accepted[client.user_id].append(self.world.now)

    def finish(self, now: bool) -> None:
        if now:
            self.world.settle()
        self.look()

    # -- Users --

    @rule(pick=_PICK, delta=st.booleans(), now=_NOW)
    def come(self, pick: int, delta: bool, now: bool) -> None:
        """A new connection says HELLO, under a new name now and then."""
        user = self.users[pick % 4]
        if self.worker(user) in self.dead or sum(client.user_id == user for client in self.live()) >= 3:
            return
        client = Client(self.world, user, self.epochs[self.worker(user)], delta)
        self.clients.append(client)
        if pick % 3 == 0 or user not in self.names:
            self.names[user] = f"Name {pick}"
        client.hello(self.names[user], settle=now, **({"capabilities": ["presence_delta"]} if delta else {}))
        self.finish(now)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK, peer=_PICK, now=_NOW)
    def open_chat(self, pick: int, peer: int, now: bool) -> None:
        """With anybody else."""
        client = self.live()[pick % len(self.live())]
        others = [user for user in self.users if user != client.user_id]
        client.open_chat(others[peer % 3], settle=now)
        self.finish(now)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK, peer=_PICK, count=st.integers(1, 6), now=_NOW)
    def write(self, pick: int, peer: int, count: int, now: bool) -> None:
        """Several messages in one go, to anybody else."""
        client = self.live()[pick % len(self.live())]
        recipient = [user for user in self.users if user != client.user_id][peer % 3]
        for _ in range(count):
            self.number += 1
            name = f"{self.number}"
            saying = Saying(
                client.user_id, recipient, name, f"text {name}", self.epochs[self.worker(recipient)]
            )
            self.sayings[client.user_id, recipient, name] = saying
            self.say(client, saying, saying.content)
        self.finish(now)

    @precondition(lambda self: self.live() and self.sayings)
    @rule(pick=_PICK, which=_PICK, other=st.booleans(), now=_NOW)
    def repeat(self, pick: int, which: int, other: bool, now: bool) -> None:
        """A message that was accepted comes again, from any device of its sender's, perhaps with another content (D10)."""
        client = self.live()[pick % len(self.live())]
        mine = [
            saying
            for saying in self.sayings.values()
            if saying.sender == client.user_id
            and saying.accepted
            and saying.epoch == self.epochs[self.worker(saying.recipient)]
        ]
        if not mine:
            return
        saying = mine[which % len(mine)]
        answers = len(client.answers)
        self.say(client, saying, "another text" if other else saying.content)
        self.finish(now)
        if now:
            for message_id, answer in client.answers[answers:]:
                if message_id == saying.message_id and answer["type"] == "ERROR":
                    assert answer["data"]["code"] in (
                        ("VALIDATION", "MESSAGE_FAILED") if other else ("MESSAGE_FAILED",)
                    )

    def say(self, client: Client, saying: Saying, content: str) -> None:
        self.number += 1
        client.asked.append(saying.message_id)
        saying.said.append((client, self.number))
        client.msg(saying.recipient, content, saying.message_id, settle=False)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK, is_typing=st.booleans(), now=_NOW)
    def type_something(self, pick: int, is_typing: bool, now: bool) -> None:
        """To wherever it goes."""
        self.live()[pick % len(self.live())].typing(is_typing, settle=now)
        self.finish(now)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK, which=_PICK, now=_NOW)
    def acknowledge(self, pick: int, which: int, now: bool) -> None:
        """One of the messages that came, in any order and any number of times (D12)."""
        client = self.live()[pick % len(self.live())]
        if client.came:
            message = client.came[which % len(client.came)]
            client.acknowledged.add(message["message_id"])
            client.say("MSG_ACK", now, message_id=message["message_id"])
            self.finish(now)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK)
    def answer_pings(self, pick: int) -> None:
        """As a WebSocket library does; it may confirm all that came so far."""
        client = self.live()[pick % len(self.live())]
        client.acknowledged.update(message["message_id"] for message in client.came)
        client.answer_pings()
        self.look()

    @precondition(lambda self: self.live())
    @rule(pick=_PICK)
    def leave(self, pick: int) -> None:
        """Close the connection."""
        self.live()[pick % len(self.live())].leave()
        self.look()

    # -- Everything else --

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 6.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        """With all that happens meanwhile."""
        step = max(0.1, seconds / 20)
        for _ in range(round(seconds / step)):
            self.world.pass_time(step, step)
            self.look()

    @rule(pick=_PICK)
    def turn(self, pick: int) -> None:
        """One worker ends a loop turn, and what is on the way to it arrives."""
        worker = pick % len(self.world.shards)
        self.world.turn(worker)
        for source, target in list(self.world.in_transit):
            if target == worker:
                self.world.carry(source, target)
        self.look()

    @rule(pick=_PICK, boot=st.booleans())
    def kill(self, pick: int, boot: bool) -> None:
        """A worker dies, and comes back at once or later; what it kept in memory is gone."""
        worker = pick % len(self.world.shards)
        if worker in self.dead:
            self.world.boot(worker)
            self.dead.discard(worker)
            return
        self.epochs[worker] += 1
        for user in self.users:
            if self.worker(user) == worker:
                self.accepted[user].clear()
        self.world.kill(worker)
        self.dead.add(worker)
        if boot:
            self.world.boot(worker)
            self.dead.discard(worker)
        self.look()

    @rule(pick=_PICK, trouble=st.sampled_from(["slow", "fail", "refuse", "none"]))
    def trouble(self, pick: int, trouble: str) -> None:
        """A store is slow, or fails for one write, or the way to a worker is full; or all of that is over."""
        worker = pick % len(self.world.shards)
        if trouble == "slow":
            self.world.stores[worker].slow = True
        elif trouble == "fail":
            self.world.stores[worker].fail_next = 1
            self.store_failed = True
        elif trouble == "refuse":
            self.world.refusing.add(worker)
        else:
            self.world.stores[worker].slow = False
            self.world.refusing.discard(worker)

    # -- Promises that hold at any time --

    @invariant()
    def nobody_is_closed_without_a_reason(self) -> None:
        """Only a store that fails, or a killed worker, ends a connection here."""
        for client in self.clients:
            assert client.closed is None or client.closed[0] in (1006, 1013)

    @invariant()
    def nothing_comes_twice_on_one_connection(self) -> None:
        """Nor with another content or to somebody else."""
        for client in self.clients:
            keys = [(message["from"], message["message_id"]) for message in client.came]
            assert len(set(keys)) == len(keys)
            for message in client.came:
                assert (
                    self.sayings[message["from"], client.user_id, message["message_id"]].content
                    == message["content"]
                )

    @invariant()
    def what_one_device_sends_a_user_arrives_in_order(self) -> None:
        """D18. A message said several times may arrive where any of them would."""
        for client in self.clients:
            latest: Counter[Client] = Counter()
            for message in client.came:
                said = self.sayings[message["from"], client.user_id, message["message_id"]].said
                if len({device for device, _ in said}) == 1:
                    device = said[0][0]
                    later = [number for _, number in said if number > latest[device]]
                    assert later, f"{message} came too late"
                    latest[device] = later[0]

    @invariant()
    def all_devices_of_a_user_see_one_order(self) -> None:
        """D18, as long as the worker lives."""
        for first, second in combinations(self.clients, 2):
            if (first.user_id, first.epoch) == (second.user_id, second.epoch):
                keys = [
                    [(message["from"], message["message_id"]) for message in one.came]
                    for one in (first, second)
                ]
                assert [key for key in keys[0] if key in keys[1]] == [
                    key for key in keys[1] if key in keys[0]
                ]

    @invariant()
    def no_minute_holds_more_than_the_limit(self) -> None:
        """D23, exactly."""
        for times in self.accepted.values() if self.limit else ():
            for earlier, later in zip(times, times[self.limit :], strict=False):
                assert later - earlier >= RATE_WINDOW - 1e-6

    # -- Promises that hold once all troubles are over --

    def teardown(self) -> None:
        """Let everything come to rest, then check the rest."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for worker in self.dead:
            world.boot(worker)
        self.dead.clear()
        world.refusing.clear()
        for store in world.stores:
            store.slow = False
            store.fail_next = 0
        world.pass_time(2 * CONFIRM_TIMEOUT + TYPING_EXPIRY + PRESENCE_GRACE, step=0.5)
        self.look()
        self.everything_is_at_rest()
        self.every_message_was_answered_once()
        self.presence_has_converged()
        self.nothing_accepted_is_lost()

    def everything_is_at_rest(self) -> None:
        """Nothing waits, nobody is paused, and nobody is shown as typing."""
        for shard in self.world.shards:
            assert shard.requests.expired(float("inf")) is None
            for user in shard.users.values():
                assert (user.in_flight, user.parked) == (0, [])
        for client in self.live():
            assert client.reading
            assert client.session.in_flight == 0
            assert not any(client.typing_shown.values())

    def every_message_was_answered_once(self) -> None:
        """With one MSG_ACK or one ERROR, as far as the connection lived to see it."""
        for client in self.clients:
            answered = Counter(message_id for message_id, _ in client.answers)
            asked = Counter(client.asked)
            assert answered <= asked
            if client.open:
                assert answered == asked

    def presence_has_converged(self) -> None:
        """Every client sees exactly who is connected, under the name given last (D21, D22)."""
        online = {client.user_id for client in self.live() if client.greeted}
        for client in self.live():
            if client.greeted:
                assert set(client.online) == online
        for user in online:
            names = {client.online[user] for client in self.live() if client.greeted}
            assert len(names) == 1
            # A HELLO that failed may have been the last to give a name.
            assert self.store_failed or names == {self.world.shard_of(user).users[user].display_name}

    def nothing_accepted_is_lost(self) -> None:
        """Whatever a sender was told is delivered or stored comes, unless the recipient acknowledged it or its worker died since (D20)."""
        fresh = {user: Client(self.world, user, -1, False) for user in self.users}
        for user, client in fresh.items():
            client.hello(self.names.get(user, "Somebody"))
            client.look()
        for saying in self.sayings.values():
            if saying.accepted and saying.epoch == self.epochs[self.worker(saying.recipient)]:
                devices = [client for client in self.clients if client.user_id == saying.recipient]
                came = any(
                    message["message_id"] == saying.message_id for message in fresh[saying.recipient].came
                )
                assert came or any(saying.message_id in device.acknowledged for device in devices)


TestAnySequence = ChatMachine.TestCase
TestAnySequence.settings = settings(max_examples=50, stateful_step_count=30)
