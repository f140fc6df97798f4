"""Resuming while there is more than memory holds: pages from the store, live messages behind them, and reads that fail (D13, D18)."""

from __future__ import annotations

import pytest

from core.chat import mailbox
from core.wire.protocol import REPLAY_WINDOW_BYTES
from tests.core.chat.test_replay import Trickle
from tests.core.chat.test_resume import came, numbers, resuming, write
from tests.core.pair import Pair
from tests.core.recording_store import PAGE


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mailboxes keep two messages in memory."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", 2)


@pytest.mark.parametrize("size", [PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 3 * PAGE + 2])
@pytest.mark.usefixtures("forgetful")
def test_d13_a_backlog_of_several_pages_comes_complete_and_in_order(far: bool, size: int) -> None:
    """To who resumes and who doesn't, at any speed."""
    pair = Pair(far, messages_per_minute=0)
    ann = write(pair, size)
    cursor = f"{pair.world.shard_of(pair.bob).users[pair.bob].mailbox.epoch}.0"
    fast = resuming(pair, cursor)
    assert came(fast) == numbers(1, size)
    assert not fast.session.page, "nothing is kept of what has been written"
    plain = pair.come(pair.bob)
    assert plain.contents() == [f"{number}" for number in range(1, size + 1)]
    slow = Trickle(pair.world, pair.bob)
    slow.hello("Bob Ray", capabilities=["resume"], resume={"cursor": cursor})
    received = came(slow)
    while slow.session.behind:
        slow.drain()
        assert slow.waiting <= REPLAY_WINDOW_BYTES + 3
        received += came(slow)
    assert received == numbers(1, size)
    slow.drain()
    write(pair, 1, ann, start=size + 1)
    assert came(slow) == came(fast) == numbers(size + 1, size + 1)


@pytest.mark.replaces
@pytest.mark.usefixtures("forgetful")
def test_d13_nothing_is_read_that_is_in_memory(far: bool) -> None:
    """And each page once, though messages come while it is being read and the connection reports room."""
    pair = Pair(far)
    ann = write(pair, PAGE)
    cursor = f"{pair.world.shard_of(pair.bob).users[pair.bob].mailbox.epoch}.0"
    store = pair.world.store_of(pair.bob)
    del store.reads[:]
    assert came(resuming(pair, cursor.replace(".0", f".{PAGE - 2}"))) == numbers(PAGE - 1, PAGE)
    assert store.reads == []
    store.slow_reads = True
    bob = resuming(pair, cursor)
    for number in range(3):
        write(pair, 1, ann, start=PAGE + 1 + number)
        bob.session.writable(pair.world.now)
    assert came(bob) == []
    store.slow_reads = False
    pair.world.settle()
    assert came(bob) == numbers(1, PAGE + 3)
    assert store.reads == ["read", "read"]


@pytest.mark.usefixtures("forgetful")
def test_d18_live_messages_queue_behind_a_slow_read(far: bool) -> None:
    """Between any two pages and at any speed of the reader, with two people writing."""
    pair = Pair(far, messages_per_minute=0)
    ann = write(pair, 3 * PAGE)
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    cursor = f"{pair.world.shard_of(pair.bob).users[pair.bob].mailbox.epoch}.0"
    store = pair.world.store_of(pair.bob)
    bob = Trickle(pair.world, pair.bob)
    bob.hello("Bob Ray", capabilities=["resume"], resume={"cursor": cursor})
    received = came(bob)
    number = 3 * PAGE
    for step in range(40):
        store.slow_reads = step % 3 == 0
        store.slow = step % 4 == 0
        if step < 20:
            number += 1
            (ann if step % 2 else cat).msg(pair.bob, f"{number}", settle=step % 5 == 0)
        if step % 2:
            bob.drain()
        received += came(bob)
    store.slow = store.slow_reads = False
    pair.world.settle()
    while bob.session.behind:
        bob.drain()
        received += came(bob)
    assert [seq for seq, _ in received] == list(range(1, number + 1))
    assert sorted(int(content) for _, content in received) == list(range(1, number + 1))


@pytest.mark.replaces
@pytest.mark.usefixtures("forgetful")
def test_d13_reads_that_fail_are_tried_again(pair: Pair) -> None:
    """Once a second, without closing the connection, until they succeed; then all comes, live messages behind it."""
    ann = write(pair, 2 * PAGE)
    store = pair.world.store_of(pair.bob)
    cursor = f"{pair.world.shard_of(pair.bob).users[pair.bob].mailbox.epoch}.0"
    store.read_failure = "unreadable"
    bob = resuming(pair, cursor)
    assert bob.kinds() == ["HELLO_ACK", "PRESENCE"]
    del store.reads[:]
    pair.world.pass_time(3.5)
    write(pair, 1, ann, start=2 * PAGE + 1)
    bob.session.writable(pair.world.now)
    pair.world.settle()
    assert store.reads == ["read"] * 3
    assert came(bob) == []
    store.read_failure = None
    pair.world.pass_time(1)
    assert came(bob) == numbers(1, 2 * PAGE + 1)
    del store.reads[:]
    pair.world.pass_time(3)
    assert store.reads == []


@pytest.mark.replaces
@pytest.mark.usefixtures("forgetful")
def test_d13_who_leaves_while_a_page_is_read_is_read_for_no_more(pair: Pair) -> None:
    """Nor while it would be read again; and a user who is being read for stays in memory."""
    write(pair, 2 * PAGE)
    store = pair.world.store_of(pair.bob)
    user = pair.world.shard_of(pair.bob).users[pair.bob]
    cursor = f"{user.mailbox.epoch}.0"
    store.slow_reads = True
    bob = resuming(pair, cursor)
    assert user.busy
    bob.leave()
    store.slow_reads = False
    pair.world.settle()
    assert not bob.session.page
    assert not user.busy
    store.read_failure = "unreadable"
    bob = resuming(pair, cursor)
    bob.leave()
    del store.reads[:]
    pair.world.pass_time(3)
    assert store.reads == []


@pytest.mark.usefixtures("forgetful")
def test_d13_a_page_may_hold_what_is_not_committed_here_yet(far: bool) -> None:
    """The store has it, but the mailbox has not been told: it comes once, when it has its position."""
    pair = Pair(far, messages_per_minute=0)
    ann = write(pair, 5)
    cursor = f"{pair.world.shard_of(pair.bob).users[pair.bob].mailbox.epoch}.0"
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    bob = resuming(pair, cursor)
    for number in (6, 7, 8):
        ann.msg(pair.bob, f"{number}", settle=False)
    store.slow_reads = False
    pair.world.settle()
    assert came(bob) == numbers(1, 8)
