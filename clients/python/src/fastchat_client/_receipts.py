"""Messages that the server has, until they have been read: whom the receipts that still come belong to."""

from __future__ import annotations

from itertools import islice
from typing import Final

from fastchat_client._wire import canonical
from fastchat_client.models import Sent

#: Messages whose receipts are waited for, the newest ones.
FOLLOWED: Final = 1_000
#: Messages that are asked about after a reconnection, the latest ones: their receipts may have been missed.
ASKED: Final = 32
#: Seconds within which they were accepted. A server that keeps messages for a short time only would take an older one for a new one.
ASKED_WITHIN: Final = 12 * 3600.0


class Accepted:
    """The messages of this client that the server has and that are not read yet."""

    def __init__(self) -> None:
        #: (recipient, message id) -> the message, and when it was accepted.
        self._sent: dict[tuple[str, str], tuple[Sent, float]] = {}
        #: Message ids of those that have been sent again on this connection, just to learn how far they are.
        self.asked: set[str] = set()

    def add(self, sent: Sent, now: float) -> Sent | None:
        """Remember one; the one that had to be given up for it, if any."""
        self._sent[canonical(sent.to), sent.message_id] = sent, now
        if len(self._sent) > FOLLOWED:
            return self._sent.pop(next(iter(self._sent)))[0]
        return None

    def find(self, message_id: str, to: str | None) -> Sent | None:
        """Find the message of this id, to this user if the server says to whom."""
        if to is not None:
            return self._sent.get((canonical(to), message_id), (None, 0.0))[0]
        return next((sent for sent, _ in self._sent.values() if sent.message_id == message_id), None)

    def remove(self, sent: Sent) -> None:
        """Forget it, since it has been read."""
        self._sent.pop((canonical(sent.to), sent.message_id), None)

    def latest(self, now: float) -> list[Sent]:
        """Return those to ask about, in the order in which they were sent."""
        latest = list(islice(reversed(self._sent.values()), ASKED))[::-1]
        asked = [sent for sent, at in latest if now - at < ASKED_WITHIN]
        self.asked = {sent.message_id for sent in asked}
        return asked

    def take_all(self) -> list[Sent]:
        """Return all of them; there are none afterwards."""
        taken, self._sent = [sent for sent, _ in self._sent.values()], {}
        return taken
