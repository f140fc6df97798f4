"""When to say READ, to a server that takes it for all that came before (the capability `chats`).

So only the newest message of each sender counts, and it is said at most once a second. What does not fit into the server's limit waits; the
repeater says again what a lost connection may have swallowed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from fastchat_client._wire import Data, canonical

#: Seconds between two READs to one sender.
INTERVAL: Final = 1.0
#: READs in a window of so many seconds. The server's limit is 60 a minute for all devices of the user together.
PER_WINDOW: Final = 50
WINDOW: Final = 61.0
#: Messages of one sender whose order is known, and senders: the newest ones.
ORDERED: Final = 100
SENDERS: Final = 1_000


class Arrivals:
    """In which order the newest messages of each sender came."""

    def __init__(self) -> None:
        #: sender -> message ids, oldest first.
        self._ids: dict[str, list[str]] = {}

    def came(self, sender: str, message_id: str) -> None:
        """Note a message that came live."""
        peer = canonical(sender)
        ids = self._ids.pop(peer, [])
        if message_id not in ids:
            ids.append(message_id)
        self._put(peer, ids)

    def page(self, sender: str, message_ids: list[str]) -> None:
        """Take the newest page of a history: the ids of what the sender wrote, oldest first. What came since then is behind them."""
        if not message_ids:
            return
        peer = canonical(sender)
        known = self._ids.pop(peer, [])
        newest = message_ids[-1]
        behind = known[known.index(newest) + 1 :] if newest in known else []
        self._put(peer, message_ids + behind)

    def place(self, sender: str, message_id: str) -> int:
        """Return a number that is larger for later messages; -1 for one that is not known, and so older."""
        ids = self._ids.get(canonical(sender), [])
        return ids.index(message_id) if message_id in ids else -1

    def behind(self, sender: str, message_id: str) -> int | None:
        """Return how many messages of the sender came later, None if that is not known."""
        place = self.place(sender, message_id)
        return None if place < 0 else len(self._ids[canonical(sender)]) - 1 - place

    def _put(self, peer: str, ids: list[str]) -> None:
        self._ids[peer] = ids[-ORDERED:]
        if len(self._ids) > SENDERS:
            del self._ids[next(iter(self._ids))]


class Reading:
    """What the user has read and the server is to be told, on one connection. `say` puts a READ on the wire."""

    def __init__(self, arrivals: Arrivals, say: Callable[[Data], None]) -> None:
        self._arrivals = arrivals
        self._say = say
        #: sender -> the READ that is still to be said.
        self._pending: dict[str, Data] = {}
        #: sender -> the newest message that was marked, and when the next READ may be said.
        self._marked: dict[str, str] = {}
        self._next_at: dict[str, float] = {}
        #: When READs went out, and until when the server wants none.
        self._sent: deque[float] = deque()
        self._blocked_until = 0.0

    def mark(self, data: Data) -> bool:
        """Take a READ to be said, unless a later message of the sender was marked: whether it was taken. After this, `pump`."""
        sender, message_id = data["from"], data["message_id"]
        peer = canonical(sender)
        marked = self._marked.get(peer)
        if marked is not None:
            place, known = self._arrivals.place(sender, message_id), self._arrivals.place(sender, marked)
            if message_id == marked or place < known:
                return False
        self._marked[peer] = message_id
        self._pending[peer] = data
        return True

    def pending(self, peer: str) -> list[Data]:
        """Return the READ for this sender, as `canonical` has it, that is still to be said."""
        return [self._pending[peer]] if peer in self._pending else []

    def pump(self, now: float) -> None:
        """Say what may be said. There must be a connection."""
        while self._sent and now - self._sent[0] >= WINDOW:
            self._sent.popleft()
        for peer in list(self._pending):
            if now < self._blocked_until or len(self._sent) >= PER_WINDOW:
                return
            if now < self._next_at.get(peer, 0.0):
                continue
            self._sent.append(now)
            self._next_at = {other: at for other, at in self._next_at.items() if at > now}
            self._next_at[peer] = now + INTERVAL
            self._say(self._pending.pop(peer))

    def finish(self, now: float) -> None:
        """Say what is still to be said, as far as the limit allows: the connection is about to be closed."""
        self._next_at.clear()
        self.pump(now)

    def limited(self, unconfirmed: list[Data], until: float) -> None:
        """Say again, at a time, what is not confirmed: the server has refused one of these, it does not say which.

        It is most likely one of the last, so the last one comes first; and behind what has not been said at all.
        """
        self._blocked_until = max(self._blocked_until, until)
        for data in reversed(unconfirmed):
            self._pending.setdefault(canonical(data["from"]), data)

    def take_all(self) -> list[Data]:
        """Give up what was not said, since the connection is lost: it belongs to the next one, which begins anew."""
        taken = list(self._pending.values())
        self._pending.clear()
        self._marked.clear()
        self._next_at.clear()
        return taken

    def deadlines(self, now: float) -> Iterator[float]:
        """List the times from now on at which `pump` will have something to do."""
        if not self._pending:
            return
        earliest = max(self._blocked_until, self._sent[0] + WINDOW if len(self._sent) >= PER_WINDOW else 0.0)
        yield max(earliest, min(self._next_at.get(peer, 0.0) for peer in self._pending))
