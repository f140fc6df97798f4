"""core.chat.store.Store, continued: lists of chats, reading, blocks and what is withheld (D10, D23, D30, D31, D32)."""

from __future__ import annotations

import pytest

from core.chat.chat import Block, Chat
from core.chat.store import nobody_waits
from core.chat.user import User
from tests.workers.store_driver import DAY, Make, StoreDriver
from workers.store.statements import SMALL_CHAT
from workers.store.writes import SUM_AFTER


class TestChatLists:
    """What a list of chats shows is right whenever a user is loaded (D30)."""

    def test_it_comes_back(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1", "2", "3")
        driver.append(bob, "carol", "4")
        driver.settle()
        alice, carol = bob.chats["alice"], bob.chats["carol"]
        alice.hidden, carol.muted = True, True
        carol.active_at = b"2030-01-01T00:00:00.000Z"
        driver.mark_read(bob, "alice", 2)
        driver.store.save_chat(bob, carol, nobody_waits)
        driver.append(bob, "alice", "5")
        driver.settle()
        driver.store.save_chat(bob, alice, nobody_waits)
        driver.settle()
        loaded = driver.loaded("bob").chats
        assert [(chat.newest, chat.read_through, chat.unread) for chat in loaded.values()] == [
            *((5, 2, 2), (4, 0, 1))
        ]
        assert [(chat.hidden, chat.muted) for chat in loaded.values()] == [(True, False), (False, True)]
        assert loaded["carol"].active_at == b"2030-01-01T00:00:00.000Z"
        assert loaded["alice"].active_at == alice.active_at > b"2024"

    def test_of_a_chat_without_messages(self, driver: StoreDriver, bob: User) -> None:
        chat = bob.chats["alice"] = Chat("alice", "Alice")
        driver.store.save_chat(bob, chat, nobody_waits)
        loaded = driver.loaded("bob").chats["alice"]
        assert (loaded.active_at, loaded.newest, loaded.read_through, loaded.unread) == (b"", 0, 0, 0)
        assert (loaded.hidden, loaded.muted) == (False, False)

    @pytest.mark.parametrize("before", [0, 1, SUM_AFTER - 1, SUM_AFTER, SUM_AFTER + 1, 2 * SUM_AFTER])
    @pytest.mark.parametrize("at_once", [1, 7, 1000])
    def test_messages_are_counted_once(
        self, driver: StoreDriver, bob: User, before: int, at_once: int
    ) -> None:
        """However many there are, in whatever commits; some are read in between."""
        senders = ("alice", "carol", "dave")
        for number in range(before):
            driver.append(bob, senders[number % 3], f"{number}")
            if number % at_once == 0:
                driver.settle()
        driver.settle()
        if before > 10:
            driver.mark_read(bob, "carol", 8)
        for number in range(before, before + 40):
            driver.append(bob, senders[number * number % 3], f"{number}")
            driver.settle()
            if number % 10 == 0:
                _is_counted(driver, bob)
        _is_counted(driver, bob)

    def test_the_time_of_a_chat_does_not_go_back(self, driver: StoreDriver, bob: User) -> None:
        """The user's own last message is later than what the other one wrote."""
        chat = bob.chats["alice"] = Chat("alice", "Alice")
        chat.active_at = b"2030-01-01T00:00:00.000Z"
        driver.store.save_chat(bob, chat, nobody_waits)
        driver.append(bob, "alice", "1")
        assert driver.loaded("bob").chats["alice"].active_at == b"2030-01-01T00:00:00.000Z"

    def test_retention_removes_what_nobody_has_read(self, make: Make) -> None:
        """It is not unread any more, wherever it was counted."""
        driver = make(retention_days=1.0)
        bob = driver.user("bob")
        driver.append(bob, "alice", "1", "2")
        driver.append(bob, "carol", "3")
        driver.append(bob, "dave", "4")
        driver.settle()
        driver.mark_read(bob, "dave", 4)
        for chat in bob.chats.values():
            driver.store.save_chat(bob, chat, nobody_waits)
        driver.later(DAY * 0.75)
        driver.append(bob, "alice", "5")
        driver.append(bob, "dave", "6")
        for chat in bob.chats.values():
            driver.store.save_chat(bob, chat, nobody_waits)
        driver.later(DAY * 0.5)
        assert driver.purged == [("bob", 4)]
        loaded = driver.loaded("bob")
        alice, carol, dave = loaded.chats.values()
        assert (alice.unread, alice.newest) == (1, 5)
        assert (carol.unread, carol.newest) == (0, 3)
        assert dave.unread == 1
        assert driver.covered(loaded, "alice", 4, 4).beyond == 1


def _is_counted(driver: StoreDriver, user: User) -> None:
    """A list of chats that is loaded now is the one in memory."""

    def shown(user: User) -> list[tuple[object, ...]]:
        return [
            (chat.peer, chat.newest, chat.read_through, chat.unread, chat.active_at)
            for chat in user.chats.values()
        ]

    assert shown(driver.loaded(user.user_id)) == shown(user)


class TestReading:
    """covered and messages_at (D31)."""

    def test_covered_are_messages_of_one_chat(self, driver: StoreDriver, bob: User) -> None:
        for number in range(1, 21):
            message = driver.message(bob, ("alice", "carol")[number % 2], f"m{number}")
            message.receipts = number % 4 == 0
            driver.store.append(message)
        driver.settle()
        covered = driver.covered(bob, "alice", 3, 10)
        assert covered.messages == [*((4, "m4", True), (6, "m6", False), (8, "m8", True), (10, "m10", False))]
        assert covered.beyond == 5
        assert driver.covered(bob, "carol", 19, 19) == ([], 0)
        assert driver.covered(bob, "carol", 17, 20) == ([(19, "m19", False)], 0)
        assert driver.covered(bob, "carol", 0, 0) == ([], 10)

    def test_what_comes_after_the_call_is_not_counted(self, driver: StoreDriver, bob: User) -> None:
        """It is on its way, and the core counts it when it is committed."""
        driver.append(bob, "alice", "1", "2")
        driver.settle()
        driver.append(bob, "alice", "3")
        assert driver.covered(bob, "alice", 0, 1).beyond == 1
        assert bob.chats["alice"].unread == 3

    @pytest.mark.parametrize("others", [0, 5000])
    def test_some_hundreds_at_most_are_covered(self, driver: StoreDriver, bob: User, others: int) -> None:
        """In a small chat and in a large one."""
        driver.append(bob, "alice", *(f"a{number}" for number in range(600)))
        driver.append(bob, "carol", *(f"c{number}" for number in range(others)))
        driver.append(bob, "alice", *(f"b{number}" for number in range(600)))
        driver.settle()
        first = driver.covered(bob, "alice", 0, bob.mailbox.head)
        assert [seq for seq, _, _ in first.messages] == list(range(1, 513))
        assert first.beyond == 0
        second = driver.covered(bob, "alice", 512, bob.mailbox.head - 100)
        found = [message_id for _, message_id, _ in second.messages]
        assert found == [f"a{number}" for number in range(512, 600)] + [f"b{number}" for number in range(424)]
        third = driver.covered(bob, "alice", bob.mailbox.head - 10, bob.mailbox.head - 5)
        assert ([message_id for _, message_id, _ in third.messages], third.beyond) == (
            [f"b{number}" for number in range(590, 595)],
            5,
        )

    def test_in_a_chat_that_the_store_does_not_know(self, driver: StoreDriver, bob: User) -> None:
        bob.chats["alice"] = Chat("alice", "Alice")
        assert driver.covered(bob, "alice", 0, 5) == ([], 0)

    def test_messages_at_gives_those_that_are_there(self, driver: StoreDriver, bob: User) -> None:
        messages = driver.append(bob, "alice", "1", "2") + driver.append(bob, "carol", "3", "4")
        driver.settle()
        driver.mark_read(bob, "alice", 1)
        found = driver.messages_at(bob, 4, 1, 9, 0, -1)
        assert [(message.seq, message.sender, message.lamport) for message in found] == [
            *((1, "alice", 1), (4, "carol", 4))
        ]
        assert [message.frame for message in found] == [messages[0].frame, messages[3].frame]
        assert [message.read for message in found] == [True, False]
        assert driver.messages_at(bob) == []
        assert driver.messages_at(driver.user("nobody"), 1) == []

    def test_what_is_read_is_read_in_all_messages_before(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1", "2", "3")
        driver.append(bob, "carol", "4")
        driver.settle()
        driver.mark_read(bob, "alice", 2)
        driver.settle()
        loaded = driver.loaded("bob")
        assert [message.read for message in driver.read(loaded, 0)] == [True, True, False, False]
        assert driver.find(loaded, "alice", "1")[0].read


class TestBlocks:
    """save_block (D23, D32)."""

    def test_blocks_come_back(self, driver: StoreDriver, bob: User) -> None:
        bob.blocks = {"alice": Block(True, False, 7), "carol": Block(False, True, 0)}
        for peer in bob.blocks:
            driver.store.save_block(bob, peer, driver.done(peer))
        loaded = driver.loaded("bob")
        assert driver.log == ["alice", "carol"]
        assert loaded.blocks == {"alice": Block(True, False, 7), "carol": Block(False, True, 0)}
        assert loaded.saved
        assert loaded.display_name == "Bob"

    def test_blocks_change_and_go(self, driver: StoreDriver, bob: User) -> None:
        for blocks in (
            {"alice": Block(True, False, 7), "carol": Block(True, True, 1)},
            {"alice": Block(True, True, 7), "carol": Block(True, False, 2)},
            {"carol": Block(True, False, 2)},
            {"alice": Block(False, True, 0), "carol": Block(True, False, 2)},
        ):
            bob.blocks = blocks
            for peer in ("alice", "carol"):
                driver.store.save_block(bob, peer, nobody_waits)
            assert driver.loaded("bob").blocks == blocks
        bob.blocks = None
        for peer in ("carol", "alice", "dave"):
            driver.store.save_block(bob, peer, nobody_waits)
        assert driver.loaded("bob").blocks is None

    def test_what_is_called_at_once_is_saved_as_it_was_called_last(
        self, driver: StoreDriver, bob: User
    ) -> None:
        bob.blocks = {"alice": Block(True, False, 7)}
        driver.store.save_block(bob, "alice", driver.done("one"))
        bob.blocks = None
        driver.store.save_block(bob, "alice", driver.done("two"))
        driver.settle()
        assert driver.log == ["one", "two"]
        assert driver.loaded("bob").blocks is None

    def test_who_blocks_or_is_blocked_is_no_stranger(self, driver: StoreDriver, bob: User) -> None:
        """D23: not even a day after the last connection. Who does so no longer is one again."""
        users = {name: driver.user(name) for name in ("bob", "carol", "dave", "erin")}
        users["bob"].blocks = {"erin": Block(True, False, 0)}
        users["carol"].blocks = {"erin": Block(False, True, 0)}
        users["dave"].blocks = {"erin": Block(True, False, 0)}
        for name in ("bob", "carol", "dave"):
            driver.store.save_block(users[name], "erin", nobody_waits)
        users["dave"].blocks = None
        driver.store.save_block(users["dave"], "erin", nobody_waits)
        for user in users.values():
            driver.store.save_user(user, nobody_waits)
        driver.later(DAY * 1.25)
        assert set(driver.strangers) == {"dave", "erin"}
        assert driver.loaded("bob").blocks == {"erin": Block(True, False, 0)}

    def test_whoever_is_forgotten_blocks_nobody(self, driver: StoreDriver, bob: User) -> None:
        bob.blocks = {"alice": Block(True, False, 7)}
        driver.store.save_block(bob, "alice", nobody_waits)
        driver.store.forget("bob")
        driver.store.save_user(driver.user("bob"), nobody_waits)
        assert driver.loaded("bob").blocks is None


class TestWithheld:
    """Messages that only their sender sees (D32)."""

    def test_they_have_no_place_in_the_mailbox(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        driver.append(bob, "alice", "2", "3", withheld=True)
        driver.append(bob, "alice", "4")
        driver.append(bob, "carol", "5", withheld=True)
        driver.settle()
        assert driver.log == [("1", 1), ("2", "withheld"), ("3", "withheld"), ("4", 2), ("5", "withheld")]
        loaded = driver.loaded("bob")
        assert loaded.mailbox.head == loaded.mailbox.waiting == 2
        assert [message.message_id for message in driver.read(loaded, 0)] == ["1", "4"]
        assert [message.message_id for message in driver.messages_at(loaded, 1, 2, 3)] == ["1", "4"]
        assert [seq for seq, _ in driver.senders(loaded, 0)] == [1, 2]
        assert [seq for seq, _ in driver.history("bob", "alice")] == [2, 1]
        assert driver.history("bob", "carol") == []
        assert driver.covered(loaded, "alice", 0, 1) == ([(1, "1", False)], 1)
        assert (loaded.chats["alice"].newest, loaded.chats["alice"].unread) == (2, 2)
        assert (loaded.chats["carol"].newest, loaded.chats["carol"].unread) == (0, 0)
        assert loaded.chats["carol"].active_at == b""

    def test_find_tells_who_asks_for_the_sender(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1", withheld=True)
        driver.append(bob, "carol", "1")
        driver.settle()
        (found,) = driver.find(bob, "alice", "1")
        assert (found.withheld, found.seq, found.lamport, found.sender) == (True, 0, 1, "alice")
        assert not found.read
        (found,) = driver.find(bob, "carol", "1")
        assert (found.withheld, found.seq, found.lamport) == (False, 1, 2)
        assert [message.sender for message in driver.find(bob, None, "1")] == ["carol"]

    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("second", [True, False])
    @pytest.mark.parametrize("apart", [True, False])
    def test_repeats_are_recognised(
        self, driver: StoreDriver, bob: User, first: bool, second: bool, apart: bool
    ) -> None:
        """D10, whether one or both are withheld."""
        (original,) = driver.append(bob, "alice", "1", withheld=first)
        if apart:
            driver.settle()
        (repeat,) = driver.append(bob, "alice", "1", content="other", withheld=second)
        driver.append(bob, "alice", "2", withheld=second)
        driver.settle()
        assert repeat.original is not None
        assert repeat.original.withheld is first
        assert repeat.original.frame == original.frame
        assert repeat.original.seq == (0 if first else 1)
        assert driver.log[1] == ("1", "repeat")
        assert driver.loaded("bob").mailbox.head == (not first) + (not second)
        assert len(driver.withheld("bob", "alice")) == first + second

    def test_history_of_what_is_withheld(self, driver: StoreDriver, bob: User) -> None:
        """Newest first, with Lamport counts as positions (D14)."""
        messages = []
        for number in range(8):
            messages += driver.append(bob, "alice", f"a{number}", withheld=True)
            driver.append(bob, "alice", f"b{number}")
            driver.append(bob, "carol", f"c{number}", withheld=True)
        driver.settle()
        expected = [(message.lamport, message.frame) for message in reversed(messages)]
        assert driver.withheld("bob", "alice") == expected
        assert driver.withheld("bob", "alice", limit=3) == expected[:3]
        assert driver.withheld("bob", "alice", before=expected[2][0]) == expected[3:]
        assert driver.withheld("bob", "alice", before=expected[2][0] + 1, limit=2) == expected[2:4]
        assert driver.withheld("bob", "dave") == []
        assert driver.withheld("nobody", "alice") == []

    def test_the_lamport_clock_goes_on_behind_them(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        driver.append(bob, "alice", "2", "3", withheld=True)
        assert driver.loaded("bob").mailbox.lamport == 3
        driver.append(bob, "carol", "4")
        assert driver.loaded("bob").mailbox.lamport == 4

    def test_they_take_chat_and_user_along(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1", withheld=True)
        driver.settle()
        assert list(driver.loaded("bob").chats) == ["alice"]
        assert bob.pins == 0

    def test_one_that_is_too_late_is_not_stored(self, driver: StoreDriver, bob: User) -> None:
        """D26"""
        message = driver.message(bob, "alice", "1", withheld=True)
        message.deadline = driver.now - 1
        driver.store.append(message)
        driver.settle()
        assert "in time" in driver.log[0][1]
        assert driver.find(bob, "alice", "1") == []

    def test_retention_removes_them(self, make: Make) -> None:
        driver = make(retention_days=1.0)
        bob = driver.user("bob")
        driver.append(bob, "alice", "1", withheld=True)
        driver.append(bob, "alice", "2")
        driver.later(DAY * 0.75)
        driver.append(bob, "alice", "3", withheld=True)
        driver.append(bob, "alice", "4")
        driver.later(DAY * 0.5)
        assert driver.purged == [("bob", 1)], "positions are those of the mailbox"
        assert [lamport for lamport, _ in driver.withheld("bob", "alice")] == [3]
        loaded = driver.loaded("bob")
        assert driver.find(loaded, "alice", "1") == []
        assert (loaded.mailbox.head, loaded.mailbox.lamport) == (2, 4)


class TestLasts:
    """The newest message from one user to each of some (D30)."""

    def test_each_has_the_newest(self, driver: StoreDriver) -> None:
        users = [driver.user(f"user-{number}") for number in range(60)]
        for number, user in enumerate(users):
            for index in range(number % 5):
                driver.append(user, "alice", f"{index}", withheld=index % 3 == 1)
                driver.append(user, "carol", f"c{index}")
        # What is asked for may be in the commit log only.
        found = driver.lasts("alice", *(user.user_id for user in users), "nobody", "alice")
        driver.fold()
        assert driver.lasts("alice", *(user.user_id for user in users), "nobody", "alice") == found
        assert found.keys() == {f"user-{number}" for number in range(60) if number % 5}
        for number, user in enumerate(users):
            if number % 5:
                lamport, frame = found[user.user_id]
                assert lamport == 2 * (number % 5) - 1
                assert b'"%d"' % (number % 5 - 1) in frame
                assert b'"alice"' in frame

    @pytest.mark.parametrize("withheld", [True, False])
    def test_the_newest_may_be_withheld(self, driver: StoreDriver, bob: User, withheld: bool) -> None:
        driver.append(bob, "alice", "1", withheld=not withheld)
        driver.append(bob, "carol", "2")
        (newest,) = driver.append(bob, "alice", "3", withheld=withheld)
        driver.append(bob, "carol", "4")
        assert driver.lasts("alice", "bob") == {"bob": (3, newest.frame)}

    def test_those_with_a_chat_and_no_message_are_left_out(self, driver: StoreDriver, bob: User) -> None:
        driver.store.save_chat(bob, bob.chats.setdefault("alice", Chat("alice", "Alice")), nobody_waits)
        assert driver.lasts("alice", "bob") == {}
        assert driver.lasts("alice") == {}

    @pytest.mark.parametrize("withheld", [True, False])
    def test_the_newest_of_a_large_chat(self, driver: StoreDriver, bob: User, withheld: bool) -> None:
        """In SQLite it is not looked for among all of them."""
        for number in range(SMALL_CHAT + 10):
            driver.append(bob, "alice", f"{number}", withheld=number == 7)
        (newest,) = driver.append(bob, "alice", "newest", withheld=withheld)
        driver.append(bob, "carol", "carol's")
        assert driver.lasts("alice", "bob")["bob"][1] == newest.frame
