"""The users of one worker, and the way between them and the users of the others.

Everything about a user happens on the shard that owns the user. This is where it all comes in: sessions, records from the other shards,
and time. What happens then has rooms of its own: `greetings`, `chats`, `messages`, `delivery`, `receipts`, `history`, `typing_indicator`,
`presence`, `users` for who is in memory, and `requests` for what waits for another shard's answer.

What one shard asks of another stays in order: that keeps messages in order (D18), and lets a client send OPEN_CHAT and MSG in one go.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Final

from core.auth.tokens import TokenVerifier
from core.chat.chats import Chats
from core.chat.delivery import Delivery
from core.chat.envelope import (
    Outcome,
    Record,
    RecordKind,
    pack_record,
    record_fields,
    record_head,
    unpack_envelope,
)
from core.chat.expiry import Expiries
from core.chat.hello import Greetings
from core.chat.history import Histories
from core.chat.long_texts import LongTexts
from core.chat.messages import Messages
from core.chat.pace import shared_credit
from core.chat.ports import Bus, Clock, Connection, Store, nobody_waits
from core.chat.presence import Presence
from core.chat.receipts import Receipts
from core.chat.requests import SHARES, Request, Requests, refusal
from core.chat.session import Session, command_table
from core.chat.typing import TypingIndicators
from core.chat.users import Users
from core.events import fields
from core.measures import BUS, LOCAL, OTHER, SECONDS, Histogram, series
from core.placement import Placement
from core.process.settings import Settings
from core.wire.protocol import CloseCode, ErrorCode, MessageType
from core.wire.validation import Validator

_log = logging.getLogger("fastchat.core")

#: Reasons of closes that are told apart in the metrics. All of our own are fewer.
_REASONS_MAX: Final = 60
#: What a client reads whose connection is closed with 1011.
BUG_REASON: Final = "the server has a bug; it has been logged"


class Shard:
    """One worker's part of FastChat, without any I/O."""

    def __init__(
        self,
        index: int,
        generation: int,
        settings: Settings,
        bus: Bus,
        store: Store,
        clock: Clock,
        tokens: TokenVerifier | None = None,
    ) -> None:
        """`tokens` checks what proves who a client is, where something has to."""
        self.index = index
        self.generation = generation
        self.settings = settings
        self.placement = Placement(settings.workers)
        self.bus = bus
        self.store = store
        self.clock = clock
        self.users = Users(store)
        self.validator = Validator(settings.user_ids)
        #: Another one takes its place when the keys are read again.
        self.tokens = tokens
        self.expiries = Expiries(self)
        self.receipts = Receipts(self)
        self.delivery = Delivery(store, self.receipts)
        self.greetings = Greetings(self)
        self.histories = Histories(self)
        self.presence = Presence(settings.presence, index, settings.workers, bus)
        self.chats = Chats(self)
        self.messages = Messages(self)
        self.typing = TypingIndicators(self)
        self.long_texts = LongTexts()
        #: What messages may come to nothing beyond what each connection may send of them.
        self.spare = shared_credit()
        #: What clients may say, each command with the number of times that it came; and ERROR sent, by what they answer, and code.
        self.commands = command_table()
        self.errors: defaultdict[tuple[str, str], int] = defaultdict(int)
        # From 0 on: of a counter that is not there before its first step, Prometheus does not see that step.
        self.errors[MessageType.MSG, ErrorCode.MESSAGE_FAILED] = 0
        #: What else has happened how often: series of ``core.process.metrics``.
        self.counters: defaultdict[str, int] = defaultdict(int)
        #: How long envelopes from other shards were on their way.
        self._bus_seconds = Histogram(SECONDS)
        #: Why connections were closed; texts of ours, and some of them of libraries.
        self._close_reasons: set[str] = set()
        self.requests = Requests(generation)
        #: Sessions that may go on with what waited, and the key on which it waited.
        self._ready: deque[tuple[Session, str]] = deque()
        #: Workers that a presence record did not reach, since the way to them was full: they need a snapshot, and may owe us one.
        self._presence_owed: set[int] = set()
        self._records: dict[int, Callable[[int, int, Record, bytes, float], None]] = {
            RecordKind.MESSAGE: self._on_message,
            RecordKind.OPEN_CHAT: self._on_open_chat,
            RecordKind.RESULT: self._on_result,
            RecordKind.CHAT_OPENED: self._on_chat_opened,
            RecordKind.TYPING: self._on_typing,
            RecordKind.RENAMED: self._on_renamed,
            RecordKind.RECEIPT: self._on_receipt,
            RecordKind.HISTORY: self._on_history,
            RecordKind.HISTORY_PAGE: self._on_history_page,
            RecordKind.PRESENCE: self._on_presence,
            RecordKind.PRESENCE_SNAPSHOT: self._on_presence_snapshot,
            RecordKind.PRESENCE_REQUEST: self._on_presence_request,
        }

    # -- From the worker --

    def start(self) -> None:
        """Tell the other workers that this process is a new one, and ask who is online with them."""
        for worker in range(self.settings.workers):
            if worker != self.index:
                self._exchange_presence(worker)

    def connect(
        self, connection: Connection, claimed: str, strikes: int, now: float, expires: float = 0.0
    ) -> Session:
        """A new session on a connection whose first message will be HELLO of `claimed`, after `strikes` invalid ones.

        `expires` is when the token expires that has proven it, in seconds since 1970; 0 when none had to.
        """
        session = Session(self, connection, claimed, strikes, now, expires)
        if expires:
            self.expiries.watch(session, self.clock.seconds())
        return session

    def close(self, session: Session, code: int, reason: str, now: float) -> None:
        """End a session from this side."""
        self.count_close("server", int(code), reason)
        session.note_close("server", int(code), reason, now)
        connection = session.connection
        session.abandon(now)
        connection.close(code, reason)

    def detach(self, session: Session, now: float) -> None:
        """A session has ended; called once by `Session.on_closed`."""
        if session.expires:
            self.expiries.forget(session)
        user = session.user
        if user is None or session not in user.sessions:
            return
        user.sessions.remove(session)
        self.delivery.disconnected(user, session)
        self.typing.disconnected(user, session, now)
        self.presence.detach(user, session, now)
        self.users.idle.note(user, now)
        if not user.sessions and not user.chats:
            self.store.save_user(user, nobody_waits)  # when a stranger was here last

    def receive_envelope(self, envelope: bytes, now: float) -> None:
        """What another shard sent.

        Raises ValueError for what can't be read, since the two run different versions, and whatever a bug raises; but first the other
        records of the envelope are handled, which are other people's.
        """
        worker, generation, sent_at, records = unpack_envelope(envelope)
        self._bus_seconds.record(max(0.0, now - sent_at))
        problem: Exception | None = None
        for record in records:
            head = record_head(record)
            try:
                handle = self._records.get(head.kind)
                if handle is None:
                    raise ValueError(f"unknown kind of record {head.kind}")
                handle(worker, generation, head, record, now)
            except Exception as error:
                problem = problem or error
        if problem is not None:
            raise problem

    def undeliverable(self, worker: int, records: list[bytes], now: float) -> None:
        """The bus could not take these records: what waits for an answer fails now rather than in 5 s."""
        for record in records:
            head = record_head(record)
            self.counters["bus_undeliverable_total"] += 1
            if head.kind in (RecordKind.MESSAGE, RecordKind.OPEN_CHAT, RecordKind.HISTORY):
                self.settle(head.ticket, Outcome.FAILED, "", now)
            elif head.kind in (
                RecordKind.PRESENCE,
                RecordKind.PRESENCE_SNAPSHOT,
                RecordKind.PRESENCE_REQUEST,
            ):
                self._presence_owed.add(worker)

    def worker_gone(self, worker: int, generation: int, now: float) -> None:
        """The supervisor says that this process is dead."""
        self.presence.worker_gone(worker, generation, now)

    def run_ready(self, now: float) -> None:
        """Go on with the sessions that were held; called at the end of each loop turn, before the store is flushed."""
        # The other shards learn the name of somebody who came before what that somebody sent.
        self.presence.publish()
        if (long := self.long_texts.next()) is not None:
            self._ready.append(long)
        for _ in range(len(self._ready)):
            session, key = self._ready.popleft()
            try:
                session.release(key, now)
            except Exception:
                _log.exception("bug while handling a message", extra=fields(user=session.claimed))
                self.close(session, CloseCode.INTERNAL_ERROR, BUG_REASON, now)

    @property
    def ready(self) -> bool:
        """Whether `run_ready` has something to do."""
        return bool(self._ready or self.long_texts)

    def stood_still(self, seconds: float, now: float) -> None:
        """The worker stood still for so long, until now: nothing is over that could not go on meanwhile. Comes before the next `tick`."""
        self.requests.stood_still(seconds, now)
        self.typing.stood_still(seconds, now)
        self.delivery.stood_still(seconds, now)
        self.presence.stood_still(seconds, now)

    def tick(self, now: float) -> None:
        """What happens by the passing of time alone; called several times a second."""
        while (ticket := self.requests.expired(now)) is not None:
            self.counters["unconfirmed_total"] += 1
            self.settle(ticket, Outcome.FAILED, "", now)
        self.typing.tick(now)
        if self.tokens is not None:
            self.expiries.tick(self.clock.seconds(), now)
        self.delivery.tick(now)
        self.receipts.tick(now)
        self.presence.tick(now)
        while self._presence_owed:
            self._exchange_presence(self._presence_owed.pop())
        self.users.idle.tick(now)

    def _exchange_presence(self, worker: int) -> None:
        """Tell a worker who is online here, and ask who is there."""
        self.bus.send(worker, self.presence.snapshot_record())
        self.bus.send(worker, pack_record(RecordKind.PRESENCE_REQUEST, 0, 0, 0.0))

    # -- What there is to tell --

    def count_close(self, by: str, code: int | str, reason: str) -> None:
        """A connection is closed by the server or by its client, or was lost (nobody)."""
        if reason not in self._close_reasons:
            if len(self._close_reasons) < _REASONS_MAX:
                self._close_reasons.add(reason)
            else:
                reason = OTHER
        name = series("closes_total", by=by, code=str(code), reason=reason.replace('"', "'"))
        self.counters[name] += 1

    def stats(self) -> dict[str, Any]:
        """The core's part of what the worker reports, by the names of ``core.process.metrics``."""
        stats: dict[str, Any] = dict(self.counters)
        for kind, command in self.commands.items():
            stats[series("received_total", type=kind)] = command.received
        for (kind, code), errors in self.errors.items():
            stats[series("errors_total", type=kind, code=code)] = errors
        for kind, sent, far in (
            (MessageType.MSG, self.messages.sent, self.messages.sent_far),
            (MessageType.TYPING, self.typing.sent, self.typing.sent_far),
        ):
            stats[series("routed_total", type=kind, route=LOCAL)] = sent - far
            stats[series("routed_total", type=kind, route=BUS)] = far
        for route, seconds in self.messages.delivery_seconds.items():
            stats[series("delivery_seconds", route=route)] = seconds.report()
        stats["deliveries_total"] = self.delivery.written
        stats[series("shed_total", kind="typing")] = self.typing.shed
        stats[series("shed_total", kind="presence")] = self.presence.shed
        stats["sessions"] = self.presence.sessions
        stats["users"] = len(self.users)
        stats["online"] = len(self.presence)
        stats["requests"] = len(self.requests)
        stats["bus_seconds"] = self._bus_seconds.report()
        stats["bus_unheard"] = self.presence.unheard
        return stats

    # -- For chats, messages and typing --

    def continue_later(self, session: Session, key: str) -> None:
        """Release what a session holds at the end of this loop turn; at once, a long line of commands would be a deep recursion."""
        self._ready.append((session, key))

    def reply(self, origin: int, ticket: int, outcome: Outcome, name: str, now: float) -> None:
        """Tell the shard that made a request what became of it."""
        if origin == self.index:
            self.settle(ticket, outcome, name, now)
        else:
            self.bus.send(origin, pack_record(RecordKind.RESULT, outcome, ticket, 0.0, name.encode()))

    def refuse(self, request: Request, outcome: int, now: float) -> None:
        """Tell the client that its request did not succeed."""
        session = request.session
        error = refusal(request, outcome, self.settings, now)
        session.refuse_later(error, request.kind, {"message_id": request.message_id}, now)
        if outcome in SHARES:
            session.charge(now)

    def settle(self, ticket: int, outcome: int, name: str, now: float) -> None:
        """A request has come to an end."""
        request = self.requests.take(ticket)
        if request is None:
            self.counters["late_results_total"] += 1
        elif request.kind == MessageType.MSG:
            self.messages.settled(request, outcome, name, now)
        elif request.kind == MessageType.OPEN_CHAT:
            self.chats.settled(request, outcome, name, now)
        else:
            self.histories.settled(request, outcome, now)

    # -- Records from other shards --

    def _on_message(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        if self._expired(head, now):
            return
        sender, recipient, message_id, lamport, frame = record_fields(record, 5)
        self.messages.accept(
            worker,
            head.ticket,
            head.flags,
            sender.decode(),
            recipient.decode(),
            message_id.decode(),
            int(lamport),
            frame,
            head.deadline,
            now,
        )

    def _on_open_chat(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        if self._expired(head, now):
            return
        opener, target, name = record_fields(record, 3)
        self.chats.accept(worker, head.ticket, opener.decode(), target.decode(), name.decode(), now)

    def _on_result(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        (name,) = record_fields(record, 1)
        self.settle(head.ticket, head.flags, name.decode(), now)

    def _on_chat_opened(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        opener, target = record_fields(record, 2)
        self.chats.opened_elsewhere(opener.decode(), target.decode(), now)

    def _on_typing(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        sender, peer = record_fields(record, 2)
        self.typing.accept(sender.decode(), peer.decode(), head.flags)

    def _on_renamed(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        user_id, peer, name = record_fields(record, 3)
        self.chats.rename(user_id.decode(), peer.decode(), name.decode(), now)

    def _on_receipt(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        sender, recipient, message_id = record_fields(record, 3)
        self.receipts.show(sender.decode(), recipient.decode(), message_id.decode(), head.flags)

    def _on_history(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        if self._expired(head, now):
            return
        asker, user_id, position, limit = record_fields(record, 4)
        self.histories.answer(
            worker, head.ticket, asker.decode(), user_id.decode(), int(position) or None, int(limit)
        )

    def _on_history_page(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        self.histories.page_came(head.ticket, bool(head.flags), record_fields(record, 1)[0], now)

    def _on_presence(self, worker: int, generation: int, head: Record, record: bytes, now: float) -> None:
        self.presence.changes(worker, generation, head.ticket, record_fields(record, 1)[0], now)

    def _on_presence_snapshot(
        self, worker: int, generation: int, head: Record, record: bytes, now: float
    ) -> None:
        self.presence.snapshot(worker, generation, head.ticket, record_fields(record, 1)[0], now)

    def _on_presence_request(
        self, worker: int, generation: int, head: Record, record: bytes, now: float
    ) -> None:
        self.bus.send(worker, self.presence.snapshot_record())

    def _expired(self, head: Record, now: float) -> bool:
        """Whether the sender's shard has given up on a request: then it must not be stored any more (D26)."""
        if head.deadline > now:
            return False
        self.counters["expired_total"] += 1
        return True
