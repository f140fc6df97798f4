"""The route from one user's shard to another's, and back (D26).

`ask` and `notify` reach the shard that owns a user: by a plain call when that is this one, else by a record over the bus. The part that
handles a kind of record registers for it (`on`), so the order of its fields stands in one file, where they are written and read.

A request gets a ticket, and its Outcome comes back to the part that registered for it (`on_outcome`). A request without an answer within
5 s has failed. Failed means *not confirmed*: the other side may have done it all the same. Records from one shard to another stay in
order: that keeps messages in order (D18), and lets a client send OPEN_CHAT and MSG in one go.

When a process dies, nobody knows which of the requests that are open with it were done. The next process of that worker gets all of them
again, in their order and before any new one (`send_again`). To do one twice is harmless: a message is recognised by its id (D10).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from core.chat.envelope import (
    Outcome,
    Record,
    RecordKind,
    new_record,
    pack_record,
    pack_texts,
    record_fields,
    record_head,
    unpack_envelope,
    unpack_head,
)
from core.chat.ports import Bus
from core.chat.ratelimit import rate_limited
from core.chat.shares import sender_share, strangers_share
from core.chat.stalls import later
from core.chat.streams import Streams
from core.measures import SECONDS, Histogram
from core.placement import Placement
from core.wire.protocol import CONFIRM_TIMEOUT, ErrorCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.session import Session
    from core.chat.user import User
    from core.process.settings import Settings

#: Handles a record, at that time.
Handler = Callable[[Record, float], None]
#: Handles a record that needs no answer: its fields and its flags.
Told = Callable[[tuple[str, ...], int, float], None]
#: Takes what became of a request: an Outcome and, if it is a good one, the other user's name.
Settled = Callable[["Request", int, str, float], None]


class Request:
    """A request whose outcome is not known yet."""

    __slots__ = (
        "altered",
        "deadline",
        "frame",
        "kind",
        "message_id",
        "peer",
        "record",
        "sent_again",
        "session",
        "ticket",
        "user",
    )

    def __init__(
        self,
        ticket: int,
        kind: str,
        session: Session,
        user: User,
        peer: str,
        message_id: str | None,
        deadline: float,
    ) -> None:
        #: Names it between the shards; later requests have higher ones.
        self.ticket = ticket
        #: MSG, OPEN_CHAT or HISTORY: which answer the client waits for.
        self.kind = kind
        self.session = session
        self.user = user
        self.peer = peer
        self.message_id = message_id
        self.deadline = deadline
        #: A message, as its recipient gets it.
        self.frame = b""
        #: Whether what that carries is not the text that the client sent, and the client is to be told (D11).
        self.altered = False
        #: What has been sent to the other shard; empty when the other user is here. And whether that was sent to more than one process.
        self.record = b""
        self.sent_again = False


class _Kind(NamedTuple):
    """How records of one kind are read."""

    handler: Handler
    #: Fields that are text, and whether one more of bytes follows them.
    texts: int
    body: bool
    #: Whether an answer is waited for, and not beyond the record's deadline.
    asks: bool
    #: Called with the number of a worker that such a record could not be sent to, if anybody wants to know.
    lost: Callable[[int], None] | None


class Exchange:
    """What one shard sends to the others, and what it has asked of them."""

    def __init__(
        self, index: int, generation: int, settings: Settings, bus: Bus, counters: defaultdict[str, int]
    ) -> None:
        """`counters` says what went wrong how often: series of ``core.process.metrics``."""
        self.index = index
        self.placement = Placement(settings.workers)
        #: The workers of the other shards.
        self.others = [worker for worker in range(settings.workers) if worker != index]
        self._generation = generation
        self._settings = settings
        self._bus = bus
        self._worker_of = self.placement.worker_of
        #: RecordKind -> how it is read; and the handlers once more, for what does not have to be read.
        self._kinds: dict[int, _Kind] = {}
        self._handlers: dict[int, Handler] = {}
        #: RecordKind -> how many fields a record has that needs no answer, and who handles it.
        self._told: dict[int, tuple[int, Told]] = {}
        #: Message type of a request -> the part that wants its outcome.
        self._settled: dict[str, Settled] = {}
        #: ticket -> request. All wait equally long, so the first is the first to expire.
        self._open: dict[int, Request] = {}
        #: The generation is part of a ticket, so an answer to an earlier process of this worker is not taken for one to this.
        self._tickets = count((generation & 0x7FFF_FFFF) << 32)
        self.streams = Streams()
        self.on(RecordKind.MOVED_ON, 0, self._moved_on, body=True)
        #: How long envelopes from other shards were on their way.
        self.seconds = Histogram(SECONDS)
        self._counters = counters

    def __len__(self) -> int:
        """Return how many requests are open."""
        return len(self._open)

    def on(
        self,
        kind: RecordKind,
        texts: int,
        handler: Handler,
        *,
        body: bool = False,
        asks: bool = False,
        lost: Callable[[int], None] | None = None,
    ) -> None:
        """Give all records of a kind to `handler`; see `_Kind`."""
        self._kinds[kind] = _Kind(handler, texts, body, asks, lost)
        self._handlers[kind] = handler

    def on_told(self, kind: RecordKind, texts: int, handler: Told) -> None:
        """Give what others `notify` this shard by records of a kind to `handler`."""
        self._told[kind] = (texts, handler)

    def on_outcome(self, kind: str, settled: Settled) -> None:
        """Give the outcome of each request of a kind, a message type, to `settled`."""
        self._settled[kind] = settled

    def is_here(self, user_id: str) -> bool:
        """Return whether this shard owns the user."""
        return self._worker_of(user_id) == self.index

    # -- Out --

    def ticket(self) -> int:
        """Return the next ticket, for what needs no more of a request."""
        return next(self._tickets)

    def open(
        self, kind: str, session: Session, user: User, peer: str, message_id: str | None, now: float
    ) -> Request:
        """Begin a request about `peer`. After this, `ask` the shard of `peer`."""
        ticket = next(self._tickets)
        request = Request(ticket, kind, session, user, peer, message_id, now + CONFIRM_TIMEOUT)
        self._open[ticket] = request
        user.requests += 1
        return request

    def ask(
        self, kind: RecordKind, flags: int, request: Request, texts: tuple[str, ...], body: bytes, now: float
    ) -> bool:
        """Send a request to the shard of its peer; whether that is another one."""
        owner = self._worker_of(request.peer)
        if owner == self.index:
            record = new_record(
                (owner, self._generation, flags, request.ticket, request.deadline, texts, body)
            )
            self._handlers[kind](record, now)
            return False
        request.record = pack_texts(kind, flags, request.ticket, request.deadline, texts, body)
        self._bus.send(owner, request.record)
        return True

    def notify(self, user_id: str, kind: RecordKind, flags: int, texts: tuple[str, ...], now: float) -> bool:
        """Send the shard of a user what needs no answer; whether that is another one."""
        owner = self._worker_of(user_id)
        if owner == self.index:
            self._told[kind][1](texts, flags, now)
            return False
        self._bus.send(owner, pack_texts(kind, flags, 0, 0.0, texts))
        return True

    def post(self, worker: int, kind: RecordKind, ticket: int = 0, body: bytes = b"") -> None:
        """Send another shard what is about no single user."""
        self._bus.send(worker, pack_record(kind, 0, ticket, 0.0, body))

    def broadcast(self, kind: RecordKind, ticket: int, body: bytes) -> None:
        """Send all other shards the same."""
        record = pack_record(kind, 0, ticket, 0.0, body)
        for worker in self.others:
            self._bus.send(worker, record)

    def reply(self, asked: Record, outcome: Outcome, name: str, now: float) -> None:
        """Tell the shard that asked what became of it."""
        worker = asked.worker
        if worker == self.index:
            self.settle(asked.ticket, outcome, name, now)
        else:
            record = pack_record(RecordKind.RESULT, outcome, asked.ticket, 0.0, name.encode())
            self._bus.send(worker, record)

    def answer(self, asked: Record, kind: RecordKind, flags: int, body: bytes, now: float) -> None:
        """Answer with more than an Outcome and a name."""
        worker, ticket = asked.worker, asked.ticket
        if worker == self.index:
            record = new_record((worker, self._generation, flags, ticket, 0.0, (), body))
            self._handlers[kind](record, now)
        else:
            self._bus.send(worker, pack_record(kind, flags, ticket, 0.0, body))

    def send_again(self, worker: int, unsent: list[bytes]) -> None:
        """Send the next process of a worker what is open with the one that died, and first of all; `unsent` is what that never got."""
        for request in self._open.values():
            if request.record and self._worker_of(request.peer) == worker:
                request.sent_again = True
                self._counters["sent_again_total"] += 1
                self._bus.send(worker, request.record)
        for record in unsent:
            kind = self._kinds.get(record_head(record).kind)
            if kind is None or not kind.asks:
                self._bus.send(worker, record)

    # -- In --

    def receive(self, envelope: bytes, now: float, *, passed_on: bool = False) -> None:
        """Handle what another shard sent, or keep it until its turn; `passed_on` is what a predecessor has received.

        Raises ValueError for what can't be read, since the two run different versions, and whatever a bug raises; but first the other
        records of the envelope are handled, which are other people's.
        """
        worker, generation, sent_at, records = unpack_envelope(envelope)
        streams = self.streams
        known = passed_on or streams.passing.get(worker) == generation
        if not known and not streams.takes(worker, generation, envelope, now):
            return
        self.seconds.record(max(0.0, now - sent_at))
        problem: Exception | None = None
        for record in records:
            try:
                self._handle(worker, generation, record, now)
            except Exception as error:
                problem = problem or error
        if problem is not None:
            raise problem

    def ended(self, worker: int, generation: int, now: float) -> None:
        """Note that nothing more comes from this process on the way that it has used: what has waited for that is handled."""
        for envelope in self.streams.ended(worker, generation):
            self.receive(envelope, now)

    def _moved_on(self, record: Record, now: float) -> None:
        waited = self.streams.unblock(record.worker)
        if waited is None:
            self.ended(record.worker, record.generation, now)
            return
        for envelope in waited:
            self.receive(envelope, now)

    def undeliverable(self, worker: int, records: list[bytes], now: float) -> None:
        """Fail what waits for an answer to these records, which the bus could not take, now rather than in 5 s."""
        for record in records:
            head = record_head(record)
            self._counters["bus_undeliverable_total"] += 1
            kind = self._kinds.get(head.kind)
            if kind is None:
                continue
            if kind.asks:
                self.settle(head.ticket, Outcome.FAILED, "", now)
            elif kind.lost is not None:
                kind.lost(worker)

    def _handle(self, worker: int, generation: int, record: bytes, now: float) -> None:
        number, flags, ticket, deadline = unpack_head(record)
        if number == RecordKind.RESULT:
            self.settle(ticket, flags, record_fields(record, 1)[0].decode(), now)
            return
        kind = self._kinds.get(number)
        if kind is None:
            self._receive(number, flags, record, now)
            return
        handler, texts, body, asks, _ = kind
        if asks and deadline <= now:
            # The sender's shard has given up on it: it must not be stored any more.
            self._counters["expired_total"] += 1
            return
        fields = record_fields(record, texts + body)
        last = fields.pop() if body else b""
        decoded = tuple(map(bytes.decode, fields))
        handler(new_record((worker, generation, flags, ticket, deadline, decoded, last)), now)

    def _receive(self, number: int, flags: int, record: bytes, now: float) -> None:
        told = self._told.get(number)
        if told is None:
            raise ValueError(f"unknown kind of record {number}")
        texts, handler = told
        handler(tuple(map(bytes.decode, record_fields(record, texts))), flags, now)

    # -- What becomes of requests --

    def settle(self, ticket: int, outcome: int, name: str, now: float) -> None:
        """Note that a request has come to an end."""
        request = self._open.pop(ticket, None)
        if request is None:
            self._counters["late_results_total"] += 1
            return
        request.user.requests -= 1
        self._settled[request.kind](request, outcome, name, now)

    def take(self, ticket: int) -> Request | None:
        """End a request without an Outcome, since there is a better answer; None when that came too late."""
        request = self._open.pop(ticket, None)
        if request is not None:
            request.user.requests -= 1
        return request

    def refuse(self, request: Request, outcome: int, now: float) -> None:
        """Tell the client that its request did not succeed."""
        session = request.session
        error = refusal(request, outcome, self._settings, now)
        session.refuse_later(error, request.kind, {"message_id": request.message_id}, now)
        if outcome in _SHARES:
            session.charge(now)

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the worker stood still: an answer may wait to be read (``core.chat.stalls``)."""
        for request in self._open.values():
            request.deadline = later(request.deadline, seconds, now + CONFIRM_TIMEOUT)

    def tick(self, now: float) -> None:
        """Give up what was not confirmed in time."""
        for envelope in self.streams.overdue(now):
            self.receive(envelope, now)
        while self._open:
            ticket, request = next(iter(self._open.items()))
            if request.deadline > now:
                return
            self.give_up(ticket, now)

    def give_up(self, ticket: int, now: float) -> None:
        """Fail a request that was not confirmed in time."""
        self._counters["unconfirmed_total"] += 1
        self.settle(ticket, Outcome.FAILED, "", now)


#: Where each kind of request names the other user.
_FIELD: Final = {MessageType.MSG: "to", MessageType.OPEN_CHAT: "target_user_id", MessageType.HISTORY: "with"}

#: What of a mailbox is full (D20): its name in `details`, how much it is, and what waits.
_SHARES: Final[dict[int, tuple[str, Callable[[int], int], str]]] = {
    Outcome.MAILBOX_FULL: ("mailbox", lambda whole: whole, "messages"),
    Outcome.SENDERS_SHARE_FULL: ("sender", sender_share, "messages of yours"),
    Outcome.STRANGERS_SHARE_FULL: (
        "strangers",
        strangers_share,
        "messages from people to whom this user has never written",
    ),
}


def refusal(request: Request, outcome: int, settings: Settings, now: float) -> Refusal:
    """Return what the client is told about a request that did not succeed."""
    field = _FIELD[request.kind]
    if outcome == Outcome.USER_NOT_FOUND:
        return Refusal(ErrorCode.USER_NOT_FOUND, "there is no user with this id", field=field)
    if outcome == Outcome.CHAT_NOT_OPENED and request.peer == request.user.user_id:
        return Refusal(ErrorCode.CHAT_NOT_OPENED, "a chat with oneself is not possible", field=field)
    if outcome == Outcome.CHAT_NOT_OPENED:
        return Refusal(ErrorCode.CHAT_NOT_OPENED, "open a chat with this user first", field=field)
    if outcome == Outcome.CONFLICT:
        return Refusal(
            ErrorCode.VALIDATION,
            "this message_id was already used with other content",
            field="message_id",
            expected="an id that was not used before, or the same content",
        )
    if outcome == Outcome.RATE_LIMITED:
        window = request.user.messages_of(request.session)
        return rate_limited("MSG", window.limit, window.retry_after(now))
    if outcome in _SHARES:
        return _mailbox_full(outcome, settings.mailbox_max)
    again = "send it again with the same message_id" if request.message_id is not None else "try again"
    return Refusal(ErrorCode.MESSAGE_FAILED, f"not confirmed; {again}", field=field)


def _mailbox_full(outcome: int, mailbox_max: int) -> Refusal:
    share, part, whose = _SHARES[outcome]
    limit = part(mailbox_max)
    return Refusal(
        ErrorCode.MESSAGE_FAILED,
        f"not stored: the mailbox is full, at most {limit} {whose} may wait unacknowledged for this user; send it again later",
        field="to",
        reason="mailbox_full",
        share=share,
        limit=limit,
    )
