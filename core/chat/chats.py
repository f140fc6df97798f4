"""Opening chats, and the names in them (D7, D8).

Each of the two users' shards keeps its own record. OPEN_CHAT goes: `open` at the opener's shard -> `accept` at the target's, which keeps
the chat first -> `settled` back at the opener's, which keeps it too -> `_opened`: CHAT_OPENED to all devices of both. Whatever dies on the
way, a chat that somebody was told about is on both sides or is repaired by the first message in it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.chat.envelope import Outcome, RecordKind, pack_record
from core.chat.ports import nobody_waits
from core.chat.ratelimit import rate_limited
from core.chat.requests import Request
from core.chat.session import Session
from core.chat.user import Chat, User
from core.wire.protocol import ErrorCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.shard import Shard


class Chats:
    """The chats of the users of one shard."""

    __slots__ = ("_shard",)

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def open(self, session: Session, user: User, target: str, now: float) -> None:
        """OPEN_CHAT. What the client sends for this chat waits until it is open on both sides, or refused."""
        shard = self._shard
        if target == user.user_id:
            raise Refusal(ErrorCode.VALIDATION, "a chat is with somebody else", field="target_user_id")
        wait = user.open_chats.retry_after(now)
        if wait:
            raise rate_limited("OPEN_CHAT", shard.settings.open_chats_per_minute, wait)
        user.open_chats.count(now)
        self.used(user, target)
        session.hold(target)
        request = shard.requests.open(MessageType.OPEN_CHAT, session, user, target, None, now)
        owner = shard.placement.worker_of(target)
        if owner == shard.index:
            self.accept(owner, request.ticket, user.user_id, target, user.stored_name, now)
        else:
            fields = (user.user_id.encode(), target.encode(), user.stored_name.encode())
            shard.bus.send(
                owner, pack_record(RecordKind.OPEN_CHAT, 0, request.ticket, request.deadline, *fields)
            )

    def accept(self, origin: int, ticket: int, opener: str, target: str, name: str, now: float) -> None:
        """At the target's shard: keep the chat here first."""
        self._shard.users.find(target, partial(self._accept, origin, ticket, opener, name), now)

    def _accept(
        self,
        origin: int,
        ticket: int,
        opener: str,
        name: str,
        user: User | None,
        failure: str | None,
        now: float,
    ) -> None:
        if user is None:
            outcome = Outcome.USER_NOT_FOUND if failure is None else Outcome.FAILED
            self._shard.reply(origin, ticket, outcome, "", now)
            return
        chat = user.chats.get(opener) or self.add(user, opener, name)
        chat.peer_name = name
        self._shard.store.save_chat(user, chat, partial(self._accepted, origin, ticket, user, chat))

    def settled(self, request: Request, outcome: int, name: str, now: float) -> None:
        """Back at the opener's shard: keep the chat here too; or say why not."""
        user = request.user
        if outcome == Outcome.OPENED:
            chat = user.chats.get(request.peer) or self.add(user, request.peer, name)
            chat.peer_name = name
            self._shard.store.save_chat(user, chat, partial(self._opened, request, chat))
        else:
            self._shard.refuse(request, outcome, now)
            self._shard.continue_later(request.session, request.peer)

    def opened_elsewhere(self, opener: str, target: str, now: float) -> None:
        """At the target's shard again: both sides have it, so the target may know. Who is not in memory is told at the next HELLO."""
        user = self._shard.users.known.get(target)
        chat = user.chats.get(opener) if user is not None else None
        if user is not None and chat is not None and not chat.confirmed:
            self._shard.delivery.announce(user, chat, now)

    def used(self, user: User, peer: str) -> None:
        """`user` does something in the chat with `peer`, and so knows of it (D7)."""
        chat = user.chats.get(peer)
        if chat is not None and chat.saved and not chat.confirmed:
            self._shard.delivery.confirm(user, [chat])

    def wrote(self, session: Session, user: User, chat: Chat) -> None:
        """`user` writes to the peer, who then is no stranger (D20). The first MSG_ACK waits until the store knows that."""
        if not session.closed:
            self.used(user, chat.peer)
        if not (chat.written or chat.noting):
            chat.noting = True
            self._shard.store.save_chat(user, chat, partial(self._noted, user, chat))

    def add(self, user: User, peer: str, name: str) -> Chat:
        """A new record at one side. After this, it must be given to the store."""
        chat = user.chats[peer] = Chat(peer, name)
        return chat

    def repair(self, user: User, peer: str, name: str) -> Chat:
        """The other side has proof that this chat is open: keep it here again."""
        chat = user.chats.get(peer) or self.add(user, peer, name)
        self._shard.store.save_chat(user, chat, nobody_waits)
        self._shard.presence.chat_opened(user, peer)
        return chat

    def tell_new_name(self, user: User, now: float) -> None:
        """`user` has a new name: everybody who has a chat with `user` keeps it."""
        shard = self._shard
        for peer in user.chats:
            owner = shard.placement.worker_of(peer)
            if owner == shard.index:
                self.rename(user.user_id, peer, user.stored_name, now)
            else:
                fields = (user.user_id.encode(), peer.encode(), user.stored_name.encode())
                shard.bus.send(owner, pack_record(RecordKind.RENAMED, 0, 0, 0.0, *fields))

    def rename(self, user_id: str, peer: str, name: str, now: float) -> None:
        """At the peer's shard: keep the new name of `user_id`."""
        self._shard.users.find(peer, partial(self._rename, user_id, name), now)

    def _rename(self, user_id: str, name: str, user: User | None, failure: str | None, now: float) -> None:
        chat = user.chats.get(user_id) if user is not None else None
        if user is not None and chat is not None:
            chat.peer_name = name
            self._shard.store.save_chat(user, chat, nobody_waits)

    # -- Once it is durable --

    def _accepted(
        self, origin: int, ticket: int, user: User, chat: Chat, failure: str | None, now: float
    ) -> None:
        # One that could not be saved stays a record that is not open: it has its place in the store already.
        if failure is None:
            self._shard.presence.chat_opened(user, chat.peer)
        outcome = Outcome.OPENED if failure is None else Outcome.FAILED
        self._shard.reply(origin, ticket, outcome, user.stored_name, now)

    def _noted(self, user: User, chat: Chat, failure: str | None, now: float) -> None:
        chat.noting = False
        if failure is None and not chat.written:
            chat.written = True
            user.mailbox.befriend(chat)

    def _opened(self, request: Request, chat: Chat, failure: str | None, now: float) -> None:
        shard, user, session = self._shard, request.user, request.session
        shard.continue_later(session, chat.peer)
        if failure is not None:
            shard.refuse(request, Outcome.FAILED, now)
            return
        shard.presence.chat_opened(user, chat.peer)
        if not chat.confirmed:
            shard.delivery.announce(user, chat, now, asking=session)
        if not session.closed:
            shard.delivery.answer_opened(user, session, chat, now)
        session.choose(chat.peer, request.ticket)
        owner = shard.placement.worker_of(chat.peer)
        if owner == shard.index:
            self.opened_elsewhere(user.user_id, chat.peer, now)
        else:
            fields = (user.user_id.encode(), chat.peer.encode())
            shard.bus.send(owner, pack_record(RecordKind.CHAT_OPENED, 0, 0, 0.0, *fields))
