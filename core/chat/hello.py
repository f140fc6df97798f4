"""HELLO: a device becomes one of its user's (D3, D4).

`hello` takes a valid HELLO -> the user is found, here or by the store, or made -> `_welcome`, once the user is durable under this name:
HELLO_ACK, PRESENCE, and what the device missed. Until then the session holds everything else that its client sends.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from core.chat.command_queue import EVERYTHING
from core.chat.ports import Chance, Clock
from core.chat.ratelimit import rate_limited
from core.chat.session import Session
from core.chat.store import Done
from core.chat.user import User
from core.wire import codec
from core.wire.protocol import (
    BAN_REASON,
    DEVICE_SILENT,
    DEVICES_MAX,
    HELLO_DEADLINE,
    Capability,
    CloseCode,
    ErrorCode,
    MessageType,
    Refusal,
    Resumed,
)
from core.wire.validation import Hello

if TYPE_CHECKING:
    from core.chat.blocks import Blocks
    from core.chat.chats import Chats
    from core.chat.delivery import Delivery
    from core.chat.hook_calls import HookCalls
    from core.chat.presence import Presence
    from core.chat.store import Store
    from core.chat.users import Users
    from core.process.settings import Settings


#: What a client reads that comes while its user is being deleted (D36): the user begins anew when that is done.
_DELETION_REASON: Final = "this user is being deleted"


class Hellos:
    """The HELLOs of one shard."""

    __slots__ = (
        "_blocks",
        "_chance",
        "_chats",
        "_clock",
        "_delivery",
        "_hook_calls",
        "_presence",
        "_settings",
        "_store",
        "_users",
    )

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        chance: Chance,
        users: Users,
        store: Store,
        chats: Chats,
        delivery: Delivery,
        presence: Presence,
        blocks: Blocks,
        hook_calls: HookCalls,
    ) -> None:
        self._blocks = blocks
        self._hook_calls = hook_calls
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._users = users
        self._store = store
        self._chats = chats
        self._delivery = delivery
        self._presence = presence

    def hello(self, session: Session, hello: Hello, now: float) -> None:
        """Handle a valid HELLO, of the user whom the connection belongs to."""
        session.hold(EVERYTHING)
        if hello.user_id == session.claimed:
            hello = hello._replace(user_id=session.claimed)  # one string less for each user
        self._users.find(hello.user_id, partial(self._found, session, hello), now)

    def _found(
        self, session: Session, hello: Hello, user: User | None, failure: str | None, now: float
    ) -> None:
        if failure is not None:
            self._fail(session, "the server can't read what it has stored", now)
            return
        if hello.user_id in self._users.deleted:
            self._fail(session, _DELETION_REASON, now)
            return
        if user is None:
            user = User(hello.user_id, hello.display_name, self._settings, self._chance.epoch())
            user.durable = False
            self._users.idle.enter(user)
        if user.banned:
            self._refuse_banned(session, user, now)
            return
        wait = user.hellos.retry_after(now)
        if wait:
            # Who waits as long as it is told to must not be closed meanwhile for not saying HELLO.
            session.hello_deadline = now + wait + HELLO_DEADLINE
            refusal = rate_limited("HELLO", self._settings.hellos_per_minute, wait)
            session.refuse_later(refusal, "HELLO", None, now)
            session.continue_later(EVERYTHING)
            return
        user.hellos.count(now)
        renamed = user.display_name != hello.display_name
        if renamed:
            user.display_name = hello.display_name
            user.durable = False
        welcome: Done = partial(self._welcome, session, user, hello, renamed)
        if user.durable:
            welcome(None, now)
        else:
            self._store.save_user(user, welcome)

    def _welcome(
        self,
        session: Session,
        user: User,
        hello: Hello,
        renamed: bool,
        failure: str | None,
        now: float,
    ) -> None:
        """Greet the device of a user who is known durably, and tell it what it missed."""
        if failure is not None:
            if user.display_name == hello.display_name:
                user.display_name = user.stored_name
                if user.sessions:
                    self._presence.named(user)
            self._fail(session, "the server can't store anything now", now)
            self._users.idle.note(user, now)
            return
        if user.deleted:
            self._fail(session, _DELETION_REASON, now)
            return
        user.stored_name = hello.display_name
        # Another HELLO may be on its way with another name.
        user.durable = user.display_name == hello.display_name
        if renamed:
            self._chats.send_new_name(user, now)
        if user.banned:
            self._refuse_banned(session, user, now)  # meanwhile
            return
        if session.closed:
            # Too late to greet, but what the client sent is still done, if it was the client who left.
            session.user = user
            session.use(hello.capabilities)
            if user.sessions:
                self._presence.named(user)
            self._users.idle.note(user, now)
            session.continue_later(EVERYTHING)
            return
        first = session.user is None
        if first and len(user.sessions) >= DEVICES_MAX and not self._replace_device(user, now):
            reason = f"this user has {DEVICES_MAX} connections already"
            session.close(CloseCode.TRY_AGAIN_LATER, reason, now)
            return
        session.use(hello.capabilities)
        session.presence_changes = {} if Capability.PRESENCE_DELTA in session.capabilities else None
        resumed: str = Resumed.FULL
        if first or hello.cursor is not None:
            resumed = self._delivery.start(user, session, hello.cursor)
        if first:
            if not user.sessions:
                user.here_since = self._clock.timestamp()
                if user.hook_calls is not None:
                    self._hook_calls.back(user)
            session.user = user
            user.sessions.append(session)
        user.devices_changed()
        scope = None if session.presence_changes is None else self._presence.scope
        if session.resumes:
            cursor = user.mailbox.cursor(session.cursor)
            ack = codec.hello_ack(user.user_id, hello.capabilities, cursor, resumed, scope)
        else:
            ack = codec.hello_ack(user.user_id, hello.capabilities, scope=scope)
        session.connection.send(ack)
        self._presence.attach(user, session, now)
        if first:
            self._delivery.announce_missed(user, session)
            if user.blocks is not None:
                self._blocks.compare(user)
        self._delivery.pump(user, session, now)
        session.continue_later(EVERYTHING)

    def _fail(self, session: Session, reason: str, now: float) -> None:
        """Note that nobody can be greeted now: the store has failed, or the user is being deleted."""
        if not session.closed:
            session.close(CloseCode.TRY_AGAIN_LATER, reason, now)

    def _refuse_banned(self, session: Session, user: User, now: float) -> None:
        """Tell a client whose user is banned (D36), and close its connection."""
        refusal = Refusal(ErrorCode.UNAUTHORIZED, "this user is banned", field="user_id", reason="banned")
        session.refuse_later(refusal, MessageType.HELLO, None, now)
        if not session.closed:
            session.close(CloseCode.BANNED, BAN_REASON, now)
        self._users.idle.note(user, now)

    def _replace_device(self, user: User, now: float) -> bool:
        """Close the device that has been silent longest, if that is long enough; whether there was one (D4)."""
        silent = min(user.sessions, key=lambda session: session.connection.last_heard)
        if now - silent.connection.last_heard < DEVICE_SILENT:
            return False
        reason = "replaced by a newer connection of the same user"
        silent.close(CloseCode.REPLACED, reason, now)
        return True
