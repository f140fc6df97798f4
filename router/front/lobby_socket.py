"""A connection between the upgrade and HELLO (D2).

The socket is watched. Whole frames are dealt with in the order in which they came: what is answered here is taken out of the kernel, a
HELLO stays where it is, with everything behind it, and the connection goes to ``router.front.handover``. Only a fragmented message has to
be taken out piece by piece, since a ping between the fragments wants its pong now; when it turns out to be the HELLO, it travels with the
socket.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Final

from core.auth.tokens import REASONS, TRIES_REASON, TokenVerifier
from core.chat.lobby import Lobby
from core.chat.pace import shared_credit
from core.measures import series
from core.wire import frames
from core.wire.frames import PEEK_BYTES, Fragments, Frame, FrameError, NeedMore, Opcode, parse_frame
from core.wire.protocol import CloseCode
from core.wire.timestamps import format_timestamp
from core.wire.validation import Hello, Validator
from router.front.deadlines import Deadlines
from router.front.handover import Handover
from router.front.sockets import Connection, PeekedSocket, Sockets, now

_log = logging.getLogger("fastchat.front")

#: Frames of one connection that are dealt with before others have their turn.
_FRAMES_PER_WAKE: Final = 8
#: Nothing can be said about a frame of which less is there.
_LEAST: Final = 2


class LobbySockets:
    """The stage of the connections that have not said HELLO, for which they have `seconds`.

    `load_tokens` loads what proves who a client is, None where nothing has to; it raises ConfigurationError for keys that can't be used.
    """

    def __init__(
        self,
        sockets: Sockets,
        handover: Handover,
        validator: Validator,
        pings_per_second: float,
        load_tokens: Callable[[], TokenVerifier | None],
        seconds: float,
    ) -> None:
        self.handover = handover
        self.deadlines: Deadlines[LobbySocket] = Deadlines(seconds, LobbySocket.expire)
        self.sockets = sockets
        self._validator = validator
        self._pings_per_second = pings_per_second
        self._load_tokens = load_tokens
        self._tokens = load_tokens()
        #: What messages may come to nothing before HELLO, of all connections together.
        self._spare = shared_credit()
        self._pid = os.getpid()
        sockets.counters |= {series("front_tokens_refused_total", reason=reason): 0 for reason in REASONS}

    def enter(self, connection: Connection, bearer: str | None) -> None:
        """Take in a client that was upgraded, with the token `bearer`."""
        self.sockets.count("front_upgrades_total")
        # Unique among all processes that run at the same time; the client keeps it for as long as the connection lasts.
        label = f"{self._pid}-{self.sockets.counters['front_upgrades_total']}"
        lobby = Lobby(
            self._validator,
            now(),
            self._pings_per_second,
            self._tokens,
            None if self._tokens is None else bearer,
            self._spare,
        )
        visitor = LobbySocket(self, connection._replace(label=label), lobby)
        self.deadlines.start(visitor, now())
        visitor.watch()
        visitor.set_mark(1)

    def reload_keys(self) -> None:
        """Read the keys of tokens again. Raises ConfigurationError, and keeps those that it has, when the new ones are no good."""
        self._tokens = self._load_tokens()

    def stop(self, code: int, reason: str) -> None:
        """Close all connections here."""
        for visitor in self.deadlines:
            visitor.end(code, reason)


class LobbySocket(PeekedSocket):
    """One connection that has been upgraded and has not said HELLO."""

    __slots__ = ("_assembled", "_lobby", "_stage")

    def __init__(self, stage: LobbySockets, connection: Connection, lobby: Lobby) -> None:
        super().__init__(stage.sockets, connection)
        self._stage = stage
        self._lobby = lobby
        #: The fragments so far of a message whose last fragment has not come.
        self._assembled: Fragments | None = None

    def handle_input(self) -> None:
        if self._lobby.held_until > now():
            self.park()
            return
        data = self.peek(PEEK_BYTES)
        if data is None:
            return
        view = memoryview(data)
        consumed = 0
        try:
            for _ in range(_FRAMES_PER_WAKE):
                frame = parse_frame(view[consumed:])
                if isinstance(frame, NeedMore):
                    self.consume(consumed)
                    self.wait_for(frame.total, len(data), consumed)
                    return
                if frame.opcode == Opcode.TEXT and frame.final and self._assembled is None:
                    outcome = self._receive(frame.payload)
                    if isinstance(outcome, Hello):
                        self.consume(consumed)
                        self._said_hello(outcome, b"")
                        return
                    consumed += frame.size
                    if not self._answer(outcome):
                        return
                    if self._lobby.held_until > now():
                        break
                else:
                    consumed += frame.size
                    if not self._special(frame, consumed):
                        return
            self.consume(consumed)
            self.set_mark(_LEAST)
            if self._lobby.held_until > now():
                self.sockets.count("front_slowed_total")
                self.park()
        except FrameError as error:
            self.end(error.code, error.reason)

    def _special(self, frame: Frame, consumed: int) -> bool:
        """Handle anything but a whole text message. `consumed` bytes are to be taken out when the lobby ends here; then returns False."""
        match frame.opcode:
            case Opcode.PING:
                return self.write(frames.server_frame(Opcode.PONG, frame.payload))
            case Opcode.PONG:
                return True
            case Opcode.CLOSE:
                self.sockets.count("front_closes_received_total")
                self.log(logging.DEBUG, "a connection was closed by its client before HELLO")
                self.finish(frames.server_frame(Opcode.CLOSE, frames.close_answer(frame.payload)))
                return False
            case Opcode.BINARY:
                raise FrameError(CloseCode.UNSUPPORTED_DATA, "messages are text, not binary data")
        return self._fragment(frame, consumed)

    def _fragment(self, frame: Frame, consumed: int) -> bool:
        if frame.opcode == Opcode.TEXT:
            if self._assembled is not None:
                raise FrameError(
                    CloseCode.PROTOCOL_ERROR, "a new message began before the last fragment of the one before"
                )
            self._assembled = Fragments()
        elif self._assembled is None:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "a continuation without a message that it continues")
        self._assembled.add(frame.payload, frame.final)
        if not frame.final:
            return True
        message = self._assembled.message()
        self._assembled = None
        outcome = self._receive(message)
        if isinstance(outcome, Hello):
            self.consume(consumed)
            self._said_hello(outcome, frames.client_frame(Opcode.TEXT, message))
            return False
        return self._answer(outcome)

    def _answer(self, frame: bytes) -> bool:
        """Write it. False when the lobby ends here."""
        written = self.write(frame)
        if written and self._lobby.is_over:
            raise FrameError(CloseCode.POLICY_VIOLATION, TRIES_REASON)
        return written

    def _receive(self, message: bytes) -> Hello | bytes:
        wall = time.time_ns()
        timestamp = format_timestamp(wall // 1_000_000)
        outcome = self._lobby.receive(message, now(), timestamp, wall / 1_000_000_000)
        if self._lobby.refused is not None:
            self.sockets.count(series("front_errors_total", code=self._lobby.refused))
            if self._lobby.refused_token is not None:
                self.sockets.count(series("front_tokens_refused_total", reason=self._lobby.refused_token))
            if _log.isEnabledFor(logging.DEBUG):
                wrong, kind = self._lobby.refused_field, self._lobby.refused_type
                error, why = self._lobby.refused, self._lobby.refused_token
                self.log(
                    logging.DEBUG, "a message was refused", type=kind, error=error, field=wrong, reason=why
                )
        return outcome

    def _said_hello(self, hello: Hello, carried: bytes) -> None:
        self.set_mark(1)
        self.user_id = hello.user_id
        denial = None if self.slot is None else self.sockets.addresses.said_hello(self.slot)
        if denial is not None:
            self.sockets.count_denial(denial, self.address)
            self.end(CloseCode.TRY_AGAIN_LATER, denial.sentence)
            return
        self.unwatch()  # The worker watches it.
        self._stage.handover.enter(self.hand_on(), hello.user_id, self._lobby, carried)

    def expire(self) -> None:
        """Close a connection whose HELLO did not come in time."""
        self.on_readable()
        deadlines = self._stage.deadlines
        if self in deadlines:
            self.end(CloseCode.POLICY_VIOLATION, f"no HELLO within {deadlines.seconds:g} s")

    def forget(self) -> None:
        self._stage.deadlines.cancel(self)
