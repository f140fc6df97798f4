"""From the mailbox to the devices, and back: writing messages, replaying what was missed, and acknowledgements (D11-D13).

Each session has a cursor into its user's mailbox. A session that has everything gets a new message at once; one that is behind is
*pumped*: it gets the messages after its cursor as long as little waits unsent, and again when there is room. They come from memory
if they are recent, else from the store, a page at a time. So a device that was away for long, or that reads slowly, is fed at its own
pace, and live messages queue up in the store and nowhere else.

What a session missed before it came is sent again only as far as nobody has acknowledged it, unless it *resumes*: then all of it.

A user who has never sent MSG_ACK acknowledges implicitly: a WebSocket ping follows the messages, its pong says that all before it
arrived, and 5 s later (a MSG_ACK may still come) or when the connection ends they count as acknowledged.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from core import codec
from core.mailbox import CACHE_MAX
from core.ports import nobody_waits
from core.protocol import CONFIRM_PING_INTERVAL, IMPLICIT_ACK_DELAY, REPLAY_WINDOW_BYTES, Resumed
from core.stalls import later

if TYPE_CHECKING:
    from core.mailbox import Mailbox, Message
    from core.ports import Store
    from core.receipts import Receipts
    from core.session import Session
    from core.user import User

#: Seconds until a page that could not be read is asked for again.
_READ_AGAIN: Final = 1.0


class Delivery:
    """Delivery to the users of one shard."""

    __slots__ = ("_confirmed", "_receipts", "_stalled", "_store", "_to_ask", "written")

    def __init__(self, store: Store, receipts: Receipts) -> None:
        self._store = store
        self._receipts = receipts
        #: (when it counts, session, position): confirmed by a pong, waiting for a MSG_ACK that would overrule it. In order of time.
        self._confirmed: deque[tuple[float, Session, int]] = deque()
        #: Sessions that have got messages since their last confirming ping. They are asked at the next tick, so that one ping does for all
        #: that came together, or when they may be.
        self._to_ask: dict[Session, None] = {}
        #: (when to try again, session): the store could not read for them. In order of time.
        self._stalled: deque[tuple[float, Session]] = deque()
        #: Messages written to devices, each device and each repetition counted.
        self.written = 0

    def start(self, user: User, session: Session, cursor: str | None) -> str:
        """Where a new session goes on: sets its cursor, and says what that is to the client (D13). After this, `pump`."""
        mailbox = user.mailbox
        position = None if cursor is None else mailbox.position(cursor)
        if position is None:
            session.cursor = mailbox.acknowledged_through
            session.missed_through = mailbox.head
            return Resumed.RESET
        session.cursor = max(position, mailbox.purged_through)
        session.missed_through = 0
        return Resumed.FULL if session.cursor == position else Resumed.PARTIAL

    def deliver(self, user: User, message: Message, now: float) -> bool:
        """Write a newly committed message to every device that is not behind; whether there was one."""
        previous = message.seq - 1
        written = False
        for session in user.sessions:
            if session.cursor == previous:
                self._write(user, session, message, now)
                written = True
        return written

    def pump(self, user: User, session: Session, now: float) -> None:
        """Write to a session that is behind, as much as may wait unsent."""
        mailbox, connection = user.mailbox, session.connection
        while session.cursor < mailbox.head and connection.unsent() < REPLAY_WINDOW_BYTES:
            message = self._next(user, session, mailbox)
            if message is None:
                break
            self._write(user, session, message, now)
        if session.page and session.cursor >= mailbox.head:
            session.page = []  # the rest came from memory, or has been acknowledged meanwhile
        if session.cursor >= mailbox.head and session in self._to_ask:
            # Who comes just to fetch what waits may leave at once.
            del self._to_ask[session]
            self._ask(session, now)

    # -- Acknowledgements --

    def acknowledge(self, session: Session, user: User, message_id: str, sender: str | None) -> None:
        """MSG_ACK from a device. One that names nothing that waits is ignored: another device may have been first."""
        if not user.acknowledges:
            user.acknowledges = True
            self._store.save_user(user, nobody_waits)
        mailbox = user.mailbox
        if sender is not None:
            message = mailbox.find(sender, message_id)
            if message is not None and message.seq:
                if message.seq <= session.cursor:
                    self.settle(user, message)
                return
            if mailbox.acknowledged_through >= session.cursor:
                return
        else:
            # What memory knows counts at once: the user may leave, and be back before the store has answered.
            first = mailbox.next_unacknowledged(0) or mailbox.head + 1
            for seq in range(first, first + CACHE_MAX):
                if seq > session.cursor:
                    return
                if mailbox.is_acknowledged(seq):
                    continue
                message = mailbox.cached(seq)
                if message is None:
                    break
                if message.message_id == message_id:
                    self.settle(user, message)
                    return
        # No longer in memory: the store knows which one is meant. What is sent again from there comes behind its answer.
        session.in_flight += 1
        session.adjust_reading()
        self._store.find(user, sender, message_id, partial(self._found, session, user, session.cursor))

    def settle(self, user: User, message: Message) -> None:
        """A device of `user` has this message."""
        mailbox = user.mailbox
        if mailbox.acknowledge(message.seq):
            mailbox.receipts_due.pop(message.seq, None)
            if message.receipts:
                told = [(message.sender, message.message_id)]
                self._store.save_acknowledged(user, partial(self._receipts.delivered, user.user_id, told))
            else:
                self._store.save_acknowledged(user)

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
        session.page = []
        if session.confirm_seq and not user.acknowledges:
            self._settle_through(user, session.confirm_seq)

    def stood_still(self, seconds: float, now: float) -> None:
        """The worker stood still: a MSG_ACK that overrules a confirmation may wait to be read (``core.stalls``)."""
        latest = now + IMPLICIT_ACK_DELAY
        self._confirmed = deque(
            (later(due, seconds, latest), session, seq) for due, session, seq in self._confirmed
        )

    def tick(self, now: float) -> None:
        """Let confirmations count whose time has come, send the pings that had to wait, and read again what could not be read."""
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
        while self._stalled and self._stalled[0][0] <= now:
            _, session = self._stalled.popleft()
            session.awaits_page = False
            if session.user is not None and not session.closed:
                self.pump(session.user, session, now)

    # -- Inside --

    def _next(self, user: User, session: Session, mailbox: Mailbox) -> Message | None:
        """What comes next for a session that is behind; None if there is nothing, or nothing yet."""
        while session.cursor < mailbox.head:
            page = session.page
            seq = session.cursor + 1
            if seq <= session.missed_through and mailbox.is_acknowledged(seq):
                unacknowledged = mailbox.next_unacknowledged(seq) or mailbox.head + 1
                session.cursor = min(unacknowledged - 1, session.missed_through)
                continue
            message = mailbox.cached(seq)
            if message is not None:
                return message
            while page and page[-1].seq < seq:
                page.pop()
            if not page:
                if not session.awaits_page:
                    session.awaits_page = True
                    self._store.read(user, session.cursor, partial(self._page, user, session, mailbox.head))
                return None
            if page[-1].seq == seq:
                return page.pop()
            # What was between is gone.
            session.cursor = page[-1].seq - 1
        return None

    def _page(
        self, user: User, session: Session, head: int, found: list[Message], failure: str | None, now: float
    ) -> None:
        if session.closed:
            return
        if failure is not None:
            self._stalled.append((now + _READ_AGAIN, session))
            return
        session.awaits_page = False
        if not found:
            session.cursor = max(session.cursor, head)  # what was between is gone
        session.page = [message for message in reversed(found) if message.seq <= user.mailbox.head]
        self.pump(user, session, now)

    def _found(
        self,
        session: Session,
        user: User,
        cursor: int,
        found: list[Message],
        failure: str | None,
        now: float,
    ) -> None:
        """The messages with the id that was acknowledged: the oldest one that waits is meant."""
        for message in found:
            if message.seq <= cursor and not user.mailbox.is_acknowledged(message.seq):
                self.settle(user, message)
                break
        else:
            session.charge(now)
        session.in_flight -= 1
        session.adjust_reading()

    def _write(self, user: User, session: Session, message: Message, now: float) -> None:
        mailbox = user.mailbox
        acknowledged = mailbox.is_acknowledged(message.seq)
        if not acknowledged:
            message = mailbox.cache(message)
        frame = message.frame
        if session.resumes:
            frame = codec.numbered(frame, message.seq, mailbox.cursor(message.seq))
        session.connection.send(frame)
        self.written += 1
        session.cursor = message.seq
        session.received_peer = message.sender
        if not user.acknowledges:
            if message.receipts and not acknowledged:
                mailbox.receipts_due[message.seq] = (message.sender, message.message_id)
            if not session.confirm_asked:
                self._to_ask[session] = None

    def _ask(self, session: Session, now: float) -> None:
        """Send a confirming ping behind the messages: at most one on its way, at most one a second."""
        if session.confirm_asked or session.user is None or session.user.acknowledges:
            return
        if session.confirm_asked_at + CONFIRM_PING_INTERVAL > now:
            self._to_ask[session] = None
            return
        session.confirm_asked = session.cursor
        session.confirm_asked_at = now
        session.connection.ping(_ping_payload(session.cursor))

    def _settle_through(self, user: User, seq: int) -> None:
        mailbox = user.mailbox
        if seq <= mailbox.acknowledged_through:
            return
        mailbox.acknowledge_through(seq)
        due = mailbox.receipts_due
        told = [due.pop(position) for position in sorted(due) if position <= seq]
        if told:
            self._store.save_acknowledged(user, partial(self._receipts.delivered, user.user_id, told))
        else:
            self._store.save_acknowledged(user)


def _ping_payload(seq: int) -> bytes:
    return b"seq %d" % seq
