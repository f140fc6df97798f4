"""Messages that come again: what their sender is told (D10)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.chat.envelope import MessageFlag, Outcome, Record
from core.chat.exchange import Exchange
from core.chat.store import Store
from core.wire import codec

if TYPE_CHECKING:
    from core.chat.user import Message, User


class Repeats:
    """The repeats of messages to the users of one shard."""

    __slots__ = ("_exchange", "_store")

    def __init__(self, exchange: Exchange, store: Store) -> None:
        self._exchange = exchange
        self._store = store

    def answer(self, record: Record, message: Message, now: float) -> None:
        """Answer `record`, which has the sender and id of a committed message."""
        user = message.user
        if not codec.same_message(message.frame, record.body):
            outcome = Outcome.CONFLICT
        elif message.withheld:
            outcome = Outcome.REPEAT_STORED
        elif message.read and not user.is_apart(message.sender):
            outcome = Outcome.REPEAT_READ
        elif user.mailbox.is_acknowledged(message.seq):
            outcome = Outcome.REPEAT_ACKNOWLEDGED
        elif user.is_apart(message.sender):
            outcome = Outcome.REPEAT_STORED
        elif any(session.cursor >= message.seq for session in user.sessions):
            outcome = Outcome.REPEAT_DELIVERED
        else:
            outcome = Outcome.REPEAT_STORED
        told = outcome in (Outcome.REPEAT_READ, Outcome.REPEAT_ACKNOWLEDGED)
        if told and record.flags & MessageFlag.RECEIPTS:
            # What is told of the recipient must be durable too, and may be known only here as yet.
            self._store.save_acknowledged(user, partial(self._saved, record, outcome, user))
        else:
            self._exchange.reply(record, outcome, user.stored_name, now)

    def _saved(self, record: Record, outcome: Outcome, user: User, failure: str | None, now: float) -> None:
        self._exchange.reply(record, outcome if failure is None else Outcome.FAILED, user.stored_name, now)

    def answer_old(
        self, record: Record, refusal: Outcome, found: list[Message], failure: str | None, now: float
    ) -> None:
        """Answer what would be a repeat: the store has looked for the message."""
        if found:
            self.answer(record, found[0], now)
        else:
            self._exchange.reply(record, refusal if failure is None else Outcome.FAILED, "", now)
