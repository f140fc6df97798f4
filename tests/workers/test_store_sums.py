"""workers.store.writes and rows: what a list of chats shows is not written with each message, and is right all the same (D30)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.chat.chat import UNCOUNTED, Block, Chat
from core.chat.store import nobody_waits
from core.chat.user import User
from tests.workers.log_files import copied, files_end_at, query
from tests.workers.store_driver import DAY, StoreDriver
from workers.store import writes
from workers.store.log_record import Record
from workers.store.retention import Bite
from workers.store.rows import chat_row, id_hash
from workers.store.sqlite import BATCH_MAX
from workers.store.storage import Storage
from workers.store.writes import SUM_AFTER


@pytest.fixture
def driver(path: Path) -> Iterator[StoreDriver]:
    driver = StoreDriver("sqlite", path)
    yield driver
    driver.close()


def test_only_so_many_messages_are_counted_when_a_user_is_loaded(
    driver: StoreDriver, bob: User, path: Path
) -> None:
    for number in range(1000):
        driver.append(bob, ("alice", "carol")[number % 2], f"{number}")
        if number % 100 == 0:
            driver.settle()
            assert bob.mailbox.head - bob.summed_through <= SUM_AFTER + BATCH_MAX
    driver.fold()
    assert query(path, "SELECT summed_through FROM users") == [(bob.summed_through,)]
    assert bob.summed_through >= 1000 - SUM_AFTER - BATCH_MAX
    assert driver.loaded("bob").summed_through == bob.summed_through
    rows = query(path, "SELECT newest, unread, summed_through FROM chats")
    assert [newest // 2 for newest, _, _ in rows] == [unread - (newest % 2) for newest, unread, _ in rows]


def test_only_chats_with_new_messages_are_saved(
    driver: StoreDriver, bob: User, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "SUM_AFTER", 20)
    for number in range(50):
        driver.append(bob, "alice", f"{number}")
        driver.settle()
    for number in range(51):
        driver.append(bob, "carol", f"{number}")
        driver.settle()
    driver.fold()
    (alice,), (carol,) = query(path, "SELECT summed_through FROM chats ORDER BY number")
    assert alice < carol == bob.summed_through
    assert [chat.unread for chat in driver.loaded("bob").chats.values()] == [50, 51]


def test_sums_do_not_say_that_the_user_was_here(driver: StoreDriver, bob: User, path: Path) -> None:
    """`seen_at` is for people to read."""
    driver.store.save_user(bob, nobody_waits)
    driver.fold()
    before = query(path, "SELECT seen_at, left_at FROM users")
    driver.advance(3600)
    for number in range(SUM_AFTER + 1):
        driver.append(bob, "alice", f"{number}")
        driver.settle()
    driver.fold()
    assert query(path, "SELECT seen_at, left_at FROM users") == before
    assert bob.summed_through > 0


@pytest.mark.parametrize("repeats", [False, True])
def test_a_batch_that_fails_has_counted_nothing(
    driver: StoreDriver, bob: User, path: Path, repeats: bool
) -> None:
    """Whether it goes to the commit log or to the tables; and what could wait waits again."""
    driver.append(bob, "alice", *(f"{number}" for number in range(SUM_AFTER - 1)))
    driver.settle()
    driver.fold()
    before = bob.summed_through
    chat = bob.chats["alice"]
    chat.muted = True
    bob.save_later([chat])
    driver.log.clear()
    with files_end_at(0):
        driver.store.save_acknowledged(bob, driver.done("acknowledged"))
        driver.append(bob, "alice", "a", "b", "0" if repeats else "c", content="x" * 5000)
        driver.until(lambda: len(driver.log) == 4)
    assert all("storage" in failure for _, failure in driver.log)
    assert bob.summed_through == before
    assert bob.unsaved_chats == {chat: None}
    driver.advance(1.1)
    driver.until(lambda: driver.store.failure is None)
    driver.append(bob, "alice", "a", "b", "c")
    driver.settle()
    driver.advance(1)
    driver.until(lambda: bob.pins == 0)
    assert bob.unsaved_chats is None
    loaded = driver.loaded("bob").chats["alice"]
    assert (loaded.unread, loaded.newest, loaded.muted) == (SUM_AFTER + 2, SUM_AFTER + 2, True)


def test_a_chat_that_has_changed_again_meanwhile_waits_too(driver: StoreDriver, bob: User) -> None:
    """What a failed batch gives back does not push out what came since."""
    for peer in ("alice", "carol"):
        bob.chats[peer] = Chat(peer, peer.title())
        driver.store.save_chat(bob, bob.chats[peer], nobody_waits)
    driver.settle()
    driver.log.clear()
    with files_end_at(0):
        bob.save_later([bob.chats["alice"]])
        driver.store.save_acknowledged(bob, driver.done("acknowledged"))
        driver.turn()
        bob.save_later([bob.chats["carol"]])
        driver.until(lambda: bool(driver.log))
    assert bob.unsaved_chats == dict.fromkeys(bob.chats.values())
    driver.advance(1.1)
    driver.until(lambda: driver.store.failure is None)
    driver.advance(1)
    driver.until(lambda: bob.pins == 0)
    assert bob.unsaved_chats is None


def test_what_may_wait_is_saved_at_an_orderly_end(path: Path) -> None:
    driver = StoreDriver("sqlite", path)
    bob = driver.user("bob")
    driver.append(bob, "alice", "1")
    driver.settle()
    bob.chats["alice"].muted = True
    bob.save_later(bob.chats.values())
    driver.store.save_acknowledged(bob)
    driver.close()
    assert query(path, "SELECT muted, unread, summed_through FROM chats") == [(1, 1, 1)]


def test_what_was_called_back_survives_a_kill(driver: StoreDriver, bob: User, path: Path) -> None:
    """Right behind a sum, and before one; the log is read at the next start."""
    bob.blocks = {"erin": Block(True, False, 3)}
    driver.store.save_block(bob, "erin", nobody_waits)
    for number in range(SUM_AFTER + 9):
        driver.append(bob, "alice", f"{number}")
        driver.append(bob, "carol", f"{number}", withheld=True)
        driver.settle()
        if number % 50 == 0:
            driver.mark_read(bob, "alice", number)
        if number in (SUM_AFTER - 2, SUM_AFTER - 1, SUM_AFTER, SUM_AFTER + 8):
            again = StoreDriver("sqlite", copied(path, f"killed-{number}"))
            loaded, alice = again.loaded("bob"), bob.chats["alice"]
            assert (loaded.summed_through, loaded.blocks) == (bob.summed_through, bob.blocks)
            chat = loaded.chats["alice"]
            assert (chat.newest, chat.unread, chat.read_through, chat.active_at) == (
                *(alice.newest, alice.unread, alice.read_through, alice.active_at),
            )
            assert len(again.withheld("bob", "carol", limit=1000)) == number + 1
            again.close()


@pytest.mark.parametrize("summed", [False, True])
def test_what_retention_removes_is_not_unread(path: Path, summed: bool) -> None:
    """Whether the row of the chat counts it, or it is counted when the user is loaded."""
    driver = StoreDriver("sqlite", path, retention_days=1.0)
    bob = driver.user("bob")
    driver.append(bob, "alice", *(f"{number}" for number in range(SUM_AFTER + 50 if summed else 50)))
    driver.append(bob, "carol", "only")
    driver.settle()
    driver.append(bob, "alice", "last of the old")
    driver.settle()
    assert bool(bob.summed_through) is summed
    driver.mark_read(bob, "alice", 10)
    driver.later(DAY * 0.75)
    driver.append(bob, "alice", "a", "b", "c")
    driver.settle()
    driver.later(DAY * 0.5)
    driver.until(lambda: bool(driver.purged) and driver.purged[-1][1] == bob.mailbox.head - 3)
    loaded = driver.loaded("bob")
    assert [chat.unread for chat in loaded.chats.values()] == [3, 0]
    assert driver.covered(loaded, "alice", loaded.mailbox.purged_through, 0).beyond == 3
    driver.close()


def test_retention_sees_what_is_in_the_log_only(path: Path) -> None:
    """A row of a chat that has been committed and not been folded counts what is removed."""
    driver = StoreDriver("sqlite", path)
    bob = driver.user("bob")
    driver.append(bob, "alice", "1", "2", "3")
    driver.later(60)
    driver.append(bob, "alice", "4", "5")
    driver.settle()
    row = chat_row(bob, bob.chats["alice"])
    driver.close()
    query(path, "UPDATE marks SET number = 3")
    storage = Storage(path, "os")
    storage.log.append(Record(0, b"", 1, b"[[],[%b],[],[],[],[],[],[]]" % row))
    bite = Bite(0, 10**9, 10**9)
    bite.execute(storage)
    assert (bite.failure, bite.purged) == (None, [("bob", 3)])
    storage.close()
    assert query(path, "SELECT unread, summed_through FROM chats") == [(2, 5)]


def test_a_number_that_is_not_known_is_not_known_until_it_is_counted(driver: StoreDriver, bob: User) -> None:
    """`UNCOUNTED`, also when it was saved like that and more came."""
    driver.append(bob, "alice", "1", "2")
    driver.settle()
    bob.chats["alice"].unread = UNCOUNTED
    driver.store.save_chat(bob, bob.chats["alice"], nobody_waits)
    driver.append(bob, "alice", "3")
    assert driver.loaded("bob").chats["alice"].unread == UNCOUNTED + 1
    driver.mark_read(bob, "alice", 1)
    assert driver.loaded("bob").chats["alice"].unread == 2


@pytest.mark.parametrize("repeats", [False, True])
def test_what_a_failed_commit_withheld_may_come_back(
    driver: StoreDriver, bob: User, path: Path, repeats: bool
) -> None:
    """It is stored after all, or it is removed where its place is needed, in the log's way to the tables and beside it."""
    driver.append(bob, "alice", "1", withheld=True)
    driver.fold()
    driver.append(bob, "alice", "2", "3", withheld=True)
    driver.append(bob, "alice", "4")
    if not repeats:
        driver.settle()
    ghost = "INSERT INTO messages SELECT 99 + {1}, -1, {0}, chat, {1}, 'ghost', content, 1, 0, {0} FROM messages WHERE number = 1"
    # One has the count of a message that is not in the tables yet, the other its id under another count.
    query(path, ghost.format(2, 7))
    query(path, ghost.format(77, id_hash("3")))
    if repeats:
        driver.append(bob, "alice", "1", withheld=True)
    driver.settle()
    driver.fold()
    assert [result for name, result in driver.log if name in "124"][:3] == ["withheld", "withheld", 1]
    found = [message_id for message_id, *_ in query(path, "SELECT message_id FROM messages ORDER BY seq")]
    assert sorted(found) == (["1", "2", "4", "ghost"] if repeats else ["1", "2", "3", "4"])
    assert driver.log[-1] == (("1", "repeat") if repeats else ("4", 1))


def test_a_message_shows_a_hidden_chat_again_though_that_was_not_saved(
    driver: StoreDriver, bob: User
) -> None:
    """The process may be killed between the commit of a message and what is saved a second later."""
    driver.append(bob, "alice", "1")
    driver.settle()
    alice = bob.chats["alice"]
    alice.hidden = True
    driver.store.save_chat(bob, alice, nobody_waits)
    driver.settle()
    assert driver.loaded("bob").chats["alice"].hidden
    driver.append(bob, "alice", "2")
    driver.settle()
    assert not driver.loaded("bob").chats["alice"].hidden
