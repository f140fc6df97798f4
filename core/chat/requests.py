"""Requests from one user's shard to another's: what waits for an answer, and what the client is told when it comes (D26).

A request gets a ticket, travels as a record (or as a plain call when both users live here), and comes back as an Outcome; one that has not
come back within 5 s has failed. Failed means *not confirmed*: the other side may have done it all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final

from core.chat.envelope import Outcome
from core.chat.ratelimit import rate_limited
from core.chat.shares import sender_share, strangers_share
from core.chat.stalls import later
from core.wire.protocol import CONFIRM_TIMEOUT, ErrorCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.session import Session
    from core.chat.user import User
    from core.process.settings import Settings


class Request:
    """A request whose outcome is not known yet."""

    __slots__ = ("altered", "deadline", "frame", "kind", "message_id", "peer", "session", "ticket", "user")

    def __init__(
        self,
        ticket: int,
        kind: str,
        session: Session,
        user: User,
        peer: str,
        message_id: str | None,
        deadline: float,
    ) -> None:
        #: Names it between the shards; later requests have higher ones.
        self.ticket = ticket
        #: MSG, OPEN_CHAT or HISTORY: which answer the client waits for.
        self.kind = kind
        self.session = session
        self.user = user
        self.peer = peer
        self.message_id = message_id
        self.deadline = deadline
        #: A message, as its recipient gets it.
        self.frame = b""
        #: Whether what that carries is not the text that the client sent, and the client is to be told (D11).
        self.altered = False


class Requests:
    """The open requests of one shard."""

    __slots__ = ("_open", "_tickets")

    def __init__(self, generation: int) -> None:
        #: ticket -> request. All wait equally long, so the first is the first to expire.
        self._open: dict[int, Request] = {}
        #: The generation is part of a ticket, so an answer to an earlier process of this worker is not taken for one to this.
        self._tickets = count((generation & 0x7FFF_FFFF) << 32)

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def open(
        self, kind: str, session: Session, user: User, peer: str, message_id: str | None, now: float
    ) -> Request:
        """Begin a request."""
        ticket = next(self._tickets)
        request = Request(ticket, kind, session, user, peer, message_id, now + CONFIRM_TIMEOUT)
        self._open[ticket] = request
        user.requests += 1
        return request

    def take(self, ticket: int) -> Request | None:
        """The request that an answer belongs to; None when it came too late."""
        request = self._open.pop(ticket, None)
        if request is not None:
            request.user.requests -= 1
        return request

    def stood_still(self, seconds: float, now: float) -> None:
        """The worker stood still: an answer may wait to be read (``core.chat.stalls``)."""
        for request in self._open.values():
            request.deadline = later(request.deadline, seconds, now + CONFIRM_TIMEOUT)

    def expired(self, now: float) -> int | None:
        """The ticket of a request whose time is over; None when there is none (any more)."""
        for ticket, request in self._open.items():
            return ticket if request.deadline <= now else None
        return None


#: Where each kind of request names the other user.
_FIELD: Final = {MessageType.MSG: "to", MessageType.OPEN_CHAT: "target_user_id", MessageType.HISTORY: "with"}


def refusal(request: Request, outcome: int, settings: Settings, now: float) -> Refusal:
    """What the client is told about a request that did not succeed."""
    field = _FIELD[request.kind]
    if outcome == Outcome.USER_NOT_FOUND:
        return Refusal(ErrorCode.USER_NOT_FOUND, "no such user has ever been here", field=field)
    if outcome == Outcome.CHAT_NOT_OPENED and request.peer == request.user.user_id:
        return Refusal(
            ErrorCode.CHAT_NOT_OPENED, "a chat is with somebody else, not with oneself", field=field
        )
    if outcome == Outcome.CHAT_NOT_OPENED:
        return Refusal(ErrorCode.CHAT_NOT_OPENED, "open a chat with this user first", field=field)
    if outcome == Outcome.CONFLICT:
        return Refusal(
            ErrorCode.VALIDATION,
            "this message_id was used for another content",
            field="message_id",
            expected="an id that was not used before, or the same content",
        )
    if outcome == Outcome.RATE_LIMITED:
        return rate_limited("MSG", settings.messages_per_minute, request.user.messages.retry_after(now))
    if outcome in SHARES:
        return _mailbox_full(outcome, settings.mailbox_max)
    again = "send it again with the same message_id" if request.message_id is not None else "try again"
    return Refusal(ErrorCode.MESSAGE_FAILED, f"not confirmed; {again}", field=field)


#: What of a mailbox is full (D20): its name in `details`, how much it is, and what waits.
SHARES: Final[dict[int, tuple[str, Callable[[int], int], str]]] = {
    Outcome.MAILBOX_FULL: ("mailbox", lambda whole: whole, "messages"),
    Outcome.SENDERS_SHARE_FULL: ("sender", sender_share, "messages of yours"),
    Outcome.STRANGERS_SHARE_FULL: (
        "strangers",
        strangers_share,
        "messages from people to whom this user has never written",
    ),
}


def _mailbox_full(outcome: int, mailbox_max: int) -> Refusal:
    share, part, whose = SHARES[outcome]
    limit = part(mailbox_max)
    return Refusal(
        ErrorCode.MESSAGE_FAILED,
        f"not stored: the mailbox is full, at most {limit} {whose} may wait unacknowledged for this user; send it again later",
        field="to",
        reason="mailbox_full",
        share=share,
        limit=limit,
    )
