"""core.chat.store.Store: what every store promises, checked against each implementation (D7, D10, D12, D13, D14, D20, D23, D26)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.chat.chat import Chat
from core.chat.store import nobody_waits
from core.chat.user import User
from tests.workers.store_driver import DAY, NOON, Make, StoreDriver


class TestOrder:
    """The order of callbacks (D18, D20)."""

    def test_nothing_is_called_back_from_within_a_call(self, driver: StoreDriver, bob: User) -> None:
        driver.store.save_user(bob, driver.done("user"))
        driver.store.save_chat(
            bob, bob.chats.setdefault("alice", Chat("alice", "Alice")), driver.done("chat")
        )
        driver.append(bob, "alice", "1")
        driver.store.after_writes(driver.done("after"))
        driver.store.save_acknowledged(bob, driver.done("acknowledged"))
        assert driver.log == []
        driver.settle()
        assert driver.log == ["user", "chat", ("1", 1), "after", "acknowledged"]

    def test_writes_are_called_back_in_the_order_of_the_calls(self, driver: StoreDriver, bob: User) -> None:
        expected: list[Any] = []
        for number in range(300):
            driver.append(bob, "alice", f"m{number}")
            expected.append((f"m{number}", number + 1))
            if number % 7 == 0:
                driver.store.save_user(bob, driver.done(f"user {number}"))
                expected.append(f"user {number}")
            if number % 11 == 0:
                driver.store.after_writes(driver.done(f"after {number}"))
                expected.append(f"after {number}")
            if number % 50 == 0:
                driver.turn()
        driver.settle()
        assert driver.log == expected

    def test_messages_that_are_committed_together_come_in_one_call(
        self, driver: StoreDriver, bob: User
    ) -> None:
        driver.append(bob, "alice", "1", "2", "3")
        driver.settle()
        assert driver.groups == [3]

    def test_reads_are_called_back_in_the_order_of_the_calls(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        log: list[str] = []
        store = driver.store
        store.history("bob", "alice", None, 10, lambda found, failure, now: log.append("history"))
        store.load("bob", lambda found, failure, now: log.append("load"))
        store.read(bob, 0, lambda found, failure, now: log.append("read"))
        store.find(bob, None, "1", lambda found, failure, now: log.append("find"))
        store.load("bob", lambda found, failure, now: log.append("load"))
        driver.settle()
        assert log == ["history", "load", "read", "find", "load"]

    def test_a_read_sees_every_write_that_was_called_before_it(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        assert [message.message_id for message in driver.read(bob, 0)] == ["1"]
        driver.append(bob, "alice", *(str(number) for number in range(2, 600)))
        assert [message.seq for message in driver.find(bob, "alice", "599")] == [599]
        driver.store.save_user(driver.user("carol"), nobody_waits)
        assert driver.loaded("carol").display_name == "Carol"

    def test_after_writes_waits_for_what_was_called_before_it(self, driver: StoreDriver, bob: User) -> None:
        driver.store.after_writes(driver.done("at once"))
        driver.append(bob, "alice", "1")
        driver.store.after_writes(driver.done("after it"))
        driver.settle()
        assert driver.log == ["at once", ("1", 1), "after it"]

    def test_what_a_callback_calls_comes_later(self, driver: StoreDriver, bob: User) -> None:
        def again(failure: str | None, now: float) -> None:
            driver.log.append("user")
            driver.append(bob, "alice", "2")
            driver.log.append("called")

        driver.store.save_user(bob, again)
        driver.append(bob, "alice", "1")
        driver.until(lambda: len(driver.log) == 4)
        assert driver.log == ["user", "called", ("1", 1), ("2", 2)]

    def test_a_bug_in_a_callback_does_not_lose_the_others(self, driver: StoreDriver, bob: User) -> None:
        def bug(failure: str | None, now: float) -> None:
            raise ZeroDivisionError

        driver.store.save_user(bob, bug)
        driver.append(bob, "alice", "1")
        driver.store.save_user(bob, driver.done("user"))
        with pytest.raises(ZeroDivisionError):
            driver.settle()
        driver.until(lambda: len(driver.log) == 2)
        assert driver.log == [("1", 1), "user"]
        assert bob.pins == 0

    def test_a_user_is_pinned_while_anything_is_not_finished(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        driver.settle()
        assert bob.pins == 0
        store = driver.store
        calls: list[Callable[[], None]] = [
            lambda: store.save_user(bob, nobody_waits),
            lambda: store.save_chat(bob, bob.chats["alice"], nobody_waits),
            lambda: store.save_acknowledged(bob, nobody_waits),
            lambda: store.save_block(bob, "alice", nobody_waits),
            lambda: store.save_hook_call(bob, "alice", nobody_waits),
            lambda: store.append(driver.message(bob, "alice", "2")),
            lambda: store.find(bob, None, "1", lambda found, failure, now: None),
            lambda: store.read(bob, 0, lambda found, failure, now: None),
            lambda: store.senders(bob, 0, lambda found, failure, now: None),
            lambda: store.covered(bob, bob.chats["alice"], 0, 1, lambda found, failure, now: None),
            lambda: store.messages_at(bob, [1], lambda found, failure, now: None),
        ]
        for call in calls:
            call()
            assert bob.pins == 1
            driver.settle()
            assert bob.pins == 0

    @pytest.mark.parametrize("in_advance", [False, True])
    def test_close_commits_and_calls_back_what_was_called(self, make: Make, in_advance: bool) -> None:
        driver = make()
        bob = driver.user("bob")
        driver.append(bob, "alice", *(str(number) for number in range(700)))
        driver.store.save_acknowledged(bob)
        if in_advance:
            driver.store.begin_close()
            assert not driver.store.flush(0.0), "there is nothing to do any more"
        driver.store.close()
        assert len(driver.log) == 700
        assert bob.pins == 0


class TestUsers:
    """Users and their chats (D7, D23)."""

    def test_who_was_never_seen(self, driver: StoreDriver) -> None:
        assert driver.load("bob") is None

    def test_a_user_comes_back_as_saved(self, driver: StoreDriver, bob: User) -> None:
        bob.acknowledges = True
        driver.store.save_user(bob, driver.done("user"))
        driver.settle()
        assert bob.saved
        loaded = driver.loaded("bob")
        assert (loaded.user_id, loaded.display_name, loaded.acknowledges) == ("bob", "Bob", True)
        assert (loaded.saved, loaded.durable, loaded.pins, loaded.sessions) == (True, True, 0, [])
        assert loaded.mailbox.epoch == bob.mailbox.epoch
        assert loaded.mailbox.head == 0

    def test_d36_who_was_made_or_is_banned_comes_back_so(self, driver: StoreDriver, bob: User) -> None:
        carol = driver.user("carol")
        bob.kept = carol.banned = True
        for user in (bob, carol):
            driver.store.save_user(user, nobody_waits)
        driver.settle()
        found = [driver.loaded(name) for name in ("bob", "carol")]
        assert [(user.kept, user.banned) for user in found] == [(True, False), (False, True)]
        found[1].banned = False
        driver.store.save_user(found[1], nobody_waits)
        driver.settle()
        assert not driver.loaded("carol").banned

    def test_what_changes_is_saved_too(self, driver: StoreDriver, bob: User) -> None:
        driver.store.save_user(bob, nobody_waits)
        driver.settle()
        bob.display_name, bob.acknowledges = "Bobby", True
        driver.store.save_user(bob, nobody_waits)
        loaded = driver.loaded("bob")
        assert (loaded.display_name, loaded.acknowledges) == ("Bobby", True)

    def test_chats_come_back_in_the_order_in_which_they_were_opened(
        self, driver: StoreDriver, bob: User
    ) -> None:
        peers = ["zoe", "alice", "mallory", "carol"]
        for peer in peers:
            bob.chats[peer] = Chat(peer, peer.title())
            bob.chats[peer].confirmed = peer == "alice"
            bob.chats[peer].written = peer == "carol"
            driver.store.save_chat(bob, bob.chats[peer], nobody_waits)
        driver.settle()
        loaded = driver.loaded("bob")
        assert list(loaded.chats) == peers
        assert [chat.peer_name for chat in loaded.chats.values()] == ["Zoe", "Alice", "Mallory", "Carol"]
        assert [chat.confirmed for chat in loaded.chats.values()] == [False, True, False, False]
        assert [chat.written for chat in loaded.chats.values()] == [False, False, False, True]
        assert all(chat.saved for chat in loaded.chats.values())

    def test_a_chat_changes(self, driver: StoreDriver, bob: User) -> None:
        chat = bob.chats["alice"] = Chat("alice", "Alice")
        driver.store.save_chat(bob, chat, nobody_waits)
        driver.settle()
        chat.peer_name, chat.confirmed, chat.noting = "Alicia", True, True

        def noted(failure: str | None, now: float) -> None:
            chat.noting, chat.written = False, True

        driver.store.save_chat(bob, chat, noted)
        driver.settle()
        loaded = driver.loaded("bob").chats["alice"]
        assert (loaded.peer_name, loaded.confirmed, loaded.written) == ("Alicia", True, True)

    def test_chats_that_may_wait_are_saved_with_acknowledgements(
        self, driver: StoreDriver, bob: User
    ) -> None:
        """Many at once, within a second."""
        peers = [f"peer-{number}" for number in range(1000)]
        for peer in peers:
            bob.chats[peer] = Chat(peer, peer)
            driver.store.save_chat(bob, bob.chats[peer], nobody_waits)
        driver.settle()
        for peer in peers[::2]:
            bob.chats[peer].confirmed = True
        bob.save_later(bob.chats[peer] for peer in peers[::2])
        driver.store.save_acknowledged(bob)
        driver.later(1.5)
        assert bob.unsaved_chats is None
        assert bob.pins == 0
        loaded = driver.loaded("bob")
        assert [peer for peer, chat in loaded.chats.items() if chat.confirmed] == peers[::2]
        assert not any(chat.written for chat in loaded.chats.values())

    def test_a_message_takes_its_chat_and_its_user_along(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        driver.settle()
        assert bob.saved
        assert bob.chats["alice"].saved
        loaded = driver.loaded("bob")
        assert loaded.mailbox.epoch == bob.mailbox.epoch
        assert loaded.chats["alice"].peer_name == "Alice"
        assert loaded.mailbox.head == 1

    def test_many_users_at_once(self, driver: StoreDriver) -> None:
        for number in range(700):
            driver.store.save_user(driver.user(f"user-{number}"), nobody_waits)
        loaded: list[User | None] = []
        for number in range(701):
            driver.store.load(f"user-{number}", lambda found, failure, now: loaded.append(found))
        driver.until(lambda: len(loaded) == 701)
        assert [user and user.user_id for user in loaded] == [f"user-{n}" for n in range(700)] + [None]

    def test_forgetting_removes_user_and_mailbox(self, driver: StoreDriver, bob: User) -> None:
        """D23: whoever comes back after that is new, and old cursors say nothing (D13)."""
        driver.store.save_user(bob, nobody_waits)
        driver.store.forget("bob")
        assert driver.load("bob") is None
        again = driver.user("bob", "Another")
        driver.store.save_user(again, nobody_waits)
        driver.append(again, "alice", "1")
        driver.settle()
        loaded = driver.loaded("bob")
        assert (loaded.display_name, loaded.mailbox.head) == ("Another", 1)
        assert loaded.mailbox.epoch == again.mailbox.epoch != bob.mailbox.epoch

    def test_forget_keeps_its_place_among_the_writes(self, driver: StoreDriver, bob: User) -> None:
        driver.store.save_user(bob, driver.done("first"))
        driver.store.forget("bob")
        driver.store.save_user(driver.user("bob", "Second"), driver.done("second"))
        driver.store.forget("bob")
        driver.store.save_user(driver.user("bob", "Third"), driver.done("third"))
        driver.store.forget("carol")
        assert driver.loaded("bob").display_name == "Third"
        assert driver.log == ["first", "second", "third"]

    def test_strangers_are_those_without_chats_not_seen_for_a_day(
        self, driver: StoreDriver, bob: User
    ) -> None:
        """D23"""
        driver.store.save_user(bob, nobody_waits)
        driver.append(driver.user("carol"), "alice", "1")
        driver.later(DAY / 2)
        driver.store.save_user(driver.user("dave"), nobody_waits)
        driver.settle()
        assert driver.strangers == []
        driver.later(DAY * 0.75)
        assert set(driver.strangers) == {"bob"}


class TestMessages:
    """Positions and repeats (D10, D13, D26)."""

    def test_positions_have_no_gaps(self, driver: StoreDriver, bob: User) -> None:
        carol = driver.user("carol")
        for number in range(10):
            driver.append(bob, "alice", f"b{number}")
            if number % 2:
                driver.append(carol, "alice", f"c{number}")
        driver.settle()
        assert [seq for name, seq in driver.log if name[0] == "b"] == list(range(1, 11))
        assert [seq for name, seq in driver.log if name[0] == "c"] == list(range(1, 6))
        assert driver.loaded("bob").mailbox.head == 10
        assert [message.seq for message in driver.read(carol, 0)] == [1, 2, 3, 4, 5]

    def test_the_same_id_of_the_same_sender_is_a_repeat(self, driver: StoreDriver, bob: User) -> None:
        """D10: whatever it says, and however late, it is not stored, and its callback has what is."""
        (first,) = driver.append(bob, "alice", "1", content="first")
        driver.settle()
        driver.advance(5)
        repeats = driver.append(bob, "alice", "1", content="second")
        driver.settle()
        assert driver.log == [("1", 1), ("1", "repeat")]
        original = repeats[0].original
        assert original is not None
        assert (original.seq, original.frame) == (1, first.frame)
        assert repeats[0].seq == 0
        assert driver.loaded("bob").mailbox.head == 1

    def test_an_original_has_its_marks(self, driver: StoreDriver, bob: User) -> None:
        message = driver.message(bob, "alice", "1")
        message.receipts = True
        driver.store.append(message)
        driver.settle()
        driver.mark_read(bob, "alice", 1)
        (repeat,) = driver.append(bob, "alice", "1")
        driver.settle()
        assert driver.log == [("1", 1), ("1", "repeat")]
        assert repeat.original is not None
        assert (repeat.original.receipts, repeat.original.read) == (True, True)

    def test_repeats_leave_no_gap_among_the_others(self, driver: StoreDriver, bob: User) -> None:
        carol = driver.user("carol")
        driver.append(bob, "alice", "1", "2", "3")
        driver.settle()
        driver.log.clear()
        driver.append(bob, "alice", "a", "2", "b", "1")
        driver.append(carol, "alice", "1", "2")
        driver.store.save_user(bob, driver.done("user"))
        driver.append(bob, "alice", "3", "c")
        driver.append(bob, "dave", "1")
        driver.settle()
        assert driver.log == [
            *(("a", 4), ("2", "repeat"), ("b", 5), ("1", "repeat"), ("1", 1), ("2", 2), "user"),
            *(("3", "repeat"), ("c", 6), ("1", 7)),
        ]
        assert [message.message_id for message in driver.read(bob, 3)] == ["a", "b", "c", "1"]

    def test_only_repeats(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1", "2")
        driver.settle()
        driver.append(bob, "alice", "2", "1")
        driver.settle()
        assert driver.log[2:] == [("2", "repeat"), ("1", "repeat")]
        assert driver.loaded("bob").mailbox.head == 2

    def test_a_message_whose_time_is_over_is_not_stored(self, driver: StoreDriver, bob: User) -> None:
        """D26"""
        messages = [driver.message(bob, "alice", str(number)) for number in range(4)]
        messages[1].deadline = driver.now - 1
        messages[2].deadline = driver.now + 1000
        for message in messages:
            driver.store.append(message)
        driver.settle()
        late = driver.log.pop(1)
        assert late[0] == "1"
        assert "in time" in late[1]
        assert driver.log == [("0", 1), ("2", 2), ("3", 3)]
        assert driver.find(bob, "alice", "1") == []
        assert bob.pins == 0

    def test_all_too_late(self, driver: StoreDriver, bob: User) -> None:
        message = driver.message(bob, "alice", "1")
        message.deadline = driver.now - 1
        driver.store.append(message)
        driver.settle()
        assert [name for name, _ in driver.log] == ["1"]
        assert driver.load("bob") is None


class TestAcknowledgements:
    """D12"""

    def test_what_is_acknowledged_comes_back(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", *(str(number) for number in range(1, 11)))
        driver.settle()
        for seq in (1, 2, 3, 6, 8):
            bob.mailbox.acknowledge(seq)
        driver.store.save_acknowledged(bob, driver.done("acknowledged"))
        mailbox = driver.loaded("bob").mailbox
        assert driver.log[-1] == "acknowledged"
        assert mailbox.acknowledged_through == 3
        assert [seq for seq in range(1, 11) if mailbox.is_acknowledged(seq)] == [1, 2, 3, 6, 8]
        assert mailbox.waiting == 5

    def test_positions_ahead_are_caught_up_with(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", *(str(number) for number in range(1, 11)))
        driver.settle()
        for seq in (5, 3, 2, 9, 1):
            bob.mailbox.acknowledge(seq)
            driver.store.save_acknowledged(bob, nobody_waits)
            driver.settle()
        bob.mailbox.acknowledge(4)
        driver.store.save_acknowledged(bob, nobody_waits)
        mailbox = driver.loaded("bob").mailbox
        assert mailbox.acknowledged_through == 5
        assert [seq for seq in range(1, 11) if mailbox.is_acknowledged(seq)] == [1, 2, 3, 4, 5, 9]

    def test_without_anybody_waiting_it_is_saved_within_a_second(
        self, driver: StoreDriver, bob: User
    ) -> None:
        driver.append(bob, "alice", "1", "2", "3")
        driver.settle()
        for seq in (1, 3):
            bob.mailbox.acknowledge(seq)
            driver.store.save_acknowledged(bob)
        driver.settle()
        driver.advance(0.9)
        driver.until(lambda: bob.pins == 0)
        mailbox = driver.loaded("bob").mailbox
        assert [seq for seq in (1, 2, 3) if mailbox.is_acknowledged(seq)] == [1, 3]

    def test_who_waits_for_it_does_not_wait_for_the_collecting(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1", "2")
        driver.settle()
        bob.mailbox.acknowledge(1)
        driver.store.save_acknowledged(bob)
        bob.mailbox.acknowledge(2)
        driver.store.save_acknowledged(bob, driver.done("acknowledged"))
        driver.settle()
        assert driver.log[-1] == "acknowledged"
        assert bob.pins == 0
        assert driver.loaded("bob").mailbox.acknowledged_through == 2

    def test_of_a_user_whom_the_store_does_not_know(self, driver: StoreDriver, bob: User) -> None:
        driver.store.save_acknowledged(bob, driver.done("acknowledged"))
        driver.settle()
        assert driver.log == ["acknowledged"]
        assert driver.loaded("bob").display_name == "Bob"


def test_the_clock_of_these_tests(driver: StoreDriver, bob: User) -> None:
    """A frame carries the time of the driver, which retention is measured against."""
    message = driver.message(bob, "alice", "1", sent_at=NOON)
    assert b"2024-01-01T12:00:00.000Z" in message.frame
