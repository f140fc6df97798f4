"""HISTORY: what two users have written to each other, newest first, a page at a time (D14).

A conversation is in two mailboxes: what the peer wrote is in that of the asker, and what the asker wrote is in the peer's, on another shard
perhaps. So two pages are read, one here and one there, and merged by their Lamport counts (see ``core.chat.mailbox``), not by their
timestamps: clocks are put back, and then what is new would stand below what is old. The cursor to the following page is a position in each
of the two mailboxes; nothing that is written meanwhile moves what it stands for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from core.chat.envelope import Outcome, Record, RecordKind
from core.chat.exchange import Exchange, Request
from core.chat.ratelimit import rate_limited
from core.chat.session import Session
from core.chat.store import Store
from core.chat.user import User
from core.wire import codec
from core.wire.protocol import HISTORY_MAX_BYTES, ErrorCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.chats import Chats
    from core.chat.users import Users
    from core.process.settings import Settings

#: (position, Lamport count, `data` of the MSG as JSON), newest first.
Page = list[tuple[int, int, bytes]]

#: More than the frame around the messages needs.
_AROUND_BYTES: Final = 256


class _Asked:
    """A HISTORY of which at most one of the two pages is here."""

    __slots__ = ("limit", "mine", "theirs")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.mine: Page | None = None
        self.theirs: Page | None = None


class Histories:
    """What the users of one shard ask for, and what others ask of their mailboxes."""

    __slots__ = ("_asked", "_chats", "_exchange", "_store", "_users")

    def __init__(
        self, settings: Settings, users: Users, exchange: Exchange, store: Store, chats: Chats
    ) -> None:
        self._users = users
        self._exchange = exchange
        self._store = store
        self._chats = chats
        #: ticket -> what has been found so far.
        self._asked: dict[int, _Asked] = {}
        exchange.on(RecordKind.HISTORY, 4, self._answer, asks=True)
        exchange.on(RecordKind.HISTORY_PAGE, 0, self._page_came, body=True)
        exchange.on_outcome(MessageType.HISTORY, self._settled)

    # -- At the asker's shard --

    def ask(
        self,
        session: Session,
        user: User,
        peer: str,
        before: tuple[int, int] | None,
        limit: int,
        now: float,
    ) -> None:
        """Handle HISTORY: `before` is a position in the mailbox of `user` and one in that of `peer`."""
        if not user.has_chat(peer):
            raise Refusal(ErrorCode.CHAT_NOT_OPENED, "there is no chat with this user", field="with")
        self._chats.used(user, peer)
        window = user.windows_of(session).histories
        wait = window.retry_after(now)
        if wait:
            raise rate_limited("HISTORY", window.limit, wait)
        window.count(now)
        session.asked()
        request = self._exchange.open(MessageType.HISTORY, session, user, peer, None, now)
        self._asked[request.ticket] = _Asked(limit)
        mine, theirs = before or (user.mailbox.head + 1, None)
        # One more than is shown tells whether there are more, and where they begin.
        self._store.history(user.user_id, peer, mine, limit + 1, partial(self._mine, request.ticket))
        # Position 0 is nobody's, and stands for the end here; to be before 1 is to be before everything.
        position = 0 if theirs is None else max(theirs, 1)
        texts = (user.user_id, peer, str(position), str(limit + 1))
        self._exchange.ask(RecordKind.HISTORY, 0, request, texts, b"", now)

    def _settled(self, request: Request, outcome: int, name: str, now: float) -> None:
        """Note that it could not be answered."""
        self._asked.pop(request.ticket, None)
        self._exchange.refuse(request, outcome, now)
        request.session.decided()

    def _page_came(self, record: Record, now: float) -> None:
        """Take the page from the peer's shard; `flags` is 1 when it can't be read."""
        asked = self._asked.get(record.ticket)
        if asked is None:
            return
        if record.flags:
            self._exchange.settle(record.ticket, Outcome.FAILED, "", now)
            return
        page = codec.from_json(record.body)
        asked.theirs = [(seq, lamport, codec.to_json(data)) for seq, lamport, data in page]
        self._finish(record.ticket, asked)

    def _mine(self, ticket: int, found: Page, failure: str | None, now: float) -> None:
        asked = self._asked.get(ticket)
        if asked is not None and failure is None:
            asked.mine = _page(found)
            self._finish(ticket, asked)
        elif asked is not None:
            self._exchange.settle(ticket, Outcome.FAILED, "", now)

    def _finish(self, ticket: int, asked: _Asked) -> None:
        if asked.mine is None or asked.theirs is None:
            return
        del self._asked[ticket]
        request = self._exchange.take(ticket)
        if request is None:
            return
        if not request.session.closed:
            messages, following = _merge(asked.mine, asked.theirs, asked.limit)
            request.session.connection.send(codec.history(request.peer, messages, following))
        request.session.decided()

    # -- At the peer's shard --

    def _answer(self, asked: Record, now: float) -> None:
        """Answer with what the asker has written to a user who lives here."""
        asker, user_id, position, limit = asked.texts
        before = int(position) or None
        user = self._users.known.get(user_id)
        if before is None and user is not None:
            # A commit that failed may have left something in the store all the same, beyond the head.
            before = user.mailbox.head + 1
        self._store.history(user_id, asker, before, int(limit), partial(self._answer_with, asked))

    def _answer_with(self, asked: Record, found: Page, failure: str | None, now: float) -> None:
        body = b"[%b]" % b",".join(b"[%d,%d,%b]" % entry for entry in _page(found))
        self._exchange.answer(asked, RecordKind.HISTORY_PAGE, int(failure is not None), body, now)


def _page(found: Page) -> Page:
    """Return as much as can be shown at once, and one more; `found` has frames in place of their `data`."""
    page: Page = []
    size = 0
    for seq, lamport, frame in found:
        data = codec.msg_data(frame)
        page.append((seq, lamport, data))
        size += len(data)
        if size > HISTORY_MAX_BYTES:
            break
    return page


def _merge(mine: Page, theirs: Page, limit: int) -> tuple[list[bytes], str | None]:
    """Return the newest of both, as JSON, and the cursor to what comes behind them."""
    messages: list[bytes] = []
    room = HISTORY_MAX_BYTES - _AROUND_BYTES
    first = second = 0
    while first < len(mine) or second < len(theirs):
        take_mine = second == len(theirs) or (
            first < len(mine) and _order(mine[first]) >= _order(theirs[second])
        )
        data = (mine[first] if take_mine else theirs[second])[2]
        room -= len(data) + 1
        if len(messages) == limit or room < 0:
            # Each cursor stands right behind the message that comes next, or before all when there is none.
            before = (
                mine[first][0] + 1 if first < len(mine) else 1,
                theirs[second][0] + 1 if second < len(theirs) else 1,
            )
            return messages, f"{before[0]}.{before[1]}"
        messages.append(data)
        if take_mine:
            first += 1
        else:
            second += 1
    return messages, None


def _order(entry: tuple[int, int, bytes]) -> tuple[int, bytes]:
    """Return what messages of both are ordered by: two that crossed stand in the same order for both sides, by sender."""
    return entry[1:]
