"""BLOCK and UNBLOCK: two users of whom neither sees what the other does (D32).

The shard of who blocks keeps it and withholds messages (``core.chat.messages``). The shard of the other one is told, since presence, typing
and receipts pass neither way, and keeps that too. It is told again, once a second while the other one is online, until it says that it has
kept it; and what it has kept is asked about in the same way. That begins anew with the next device of either, and in a successor.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from core.chat.chat import Block
from core.chat.chat_lists import count_list
from core.chat.envelope import BlockFlag, RecordKind
from core.chat.exchange import Exchange
from core.chat.store import Store, nobody_waits
from core.wire.protocol import BLOCKS_MAX, ErrorCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.chat_lists import ChatLists
    from core.chat.delivery import Delivery
    from core.chat.presence import Presence
    from core.chat.session import Session
    from core.chat.typing import TypingIndicators
    from core.chat.user import User
    from core.chat.users import Users
    from core.process.settings import Settings


#: Seconds between two times that somebody is told the same, and how many are told in one tick.
_AGAIN: Final = 1.0
_TICK_MAX: Final = 200


class Blocks:
    """Who has blocked whom, of the users of one shard."""

    __slots__ = (
        *("_delivery", "_exchange", "_limit", "_lists", "_next", "_presence"),
        *("_store", "_typing", "_untold", "_users"),
    )

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
        #: (user, peer) -> what the peer's shard has not answered: a BlockFlag; and when it is said again.
        self._untold: dict[tuple[str, str], BlockFlag] = {}
        self._next = 0.0
        exchange.on_told(RecordKind.BLOCK, 2, self._came)

    # -- At the shard of who blocks --

    def set(self, session: Session, user: User, peer: str, blocked: bool, now: float) -> None:
        """Handle BLOCK and UNBLOCK. It holds at once, and is told when it is durable."""
        kind = MessageType.BLOCK if blocked else MessageType.UNBLOCK
        if peer == user.user_id:
            raise Refusal(ErrorCode.VALIDATION, "nobody can block oneself", field="user_id")
        count_list(session, user, kind, self._limit, now)
        if user.is_blocked(peer) == blocked:
            self._lists.changed(user, peer, now)
            return
        if blocked and sum(block.by_user for block in (user.blocks or {}).values()) >= BLOCKS_MAX:
            raise Refusal(
                ErrorCode.VALIDATION,
                f"at most {BLOCKS_MAX} users can be blocked",
                field="user_id",
                limit=BLOCKS_MAX,
            )
        before = user.between(peer)
        user.set_block(peer, before._replace(by_user=blocked, withheld=0))
        session.asked()
        self._store.save_block(user, peer, partial(self._saved, session, user, peer, kind, before))

    def _saved(
        self,
        session: Session,
        user: User,
        peer: str,
        kind: str,
        before: Block,
        failure: str | None,
        now: float,
    ) -> None:
        session.decided()
        blocked = kind == MessageType.BLOCK
        if peer in self._users.deleted and failure is None:
            self._lists.changed(user, peer, now)
            return
        if failure is not None:
            if user.is_blocked(peer) == blocked:
                # What the peer has done meanwhile holds.
                user.set_block(peer, before._replace(by_peer=user.between(peer).by_peer))
            problem = Refusal(ErrorCode.MESSAGE_FAILED, "not stored; try again", field="user_id")
            session.refuse_later(problem, kind, None, now)
            return
        self._tell(user.user_id, peer, BlockFlag.BLOCKED if blocked else BlockFlag.UNBLOCKED, now)
        self._parted(user, peer, now)
        self._lists.changed(user, peer, now)
        chat = user.chats.get(peer)
        if not blocked and chat is not None and chat.saved and not chat.confirmed:
            self._delivery.announce(user, chat, now)

    def compare(self, user: User) -> None:
        """Have this shard and those of the others agree about who of them and `user` has blocked whom, soon."""
        for peer, block in (user.blocks or {}).items():
            self._untold[user.user_id, peer] = BlockFlag.BLOCKED if block.by_user else BlockFlag.ASKED

    def forget(self, user_id: str, peer: str) -> None:
        """Tell nothing more to a peer who is deleted (D36)."""
        self._untold.pop((user_id, peer), None)

    def tick(self, now: float) -> None:
        """Say again what has no answer, to those who are online: to all others it makes no difference."""
        if now < self._next or not self._untold:
            return
        self._next = now + _AGAIN
        said = 0
        for user_id, peer in list(self._untold):
            user = self._users.known.get(user_id)
            if user is None or not user.sessions:
                self._untold.pop((user_id, peer), None)
            elif said < _TICK_MAX and self._presence.name_of(peer) is not None:
                # It goes behind all others, whose turn is then next. One that was said before may have been its answer.
                flag = self._untold.pop((user_id, peer), None)
                if flag is not None:
                    said += 1
                    self._tell(user_id, peer, flag, now)

    # -- At the shard of the other one --

    def _came(self, texts: tuple[str, ...], flag: int, now: float) -> None:
        sender, user_id = texts
        if flag == BlockFlag.KEPT:
            self._untold.pop((user_id, sender), None)
        else:
            self._users.find(user_id, partial(self._told, sender, flag), now)

    def _told(self, sender: str, flag: int, user: User | None, failure: str | None, now: float) -> None:
        if user is None or sender in self._users.deleted:
            return
        if flag == BlockFlag.ASKED:
            blocked = BlockFlag.BLOCKED if user.is_blocked(sender) else BlockFlag.UNBLOCKED
            self._exchange.notify(sender, RecordKind.BLOCK, blocked, (user.user_id, sender), now)
            return
        if self._untold.get((user.user_id, sender)) == BlockFlag.ASKED:
            del self._untold[user.user_id, sender]
        block, by_peer = user.between(sender), flag == BlockFlag.BLOCKED
        if block.by_peer != by_peer:
            user.set_block(sender, block._replace(by_peer=by_peer))
            self._store.save_block(user, sender, nobody_waits)
            self._parted(user, sender, now)
        self._store.after_writes(partial(self._kept, user.user_id, sender))

    def _kept(self, user_id: str, sender: str, failure: str | None, now: float) -> None:
        self._exchange.notify(sender, RecordKind.BLOCK, BlockFlag.KEPT, (user_id, sender), now)

    # -- Both --

    def _tell(self, user_id: str, peer: str, flag: BlockFlag, now: float) -> None:
        self._untold[user_id, peer] = flag
        self._exchange.notify(peer, RecordKind.BLOCK, flag, (user_id, peer), now)

    def _parted(self, user: User, peer: str, now: float) -> None:
        """Take what `user` saw of the peer away, or show it again."""
        self._presence.parted(user, peer)
        if not user.is_apart(peer):
            # A name that was given meanwhile.
            texts = (user.user_id, peer, user.stored_name)
            self._exchange.notify(peer, RecordKind.RENAMED, 0, texts, now)
            return
        self._typing.end(user, peer)
        chat = user.chats.get(peer)
        if chat is not None and user.is_blocked(peer):
            for session in user.sessions:
                if session.announcements is not None:
                    session.announcements.pending.pop(chat, None)
