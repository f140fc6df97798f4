"""What an operator asks about a user, or has done, answered by the shard that owns the user (D36).

Everything here is told to operators only: it names users and addresses, which no metric and no page does. Times are in seconds before
now, since the shard's clock counts from no particular day. What changes something is answered when it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from core.chat.ports import Chance
from core.chat.user import User
from core.placement import slot_of
from core.wire.protocol import BAN_REASON, NAME_MAX, CloseCode

if TYPE_CHECKING:
    from core.chat.chats import Chats
    from core.chat.deletion import Deletions
    from core.chat.on_behalf import OnBehalf
    from core.chat.presence import Presence
    from core.chat.store import Store
    from core.chat.user import Device
    from core.chat.users import Users
    from core.process.settings import Settings

#: What may be asked. These are about one user: what is known; that all connections be closed; that there be none; that the user be deleted.
WHO: Final = "who"
KICK: Final = "kick"
BAN: Final = "ban"
UNBAN: Final = "unban"
DELETE: Final = "delete"
#: Make users, or give them other names.
NAME: Final = "name"
#: Which users are online.
ONLINE: Final = "online"
#: Something that a user's client would say (``core.chat.on_behalf``).
SAY: Final = "say"

#: What a client reads whose user was kicked.
KICK_REASON: Final = "closed by the operator"

_DELETING: Final = "this user is being deleted: try again in a moment"

#: Takes the answer: facts, or ``{"problem": sentence}`` when there are none.
Tell = Callable[[dict[str, Any]], None]


class Operator:
    """What is done for operators with the users of one shard."""

    __slots__ = (
        *("_chance", "_chats", "_deletions", "_on_behalf"),
        *("_presence", "_settings", "_store", "_users"),
    )

    def __init__(
        self,
        settings: Settings,
        chance: Chance,
        users: Users,
        store: Store,
        chats: Chats,
        presence: Presence,
        on_behalf: OnBehalf,
        deletions: Deletions,
    ) -> None:
        self._settings = settings
        self._chance = chance
        self._users = users
        self._store = store
        self._chats = chats
        self._presence = presence
        self._on_behalf = on_behalf
        self._deletions = deletions

    def answer(self, what: str, about: dict[str, Any], tell: Tell, now: float) -> None:
        """Answer through `tell`, once: at once, or when the store has done its part.

        | what | `about` has | answer |
        |---|---|---|
        | who | user | what is known: user, worker, slot, known; if it is, also what `_facts` gives |
        | kick | user | closed: how many connections of the user were closed, with 1008 |
        | ban, unban | user | changed: whether it was not so before; closed: how many connections were closed, with 4003 |
        | delete | user | see `Deletions.delete` |
        | name | users: (user, display name) of each | created and renamed: the users of whom that is true |
        | say | user, type, data | type and data of the answer |
        | online | users | online: those of these users, of any shard, who are online |

        Every user id and name is valid, and `user`, as those who are to be named, are of this shard.
        """
        match what:
            case "who":
                user_id = about["user"]
                self._users.find(user_id, partial(_found, self._users.worker, user_id, tell), now)
            case "kick":
                user = self._users.known.get(about["user"])
                closed = 0 if user is None else _close(user, CloseCode.POLICY_VIOLATION, KICK_REASON, now)
                tell({"closed": closed})
            case "ban" | "unban":
                then = partial(self._set_ban, about["user"], what == BAN, tell)
                self._users.find(about["user"], then, now)
            case "delete":
                self._deletions.delete(about["user"], tell, now)
            case "say":
                self._on_behalf.say(about["user"], about["type"], about["data"], tell, now)
            case "name":
                self._name_all(about["users"], tell, now)
            case "online":
                online = [each for each in about["users"] if self._presence.name_of(each) is not None]
                tell({"online": online})
            case _:
                tell({"problem": f"this worker can't answer {what!r}: it runs another version"})

    # -- Ban --

    def _set_ban(
        self, user_id: str, banned: bool, tell: Tell, user: User | None, failure: str | None, now: float
    ) -> None:
        if failure is not None:
            tell(_unread(failure))
            return
        if user_id in self._users.deleted:
            tell({"problem": _DELETING})
            return
        if user is None:
            if not banned:
                tell({"changed": False, "closed": 0})
                return
            user = self._make(user_id, user_id[:NAME_MAX])
            user.kept = False  # to be banned is reason enough to be remembered
        changed = user.banned != banned
        user.banned = banned
        closed = _close(user, CloseCode.BANNED, BAN_REASON, now) if banned else 0
        # Also if nothing has changed: whoever has changed it may not know yet whether that is durable.
        self._store.save_user(user, partial(self._banned, user, not banned, changed, closed, tell))

    def _banned(
        self, user: User, was: bool, changed: bool, closed: int, tell: Tell, failure: str | None, now: float
    ) -> None:
        if failure is not None and changed:
            user.banned = was
        self._users.idle.note(user, now)
        tell({"changed": changed, "closed": closed} if failure is None else _unsaved(failure))

    # -- Make users, and rename them --

    def _name_all(self, users: Sequence[tuple[str, str]], tell: Tell, now: float) -> None:
        naming = _Naming(len(users), tell)
        for user_id, name in users:
            self._users.find(user_id, partial(self._name, naming, user_id, name), now)

    def _name(
        self, naming: _Naming, user_id: str, name: str, user: User | None, failure: str | None, now: float
    ) -> None:
        if failure is not None:
            naming.failed(_unread(failure))
            return
        if user_id in self._users.deleted:
            naming.failed({"problem": _DELETING})
            return
        if user is None:
            naming.created.append(user_id)
            user = self._make(user_id, name)
        elif user.display_name != name:
            naming.renamed.append(user_id)
            user.display_name, user.durable = name, False
        elif user.kept and user.durable:
            naming.done()
            return
        was, user.kept, user.durable = user.kept, True, False
        self._store.save_user(user, partial(self._named, naming, user, name, was))

    def _named(
        self, naming: _Naming, user: User, name: str, was: bool, failure: str | None, now: float
    ) -> None:
        renamed = user.stored_name != name
        if failure is None:
            user.stored_name = name
            # A HELLO may be on its way with another name.
            user.durable = user.display_name == name
        else:
            user.kept = was
            if user.display_name == name:
                user.display_name = user.stored_name
        if renamed and user.sessions:
            self._presence.named(user)
        if renamed and failure is None:
            self._chats.send_new_name(user, now)
        self._users.idle.note(user, now)
        if failure is None:
            naming.done()
        else:
            naming.failed(_unsaved(failure))

    def _make(self, user_id: str, name: str) -> User:
        user = User(user_id, name, self._settings, self._chance.epoch())
        user.durable = False
        self._users.idle.enter(user)
        return user


class _Naming:
    """Users of one question who are being named: it is answered when all are, or the first can't be."""

    __slots__ = ("_missing", "_tell", "created", "renamed")

    def __init__(self, missing: int, tell: Tell) -> None:
        self._missing = missing
        self._tell: Tell | None = tell
        self.created: list[str] = []
        self.renamed: list[str] = []

    def done(self) -> None:
        """Note that one more user is named."""
        self._missing -= 1
        if not self._missing and self._tell is not None:
            self._tell({"created": self.created, "renamed": self.renamed})

    def failed(self, problem: dict[str, Any]) -> None:
        """Tell of a user who can't be named. What is done with the others stays so."""
        if self._tell is not None:
            self._tell(problem)
            self._tell = None


def _close(user: User, code: CloseCode, reason: str, now: float) -> int:
    """Close all connections of a user; how many there were."""
    sessions = list(user.sessions)
    for session in sessions:
        session.close(code, reason, now)
    return len(sessions)


def _unread(failure: str) -> dict[str, Any]:
    return {"problem": f"the store can't say who this is: {failure}"}


def _unsaved(failure: str) -> dict[str, Any]:
    return {"problem": f"the store can't save this: {failure}"}


def _found(worker: int, user_id: str, tell: Tell, user: User | None, failure: str | None, now: float) -> None:
    if failure is not None:
        tell(_unread(failure))
        return
    facts = {"user": user_id, "worker": worker, "slot": slot_of(user_id), "known": user is not None}
    tell(facts if user is None else facts | _facts(user, now))


def _facts(user: User, now: float) -> dict[str, Any]:
    mailbox, close = user.mailbox, user.last_close
    return {
        "display_name": user.display_name,
        "online": bool(user.sessions),
        "banned": user.banned,
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
