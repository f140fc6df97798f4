"""One client's connection in a worker: frames in, messages out, and how it ends.

picows parses the frames (``workers.adoption``); `Connection` makes of them what RFC 6455 and D25 ask for: messages reassembled from
fragments, pings and a Close answered, all else closed with the right code. The compiled core has it in C (``connection.pxd``).

How a connection ends, whoever begins: `_finish` writes what is waiting and a Close frame, and lets ``workers.closing`` read and forget what
the client still sends. Our FIN follows the client's Close frame, at once when that came first, or the end of the linger time (D28).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from time import monotonic
from typing import ClassVar, Final

from picows import picows

from core.chat.session import Session
from core.chat.shard import BUG_REASON
from core.events import close_level, fields
from core.measures import OTHER
from core.process.handover import Ticket
from core.wire.frames import Fragments, FrameError, Opcode, close_answer, close_frame, server_frame
from core.wire.protocol import (
    MESSAGE_MAX_BYTES,
    OUTBOX_MAX_BYTES,
    REPLAY_WINDOW_BYTES,
    SLOW_READER_BYTES,
    CloseCode,
)
from workers.backlog import Backlog
from workers.closing import Closing
from workers.heartbeat import Ping, beat, is_readable
from workers.host import Host
from workers.limits import DEFAULT_LIMITS, Limits
from workers.rounds import DIRECT, LENGTH_SHIFT, Meter
from workers.slow_readers import acknowledged_bytes, queued_bytes

_log = logging.getLogger("fastchat.worker")

_CONTINUATION: Final = picows.WSMsgType.CONTINUATION
_TEXT: Final = picows.WSMsgType.TEXT
_BINARY: Final = picows.WSMsgType.BINARY
_CLOSE: Final = picows.WSMsgType.CLOSE
_PING: Final = picows.WSMsgType.PING

#: What RFC 6455 calls the end of a connection without a Close frame (7.4.1); and codes with which clients close that are told apart.
_ABNORMAL: Final = 1006
_CLIENT_CODES: Final = frozenset(range(1000, 1016))
#: Pings and pongs within a second; a client that sends more keeps the worker from its other clients.
_CONTROLS_PER_SECOND: Final = 1000


class Connection(picows.WSListener):
    """Implements ``core.chat.ports.Connection`` on a socket that the front handed over."""

    __slots__ = (
        "_controls",
        "_controls_since",
        "_dirty",
        "_frames",
        "_frames_size",
        "_host",
        "_linger_until",
        "_stream",
        "_transport",
        "_turn",
        "address",
        "allowance",
        "backlog",
        "descriptor",
        "fragments",
        "held_until",
        "kept",
        "label",
        "last_heard",
        "meter",
        "session",
        "unanswered",
    )

    #: Bytes of a message, and bytes that may wait for a client (D25, D29). Only the tests of RFC 6455 have others.
    message_max: ClassVar[int] = MESSAGE_MAX_BYTES
    outbox_max: ClassVar[int] = OUTBOX_MAX_BYTES
    #: How long it is waited for a client. Only tests have others.
    limits: ClassVar[Limits] = DEFAULT_LIMITS

    def __init__(self, host: Host[Connection], ticket: Ticket, now: float) -> None:
        self._host = host
        #: The client's address, and what the connection is called, for logs.
        self.address = ticket.address
        self.label = ticket.label
        self.last_heard = now
        self.session: Session = host.shard.connect(self, ticket.user_id, ticket.strikes, now, ticket.proof)
        # -- Set once the socket is adopted --
        self._transport: picows.WSTransport | None = None
        #: The event loop's own transport, beneath picows.
        self._stream: asyncio.Transport | None = None
        self.descriptor = -1
        # -- Receiving --
        #: The fragments of an unfinished text message (RFC 6455, 5.4).
        self.fragments: Fragments | None = None
        #: The heartbeat's ping, if one was sent since the client was last heard.
        self.unanswered: Ping | None = None
        #: What it may send before it is looked at whether that is too much (``workers.rounds``), and the loop turn of the last look.
        self.allowance = DIRECT
        self._turn = 0
        #: What reads for it when it sends too much.
        self.meter: Meter | None = None
        #: Until when it is not to be read from.
        self.held_until = 0.0
        #: Pings and pongs within the second that began then.
        self._controls = 0
        self._controls_since = now
        # -- Sending --
        #: Frames of this loop turn.
        self._frames: list[bytes] = []
        self._frames_size = 0
        self._dirty = False
        #: Bytes that the kernel did not take at once, all in all; and the last of them, from the first time on.
        self.kept = 0
        self.backlog: Backlog | None = None
        #: When to give up waiting for the client to close; None while the connection is open.
        self._linger_until: float | None = None

    # -- The port --

    def send(self, frame: bytes) -> None:
        """Write a finished frame at the end of this loop turn."""
        if self._linger_until is not None:
            return
        self._frames.append(frame)
        self._frames_size += len(frame)
        if not self._dirty:
            self._dirty = True
            self._host.turn.dirty(self)

    def ping(self, payload: bytes) -> None:
        """Write a WebSocket ping."""
        self.send(server_frame(Opcode.PING, payload))

    def close(self, code: int, reason: str) -> None:
        """Write what is waiting, then a Close frame, and end the connection."""
        if self._linger_until is None:
            self._log_event(
                close_level(code), "a connection was closed by the server", code=int(code), reason=reason
            )
        self._finish(code, reason)

    def hold(self, until: float) -> None:
        """Don't read until then."""
        self.held_until = until
        self._host.rounds.hold(self, until)

    def unsent(self) -> int:
        """Return bytes that wait here or in the transport."""
        waiting = self._stream.get_write_buffer_size() if self._stream is not None else 0
        return self._frames_size + waiting

    def unread(self) -> int:
        """See ``workers.slow_readers``, as the two below."""
        if self._stream is None or self._linger_until is not None:
            return 0
        return self.unsent() + queued_bytes(self.descriptor)

    def taken(self) -> int:
        assert self._stream is not None, "somebody has something unread"
        return acknowledged_bytes(self._stream.get_extra_info("socket"))

    def stopped_reading(self, now: float) -> None:
        reason = f"you read too slowly: nothing for {self.limits.slow_reader:.0f} seconds; reconnect"
        self.session.close(CloseCode.TRY_AGAIN_LATER, reason, now)

    # -- The end of a loop turn --

    def flush(self, now: float) -> int:
        """Write this turn's frames with one system call, and return how many; what the kernel does not take waits in the transport."""
        self._dirty = False
        written = len(self._frames)
        self._write_frames()
        stream = self._stream
        if stream is None or self._linger_until is not None:
            return written
        waiting = stream.get_write_buffer_size()
        if waiting > self.outbox_max:
            self.session.close(CloseCode.TRY_AGAIN_LATER, "you read too slowly; reconnect", now)
        elif self.session.behind and waiting < REPLAY_WINDOW_BYTES:
            self.session.writable(now)
        return written

    def _write_frames(self) -> None:
        stream, frames = self._stream, self._frames
        if stream is None or not frames:
            return
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        host = self._host
        host.writes += 1
        host.frames += len(frames)
        frames.clear()
        self._frames_size = 0
        if stream.is_closing():
            return  # The client is gone; the transport is about to say so, and does not like to be written to.
        if not stream.get_write_buffer_size():
            try:
                written = os.write(self.descriptor, data)
            except BlockingIOError:
                written = 0
            except OSError:
                return  # The connection is broken; the transport is about to say so.
            if written == len(data):
                return
            data = data[written:]
        self.keep(stream, data)

    def keep(self, stream: asyncio.Transport, data: bytes) -> None:
        """Leave to the transport what the kernel has no room for."""
        if self.backlog is None:
            self.backlog = Backlog()
        self.backlog.trim(stream.get_write_buffer_size())
        self.backlog.add(data)
        self.kept += len(data)
        stream.write(data)
        self._host.slow_readers.watch(self)

    # -- For `workers.rounds` --

    @property
    def stream(self) -> asyncio.Transport | None:
        """The event loop's transport, while the client may say something on it."""
        stream = self._stream
        return (
            stream if stream is not None and self._linger_until is None and not stream.is_closing() else None
        )

    def pause_reading(self) -> None:
        """Leave what the client sends where it is."""
        stream = self.stream
        if stream is not None and stream.is_reading():
            stream.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        stream = self.stream
        if stream is not None and not stream.is_reading() and not self._host.frozen:
            stream.resume_reading()

    # -- From picows --

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Note that the canned upgrade is through."""
        self._transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take a whole frame, unmasked; picows has checked opcode, mask, length and the form of control frames."""
        if self._linger_until is not None:
            if frame.msg_type == _CLOSE:  # it came in one go with what made us close
                self.send_fin()
            return
        self.allowance -= 1 + (frame.payload_size >> LENGTH_SHIFT)
        if self.allowance <= 0:
            self._exhausted()
        now = self.last_heard = monotonic()
        self.unanswered = None
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.fail(CloseCode.PROTOCOL_ERROR, "reserved bits must be 0: no extension was negotiated")
            return
        kind = frame.msg_type
        if kind == _TEXT:
            if self.fragments is not None:
                self.fail(CloseCode.PROTOCOL_ERROR, "a new message in the middle of a fragmented one")
            elif frame.fin:
                self._receive(frame.get_payload_as_bytes(), now)
            else:
                self.fragments = Fragments(self.message_max)
                self._add_fragment(frame, now)
        elif kind == _CONTINUATION:
            if self.fragments is None:
                self.fail(CloseCode.PROTOCOL_ERROR, "a continuation without a beginning")
            else:
                self._add_fragment(frame, now)
        elif kind == _PING:
            if self._may_control(now):
                self.send(server_frame(Opcode.PONG, frame.get_payload_as_bytes()))
        elif kind == _CLOSE:
            self._received_close(frame, now)
        elif kind == _BINARY:
            self._receive_binary(frame, now)
        elif self._may_control(now):
            self.session.pong(frame.get_payload_as_bytes(), now)
            self._host.turn.schedule()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Note that the client is gone without a Close of ours."""
        self.gone()

    def pause_writing(self) -> None:
        """Do nothing: `flush` looks at the amount itself that waits."""

    def resume_writing(self) -> None:
        """Go on with what the client missed, which has read."""
        if self.backlog is not None and self._stream is not None:
            self.backlog.trim(self._stream.get_write_buffer_size())
        if self._linger_until is None:
            self.session.writable(monotonic())

    # -- From the timer wheel --

    def on_timer(self, now: float) -> float | None:
        """Ping a silent client, give up on one that stays silent (D27); and judge the deadlines of HELLO and of closing."""
        if self._stream is None:
            return None
        if self._linger_until is not None:
            if now >= self._linger_until:
                self._end()
                return None
            return self._linger_until
        if queued_bytes(self.descriptor) > SLOW_READER_BYTES:
            self._host.slow_readers.watch(self)
        return beat(self, now)

    @property
    def may_be_judged(self) -> bool:
        """Whether the client is read from, and nothing of it waits in the kernel, not even its FIN."""
        return self._stream is not None and self._stream.is_reading() and not is_readable(self.descriptor)

    def gone_out(self) -> int:
        """Return bytes that the transport has had to keep for a while, and the kernel has taken since."""
        waiting = self._stream.get_write_buffer_size() if self._stream is not None else 0
        return self.kept - waiting

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the worker stood still for so long, until now: what did not happen meanwhile is not the client's doing (D27)."""
        self.last_heard = min(self.last_heard + seconds, now)
        self.session.hello_deadline += seconds
        if self.unanswered is not None:
            self.unanswered.begin_again(now)
        if self._linger_until is not None:
            self._linger_until += seconds

    # -- Receiving --

    def _exhausted(self) -> None:
        """Go on in another turn, since the allowance is used up."""
        turn = self._host.turn.number
        if turn == self._turn:
            self._host.rounds.meter(self)
        elif self.meter is None:
            self._turn = turn
            self.allowance = DIRECT
            self._host.turn.schedule()

    def _may_control(self, now: float) -> bool:
        """Count a ping or a pong. False, and the connection is closed, when there are too many."""
        if now - self._controls_since >= 1.0:
            self._controls, self._controls_since = 0, now
        self._controls += 1
        if self._controls <= _CONTROLS_PER_SECOND:
            return True
        self.fail(CloseCode.POLICY_VIOLATION, f"more than {_CONTROLS_PER_SECOND} pings and pongs in a second")
        return False

    def _add_fragment(self, frame: picows.WSFrame, now: float) -> None:
        fragments = self.fragments
        assert fragments is not None, "the caller has begun a message"
        try:
            fragments.add(frame.get_payload_as_bytes(), bool(frame.fin))
        except FrameError as error:
            self.fail(error.code, error.reason)
            return
        if frame.fin:
            self.fragments = None
            self._receive(fragments.message(), now)

    def _received_close(self, frame: picows.WSFrame, now: float) -> None:
        payload = frame.get_payload_as_bytes()
        answer = close_answer(payload)
        code = int.from_bytes(answer[:2], "big") if answer else CloseCode.NORMAL
        known = int(code) if code in _CLIENT_CODES else None
        self._host.shard.count_close("client", OTHER if known is None else known, "")
        self.session.note_close("client", int(code), payload[2:].decode(errors="replace"), now)
        self._log_event(logging.DEBUG, "a connection was closed by its client", code=known)
        self.session.on_closed(now)
        self._finish(code, answer[2:].decode(), answered=True)
        self._host.turn.schedule()

    def _receive_binary(self, frame: picows.WSFrame, now: float) -> None:
        self.fail(CloseCode.UNSUPPORTED_DATA, "messages are text, not binary")

    def _receive(self, payload: bytes, now: float) -> None:
        try:
            self.session.receive(payload, now)
        except FrameError as error:
            self.fail(error.code, error.reason)
        except Exception:
            self._log_event(logging.ERROR, "bug while handling a message", exc_info=True)
            self.fail(CloseCode.INTERNAL_ERROR, BUG_REASON)
        self._host.turn.schedule()

    # -- Ending --

    def parser_failed(self, code: int, reason: str, *, is_close: bool = False) -> None:
        """Give up once picows has handed over what is in front of a frame that it can't read, which is a Close frame if `is_close`."""
        self.hold(math.inf)
        asyncio.get_running_loop().call_soon(self._give_up, code, reason, is_close)

    def _give_up(self, code: int, reason: str, is_close: bool) -> None:
        if self._linger_until is None:
            self.fail(code, reason)
        if is_close:
            self.send_fin()

    def fail(self, code: int, reason: str) -> None:
        """Close for what the client did, or did not do."""
        self.session.close(code, reason, monotonic())
        self._host.turn.schedule()

    def _finish(self, code: int, reason: str, answered: bool = False) -> None:
        """Write what is waiting and a Close frame; FIN follows when the client's has come, or `answered` it is by ours."""
        if self._linger_until is not None:
            return
        transport, stream = self._transport, self._stream
        if transport is None or stream is None:
            self._linger_until = 0.0
            return
        self._frames.append(close_frame(code, reason))
        self._write_frames()
        self._linger_until = monotonic() + self.limits.linger
        self.fragments = None
        if stream.is_closing():
            return
        if self.meter is not None:
            asyncio.get_running_loop().call_soon(self.meter.give_rest)
        stream.set_protocol(Closing(self, self._host.scrap, answered))
        stream.resume_reading()
        self._host.wheel.watch(self, self._linger_until)
        if answered:
            self.send_fin()

    def _end(self) -> None:
        """Send FIN once the linger time is over, unless the client does not even read what is there."""
        assert self._stream is not None, "else nobody would look"
        if self._stream.get_write_buffer_size():
            self._stream.abort()
        else:
            self._stream.close()

    def send_fin(self) -> None:
        """Send FIN: both sides have sent a Close frame, and nothing follows. The client closes too, or the linger time ends."""
        stream = self._stream
        if stream is not None and not stream.is_closing():
            try:
                stream.write_eof()
            except (OSError, RuntimeError):
                stream.abort()

    def gone(self) -> None:
        self._linger_until = self._linger_until or 0.0
        self._stream = None
        self._transport = None
        self._host.left(self)
        if not self.session.closed:
            now = monotonic()
            self._log_event(logging.DEBUG, "a connection broke")
            self._host.shard.count_close("nobody", _ABNORMAL, "")
            self.session.note_close("nobody", _ABNORMAL, "", now)
            self.session.on_closed(now)
            self._host.turn.schedule()

    def _log_event(self, level: int, event: str, *, exc_info: bool = False, **about: object) -> None:
        """Log something about this connection."""
        if not _log.isEnabledFor(level):
            return
        who = fields(connection=self.label, user=self.session.claimed, address=self.address, **about)
        _log.log(level, event, exc_info=exc_info, extra=who)

    # -- Adopting --

    def adopted(self, stream: asyncio.Transport, descriptor: int) -> None:
        """Note that the event loop has the socket; called before anything is read from it."""
        self._stream = stream
        self.descriptor = descriptor
        stream.set_write_buffer_limits(high=REPLAY_WINDOW_BYTES, low=REPLAY_WINDOW_BYTES // 4)
        self._host.entered(self)
        self._log_event(logging.DEBUG, "a client came")
        if self._linger_until is not None:
            stream.abort()
            return
        first_look = min(self.session.hello_deadline, self.last_heard + self.limits.idle)
        self._host.wheel.watch(self, first_look)
        if self.backlog is not None:
            self.keep(stream, self.backlog.take())
        if self._frames:
            self._host.turn.dirty(self)
