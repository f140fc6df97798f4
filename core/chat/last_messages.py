"""The last message of each of some chats, in either direction, as the stores have it (D30).

What the peers wrote is in the mailbox of the user, at positions that are known (`Chat.newest`). What the user wrote is in the mailboxes of
the peers: LASTS asks each shard once for all of its users, LASTS_PAGE is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from core.chat.chat import UNCOUNTED
from core.chat.envelope import Record, RecordKind
from core.chat.exchange import Exchange, Request
from core.chat.store import Covered, Store
from core.wire import codec
from core.wire.protocol import MessageType

if TYPE_CHECKING:
    from core.chat.chat import Chat
    from core.chat.session import Session
    from core.chat.user import Message, User

#: Called with peer -> `data` of the last MSG, where there is one; whether all could be asked for; and the time.
Found = Callable[[dict[str, dict[str, Any]], bool, float], None]


class _Search:
    """What has been found so far for one user."""

    __slots__ = ("complete", "found", "open", "then")

    def __init__(self, then: Found) -> None:
        self.then = then
        #: Answers that are not here.
        self.open = 0
        self.complete = True
        #: peer -> (Lamport count, `data` of the MSG).
        self.found: dict[str, tuple[int, dict[str, Any]]] = {}

    def add(self, peer: str, lamport: int, data: dict[str, Any]) -> None:
        """Take a message; the later one of two stays. Two that crossed stand in the order in which HISTORY has them."""
        known = self.found.get(peer)
        if known is None or (lamport, data["from"]) > (known[0], known[1]["from"]):
            self.found[peer] = (lamport, data)


class LastMessages:
    """Finds last messages for the users of one shard, and for others in the mailboxes of its users."""

    __slots__ = ("_asked", "_exchange", "_store")

    def __init__(self, exchange: Exchange, store: Store) -> None:
        self._exchange = exchange
        self._store = store
        #: ticket -> the search that waits for the answer.
        self._asked: dict[int, _Search] = {}
        exchange.on(RecordKind.LASTS, 1, self._answer, body=True, asks=True)
        exchange.on(RecordKind.LASTS_PAGE, 0, self._came, body=True)
        exchange.on_outcome(MessageType.CHATS, self._settled)

    def find(self, session: Session, user: User, chats: list[Chat], then: Found, now: float) -> None:
        """Look for the last messages of these chats of `user`, and count what is unread where that is not known; `then` is called once."""
        search = _Search(then)
        search.open = 1
        purged = user.mailbox.purged_through
        positions = [chat.newest for chat in chats if chat.newest > purged]
        if positions:
            search.open += 1
            self._store.messages_at(user, positions, partial(self._mine, search))
        for chat in chats:
            if chat.unread < 0:
                search.open += 1
                through = max(chat.read_through, purged)
                counted = partial(self._counted, search, chat, chat.unread)
                self._store.covered(user, chat, through, through, counted)
        workers: dict[int, list[str]] = {}
        for chat in chats:
            workers.setdefault(self._exchange.placement.worker_of(chat.peer), []).append(chat.peer)
        for peers in workers.values():
            search.open += 1
            request = self._exchange.open(MessageType.CHATS, session, user, peers[0], None, now)
            self._asked[request.ticket] = search
            self._exchange.ask(RecordKind.LASTS, 0, request, (user.user_id,), codec.to_json(peers), now)
        self._store.after_writes(partial(self._done, search))

    # -- At the user's shard --

    def _mine(self, search: _Search, found: list[Message], failure: str | None, now: float) -> None:
        search.complete = search.complete and failure is None
        for message in found:
            search.add(message.sender, message.lamport, codec.from_json(codec.msg_data(message.frame)))
        self._done(search, None, now)

    def _counted(
        self, search: _Search, chat: Chat, before: int, covered: Covered, failure: str | None, now: float
    ) -> None:
        if failure is not None:
            search.complete = False
        elif chat.unread < 0:
            chat.unread = min(covered.beyond + chat.unread - before, chat.unread - UNCOUNTED)
        self._done(search, None, now)

    def _came(self, record: Record, now: float) -> None:
        """Take the answer of another shard; `flags` is 1 when it can't read its store."""
        search = self._asked.pop(record.ticket, None)
        if search is None:
            return
        self._exchange.take(record.ticket)
        search.complete = search.complete and not record.flags
        for peer, (lamport, data) in codec.from_json(record.body).items():
            search.add(peer, lamport, data)
        self._done(search, None, now)

    def _settled(self, request: Request, outcome: int, name: str, now: float) -> None:
        """Note that a shard did not answer."""
        search = self._asked.pop(request.ticket, None)
        if search is not None:
            search.complete = False
            self._done(search, None, now)

    def _done(self, search: _Search, failure: str | None, now: float) -> None:
        search.open -= 1
        if not search.open:
            found = {peer: data for peer, (_, data) in search.found.items()}
            search.then(found, search.complete, now)

    # -- At the shard of the peers --

    def _answer(self, asked: Record, now: float) -> None:
        peers = codec.from_json(asked.body)
        self._store.lasts(asked.texts[0], peers, partial(self._answer_with, asked))

    def _answer_with(
        self, asked: Record, found: dict[str, tuple[int, bytes]], failure: str | None, now: float
    ) -> None:
        entries = [
            b'"%b":[%d,%b]' % (peer.encode(), lamport, codec.msg_data(frame))
            for peer, (lamport, frame) in found.items()
        ]
        body = b"{%b}" % b",".join(entries)
        self._exchange.answer(asked, RecordKind.LASTS_PAGE, int(failure is not None), body, now)
