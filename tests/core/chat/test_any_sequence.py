"""Any sequence of what users, workers, stores and the bus can do, and what users rely on through all of it.

Four users on one to three workers say HELLO with any capabilities, and again, resume, open chats, write, repeat themselves, type,
acknowledge, read, ask for history, ping, talk nonsense, read slowly, answer pings and leave; workers are killed, stores are slow or fail,
old messages are purged, ways are full; and nothing is settled in between unless the machine says so. In the end all troubles cease, and the
promises are checked against what each connection saw and what the stores have.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from core.chat import mailbox
from core.wire.protocol import (
    CAPABILITIES,
    CONFIRM_TIMEOUT,
    PRESENCE_GRACE,
    STRIKES_PER_MINUTE,
    TYPING_EXPIRY,
)
from tests.core.promises import Promises
from tests.core.watchful import Saying, Sayings, Watchful
from tests.core.world import World
from tests.examples import examples

_PICK = st.integers(0, 1000)
_NOW = st.booleans()
_CACHE_MAX = mailbox.CACHE_MAX


class ChatMachine(Promises):
    """See the module's docstring."""

    @initialize(
        workers=st.integers(1, 3),
        limit=st.sampled_from([0, 0, 4]),
        cache=st.sampled_from([0, 2, 128]),
        acquainted=st.integers(0, 4),
        seed=_PICK,
    )
    def build(self, workers: int, limit: int, cache: int, acquainted: int, seed: int) -> None:
        """A world, and users who are spread over it; some of them are here, and have chats with all others who are."""
        mailbox.CACHE_MAX = cache  # type: ignore[misc]
        self.limit = limit
        self.world = World(
            workers,
            messages_per_minute=limit,
            typing_per_minute=0,
            hellos_per_minute=0,
            open_chats_per_minute=0,
            history_per_minute=0,
            presence_per_minute=0,
            lists_per_minute=0,
        )
        rng = random.Random(seed)
        self.users = [self.world.user_on(rng.randrange(workers)) for _ in range(4)]
        self.epochs: Counter[int] = Counter()
        self.names: dict[str, str] = {}
        self.clients: list[Watchful] = []
        self.sayings = Sayings(self.world)
        self.number = 0
        #: user -> when each of its messages was accepted, since its worker was last killed.
        self.accepted: defaultdict[str, list[float]] = defaultdict(list)
        self.dead: set[int] = set()
        for index in range(acquainted):
            capabilities = {one for one in sorted(CAPABILITIES) if rng.random() < 0.5}
            self.come(index, capabilities, None, True)
            for peer in range(index):
                self.open_chat(index, peer, True)

    # -- Inside --

    def live_with(self, capability: str) -> list[Watchful]:
        return [client for client in self.live() if client.greeted and capability in client.capabilities]

    def look(self) -> None:
        """Let every client read, and keep the books."""
        before = {saying.message_id for saying in self.sayings.values() if saying.accepted}
        for client in self.clients:
            seen = len(client.answers)
            client.look()
            for message_id, answer in client.answers[seen:]:
                if answer["type"] == "MSG_ACK" and message_id not in before:
                    before.add(message_id)
                    if client.epoch == self.epochs[self.worker(client.user_id)]:
                        self.accepted[client.user_id].append(self.world.now)

    def finish(self, now: bool) -> None:
        if now:
            self.world.settle()
        self.look()

    # -- Users --

    @rule(
        pick=_PICK,
        capabilities=st.sets(st.sampled_from(sorted(CAPABILITIES))),
        earlier=st.none() | _PICK,
        now=_NOW,
    )
    def come(self, pick: int, capabilities: set[str], earlier: int | None, now: bool) -> None:
        """A new connection says HELLO, under a new name now and then, and goes on where an earlier one was."""
        user = self.users[pick % 4]
        if self.worker(user) in self.dead or sum(client.user_id == user for client in self.live()) >= 3:
            return
        cursors = [one for one in self.clients if one.user_id == user and one.cursor is not None]
        resumed = cursors[-1 - earlier % len(cursors)] if earlier is not None and cursors else None
        if resumed is not None:
            capabilities.add("resume")
        client = Watchful(self.world, user, self.sayings, capabilities, resumed)
        client.epoch = self.epochs[self.worker(user)]
        self.clients.append(client)
        if pick % 3 == 0 or user not in self.names:
            self.names[user] = f"Name {pick}"
        client.greet(self.names[user], now)
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
    @rule(pick=_PICK, peer=_PICK, count=st.integers(1, 12), now=_NOW)
    def write(self, pick: int, peer: int, count: int, now: bool) -> None:
        """Several messages in one go, to anybody else."""
        client = self.live()[pick % len(self.live())]
        recipient = [user for user in self.users if user != client.user_id][peer % 3]
        for _ in range(count):
            self.number += 1
            name = f"{self.number}"
            saying = self.sayings[name] = Saying(client.user_id, recipient, name, f"text {name}")
            self.say(client, saying, saying.content)
        self.finish(now)

    @precondition(lambda self: self.live() and self.sayings)
    @rule(pick=_PICK, which=_PICK, other=st.booleans(), now=_NOW)
    def repeat(self, pick: int, which: int, other: bool, now: bool) -> None:
        """A message comes again, from any device of its sender's, perhaps with another content (D10)."""
        client = self.live()[pick % len(self.live())]
        # With a limit, only what was accepted: for all else it can't be told from outside whether it counts.
        mine = [
            saying
            for saying in self.sayings.values()
            if saying.sender == client.user_id
            and (saying.accepted or not (self.limit or other))
            and not saying.purged
        ]
        if not mine:
            return
        saying = mine[which % len(mine)]
        accepted, answers = saying.accepted, len(client.answers)
        saying.contested |= other
        self.say(client, saying, "another text" if other else saying.content)
        self.finish(now)
        if now and accepted and not saying.purged:
            for message_id, answer in client.answers[answers:]:
                if message_id == saying.message_id and answer["type"] == "ERROR":
                    if answer["data"].get("details", {}).get("blocked"):
                        continue  # by the sender: nothing goes there, not even again (D32)
                    codes = ["MESSAGE_FAILED", "VALIDATION"] if saying.contested else ["MESSAGE_FAILED"]
                    assert answer["data"]["code"] in codes

    def say(self, client: Watchful, saying: Saying, content: str) -> None:
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
    @rule(pick=_PICK, peer=_PICK, is_typing=st.booleans(), now=_NOW)
    def type_to(self, pick: int, peer: int, is_typing: bool, now: bool) -> None:
        """To somebody in particular, chat or not (D17)."""
        client = self.live()[pick % len(self.live())]
        others = [user for user in self.users if user != client.user_id]
        client.typing(is_typing, settle=now, to=others[peer % 3])
        self.finish(now)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK, now=_NOW)
    def rename(self, pick: int, now: bool) -> None:
        """HELLO again on the same connection, with another name; who resumes would get everything again (D3)."""
        client = self.live()[pick % len(self.live())]
        if not client.greeted or "resume" in client.capabilities:
            return
        name = self.names[client.user_id] = f"Other {pick}"
        client.hello(name, now, capabilities=sorted(client.capabilities))
        self.finish(now)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK, count=st.integers(1, 8), now=_NOW)
    def ping(self, pick: int, count: int, now: bool) -> None:
        """More often than one may, perhaps: the answer is PONG or RATE_LIMITED (D23)."""
        client = self.live()[pick % len(self.live())]
        for _ in range(count):
            client.say("PING", False)
        self.finish(now)

    @precondition(lambda self: self.live())
    @rule(
        pick=_PICK,
        payload=st.sampled_from([b"", b"[", b"[1]", b'{"type":7}', b'{"type":"NONSENSE","data":{}}']),
        now=_NOW,
    )
    def say_nonsense(self, pick: int, payload: bytes, now: bool) -> None:
        """Answered, each time, and nothing else comes of it (D25)."""
        client = self.live()[pick % len(self.live())]
        client.nonsense += 1
        # Other things are against the rules too, and count as well.
        if client.nonsense <= STRIKES_PER_MINUTE // 2:
            client.broken += 1
            client.say_bytes(payload, now)
        self.finish(now)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK, which=st.lists(_PICK, min_size=1, max_size=8), named=st.booleans(), now=_NOW)
    def acknowledge(self, pick: int, which: list[int], named: bool, now: bool) -> None:
        """Some of the messages that came, in any order and any number of times (D12)."""
        client = self.live()[pick % len(self.live())]
        for index in which if client.came else []:
            message = client.came[index % len(client.came)]
            self.sayings[message["message_id"]].acknowledged = True
            extra = {"from": message["from"]} if named else {}
            client.say("MSG_ACK", False, message_id=message["message_id"], **extra)
        self.finish(now)

    @precondition(lambda self: self.live_with("receipts"))
    @rule(pick=_PICK, which=st.lists(_PICK, min_size=1, max_size=3), now=_NOW)
    def read(self, pick: int, which: list[int], now: bool) -> None:
        """Some of the messages that came to this device (D11)."""
        readers = self.live_with("receipts")
        client = readers[pick % len(readers)]
        for index in which if client.came else []:
            message = client.came[index % len(client.came)]
            for covered in self.covered(client.user_id, message):
                covered.acknowledged = covered.read = True
            client.say("READ", False, message_id=message["message_id"], **{"from": message["from"]})
        self.finish(now)

    def covered(self, user: str, message: dict[str, Any]) -> list[Saying]:
        """What READ of a message says of: it and all earlier ones of its sender (D31)."""
        theirs = [
            self.sayings[row.message_id] for row in self.sayings.rows(user) if row.sender == message["from"]
        ]
        named = self.sayings[message["message_id"]]
        return [*theirs[: theirs.index(named)], named] if named in theirs else [named]

    @precondition(lambda self: self.live_with("chats"))
    @rule(pick=_PICK, limit=st.integers(1, 100), now=_NOW)
    def ask_for_chats(self, pick: int, limit: int, now: bool) -> None:
        """The first of them (D30)."""
        askers = self.live_with("chats")
        client = askers[pick % len(askers)]
        client.lists_asked += 1
        client.say("CHATS", False, limit=limit)
        self.finish(now)

    @precondition(lambda self: self.live_with("chats"))
    @rule(pick=_PICK, peer=_PICK, kind=st.sampled_from(["HIDE", "MUTE", "UNMUTE"]), now=_NOW)
    def change_list(self, pick: int, peer: int, kind: str, now: bool) -> None:
        """A chat with anybody else (D30)."""
        self.say_about(self.live_with("chats"), pick, peer, kind, now)

    @precondition(lambda self: self.live_with("block"))
    @rule(pick=_PICK, peer=_PICK, kind=st.sampled_from(["BLOCK", "UNBLOCK"]), now=_NOW)
    def block(self, pick: int, peer: int, kind: str, now: bool) -> None:
        """Anybody else, chat or not (D32)."""
        self.say_about(self.live_with("block"), pick, peer, kind, now)

    def say_about(self, clients: list[Watchful], pick: int, peer: int, kind: str, now: bool) -> None:
        client = clients[pick % len(clients)]
        others = [user for user in self.users if user != client.user_id]
        client.say(kind, False, user_id=others[peer % 3])
        self.finish(now)

    @precondition(lambda self: self.live_with("history"))
    @rule(pick=_PICK, peer=_PICK, limit=st.integers(1, 100), now=_NOW)
    def ask_for_history(self, pick: int, peer: int, limit: int, now: bool) -> None:
        """With anybody else (D14)."""
        readers = self.live_with("history")
        client = readers[pick % len(readers)]
        other = [user for user in self.users if user != client.user_id][peer % 3]
        client.histories_asked += 1
        client.say("HISTORY", False, **{"with": other}, limit=limit)
        self.finish(now)

    @precondition(lambda self: self.live_with("presence_delta"))
    @rule(pick=_PICK, now=_NOW)
    def ask_who_is_online(self, pick: int, now: bool) -> None:
        """Of all; what comes is taken in as any other PRESENCE (D21)."""
        askers = self.live_with("presence_delta")
        askers[pick % len(askers)].say("PRESENCE", False, user_ids=self.users)
        self.finish(now)

    @precondition(lambda self: self.live())
    @rule(pick=_PICK)
    def answer_pings(self, pick: int) -> None:
        """As a WebSocket library does; it may confirm all that came so far."""
        client = self.live()[pick % len(self.live())]
        self.world.pass_time(0.1)
        self.look()
        if client.pings:
            for message in client.received():
                self.sayings[message["message_id"]].acknowledged = True
        client.answer_those_that_came()
        self.look()

    @precondition(lambda self: self.live())
    @rule(pick=_PICK, slow=st.booleans())
    def read_slowly(self, pick: int, slow: bool) -> None:
        """The kernel takes nothing more; or it takes everything again."""
        client = self.live()[pick % len(self.live())]
        client.waiting = 1 << 20
        if not slow:
            client.drain()
        self.look()

    @precondition(lambda self: self.live())
    @rule(pick=_PICK)
    def leave(self, pick: int) -> None:
        """Close the connection."""
        self.live()[pick % len(self.live())].leave()
        self.look()

    @rule(seed=_PICK, count=st.integers(1, 20))
    def chat_for_a_while(self, seed: int, count: int) -> None:
        """What people do most of the time, in one step, so that the rest happens in the middle of it."""
        rng = random.Random(seed)

        def pick() -> int:
            return rng.randrange(1000)

        for _ in range(count):
            what = rng.randrange(8)
            now = rng.random() < 0.5
            if not self.live():
                self.come(pick(), {"resume"}, pick(), True)
            elif what < 3:
                self.write(pick(), pick(), 1 + pick() % 6, now)
            elif what == 3:
                self.repeat(pick(), pick(), pick() % 4 == 0, now)
            elif what == 4:
                self.acknowledge(pick(), [pick() for _ in range(4)], now, now)
            elif what == 5 and self.live_with("receipts"):
                self.read(pick(), [pick()], now)
            elif what == 6:
                self.answer_pings(pick())
            else:
                self.turn(pick())

    # -- Everything else --

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 6.0, 61.0, 130.0]))
    def pass_time(self, seconds: float) -> None:
        """With all that happens meanwhile; who is away for long is left to the store."""
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
        """A worker dies, and comes back at once or later, with what is stored."""
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

    @rule(pick=_PICK, count=st.integers(1, 8))
    def purge(self, pick: int, count: int) -> None:
        """The oldest messages of a user are too old, acknowledged or not (D20)."""
        user = self.users[pick % 4]
        rows = self.sayings.rows(user)[:count]
        if not rows:
            return
        for row in rows:
            self.sayings[row.message_id].purged = True
        self.world.shard_of(user).users.purged(
            self.world.store_of(user).purge(user, rows[-1].seq), self.world.now
        )
        self.look()

    @rule(
        pick=_PICK,
        trouble=st.sampled_from(["slow", "slow reads", "fail", "unreadable", "refuse", "none", "none"]),
    )
    def trouble(self, pick: int, trouble: str) -> None:
        """A store is slow, can't be read, or fails for one write, or the way to a worker is full; or all of that is over."""
        worker = pick % len(self.world.shards)
        store = self.world.stores[worker]
        if trouble == "slow":
            store.slow = True
        elif trouble == "slow reads":
            store.slow_reads = True
        elif trouble == "fail":
            store.fail_next = 1
        elif trouble == "unreadable":
            store.read_failure = "unreadable"
        elif trouble == "refuse":
            self.world.refusing.add(worker)
        else:
            self.end_troubles(worker)

    def end_troubles(self, worker: int) -> None:
        store = self.world.stores[worker]
        store.slow = store.slow_reads = False
        store.fail_next = 0
        store.read_failure = None
        self.world.refusing.discard(worker)

    # -- The end --

    def teardown(self) -> None:
        """Let everything come to rest, then check the rest."""
        if not hasattr(self, "world"):
            return
        try:
            self.come_to_rest()
            self.everything_is_at_rest()
            self.every_message_was_answered_once()
            self.presence_has_converged()
            self.everybody_who_is_here_has_everything()
            self.nothing_accepted_is_lost()
            self.history_has_everything()
            self.lists_are_those_of_the_stores()
        finally:
            mailbox.CACHE_MAX = _CACHE_MAX  # type: ignore[misc]

    def come_to_rest(self) -> None:
        for worker in range(len(self.world.shards)):
            if worker in self.dead:
                self.world.boot(worker)
            self.end_troubles(worker)
        self.dead.clear()
        for client in self.live():
            client.drain()
        self.world.pass_time(2 * CONFIRM_TIMEOUT + TYPING_EXPIRY + PRESENCE_GRACE, step=0.5)
        self.look()
        # Should a shard not have heard of a block, it does at the next HELLO of either of the two.
        for user in self.users:
            self.world.device(user).hello(self.names.get(user, "Somebody")).leave()
        self.world.pass_time(PRESENCE_GRACE + 2.0)
        self.look()


TestAnySequence = ChatMachine.TestCase
TestAnySequence.settings = settings(max_examples=examples(50), stateful_step_count=30)
