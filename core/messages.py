"""The way of one message (D9-D11, D18, D20).

`send` at the sender's shard: limit, frame, request -> `accept` at the recipient's: refuse it, recognise a repeat, or give it to
the store -> `appended`, when it is durable: into the mailbox, to the devices, answer -> `settled` back at the sender's: MSG_ACK, or ERROR.

Whether a message counts against the sender's limit is known only when it is settled, since repeats and refused ones don't. So the ones in
flight are counted as if they would; when that fills the limit, the next one waits until they are settled. A message that is over
the limit for certain still travels, marked: it may be the repeat of one that was accepted long ago.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from core import codec
from core.envelope import MessageFlag, Outcome, RecordKind, pack_record
from core.mailbox import Message
from core.protocol import UNCOMMITTED_MAX, AckStatus, MessageType
from core.requests import Request
from core.session import Session
from core.user import User
from core.waiting_line import EVERYTHING

if TYPE_CHECKING:
    from core.shard import Shard

_ACK_STATUS: Final[dict[int, str]] = {
    Outcome.DELIVERED: AckStatus.DELIVERED,
    Outcome.STORED: AckStatus.STORED,
    Outcome.REPEAT_DELIVERED: AckStatus.DELIVERED,
    Outcome.REPEAT_STORED: AckStatus.STORED,
}


class Messages:
    """The messages from and to the users of one shard."""

    __slots__ = ("_shard",)

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def send(
        self,
        session: Session,
        user: User,
        recipient: str,
        content: str,
        message_id: str | None,
        data: dict[str, Any],
        now: float,
    ) -> None:
        """A valid MSG. `data` is what the client sent, kept when it can't be decided yet whether one more is allowed."""
        shard = self._shard
        flags = MessageFlag.CHAT_OPEN if recipient in user.chats else 0
        if user.messages.retry_after(now, user.in_flight):
            if user.in_flight:
                session.hold_back(MessageType.MSG, data)
                user.parked.append(session)
                return
            flags |= MessageFlag.ONLY_IF_REPEAT
        if message_id is None:
            message_id = _new_message_id()
        frame = codec.msg(user.user_id, recipient, content, message_id, shard.clock.timestamp())
        if session.typing_to and recipient in session.typing_to:
            session.typing_to[recipient] = now
        user.in_flight += 1
        session.in_flight += 1
        if session.in_flight >= UNCOMMITTED_MAX:
            session.adjust_reading()
        ticket, deadline = shard.requests.open(MessageType.MSG, session, user, recipient, message_id, now)
        if flags & MessageFlag.CHAT_OPEN:
            session.choose(recipient, ticket)
        owner = shard.placement.worker_of(recipient)
        if owner == shard.index:
            self.accept(owner, ticket, flags, user.user_id, recipient, message_id, frame, now)
        else:
            fields = (user.user_id.encode(), recipient.encode(), message_id.encode(), frame)
            shard.bus.send(owner, pack_record(RecordKind.MESSAGE, flags, ticket, deadline, *fields))

    def accept(
        self,
        origin: int,
        ticket: int,
        flags: int,
        sender: str,
        recipient: str,
        message_id: str,
        frame: bytes,
        now: float,
    ) -> None:
        """At the recipient's shard: refuse it, recognise it, or give it to the store."""
        shard = self._shard
        user = shard.find(recipient)
        if user is None:
            shard.reply(origin, ticket, Outcome.USER_NOT_FOUND, "", now)
            return
        if sender not in user.chats:
            if not flags & MessageFlag.CHAT_OPEN:
                shard.reply(origin, ticket, Outcome.CHAT_NOT_OPENED, "", now)
                return
            shard.chats.repair(user, sender, shard.presence.name_of(sender) or sender)
        mailbox = user.mailbox
        message = mailbox.find(sender, message_id)
        if message is not None:
            if not codec.same_message(message.frame, frame):
                shard.reply(origin, ticket, Outcome.CONFLICT, "", now)
            elif message.seq:
                outcome = Outcome.REPEAT_DELIVERED if message.written else Outcome.REPEAT_STORED
                shard.reply(origin, ticket, outcome, user.display_name, now)
            else:
                message.waiting.append((origin, ticket))
        elif flags & MessageFlag.ONLY_IF_REPEAT:
            shard.reply(origin, ticket, Outcome.RATE_LIMITED, "", now)
        elif mailbox.full:
            shard.reply(origin, ticket, Outcome.MAILBOX_FULL, "", now)
        else:
            message = Message(sender, recipient, message_id, frame)
            message.waiting.append((origin, ticket))
            mailbox.reserve(message)
            shard.store.append(message)

    def appended(self, messages: list[Message], failure: str | None, now: float) -> None:
        """The store has committed these, or could not: show and acknowledge them, or say so."""
        shard = self._shard
        for message in messages:
            user = shard.users[message.recipient]
            if failure is not None:
                user.mailbox.withdraw(message)
                outcome = repeat = Outcome.FAILED
            else:
                user.mailbox.commit(message)
                shard.typing.message_came(user, message.sender)
                if user.sessions:
                    self._show(user, message, now)
                outcome = Outcome.DELIVERED if message.written else Outcome.STORED
                repeat = Outcome.REPEAT_DELIVERED if message.written else Outcome.REPEAT_STORED
            waiting, message.waiting = message.waiting, []
            for origin, ticket in waiting:
                shard.reply(origin, ticket, outcome, user.display_name, now)
                outcome = repeat

    def settled(self, request: Request, outcome: int, name: str, now: float) -> None:
        """Back at the sender's shard: MSG_ACK, or why not. `name` is the recipient's, if the message was accepted."""
        shard, user, session = self._shard, request.user, request.session
        user.in_flight -= 1
        session.in_flight -= 1
        status = _ACK_STATUS.get(outcome)
        if status is None:
            shard.refuse(request, outcome, now)
        else:
            if outcome in (Outcome.DELIVERED, Outcome.STORED):
                user.messages.count(now)
            if request.peer not in user.chats:
                # The recipient's shard knows of the chat, so it is open, and the record here was lost (D7).
                shard.chats.announce(user, shard.chats.repair(user, request.peer, name))
                session.choose(request.peer, request.ticket)
            if not session.closed:
                assert request.message_id is not None, "every message has an id"
                session.connection.send(codec.msg_ack(request.message_id, status))
        session.adjust_reading()
        if user.parked:
            for parked in user.parked:
                shard.continue_later(parked, EVERYTHING)
            user.parked = []

    def _show(self, user: User, message: Message, now: float) -> None:
        """Write it to the devices; CHAT_OPENED comes before the first message (D7)."""
        shard, sender = self._shard, message.sender
        # The record is missing if the store took the message but not the chat that was opened just before.
        chat = user.chats.get(sender) or shard.chats.repair(
            user, sender, shard.presence.name_of(sender) or sender
        )
        if not chat.announced:
            shard.chats.announce(user, chat)
        shard.delivery.deliver(user, message, now)


def _new_message_id() -> str:
    """A UUID v4. Message ids must be unique per sender and recipient, not unguessable, and `uuid4` costs four times as much."""
    return str(UUID(int=random.getrandbits(128), version=4))
