"""One user as the owning shard knows it: name, devices, chats, mailbox with messages, and what counts against the limits.

`User`, `Message` and `Device`, which is the base of ``core.chat.session.Session``, stand in one file since they refer to one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core.chat.announcements import Announcements
from core.chat.chat import UNCOUNTED, Block, Chat, HookCall
from core.chat.mailbox import Entry, Mailbox
from core.chat.ports import Connection
from core.chat.ratelimit import SlidingWindow
from core.chat.windows import LISTS, RareWindows, ServiceWindows
from core.process.settings import Settings
from core.wire.protocol import Capability

if TYPE_CHECKING:
    from core.chat.envelope import Record

#: No capabilities, once for all connections.
_NONE: Final[frozenset[str]] = frozenset()
#: How many limits there are besides `LISTS`.
_OFTEN: Final = 6
#: Where the limits of backends begin in `User.counted`. So many places are for those of people, also for some to come: what another version
#: has counted is not to be taken for something else.
_SERVICE_AT: Final = 32


class Message(Entry):
    """One message for one recipient."""

    __slots__ = ("deadline", "frame", "original", "receipts", "user", "waiting", "withheld")

    def __init__(
        self,
        user: User,
        chat: Chat,
        message_id: str,
        frame: bytes,
        receipts: bool = False,
        lamport: int = 0,
        deadline: float = 0.0,
    ) -> None:
        #: The recipient, and the recipient's record of the chat.
        self.user = user
        self.chat = chat
        self.sender = chat.peer
        self.message_id = message_id
        #: The finished MSG frame, as a plain device of the recipient gets it.
        self.frame = frame
        self.seq = 0
        self.lamport = lamport
        #: Whether the sender wants to know when it is delivered and read (D11).
        self.receipts = receipts
        #: Whether the recipient has blocked the sender: then it has no position, and only the sender ever sees it (D32).
        self.withheld = False
        # -- Until it is committed --
        #: When it must not be stored any more, on the monotonic clock (D26).
        self.deadline = deadline
        #: The records that are to be answered: the one that brought it, and its repeats that came meanwhile.
        self.waiting: list[Record] = []
        #: Set by the store instead of committing: the stored message of the same sender and id (D10).
        self.original: Message | None = None

    @property
    def read(self) -> bool:
        """Whether the recipient has read it (D31)."""
        return 0 < self.seq <= self.chat.read_through


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
        "_rare",
        "_service",
        "_settings",
        "acknowledges",
        "banned",
        "blocks",
        "chats",
        "deleted",
        "display_name",
        "durable",
        "hellos",
        "here_since",
        "hook_calls",
        "in_flight",
        "kept",
        "key",
        "last_close",
        "lists",
        "mailbox",
        "messages",
        "parked",
        "pins",
        "requests",
        "saved",
        "sessions",
        "stored_name",
        "summed_through",
        "unsaved_chats",
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
        #: Whether an operator has made this user, who is never forgotten then; and whether one has banned the user (D36).
        self.kept = False
        self.banned = False
        #: peer -> the chat, in the order in which they were opened.
        self.chats: dict[str, Chat] = {}
        #: Those that have changed in what may be stored a second later; None if there are none.
        self.unsaved_chats: dict[Chat, None] | None = None
        #: peer -> what stands between the two; None for nearly everybody.
        self.blocks: dict[str, Block] | None = None
        #: peer -> what the hook is told of the chat, while the user is away and something waits; else None (D33).
        self.hook_calls: dict[str, HookCall] | None = None
        self.mailbox: Mailbox[Message] = Mailbox(epoch)
        # -- For a minute (D23) --
        self._settings = settings
        self.messages = SlidingWindow(settings.messages_per_minute)
        self.hellos = SlidingWindow(settings.hellos_per_minute)
        self._rare: RareWindows | None = None
        self._service: ServiceWindows | None = None
        #: Requests that are not answered yet.
        self.requests = 0
        #: Messages among them, and those that needed no request: they will count against the limit, unless the other side refuses them.
        self.in_flight = 0
        #: Those that wait for messages in flight to be decided, since only then it is known whether one more is allowed.
        self.parked: list[Device] | None = None
        # -- While connected --
        #: The devices that have said HELLO.
        self.sessions: list[Device] = []
        #: When the first of them came, as a timestamp: since then messages have been sent of which the stored chats may not know.
        self.here_since = b""
        #: Whether one of them shows a list of chats (D30); see `devices_changed`.
        self.lists = False
        # -- While in memory --
        #: Whether the user is being deleted (D36): nothing is done for the connections that there were.
        self.deleted = False
        #: The last of them that went.
        self.last_close: Close | None = None
        # -- The store's notes --
        #: Its number for this record, 0 until it has given one; and whether the record has ever been committed.
        self.key = 0
        self.saved = False
        #: Messages up to this position are counted in the stored records of their chats.
        self.summed_through = 0
        #: Calls of the store about this user that are not finished: until they are, the user stays in memory.
        self.pins = 0

    @property
    def rare(self) -> RareWindows:
        """The limits of what most users of a crowd never do; made when they are needed."""
        if self._rare is None:
            self._rare = RareWindows(self._settings)
        return self._rare

    def save_later(self, chats: Iterable[Chat]) -> None:
        """Have these records stored with what is acknowledged next (`Store.save_acknowledged`)."""
        if self.unsaved_chats is None:
            self.unsaved_chats = {}
        # Not one that has been removed.
        self.unsaved_chats.update((chat, None) for chat in chats if self.chats.get(chat.peer) is chat)

    def written_in(self) -> list[Chat]:
        """Return the chats in which this user has written since the first device came."""
        since = self.here_since
        return [chat for chat in self.chats.values() if chat.active_at >= since] if since else []

    def purge(self, through: int) -> None:
        """Note that everything in the mailbox up to this position is gone. How much of it was unread is not known."""
        self.mailbox.purge(through)
        for chat in self.chats.values():
            if chat.unread > 0 and chat.read_through < through:
                chat.unread = 0 if chat.newest <= through else chat.unread + UNCOUNTED

    def devices_changed(self) -> None:
        """Note that `sessions`, or the capabilities of one of them, are others now."""
        self.lists = any(session.lists for session in self.sessions)

    def is_blocked(self, peer: str) -> bool:
        """Return whether this user has blocked the peer (D32)."""
        block = self.blocks.get(peer) if self.blocks is not None else None
        return block is not None and block.by_user

    def between(self, peer: str) -> Block:
        """Return what stands between this user and the peer; if neither has blocked the other, what one who does begins with."""
        block = self.blocks.get(peer) if self.blocks is not None else None
        if block is None:
            chat = self.chats.get(peer)
            block = Block(False, False, chat.read_through if chat is not None else 0)
        return block

    def set_block(self, peer: str, block: Block) -> None:
        """Set what stands between this user and the peer; nothing, if neither has blocked the other."""
        if block.by_user or block.by_peer:
            if self.blocks is None:
                self.blocks = {}
            self.blocks[peer] = block
        elif self.blocks is not None:
            self.blocks.pop(peer, None)
            self.blocks = self.blocks or None

    def is_apart(self, peer: str) -> bool:
        """Return whether one of the two has blocked the other: then neither sees what the other does (D32)."""
        return self.blocks is not None and peer in self.blocks

    @property
    def service(self) -> ServiceWindows:
        """The limits of this user's connections with ``role: "service"``, which hardly any user has; made when they are needed."""
        if self._service is None:
            self._service = ServiceWindows(self._settings)
        return self._service

    def messages_of(self, session: Device) -> SlidingWindow:
        """Return the limit that counts the messages of this connection."""
        return self.service.messages if session.service else self.messages

    def windows_of(self, session: Device) -> RareWindows | ServiceWindows:
        """Return the limits that count what else this connection does."""
        return self.service if session.service else self.rare

    def has_chat(self, peer: str) -> bool:
        """Return whether a chat with `peer` is open: a record that is not durable yet does not count."""
        chat = self.chats.get(peer)
        return chat is not None and chat.saved

    def counted(self, now: float) -> list[list[float]]:
        """Return what counts against each limit at present: when it was. Limits at the end that nothing counts against are left out."""
        windows = (*self._windows(), *self.rare.lists_in_order())
        counted = [[] if window is None else window.recent_times(now) for window in windows]
        of_service = [] if self._service is None else [each.recent_times(now) for each in self._service.all()]
        if any(of_service):
            counted += [[] for _ in range(_SERVICE_AT - len(counted))]
            counted += of_service
        while len(counted) > _OFTEN and not counted[-1]:
            del counted[-1]
        return counted

    def count_again(self, counted: list[list[float]]) -> None:
        """Count what `counted` of the same user has said, who was left to the store meanwhile."""
        # Another version may have had fewer limits, or more.
        for window, times in zip(self._windows(), counted, strict=False):
            window.count_all(times)
        for kind, times in zip(LISTS, counted[_OFTEN:_SERVICE_AT], strict=False):
            if times:
                self.rare.lists(kind).count_all(times)
        if len(counted) > _SERVICE_AT:
            for window, times in zip(self.service.all(), counted[_SERVICE_AT:], strict=False):
                window.count_all(times)

    def _windows(self) -> tuple[SlidingWindow, ...]:
        rare = self.rare
        return self.messages, rare.typing, rare.open_chats, self.hellos, rare.histories, rare.presences

    def export(self, timestamp: bytes) -> dict[str, Any]:
        """Return what a successor needs and the store does not have, but for what is `counted`; `timestamp` is now.

        Of what was heard only that is left which an answer could have to wait for. Nobody needs the rest unless the clock is set back.
        """
        return {
            "last_close": None if self.last_close is None else [*self.last_close],
            "heard_at": {
                peer: chat.heard_at.decode()
                for peer, chat in self.chats.items()
                if chat.heard_at >= timestamp
            },
            "here_since": self.here_since.decode(),
            "active_at": {chat.peer: chat.active_at.decode() for chat in self.written_in()},
            "receipts_due": [[seq, *message] for seq, message in self.mailbox.receipts_due.items()],
        }

    def restore(self, record: dict[str, Any]) -> None:
        """Take over what `export` has returned, for a user who has been loaded from the store."""
        close = record.get("last_close")
        if close is not None:
            self.last_close = Close(*close[:4])
        for peer, heard_at in record.get("heard_at", {}).items():
            if peer in self.chats:
                self.chats[peer].heard_at = heard_at.encode()
        self.here_since = record.get("here_since", "").encode()
        for peer, active_at in record.get("active_at", {}).items():
            if peer in self.chats:
                self.chats[peer].active_at = active_at.encode()
        due = record.get("receipts_due")
        if due:
            self.mailbox.receipts_due = {seq: (sender, message_id) for seq, sender, message_id in due}

    @property
    def is_stranger(self) -> bool:
        """Whether nothing would be missed if this user were forgotten (D23)."""
        return not (self.sessions or self.chats or self.blocks or self.kept or self.banned or self.busy)

    @property
    def busy(self) -> bool:
        """Whether something is on its way that will come back to this object, so that it must stay in memory."""
        return bool(self.pins or self.requests or self.in_flight)


class Device:
    """One connection of a user as those parts know it that write to it: delivery, presence and typing keep their notes here."""

    __slots__ = (
        "announcements",
        "awaits_page",
        "capabilities",
        "carbons",
        "chosen_by",
        "chosen_peer",
        "closed",
        "confirm_asked",
        "confirm_asked_at",
        "confirm_seq",
        "connection",
        "cursor",
        "furthest",
        "lists",
        "missed_through",
        "page",
        "presence_changes",
        "presence_full",
        "presence_revision",
        "presence_told",
        "receipts",
        "received_peer",
        "resumes",
        "service",
        "since",
        "typing_to",
        "user",
    )

    def __init__(self, connection: Connection, now: float) -> None:
        self.connection: Connection = connection
        #: None until HELLO has been accepted.
        self.user: User | None = None
        self.closed = False
        #: When the worker got the connection, on the monotonic clock.
        self.since = now
        #: Whether it is a backend's: a token says ``role: "service"`` (D34).
        self.service = False
        # -- Typing (D17) --
        #: The chat that this connection opened or wrote in last, and that of the last CHAT_OPENED or MSG it received.
        self.chosen_peer: str | None = None
        #: The ticket of the request by which it was chosen.
        self.chosen_by = -1
        self.received_peer: str | None = None
        #: Peers that were told that this connection is typing -> when it is typing no more, unless it says so again.
        self.typing_to: dict[str, float] | None = None
        # -- Delivery (D12) --
        #: Mailbox position up to which everything has been written to this connection; and the highest that it had before it
        #: resumed from an earlier one.
        self.cursor = 0
        self.furthest = 0
        #: Up to here it gets only what waits for an acknowledgement: the head when it came, 0 when it resumed.
        self.missed_through = 0
        #: Messages that the store has read for it, the next one last; and whether it waits for such a page.
        self.page: list[Message] = []
        self.awaits_page = False
        #: Position that the confirming ping on its way stands for (-1: none is), when it was sent, and what pongs have confirmed.
        self.confirm_asked = -1
        self.confirm_asked_at = -math.inf
        self.confirm_seq = 0
        #: The chats that it is being told about, if there are any (D7).
        self.announcements: Announcements | None = None
        # -- Capabilities, and some of them by name: they are looked at for every message --
        self.capabilities = _NONE
        self.receipts = False
        self.resumes = False
        self.carbons = False
        self.lists = False
        # -- Presence (D21, D22) --
        self.presence_told = -math.inf
        #: What `Presence` had changed up to when this connection was told; and whether the next PRESENCE must be the whole list.
        self.presence_revision = 0
        self.presence_full = True
        #: user -> name of those who changed since the last PRESENCE; None without the capability.
        self.presence_changes: dict[str, str] | None = None

    def use(self, capabilities: list[str] | None) -> None:
        """Put these capabilities in force, as the last HELLO asked."""
        self.capabilities = frozenset(capabilities) if capabilities else _NONE
        self.receipts = Capability.RECEIPTS in self.capabilities
        self.resumes = Capability.RESUME in self.capabilities
        self.carbons = Capability.CARBONS in self.capabilities
        self.lists = Capability.CHATS in self.capabilities

    def choose(self, peer: str, ticket: int) -> None:
        """Note that the client opened or wrote in the chat with `peer`, unless it has gone on to another one since (D17)."""
        if ticket > self.chosen_by:
            self.chosen_peer, self.chosen_by = peer, ticket

    def note_close(self, by: str, code: int, reason: str, now: float) -> None:
        """Remember for operators how the connection ends; called before `on_closed`."""
        if self.user is not None and not self.closed:
            self.user.last_close = Close(by, code, reason, now)

    def export(self) -> dict[str, Any]:
        """Return what a successor needs. Messages that were read for it and not written are read again."""
        told = self.announcements
        return {
            "since": self.since,
            "chosen_peer": self.chosen_peer,
            "received_peer": self.received_peer,
            "typing_to": self.typing_to,
            "cursor": self.cursor,
            "furthest": self.furthest,
            "missed_through": self.missed_through,
            "confirm_asked": self.confirm_asked,
            "confirm_asked_at": _finite(self.confirm_asked_at),
            "confirm_seq": self.confirm_seq,
            "announcements": None if told is None else told.export(),
            "capabilities": sorted(self.capabilities),
            "presence_told": _finite(self.presence_told),
            "presence_revision": self.presence_revision,
            "presence_full": self.presence_full,
            "presence_changes": self.presence_changes,
        }

    def restore(self, record: dict[str, Any]) -> None:
        """Take over what `export` has returned; `user` is set already.

        `chosen_by` stays lower than all tickets: no request is open that could choose an earlier chat, and those of the successor may have
        lower numbers than those of the predecessor.
        """
        self.since = record.get("since", self.since)
        self.chosen_peer = record.get("chosen_peer")
        self.received_peer = record.get("received_peer")
        self.typing_to = record.get("typing_to")
        self.cursor = record.get("cursor", 0)
        self.furthest = record.get("furthest", 0)
        self.missed_through = record.get("missed_through", 0)
        self.confirm_asked = record.get("confirm_asked", -1)
        self.confirm_asked_at = _time(record.get("confirm_asked_at"))
        self.confirm_seq = record.get("confirm_seq", 0)
        told = record.get("announcements")
        if told is not None and self.user is not None:
            self.announcements = Announcements()
            self.announcements.restore(told, self.user.chats)
        self.use(record.get("capabilities"))
        self.presence_told = _time(record.get("presence_told"))
        self.presence_revision = record.get("presence_revision", 0)
        self.presence_full = record.get("presence_full", True)
        self.presence_changes = record.get("presence_changes")

    @property
    def is_settled(self) -> bool:
        """Whether everything that the client has asked for is decided."""
        raise NotImplementedError

    def close(self, code: int, reason: str, now: float) -> None:
        """End the connection from this side."""
        raise NotImplementedError

    def continue_later(self, key: str) -> None:
        """Go on, at the end of this loop turn, with what waits in line for `key`."""
        raise NotImplementedError


def _finite(time: float) -> float | None:
    """Return a time as JSON can hold it: None for what has never been."""
    return None if time == -math.inf else time


def _time(finite: float | None) -> float:
    """Undo `_finite`."""
    return -math.inf if finite is None else finite
