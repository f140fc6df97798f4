"""core.chat.store.Store, continued: what every store promises about reading, retention and text (D13, D14, D20)."""

from __future__ import annotations

from core.chat.chat import Chat
from core.chat.store import nobody_waits
from core.chat.user import Message, User
from core.wire.protocol import REPLAY_WINDOW_BYTES
from tests.workers.store_driver import DAY, Make, StoreDriver


class TestReads:
    """read, find and history (D12, D13, D14)."""

    def test_read_gives_what_is_behind_a_position(self, driver: StoreDriver, bob: User) -> None:
        messages = driver.append(bob, "alice", "1", "2") + driver.append(bob, "carol", "1", "3")
        driver.settle()
        found = driver.read(bob, 1)
        assert [(message.seq, message.sender, message.message_id) for message in found] == [
            *((2, "alice", "2"), (3, "carol", "1"), (4, "carol", "3"))
        ]
        assert [message.frame for message in found] == [message.frame for message in messages[1:]]
        assert all(message.user is bob and message.chat is bob.chats[message.sender] for message in found)
        assert driver.read(bob, 4) == []
        assert driver.read(bob, 400) == []

    def test_read_of_a_user_whom_the_store_does_not_know(self, driver: StoreDriver, bob: User) -> None:
        assert driver.read(bob, 0) == []

    def test_read_gives_a_window_of_bytes(self, driver: StoreDriver, bob: User) -> None:
        """D13: whoever reads window after window gets everything, once."""
        driver.append(bob, "alice", *(str(number) for number in range(400)), content="x" * 900)
        driver.settle()
        position, windows = 0, []
        while window := driver.read(bob, position):
            windows.append(window)
            position = window[-1].seq
        assert [message.seq for window in windows for message in window] == list(range(1, 401))
        sizes = [sum(len(message.frame) for message in window) for window in windows]
        assert all(REPLAY_WINDOW_BYTES / 2 < size < REPLAY_WINDOW_BYTES * 2 for size in sizes[:-1])

    def test_senders_are_those_of_all_messages_behind_a_position(
        self, driver: StoreDriver, bob: User
    ) -> None:
        """In order, in as many pages as it takes, and nothing behind the head (D20)."""
        names = ["alice", "carol", "mallory"]
        for number in range(5000):
            driver.append(bob, names[number * number % 3], f"{number}")
        driver.settle()
        expected = [(number + 1, bob.chats[names[number * number % 3]]) for number in range(5000)]
        found = driver.senders(bob, 0)
        assert 1000 < len(found) < 5000
        while page := driver.senders(bob, found[-1][0]):
            found += page
        assert found == expected
        assert driver.senders(bob, 4998) == expected[4998:]
        assert driver.senders(driver.user("nobody"), 0) == []

    def test_find_by_sender(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1", "2")
        driver.append(bob, "carol", "2")
        driver.settle()
        assert [message.seq for message in driver.find(bob, "carol", "2")] == [3]
        assert [message.sender for message in driver.find(bob, "carol", "2")] == ["carol"]
        assert driver.find(bob, "carol", "1") == []
        assert driver.find(bob, "nobody", "1") == []

    def test_find_from_anybody_gives_the_oldest_first(self, driver: StoreDriver, bob: User) -> None:
        """D12: MSG_ACK without `from` means the oldest."""
        for sender in ("zoe", "alice", "mallory", "carol"):
            driver.append(bob, sender, "same", f"only {sender}".replace(" ", "-"))
        assert [message.sender for message in driver.find(bob, None, "same")] == [
            *("zoe", "alice", "mallory", "carol")
        ]
        assert [message.sender for message in driver.find(bob, None, "only-mallory")] == ["mallory"]
        assert driver.find(bob, None, "nothing") == []

    def test_history_is_newest_first(self, driver: StoreDriver, bob: User) -> None:
        """D14"""
        messages = []
        for number in range(1, 11):
            messages += driver.append(bob, "alice", f"a{number}")
            driver.append(bob, "carol", f"c{number}")
        driver.settle()
        expected = [(message.seq, message.frame) for message in reversed(messages)]
        assert driver.history("bob", "alice") == expected
        assert driver.history("bob", "alice", limit=3) == expected[:3]
        assert driver.history("bob", "alice", before=expected[2][0]) == expected[3:]
        assert driver.history("bob", "alice", before=expected[2][0], limit=2) == expected[3:5]
        assert driver.history("bob", "alice", before=1) == []

    def test_history_of_those_who_never_wrote(self, driver: StoreDriver, bob: User) -> None:
        driver.append(bob, "alice", "1")
        assert driver.history("bob", "carol") == []
        assert driver.history("carol", "bob") == []
        assert driver.history("nobody", "bob") == []


class TestRetention:
    """Messages are kept for a time, and go without a trace but for their positions."""

    def test_what_is_past_goes_and_the_head_stays(self, make: Make) -> None:
        driver = make(retention_days=1.0)
        bob, carol = driver.user("bob"), driver.user("carol")
        for number in range(50):
            driver.append(bob, "alice", f"old-{number}")
        driver.append(carol, "alice", "old")
        driver.later(DAY * 0.75)
        driver.append(bob, "alice", "new")
        driver.settle()
        assert driver.purged == []
        driver.later(DAY * 0.5)
        assert sorted(driver.purged) == [("bob", 50), ("carol", 1)]
        assert [message.seq for message in driver.read(bob, 0)] == [51]
        assert driver.history("carol", "alice") == []
        for user_id, head, purged in (("bob", 51, 50), ("carol", 1, 1)):
            mailbox = driver.loaded(user_id).mailbox
            assert (mailbox.head, mailbox.purged_through) == (head, purged)
            assert mailbox.acknowledged_through >= purged
        carol = driver.loaded("carol")
        driver.append(carol, "alice", "next")
        driver.settle()
        assert driver.log[-1] == ("next", 2)

    def test_an_id_may_be_used_again_after_it(self, make: Make) -> None:
        """D10: within the retention."""
        driver = make(retention_days=1.0)
        bob = driver.user("bob")
        driver.append(bob, "alice", "1")
        driver.later(DAY * 1.5)
        assert driver.purged == [("bob", 1)]
        driver.append(bob, "alice", "1")
        driver.settle()
        assert driver.log == [("1", 1), ("1", 2)]

    def test_zero_keeps_for_ever(self, make: Make) -> None:
        driver = make(retention_days=0.0)
        bob = driver.user("bob")
        driver.append(bob, "alice", "1")
        driver.later(DAY * 10_000)
        assert driver.purged == []
        assert len(driver.read(bob, 0)) == 1

    def test_a_clock_that_is_wrong_is_not_believed(self, make: Make) -> None:
        """D20: 60 days ahead for a minute, back in 1970 for an hour; what is old goes all the same when it is."""
        driver = make(retention_days=1.0)
        bob = driver.user("bob")
        driver.append(bob, "alice", "1")
        driver.later(60)
        driver.wrong_by = 60 * DAY
        driver.append(bob, "alice", "2")
        driver.later(60)
        driver.wrong_by = -driver.time_of_day()
        driver.append(bob, "alice", "3")
        driver.later(3600)
        driver.wrong_by = 0
        driver.later(DAY * 0.9)
        assert driver.purged == []
        assert len(driver.read(bob, 0)) == 3
        driver.later(DAY * 0.2)
        assert driver.purged[-1] == ("bob", 3)

    def test_many(self, make: Make) -> None:
        driver = make(retention_days=1.0)
        bob = driver.user("bob")
        driver.append(bob, "alice", *(str(number) for number in range(700)))
        driver.later(DAY * 0.1)
        driver.advance(DAY * 2)
        while not driver.purged or driver.purged[-1] != ("bob", 700):
            driver.advance(1)
            driver.settle()
        assert driver.read(bob, 0) == []
        assert driver.loaded("bob").mailbox.head == 700


NASTY = [
    *("'; DROP TABLE messages; --", '"], ["', "\\", "\\u0041\\\\", "%s ? :x $1 {}", "\x7f\x80\u2028\u2029"),
    *(
        "שלום \u202e עולם",
        "e\u0301 \ufeff \ufffe",
        "👩‍👩‍👧‍👦",
        "\U0010ffff" * 1000,
        "a\nb\tc",
        "[1,2]",
        "null",
        "0",
        "1e3",
    ),
    *("true", '{"a":1}', "-", "\ue000", "x'00'", "日本語"),
]


class TestText:
    """Every text comes back byte for byte, and is never taken for SQL or JSON."""

    def test_content(self, driver: StoreDriver, bob: User) -> None:
        for number, text in enumerate(NASTY):
            (message,) = driver.append(bob, "alice", str(number), content=text)
            driver.settle()
            (found,) = driver.read(bob, number)
            assert found.frame == message.frame
            assert driver.history("bob", "alice", limit=1) == [(number + 1, message.frame)]
            (repeat,) = driver.append(bob, "alice", str(number))
            driver.settle()
            assert isinstance(repeat.original, Message)
            assert repeat.original.frame == message.frame

    def test_names_and_ids(self, driver: StoreDriver) -> None:
        for text in NASTY:
            self._check_names_and_ids(driver, text)

    def _check_names_and_ids(self, driver: StoreDriver, text: str) -> None:
        """Ids are checked before they come here; the store does not rely on it."""
        user = driver.user(text, text)
        chat = user.chats[text] = Chat(text, text)
        driver.store.save_user(user, nobody_waits)
        driver.store.save_chat(user, chat, nobody_waits)
        driver.settle()
        loaded = driver.loaded(text)
        assert (loaded.user_id, loaded.display_name) == (text, text)
        assert [(chat.peer, chat.peer_name) for chat in loaded.chats.values()] == [(text, text)]
        assert driver.history(text, text) == []

    def test_message_ids(self, driver: StoreDriver, bob: User) -> None:
        message_ids = ["\\", "\\\\n", "a\\", "1", "null", "[", "?", "x" * 64, "%d"]
        for seq, message_id in enumerate(message_ids, 1):
            (message,) = driver.append(bob, "alice", message_id, content="[1]")
            driver.settle()
            (found,) = driver.find(bob, None, message_id)
            assert (found.message_id, found.frame) == (message_id, message.frame)
            driver.append(bob, "alice", message_id)
            driver.settle()
            assert driver.log[-2:] == [(message_id, seq), (message_id, "repeat")]
