"""What clients may say: the command table, and what each command checks before the part that does the work gets it.

To add a command: a MessageType, a method of `Commands` here, and a row in `Commands.table`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from core.chat.ratelimit import ping_limited
from core.chat.session import Command, Session
from core.wire import codec, validation
from core.wire.frames import FrameError
from core.wire.protocol import (
    CONTENT_MAX,
    NAME_MIN,
    PRESENCE_ASKED_MAX,
    PROVEN_NAME_MIN,
    Capability,
    CloseCode,
    ErrorCode,
    MessageType,
    Refusal,
)
from core.wire.validation import Validator

if TYPE_CHECKING:
    from core.chat.blocks import Blocks
    from core.chat.chat_lists import ChatLists
    from core.chat.chats import Chats
    from core.chat.delivery import Delivery
    from core.chat.expiry import Expiries
    from core.chat.hello import Hellos
    from core.chat.history import Histories
    from core.chat.long_texts import LongTexts
    from core.chat.messages import Messages
    from core.chat.ports import Clock
    from core.chat.presence import Presence
    from core.chat.reading import Reading
    from core.chat.typing import TypingIndicators
    from core.process.settings import Settings


#: What the commands about lists of chats need, and those about blocks.
_LISTS: Final = (Capability.CHATS,)
_BLOCK: Final = (Capability.BLOCK,)


class Commands:
    """The commands of one shard."""

    __slots__ = (
        "_blocks",
        "_chats",
        "_clock",
        "_delivery",
        "_expiries",
        "_hellos",
        "_histories",
        "_lists",
        "_long_texts",
        "_messages",
        "_pings_per_second",
        "_presence",
        "_reading",
        "_shown_name_min",
        "_typing_indicators",
        "_user_id",
        "_validator",
    )

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        long_texts: LongTexts,
        hellos: Hellos,
        expiries: Expiries,
        chats: Chats,
        messages: Messages,
        delivery: Delivery,
        reading: Reading,
        lists: ChatLists,
        blocks: Blocks,
        histories: Histories,
        presence: Presence,
        typing: TypingIndicators,
    ) -> None:
        self._pings_per_second = settings.pings_per_second
        self._validator = Validator(settings.user_ids)
        self._user_id = self._validator.user_id
        #: Characters of a name that a client was told: one that a token proves may be shorter than one in HELLO (D34).
        self._shown_name_min = PROVEN_NAME_MIN if settings.auth == "jwt" else NAME_MIN
        self._clock = clock
        self._long_texts = long_texts
        self._hellos = hellos
        self._expiries = expiries
        self._chats = chats
        self._messages = messages
        self._delivery = delivery
        self._reading = reading
        self._lists = lists
        self._blocks = blocks
        self._histories = histories
        self._presence = presence
        self._typing_indicators = typing

    def table(self) -> dict[str, Command]:
        """Return message type -> command."""
        return {
            MessageType.HELLO: Command(self._hello, needs_hello=False),
            MessageType.OPEN_CHAT: Command(self._open_chat, about="target_user_id"),
            MessageType.MSG: Command(self._msg, about="to"),
            MessageType.MSG_ACK: Command(self._msg_ack),
            MessageType.READ: Command(self._read, capabilities=(Capability.RECEIPTS, Capability.CHATS)),
            MessageType.HISTORY: Command(self._history, about="with", capabilities=(Capability.HISTORY,)),
            MessageType.CHATS: Command(self._list, capabilities=_LISTS),
            MessageType.HIDE: Command(self._hide, about="user_id", capabilities=_LISTS),
            MessageType.MUTE: Command(partial(self._mute, True), about="user_id", capabilities=_LISTS),
            MessageType.UNMUTE: Command(partial(self._mute, False), about="user_id", capabilities=_LISTS),
            MessageType.BLOCK: Command(partial(self._block, True), about="user_id", capabilities=_BLOCK),
            MessageType.UNBLOCK: Command(partial(self._block, False), about="user_id", capabilities=_BLOCK),
            MessageType.PRESENCE: Command(self._ask_presence, capabilities=(Capability.PRESENCE_DELTA,)),
            MessageType.TYPING: Command(self._typing, about="to"),
            MessageType.PING: Command(self._ping, needs_hello=False, urgent=True),
        }

    def _hello(self, session: Session, data: dict[str, Any], now: float) -> None:
        if self._long_texts.must_wait(session, MessageType.HELLO, data, data.get("display_name"), now):
            return
        hello = self._validator.hello(data)
        first, session.first = session.first, False
        if first and hello.user_id != session.claimed:
            # Not the client's doing: the front and this process do not agree on what the first message is.
            raise FrameError(CloseCode.INTERNAL_ERROR, "the hand-over named another user")
        if hello.user_id != session.claimed:
            raise Refusal(
                ErrorCode.UNAUTHORIZED,
                "this connection belongs to another user; open a new one",
                field="user_id",
            )
        if not first:
            # The front has looked at the first one, before it handed the connection over.
            self._expiries.renew(session, data.get("token"), now)
        if session.proof.name is not None:
            hello = hello._replace(display_name=session.proof.name)  # whatever HELLO says (D34)
        self._hellos.hello(session, hello, now)

    def _open_chat(self, session: Session, data: dict[str, Any], now: float) -> None:
        target = self._user_id(data.get("target_user_id"), "target_user_id")
        # Required (docs/protocol.md), though nothing is done with it: CHAT_OPENED shows the name that the target itself gave last (D7).
        name = data.get("target_display_name")
        if self._long_texts.must_wait(session, MessageType.OPEN_CHAT, data, name, now):
            return
        validation.display_name(name, "target_display_name", self._shown_name_min)
        self._chats.open(session, session.greeted, target, now)

    def _msg(self, session: Session, data: dict[str, Any], now: float) -> None:
        recipient = self._user_id(data.get("to"), "to")
        text = data.get("content")
        # Asked here too, since the call would be 1 % of a message.
        is_long = type(text) is str and len(text) > CONTENT_MAX
        if is_long and self._long_texts.must_wait(session, MessageType.MSG, data, text, now):
            return
        content = validation.content(text)
        message_id = data.get("message_id")
        if message_id is not None:
            validation.message_id(message_id)
        self._messages.send(session, recipient, content, message_id, data, now)

    def _msg_ack(self, session: Session, data: dict[str, Any], now: float) -> None:
        message_id = validation.message_id(data.get("message_id"))
        sender = data.get("from")
        if sender is not None:
            sender = self._user_id(sender, "from")
        user = session.user  # `Session.greeted` would be another call, in what comes once for each message
        assert user is not None, "the command table asks for HELLO first"
        self._delivery.acknowledge(session, user, message_id, sender)

    def _read(self, session: Session, data: dict[str, Any], now: float) -> None:
        message_id = validation.message_id(data.get("message_id"))
        sender = self._user_id(data.get("from"), "from")
        self._reading.read(session, session.greeted, message_id, sender, now)

    def _history(self, session: Session, data: dict[str, Any], now: float) -> None:
        if session.closed:
            return  # nobody is there to read it
        peer = self._user_id(data.get("with"), "with")
        before = validation.history_cursor(data.get("before"))
        limit = validation.history_limit(data.get("limit"))
        self._histories.ask(session, session.greeted, peer, before, limit, now)

    def _list(self, session: Session, data: dict[str, Any], now: float) -> None:
        if session.closed:
            return  # nobody is there to read it
        before = validation.chats_cursor(data.get("before"))
        limit = validation.chats_limit(data.get("limit"))
        self._lists.ask(session, session.greeted, before, limit, now)

    def _hide(self, session: Session, data: dict[str, Any], now: float) -> None:
        self._lists.hide(session, session.greeted, self._user_id(data.get("user_id"), "user_id"), now)

    def _mute(self, muted: bool, session: Session, data: dict[str, Any], now: float) -> None:
        peer = self._user_id(data.get("user_id"), "user_id")
        self._lists.mute(session, session.greeted, peer, muted, now)

    def _block(self, blocked: bool, session: Session, data: dict[str, Any], now: float) -> None:
        peer = self._user_id(data.get("user_id"), "user_id")
        self._blocks.set(session, session.greeted, peer, blocked, now)

    def _ask_presence(self, session: Session, data: dict[str, Any], now: float) -> None:
        if session.closed:
            return  # nobody is there to read it
        user_ids = self._validator.user_ids(data.get("user_ids"), "user_ids", PRESENCE_ASKED_MAX)
        self._presence.ask(session, session.greeted, user_ids, now)

    def _typing(self, session: Session, data: dict[str, Any], now: float) -> None:
        if session.closed:
            return  # it waited in line until the typist had gone
        is_typing = validation.is_typing(data.get("is_typing"))
        peer = data.get("to")
        if peer is not None:
            peer = self._user_id(peer, "to")
        self._typing_indicators.send(session, session.greeted, peer, is_typing, now)

    def _ping(self, session: Session, data: dict[str, Any], now: float) -> None:
        wait = session.count_ping(now)
        if wait:
            raise ping_limited(self._pings_per_second, wait)
        session.connection.send(codec.pong(self._clock.timestamp()))
