"""A connection on its way from one process of a worker to the next: what there is of it beside its socket and its session.

The kernel keeps what it has; what is in this process goes along: bytes that have been read and not handled, and bytes that wait to be
written. Only a part of a frame can't, since picows does not give it back: `is_movable` is false until the rest has come.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from core.wire.frames import Fragments
from workers.adoption import is_between_frames
from workers.backlog import Backlog
from workers.connection import Connection
from workers.heartbeat import Ping


def is_movable(connection: Connection) -> bool:
    """Return whether the parser is between two frames; reading is to be paused."""
    stream = connection.stream
    if stream is None:
        return False
    meter = connection.meter
    return is_between_frames(stream.get_protocol() if meter is None else meter.parser)


def feed(connection: Connection, unread: bytes) -> None:
    """Handle what had been read before, as if it came now."""
    stream, meter = connection.stream, connection.meter
    if stream is not None:
        parser: Any = stream.get_protocol() if meter is None else meter.parser
        parser.feed(unread)


def state_of(connection: Connection) -> dict[str, Any]:
    """Return what goes along, as JSON takes it."""
    stream, backlog, meter, fragments = (
        connection.stream,
        connection.backlog,
        connection.meter,
        connection.fragments,
    )
    assert stream is not None, "it is movable"
    waiting = stream.get_write_buffer_size()
    state: dict[str, Any] = {
        "address": connection.address,
        "label": connection.label,
        "last_heard": connection.last_heard,
    }
    if waiting and backlog is not None:
        state["unsent"] = _as_text(backlog.last(waiting))
    if meter is not None:
        state["unread"] = _as_text(meter.rest())
    if fragments is not None:
        state["fragments"] = _as_text(fragments.message())
    if connection.unanswered is not None:
        state["pinged_at"] = connection.unanswered.written
    return state


def let_go(connection: Connection) -> None:
    """Write nothing more: another process has a copy of the socket, and does that."""
    connection.session.closed = True
    stream = connection.stream
    if stream is not None and stream.get_write_buffer_size():
        stream.abort()  # the event loop would go on with what waits


def restore(connection: Connection, state: dict[str, Any]) -> bytes:
    """Take over what came along, before the event loop has the socket. Returns the bytes that have been read and not handled."""
    connection.last_heard = state["last_heard"]
    if "fragments" in state:
        connection.fragments = Fragments(connection.message_max)
        connection.fragments.add(_as_bytes(state["fragments"]), False)
    if "pinged_at" in state:
        connection.unanswered = Ping(state["pinged_at"])
    if "unsent" in state:
        connection.backlog = Backlog(_as_bytes(state["unsent"]))
    return _as_bytes(state.get("unread", ""))


def _as_text(data: bytes) -> str:
    return b64encode(data).decode()


def _as_bytes(text: str) -> bytes:
    return b64decode(text)
