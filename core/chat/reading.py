"""READ: how far a user has read in a chat, on whatever device (D31).

Reading is cumulative: a READ covers the message that it names and all earlier ones of the same sender. It acknowledges them, and tells a
sender who wants receipts of each. Which messages these are is in memory when they have just come; else the store says it, some hundreds at
a time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.chat.chat import UNCOUNTED
from core.chat.chat_lists import count_list
from core.chat.store import Covered, Store
from core.wire.protocol import MessageType

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.chat.chat_lists import ChatLists
    from core.chat.chats import Chats
    from core.chat.delivery import Delivery
    from core.chat.receipts import Receipts
    from core.chat.session import Session
    from core.chat.user import Message, User
    from core.process.settings import Settings


class Reading:
    """What the users of one shard have read."""

    __slots__ = ("_chats", "_delivery", "_limit", "_lists", "_receipts", "_store")

    def __init__(
        self,
        settings: Settings,
        store: Store,
        chats: Chats,
        receipts: Receipts,
        delivery: Delivery,
        lists: ChatLists,
    ) -> None:
        self._limit = settings.lists_per_minute
        self._store = store
        self._chats = chats
        self._receipts = receipts
        self._delivery = delivery
        self._lists = lists

    def read(self, session: Session, user: User, message_id: str, sender: str, now: float) -> None:
        """Handle READ: `user` has read this message, and what came before it. Unknown ids are ignored, as by MSG_ACK."""
        count_list(session, user, MessageType.READ, self._limit, now)
        self._chats.used(user, sender)
        session.asked()
        message = user.mailbox.find(sender, message_id)
        if message is None or not message.seq:
            found = partial(self._found, session, user, user.mailbox.head)
            self._store.find(user, sender, message_id, found)
        else:
            self._read(session, user, message.chat, message.seq, now)

    def _found(
        self,
        session: Session,
        user: User,
        head: int,
        found: list[Message],
        failure: str | None,
        now: float,
    ) -> None:
        for message in found:
            # What has come meanwhile nobody can have read.
            if 0 < message.seq <= head:
                self._read(session, user, message.chat, message.seq, now)
                return
        if not found:
            session.charge(now)
        session.decided()

    def _read(self, session: Session, user: User, chat: Chat, through: int, now: float) -> None:
        """Find what is covered, which is nothing if that has been read before."""
        self._delivery.has_read(user, session, through)
        if through <= chat.read_through or _is_removed(user, chat):
            session.decided()
            return
        covered = _in_memory(user, chat, through)
        if covered is not None:
            self._cover(session, user, chat, through, covered, now)
            return
        start = max(chat.read_through, user.mailbox.purged_through)
        done = partial(self._covered, session, user, chat, through, chat.read_through, chat.unread)
        self._store.covered(user, chat, start, through, done)

    def _covered(
        self,
        session: Session,
        user: User,
        chat: Chat,
        through: int,
        read_through: int,
        unread: int,
        covered: Covered,
        failure: str | None,
        now: float,
    ) -> None:
        if failure is not None:
            session.decided()
        elif chat.read_through != read_through:
            self._read(session, user, chat, through, now)  # another device was quicker
        elif covered.messages and covered.messages[-1][0] < through:
            # There are more. How many are left is counted with the last of them.
            partly = Covered(covered.messages, chat.unread if chat.unread < 0 else chat.unread + UNCOUNTED)
            self._cover(session, user, chat, partly.messages[-1][0], partly, now)
            session.asked()
            self._read(session, user, chat, through, now)
        else:
            # Of messages from before there were lists not all that were never read count as unread.
            beyond = min(covered.beyond, unread if unread >= 0 else unread - UNCOUNTED)
            since = chat.unread - unread
            self._cover(session, user, chat, through, Covered(covered.messages, beyond + since), now)

    def _cover(
        self, session: Session, user: User, chat: Chat, through: int, covered: Covered, now: float
    ) -> None:
        """Note that these messages have been read, which are all up to `through`; `beyond` is what is unread then."""
        if _is_removed(user, chat):
            session.decided()
            return
        self._receipts.acknowledged_all(user, chat, covered.messages)
        # How far it was read, and by how much more was unread.
        before = chat.read_through, chat.unread - covered.beyond
        chat.read_through, chat.unread = through, covered.beyond
        wanted = [message_id for _, message_id, receipts in covered.messages if receipts]
        saved = partial(self._saved, session, user, chat, before, through, wanted)
        self._store.save_chat(user, chat, saved)

    def _saved(
        self,
        session: Session,
        user: User,
        chat: Chat,
        before: tuple[int, int],
        through: int,
        wanted: list[str],
        failure: str | None,
        now: float,
    ) -> None:
        session.decided()
        if failure is None:
            self._receipts.read(user, chat.peer, wanted, now)
            self._lists.changed(user, chat.peer, now, session)
        elif chat.read_through == through:
            chat.read_through, chat.unread = before[0], chat.unread + before[1]


def _is_removed(user: User, chat: Chat) -> bool:
    """Return whether the chat has been removed while the store was asked: its peer is deleted (D36)."""
    return user.chats.get(chat.peer) is not chat


def _in_memory(user: User, chat: Chat, through: int) -> Covered | None:
    """Return what READ covers, if all that is unread in the chat is in memory; None otherwise."""
    mailbox = user.mailbox
    missing, beyond = chat.unread, 0
    messages: list[tuple[int, str, bool]] = []
    seq = chat.newest
    while missing > 0:
        message = mailbox.cached(seq)
        if message is None or seq <= chat.read_through:
            return None
        if message.chat is chat:
            missing -= 1
            if seq > through:
                beyond += 1
            else:
                messages.append((seq, message.message_id, message.receipts))
        seq -= 1
    if missing < 0:
        return None
    messages.reverse()
    return Covered(messages, beyond)
