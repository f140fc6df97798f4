"""What users rely on, whatever happens: the promises that ``test_any_sequence`` checks after each step, and those at the end.

What one client can see by itself is checked in ``tests.core.watchful``, as it comes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from core.wire.protocol import RATE_WINDOW
from tests.core.watchful import Sayings, Watchful
from tests.core.world import World


class Promises(RuleBasedStateMachine):
    """The books that the machine keeps, and what must be true of them."""

    world: World
    users: list[str]
    #: Messages a minute that each user may send; 0 for no limit.
    limit: int
    #: worker -> how often it was killed.
    epochs: Counter[int]
    #: user -> the name given last.
    names: dict[str, str]
    clients: list[Watchful]
    sayings: Sayings
    #: user -> when each of its messages was accepted, since its worker was last killed.
    accepted: defaultdict[str, list[float]]

    def worker(self, user: str) -> int:
        return self.world.placement.worker_of(user)

    def live(self) -> list[Watchful]:
        return [client for client in self.clients if client.open]

    # -- Promises that hold at any time; what one client can see is checked as it comes --

    @invariant()
    def nobody_is_closed_without_a_reason(self) -> None:
        """Only a store that fails, or a killed worker, ends a connection here."""
        for client in self.clients:
            assert client.closed is None or client.closed[0] in (1006, 1013)

    @invariant()
    def nothing_comes_twice_on_one_connection(self) -> None:
        """Through kills, repeats and slow stores; nor on one that resumes and those before it, unless an earlier one is still there."""
        for client in self.clients:
            for message_id, times in Counter(message["message_id"] for message in client.received()).items():
                assert times == 1 or self.sayings[message_id].purged

    @invariant()
    def what_one_device_sends_a_user_arrives_in_order(self) -> None:
        """D18. A message said several times may arrive where any of them would."""
        for client in self.clients:
            latest: Counter[Watchful] = Counter()
            for message in client.came:
                said = self.sayings[message["message_id"]].said
                if len({device for device, _ in said}) == 1:
                    device = said[0][0]
                    later = [number for _, number in said if number > latest[device]]
                    assert later, f"{message} came too late"
                    latest[device] = later[0]

    @invariant()
    def all_devices_of_a_user_see_one_order(self) -> None:
        """D18, and positions are the same for all (D13)."""
        for user in self.users:
            orders = [
                [
                    message["message_id"]
                    for message in client.came
                    if not self.is_purged(message["message_id"])
                ]
                for client in self.clients
                if client.user_id == user
            ]
            for first, second in combinations(orders, 2):
                both = set(first) & set(second)
                assert [one for one in first if one in both] == [one for one in second if one in both]

    def is_purged(self, message_id: str) -> bool:
        return self.sayings[message_id].purged

    @invariant()
    def no_minute_holds_more_than_the_limit(self) -> None:
        """D23, exactly."""
        for times in self.accepted.values() if self.limit else ():
            for earlier, later in zip(times, times[self.limit :], strict=False):
                assert later - earlier >= RATE_WINDOW - 1e-6

    # -- Promises that hold once all troubles are over --

    def everything_is_at_rest(self) -> None:
        """Nothing waits, nobody is paused, and nobody is shown as typing."""
        for shard in self.world.shards:
            assert not len(shard.exchange)
            assert not shard.histories._asked
            assert not shard.users._loading
            for user in shard.users.known.values():
                assert not user.busy
                assert (user.pins, user.in_flight, user.parked, user.mailbox.reserved) == (0, 0, None, 0)
        for client in self.live():
            assert client.broken == 0
            assert client.reading
            assert client.session.in_flight == 0
            assert client.histories_asked == 0
            assert client.lists_asked == 0
            assert not client.session.page
            assert not any(client.typing_shown.values())

    def every_message_was_answered_once(self) -> None:
        """With one MSG_ACK or one ERROR, as far as the connection lived to see it; receipts may follow, here and on other devices."""
        for client in self.clients:
            answered = Counter(message_id for message_id, _ in client.answers)
            asked = Counter(client.asked)
            if "receipts" not in client.capabilities:
                assert answered <= asked
            if client.open:
                assert answered >= asked

    def presence_has_converged(self) -> None:
        """Every client sees exactly who is connected, under the name given last that could be stored (D20-D22)."""
        online = {client.user_id for client in self.live() if client.greeted}
        for client in self.live():
            if client.greeted:
                assert client.online == {
                    user: self.world.shard_of(user).users[user].display_name
                    for user in online
                    if not self.are_apart(user, client.user_id)
                }
        for user in online:
            assert (
                self.world.store_of(user).records[user].user[0]
                == self.world.shard_of(user).users[user].display_name
            )

    def are_apart(self, one: str, other: str) -> bool:
        """Whether one has blocked the other, as the shard of who has blocks has stored (D32)."""
        for user, peer in ((one, other), (other, one)):
            record = self.world.store_of(user).records.get(user)
            if record is not None and peer in record.blocks and record.blocks[peer].by_user:
                return True
        return False

    def everybody_who_is_here_has_everything(self) -> None:
        """No device is behind; who resumed has, over all its connections, every message since the first of them (D13)."""
        for client in self.live():
            assert not client.session.behind
            if client.cursor is None:
                continue
            rows = self.sayings.rows(client.user_id)
            if not client.reset:
                head = rows[-1].seq if rows else self.sayings.purged_through(client.user_id)
                assert client.position == max(client.began or 0, head) or not rows
            resumed = client
            while resumed.earlier is not None and resumed.earlier.earlier is not None:
                resumed = resumed.earlier
            if resumed.earlier is not None and resumed.began is not None:
                got = {message["seq"]: message["message_id"] for message in client.received()}
                for row in rows:
                    assert row.seq <= resumed.began or got[row.seq] == row.message_id

    def nothing_accepted_is_lost(self) -> None:
        """Whatever a sender was told is safe comes, unless the recipient acknowledged it or its time is over (D20)."""
        for user in self.users:
            fresh = Watchful(self.world, user, self.sayings, set())
            fresh.greet(self.names.get(user, "Somebody"), True)
            fresh.look()
            came = [message["message_id"] for message in fresh.came]
            for saying in self.sayings.values():
                if saying.recipient == user and saying.accepted and not saying.purged:
                    assert saying.message_id in came or saying.acknowledged or saying.withheld
                    assert saying.message_id not in came or not saying.withheld
            assert len(came) == len(set(came))
            fresh.leave()

    def history_has_everything(self) -> None:
        """Page by page, what each wrote in the order in which it was accepted, and nothing else (D14)."""
        for user, peer in combinations(self.users, 2):
            fresh = Watchful(self.world, user, self.sayings, {"history"})
            fresh.greet(self.names.get(user, "Somebody"), True)
            fresh.take()
            shown: list[dict[str, str]] = []
            before: str | None = None
            while before is not None or not shown:
                fresh.say("HISTORY", **{"with": peer}, before=before, limit=len(shown) % 7 + 1)
                pages = fresh.take("HISTORY")
                if not pages:
                    assert fresh.errors() == ["CHAT_NOT_OPENED"]
                    break
                shown += pages[0]["messages"]
                before = pages[0]["next"]
                if before is None:
                    break
            for reader, writer in ((user, peer), (peer, user)):
                rows = [row for row in self.sayings.rows(reader) if row.sender == writer]
                if writer == user:
                    rows += [row for row in self.sayings.withheld(reader) if row.sender == writer]
                stored = [row.message_id for row in sorted(rows, key=lambda row: row.lamport)]
                told = [message["message_id"] for message in shown if message["from"] == writer]
                assert told == stored[::-1]
            fresh.leave()

    def lists_are_those_of_the_stores(self) -> None:
        """Page by page: each chat that is not hidden once, with its last message, and with how many are unread (D30, D31)."""
        for user in self.users:
            fresh = Watchful(self.world, user, self.sayings, {"chats"})
            fresh.greet(self.names.get(user, "Somebody"), True)
            fresh.take()
            shown: list[dict[str, Any]] = []
            before: str | None = None
            while True:
                fresh.lists_asked += 1
                fresh.say("CHATS", before=before, limit=len(shown) % 3 + 1)
                page = fresh.take("CHATS")[0]
                shown += page["chats"]
                before = page["next"]
                if before is None:
                    break
            record = self.world.store_of(user).records[user]
            blocked = {peer for peer, block in record.blocks.items() if block.by_user}
            chats = self.world.shard_of(user).users[user].chats
            listed = {peer for peer in record.chats if not chats[peer].hidden}
            assert sorted(chat["user_id"] for chat in shown) == sorted(listed | blocked)
            for chat in shown:
                self._is_as_stored(user, chat)
            times = [chat["last"]["timestamp"] for chat in shown if chat["last"] is not None]
            assert self.epochs or times == sorted(times, reverse=True)
            fresh.leave()

    def _is_as_stored(self, user: str, chat: dict[str, Any]) -> None:
        """Whether an entry of a list is what the two mailboxes have."""
        peer = chat["user_id"]
        theirs = [row for row in self.sayings.rows(user) if row.sender == peer]
        mine = [row for row in (*self.sayings.rows(peer), *self.sayings.withheld(peer)) if row.sender == user]
        last = max((row.lamport for row in (*theirs, *mine)), default=None)
        ids = [row.message_id for row in (*theirs, *mine) if row.lamport == last]
        assert (chat["last"] is None) is (last is None)
        assert chat["last"] is None or chat["last"]["message_id"] in ids
        assert chat["unread"] == sum(row.seq > chat["read"] for row in theirs)
        block = self.world.store_of(user).records[user].blocks.get(peer)
        assert chat["blocked"] is (block is not None and block.by_user)
