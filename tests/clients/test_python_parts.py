"""The parts of the Python client that decide, each by itself: inbox, outbox, receipts."""

from __future__ import annotations

import asyncio

import pytest

from fastchat_client import FastChatError, Message, Sent
from fastchat_client._inbox import REMEMBERED, Inbox
from fastchat_client._outbox import Outbox
from fastchat_client._receipts import ASKED, ASKED_WITHIN, FOLLOWED, Accepted

ME, BOB, CAROL = "me", "bob", "carol"


def msg(number: int, seq: int | None = None, mailbox: str = "e") -> dict[str, object]:
    """A message of Bob's, the number-th, at this position."""
    data: dict[str, object] = {"from": BOB, "to": ME, "content": "Hi", "timestamp": "t"}
    data["message_id"] = f"b{number}"
    return data if seq is None else data | {"seq": seq, "cursor": f"{mailbox}.{seq}"}


# -- Inbox --


@pytest.fixture
def inbox() -> Inbox:
    inbox = Inbox(ME, None)
    inbox.greeted(ME, "e.0", "full")
    return inbox


def take(inbox: Inbox, data: dict[str, object]) -> Message:
    """A message that is news."""
    message, is_news, acknowledge = inbox.take(data)
    assert (is_news, acknowledge) == (True, False)
    return message


def test_a_position_that_came_before_is_a_repeat(inbox: Inbox) -> None:
    """Whatever its id."""
    assert inbox.shown(take(inbox, msg(1, 1)))
    assert inbox.shown(take(inbox, msg(2, 2)))
    assert inbox.take(msg(3, 2))[1:] == (False, True)
    assert inbox.cursor == "e.2"


def test_the_cursor_does_not_pass_what_is_being_shown(inbox: Inbox) -> None:
    """A repeat further on must not move it: what is being shown could be lost."""
    inbox.shown(take(inbox, msg(1)))
    pending = take(inbox, msg(2, 1))
    assert inbox.take(msg(1, 2))[1:] == (False, True)
    assert inbox.cursor == "e.0"
    inbox.shown(pending)
    assert inbox.cursor == "e.1"


def test_a_repeat_moves_the_cursor_when_nothing_is_being_shown(inbox: Inbox) -> None:
    """Or it would come again after every reconnection."""
    inbox.shown(take(inbox, msg(1)))
    assert inbox.take(msg(1, 1))[1:] == (False, True)
    assert inbox.cursor == "e.1"


def test_positions_of_another_mailbox(inbox: Inbox) -> None:
    """After `reset` they begin anew; what was being shown then has no say in where the new ones are."""
    pending = take(inbox, msg(7, 7))
    inbox.greeted(ME, "f.0", "reset")
    inbox.shown(take(inbox, msg(8, 1, "f")))
    assert inbox.cursor == "f.1"
    inbox.shown(pending)
    assert inbox.cursor == "f.1"


def test_what_is_remembered_is_limited(inbox: Inbox) -> None:
    for number in range(REMEMBERED + 1):
        inbox.shown(take(inbox, msg(number)))
    assert inbox.take(msg(1))[1] is False
    assert inbox.take(msg(0))[1] is True


# -- Outbox --


class Wire:
    """An outbox and what it has written."""

    def __init__(self) -> None:
        self.written: list[Sent] = []
        self.outbox = Outbox(self.written.append, lambda sent: None)

    def send(self, to: str, message_id: str) -> Sent:
        sent = Sent(to, "Hi", message_id)
        self.outbox.add(sent)
        self.outbox.pump(0.0)
        return sent


def test_one_id_is_on_its_way_once() -> None:
    """To two people too: an ERROR names the id only."""
    wire = Wire()
    first, second = wire.send(BOB, "m1"), wire.send(CAROL, "m1")
    assert wire.written == [first]
    wire.outbox.done(first)
    wire.outbox.pump(0.0)
    assert wire.written == [first, second]


def test_a_line_waits_for_its_first() -> None:
    """And others do not."""
    wire = Wire()
    first, second, other = wire.send(BOB, "m1"), wire.send(BOB, "m2"), wire.send(CAROL, "m3")
    assert wire.written == [first, other]
    wire.outbox.again(first, FastChatError("MESSAGE_FAILED", ""), 5.0)
    wire.outbox.pump(4.0)
    assert wire.written == [first, other]
    wire.outbox.pump(5.0)
    assert wire.written == [first, other, first]
    wire.outbox.done(first)
    wire.outbox.pump(5.0)
    assert wire.written == [first, other, first, second]


# -- Receipts --


def test_the_newest_are_asked_about() -> None:
    """Not those that a server may have forgotten."""
    accepted = Accepted()
    sents = [Sent(BOB, "Hi", f"m{number}") for number in range(ASKED + 8)]
    for number, sent in enumerate(sents):
        assert accepted.add(sent, float(number)) is None
    assert accepted.latest(100.0) == sents[-ASKED:]
    assert accepted.latest(ASKED_WITHIN + 20.0) == sents[21:]
    assert accepted.asked == {sent.message_id for sent in sents[21:]}


def test_the_newest_are_followed() -> None:
    """The oldest one is given up."""
    accepted = Accepted()
    sents = [Sent(BOB, "Hi", f"m{number}") for number in range(FOLLOWED + 1)]
    given_up = [accepted.add(sent, 0.0) for sent in sents]
    assert [sent for sent in given_up if sent is not None] == sents[:1]
    assert accepted.find("m0", BOB) is None
    assert accepted.find("m1", BOB) is accepted.find("m1", None) is sents[1]


def test_who_waits_for_a_message_that_is_given_up() -> None:
    """Is told; the server has it all the same."""

    async def wait() -> None:
        sent = Sent(BOB, "Hi", "m1")
        sent.change("accepted")
        reading = asyncio.ensure_future(sent.read())
        await asyncio.sleep(0)
        sent.end(FastChatError("FORGOTTEN", "no more is learnt"))
        with pytest.raises(FastChatError, match="FORGOTTEN"):
            await reading
        with pytest.raises(FastChatError, match="FORGOTTEN"):
            await sent.delivered()
        assert await sent.accepted() is sent
        assert (sent.status, sent.error) == ("accepted", None)

    asyncio.run(wait())
