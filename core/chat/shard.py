"""One worker's part of FastChat: its parts put together, and what reaches them from outside.

Everything about a user happens on the shard that owns the user. Each kind of event has a part of its own: `hellos`, `chats`,
`messages`, `delivery`, `receipts`, `histories`, `lists`, `blocks`, `deletions`, `typing`, `presence`, `hook_calls`. They share
the `users` in memory and the `exchange` with the other shards, and none of them knows the shard. What comes from outside arrives here:
sessions, envelopes, and time.

To add a part: make it here with what it uses; it registers for its records by itself (`Exchange.on`).
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any, Final

from core.auth.proof import NO_PROOF, Proof
from core.auth.tokens import TokenVerifier
from core.chat.blocks import Blocks
from core.chat.chat_lists import ChatLists
from core.chat.chats import Chats
from core.chat.commands import Commands
from core.chat.deletion import Deletions
from core.chat.delivery import Delivery
from core.chat.exchange import Exchange
from core.chat.expiry import Expiries
from core.chat.hello import Hellos
from core.chat.history import Histories
from core.chat.hook_calls import HookCalls
from core.chat.kept_limits import Ages, ages_of, times_of
from core.chat.last_messages import LastMessages
from core.chat.long_texts import LongTexts
from core.chat.messages import Messages
from core.chat.on_behalf import OnBehalf
from core.chat.operator import Operator
from core.chat.pace import shared_credit
from core.chat.ports import Bus, Chance, Clock, Connection, Hook
from core.chat.presence import Presence
from core.chat.reading import Reading
from core.chat.receipts import Receipts
from core.chat.session import Acknowledge, SendPlain, Session
from core.chat.store import Listeners, Store, nobody_waits
from core.chat.typing import TypingIndicators
from core.chat.users import Users
from core.events import fields
from core.measures import BUS, LOCAL, OTHER, series
from core.process.settings import Settings
from core.wire.protocol import CloseCode, ErrorCode, MessageType

_log = logging.getLogger("fastchat.core")

#: Reasons of closes that are told apart in the metrics. All of our own are fewer.
_REASONS_MAX: Final = 60
#: What a client reads whose connection is closed with 1011.
BUG_REASON: Final = "the server has a bug; it has been logged"


class Shard:
    """One worker's part of FastChat, without any I/O. Implements ``core.chat.session.Host``."""

    def __init__(
        self,
        index: int,
        generation: int,
        settings: Settings,
        bus: Bus,
        store: Store,
        clock: Clock,
        chance: Chance,
        tokens: TokenVerifier | None = None,
        hook: Hook | None = None,
    ) -> None:
        """`tokens` checks what proves who a client is, where something has to; `hook` is told of waiting messages, if there is one."""
        self.index = index
        self.generation = generation
        self.settings = settings
        self._bus = bus
        self._store = store
        #: ERROR sent, by what they answer, and code.
        self.errors: defaultdict[tuple[str, str], int] = defaultdict(int)
        # From 0 on: of a counter that is not there before its first step, Prometheus does not see that step.
        self.errors[MessageType.MSG, ErrorCode.MESSAGE_FAILED] = 0
        #: What else has happened how often: series of ``core.process.metrics``.
        self.counters: defaultdict[str, int] = defaultdict(int)
        #: Why connections were closed; texts of ours, and some of them of libraries.
        self._close_reasons: set[str] = set()
        #: Sessions that may go on with what waited, and the key on which it waited.
        self._ready: deque[tuple[Session, str]] = deque()
        #: What messages may come to nothing beyond what each connection may send of them.
        self.spare = shared_credit()
        self.users = users = Users(index, store)
        self.exchange = exchange = Exchange(index, generation, settings, bus, self.counters)
        self.long_texts = LongTexts()
        self.expiries = Expiries(clock, tokens, self.errors)
        self.presence = presence = Presence(settings, exchange)
        self.receipts = Receipts(users, exchange, store)
        self.delivery = delivery = Delivery(store, self.receipts)
        self.lists = lists = ChatLists(settings, users, store, LastMessages(exchange, store), presence)
        self.chats = chats = Chats(settings, clock, users, exchange, store, delivery, presence, lists)
        self.histories = Histories(settings, users, exchange, store, chats)
        self.typing = TypingIndicators(settings, users, exchange, store, chats)
        self.blocks = blocks = Blocks(
            settings, users, exchange, store, delivery, presence, self.typing, lists
        )
        self.deletions = Deletions(
            users, exchange, store, presence, self.typing, lists, blocks, self.counters
        )
        self.hook_calls = hook_calls = HookCalls(settings, clock, chance, users, store, hook)
        self.hellos = Hellos(
            settings, clock, chance, users, store, chats, delivery, presence, blocks, hook_calls
        )
        self.messages = Messages(
            settings,
            clock,
            chance,
            users,
            exchange,
            store,
            chats,
            delivery,
            presence,
            self.typing,
            lists,
            hook_calls if hook_calls.is_on else None,
        )
        on_behalf = OnBehalf(self.connect, users, chats, lists)
        self.operator = Operator(settings, chance, users, store, chats, presence, on_behalf, self.deletions)
        self.send_plain: SendPlain = self.messages.send_plain
        self.acknowledge: Acknowledge = delivery.acknowledge
        #: What clients may say, each command with the number of times that it came.
        self.commands = Commands(
            settings,
            clock,
            self.long_texts,
            self.hellos,
            self.expiries,
            chats,
            self.messages,
            delivery,
            Reading(settings, store, chats, self.receipts, delivery, lists),
            lists,
            blocks,
            self.histories,
            presence,
            self.typing,
        ).table()

    # -- From the worker --

    @property
    def listeners(self) -> Listeners:
        """Who is told what the store has done."""
        return Listeners(self.messages.appended, self.users.purged, self.users.strangers)

    @property
    def unheard(self) -> int:
        """Other workers of which nothing is known yet."""
        return self.presence.unheard

    def use_tokens(self, tokens: TokenVerifier | None) -> None:
        """Check tokens with this from now on."""
        self.expiries.tokens = tokens

    def remember_limits(self, kept: Mapping[str, Ages], now: float) -> None:
        """Take over what counts against the limits of users of this shard, as the process before has written it down."""
        for user_id, ages in kept.items():
            if self.exchange.placement.worker_of(user_id) == self.index:
                self.users.idle.remember(user_id, times_of(ages, now))

    def kept_limits(self, now: float) -> dict[str, Ages]:
        """Return what counts against the limits of users, for the process that comes after this one."""
        return {user_id: ages_of(times, now) for user_id, times in self.users.idle.counted(now)}

    def start(self) -> None:
        """Tell the other workers that this process is a new one, and ask who is online with them."""
        self.deletions.start()
        self.presence.start()

    def connect(
        self, connection: Connection, claimed: str, strikes: int, now: float, proof: Proof = NO_PROOF
    ) -> Session:
        """Return a new session on a connection whose first message will be HELLO of `claimed`, after `strikes` invalid ones.

        `proof` is what a token has proven, where one had to.
        """
        session = Session(self, connection, claimed, strikes, now, proof)
        if proof.expires:
            self.expiries.watch(session)
        return session

    def receive_envelope(self, envelope: bytes, now: float) -> None:
        """Take what another shard sent; see `Exchange.receive`."""
        self.exchange.receive(envelope, now)

    def worker_gone(self, worker: int, generation: int, now: float) -> None:
        """Note that the supervisor says that this process is dead."""
        self.exchange.ended(worker, generation, now)
        self.presence.worker_gone(worker, generation, now)

    def send_again(self, worker: int, unsent: list[bytes]) -> None:
        """Send another process of a worker what the one that died has not answered; see `Exchange.send_again`."""
        self.exchange.send_again(worker, unsent)

    def end_turn(self, now: float) -> bool:
        """End a loop turn: what it has collected is done, in this order; whether there is more to do in another turn.

        After this, each connection must be given what was sent to it, and `written` be called.
        """
        # The other shards learn the name of a user who came before they get what that user sent.
        self.presence.publish()
        # Held sessions go on before the store commits, so what they send is in this commit.
        self._run_ready(now)
        more = self._store.flush(now)
        # The store's answers bring joins, and records for the other shards: these leave in this turn too.
        self.presence.publish()
        for worker, records in self._bus.flush():
            self.exchange.undeliverable(worker, records, now)
        return more or self.ready

    def written(self, now: float) -> None:
        """Note that everything of this loop turn has been written to the clients."""
        self.messages.written(now)

    @property
    def ready(self) -> bool:
        """Whether sessions that were held may go on."""
        return bool(self._ready or self.long_texts)

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the worker stood still for so long: nothing is over that could not go on meanwhile. Comes before the next `tick`."""
        self.exchange.stood_still(seconds, now)
        self.messages.stood_still(seconds, now)
        self.typing.stood_still(seconds, now)
        self.delivery.stood_still(seconds, now)
        self.presence.stood_still(seconds, now)
        self.hook_calls.stood_still(seconds, now)

    def tick(self, now: float) -> None:
        """Do what happens by the passing of time alone; called several times a second."""
        self.exchange.tick(now)
        self.messages.tick(now)
        self.typing.tick(now)
        self.expiries.tick(now)
        self.delivery.tick(now)
        self.receipts.tick(now)
        self.presence.tick(now)
        self.lists.tick(now)
        self.blocks.tick(now)
        self.deletions.tick(now)
        self.hook_calls.tick(now)
        self.users.idle.tick(now)

    # -- From the sessions: see core.chat.session.Host --

    def pong(self, session: Session, payload: bytes, now: float) -> None:
        self.delivery.pong(session, payload, now)

    def writable(self, session: Session, now: float) -> None:
        self.delivery.pump(session.greeted, session, now)

    def continue_later(self, session: Session, key: str) -> None:
        self._ready.append((session, key))

    def detach(self, session: Session, now: float) -> None:
        if session.proof.expires:
            self.expiries.forget(session)
        user = session.user
        if user is None or session not in user.sessions:
            return
        user.sessions.remove(session)
        user.devices_changed()
        self.delivery.disconnected(user, session)
        self.typing.disconnected(user, session, now)
        self.presence.detach(user, session, now)
        self.users.idle.note(user, now)
        if not user.sessions and not user.chats:
            self._store.save_user(user, nobody_waits)  # when a stranger was here last
        elif not user.sessions:
            self.lists.note_written(user)
            self.hook_calls.left(user, now)

    def _run_ready(self, now: float) -> None:
        """Go on with the sessions that were held."""
        if (long := self.long_texts.next()) is not None:
            self._ready.append(long)
        for _ in range(len(self._ready)):
            session, key = self._ready.popleft()
            if session.user is not None and session.user.deleted:
                session.abandon(now)
                continue
            try:
                session.release(key, now)
            except Exception:
                _log.exception("bug while handling a message", extra=fields(user=session.claimed))
                session.close(CloseCode.INTERNAL_ERROR, BUG_REASON, now)

    # -- What there is to tell --

    def count_close(self, by: str, code: int | str, reason: str) -> None:
        """Note that a connection is closed by the server or by its client, or was lost (nobody)."""
        if reason not in self._close_reasons:
            if len(self._close_reasons) < _REASONS_MAX:
                self._close_reasons.add(reason)
            else:
                reason = OTHER
        name = series("closes_total", by=by, code=str(code), reason=reason.replace('"', "'"))
        self.counters[name] += 1

    def stats(self) -> dict[str, Any]:
        """Return the core's part of what the worker reports, by the names of ``core.process.metrics``."""
        stats: dict[str, Any] = {**self.counters, **self.hook_calls.stats()}
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
        stats["slots"] = self.exchange.placement.owners.count(self.index)
        stats["sessions"] = self.presence.sessions
        stats["users"] = len(self.users)
        stats["online"] = len(self.presence)
        stats["deleting_users"] = len(self.deletions)
        stats["requests"] = len(self.exchange) + self.messages.open
        stats["bus_seconds"] = self.exchange.seconds.report()
        stats["bus_unheard"] = self.presence.unheard
        return stats
