"""The rate limits of one user that most users never come near: made when they are needed (D23)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.chat.ratelimit import SlidingWindow
from core.wire.protocol import MessageType

if TYPE_CHECKING:
    from core.process.settings import Settings

#: What is limited by `lists_per_minute`, each by itself (D30).
LISTS: Final = (
    *(MessageType.CHATS, MessageType.READ, MessageType.HIDE),
    *(MessageType.MUTE, MessageType.UNMUTE, MessageType.BLOCK, MessageType.UNBLOCK),
)


class RareWindows:
    """What one user has done in the last minute of what most don't do (D23)."""

    __slots__ = ("_lists", "_lists_per_minute", "histories", "open_chats", "presences", "typing")

    def __init__(self, settings: Settings) -> None:
        self._lists_per_minute = settings.lists_per_minute
        #: Message type -> its window; most users never need one.
        self._lists: dict[str, SlidingWindow] | None = None
        self.typing = SlidingWindow(settings.typing_per_minute)
        self.open_chats = SlidingWindow(settings.open_chats_per_minute)
        self.histories = SlidingWindow(settings.history_per_minute)
        self.presences = SlidingWindow(settings.presence_per_minute)

    def lists(self, kind: str) -> SlidingWindow:
        """Return the window of CHATS, READ, HIDE, MUTE, UNMUTE, BLOCK or UNBLOCK."""
        if self._lists is None:
            self._lists = {}
        window = self._lists.get(kind)
        if window is None:
            window = self._lists[kind] = SlidingWindow(self._lists_per_minute)
        return window

    def lists_in_order(self) -> list[SlidingWindow | None]:
        """Return the windows of `LISTS`, None in the place of one that was never needed."""
        lists = self._lists or {}
        return [lists.get(kind) for kind in LISTS]


class ServiceWindows:
    """What the connections of one user with ``role: "service"`` have done in the last minute (D34)."""

    __slots__ = ("histories", "messages", "open_chats", "typing")

    def __init__(self, settings: Settings) -> None:
        self.messages = SlidingWindow(settings.service_messages_per_minute)
        self.open_chats = SlidingWindow(settings.service_open_chats_per_minute)
        self.typing = SlidingWindow(settings.service_typing_per_minute)
        self.histories = SlidingWindow(settings.service_history_per_minute)

    def all(self) -> tuple[SlidingWindow, ...]:
        """Return all of them, in the order in which `User.counted` has them."""
        return self.messages, self.open_chats, self.typing, self.histories
