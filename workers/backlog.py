"""What the kernel did not take of what was written to a client.

The event loop's transport keeps it until there is room, and does not give it back. When another process takes the connection over, the
client must get exactly the rest from there. So the same bytes are remembered here, which takes no more memory: the transport and the
backlog share the objects.
"""

from __future__ import annotations

from collections import deque


class Backlog:
    """The last bytes that were given to the transport of one connection."""

    __slots__ = ("_parts", "_size")

    def __init__(self, data: bytes = b"") -> None:
        """Remember `data`, which another process could not write: `take` it, once there is a transport."""
        self._parts: deque[bytes] = deque((data,))
        self._size = len(data)

    def add(self, data: bytes) -> None:
        """Remember what is given to the transport."""
        self._parts.append(data)
        self._size += len(data)

    def trim(self, waiting: int) -> None:
        """Forget what has gone out, except a part of which the last bytes are among the `waiting` ones."""
        parts = self._parts
        while parts and self._size - len(parts[0]) >= waiting:
            self._size -= len(parts.popleft())

    def take(self) -> bytes:
        """Return all that is remembered, and forget it."""
        data = self.last(self._size)
        self._parts.clear()
        self._size = 0
        return data

    def last(self, waiting: int) -> bytes:
        """Return the bytes that the transport still has."""
        self.trim(waiting)
        return b"".join(self._parts)[self._size - waiting :]
