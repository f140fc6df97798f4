"""One user as the owning shard knows it: name, devices, chats, mailbox and what counts against the limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID, uuid5

from core.chat.mailbox import Mailbox
from core.chat.ratelimit import SlidingWindow
from core.process.settings import Settings
from core.wire import codec

if TYPE_CHECKING:
    from core.chat.session import Session

#: The namespace of chat ids (RFC 4122 UUID v5); it must never change, or chats would get new ids.
_CHAT_NAMESPACE: Final = UUID("9c1f5f0e-7d0b-5a53-9d4f-2f1d1c7e6a10")
#: Two ids of the first alphabet, which had no colon, joined by one. Their chats keep the ids that they have (D7).
_FIRST_ALPHABET: Final = re.compile(r"[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}", re.ASCII)


class Chat:
    """One side's record of an open chat."""

    __slots__ = ("confirmed", "heard_at", "key", "noting", "peer", "peer_name", "saved", "written")

    def __init__(self, peer: str, peer_name: str) -> None:
        self.peer = peer
        #: The name that the peer gave last.
        self.peer_name = peer_name
        #: Whether a device of this side is known to have read CHAT_OPENED.
        self.confirmed = False
        #: Whether this side has ever written to the peer, who then is no stranger (D20); and whether the store is being told just now.
        self.written = False
        self.noting = False
        #: The timestamp of the last message from the peer that was shown: an answer to it must be later, also within one millisecond.
        self.heard_at = b""
        # -- The store's notes --
        #: Its number for this record, 0 until it has given one; and whether the record has ever been committed.
        self.key = 0
        self.saved = False


class Close(NamedTuple):
    """How a connection of a user ended, for operators."""

    #: ``server``, ``client``, or ``nobody`` when the connection was lost.
    by: str
    code: int
    #: In the words of whoever closed; a client's may be any text of at most 123 bytes.
    reason: str
    #: On the monotonic clock.
    at: float


class User:
    """A user who has said HELLO at least once. Grouped by how long the attributes matter."""

    __slots__ = (
        "acknowledges",
        "chats",
        "display_name",
        "durable",
        "hellos",
        "histories",
        "in_flight",
        "key",
        "last_close",
        "mailbox",
        "messages",
        "open_chats",
        "parked",
        "pins",
        "presences",
        "requests",
        "saved",
        "sessions",
        "stored_name",
        "typing",
        "unsaved_confirmed",
        "user_id",
    )

    def __init__(self, user_id: str, display_name: str, settings: Settings, epoch: str) -> None:
        # -- For ever --
        self.user_id = user_id
        #: As the last HELLO says.
        self.display_name = display_name
        #: Whether the store has the user under this name, so that HELLO may be answered at once (D20).
        self.durable = True
        #: The name that it was last known to have: what a HELLO that could not be stored goes back to.
        self.stored_name = display_name
        #: Whether this user has ever sent MSG_ACK, and so acknowledges explicitly (D12).
        self.acknowledges = False
        #: peer -> the chat, in the order in which they were opened.
        self.chats: dict[str, Chat] = {}
        #: Those that have been confirmed and of which the store has not been told.
        self.unsaved_confirmed: list[Chat] = []
        self.mailbox = Mailbox(epoch)
        # -- For a minute (D23) --
        self.messages = SlidingWindow(settings.messages_per_minute)
        self.typing = SlidingWindow(settings.typing_per_minute)
        self.open_chats = SlidingWindow(settings.open_chats_per_minute)
        self.hellos = SlidingWindow(settings.hellos_per_minute)
        self.histories = SlidingWindow(settings.history_per_minute)
        self.presences = SlidingWindow(settings.presence_per_minute)
        #: Requests that are not answered yet.
        self.requests = 0
        #: Messages among them: they will count against the limit, unless the other side refuses them.
        self.in_flight = 0
        #: Sessions that wait for messages in flight to be decided, since only then it is known whether one more is allowed.
        self.parked: list[Session] = []
        # -- While connected --
        #: The devices that have said HELLO.
        self.sessions: list[Session] = []
        # -- While in memory --
        #: The last of them that went.
        self.last_close: Close | None = None
        # -- The store's notes --
        #: Its number for this record, 0 until it has given one; and whether the record has ever been committed.
        self.key = 0
        self.saved = False
        #: Calls of the store about this user that are not finished: until they are, the user stays in memory.
        self.pins = 0

    def has_chat(self, peer: str) -> bool:
        """Whether a chat with `peer` is open: a record that is not durable yet does not count."""
        chat = self.chats.get(peer)
        return chat is not None and chat.saved

    def counted(self, now: float) -> list[list[float]]:
        """What counts against each limit at present: when it was."""
        return [window.recent_times(now) for window in self._windows()]

    def count_again(self, counted: list[list[float]]) -> None:
        """Count what `counted` of the same user has said, who was left to the store meanwhile."""
        for window, times in zip(
            self._windows(), counted, strict=False
        ):  # another version may have had fewer limits, or more
            for time in times:
                window.count(time)

    def _windows(self) -> tuple[SlidingWindow, ...]:
        return (
            *(self.messages, self.typing, self.open_chats),
            *(self.hellos, self.histories, self.presences),
        )

    @property
    def busy(self) -> bool:
        """Whether something is on its way that will come back to this object, so that it must stay in memory."""
        return bool(self.pins or self.requests)


def chat_id(user: str, peer: str) -> str:
    """The id of the chat between two users: the same from both sides, without anybody having to agree on it (D7)."""
    first, second = sorted((user, peer))
    name = f"{first}:{second}"
    if _FIRST_ALPHABET.fullmatch(name) is None:
        # An id may have a colon now, so `a` and `b:c` must not be joined like `a:b` and `c`. No id has a slash (D35).
        name = f"{first}/{second}"
    return str(uuid5(_CHAT_NAMESPACE, name))


def chat_opened_frame(user: User, chat: Chat) -> bytes:
    """CHAT_OPENED as `user` sees it."""
    first, second = sorted((user.user_id, chat.peer))
    return codec.chat_opened(chat_id(first, second), (first, second), chat.peer, chat.peer_name)
