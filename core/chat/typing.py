"""Who is shown as typing to whom, and until when (D17).

What is shown is kept where the *recipient* lives: so an indicator ends 15 s after the last sign of life even if the sender's worker is no
longer there to say so. All indicators live equally long, so a dictionary in order of renewal is a queue in order of expiry.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from core.chat.envelope import RecordKind, TypingFlag
from core.chat.exchange import Exchange
from core.chat.ratelimit import rate_limited
from core.chat.stalls import later
from core.chat.store import Store
from core.chat.user import Device, User
from core.wire import codec
from core.wire.protocol import TYPING_EXPIRY, TYPING_SHED_BYTES, ErrorCode, Refusal

if TYPE_CHECKING:
    from core.chat.chats import Chats
    from core.chat.users import Users
    from core.process.settings import Settings


class TypingIndicators:
    """Typing from and to the users of one shard."""

    __slots__ = (
        "_chats",
        "_exchange",
        "_held",
        "_store",
        "_until",
        "_users",
        "sent",
        "sent_far",
        "shed",
    )

    def __init__(
        self, settings: Settings, users: Users, exchange: Exchange, store: Store, chats: Chats
    ) -> None:
        self._users = users.known
        self._exchange = exchange
        self._store = store
        self._chats = chats
        exchange.on_told(RecordKind.TYPING, 2, self._came)
        #: What sessions that don't keep up have not been told: sender -> whether typing, the latest (D29).
        self._held: dict[Device, dict[str, bool]] = {}
        #: (sender, recipient) -> when what the recipient sees expires; the first to expire comes first.
        self._until: dict[tuple[str, ...], float] = {}
        #: Valid TYPING, those of them that went to another shard, and how often a session was not told since it does not keep up.
        self.sent = 0
        self.sent_far = 0
        self.shed = 0

    # -- At the sender's shard --

    def send(self, session: Device, user: User, peer: str | None, is_typing: bool, now: float) -> None:
        """Handle TYPING, for the chat that it is meant for: `peer` if the client says so, else what this connection did or saw last."""
        peer = peer or session.chosen_peer or session.received_peer or next(reversed(user.chats), None)
        chat = user.chats.get(peer) if peer is not None else None
        if peer is None or chat is None or not chat.saved:
            raise Refusal(ErrorCode.CHAT_NOT_OPENED, "open a chat before typing in it", field="to")
        if not chat.confirmed:
            self._chats.used(user, peer)
        window = user.windows_of(session).typing
        wait = window.retry_after(now)
        if wait:
            raise rate_limited("TYPING", window.limit, wait)
        window.count(now)
        if is_typing:
            if session.typing_to is None:
                session.typing_to = {}
            session.typing_to[peer] = now + TYPING_EXPIRY
        elif session.typing_to:
            session.typing_to.pop(peer, None)
        if not user.is_apart(peer):
            self._notify(user.user_id, peer, TypingFlag.TYPING if is_typing else TypingFlag.STOPPED, now)

    def disconnected(self, user: User, session: Device, now: float) -> None:
        """Say that who disconnects has stopped typing, unless another device of the same user goes on."""
        for peer in session.typing_to or ():
            others = (other.typing_to for other in user.sessions)
            if not (user.is_apart(peer) or any(other and other.get(peer, now) > now for other in others)):
                self._notify(user.user_id, peer, TypingFlag.STOPPED_IF_SHOWN, now)

    # -- At the recipient's shard --

    def _came(self, texts: tuple[str, ...], flag: int, now: float) -> None:
        """Show that somebody is typing to a user of this shard, or has stopped, behind the messages that came before it."""
        self._store.after_writes(partial(self._in_turn, texts, flag))

    def _in_turn(self, texts: tuple[str, ...], flag: int, failure: str | None, now: float) -> None:
        sender, recipient = texts
        user = self._users.get(recipient)
        if user is not None and user.is_apart(sender):
            return
        shown = self._until.pop(texts, None) is not None
        if flag == TypingFlag.TYPING:
            self._until[texts] = now + TYPING_EXPIRY
        elif not shown and flag == TypingFlag.STOPPED_IF_SHOWN:
            return
        self._show(sender, recipient, flag == TypingFlag.TYPING)

    def end(self, user: User, sender: str) -> None:
        """Show `user` no more that `sender` is typing: whoever sends a message is not any more, nor is anybody who is blocked."""
        if self._until and self._until.pop((sender, user.user_id), None) is not None:
            self._show(sender, user.user_id, False)

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the worker stood still: a sign of life may wait to be read (``core.chat.stalls``)."""
        for pair, until in self._until.items():
            self._until[pair] = later(until, seconds, now + TYPING_EXPIRY)

    def tick(self, now: float) -> None:
        """End those of whom nothing was heard for 15 s, and tell sessions that have room again what they have missed."""
        if self._held:
            self._catch_up()
        while self._until:
            pair, until = next(iter(self._until.items()))
            if until > now:
                return
            del self._until[pair]
            sender, recipient = pair
            self._show(sender, recipient, False)

    # -- For a successor --

    def export(self) -> list[list[Any]]:
        """Return what is shown: sender, recipient, and until when, the first to expire first."""
        return [[*pair, until] for pair, until in self._until.items()]

    def restore(self, shown: list[list[Any]]) -> None:
        """Take over what `export` has returned."""
        self._until = {(sender, recipient): until for sender, recipient, until in shown}

    def held(self, session: Device) -> dict[str, bool]:
        """Return what a session has not been told, since it does not keep up: sender -> whether typing."""
        return self._held.get(session, {})

    def hold(self, session: Device, held: dict[str, bool]) -> None:
        """Take over what `held` has returned for a session."""
        if held:
            self._held[session] = held

    # -- Inside --

    def _show(self, sender: str, recipient: str, is_typing: bool) -> None:
        user = self._users.get(recipient)
        if user is not None and user.sessions:
            frame = codec.typing(sender, is_typing)
            for session in user.sessions:
                if session.connection.unsent() > TYPING_SHED_BYTES:
                    self.shed += 1
                    self._held.setdefault(session, {})[sender] = is_typing
                else:
                    session.connection.send(frame)
                    if session in self._held:
                        self._held[session].pop(sender, None)

    def _catch_up(self) -> None:
        for session in [
            session for session in self._held if session.connection.unsent() <= TYPING_SHED_BYTES
        ]:
            for sender, is_typing in self._held.pop(session).items():
                session.connection.send(codec.typing(sender, is_typing))

    def _notify(self, sender: str, recipient: str, flag: TypingFlag, now: float) -> None:
        self.sent += 1
        if self._exchange.notify(recipient, RecordKind.TYPING, flag, (sender, recipient), now):
            self.sent_far += 1
