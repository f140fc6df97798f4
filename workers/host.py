"""What the connections of a worker share; ``workers.connections`` is that."""

from __future__ import annotations

from typing import Protocol, TypeVar

from core.chat.shard import Shard
from workers.heartbeat import TimerWheel
from workers.rounds import Rounds
from workers.slow_readers import SlowReaders
from workers.turn import Turn

AConnection = TypeVar("AConnection", contravariant=True)


class Host(Protocol[AConnection]):
    """The worker, as its connections see it."""

    shard: Shard
    turn: Turn
    rounds: Rounds
    wheel: TimerWheel
    slow_readers: SlowReaders
    #: Where bytes go that nobody wants.
    scrap: memoryview
    #: Writes to clients, and the frames in them.
    writes: int
    frames: int
    #: Whether no client is read from, since another process is about to take over.
    frozen: bool

    def entered(self, connection: AConnection) -> None:
        """Note that the event loop has the socket of a connection."""

    def left(self, connection: AConnection) -> None:
        """Note that a connection is gone."""
