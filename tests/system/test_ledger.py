"""The ledger finds what is wrong in histories that are wrong, and nothing in those that are right."""

from __future__ import annotations

import pytest

from tests.system.ledger import Connection, Key, Ledger


class Story:
    """Alice writes to Bob."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.alice = self.ledger.connect("alice")
        self.bob = self.ledger.connect("bob", 0)

    def key(self, message_id: str) -> Key:
        return Key("alice", "bob", message_id)

    def send(self, *message_ids: str) -> None:
        for message_id in message_ids:
            self.ledger.sent(self.alice, self.key(message_id), f"content of {message_id}")

    def acknowledge(self, *message_ids: str, told: bool = False) -> None:
        for message_id in message_ids:
            self.ledger.acknowledged(self.alice, self.key(message_id), "stored", told=told)

    def receive(self, *messages: tuple[str, int | None], on: Connection | None = None) -> None:
        for message_id, seq in messages:
            self.ledger.received(on or self.bob, self.key(message_id), f"content of {message_id}", seq)

    def plain(self) -> Connection:
        """Another connection of Bob, which does not resume."""
        return self.ledger.connect("bob")

    def found(self, *kinds: str) -> None:
        """The problems are of these kinds."""
        assert tuple(problem.split(":")[0] for problem in self.ledger.problems()) == kinds

    def complained(self, about: str) -> None:
        assert any(about in problem for problem in self.ledger.problems()), self.ledger.problems()


@pytest.fixture
def story() -> Story:
    return Story()


# -- Right --


def test_all_is_well(story: Story) -> None:
    story.send("1", "2", "3")
    story.acknowledge("1", "2", "3")
    story.receive(("1", 1), ("2", 2), ("3", 3))
    story.found()
    figures = story.ledger.figures()
    assert (figures["messages"], figures["acknowledged"], figures["received"]) == (3, 3, 3)
    assert figures["ordered_pairs"] == 3


def test_what_is_not_acknowledged_need_not_come(story: Story) -> None:
    story.send("1")
    story.found()
    assert story.ledger.undelivered() == []


def test_another_connection_repeats(story: Story) -> None:
    """From the oldest one on that was not acknowledged, for who does not resume."""
    story.send("1", "2", "3")
    story.acknowledge("1", "2", "3")
    story.receive(("1", None), ("2", None), on=story.plain())
    story.receive(("2", None), ("3", None), on=story.plain())
    story.found()


def test_one_that_failed_comes_later(story: Story) -> None:
    """It takes its place when it is accepted."""
    story.send("1", "2")
    story.acknowledge("2")
    story.ledger.failed(story.alice, story.key("1"))
    story.send("1")
    story.acknowledge("1")
    story.receive(("2", 1), ("1", 2))
    story.found()


def test_one_whose_connection_ended_may_come_later(story: Story) -> None:
    story.send("1", "2")
    story.alice = story.ledger.connect("alice")
    story.send("1", "2")
    story.acknowledge("1", "2")
    story.receive(("2", 1), ("1", 2))
    story.found()


def test_late_news_are_no_answer_to_the_attempt(story: Story) -> None:
    """They may be about an earlier attempt, which has no place among those of this connection."""
    story.send("1", "2")
    story.acknowledge("1", told=True)
    story.acknowledge("2")
    story.receive(("2", 1), ("1", 2))
    story.found()


def test_the_same_id_of_two_senders_and_to_two_people(story: Story) -> None:
    ledger = story.ledger
    carol, keys = (
        ledger.connect("carol", 0),
        [Key("alice", "bob", "1"), Key("carol", "bob", "1"), Key("alice", "carol", "1")],
    )
    for key in keys:
        sender = story.alice if key.sender == "alice" else carol
        ledger.sent(sender, key, f"{key}")
        ledger.acknowledged(sender, key, "stored")
    ledger.received(story.bob, keys[0], f"{keys[0]}", 1)
    ledger.received(story.bob, keys[1], f"{keys[1]}", 2)
    ledger.received(carol, keys[2], f"{keys[2]}", 1)
    story.found()


# -- Wrong --


def test_lost(story: Story) -> None:
    story.send("1", "2")
    story.acknowledge("1", "2")
    story.receive(("2", 1))
    story.found("LOST", "REORDERED")
    assert story.ledger.undelivered() == [story.key("1")]
    (lost, _) = story.ledger.problems()
    assert "accepted stored on connection 0 of alice" in lost, "it tells the history"


def test_repeated(story: Story) -> None:
    story.send("1")
    story.acknowledge("1")
    connection = story.plain()
    story.receive(("1", None), ("1", None), on=connection)
    story.found("REPEATED")


def test_reordered_what_was_sent_on_one_connection(story: Story) -> None:
    story.send("1", "2")
    story.acknowledge("2", "1")
    story.receive(("2", None), ("1", None), on=story.plain())
    story.found("REORDERED", "REORDERED", "REORDERED")


def test_reordered_although_acknowledged_before(story: Story) -> None:
    """Over connections of the sender."""
    story.send("1")
    story.acknowledge("1")
    story.alice = story.ledger.connect("alice")
    story.send("2")
    story.acknowledge("2")
    story.receive(("2", 1), ("1", 2))
    story.found("REORDERED", "REORDERED", "REORDERED")


def test_reordered_one_was_left_out_and_came_later(story: Story) -> None:
    """On another connection, so that no connection shows both."""
    story.send("1", "2")
    story.acknowledge("1", "2")
    story.receive(("2", None), on=story.plain())
    story.receive(("1", None), on=story.plain())
    story.found("REORDERED")


def test_two_connections_show_two_orders(story: Story) -> None:
    """Of messages whose order nobody knows: from two senders, say."""
    ledger = story.ledger
    keys = [Key("alice", "bob", "1"), Key("carol", "bob", "1")]
    for key, sender in zip(keys, (story.alice, ledger.connect("carol")), strict=True):
        ledger.sent(sender, key, "hi")
    for order in (keys, keys[::-1]):
        connection = story.plain()
        for key in order:
            ledger.received(connection, key, "hi")
    story.found("REORDERED")


def test_a_gap_in_a_connection(story: Story) -> None:
    story.send("1", "2")
    story.acknowledge("1", "2")
    story.receive(("1", 1), ("2", 3))
    story.found("GAP", "GAP")


def test_a_gap_behind_the_cursor(story: Story) -> None:
    story.send("1", "2", "3")
    story.acknowledge("1", "2", "3")
    story.receive(("1", 1), ("2", 2), ("3", 3))
    story.receive(("3", 3), on=story.ledger.connect("bob", 1))
    story.found("GAP")


def test_a_connection_that_goes_back_behind_its_cursor(story: Story) -> None:
    story.send("1", "2")
    story.acknowledge("1", "2")
    story.receive(("1", 1), ("2", 2))
    story.receive(("2", 2), on=story.ledger.connect("bob", 2))
    story.found("GAP")


def test_a_position_that_is_given_twice(story: Story) -> None:
    """As after a commit that was taken back, once shown."""
    story.send("1", "2")
    story.acknowledge("1", "2")
    story.receive(("1", 1))
    story.receive(("2", 1), on=story.ledger.connect("bob", 0))
    story.found("MISNUMBERED")


def test_a_message_that_is_stored_twice(story: Story) -> None:
    story.send("1")
    story.acknowledge("1")
    story.receive(("1", 1))
    story.receive(("1", 2), on=story.ledger.connect("bob", 1))
    story.found("MISNUMBERED")


def test_another_content(story: Story) -> None:
    """As when one of two messages with the same id is taken for the other."""
    story.send("1")
    story.ledger.received(story.bob, story.key("1"), "something else", 1)
    story.complained("something else")


def test_never_sent(story: Story) -> None:
    story.ledger.received(story.bob, story.key("1"), "hi", 1)
    story.complained("never sent")


def test_to_somebody_else(story: Story) -> None:
    story.send("1")
    story.receive(("1", None), on=story.ledger.connect("carol"))
    story.complained("came to carol")


def test_an_acknowledgement_of_nothing(story: Story) -> None:
    story.acknowledge("1")
    story.complained("never sent")


def test_many_problems_are_told_in_short(story: Story) -> None:
    names = [f"{number}" for number in range(10)]
    story.send(*names)
    story.acknowledge(*names)
    assert len(story.ledger.problems()) == 4
