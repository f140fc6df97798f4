"""The others: who is online, who is typing, and when they are told that this user is."""

from __future__ import annotations

from collections.abc import Callable

from fastchat_client import _wire
from fastchat_client._typing import TypingThrottle
from fastchat_client.models import Presence, Scope, Typing


class People:
    """What is known of the others. `emit` tells the listeners."""

    def __init__(self, emit: Callable[[str, object], None]) -> None:
        self._emit = emit
        #: Who is online; while there is no connection, who was.
        self.presence = Presence()
        #: What the others are told of this user's typing.
        self.typing = TypingThrottle()
        #: Who is shown as typing to this user.
        self._typists: dict[str, None] = {}

    def greeted(self, data: _wire.Data) -> None:
        """Take HELLO_ACK."""
        self.presence.scope = _scope(data)

    def on_presence(self, data: _wire.Data) -> list[str] | None:
        """Take PRESENCE: everybody, or in a delta those who came or went, who are returned. Raises FastChatError(PROTOCOL)."""
        users = [
            (_wire.text(user, "user_id"), _wire.text(user, "display_name"), _wire.flag(user, "online"))
            for user in _wire.objects(data, "users")
        ]
        if not data.get("delta"):
            self.presence.clear()
        for user_id, name, online in users:
            if online:
                self.presence[user_id] = name
            else:
                self.presence.pop(user_id, None)
        self.presence.scope = _scope(data) or self.presence.scope
        told = Presence(self.presence)
        told.scope = self.presence.scope
        self._emit("presence", told)
        return [user_id for user_id, _, _ in users] if data.get("delta") else None

    def on_typing(self, data: _wire.Data, now: float) -> None:
        """Take TYPING: somebody is typing, or has stopped. Raises FastChatError(PROTOCOL)."""
        typing = Typing(_wire.text(data, "user_id"), _wire.flag(data, "is_typing"))
        if typing.is_typing:
            self._typists[typing.user_id] = None
        else:
            self._typists.pop(typing.user_id, None)
        self._emit("typing", typing)

    def lost(self) -> None:
        """Forget who was typing: nobody would tell any more that they have stopped."""
        self.typing.start_over()
        typists, self._typists = self._typists, {}
        for user_id in typists:
            self._emit("typing", Typing(user_id, False))


def _scope(data: _wire.Data) -> Scope | None:
    match data.get("scope"):
        case "everyone":
            return "everyone"
        case "contacts":
            return "contacts"
    return None
