"""A connection between the upgrade and its worker: the state machine of the lobby (D2).

    LOBBY ------ HELLO ------> WAITING ----- sent -----> IN FLIGHT ----- adopted -----> (the worker's)
      |                          |  ^                        |
      | Close, a broken rule,    |  |   the worker is gone,  |
      | 10 s without HELLO       |  +-- and HELLO is there --+
      v                          v                           v
    (lingering)        10 s without a worker:      the worker is gone, and so is HELLO,
                          Close 1013               or 10 s without its word: shut down

LOBBY      The socket is watched. Whole frames are dealt with in the order in which they came: what is answered here is taken out of
           the kernel, a HELLO stays where it is, with everything behind it. Only a fragmented message has to be taken out piece by
           piece, since a ping between the fragments wants its pong now; when it turns out to be the HELLO, it travels with the socket
           (`carried`).
WAITING    Nobody reads: the socket is in the queue for the worker that owns the user, which may be restarting.
IN FLIGHT  The worker has a copy of the socket, or is about to get it; ours stays open until the worker says `adopted`, which it does
           before it reads. So when the worker dies first, the socket is as it was, and waits again. To be sure, HELLO is looked for: if
           it isn't there, two processes may have read from this connection, and it is shut down, which ends it in both.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from core.auth.tokens import TRIES_REASON
from core.chat.lobby import Lobby
from core.events import close_level, fields
from core.measures import series
from core.process.handover import Ticket
from core.wire import frames
from core.wire.frames import PEEK_BYTES, Fragments, Frame, FrameError, NeedMore, Opcode, parse_frame
from core.wire.protocol import CloseCode
from core.wire.timestamps import format_timestamp
from core.wire.validation import Hello
from router.front.peeked_socket import PeekedSocket, format_address, is_connected, now

if TYPE_CHECKING:
    from router.front.handover_queue import HandoverQueue
    from router.front.reception import Reception

_log = logging.getLogger("fastchat.front")

#: Frames of one connection that are dealt with before others have their turn.
_FRAMES_PER_WAKE: Final = 8
#: Nothing can be said about a frame of which less is there.
_LEAST: Final = 2


class LobbySocket(PeekedSocket):
    """One connection that has been upgraded and has no worker yet."""

    __slots__ = ("_assembled", "_carried", "_hello_at", "_lobby", "_queue", "label", "number", "user_id")

    def __init__(
        self,
        reception: Reception,
        client: socket.socket,
        address: Any,
        mark: int,
        label: str,
        bearer: str | None = None,
    ) -> None:
        """`bearer` is the token that came with the upgrade."""
        super().__init__(reception, client, address, mark)
        #: What the connection is called in logs, also by its worker.
        self.label = label
        self._lobby = Lobby(
            reception.validator, now(), reception.pings_per_second, reception.tokens, bearer, reception.spare
        )
        #: The fragments so far of a message whose last fragment has not come.
        self._assembled: Fragments | None = None

        # -- From HELLO on --
        #: As HELLO said.
        self.user_id = ""
        #: When it came.
        self._hello_at = 0.0
        #: HELLO itself as a client frame, if it could not stay in the kernel.
        self._carried = b""
        #: The queue of the worker that owns the user.
        self._queue: HandoverQueue | None = None
        #: Its number there while it is in flight.
        self.number: int | None = None

    # -- The lobby --

    def look(self) -> None:
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
                self.reception.count("front_slowed_total")
                self.park()
        except FrameError as error:
            self.end(error.code, error.reason)

    def _special(self, frame: Frame, consumed: int) -> bool:
        """Anything but a whole text message. `consumed` bytes are to be taken out when the lobby ends here; then it returns False."""
        match frame.opcode:
            case Opcode.PING:
                return self.write(frames.server_frame(Opcode.PONG, frame.payload))
            case Opcode.PONG:
                return True
            case Opcode.CLOSE:
                self.reception.count("front_closes_received_total")
                self._tell(logging.DEBUG, "a connection was closed by its client before HELLO")
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
            self.reception.count(series("front_errors_total", code=self._lobby.refused))
            if self._lobby.refused_token is not None:
                self.reception.count(series("front_tokens_refused_total", reason=self._lobby.refused_token))
            if _log.isEnabledFor(logging.DEBUG):
                wrong, kind = self._lobby.refused_field, self._lobby.refused_type
                error, why = self._lobby.refused, self._lobby.refused_token
                self._tell(
                    logging.DEBUG, "a message was refused", type=kind, error=error, field=wrong, reason=why
                )
        return outcome

    def _said_hello(self, hello: Hello, carried: bytes) -> None:
        self.release()
        self.set_mark(1)
        self.user_id = hello.user_id
        denial = None if self.place is None else self.reception.addresses.said_hello(self.place)
        if denial is not None:
            self.reception.count_denial(denial, self.address)
            self.end(CloseCode.TRY_AGAIN_LATER, denial.sentence)
            return
        self._carried = carried
        self._queue = self.reception.queue_of(hello.user_id)
        self._hello_at = now()
        self.reception.waits.start(self, self._hello_at)
        self._queue.put(self)

    # -- From HELLO to the worker; `HandoverQueue` calls these --

    def ticket(self, number: int) -> Ticket:
        """What goes to the worker with the socket."""
        address, strikes = format_address(self.address), self._lobby.strikes(now())
        return Ticket(number, self.user_id, address, strikes, self._carried, self.label, self._lobby.expires)

    def adopted(self) -> None:
        """The worker has it: our copy goes, and only ours."""
        self.reception.waits.cancel(self)
        place, self.place = self.place, None
        if place is not None and self._queue is not None and self.number is not None:
            self.reception.addresses.handed_over(place, self._queue.worker, self.number)
        self.reception.handover_seconds.record(now() - self._hello_at)
        self.socket.close()

    def returned(self) -> bool:
        """The worker died before it said `adopted`. True when the socket may wait for the next one; else it is at its end."""
        self.number = None
        if self.reception.stopping is not None:
            self.end(*self.reception.stopping)
        elif self._carried or self._hello_is_there():
            return True
        else:
            self.reception.count("front_lost_total")
            self._tell(logging.INFO, "a hand-over failed: the worker ended in the middle of it")
            self.cut()
        return False

    def is_gone(self) -> bool:
        """Whether the client went away; nobody reads from the socket while it waits, so this has to be asked."""
        return not is_connected(self.socket)

    def _hello_is_there(self) -> bool:
        """Whether the first thing to read is still this user's HELLO."""
        try:
            frame = parse_frame(self.socket.recv(PEEK_BYTES, socket.MSG_PEEK))
            if isinstance(frame, NeedMore) or frame.opcode != Opcode.TEXT or not frame.final:
                return False
            outcome = self._receive(frame.payload)
        except (OSError, FrameError):
            return False
        return isinstance(outcome, Hello) and outcome.user_id == self.user_id

    # -- The end --

    def end(self, code: int, reason: str) -> None:
        """Close with a Close frame."""
        self.reception.count(series("front_closed_total", code=str(int(code))))
        self._tell(close_level(code), "a connection was closed by the server", code=int(code), reason=reason)
        last_words = frames.close_frame(code, reason)
        if self.number is None:
            self.finish(last_words, awaits_close=True)
        elif self.write(last_words):
            # In flight: the worker may have a copy.
            self.release()
            self.leave()
            self.reception.linger_shared(self.socket)

    def _tell(self, level: int, event: str, **about: object) -> None:
        """Log something about this connection."""
        if _log.isEnabledFor(level):
            user, address = self.user_id or None, format_address(self.address)
            _log.log(level, event, extra=fields(connection=self.label, user=user, address=address, **about))

    def cut(self) -> None:
        """End the connection in all processes that have a copy of the socket."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.close()

    def expire_lobby(self) -> None:
        """HELLO did not come in time."""
        self.look_now()
        if self in self.reception.hellos:
            self.end(CloseCode.POLICY_VIOLATION, f"no HELLO within {self.reception.limits.hello:g} s")

    def expire_wait(self) -> None:
        """No worker took it in time."""
        self.end(CloseCode.TRY_AGAIN_LATER, "this part of the server is not available; try again later")

    def forget(self) -> None:
        self.reception.hellos.cancel(self)
        self.reception.waits.cancel(self)
        if self._queue is not None:
            self._queue.forget(self)

    def fail(self) -> None:
        self.end(CloseCode.INTERNAL_ERROR, "the server failed; its log says why")
