"""What a client has sent and can't be done yet, since something before it is not finished.

A client may send everything in one go: HELLO, OPEN_CHAT, MSG, TYPING. Most of it can be worked on side by side; but until HELLO is through
nothing else may begin, and until a chat is open what is meant for it must wait. So a command that takes its time *holds* a key: the
peer whom it is about, or `EVERYTHING`. What comes later and depends on a held key waits in order, the rest goes ahead. In particular a
chat that can't be opened, since the other shard does not answer, does not keep messages from other chats.
"""

from __future__ import annotations

from typing import Any, Final

#: The key on which every command depends; no user id looks like it.
EVERYTHING: Final = "*"

_NOTHING: Final[frozenset[str]] = frozenset()
_Commands = list[tuple[str, dict[str, Any]]]
#: Never changed: a line that gets its first command is a list of its own.
_NO_COMMANDS: Final[_Commands] = []


class CommandQueue:
    """The commands of one connection that wait."""

    __slots__ = ("_waiting", "held")

    def __init__(self) -> None:
        #: The keys that are held: if there are none, nothing needs to wait.
        # Nearly always empty, and there is one for each connection: an empty set of its own would take 216 bytes, an empty deque 760.
        self.held = _NOTHING
        self._waiting = _NO_COMMANDS

    def __len__(self) -> int:
        """Return how many commands wait."""
        return len(self._waiting)

    def hold(self, key: str) -> None:
        """Let what depends on `key` wait, until `release`."""
        self.held |= {key}

    def holds_everything(self) -> bool:
        """Return whether no command may begin."""
        return EVERYTHING in self.held

    def holds_peer(self, peer: Any) -> bool:
        """Return whether a command about `peer`, as the client wrote it, must wait; without a peer it may be about any of them."""
        if EVERYTHING in self.held or peer is None:
            return bool(self.held)
        return type(peer) is str and (peer in self.held or peer.lower() in self.held)

    def put(self, kind: str, data: dict[str, Any]) -> None:
        """Let a command wait behind all others that do."""
        if not self._waiting:
            self._waiting = []
        self._waiting.append((kind, data))

    def release(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """Hold `key` no longer. All that waits is taken out, in order; what must wait on is to be `put` back."""
        self.held = self.held - {key} or _NOTHING
        waiting, self._waiting = self._waiting, _NO_COMMANDS
        return waiting

    def clear(self) -> None:
        """Forget all that waits."""
        self._waiting = _NO_COMMANDS
