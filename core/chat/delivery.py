"""From the mailbox to the devices, and back: writing messages, replaying what was missed, and acknowledgements (D11-D13).

Each session has a cursor into its user's mailbox. A session that has everything gets a new message at once; one that is behind is
*pumped*: it gets the messages after its cursor as long as little waits unsent, and again when there is room. They come from memory
if they are recent, else from the store, a page at a time. So a device that was away for long, or that reads slowly, is fed at its own
pace, and live messages queue up in the store and nowhere else.

What a session missed before it came is sent again only as far as nobody has acknowledged it, unless it *resumes*: then all of it.

A user who has never sent MSG_ACK acknowledges implicitly: a WebSocket ping follows the messages, its pong says that all before it
arrived, and 5 s later (a MSG_ACK may still come) or when the connection ends they count as acknowledged.

CHAT_OPENED goes the same way, before the messages (D7): `announce`, at the connection's pace, and confirmed for everybody by the pong to
such a ping, by a MSG_ACK of a message behind it, or by whatever the user does in that chat (`confirm`).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from core.chat.announcements import Announcements
from core.chat.chat import chat_opened_frame
from core.chat.mailbox import CACHE_MAX
from core.chat.stalls import later
from core.chat.store import nobody_waits
from core.wire import codec
from core.wire.protocol import CONFIRM_PING_INTERVAL, IMPLICIT_ACK_DELAY, REPLAY_WINDOW_BYTES, Resumed

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.chat.mailbox import Mailbox
    from core.chat.receipts import Receipts
    from core.chat.session import Session
    from core.chat.store import Store
    from core.chat.user import Device, Message, User

#: Seconds until a page that could not be read is asked for again.
_READ_AGAIN: Final = 1.0


class Delivery:
    """Delivery to the users of one shard."""

    __slots__ = ("_confirmed", "_receipts", "_stalled", "_store", "_to_ask", "written")

    def __init__(self, store: Store, receipts: Receipts) -> None:
        self._store = store
        self._receipts = receipts
        #: (when it counts, session, position): confirmed by a pong, waiting for a MSG_ACK that would overrule it. In order of time.
        self._confirmed: deque[tuple[float, Device, int]] = deque()
        #: Sessions to which something was written since their last confirming ping -> when they are to be asked, at the next tick from
        #: then on. So one ping does for all messages that come together, and for the chat that was opened for the first of them.
        self._to_ask: dict[Device, float] = {}
        #: (when to try again, session): the store could not read for them. In order of time.
        self._stalled: deque[tuple[float, Device]] = deque()
        #: Messages written to devices, each device and each repetition counted.
        self.written = 0

    def start(self, user: User, session: Device, cursor: str | None) -> str:
        """Return where a new session goes on: sets its cursor, and says what that is to the client (D13). After this, `pump`."""
        mailbox = user.mailbox
        session.furthest = max(session.furthest, session.cursor)
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
            told = session.announcements
            if session.cursor == previous and (told is None or not told.pending):
                self._write(user, session, message, False, now)
                written = True
        return written

    def pump(self, user: User, session: Device, now: float) -> None:
        """Write to a session that is behind, as much as may wait unsent."""
        mailbox, connection = user.mailbox, session.connection
        told = session.announcements
        while told is not None and told.pending:
            if connection.unsent() >= REPLAY_WINDOW_BYTES:
                return
            self._show_chat(user, session, told.next(), now)
        while session.cursor < mailbox.head and connection.unsent() < REPLAY_WINDOW_BYTES:
            message = self._next(user, session, mailbox)
            if message is None:
                break
            acknowledged = mailbox.is_acknowledged(message.seq)
            if not acknowledged:
                message = mailbox.cache(message)
            self._write(user, session, message, acknowledged, now)
        if session.page and session.cursor >= mailbox.head:
            session.page = []  # the rest came from memory, or has been acknowledged meanwhile
        if session.cursor >= mailbox.head and session in self._to_ask:
            # Who comes just to fetch what waits may leave at once.
            del self._to_ask[session]
            self._ask(session, now)

    # -- Chats to be told about (D7) --

    def announce_missed(self, user: User, session: Device) -> None:
        """Tell a new session about the chats that no device has confirmed. After this, `pump`."""
        missed = [
            chat
            for chat in user.chats.values()
            if not chat.confirmed and chat.saved and not user.is_blocked(chat.peer)
        ]
        if missed:
            session.announcements = Announcements(missed)

    def announce(self, user: User, chat: Chat, now: float, asking: Device | None = None) -> None:
        """Send CHAT_OPENED to all devices of `user` but the one that gets it as an answer. No connection is told twice.

        Of a chat with somebody whom `user` has blocked nobody is told (D32).
        """
        if user.is_blocked(chat.peer):
            return
        for session in user.sessions:
            told = session.announcements
            if session is asking or (told is not None and chat in told):
                continue
            if (told is not None and told.pending) or session.connection.unsent() >= REPLAY_WINDOW_BYTES:
                if told is None:
                    told = session.announcements = Announcements()
                told.pending[chat] = None
            else:
                self._show_chat(user, session, chat, now)

    def answer_opened(self, user: User, session: Device, chat: Chat, now: float) -> None:
        """Send CHAT_OPENED to the device that has asked for it, whether it knows already or not."""
        if chat.confirmed:
            session.connection.send(chat_opened_frame(user.user_id, chat))
        else:
            self._show_chat(user, session, chat, now)

    def confirm(self, user: User, chats: list[Chat]) -> None:
        """Note that a device of `user` has shown that it knows of these chats."""
        news = [chat for chat in chats if not chat.confirmed]
        for chat in news:
            chat.confirmed = True
        if news:
            user.save_later(news)
            self._store.save_acknowledged(user)

    # -- Acknowledgements --

    def acknowledge(self, session: Session, user: User, message_id: str, sender: str | None) -> None:
        """Handle MSG_ACK from a device. Unknown or already acknowledged ids are ignored: another device may have been first."""
        if not user.acknowledges:
            user.acknowledges = True
            self._store.save_user(user, nobody_waits)
        mailbox = user.mailbox
        if sender is not None:
            message = mailbox.find(sender, message_id)
            if message is not None and message.seq:
                if message.seq <= session.cursor:
                    self.arrived(user, session, message)
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
                    self.arrived(user, session, message)
                    return
        # No longer in memory: the store knows which one is meant. What is sent again from there comes behind its answer.
        session.asked()
        self._store.find(user, sender, message_id, partial(self._found, session, user, session.cursor))

    def arrived(self, user: User, session: Device, message: Message) -> None:
        """Note that this device of `user` has this message, and what was written to it before."""
        self.has_read(user, session, message.seq)
        self._receipts.acknowledged(user, message)

    def has_read(self, user: User, session: Device, position: int) -> None:
        """Note that this device has what was written to it before the message at a position, if that was."""
        if session.announcements is not None and position <= session.cursor:
            self._confirm(user, session, session.announcements.before(position))

    def pong(self, session: Device, payload: bytes, now: float) -> None:
        """Take a pong: if it answers the confirming ping, everything written before that ping has arrived."""
        asked, user = session.confirm_asked, session.user
        if asked < 0 or user is None or payload != _ping_payload(asked):
            return
        session.confirm_asked = -1
        told = session.announcements
        if told is not None:
            self._confirm(user, session, told.answered())
        if user.acknowledges:
            waits = told is not None and bool(told.written)
        else:
            session.confirm_seq = asked
            self._confirmed.append((now + IMPLICIT_ACK_DELAY, session, asked))
            waits = session.cursor > asked or (told is not None and bool(told.written))
        if waits:
            self._to_ask[session] = now

    def disconnected(self, user: User, session: Device) -> None:
        """Note that the session ended: what its pongs have confirmed counts now."""
        self._to_ask.pop(session, None)
        session.page = []
        session.announcements = None
        if session.confirm_seq and not user.acknowledges:
            self._settle_through(user, session.confirm_seq)

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the worker stood still: a MSG_ACK that overrules a confirmation may wait to be read (``core.chat.stalls``)."""
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
            for session in [session for session, due in self._to_ask.items() if due <= now]:
                del self._to_ask[session]
                self._ask(session, now)
        while self._stalled and self._stalled[0][0] <= now:
            _, session = self._stalled.popleft()
            session.awaits_page = False
            if session.user is not None and not session.closed:
                self.pump(session.user, session, now)

    # -- For a successor --

    def export(self) -> dict[Device, dict[str, Any]]:
        """Return what is noted here about sessions."""
        notes: dict[Device, dict[str, Any]] = {}
        for due, session, seq in self._confirmed:
            if not session.closed:
                notes.setdefault(session, {}).setdefault("confirmed", []).append([due, seq])
        for session, due in self._to_ask.items():
            notes.setdefault(session, {})["ask_at"] = due
        return notes

    def restore(self, session: Device, record: dict[str, Any]) -> None:
        """Take over what `export` has returned for a session. What it has not been written yet is read again by `pump`."""
        for due, seq in record.get("confirmed", ()):
            insort(self._confirmed, (due, session, seq), key=_due)
        ask_at = record.get("ask_at")
        if ask_at is not None:
            self._to_ask[session] = ask_at

    # -- Inside --

    def _next(self, user: User, session: Device, mailbox: Mailbox[Message]) -> Message | None:
        """Return what comes next for a session that is behind; None if there is nothing, or nothing yet."""
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
        self, user: User, session: Device, head: int, found: list[Message], failure: str | None, now: float
    ) -> None:
        if session.closed:
            return
        if failure is not None:
            self._stalled.append((now + _READ_AGAIN, session))
            return
        session.awaits_page = False
        # Not those of a chat that is being removed.
        kept = [message for message in found if user.chats.get(message.sender) is message.chat]
        if not kept:
            session.cursor = max(session.cursor, found[-1].seq if found else head)  # what was between is gone
        session.page = [message for message in reversed(kept) if message.seq <= user.mailbox.head]
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
        """Acknowledge one of the messages with the id that was acknowledged: the oldest one that waits is meant."""
        for message in found:
            if message.seq <= cursor and not user.mailbox.is_acknowledged(message.seq):
                self.arrived(user, session, message)
                break
        else:
            session.charge(now)
        session.decided()

    def _write(self, user: User, session: Device, message: Message, acknowledged: bool, now: float) -> None:
        frame = message.frame
        if session.resumes:
            frame = codec.numbered(frame, message.seq, user.mailbox.cursor(message.seq), message.read)
        session.connection.send(frame)
        self.written += 1
        session.cursor = message.seq
        session.received_peer = message.sender
        if not user.acknowledges:
            if message.receipts and not acknowledged:
                user.mailbox.expect_receipt(message)
            if session.confirm_asked < 0:
                self._to_ask[session] = now

    def _show_chat(self, user: User, session: Device, chat: Chat, now: float) -> None:
        """Write CHAT_OPENED, and wait for it to be confirmed."""
        told = session.announcements
        if told is None:
            told = session.announcements = Announcements()
        told.pending.pop(chat, None)
        if chat not in told:
            told.written[chat] = max(session.cursor, session.furthest)
        session.connection.send(chat_opened_frame(user.user_id, chat))
        session.received_peer = chat.peer
        if session.confirm_asked < 0:
            self._to_ask.setdefault(session, now + CONFIRM_PING_INTERVAL)

    def _confirm(self, user: User, session: Device, chats: list[Chat]) -> None:
        """Note that what was written to this session has been read so far."""
        self.confirm(user, chats)
        if session.announcements is not None and session.announcements.done:
            session.announcements = None

    def _ask(self, session: Device, now: float) -> None:
        """Send a confirming ping behind what was written: at most one on its way, at most one a second."""
        user, told = session.user, session.announcements
        if session.confirm_asked >= 0 or user is None:
            return
        if user.acknowledges and (told is None or not told.written):
            return
        if session.confirm_asked_at + CONFIRM_PING_INTERVAL > now:
            self._to_ask[session] = session.confirm_asked_at + CONFIRM_PING_INTERVAL
            return
        if told is not None:
            told.ask()
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


def _due(confirmed: tuple[float, Device, int]) -> float:
    return confirmed[0]


def _ping_payload(seq: int) -> bytes:
    return b"seq %d" % seq
