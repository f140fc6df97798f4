"""Receipts: what becomes of a message after it was accepted, told to a sender who wants to know (D11).

A message remembers whether its sender asked for receipts. When a device of the recipient has acknowledged it, or the recipient has read it
(``core.chat.reading``), and the store has that, RECEIPT goes to the sender's shard, and from there to those devices of the sender that
understand it. A sender who is away misses it; sending the message again brings the state that it has then.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from core.chat.envelope import ReceiptFlag, RecordKind
from core.chat.exchange import Exchange
from core.chat.store import Store
from core.chat.user import User
from core.wire import codec
from core.wire.protocol import AckStatus

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.chat.user import Message
    from core.chat.users import Users

#: Seconds until what could not be saved is tried again.
_AGAIN: Final = 1.0

_STATUS: Final[dict[int, str]] = {
    ReceiptFlag.DELIVERED: AckStatus.DELIVERED,
    ReceiptFlag.READ: AckStatus.READ,
}


class Receipts:
    """The receipts from and to the users of one shard."""

    __slots__ = ("_again", "_exchange", "_owed", "_store", "_users")

    def __init__(self, users: Users, exchange: Exchange, store: Store) -> None:
        self._users = users
        self._exchange = exchange
        self._store = store
        exchange.on_told(RecordKind.RECEIPT, 3, self._came)
        #: (when, recipient, (sender, message id) of messages): acknowledgements to be saved again. In order of time.
        self._again: deque[tuple[float, str, list[tuple[str, str]]]] = deque()
        #: (recipient, sender, message id) of those of which the sender has been told neither `delivered` nor, since, `read`.
        self._owed: set[tuple[str, str, str]] = set()

    @property
    def owed(self) -> int:
        """How many receipts wait for acknowledgements that could not be saved."""
        return len(self._owed)

    # -- At the recipient's shard --

    def acknowledged(self, user: User, message: Message) -> None:
        """Note that a device of `user` has this message."""
        mailbox = user.mailbox
        if mailbox.acknowledge(message.seq):
            mailbox.receipts_due.pop(message.seq, None)
            if message.receipts:
                told = [(message.sender, message.message_id)]
                self._store.save_acknowledged(user, partial(self.delivered, user.user_id, told))
            else:
                self._store.save_acknowledged(user)

    def acknowledged_all(self, user: User, chat: Chat, messages: list[tuple[int, str, bool]]) -> None:
        """Note that a device of `user` has these messages of a chat: (position, message id, whether the sender wants receipts)."""
        mailbox = user.mailbox
        news = [message for message in messages if mailbox.acknowledge(message[0])]
        for seq, _, _ in news:
            mailbox.receipts_due.pop(seq, None)
        told = [(chat.peer, message_id) for _, message_id, receipts in news if receipts]
        if told:
            self._store.save_acknowledged(user, partial(self.delivered, user.user_id, told))
        elif news:
            self._store.save_acknowledged(user)

    def read(self, user: User, sender: str, message_ids: list[str], now: float) -> None:
        """Note that it is durable that `user` has read these messages, whose sender wants receipts."""
        for message_id in message_ids:
            self._owed.discard((user.user_id, sender, message_id))
            if not user.is_apart(sender):
                self._notify(sender, user.user_id, message_id, ReceiptFlag.READ, now)

    def delivered(
        self, recipient: str, messages: list[tuple[str, str]], failure: str | None, now: float
    ) -> None:
        """Note that acknowledgements of these (sender, message id) are durable; or could not be saved, and are to be saved again."""
        if failure is not None:
            self._again.append((now + _AGAIN, recipient, messages))
            self._owed.update((recipient, *message) for message in messages)
            return
        user = self._users.known.get(recipient)
        for sender, message_id in messages:
            if user is None or not user.is_apart(sender):
                self._notify(sender, recipient, message_id, ReceiptFlag.DELIVERED, now)

    def tick(self, now: float) -> None:
        """Try again to save what could not be saved. Who is no longer in memory will acknowledge again."""
        while self._again and self._again[0][0] <= now:
            _, recipient, messages = self._again.popleft()
            user = self._users.known.get(recipient)
            if user is not None:
                again = partial(self._delivered_at_last, recipient, messages)
                self._store.save_acknowledged(user, again)
            else:
                self._owed.difference_update((recipient, *message) for message in messages)

    def _delivered_at_last(
        self, recipient: str, messages: list[tuple[str, str]], failure: str | None, now: float
    ) -> None:
        """Note that what has been read meanwhile is past being delivered, and its sender knows."""
        owed = [message for message in messages if (recipient, *message) in self._owed]
        self._owed.difference_update((recipient, *message) for message in owed)
        self.delivered(recipient, owed, failure, now)

    def _notify(self, sender: str, recipient: str, message_id: str, flag: ReceiptFlag, now: float) -> None:
        self._exchange.notify(sender, RecordKind.RECEIPT, flag, (sender, recipient, message_id), now)

    # -- At the sender's shard --

    def _came(self, texts: tuple[str, ...], flag: int, now: float) -> None:
        """Tell the devices of the sender."""
        sender, recipient, message_id = texts
        user = self._users.known.get(sender)
        if user is None or not user.sessions or user.is_apart(recipient):
            return
        chat = user.chats.get(recipient)
        if chat is not None and chat.noting:
            # The answer to the message itself waits for the store (`Messages._settled`), and comes first.
            chat.wait(partial(self._came, texts, flag))
            return
        frame = codec.receipt(message_id, _STATUS[flag], recipient)
        for session in user.sessions:
            if session.receipts:
                session.connection.send(frame)
