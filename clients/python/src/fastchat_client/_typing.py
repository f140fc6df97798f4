"""When to tell that somebody is typing: at every key would be far too often for the server's limit of 10 a minute.

While somebody goes on typing it is repeated every 7 s, since the server lets it expire after 15. What does not fit into the limit is left
out: an indicator that is not renewed expires by itself. For each one that is shown, one of the ten is kept to end it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from fastchat_client._wire import canonical

#: Seconds after which an indicator is renewed, and after which the server ends it.
REPEAT_AFTER: Final = 7.0
EXPIRES_AFTER: Final = 15.0
#: TYPINGs in a window of so many seconds: the server's limit, and a second because the server's clock sees them at other distances.
PER_WINDOW: Final = 10
WINDOW: Final = 61.0


class TypingThrottle:
    """What this client has told of its user's typing."""

    def __init__(self) -> None:
        #: peer -> when it was last told that the user is typing to that peer.
        self._told: dict[str, float] = {}
        #: When the last TYPINGs went out.
        self._sent: deque[float] = deque()
        self._blocked_until = 0.0

    def wants(self, peer: str, is_typing: bool, now: float) -> bool:
        """Return whether to say so now; counts it if so."""
        peer = canonical(peer)
        self._told = {other: at for other, at in self._told.items() if now - at < EXPIRES_AFTER}
        last = self._told.get(peer)
        if last is None if not is_typing else last is not None and now - last < REPEAT_AFTER:
            return False
        if not is_typing:
            del self._told[peer]
        while self._sent and now - self._sent[0] >= WINDOW:
            self._sent.popleft()
        to_end = len(self._told.keys() | {peer}) if is_typing else 0
        if now < self._blocked_until or len(self._sent) + to_end >= PER_WINDOW:
            return False
        self._sent.append(now)
        if is_typing:
            self._told[peer] = now
        return True

    def message_sent(self, peer: str) -> None:
        """End the indicator, as a message does at the server."""
        self._told.pop(canonical(peer), None)

    def limited(self, retry_after: float, now: float) -> None:
        """Wait, since the server has had enough: other devices of the user type too."""
        self._blocked_until = now + retry_after
        self._told.clear()

    def start_over(self) -> None:
        """Forget what was shown: the connection is lost."""
        self._told.clear()
