"""MSG_ACK and READ, said again on the next connection when this one may have been lost before the server read them.

Nothing answers them. But the server reads in order, so a PONG confirms whatever was said before its PING.
"""

from __future__ import annotations

from typing import Any

_Said = tuple[str, dict[str, Any]]


class Repeater:
    """What was said and is not confirmed."""

    def __init__(self) -> None:
        #: (type, message id, sender) -> what was said, and how many PINGs had gone out before it.
        self._said: dict[tuple[str, str, str], tuple[_Said, int]] = {}
        self._pings = 0
        self._pongs = 0

    def add(self, kind: str, data: dict[str, Any]) -> None:
        """Repeat this until it is confirmed: it is being said, or waits for a connection."""
        self._said[kind, data["message_id"], data["from"]] = (kind, data), self._pings

    def add_alone(self, data: dict[str, Any]) -> None:
        """Repeat this READ, and no earlier one of the same sender: it covers them."""
        self._said = {key: value for key, value in self._said.items() if key[::2] != ("READ", data["from"])}
        self.add("READ", data)

    def reads(self) -> list[dict[str, Any]]:
        """Return the READs that are not confirmed."""
        return [data for (kind, data), _ in self._said.values() if kind == "READ"]

    def pinged(self) -> None:
        """Note that a PING goes out."""
        self._pings += 1

    def ponged(self) -> None:
        """Note that a PONG came: what was said before its PING is confirmed."""
        self._pongs += 1
        for key in [key for key, (_, pings) in self._said.items() if pings < self._pongs]:
            del self._said[key]

    def start_over(self, gives_reads: bool = False) -> list[_Said]:
        """Return what to say first on a new connection; with `gives_reads`, who calls this adds the READs again when they are said."""
        self._pings = self._pongs = 0
        again = [said for said, _ in self._said.values()]
        self._said = {
            key: (said, 0) for key, (said, _) in self._said.items() if not gives_reads or said[0] != "READ"
        }
        return again
