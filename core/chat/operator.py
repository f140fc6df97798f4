"""What an operator asks about a user, answered by the shard that owns the user.

Everything here is told to operators only: it names users and addresses, which no metric and no page does. Times are in seconds before
now, since the shard's clock counts from no particular day.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from core.placement import slot_of
from core.wire.protocol import CloseCode

if TYPE_CHECKING:
    from core.chat.deletion import Deletions
    from core.chat.user import Device, User
    from core.chat.users import Users

#: What may be asked: everything that is known of a user, that all connections of a user be closed, and that a user be deleted (D36).
WHO: Final = "who"
KICK: Final = "kick"
DELETE: Final = "delete"
#: What a client reads whose user was kicked.
KICK_REASON: Final = "closed by the operator"

#: Takes the answer: facts, or ``{"problem": sentence}`` when there are none.
Tell = Callable[[dict[str, Any]], None]


def answer(users: Users, deletions: Deletions, what: str, user_id: str, tell: Tell, now: float) -> None:
    """Answer through `tell`, once: at once, or when the store has looked, or has deleted. `user_id` is valid, and one of this shard."""
    if what == WHO:
        users.find(user_id, partial(_found, users.worker, user_id, tell), now)
    elif what == KICK:
        tell({"closed": _kick(users, user_id, now)})
    elif what == DELETE:
        deletions.delete(user_id, tell, now)
    else:
        tell({"problem": f"this worker can't answer {what!r}: it runs another version"})


def _kick(users: Users, user_id: str, now: float) -> int:
    user = users.known.get(user_id)
    sessions = list(user.sessions) if user is not None else []
    for session in sessions:
        session.close(CloseCode.POLICY_VIOLATION, KICK_REASON, now)
    return len(sessions)


def _found(worker: int, user_id: str, tell: Tell, user: User | None, failure: str | None, now: float) -> None:
    if failure is not None:
        tell({"problem": f"the store can't say who this is: {failure}"})
        return
    facts = {"user": user_id, "worker": worker, "slot": slot_of(user_id), "known": user is not None}
    tell(facts if user is None else facts | _facts(user, now))


def _facts(user: User, now: float) -> dict[str, Any]:
    mailbox, close = user.mailbox, user.last_close
    return {
        "display_name": user.display_name,
        "online": bool(user.sessions),
        "devices": [_device(session, mailbox.head, now) for session in user.sessions],
        "chats": len(user.chats),
        "mailbox": {
            #: The position of the newest message; how many have no acknowledgement; and how many of those are not stored yet.
            "head": mailbox.head,
            "waiting": mailbox.waiting,
            "uncommitted": mailbox.reserved,
        },
        "last_close": close
        and {"by": close.by, "code": close.code, "reason": close.reason, "ago": round(now - close.at, 1)},
    }


def _device(session: Device, head: int, now: float) -> dict[str, Any]:
    connection = session.connection
    return {
        "connection": connection.label,
        "address": connection.address,
        "connected": round(now - session.since, 1),
        "heard": round(now - connection.last_heard, 1),
        "capabilities": sorted(session.capabilities),
        #: Bytes that the client has not taken; and messages that have not been written to it for that, or because it was away.
        "unsent": connection.unsent(),
        "behind": max(0, head - session.cursor),
    }
