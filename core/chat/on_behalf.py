"""What the server API asks for in the place of a user (D36): to send a message, to read a history, to list the chats.

Each is a message of the protocol, and so is its answer. It goes the way of all such messages, in a session that no device of the user has:
nobody sees the user online for it, and the limits are those of a backend (D34).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from core.auth.proof import Proof
from core.chat.ports import Connection
from core.wire import codec, validation
from core.wire.protocol import BAN_REASON, Capability, CloseCode, ErrorCode, MessageType, Refusal

if TYPE_CHECKING:
    from core.chat.chat_lists import ChatLists
    from core.chat.chats import Chats
    from core.chat.session import Session
    from core.chat.user import User
    from core.chat.users import Users

#: What may be asked for.
KINDS: Final = (MessageType.MSG, MessageType.HISTORY, MessageType.CHATS)

_PROOF: Final = Proof(service=True)

#: Makes a session on a connection: the connection, the user, invalid messages before, the time, and what is proven.
Connect = Callable[[Connection, str, int, float, Proof], "Session"]
#: Takes the answer, a message of the protocol.
Answered = Callable[[dict[str, Any]], None]


class OnBehalf:
    """Asks in the place of the users of one shard."""

    __slots__ = ("_chats", "_connect", "_lists", "_users")

    def __init__(self, connect: Connect, users: Users, chats: Chats, lists: ChatLists) -> None:
        self._connect = connect
        self._chats = chats
        self._users = users
        self._lists = lists

    def say(self, user_id: str, kind: str, data: dict[str, Any], answered: Answered, now: float) -> None:
        """Say one of `KINDS` in the place of a user of this shard. `answered` is called once, with ERROR for what is refused.

        A MSG has a valid user id in `to`.
        """
        self._users.find(user_id, partial(self._say, kind, data, answered), now)

    def _say(
        self,
        kind: str,
        data: dict[str, Any],
        answered: Answered,
        user: User | None,
        failure: str | None,
        now: float,
    ) -> None:
        connection = _Answer(answered)
        try:
            if failure is not None:
                raise Refusal(ErrorCode.MESSAGE_FAILED, "the server can't read what it has stored; try again")
            if user is None:
                raise Refusal(ErrorCode.USER_NOT_FOUND, "no user has this id", field="user_id")
            if user.banned and kind == MessageType.MSG:
                raise Refusal(
                    ErrorCode.UNAUTHORIZED, "this user is banned", field="user_id", reason=BAN_REASON
                )
            session = self._connect(connection, user.user_id, 0, now, _PROOF)
            session.user = user
            session.use([Capability.HISTORY])
            if kind == MessageType.CHATS:
                # Not as the client would, whose limit this must not use up; the API has one of its own.
                before, limit = (
                    validation.chats_cursor(data.get("before")),
                    validation.chats_limit(data.get("limit")),
                )
                self._lists.find_page(session, user, before, limit, now)
            else:
                if kind == MessageType.MSG and not user.has_chat(data["to"]):
                    self._chats.introduce(user, data["to"], now)
                session.receive(codec.to_json({"type": kind, "data": data}), now)
        except Refusal as refusal:
            connection.send(codec.error(refusal, kind))


class _Answer:
    """The connection of such a session, which takes the first thing that is sent. Implements ``core.chat.ports.Connection``."""

    __slots__ = ("_answered", "address", "label", "last_heard")

    def __init__(self, answered: Answered) -> None:
        self._answered: Answered | None = answered
        self.address = ""
        self.label = "the server API"
        self.last_heard = 0.0

    def send(self, frame: bytes) -> None:
        """Take the answer."""
        if self._answered is not None:
            self._answered(codec.from_json(codec.text_of(frame)))
            self._answered = None

    def ping(self, payload: bytes) -> None:
        """Drop it: nobody is there."""

    def close(self, code: int, reason: str) -> None:
        """Take it as an answer, since there will be no other."""
        refusal = Refusal(ErrorCode.MESSAGE_FAILED, f"not confirmed: {reason} ({CloseCode(code).name})")
        self.send(codec.error(refusal))

    def hold(self, until: float) -> None:
        """Do nothing: nothing comes."""

    def unsent(self) -> int:
        """Return 0: nothing waits."""
        return 0
