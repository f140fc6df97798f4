"""One connection from HELLO on: which of the client's messages may be handled now, and what it is told when one is refused.

A session takes the text of one message at a time (`receive`). The command table (``core.chat.commands``) says for each message type which
function handles it, whether HELLO must have come before, and what it waits for when the client sends faster than things get done
(``core.chat.command_queue``).

States: *new* (the socket was handed over; the first message must be the HELLO that the front saw), *greeted* (`user` is set), and
*closed* (only what the client had sent before is still done, and nobody reads the answers).
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from core.auth.proof import NO_PROOF, Proof
from core.chat.command_queue import EVERYTHING, CommandQueue
from core.chat.pace import Pace
from core.chat.ports import Connection
from core.chat.ratelimit import SlidingWindow, TokenBucket
from core.chat.user import Device, User
from core.events import OURS, fields
from core.measures import OTHER
from core.wire import codec
from core.wire.frames import FrameError
from core.wire.plain import Plain, recognise
from core.wire.protocol import (
    HELLO_DEADLINE,
    PING_BURST,
    STRIKES_PER_MINUTE,
    UNCOMMITTED_MAX,
    CloseCode,
    ErrorCode,
    MessageType,
    Refusal,
    reconnect_in,
)

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.process.settings import Settings

_log = logging.getLogger("fastchat.core")

#: Messages that queue behind a held command before the client is not read from any more.
_QUEUE_PAUSE: Final = 32


class Command:
    """A row of the command table."""

    __slots__ = ("about", "capabilities", "needs_hello", "received", "run", "urgent")

    def __init__(
        self,
        run: Callable[[Session, dict[str, Any], float], None],
        *,
        needs_hello: bool = True,
        about: str | None = None,
        urgent: bool = False,
        capabilities: tuple[str, ...] = (),
    ) -> None:
        self.run = run
        #: Whether HELLO must have been accepted before.
        self.needs_hello = needs_hello
        #: The field that names the peer whom it is about: it waits while a chat with that peer is being opened.
        self.about = about
        #: Whether it waits for the first HELLO only.
        self.urgent = urgent
        #: The capabilities without all of which it does not exist; empty when it needs none.
        self.capabilities = capabilities
        #: How often it came.
        self.received = 0


SendPlain = Callable[["Session", User, "Chat", bytes, str, float], bool]
Acknowledge = Callable[["Session", User, str, "str | None"], None]


class Host(Protocol):
    """The shard, as its sessions see it."""

    settings: Settings
    #: What clients may say, by message type.
    commands: dict[str, Command]
    #: ERROR sent, by the message type that they answer, and code.
    errors: defaultdict[tuple[str, str], int]
    #: What messages may come to nothing beyond what each connection may send of them.
    spare: TokenBucket

    #: `Messages.send_plain` and `Delivery.acknowledge`.
    send_plain: SendPlain
    acknowledge: Acknowledge

    def pong(self, session: Session, payload: bytes, now: float) -> None:
        """Take the payload of a WebSocket pong."""

    def writable(self, session: Session, now: float) -> None:
        """Go on writing to a session of a user that had fallen behind."""

    def continue_later(self, session: Session, key: str) -> None:
        """Call `Session.release` at the end of this loop turn."""

    def count_close(self, by: str, code: int | str, reason: str) -> None:
        """Count a connection that is closed."""

    def detach(self, session: Session, now: float) -> None:
        """Forget a session that has ended; called once for each."""


class _Gone:
    """The connection of a session that has none any more. Implements ``core.chat.ports.Connection``."""

    address = ""
    label = ""
    last_heard = -math.inf

    def send(self, frame: bytes) -> None:
        """Drop it: nobody is there."""

    def ping(self, payload: bytes) -> None:
        """Drop it: nobody is there."""

    def close(self, code: int, reason: str) -> None:
        """Do nothing: it is closed."""

    def hold(self, until: float) -> None:
        """Do nothing: nothing comes."""

    def unsent(self) -> int:
        """Return 0: nothing waits."""
        return 0


_GONE: Final = _Gone()


class Session(Device):
    """A device of a user, with what its client may say and has said."""

    __slots__ = (
        "_commands",
        "_hold",
        "_host",
        "_pace",
        "_pings",
        "_queue",
        "_slow_until",
        "_strikes",
        "claimed",
        "expiry_due",
        "first",
        "hello_deadline",
        "in_flight",
        "proof",
        "token_tries",
    )

    def __init__(
        self,
        host: Host,
        connection: Connection,
        claimed: str,
        strikes: int,
        now: float,
        proof: Proof = NO_PROOF,
    ) -> None:
        super().__init__(connection, now)
        self._host = host
        self._commands = host.commands
        #: The user id that the front read from HELLO.
        self.claimed = claimed
        self.hello_deadline = now + HELLO_DEADLINE
        #: Whether HELLO has not come.
        self.first = True
        # -- Proof (D5, D34) --
        #: What a token has proven; and the second in which something is due, since it expires.
        self.proof = proof
        self.service = proof.service
        self.expiry_due = 0
        #: New tokens in a row that were no good.
        self.token_tries = 0
        # -- Limits of this connection --
        #: PING; None before the first.
        self._pings: TokenBucket | None = None
        #: Invalid messages; most clients never need it.
        self._strikes: SlidingWindow | None = None
        if strikes:
            self._strikes = SlidingWindow(STRIKES_PER_MINUTE)
            for _ in range(strikes):
                self._strikes.count(now)
        # -- Order --
        self._queue = CommandQueue()
        #: Until when the client is not read from, as the connection was told last; 0.0: it is.
        self._hold = 0.0
        #: The same, because of what came to nothing; may be over. And how that is counted, once something has.
        self._slow_until = 0.0
        self._pace: Pace | None = None
        #: What this connection has asked for and is not decided: messages, HISTORY, acknowledgements that the store looks up.
        self.in_flight = 0

    # -- For a successor --

    def export(self) -> dict[str, Any]:
        """Return what a successor needs of one that `is_settled`."""
        return {
            **Device.export(self),
            "claimed": self.claimed,
            "first": self.first,
            "hello_deadline": self.hello_deadline,
            "expires": self.proof.expires,
            "proven_name": self.proof.name,
            "service": self.proof.service,
            "expiry_due": self.expiry_due,
            "token_tries": self.token_tries,
            "pings": None if self._pings is None else self._pings.export(),
            # Also those that are over: they count no more.
            "strikes": [] if self._strikes is None else self._strikes.recent_times(-math.inf),
            "slow_until": self._slow_until,
            "pace": None if self._pace is None else self._pace.export(),
        }

    def restore(self, record: dict[str, Any]) -> None:
        """Take over what `export` has returned, but for the watch over its `proof`. Reading stops for as long as it had to."""
        Device.restore(self, record)
        self.claimed = record.get("claimed", self.claimed)
        self.first = record.get("first", False)
        self.hello_deadline = record.get("hello_deadline", self.hello_deadline)
        expires, name = record.get("expires", 0.0), record.get("proven_name")
        self.use_proof(Proof(expires, name, record.get("service", False)))
        self.token_tries = record.get("token_tries", 0)
        pings, strikes, pace = record.get("pings"), record.get("strikes"), record.get("pace")
        if pings is not None:
            self._pings = TokenBucket(self._host.settings.pings_per_second, PING_BURST, self.since)
            self._pings.restore(pings)
        if strikes:
            self._strikes = SlidingWindow(STRIKES_PER_MINUTE)
            self._strikes.count_all(strikes)
        if pace is not None:
            self._pace = Pace(self.since)
            self._pace.restore(pace)
        self._slow_until = record.get("slow_until", 0.0)
        self.adjust_reading()

    # -- From the connection --

    def use_proof(self, proof: Proof) -> None:
        """Go on with what another token has proven."""
        self.proof = proof
        self.service = proof.service

    def receive(self, payload: bytes, now: float) -> None:
        """Take the text of one message. Raises FrameError when the connection must be closed for it."""
        if self.closed:
            return
        user = self.user
        if user is not None and not self._queue.held:
            plain = recognise(payload)
            if plain is not None and self._receive_plain(user, plain, now):
                return
        kind: str | None = None
        data: dict[str, Any] | None = None
        try:
            kind, data = codec.decode(payload)
            command = self._commands.get(kind)
            if command is None:
                raise self._unknown(kind)
            command.received += 1
            if self._must_wait(command, data):
                self._queue.put(kind, data)
                self.adjust_reading()
            else:
                self._run(kind, command, data, now)
        except Refusal as refusal:
            self.refuse(refusal, kind, data, now)

    def _receive_plain(self, user: User, plain: Plain, now: float) -> bool:
        """Do what is nearly always to be done. False, and nothing has happened, when this is not such a message."""
        peer, content, message_id = plain
        chat = user.chats.get(peer) if peer is not None else None
        if content is not None:
            if chat is None or not self._host.send_plain(self, user, chat, content, message_id, now):
                return False
            self._commands[MessageType.MSG].received += 1
            return True
        if peer is not None and chat is None:
            return False
        self._commands[MessageType.MSG_ACK].received += 1
        self._host.acknowledge(self, user, message_id, peer)
        return True

    def pong(self, payload: bytes, now: float) -> None:
        """Take a WebSocket pong."""
        self._host.pong(self, payload, now)

    def count_ping(self, now: float) -> float:
        """Count a PING and return 0.0, or return the seconds until one is allowed."""
        if self._pings is None:
            self._pings = TokenBucket(self._host.settings.pings_per_second, PING_BURST, now)
        return self._pings.retry_after(now)

    def writable(self, now: float) -> None:
        """Note that the connection has room again."""
        if self.user is not None and not self.closed:
            self._host.writable(self, now)

    def on_closed(self, now: float) -> None:
        """Note that the connection is gone, or going. What the client had sent before and still waits in line is done all the same."""
        if not self.closed:
            self.closed = True
            self._host.detach(self, now)
            # The two know each other: apart, each goes when nobody needs it any more, without waiting for the garbage collector.
            self.connection = _GONE

    def stop_reading(self) -> None:
        """Read nothing more from the client: the connection is about to be closed, once it `is_settled`."""
        self._slow_until = math.inf
        self.adjust_reading()

    @property
    def is_settled(self) -> bool:
        """Whether everything that the client has asked for is decided."""
        return not self.in_flight and not self._queue.held

    def close(self, code: int, reason: str, now: float, delay: float | None = None) -> None:
        """End the connection from this side; with `delay`, tell the client to reconnect after so many seconds."""
        self._host.count_close("server", int(code), reason)
        self.note_close("server", int(code), reason, now)
        connection = self.connection
        self.abandon(now)
        connection.close(code, reason if delay is None else reconnect_in(reason, delay))

    def abandon(self, now: float) -> None:
        """Note that the server ends the connection: nothing that waits in line is done any more."""
        self._queue.clear()
        self.on_closed(now)

    # -- Order --

    @property
    def greeted(self) -> User:
        """The user, in a command that needs HELLO."""
        assert self.user is not None, "the command table asks for HELLO first"
        return self.user

    @property
    def awaits_hello(self) -> bool:
        """Whether HELLO has not come; one that came and is not through, since the store takes its time, has come (D2)."""
        return self.user is None and not self._queue.held

    @property
    def behind(self) -> bool:
        """Whether messages, or chats to be told about, wait for this connection to have room."""
        user = self.user
        if user is None or self.closed:
            return False
        told = self.announcements
        return self.cursor < user.mailbox.head or (told is not None and bool(told.pending))

    def hold(self, key: str) -> None:
        """Let commands that depend on `key` wait, until `release`."""
        self._queue.hold(key)

    def hold_back(self, kind: str, data: dict[str, Any]) -> None:
        """Let a command wait that can't be decided yet, and all that comes behind it."""
        self._queue.hold(EVERYTHING)
        self._queue.put(kind, data)

    def release(self, key: str, now: float) -> None:
        """Hold `key` no longer, and go on with what waited for it. Called by the shard between two messages."""
        try:
            for kind, data in self._queue.release(key):
                command = self._commands[kind]
                if self._must_wait(command, data):
                    self._queue.put(kind, data)
                    continue
                try:
                    self._run(kind, command, data, now)
                except Refusal as refusal:
                    self.refuse(refusal, kind, data, now)
        except FrameError as error:
            self.close(error.code, error.reason, now)
        self.adjust_reading()

    def continue_later(self, key: str) -> None:
        """Release `key` at the end of this loop turn; at once, a long line of commands would be a deep recursion."""
        self._host.continue_later(self, key)

    def asked(self) -> None:
        """Count something that the client asked for and that is not decided. After this, `decided` must follow."""
        self.in_flight += 1
        if self.in_flight >= UNCOMMITTED_MAX:
            self.adjust_reading()

    def decided(self) -> None:
        """Note that something that was `asked` is decided."""
        self.in_flight -= 1
        if self._hold != self._slow_until:  # else it is read from as it should be
            self.adjust_reading()

    def adjust_reading(self) -> None:
        """Don't read from a client that is too far ahead of what is decided (D29), or whose messages come to nothing (D23), for a while."""
        too_far = len(self._queue) >= _QUEUE_PAUSE or self.in_flight >= UNCOMMITTED_MAX
        until = math.inf if too_far else self._slow_until
        if until != self._hold and not self.closed:
            self._hold = until
            self.connection.hold(until)

    def charge(self, now: float, weight: int = 1) -> None:
        """Charge for a message that came to nothing, or costs as much as `weight` of those: with many, a client is read slower (D23)."""
        if self._pace is None:
            self._pace = Pace(now)
        until = self._pace.charge(now, self._host.spare, weight)
        if until:
            self._slow_until = until
            self.adjust_reading()

    def _unknown(self, kind: str) -> Refusal:
        may_say = [
            known
            for known, command in self._commands.items()
            if not command.capabilities or self.capabilities.intersection(command.capabilities)
        ]
        problem = f"unknown message type {kind[:64]!r}"
        command = self._commands.get(kind)
        if command is not None and command.capabilities:
            needed = " or ".join(map(repr, command.capabilities))
            problem = f"{kind} needs the capability {needed}, for which HELLO has to ask"
        return Refusal(ErrorCode.VALIDATION, problem, field="type", expected=sorted(may_say))

    def _must_wait(self, command: Command, data: dict[str, Any]) -> bool:
        queue = self._queue
        if not queue.held:
            return False
        if command.about is not None:
            return queue.holds_peer(data.get(command.about))
        return queue.holds_everything() and not (command.urgent and self.user is not None)

    def _run(self, kind: str, command: Command, data: dict[str, Any], now: float) -> None:
        if self.user is None and command.needs_hello:
            raise Refusal(ErrorCode.UNAUTHORIZED, "say HELLO first", expected=MessageType.HELLO)
        if command.capabilities and not self.capabilities.intersection(command.capabilities):
            raise self._unknown(kind)
        command.run(self, data, now)

    # -- Answers --

    def refuse(self, refusal: Refusal, kind: str | None, data: dict[str, Any] | None, now: float) -> None:
        """Answer with ERROR. Raises FrameError(1008) for the 21st VALIDATION in a minute (D25), and for who goes on for minutes (D23)."""
        what = kind if kind is not None and kind in self._commands else OTHER
        self._host.errors[what, refusal.code] += 1
        if 0 < OURS.level <= logging.DEBUG:  # what `isEnabledFor` asks is 2 % of what a refusal costs
            _log.debug(
                "a message was refused",
                extra=fields(
                    connection=self.connection.label,
                    user=self.claimed,
                    type=what,
                    error=refusal.code,
                    field=refusal.details.get("field"),
                ),
            )
        if refusal.code == ErrorCode.VALIDATION:
            if self._strikes is None:
                self._strikes = SlidingWindow(STRIKES_PER_MINUTE)
            if not self._strikes.allow(now):
                raise FrameError(CloseCode.POLICY_VIOLATION, "too many invalid messages in a minute")
        self.connection.send(codec.error(refusal, kind, data.get("message_id") if data is not None else None))
        if refusal.code == ErrorCode.MESSAGE_FAILED:
            return  # it is not the client's doing
        self.charge(now)
        assert self._pace is not None, "it was charged"
        if self._pace.goes_on(now):
            raise FrameError(
                CloseCode.POLICY_VIOLATION,
                "too many refused messages: wait as long as details.retry_after says",
            )

    def refuse_later(self, refusal: Refusal, kind: str, data: dict[str, Any] | None, now: float) -> None:
        """Refuse what could not be answered at once; closes the connection itself when that is due."""
        if self.closed:
            return
        try:
            self.refuse(refusal, kind, data, now)
        except FrameError as error:
            self.close(error.code, error.reason, now)
