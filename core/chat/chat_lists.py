"""The list of a user's chats, the same on every device: CHATS, HIDE, MUTE, and what changes in the list (D30).

A page is as the stores have it at the time (``core.chat.last_messages``), so it is right whatever was lost with a process, or removed by
the retention. So is a change, unless it is a message that has just gone by, which is told from memory. What changes while the stores are
asked is told behind their answer, which may be from before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core.chat.chat import Chat, chat_id
from core.chat.last_messages import Found, LastMessages
from core.chat.ratelimit import rate_limited
from core.chat.store import Store
from core.wire import codec
from core.wire.protocol import (
    CHATS_INTERVAL,
    CHATS_MAX_BYTES,
    LAST_CHARACTERS,
    NAME_MAX,
    ErrorCode,
    MessageType,
    Refusal,
)

if TYPE_CHECKING:
    from core.chat.presence import Presence
    from core.chat.session import Session
    from core.chat.user import Device, Message, User
    from core.chat.users import Users
    from core.process.settings import Settings

#: More than the frame around the entries needs.
_AROUND_BYTES: Final = 256


class _Change:
    """One chat of one user that has changed within the last second."""

    __slots__ = ("cause", "due", "last", "pending")

    def __init__(self, due: float) -> None:
        #: When the devices may be told next, and whether there is something to tell.
        self.due = due
        self.pending = False
        #: The device that knows already, since all of it was its own doing.
        self.cause: Device | None = None
        #: `data` of the newest MSG, as JSON, if there was one.
        self.last: bytes | None = None

    def add(self, cause: Device | None, last: bytes | None) -> None:
        """Add something to tell."""
        if not self.pending:
            self.pending, self.cause = True, cause
        elif self.cause is not cause:
            self.cause = None
        if last is not None:
            self.last = last


def count_list(session: Session, user: User, kind: str, limit: int, now: float) -> None:
    """Count a CHATS, READ, HIDE, MUTE, UNMUTE, BLOCK or UNBLOCK. Raises Refusal beyond `limit` a minute (D30)."""
    window = user.rare.lists(kind)
    wait = window.retry_after(now)
    if wait:
        raise rate_limited(kind, limit, wait)
    window.count(now)


class ExportedChange(NamedTuple):
    """A `_Change` for a successor: see there."""

    due: float
    pending: bool
    cause: Device | None
    last: str | None


class ChatLists:
    """The lists of the users of one shard."""

    __slots__ = ("_changes", "_lasts", "_limit", "_presence", "_searches", "_store", "_users")

    def __init__(
        self, settings: Settings, users: Users, store: Store, lasts: LastMessages, presence: Presence
    ) -> None:
        self._limit = settings.lists_per_minute
        self._users = users
        self._store = store
        self._lasts = lasts
        self._presence = presence
        #: (user, peer) -> what has changed of their chat.
        self._changes: dict[tuple[str, str], _Change] = {}
        #: user -> how often the stores are being asked.
        self._searches = Counter[str]()

    # -- What clients ask for --

    def ask(
        self, session: Session, user: User, before: tuple[bytes, str] | None, limit: int, now: float
    ) -> None:
        """Handle CHATS: answer with the chats behind `before`, the timestamp and the peer of the last one on the page before."""
        count_list(session, user, MessageType.CHATS, self._limit, now)
        self.find_page(session, user, before, limit, now)

    def find_page(
        self, session: Session, user: User, before: tuple[bytes, str] | None, limit: int, now: float
    ) -> None:
        """Answer in the same way, whatever the limits say."""
        listed = [chat for chat in user.chats.values() if chat.saved and not _is_hidden(user, chat)]
        blocked = [peer for peer in user.blocks or () if user.is_blocked(peer)]
        listed += [self._stranger(peer) for peer in blocked if not user.has_chat(peer)]
        if before is not None:
            listed = [chat for chat in listed if _order(chat) < before]
        page = nlargest(limit + 1, listed, key=_order)
        following = _cursor(page[limit - 1]) if len(page) > limit else None
        del page[limit:]
        session.asked()
        # The cursors are those of now: what is found may tell that a chat belongs further up.
        cursors = [_cursor(chat) for chat in page]
        self._find(session, user, page, partial(self._answer, session, user, page, cursors, following), now)

    def hide(self, session: Session, user: User, peer: str, now: float) -> None:
        """Handle HIDE: the chat is not listed until the next message."""
        chat = self._chat(session, user, MessageType.HIDE, peer, now)
        was, chat.hidden = chat.hidden, True
        session.asked()
        self._store.save_chat(user, chat, partial(self._hidden, session, user, chat, was))

    def mute(self, session: Session, user: User, peer: str, muted: bool, now: float) -> None:
        """Handle MUTE and UNMUTE."""
        kind = MessageType.MUTE if muted else MessageType.UNMUTE
        chat = self._chat(session, user, kind, peer, now)
        was, chat.muted = chat.muted, muted
        session.asked()
        self._store.save_chat(user, chat, partial(self._muted, session, user, chat, kind, was))

    # -- What changes --

    def changed(
        self, user: User, peer: str, now: float, cause: Device | None = None, last: bytes | None = None
    ) -> None:
        """Note that the chat of `user` with `peer` has changed, by the MSG frame `last` or in some other way.

        It was the doing of the device `cause`, which needs not to be told, unless it may be told something from before meanwhile.
        """
        if not user.lists:
            return
        if cause is not None and user.user_id in self._searches:
            cause = None
        key = user.user_id, peer
        change = self._changes.get(key)
        if change is None or not change.pending:
            if not any(session.lists and session is not cause for session in user.sessions):
                return
            change = self._changes.setdefault(key, _Change(now))
        change.add(cause, None if last is None else codec.msg_data(last))

    def removed(self, user: User, peer: str, now: float) -> None:
        """Note that the chat with a peer, who is deleted, is gone (D36)."""
        self._changes.pop((user.user_id, peer), None)
        self.changed(user, peer, now)

    def received(self, user: User, message: Message, now: float) -> None:
        """Note that a message came to `user`, who shows a list of chats, or has hidden this one."""
        chat = message.chat
        if chat.hidden:
            self._show_again(user, chat)
        self.changed(user, chat.peer, now, last=message.frame)

    def sent(self, user: User, chat: Chat, frame: bytes, session: Session, now: float) -> None:
        """Note the same of a message that was sent. The store has no other note of it here, so the chat is saved, soon."""
        if chat.hidden:
            self._show_again(user, chat)
        if user.lists:
            self._save_soon(user, (chat,))
            self.changed(user, chat.peer, now, session, frame)

    def note_written(self, user: User) -> None:
        """Save when `user`, whose last device has gone, has written in which chats."""
        written = [chat for chat in user.written_in() if chat.saved]
        user.here_since = b""
        if written:
            self._save_soon(user, written)

    def sent_last(self, user: User, chat: Chat) -> None:
        """Note that a message of `user`, whose last device has gone, was stored after that."""
        self._save_soon(user, (chat,))

    def tick(self, now: float) -> None:
        """Tell of changes that are due."""
        due: dict[str, dict[str, _Change]] = {}
        for key, change in self._changes.items():
            if change.due <= now and key[0] not in self._searches:
                due.setdefault(key[0], {})[key[1]] = change
        for user_id, changes in due.items():
            user = self._users.known.get(user_id)
            for peer, change in changes.items():
                if user is None or not user.lists or not change.pending:
                    del self._changes[user_id, peer]
            if user is not None and user.lists:
                self._tell_pending(user, changes, now)

    # -- For a successor --

    def export(self) -> dict[str, dict[str, ExportedChange]]:
        """Return user -> peer -> what has changed of their chat."""
        changes: dict[str, dict[str, ExportedChange]] = {}
        for (user_id, peer), change in self._changes.items():
            last = None if change.last is None else change.last.decode()
            changes.setdefault(user_id, {})[peer] = ExportedChange(
                change.due, change.pending, change.cause, last
            )
        return changes

    def restore(self, user: User, peer: str, exported: ExportedChange) -> None:
        """Take over what `export` has returned for a chat."""
        change = self._changes[user.user_id, peer] = _Change(exported.due)
        if exported.pending:
            change.add(exported.cause, None if exported.last is None else exported.last.encode())

    # -- Inside --

    def _chat(self, session: Session, user: User, kind: str, peer: str, now: float) -> Chat:
        count_list(session, user, kind, self._limit, now)
        if not user.has_chat(peer):
            raise Refusal(ErrorCode.CHAT_NOT_OPENED, "there is no chat with this user", field="user_id")
        return user.chats[peer]

    def _show_again(self, user: User, chat: Chat) -> None:
        chat.hidden = False
        self._save_soon(user, (chat,))

    def _save_soon(self, user: User, chats: Iterable[Chat]) -> None:
        user.save_later(chats)
        self._store.save_acknowledged(user)

    def _stranger(self, peer: str) -> Chat:
        """Return what stands in the list for somebody who is blocked, and with whom there is no chat."""
        return Chat(peer, peer[:NAME_MAX])

    def _find(self, session: Session, user: User, chats: list[Chat], then: Found, now: float) -> None:
        self._searches[user.user_id] += 1
        self._lasts.find(session, user, chats, partial(self._found, user, then), now)

    def _found(
        self, user: User, then: Found, found: dict[str, dict[str, Any]], complete: bool, now: float
    ) -> None:
        self._searches[user.user_id] -= 1
        if not self._searches[user.user_id]:
            del self._searches[user.user_id]
        then(found, complete, now)

    def _answer(
        self,
        session: Session,
        user: User,
        page: list[Chat],
        cursors: list[str],
        following: str | None,
        found: dict[str, dict[str, Any]],
        complete: bool,
        now: float,
    ) -> None:
        """Answer CHATS with what the stores have."""
        session.decided()
        if session.closed:
            return
        if not complete:
            problem = Refusal(ErrorCode.MESSAGE_FAILED, "not confirmed; try again")
            session.refuse_later(problem, MessageType.CHATS, None, now)
            return
        entries: list[tuple[tuple[bytes, str], bytes]] = []
        room, end = CHATS_MAX_BYTES - _AROUND_BYTES, following
        for chat, cursor in zip(page, cursors, strict=True):
            if user.chats.get(chat.peer) is not chat and not user.is_blocked(chat.peer):
                continue  # it was removed meanwhile
            last = found.get(chat.peer)
            if last is not None:
                self._noticed(user, chat, last["timestamp"].encode())
            if _is_hidden(user, chat):
                continue  # meanwhile
            entry = self._entry(user, chat, last)
            room -= len(entry) + 1
            if room < 0:
                following = end
                break
            entries.append((_order(chat), entry))
            end = cursor
        entries.sort(reverse=True)
        session.connection.send(codec.chats([entry for _, entry in entries], following))

    def _noticed(self, user: User, chat: Chat, timestamp: bytes) -> None:
        """Note a message that was found: what memory knew of the order may have died with a process."""
        if timestamp > chat.last_at:
            chat.active_at = timestamp
            if chat.saved:
                self._save_soon(user, (chat,))

    def _hidden(
        self, session: Session, user: User, chat: Chat, was: bool, failure: str | None, now: float
    ) -> None:
        if failure is not None and chat.hidden:
            chat.hidden = was
        self._saved(session, user, chat, MessageType.HIDE, failure, now)

    def _muted(
        self,
        session: Session,
        user: User,
        chat: Chat,
        kind: str,
        was: bool,
        failure: str | None,
        now: float,
    ) -> None:
        if failure is not None:
            chat.muted = was
        self._saved(session, user, chat, kind, failure, now)

    def _saved(
        self, session: Session, user: User, chat: Chat, kind: str, failure: str | None, now: float
    ) -> None:
        session.decided()
        if failure is None:
            self.changed(user, chat.peer, now)
        else:
            problem = Refusal(ErrorCode.MESSAGE_FAILED, "not stored; try again", field="user_id")
            session.refuse_later(problem, kind, None, now)

    def _tell_pending(self, user: User, changes: dict[str, _Change], now: float) -> None:
        causes: dict[str, Device | None] = {}
        lasts: dict[str, bytes] = {}
        for peer, change in changes.items():
            if change.pending:
                causes[peer] = change.cause
                if change.last is not None:
                    lasts[peer] = change.last
                change.pending, change.last, change.due = False, None, now + CHATS_INTERVAL
        if not causes:
            return
        chats = [user.chats.get(peer) or self._stranger(peer) for peer in causes]
        tell = partial(self._tell, user, chats, causes, lasts)
        unknown = [
            chat for chat in chats if chat.peer in user.chats and (chat.peer not in lasts or chat.unread < 0)
        ]
        if unknown:
            session: Any = user.sessions[0]  # a Session: the only kind of device that there is
            self._find(session, user, unknown, tell, now)
        else:
            # What is being saved is told when it is durable.
            self._store.after_writes(lambda failure, now: tell({}, True, now))

    def _tell(
        self,
        user: User,
        chats: list[Chat],
        causes: dict[str, Device | None],
        lasts: dict[str, bytes],
        found: dict[str, dict[str, Any]],
        complete: bool,
        now: float,
    ) -> None:
        """Tell the devices of what has changed; again later when it could not be found."""
        if not complete:
            for peer, cause in causes.items():
                self.changed(user, peer, now + CHATS_INTERVAL, cause)
            return
        entries: dict[str, bytes] = {}
        for chat in chats:
            last = codec.from_json(lasts[chat.peer]) if chat.peer in lasts else found.get(chat.peer)
            entries[chat.peer] = self._entry(user, chat, last)
        for session in user.sessions:
            if not session.lists:
                continue
            frame: list[bytes] = []
            room = CHATS_MAX_BYTES - _AROUND_BYTES
            for peer, entry in entries.items():
                if causes[peer] is session:
                    continue
                room -= len(entry) + 1
                if room < 0:
                    session.connection.send(codec.chats_delta(frame))
                    frame, room = [], CHATS_MAX_BYTES - _AROUND_BYTES - len(entry)
                frame.append(entry)
            if frame:
                session.connection.send(codec.chats_delta(frame))

    def _entry(self, user: User, chat: Chat, last: dict[str, Any] | None) -> bytes:
        """Encode a chat as its user sees it; `last` is the `data` of a MSG."""
        entry: dict[str, Any] = {
            "user_id": chat.peer,
            "display_name": chat.peer_name,
            "chat_id": chat_id(user.user_id, chat.peer),
            "last": None
            if last is None
            else {
                "from": last["from"],
                "content": last["content"][:LAST_CHARACTERS],
                "timestamp": last["timestamp"],
                "message_id": last["message_id"],
            },
            "unread": max(0, chat.unread),
            "read": chat.read_through,
            "online": self._presence.name_of(chat.peer) is not None and not user.is_apart(chat.peer),
            "blocked": user.is_blocked(chat.peer),
            "muted": chat.muted,
        }
        if _is_hidden(user, chat) or not (chat.saved or user.is_blocked(chat.peer)):
            entry["hidden"] = True
        return codec.to_json(entry)


def _order(chat: Chat) -> tuple[bytes, str]:
    """Return what a list is ordered by, highest first."""
    return chat.last_at, chat.peer


def _is_hidden(user: User, chat: Chat) -> bool:
    """Return whether a list leaves the chat out: who is blocked is always listed, so as to be found."""
    return chat.hidden and not user.is_blocked(chat.peer)


def _cursor(chat: Chat) -> str:
    return f"{chat.last_at.decode()}/{chat.peer}"
