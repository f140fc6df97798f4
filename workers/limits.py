"""How long a worker waits for a client, in seconds. Only tests have others, in a connection type of their own: no setting leads to them."""

from __future__ import annotations

from typing import Final, NamedTuple

from core.wire.protocol import HEARTBEAT_IDLE, HEARTBEAT_REPLY, SLOW_READER_SECONDS


class Limits(NamedTuple):
    """What each of these is for, the modules say that go by it."""

    #: From the last sign of life to the ping, and from the ping to the end (D27): ``workers.heartbeat``.
    idle: float = HEARTBEAT_IDLE
    reply: float = HEARTBEAT_REPLY
    #: Without a byte read of more than may be left unread (D29): ``workers.slow_readers``.
    slow_reader: float = SLOW_READER_SECONDS
    #: From our Close frame to the end of the connection (D28): ``workers.connection``.
    linger: float = 3.0


DEFAULT_LIMITS: Final = Limits()
