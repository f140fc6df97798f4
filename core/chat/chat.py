"""A chat as one of its two users has it, and how it is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from core.wire import codec

#: The namespace of chat ids (RFC 4122 UUID v5); it must never change, or chats would get new ids.
_CHAT_NAMESPACE: Final = UUID("9c1f5f0e-7d0b-5a53-9d4f-2f1d1c7e6a10")
#: Two ids of the first alphabet, which had no colon, joined by one. Their chats keep the ids that they have (D7).
_FIRST_ALPHABET: Final = re.compile(r"[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}", re.ASCII)


#: Added to `Chat.unread` when the store has to count anew, since messages that nobody has read were removed. So it is below 0, and
#: still says how many there are at most.
UNCOUNTED: Final = -(2**52)


class Block(NamedTuple):
    """What stands between a user and a peer (D32)."""

    #: Whether the user has blocked the peer, and the peer the user.
    by_user: bool
    by_peer: bool
    #: How far the user had read then: the peer learns of nothing beyond.
    read_through: int
    #: How many messages of the peer have been withheld since the user has blocked the peer.
    withheld: int = 0


#: What stands between most users.
NO_BLOCK: Final = Block(False, False, 0)


class HookCall(NamedTuple):
    """What the hook is told, or was told, of a chat of a user without a connection (D33). Times are in milliseconds since 1970."""

    #: When a message was found to wait: it tells this call from others of the same chat.
    since: int
    #: When the next attempt is due; None when there is none any more, since the hook was told, or it was given up.
    due: int | None


class Chat:
    """One side's record of an open chat."""

    __slots__ = (
        "_behind",
        "active_at",
        "confirmed",
        "heard_at",
        "hidden",
        "key",
        "muted",
        "newest",
        "noting",
        "peer",
        "peer_name",
        "read_through",
        "saved",
        "unread",
        "written",
    )

    def __init__(self, peer: str, peer_name: str) -> None:
        self.peer = peer
        #: The name that the peer gave last.
        self.peer_name = peer_name
        #: Whether a device of this side is known to have read CHAT_OPENED.
        self.confirmed = False
        #: Whether this side has ever written to the peer, who then is no stranger (D20); and whether the store is being told just now.
        self.written = False
        self.noting = False
        #: What waits for that.
        self._behind: list[Callable[[float], None]] | None = None
        #: The timestamp of the last message from the peer that was shown: an answer to it must be later, also within one millisecond.
        self.heard_at = b""
        # -- What a list of chats shows (D30, D31) --
        #: The timestamp of this side's last message or of the opening; of either side's last, when it comes from the store.
        self.active_at = b""
        #: Position of the peer's newest message, 0 before the first; and up to where this side has read.
        self.newest = 0
        self.read_through = 0
        #: How many messages of the peer are behind that; below 0 when that is not known.
        self.unread = 0
        self.hidden = False
        self.muted = False
        # -- The store's notes --
        #: Its number for this record, 0 until it has given one; and whether the record has ever been committed.
        self.key = 0
        self.saved = False

    @property
    def last_at(self) -> bytes:
        """The timestamp of the last message of either side, or of the opening: what a list is ordered by."""
        return max(self.active_at, self.heard_at)

    def wait(self, then: Callable[[float], None]) -> None:
        """Call `then` once the store has been told that this side has written, or has failed; in the order of the calls."""
        if self._behind is None:
            self._behind = []
        self._behind.append(then)

    def noted(self, now: float) -> None:
        """Note that the store has been told, or has failed: nothing has to wait any more."""
        self.noting = False
        behind, self._behind = self._behind, None
        for then in behind or ():
            then(now)


def chat_id(user: str, peer: str) -> str:
    """Return the id of the chat between two users: the same from both sides, without anybody having to agree on it (D7)."""
    first, second = sorted((user, peer))
    name = f"{first}:{second}"
    if _FIRST_ALPHABET.fullmatch(name) is None:
        # An id may have a colon now, so `a` and `b:c` must not be joined like `a:b` and `c`. No id has a slash (D35).
        name = f"{first}/{second}"
    return str(uuid5(_CHAT_NAMESPACE, name))


def chat_opened_frame(user_id: str, chat: Chat) -> bytes:
    """Encode CHAT_OPENED as a user sees it; `chat` is that user's record."""
    first, second = sorted((user_id, chat.peer))
    return codec.chat_opened(chat_id(first, second), (first, second), chat.peer, chat.peer_name)
