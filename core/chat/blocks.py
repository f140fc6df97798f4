"""BLOCK and UNBLOCK: two users of whom neither sees what the other does (D32).

The shard of who blocks keeps it and withholds messages (``core.chat.messages``). The shard of the other one is told, since presence, typing
and receipts pass neither way, and keeps that too. Should it not hear of it, the two shards compare at the next HELLO of either.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

from core.chat.chat import Block
from core.chat.chat_lists import count_list
from core.chat.envelope import RecordKind
from core.chat.exchange import Exchange
from core.chat.store import Store, nobody_waits
from core.wire.protocol import ErrorCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.chat_lists import ChatLists
    from core.chat.delivery import Delivery
    from core.chat.presence import Presence
    from core.chat.session import Session
    from core.chat.typing import TypingIndicators
    from core.chat.user import User
    from core.chat.users import Users
    from core.process.settings import Settings


class BlockFlag(IntEnum):
    """`flags` of a BLOCK record."""

    UNBLOCKED = 0
    BLOCKED = 1
    #: Say which of the two it is.
    ASKED = 2


class Blocks:
    """Who has blocked whom, of the users of one shard."""

    __slots__ = ("_delivery", "_exchange", "_limit", "_lists", "_presence", "_store", "_typing", "_users")

    def __init__(
        self,
        settings: Settings,
        users: Users,
        exchange: Exchange,
        store: Store,
        delivery: Delivery,
        presence: Presence,
        typing: TypingIndicators,
        lists: ChatLists,
    ) -> None:
        self._limit = settings.lists_per_minute
        self._users = users
        self._exchange = exchange
        self._store = store
        self._delivery = delivery
        self._presence = presence
        self._typing = typing
        self._lists = lists
        exchange.on_told(RecordKind.BLOCK, 2, self._came)

    # -- At the shard of who blocks --

    def set(self, session: Session, user: User, peer: str, blocked: bool, now: float) -> None:
        """Handle BLOCK and UNBLOCK. It holds at once, and is told when it is durable."""
        kind = MessageType.BLOCK if blocked else MessageType.UNBLOCK
        if peer == user.user_id:
            raise Refusal(ErrorCode.VALIDATION, "nobody can block oneself", field="user_id")
        count_list(session, user, kind, self._limit, now)
        before = user.blocks.get(peer) if user.blocks is not None else None
        if user.is_blocked(peer) == blocked:
            self._lists.changed(user, peer, now)
            return
        chat = user.chats.get(peer)
        read_through = chat.read_through if chat is not None and blocked else 0
        _put(user, peer, Block(blocked, before is not None and before.by_peer, read_through))
        session.asked()
        self._store.save_block(user, peer, partial(self._saved, session, user, peer, kind, before))

    def _saved(
        self,
        session: Session,
        user: User,
        peer: str,
        kind: str,
        before: Block | None,
        failure: str | None,
        now: float,
    ) -> None:
        session.decided()
        blocked = kind == MessageType.BLOCK
        if failure is not None:
            if user.is_blocked(peer) == blocked:
                _put(user, peer, before or Block(False, False, 0))
            problem = Refusal(ErrorCode.MESSAGE_FAILED, "not stored; try again", field="user_id")
            session.refuse_later(problem, kind, None, now)
            return
        flag = BlockFlag.BLOCKED if blocked else BlockFlag.UNBLOCKED
        self._exchange.notify(peer, RecordKind.BLOCK, flag, (user.user_id, peer), now)
        self._parted(user, peer, now)
        self._lists.changed(user, peer, now)
        chat = user.chats.get(peer)
        if not blocked and chat is not None and chat.saved and not chat.confirmed:
            self._delivery.announce(user, chat, now)

    def compare(self, user: User, now: float) -> None:
        """Have this shard and those of the others agree about who of them and `user` has blocked whom."""
        for peer, block in (user.blocks or {}).items():
            if block.by_user:
                self._exchange.notify(peer, RecordKind.BLOCK, BlockFlag.BLOCKED, (user.user_id, peer), now)
            if block.by_peer:
                self._exchange.notify(peer, RecordKind.BLOCK, BlockFlag.ASKED, (user.user_id, peer), now)

    # -- At the shard of the other one --

    def _came(self, texts: tuple[str, ...], flag: int, now: float) -> None:
        sender, user_id = texts
        self._users.find(user_id, partial(self._told, sender, flag), now)

    def _told(self, sender: str, flag: int, user: User | None, failure: str | None, now: float) -> None:
        if user is None:
            return
        if flag == BlockFlag.ASKED:
            blocked = BlockFlag.BLOCKED if user.is_blocked(sender) else BlockFlag.UNBLOCKED
            self._exchange.notify(sender, RecordKind.BLOCK, blocked, (user.user_id, sender), now)
            return
        before = user.blocks.get(sender) if user.blocks is not None else None
        by_user, by_peer, read_through = before or Block(False, False, 0)
        if by_peer != (flag == BlockFlag.BLOCKED):
            _put(user, sender, Block(by_user, not by_peer, read_through))
            self._store.save_block(user, sender, nobody_waits)
            self._parted(user, sender, now)

    # -- Both --

    def _parted(self, user: User, peer: str, now: float) -> None:
        """Take what `user` saw of the peer away, or show it again."""
        self._presence.parted(user, peer)
        if user.is_apart(peer):
            self._typing.end(peer, user)


def _put(user: User, peer: str, block: Block) -> None:
    """Set what stands between the two; nothing, if neither has blocked the other."""
    if block.by_user or block.by_peer:
        if user.blocks is None:
            user.blocks = {}
        user.blocks[peer] = block
    elif user.blocks is not None:
        user.blocks.pop(peer, None)
        user.blocks = user.blocks or None
