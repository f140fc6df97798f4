"""HISTORY: what two users have written to each other, newest first, a page at a time (D14).

A conversation is in two mailboxes: what the peer wrote is in that of the asker, and what the asker wrote is in the peer's, on another shard
perhaps, or withheld from the peer (D32). So a page of each is read, one here and the others there, and they are merged by their Lamport
counts (see ``core.chat.mailbox``), not by their timestamps: clocks are put back, and then what is new would stand below what is old. The
cursor to the following page is a position in each of them; nothing that is written meanwhile moves what it stands for.
"""

from __future__ import annotations

from functools import partial
from heapq import merge
from typing import TYPE_CHECKING, Any, Final

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

#: `flags` of a HISTORY record whose sender takes what is withheld too; the version before took one page.
_WITHHELD: Final = 1
#: More than the frame around the messages needs.
_AROUND_BYTES: Final = 256


class _Asked:
    """A HISTORY of which the page from here is missing, or those from the peer's shard."""

    __slots__ = ("limit", "mine", "theirs", "withheld")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.mine: Page | None = None
        self.theirs: Page | None = None
        self.withheld: Page = []


class _Answer:
    """What is found here for a shard that asks."""

    __slots__ = ("asked", "failure", "read_through", "theirs")

    def __init__(self, asked: Record, read_through: int, failure: str | None) -> None:
        self.asked = asked
        #: How far the peer has read, as the asker may know it.
        self.read_through = read_through
        self.failure = failure
        self.theirs = b"[]"


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
        before: tuple[int, int, int] | None,
        limit: int,
        now: float,
    ) -> None:
        """Handle HISTORY: `before` is a position in the mailbox of `user`, one in that of `peer`, and one among what is withheld."""
        if not user.has_chat(peer):
            raise Refusal(ErrorCode.CHAT_NOT_OPENED, "there is no chat with this user", field="with")
        if session in user.sessions:  # not for the server API
            self._chats.used(user, peer)
        window = user.windows_of(session).histories
        wait = window.retry_after(now)
        if wait:
            raise rate_limited("HISTORY", window.limit, wait)
        window.count(now)
        session.asked()
        request = self._exchange.open(MessageType.HISTORY, session, user, peer, None, now)
        self._asked[request.ticket] = _Asked(limit)
        mine, theirs, withheld = before or (user.mailbox.head + 1, None, 0)
        # One more than is shown tells whether there are more, and where they begin.
        self._store.history(user.user_id, peer, mine, limit + 1, partial(self._mine, request.ticket))
        # Position 0 is nobody's, and stands for the end here; to be before 1 is to be before everything.
        position = 0 if theirs is None else max(theirs, 1)
        positions = f"{position}.{withheld}" if withheld else str(position)
        texts = (user.user_id, peer, positions, str(limit + 1))
        self._exchange.ask(RecordKind.HISTORY, _WITHHELD, request, texts, b"", now)

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
        pages = codec.from_json(record.body)
        if type(pages) is not dict:
            pages = {"theirs": pages, "withheld": []}  # from a version that withholds nothing
        asked.theirs, asked.withheld = _decoded(pages["theirs"]), _decoded(pages["withheld"])
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
            user, peer = request.user, request.peer
            mine = _marked(asked.mine, user.chats[peer].read_through if peer in user.chats else 0)
            messages, following = _merge([mine, asked.theirs, asked.withheld], asked.limit)
            request.session.connection.send(codec.history(peer, messages, following))
        request.session.decided()

    # -- At the peer's shard --

    def _answer(self, asked: Record, now: float) -> None:
        """Answer with what the asker has written to a user who lives here."""
        self._users.find(asked.texts[1], partial(self._answer_about, asked), now)

    def _answer_about(self, asked: Record, user: User | None, failure: str | None, now: float) -> None:
        asker, user_id, positions, limit = asked.texts
        position, _, withheld = positions.partition(".")
        # A commit that failed may have left something in the store all the same, beyond the head.
        before = int(position) or (None if user is None else user.mailbox.head + 1)
        read_through = 0
        if user is not None and asker in user.chats:
            read_through = min(user.chats[asker].read_through, user.between(asker).read_through)
        answer = _Answer(asked, read_through, failure)
        then = partial(self._theirs, answer)
        self._store.history(user_id, asker, before, int(limit), then)
        if asked.flags & _WITHHELD:
            then = partial(self._withheld, answer)
            self._store.history(user_id, asker, int(withheld or 0) or None, int(limit), then, withheld=True)

    def _theirs(self, answer: _Answer, found: Page, failure: str | None, now: float) -> None:
        answer.failure = answer.failure or failure
        answer.theirs = _encoded(_marked(_page(found), answer.read_through))
        if not answer.asked.flags & _WITHHELD:
            self._reply(answer, answer.theirs, now)

    def _withheld(self, answer: _Answer, found: Page, failure: str | None, now: float) -> None:
        answer.failure = answer.failure or failure
        self._reply(answer, b'{"theirs":%b,"withheld":%b}' % (answer.theirs, _encoded(_page(found))), now)

    def _reply(self, answer: _Answer, pages: bytes, now: float) -> None:
        failed = int(answer.failure is not None)
        self._exchange.answer(answer.asked, RecordKind.HISTORY_PAGE, failed, pages, now)


def _encoded(page: Page) -> bytes:
    return b"[%b]" % b",".join(b"[%d,%d,%b]" % entry for entry in page)


def _decoded(page: list[Any]) -> Page:
    """Undo `_encoded`, of which the whole has been decoded; the compiled core would not take lists for tuples."""
    return [(seq, lamport, codec.to_json(data)) for seq, lamport, data in page]


def _marked(page: Page, read_through: int) -> Page:
    """Return the page with those messages marked as read that are, up to this position."""
    return [
        (seq, lamport, codec.marked_read(data) if seq <= read_through else data)
        for seq, lamport, data in page
    ]


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


def _merge(pages: list[Page], limit: int) -> tuple[list[bytes], str | None]:
    """Return the newest of all, as JSON, and the cursor to what comes behind them.

    The pages are what is in the own mailbox, in the peer's, and what is withheld from the peer. A cursor has no position for the
    last one where there is nothing, so nearly nobody ever sees three.
    """
    messages: list[bytes] = []
    taken = [0] * len(pages)
    room = HISTORY_MAX_BYTES - _AROUND_BYTES
    tagged = [[(entry, index) for entry in page] for index, page in enumerate(pages)]
    for (_, _, data), index in merge(*tagged, key=_order, reverse=True):
        room -= len(data) + 1
        if len(messages) == limit or room < 0:
            # Each position stands right behind the message that comes next, or before all when there is none.
            before = [
                page[count][0] + 1 if count < len(page) else 1
                for page, count in zip(pages, taken, strict=True)
            ]
            return messages, ".".join(map(str, before if pages[-1] else before[:-1]))
        messages.append(data)
        taken[index] += 1
    return messages, None


def _order(tagged: tuple[tuple[int, int, bytes], int]) -> tuple[int, bytes]:
    """Return what messages of all pages are ordered by: two that crossed stand in the same order for both sides, by sender."""
    return tagged[0][1:]
