"""From the mailbox to the devices, and back: writing messages, replaying what was missed, and acknowledgements (D11, D12).

Each session has a cursor into its user's mailbox. A session that has everything gets a new message at once; one that is behind is
*pumped*: it gets the next unacknowledged messages as long as little waits unsent, and again when there is room. So a device that was
away for long, or that reads slowly, is fed from the mailbox at its own pace, and live messages queue up there and nowhere else.

A user who has never sent MSG_ACK acknowledges implicitly: a WebSocket ping follows the messages, its pong says that all before it
arrived, and 5 s later (a MSG_ACK may still come) or when the connection ends they count as acknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from core.ports import nobody_waits
from core.protocol import CONFIRM_PING_INTERVAL, IMPLICIT_ACK_DELAY, REPLAY_WINDOW_BYTES

if TYPE_CHECKING:
    from core.mailbox import Message
    from core.ports import Store
    from core.session import Session
    from core.user import User


class Delivery:
    """Delivery to the users of one shard."""

    __slots__ = ("_confirmed", "_store", "_to_ask")

    def __init__(self, store: Store) -> None:
        self._store = store
        #: (when it counts, session, position): confirmed by a pong, waiting for a MSG_ACK that would overrule it. In order of time.
        self._confirmed: deque[tuple[float, Session, int]] = deque()
        #: Sessions that have got messages since their last confirming ping, and may not be sent another one yet.
        self._to_ask: dict[Session, None] = {}

    def deliver(self, user: User, message: Message, now: float) -> None:
        """Write a newly committed message to every device that is not behind."""
        previous = message.seq - 1
        for session in user.sessions:
            if session.cursor == previous:
                self._write(user, session, message, now)

    def pump(self, user: User, session: Session, now: float) -> None:
        """Write unacknowledged messages to a session that is behind, as many as may wait unsent."""
        mailbox, connection = user.mailbox, session.connection
        while connection.unsent() < REPLAY_WINDOW_BYTES:
            message = mailbox.next_unacknowledged(session.cursor)
            if message is None:
                session.cursor = mailbox.head
                return
            self._write(user, session, message, now)

    def acknowledge(self, session: Session, user: User, message_id: str, sender: str | None) -> None:
        """MSG_ACK from a device. One that names nothing that waits is ignored: another device may have been first."""
        if not user.acknowledges:
            user.acknowledges = True
            self._store.save_user(user, nobody_waits)
        message = user.mailbox.oldest_unacknowledged(message_id, sender, session.cursor)
        if message is not None:
            self._settle(user, message)

    def pong(self, session: Session, payload: bytes, now: float) -> None:
        """A pong: if it answers the confirming ping, everything written before that ping has arrived."""
        asked, user = session.confirm_asked, session.user
        if not asked or user is None or payload != _ping_payload(asked):
            return
        session.confirm_asked = 0
        session.confirm_seq = asked
        self._confirmed.append((now + IMPLICIT_ACK_DELAY, session, asked))
        if session.cursor > asked and not user.acknowledges:
            self._to_ask[session] = None

    def disconnected(self, user: User, session: Session) -> None:
        """The session ended: what its pongs have confirmed counts now."""
        self._to_ask.pop(session, None)
        if session.confirm_seq and not user.acknowledges:
            self._settle_through(user, session.confirm_seq)

    def tick(self, now: float) -> None:
        """Let confirmations count whose time has come, and send the pings that had to wait."""
        confirmed = self._confirmed
        while confirmed and confirmed[0][0] <= now:
            _, session, seq = confirmed.popleft()
            user = session.user
            if user is not None and not session.closed and not user.acknowledges:
                self._settle_through(user, seq)
        if self._to_ask:
            waiting, self._to_ask = self._to_ask, {}
            for session in waiting:
                self._ask(session, now)

    def _write(self, user: User, session: Session, message: Message, now: float) -> None:
        session.connection.send(message.frame)
        session.cursor = message.seq
        session.received_peer = message.sender
        message.written = True
        if not user.acknowledges:
            self._ask(session, now)

    def _ask(self, session: Session, now: float) -> None:
        """Send a confirming ping behind the messages: at most one on its way, at most one a second."""
        if session.confirm_asked:
            return
        if session.confirm_asked_at + CONFIRM_PING_INTERVAL > now:
            self._to_ask[session] = None
            return
        session.confirm_asked = session.cursor
        session.confirm_asked_at = now
        session.connection.ping(_ping_payload(session.cursor))

    def _settle_through(self, user: User, seq: int) -> None:
        message = user.mailbox.next_unacknowledged(0)
        while message is not None and message.seq <= seq:
            self._settle(user, message)
            message = user.mailbox.next_unacknowledged(message.seq)

    def _settle(self, user: User, message: Message) -> None:
        user.mailbox.acknowledge(message)
        self._store.acknowledged(message)


def _ping_payload(seq: int) -> bytes:
    return b"seq %d" % seq
