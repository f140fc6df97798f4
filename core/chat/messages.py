"""The way of one message (D9-D11, D18, D20).

`send` at the sender's shard: limit, frame, request -> `_came` at the recipient's: refuse it, recognise a repeat, or give it to
the store -> `appended`, when it is durable: into the mailbox, to the devices, answer -> `_settled` back at the sender's: MSG_ACK, or ERROR.

Most messages take a shorter way: the chat is open, the recipient is in memory on this shard, and nothing stands in the way. They need no
request and no record: `_send_here` gives them to the store, and `_acknowledge` answers. One that turns out not to be so simple gets its
request later.

Whether a message counts against the sender's limit is known only when it is settled, since repeats and refused ones don't. So the ones in
flight are counted as if they would; when that fills the limit, the next one waits until they are settled. A message that is over
the limit for certain still travels, marked: it may be the repeat of one that was accepted long ago.

A repeat is recognised in memory if the message is a recent one, else by the store, which knows all of them.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from core.chat.capacity import Capacity
from core.chat.chats import blocked
from core.chat.command_queue import EVERYTHING
from core.chat.envelope import MessageFlag, Outcome, Record, RecordKind, new_record
from core.chat.exchange import Exchange, Request
from core.chat.ports import Chance, Clock
from core.chat.repeats import Repeats
from core.chat.session import Session
from core.chat.stalls import later
from core.chat.statuses import PLAIN_STATUS, RECEIPT_STATUS, stored_text
from core.chat.store import Store, nobody_waits
from core.chat.user import Message, User
from core.events import fields
from core.measures import BUS, LOCAL, SECONDS, Histogram
from core.wire import codec
from core.wire.codec import TIMESTAMP_END, TIMESTAMP_START
from core.wire.protocol import CONFIRM_TIMEOUT, MessageType
from core.wire.timestamps import answer_timestamp

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.chat.chat_lists import ChatLists
    from core.chat.chats import Chats
    from core.chat.delivery import Delivery
    from core.chat.hook_calls import HookCalls
    from core.chat.presence import Presence
    from core.chat.typing import TypingIndicators
    from core.chat.users import Users
    from core.process.settings import Settings

_log = logging.getLogger("fastchat.core")


class Messages:
    """The messages from and to the users of one shard."""

    __slots__ = (
        *("_capacity", "_chance", "_chats", "_clock", "_deleted", "_delivery", "_exchange"),
        *("_here", "_hook_calls", "_index", "_known", "_lists", "_presence", "_repeats", "_shown"),
        *("_store", "_typing", "_users", "delivery_seconds", "sent", "sent_far"),
    )

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        chance: Chance,
        users: Users,
        exchange: Exchange,
        store: Store,
        chats: Chats,
        delivery: Delivery,
        presence: Presence,
        typing: TypingIndicators,
        lists: ChatLists,
        hook_calls: HookCalls | None,
    ) -> None:
        self._hook_calls = hook_calls
        self._lists = lists
        self._clock = clock
        self._chance = chance
        self._users = users
        self._known = users.known
        self._deleted = users.deleted
        self._exchange = exchange
        self._index = exchange.index
        self._store = store
        self._chats = chats
        self._delivery = delivery
        self._presence = presence
        self._typing = typing
        self._capacity = Capacity(store, settings.mailbox_max)
        self._repeats = Repeats(exchange, store)
        #: Message that went the shorter way -> until when it must be confirmed, and who has sent it; in order of time.
        self._here: dict[Message, tuple[float, Session]] = {}
        exchange.on(RecordKind.MESSAGE, 4, self._came, body=True, asks=True)
        exchange.on_outcome(MessageType.MSG, self._settled)
        #: Valid MSG, and those of them that went to another shard.
        self.sent = 0
        self.sent_far = 0
        #: The deadlines of the messages that were shown in this loop turn, which say when they were sent; by the way that they took.
        self._shown: dict[str, list[float]] = {LOCAL: [], BUS: []}
        self.delivery_seconds = {LOCAL: Histogram(SECONDS), BUS: Histogram(SECONDS)}

    def send(
        self,
        session: Session,
        recipient: str,
        content: str,
        message_id: str | None,
        data: dict[str, Any],
        now: float,
    ) -> None:
        """Send a valid MSG. `data` is what the client sent, kept when it can't be decided yet whether one more is allowed; `content` is its
        text, sanitised.
        """
        user = session.user
        assert user is not None, "the command table asks for HELLO first"
        if user.is_blocked(recipient):
            raise blocked("to")
        chat = user.chats.get(recipient)
        altered = session.receipts and content != data["content"]
        if message_id is None:
            message_id = self._chance.message_id()
        as_json = codec.to_json(content)
        if (
            chat is not None
            and not altered
            and self.send_plain(session, user, chat, as_json, message_id, now)
        ):
            return
        flags = 0
        if chat is not None and chat.saved:
            flags = MessageFlag.CHAT_OPEN
            if not (chat.written and chat.confirmed):
                self._chats.wrote(session, user, chat)
        # In flight, those of backends and of people are not told apart: until they are settled they hold back more than they have to.
        if user.messages_of(session).retry_after(now, user.in_flight):
            if user.in_flight:
                session.hold_back(MessageType.MSG, data)
                if user.parked is None:
                    user.parked = []
                user.parked.append(session)
                return
            flags |= MessageFlag.ONLY_IF_REPEAT
        request = self._exchange.open(MessageType.MSG, session, user, recipient, message_id, now)
        request.frame = self._begin(session, user, recipient, as_json, message_id, now)
        request.altered = altered
        self._ask(request, flags, now)

    def send_plain(
        self, session: Session, user: User, chat: Chat, content: bytes, message_id: str, now: float
    ) -> bool:
        """Send a valid MSG with nothing in its way; `content` is a JSON string. False, and nothing has happened, when something is."""
        if not (chat.saved and chat.written and chat.confirmed):
            return False
        # `User.is_apart`, without the call.
        if user.blocks is not None and chat.peer in user.blocks:
            return False
        # `User.messages_of`, without the call.
        sent = user.service.messages if session.service else user.messages
        if sent.retry_after(now, user.in_flight):
            return False
        recipient = chat.peer
        peer = self._known.get(recipient)
        if peer is not None:
            return self._send_here(session, user, peer, content, message_id, now)
        if self._exchange.is_here(recipient):
            return False
        request = self._exchange.open(MessageType.MSG, session, user, recipient, message_id, now)
        request.frame = self._begin(session, user, recipient, content, message_id, now)
        self._ask(request, MessageFlag.CHAT_OPEN, now)
        return True

    def _ask(self, request: Request, flags: int, now: float) -> None:
        """Send the request to the shard of the recipient."""
        session, user, recipient = request.session, request.user, request.peer
        assert request.message_id is not None, "every message has an id"
        if flags & MessageFlag.CHAT_OPEN:
            session.choose(recipient, request.ticket)
        if session.receipts:
            flags |= MessageFlag.RECEIPTS
        if session.service and recipient != user.user_id:
            flags |= MessageFlag.SERVICE
        texts = (user.user_id, recipient, request.message_id, str(user.mailbox.lamport + 1))
        if self._exchange.ask(RecordKind.MESSAGE, flags, request, texts, request.frame, now):
            self.sent_far += 1

    def _send_here(
        self, session: Session, user: User, peer: User, content: bytes, message_id: str, now: float
    ) -> bool:
        """Send it the shorter way. False, and nothing has happened, when that is not for this message."""
        sender, recipient = user.user_id, peer.user_id
        chat, mailbox, capacity = peer.chats.get(sender), peer.mailbox, self._capacity
        if (
            chat is None
            or not chat.saved
            or mailbox.waiting >= capacity.free_below
            or capacity.counting
            or (peer.blocks is not None and sender in peer.blocks)
            or mailbox.find(sender, message_id) is not None
        ):
            return False
        frame = self._begin(session, user, recipient, content, message_id, now)
        deadline = now + CONFIRM_TIMEOUT
        lamport = user.mailbox.lamport + 1
        message = Message(peer, chat, message_id, frame, session.receipts, lamport, deadline)
        mailbox.reserve(message)
        session.choose(recipient, self._exchange.ticket())
        self._here[message] = deadline, session
        self._store.append(message)
        return True

    def _begin(
        self, session: Session, user: User, recipient: str, content: bytes, message_id: str, now: float
    ) -> bytes:
        """Count a message that is sent, and return its frame."""
        chat = user.chats.get(recipient)
        timestamp = self._clock.timestamp()
        if chat is not None and chat.heard_at >= timestamp:
            timestamp = answer_timestamp(timestamp, chat.heard_at)
        if session.typing_to and recipient in session.typing_to:
            session.typing_to[recipient] = now
        self.sent += 1
        user.in_flight += 1
        session.asked()
        return codec.msg(user.user_id, recipient, content, message_id, timestamp)

    def _came(self, record: Record, now: float) -> None:
        """Refuse it at the recipient's shard, recognise it, or give it to the store."""
        recipient = record.texts[1]
        user = self._known.get(recipient)
        if user is not None:
            self._accept(record, user, None, now)
        else:
            self._users.find(recipient, partial(self._accept, record), now)

    def _accept(self, record: Record, user: User | None, failure: str | None, now: float) -> None:
        if user is None or failure is not None:
            outcome = Outcome.USER_NOT_FOUND if failure is None else Outcome.FAILED
            self._exchange.reply(record, outcome, "", now)
            return
        _, _, flags, _, deadline, (sender, _, message_id, lamport), frame = record
        if self._deleted and sender in self._deleted:
            self._exchange.reply(record, Outcome.FAILED, "", now)
            return
        chat = user.chats.get(sender)
        opens = False
        if chat is None or not chat.saved:
            if flags & MessageFlag.CHAT_OPEN:
                chat = self._repair(user, sender)
            elif flags & MessageFlag.SERVICE:
                opens = True
            else:
                self._exchange.reply(record, Outcome.CHAT_NOT_OPENED, "", now)
                return
        mailbox = user.mailbox
        message = mailbox.find(sender, message_id)
        if message is not None and message.seq:
            self._repeats.answer(record, message, now)
            return
        if message is not None and codec.same_message(message.frame, frame):
            message.waiting.append(record)
            return
        capacity, refusal = self._capacity, None
        withheld = user.is_blocked(sender)
        if message is not None:
            # It conflicts with one that is being stored, unless that is itself the one that will be refused.
            refusal = Outcome.FAILED
        elif flags & MessageFlag.ONLY_IF_REPEAT:
            refusal = Outcome.RATE_LIMITED
        elif withheld:
            refusal = capacity.refusal_of_withheld(user, sender)
        elif mailbox.waiting >= capacity.free_below or capacity.counting:
            service = bool(flags & MessageFlag.SERVICE)
            if capacity.must_wait(user, service):
                capacity.wait(user, partial(self._accept, record, user))
                return
            refusal = capacity.refusal(user, chat, service)
        if refusal is None:
            if opens or chat is None:
                # The first message of a backend opens the chat, and a refused one does not (D34).
                chat = self._repair(user, sender)
            receipts = bool(flags & MessageFlag.RECEIPTS)
            message = Message(user, chat, message_id, frame, receipts, int(lamport), deadline)
            message.waiting.append(record)
            message.withheld = withheld
            mailbox.reserve(message)
            self._store.append(message)
            if withheld:
                self._count_withheld(user, sender, 1)
            return
        # Nothing new is taken, but it may be the repeat of a message that only the store knows.
        self._store.find(user, sender, message_id, partial(self._repeats.answer_old, record, refusal))

    def _repair(self, user: User, sender: str) -> Chat:
        return self._chats.repair(user, sender, self._chats.name_of(sender))

    def appended(self, messages: list[Message], failure: str | None, now: float) -> None:
        """Show and acknowledge these messages, which the store has committed; or say that it could not."""
        for message in messages:
            try:
                self._appended(message, failure, now)
            except Exception:
                _log.exception("bug while showing a message", extra=fields(user=message.user.user_id))

    def _appended(self, message: Message, failure: str | None, now: float) -> None:
        user = message.user
        here = self._here.pop(message, None)
        if here is not None and (failure is not None or message.original is not None):
            self._ask_after_all(message, here[1], now)
            here = None
        waiting, message.waiting = message.waiting, []
        if failure is not None:
            self._withdraw(message)
            outcome = repeat = Outcome.FAILED
        elif message.original is not None:
            self._withdraw(message)
            for record in waiting:
                self._repeats.answer(record, message.original, now)
            return
        elif message.withheld:
            user.mailbox.withdraw(message)
            outcome, repeat = Outcome.STORED, Outcome.REPEAT_STORED
        else:
            user.mailbox.commit(message)
            chat = message.chat
            chat.heard_at = message.frame[TIMESTAMP_START:TIMESTAMP_END]
            if user.lists or chat.hidden:
                self._lists.received(user, message, now)
            self._typing.end(user, message.sender)
            if user.sessions and self._show(user, message, now):
                outcome, repeat = Outcome.DELIVERED, Outcome.REPEAT_DELIVERED
                is_local = here is not None or waiting[0].worker == self._index
                self._shown[LOCAL if is_local else BUS].append(message.deadline)
            else:
                outcome, repeat = Outcome.STORED, Outcome.REPEAT_STORED
                if self._hook_calls is not None and not user.sessions:
                    self._hook_calls.waits(user, chat, now)
            if here is not None:
                self._acknowledge(here[1], user.user_id, message, outcome, None, now)
                outcome = repeat
        for record in waiting:
            self._exchange.reply(record, outcome, user.stored_name, now)
            outcome = repeat

    def _ask_after_all(self, message: Message, session: Session, now: float) -> None:
        """Make the request and the record of a message that went the shorter way."""
        user, peer = session.user, message.user.user_id
        assert user is not None, "who writes has said HELLO"
        request = self._exchange.open(MessageType.MSG, session, user, peer, message.message_id, now)
        request.frame = message.frame
        texts = (message.sender, peer, message.message_id, str(message.lamport))
        flags = MessageFlag.CHAT_OPEN | (MessageFlag.RECEIPTS if message.receipts else 0)
        record = new_record((self._index, 0, flags, request.ticket, message.deadline, texts, message.frame))
        message.waiting.insert(0, record)

    def _withdraw(self, message: Message) -> None:
        """Forget a message that could not be stored, or was before."""
        message.user.mailbox.withdraw(message)
        if message.withheld:
            self._count_withheld(message.user, message.sender, -1)

    def _count_withheld(self, user: User, sender: str, messages: int) -> None:
        """Count what fills the sender's share of a mailbox whose owner has blocked the sender (D32)."""
        block = user.between(sender)
        user.set_block(sender, block._replace(withheld=max(0, block.withheld + messages)))
        self._store.save_block(user, sender, nobody_waits)

    @property
    def open(self) -> int:
        """How many messages that went the shorter way are not settled."""
        return len(self._here)

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the worker stood still (``core.chat.stalls``)."""
        latest = now + CONFIRM_TIMEOUT
        for message, (until, session) in self._here.items():
            self._here[message] = later(until, seconds, latest), session

    def tick(self, now: float) -> None:
        """Give up what the store has not confirmed in time."""
        while self._here:
            message, (until, session) = next(iter(self._here.items()))
            if until > now:
                return
            del self._here[message]
            self._ask_after_all(message, session, now)
            self._exchange.give_up(message.waiting[0].ticket, now)

    def written(self, now: float) -> None:
        """Note that what was shown in this loop turn has been written to the clients."""
        for route, deadlines in self._shown.items():
            if deadlines:
                latest = now + CONFIRM_TIMEOUT
                self.delivery_seconds[route].record_all([latest - deadline for deadline in deadlines])
                deadlines.clear()

    def _settled(self, request: Request, outcome: int, name: str, now: float) -> None:
        """Answer at the sender's shard: MSG_ACK, or why not. `name` is the recipient's, if the message was accepted."""
        user, session, peer = request.user, request.session, request.peer
        chat = user.chats.get(peer)
        if outcome not in PLAIN_STATUS:
            self._exchange.refuse(request, outcome, now)
            self._decided(session, user)
            return
        if chat is not None and chat.noting:
            chat.wait(partial(self._settled, request, outcome, name))
            return
        if chat is None and peer in self._deleted:
            # It has come before that, from a process that has died since (D36).
            self._exchange.refuse(request, Outcome.USER_NOT_FOUND, now)
            self._decided(session, user)
            return
        if chat is None or not chat.saved:
            # The recipient's shard has the chat, so it is open: the record here was lost (D7), or a backend has opened it (D34).
            chat = self._chats.repair(user, peer, name)
            self._chats.wrote(session, user, chat)
            chat.wait(partial(self._repaired, request, outcome, chat))
            return
        stored = stored_text(request) if request.altered else None
        self._acknowledge(session, peer, request, outcome, stored, now, request.sent_again)

    def _repaired(self, request: Request, outcome: int, chat: Chat, now: float) -> None:
        """Tell of a chat before the message that has opened it. One that could not be stored is repaired by the next message."""
        if chat.saved:
            self._delivery.announce(request.user, chat, now)
            request.session.choose(chat.peer, request.ticket)
        stored = stored_text(request) if request.altered else None
        self._acknowledge(request.session, chat.peer, request, outcome, stored, now, request.sent_again)

    def _acknowledge(
        self,
        session: Session,
        peer: str,
        sent: Message | Request,
        outcome: int,
        stored: bytes | None,
        now: float,
        sent_again: bool = False,
    ) -> None:
        """Answer an accepted message. `stored` is its content as JSON, for a sender who wrote something else (D11).

        One that this shard has `sent_again` may look like a repeat, and is none.
        """
        user, message_id = session.user, sent.message_id
        assert user is not None, "who writes has said HELLO"
        assert message_id is not None, "every message has an id"
        if not session.closed:
            if session.receipts:
                ack = codec.receipt(message_id, RECEIPT_STATUS[outcome], peer, stored)
            else:
                ack = codec.msg_ack(message_id, PLAIN_STATUS[outcome])
            session.connection.send(ack)
        if outcome > Outcome.STORED and not sent_again:
            session.charge(now)
        else:
            (user.service.messages if session.service else user.messages).count(now)
            chat, timestamp = user.chats[peer], sent.frame[TIMESTAMP_START:TIMESTAMP_END]
            if timestamp > chat.active_at:
                chat.active_at = timestamp
            if user.lists or chat.hidden:
                self._lists.sent(user, chat, sent.frame, session, now)
            sessions = user.sessions
            if len(sessions) != 1 or sessions[0] is not session:
                self._send_carbons(user, session, sent.frame)
                if not user.sessions:
                    self._lists.sent_last(user, chat)
        self._decided(session, user)

    def _decided(self, session: Session, user: User) -> None:
        """Note that a message is settled, and go on with the sessions that wait to know whether one more is allowed."""
        user.in_flight -= 1
        session.decided()
        if user.parked:
            for parked in user.parked:
                parked.continue_later(EVERYTHING)
            user.parked = None

    def _show(self, user: User, message: Message, now: float) -> bool:
        """Write it to the devices; whether there was one to write to. CHAT_OPENED comes before the first message (D7)."""
        if not message.chat.confirmed:
            self._delivery.announce(user, message.chat, now)
        return self._delivery.deliver(user, message, now)

    def _send_carbons(self, user: User, sender: Session, frame: bytes) -> None:
        """Send what one device of `user` has sent to the others that want to see it (D15)."""
        for session in user.sessions:
            if session.carbons and session is not sender:
                session.connection.send(frame)
