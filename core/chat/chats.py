"""Opening chats, and the names in them (D7, D8).

Each of the two users' shards keeps its own record. OPEN_CHAT goes: `open` at the opener's shard -> `_accept` at the target's, which keeps
the chat first -> `_settled` back at the opener's, which keeps it too -> `_opened`: CHAT_OPENED to all devices of both. Whatever dies on the
way, a chat that somebody was told about is on both sides or is repaired by the first message in it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from core.chat.chat import Chat
from core.chat.envelope import Outcome, Record, RecordKind
from core.chat.exchange import Exchange, Request
from core.chat.ratelimit import rate_limited
from core.chat.session import Session
from core.chat.store import Store, nobody_waits
from core.chat.user import User
from core.wire.protocol import ErrorCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.chat_lists import ChatLists
    from core.chat.delivery import Delivery
    from core.chat.ports import Clock
    from core.chat.presence import Presence
    from core.chat.users import Users
    from core.process.settings import Settings

#: Users of whom a shard remembers that they were introduced; each for as long as a message takes from there to here.
_NAMES_MAX: Final = 1000


class Chats:
    """The chats of the users of one shard."""

    __slots__ = ("_clock", "_delivery", "_exchange", "_lists", "_names", "_presence", "_store", "_users")

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        users: Users,
        exchange: Exchange,
        store: Store,
        delivery: Delivery,
        presence: Presence,
        lists: ChatLists,
    ) -> None:
        self._clock = clock
        self._lists = lists
        self._users = users
        self._exchange = exchange
        self._store = store
        self._delivery = delivery
        self._presence = presence
        #: What users are called who were introduced last.
        self._names: dict[str, str] = {}
        exchange.on(RecordKind.OPEN_CHAT, 3, self._accept, asks=True)
        exchange.on_told(RecordKind.CHAT_OPENED, 2, self._opened_elsewhere)
        exchange.on_told(RecordKind.RENAMED, 3, self._renamed)
        exchange.on_told(RecordKind.INTRODUCED, 3, self._introduced)
        exchange.on_outcome(MessageType.OPEN_CHAT, self._settled)

    def open(self, session: Session, user: User, target: str, now: float) -> None:
        """Handle OPEN_CHAT. What the client sends for this chat waits until it is open on both sides, or refused."""
        if target == user.user_id:
            raise Refusal(ErrorCode.VALIDATION, "a chat with oneself is not possible", field="target_user_id")
        if user.is_blocked(target):
            raise blocked("target_user_id")
        window = user.windows_of(session).open_chats
        wait = window.retry_after(now)
        if wait:
            raise rate_limited("OPEN_CHAT", window.limit, wait)
        window.count(now)
        self.used(user, target)
        session.hold(target)
        request = self._exchange.open(MessageType.OPEN_CHAT, session, user, target, None, now)
        texts = (user.user_id, target, user.stored_name)
        self._exchange.ask(RecordKind.OPEN_CHAT, 0, request, texts, b"", now)

    def _accept(self, asked: Record, now: float) -> None:
        """Keep the chat first at the target's shard."""
        self._users.find(asked.texts[1], partial(self._accept_for, asked), now)

    def _accept_for(self, asked: Record, user: User | None, failure: str | None, now: float) -> None:
        if user is None:
            outcome = Outcome.USER_NOT_FOUND if failure is None else Outcome.FAILED
            self._exchange.reply(asked, outcome, "", now)
            return
        opener, _, name = asked.texts
        if opener in self._users.deleted:
            self._exchange.reply(asked, Outcome.FAILED, "", now)
            return
        chat = user.chats.get(opener) or self.add(user, opener, name)
        if not user.is_apart(opener):
            chat.peer_name = name
        elif not chat.saved:
            chat.active_at = b""
        self._store.save_chat(user, chat, partial(self._accepted, asked, user, chat))

    def _settled(self, request: Request, outcome: int, name: str, now: float) -> None:
        """Keep the chat at the opener's shard too; or say why not."""
        user = request.user
        if request.peer in self._users.deleted:
            outcome = Outcome.USER_NOT_FOUND
        if outcome == Outcome.OPENED:
            chat = user.chats.get(request.peer) or self.add(user, request.peer, name)
            if not user.is_apart(request.peer):
                chat.peer_name = name
            self._store.save_chat(user, chat, partial(self._opened, request, chat))
        else:
            self._exchange.refuse(request, outcome, now)
            request.session.continue_later(request.peer)

    def _opened_elsewhere(self, texts: tuple[str, ...], flags: int, now: float) -> None:
        """Tell the target, at its shard again: both sides have it. Who is not in memory is told at the next HELLO."""
        opener, target = texts
        user = self._users.known.get(target)
        chat = user.chats.get(opener) if user is not None else None
        if user is not None and chat is not None and not chat.confirmed:
            self._delivery.announce(user, chat, now)

    def used(self, user: User, peer: str) -> None:
        """Note that a device of `user` does something in the chat with `peer`, and so knows of it (D7)."""
        chat = user.chats.get(peer)
        if chat is not None and chat.saved and not chat.confirmed:
            self._delivery.confirm(user, [chat])

    def wrote(self, session: Session, user: User, chat: Chat) -> None:
        """Note that `user` writes to the peer, who then is no stranger (D20). The first MSG_ACK waits until the store knows that."""
        if session in user.sessions:
            self.used(user, chat.peer)
        if not (chat.written or chat.noting):
            chat.noting = True
            self._store.save_chat(user, chat, partial(self._noted, user, chat))

    def add(self, user: User, peer: str, name: str) -> Chat:
        """Make a new record at one side. After this, it must be given to the store."""
        chat = user.chats[peer] = Chat(peer, name)
        chat.active_at = self._clock.timestamp()
        return chat

    def repair(self, user: User, peer: str, name: str) -> Chat:
        """Keep this chat here again: the other side has proof that it is open."""
        chat = user.chats.get(peer) or self.add(user, peer, name)
        self._store.save_chat(user, chat, nobody_waits)
        self._presence.chat_opened(user, peer)
        return chat

    def introduce(self, user: User, peer: str, now: float) -> None:
        """Tell the shard of `peer` what `user` is called, who is about to write there and may not be online."""
        texts = (user.user_id, peer, user.stored_name)
        self._exchange.notify(peer, RecordKind.INTRODUCED, 0, texts, now)

    def _introduced(self, texts: tuple[str, ...], flags: int, now: float) -> None:
        user_id, _, name = texts
        self._names[user_id] = name
        if len(self._names) > _NAMES_MAX:
            del self._names[next(iter(self._names))]

    def name_of(self, user_id: str) -> str:
        """Return what a user of any shard is called who writes to one of this shard; the user id if that is not known."""
        return self._presence.name_of(user_id) or self._names.get(user_id) or user_id

    def send_new_name(self, user: User, now: float) -> None:
        """Send the new name of `user` to everybody who has a chat with `user`, and keeps it."""
        for peer in user.chats:
            if user.is_apart(peer):
                continue
            self._exchange.notify(peer, RecordKind.RENAMED, 0, (user.user_id, peer, user.stored_name), now)

    def _renamed(self, texts: tuple[str, ...], flags: int, now: float) -> None:
        """Keep the new name, at the peer's shard."""
        user_id, peer, name = texts
        self._users.find(peer, partial(self._rename, user_id, name), now)

    def _rename(self, user_id: str, name: str, user: User | None, failure: str | None, now: float) -> None:
        chat = user.chats.get(user_id) if user is not None else None
        if user is not None and chat is not None and not user.is_apart(user_id):
            chat.peer_name = name
            self._store.save_chat(user, chat, partial(self._renamed_there, user, user_id))

    def _renamed_there(self, user: User, peer: str, failure: str | None, now: float) -> None:
        self._lists.changed(user, peer, now)

    # -- Once it is durable --

    def _accepted(self, asked: Record, user: User, chat: Chat, failure: str | None, now: float) -> None:
        # One that could not be saved stays a record that is not open: it has its place in the store already.
        if failure is None:
            self._presence.chat_opened(user, chat.peer)
            if not user.is_blocked(chat.peer):
                self._lists.changed(user, chat.peer, now)
        outcome = Outcome.OPENED if failure is None else Outcome.FAILED
        self._exchange.reply(asked, outcome, user.stored_name, now)

    def _noted(self, user: User, chat: Chat, failure: str | None, now: float) -> None:
        if failure is None and not chat.written:
            chat.written = True
            user.mailbox.befriend(chat)
        chat.noted(now)

    def _opened(self, request: Request, chat: Chat, failure: str | None, now: float) -> None:
        user, session = request.user, request.session
        session.continue_later(chat.peer)
        if failure is not None:
            self._exchange.refuse(request, Outcome.FAILED, now)
            return
        self._presence.chat_opened(user, chat.peer)
        self._lists.changed(user, chat.peer, now, session)
        if not chat.confirmed:
            self._delivery.announce(user, chat, now, asking=session)
        if not session.closed:
            self._delivery.answer_opened(user, session, chat, now)
        session.choose(chat.peer, request.ticket)
        self._exchange.notify(chat.peer, RecordKind.CHAT_OPENED, 0, (user.user_id, chat.peer), now)


def blocked(field: str) -> Refusal:
    """Return what somebody is told who writes to a user after blocking that user (D32)."""
    return Refusal(
        ErrorCode.CHAT_NOT_OPENED, "you have blocked this user; unblock first", field=field, blocked=True
    )
