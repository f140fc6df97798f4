"""Who is online, on all shards: the one fact that every worker has a copy of.

Each worker announces the joins and leaves of its own users as numbered versions. The others apply them in order; a gap in the numbers
or a new generation of the process makes them ask for a snapshot. A user who leaves, or whose worker dies, stays online for a grace
period, so a reconnect is not seen by anyone (D21), and nobody stays a ghost (D22).

Sessions are told at most once a second, by `tick`. Up to 200 users online everybody sees everybody; above, each sees the people it has
a chat with, and a change costs as much as the user who changed has chats. Clients with `presence_delta` are told which of the two it is,
and may ask after people with whom they have a chat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from core.chat.envelope import Record, RecordKind
from core.chat.exchange import Exchange
from core.chat.presence_records import NOTHING_KNOWN, Replica
from core.chat.ratelimit import rate_limited
from core.chat.stalls import later
from core.wire import codec
from core.wire.protocol import (
    PRESENCE_EVERYONE_AGAIN,
    PRESENCE_EVERYONE_MAX,
    PRESENCE_GRACE,
    PRESENCE_INTERVAL,
    PRESENCE_SHED_BYTES,
    MessageType,
    Scope,
)

if TYPE_CHECKING:
    from core.chat.user import Device, User
    from core.process.settings import Settings


class Presence:
    """The presence of one shard (D21)."""

    __slots__ = (
        *("_changed", "_dirty", "_everyone", "_exchange", "_frames", "_joined"),
        *("_leaving", "_left", "_limit", "_local", "_mode", "_online"),
        *("_owed", "_replicas", "_revision", "_sessions", "_version", "_watchers", "asked", "owe", "shed"),
    )

    def __init__(self, settings: Settings, exchange: Exchange) -> None:
        #: everyone, contacts, or auto.
        self._mode = settings.presence
        self._limit = settings.presence_per_minute
        self._exchange = exchange
        #: user -> display name: everyone who is online, here and elsewhere.
        self._online: dict[str, str] = {}
        #: Those of them who live here.
        self._local: dict[str, User] = {}
        self._replicas = {worker: Replica() for worker in exchange.others}
        #: user -> when to announce the leave; the grace is the same for all, so the order of entry is the order of expiry.
        self._leaving: dict[str, float] = {}
        # -- Not yet published to the other workers --
        self._version = 0
        self._joined: dict[str, str] = {}
        self._left: set[str] = set()
        #: Workers that a record did not reach, since the queue to them was full: they need a snapshot, and may owe us one.
        self._owed: set[int] = set()
        # -- Who is to be told --
        #: Whether everybody sees everybody now.
        self._everyone = self._mode != "contacts"
        #: Users (with their last name) who changed since the last tick, for sessions that see everybody.
        self._changed: dict[str, tuple[str, int]] = {}
        #: Counts the changes, so that a session that was told just now is not told again.
        self._revision = 0
        #: All sessions here, and those who must be told; dictionaries for their order.
        self._sessions: dict[Device, None] = {}
        self._dirty: dict[Device, None] = {}
        #: peer -> users who are online here and have a chat with that peer.
        self._watchers: dict[str, set[str]] = {}
        #: How often a session was not told, since it does not keep up.
        self.shed = 0
        #: scope that it says -> the PRESENCE frame of everyone, until somebody changes.
        self._frames: dict[str | None, bytes] = {}
        #: Is told which worker has asked for a snapshot: its process may be a new one.
        self.asked: Callable[[int], None] | None = None
        #: Notes that something did not reach a worker: the two tell each other everything again.
        self.owe = self._owed.add
        exchange.on(RecordKind.PRESENCE, 0, self._changes, body=True, lost=self.owe)
        exchange.on(RecordKind.PRESENCE_SNAPSHOT, 0, self._snapshot, body=True, lost=self.owe)
        exchange.on(RecordKind.PRESENCE_REQUEST, 0, self._requested, body=True, lost=self.owe)

    def start(self) -> None:
        """Tell the other workers that this process is a new one, and ask who is online with them."""
        for worker in self._exchange.others:
            self._introduce(worker)

    # -- What the shard tells --

    def attach(self, user: User, session: Device, now: float) -> None:
        """Note that a device of `user` has said HELLO (again): tell it who is online, and the others if that is news."""
        self._leaving.pop(user.user_id, None)
        if user.user_id not in self._local:
            self._enter(user)
            if user.user_id in self._online:  # `lost`: the others have a snapshot without this user
                self._joined[user.user_id] = user.display_name
        self.named(user)
        if session not in self._sessions:
            self._sessions[session] = None
            self._send(session, now, full=True)
        else:
            self._dirty[session] = None
            session.presence_full = True

    @property
    def unheard(self) -> int:
        """Other workers of which nothing is known yet: nothing has come from the processes that fill their places now."""
        return sum(replica.version == NOTHING_KNOWN for replica in self._replicas.values())

    def named(self, user: User) -> None:
        """Note that `user`, who has a connection, may have a new name."""
        if self._online.get(user.user_id) != user.display_name:
            self._joined[user.user_id] = user.display_name
            self._left.discard(user.user_id)
            self._came(user.user_id, user.display_name)

    def detach(self, user: User, session: Device, now: float) -> None:
        """Note that a device of `user` is gone; with the last one the grace begins."""
        self._sessions.pop(session, None)
        self._dirty.pop(session, None)
        if not user.sessions and user.user_id in self._local:
            self._leaving[user.user_id] = now + PRESENCE_GRACE

    def chat_opened(self, user: User, peer: str) -> None:
        """Note that a chat of `user` is durable, which may mean one contact more."""
        if user.user_id not in self._local:
            return
        watchers = self._watchers.setdefault(peer, set())
        if user.user_id in watchers:
            return
        watchers.add(user.user_id)
        if not self._everyone and peer in self._online:
            self._mark(user.user_id, peer, self._online[peer])

    def unwatch(self, user_id: str, peer: str) -> None:
        """Note that a user has no chat with a peer any more, or is not online here."""
        watchers = self._watchers.get(peer)
        if watchers is not None:
            watchers.discard(user_id)
            if not watchers:
                del self._watchers[peer]

    def remove(self, user_id: str) -> None:
        """Note that a user who lives here is gone for good, without the grace."""
        self._leaving.pop(user_id, None)
        if user_id in self._online or user_id in self._local:
            self._leave(user_id)

    def parted(self, user: User, peer: str) -> None:
        """Note that `user` and a peer do not see each other any more, or do again (D32)."""
        name = self._online.get(peer)
        if name is not None and user.user_id in self._local and (self._everyone or user.has_chat(peer)):
            for session in user.sessions:
                self._mark_session(session, peer, name)

    @property
    def scope(self) -> str:
        """Who is listed now."""
        return Scope.EVERYONE if self._everyone else Scope.CONTACTS

    def ask(self, session: Device, user: User, user_ids: list[str], now: float) -> None:
        """Handle PRESENCE from a client: tell it at once who of these is online, of those with whom `user` has a chat (D21).

        Of others it does not even learn whether they have ever been here. Raises Refusal beyond the limit of a minute (D23).
        """
        wait = user.rare.presences.retry_after(now)
        if wait:
            raise rate_limited(MessageType.PRESENCE, self._limit, wait)
        user.rare.presences.count(now)
        online = self._online
        entries = [
            (peer, online[peer], True)
            if peer in online and not user.is_apart(peer)
            else (peer, user.chats[peer].peer_name, False)
            for peer in dict.fromkeys(user_ids)
            if user.has_chat(peer)
        ]
        session.connection.send(codec.presence(entries, delta=True, scope=self.scope))

    def name_of(self, user_id: str) -> str | None:
        """Return the name of a user who is online."""
        return self._online.get(user_id)

    @property
    def sessions(self) -> int:
        """How many connections here have said HELLO."""
        return len(self._sessions)

    def __len__(self) -> int:
        return len(self._online)

    # -- What the other workers tell --

    def _changes(self, record: Record, now: float) -> None:
        """Take a PRESENCE record: joins and leaves."""
        replica, version = self._replicas[record.worker], record.ticket
        if record.generation != replica.generation or version != replica.version + 1:
            self._exchange.post(record.worker, RecordKind.PRESENCE_REQUEST)
            return
        replica.version = version
        joined, left = codec.from_json(record.body)
        for user_id, name in joined.items():
            self._replica_joined(replica, user_id, name)
        for user_id in left:
            replica.users.discard(user_id)
            self._leaving.pop(user_id, None)
            self._gone(user_id)

    def _snapshot(self, record: Record, now: float) -> None:
        """Take a PRESENCE_SNAPSHOT record: everyone online there. Those not in it are gone, after the grace if the process is a new one."""
        replica = self._replicas[record.worker]
        same = record.generation == replica.generation
        replica.generation, replica.version = record.generation, record.ticket
        users: dict[str, str] = codec.from_json(record.body)
        for user_id in replica.users.difference(users):
            if same and user_id not in self._leaving:
                replica.users.discard(user_id)
                self._gone(user_id)
            else:
                # Of an earlier process; a second snapshot of the new one does not cut the grace short.
                self._leaving.setdefault(user_id, now + PRESENCE_GRACE)
        for user_id, name in users.items():
            self._replica_joined(replica, user_id, name)

    def _requested(self, record: Record, now: float) -> None:
        """Take a PRESENCE_REQUEST record."""
        self.send_snapshot(record.worker)
        if self.asked is not None:
            self.asked(record.worker)

    def send_snapshot(self, worker: int) -> None:
        """Tell a worker that asks or that is new about everyone online here."""
        self.publish()
        users = {user_id: self._online[user_id] for user_id in self._local}
        self._exchange.post(worker, RecordKind.PRESENCE_SNAPSHOT, self._version, codec.to_json(users))

    def worker_gone(self, worker: int, generation: int, now: float) -> None:
        """Note that that process is dead: its users have the grace to come back to the next one."""
        replica = self._replicas[worker]
        if replica.generation == generation:
            replica.version = NOTHING_KNOWN
            for user_id in replica.users:
                self._leaving.setdefault(user_id, now + PRESENCE_GRACE)

    def publish(self) -> None:
        """Send what changed here to the other workers; called at the end of a loop turn."""
        if not self._joined and not self._left:
            return
        self._version += 1
        body = codec.to_json([self._joined, list(self._left)])
        self._exchange.broadcast(RecordKind.PRESENCE, self._version, body)
        self._joined, self._left = {}, set()

    # -- Time --

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the worker stood still: who left may be back already, and wait to be read (``core.chat.stalls``)."""
        for user_id, due in self._leaving.items():
            self._leaving[user_id] = later(due, seconds, now + PRESENCE_GRACE)

    def tick(self, now: float) -> None:
        """Announce those whose grace is over, and tell the sessions that are due."""
        gone = []
        for user_id, until in self._leaving.items():
            if until > now:
                break
            gone.append(user_id)
        for user_id in gone:
            del self._leaving[user_id]
            self._leave(user_id)
        self.mark_changes()
        self._switch_mode()
        due = [session for session in self._dirty if session.presence_told + PRESENCE_INTERVAL <= now]
        for session in due:
            if session.connection.unsent() > PRESENCE_SHED_BYTES:
                self._hold(session, now)
            else:
                del self._dirty[session]
                self._send(session, now, full=session.presence_full)
        while self._owed:
            self._introduce(self._owed.pop())
        # What is empty keeps the table that a crowd needed until it is cleared, or grows again.
        for table in (self._online, self._local, self._leaving, self._sessions, self._dirty):
            if not table:
                table.clear()
        for replica in self._replicas.values():
            if not replica.users:
                replica.users.clear()

    def mark_changes(self) -> None:
        """Note who must be told of the changes since the last time, while everybody sees everybody."""
        if self._everyone and self._changed:
            for session in self._sessions:
                if session.presence_revision != self._revision:
                    if session.user is not None and session.user.blocks is not None:
                        self._mark_changes_apart(session, session.user)
                        continue
                    self._dirty[session] = None
                    if session.presence_changes is not None:
                        told = session.presence_revision
                        session.presence_changes.update(
                            (user_id, name)
                            for user_id, (name, revision) in self._changed.items()
                            if revision > told
                        )
        self._changed.clear()

    def _mark_changes_apart(self, session: Device, user: User) -> None:
        """Do that for a user who does not see everybody (D32)."""
        for user_id, (name, revision) in self._changed.items():
            if revision > session.presence_revision and not user.is_apart(user_id):
                self._mark_session(session, user_id, name)

    # -- For a successor --

    @property
    def unpublished(self) -> int:
        """How many joins and leaves the other workers are not told yet."""
        return len(self._joined) + len(self._left)

    @property
    def owed(self) -> int:
        """How many workers have missed something, and are not told yet."""
        return len(self._owed)

    def export(self) -> dict[str, Any]:
        """Return what is known of everybody, with `unpublished` at 0. The users who live here come one by one (`restore_user`)."""
        return {
            "everyone": self._everyone,
            "online": self._online,
            "leaving": self._leaving,
            "replicas": [replica.export(worker) for worker, replica in self._replicas.items()],
            "changed": {user_id: [*change] for user_id, change in self._changed.items()},
            "revision": self._revision,
        }

    def restore(self, record: dict[str, Any]) -> None:
        """Take over what `export` has returned, before anything else has happened here."""
        if self._mode == "auto":
            self._everyone = record.get("everyone", True)
        self._online.update(record.get("online", {}))
        self._leaving.update(record.get("leaving", {}))
        for worker, *replica in record.get("replicas", ()):
            self._replicas[worker].restore(*replica)
        for user_id, (name, revision) in record.get("changed", {}).items():
            self._changed[user_id] = name, revision
        self._revision = record.get("revision", 0)

    def locals(self) -> list[User]:
        """Return the users who live here and are online, or have the grace to come back."""
        return list(self._local.values())

    def is_due(self, session: Device) -> bool:
        """Return whether a session is to be told that somebody came, went or changed the name."""
        return session in self._dirty

    def restore_user(self, user: User, due: list[Device], now: float) -> None:
        """Note that a user lives here, with the devices that the predecessor had; `due` are those that are to be told something.

        Nobody is told that this user came. Whose devices have all been lost on the way has the grace from now on.
        """
        self._enter(user)
        self._online.setdefault(user.user_id, user.display_name)
        for session in user.sessions:
            self._sessions[session] = None
        for session in due:
            self._dirty[session] = None
        if not user.sessions:
            self._leaving.setdefault(user.user_id, now + PRESENCE_GRACE)

    def lost(self, user_id: str, now: float) -> None:
        """Note that a user of the predecessor, who lives here, can't be loaded: the grace begins, here as with the other workers."""
        if user_id in self._online:
            self._leaving.setdefault(user_id, now + PRESENCE_GRACE)

    # -- Inside --

    def _enter(self, user: User) -> None:
        """Note that a user lives here, and whom that user has a chat with."""
        self._local[user.user_id] = user
        for peer, chat in user.chats.items():
            if chat.saved:
                self._watchers.setdefault(peer, set()).add(user.user_id)

    def _introduce(self, worker: int) -> None:
        """Tell a worker who is online here, and ask who is there."""
        self.send_snapshot(worker)
        self._exchange.post(worker, RecordKind.PRESENCE_REQUEST)

    def _hold(self, session: Device, now: float) -> None:
        """Tell a session that does not keep up later, and then how things are by then (D29)."""
        self.shed += 1
        session.presence_told = now
        changes = session.presence_changes
        if changes is not None and len(changes) > len(self._online):
            changes.clear()
            session.presence_full = True

    def _leave(self, user_id: str) -> None:
        user = self._local.pop(user_id, None)
        if user is not None:
            self._joined.pop(user_id, None)
            self._left.add(user_id)
            for peer in user.chats:
                self.unwatch(user_id, peer)
        else:
            for replica in self._replicas.values():
                replica.users.discard(user_id)
        self._gone(user_id)

    def _replica_joined(self, replica: Replica, user_id: str, name: str) -> None:
        replica.users.add(user_id)
        self._leaving.pop(user_id, None)
        if self._online.get(user_id) != name:
            self._came(user_id, name)

    def _came(self, user_id: str, name: str) -> None:
        self._online[user_id] = name
        self._note(user_id, name)

    def _gone(self, user_id: str) -> None:
        name = self._online.pop(user_id, None)
        if name is not None:
            self._note(user_id, name)

    def _note(self, user_id: str, name: str) -> None:
        """Find out who must be told that somebody came, went or changed the name."""
        self._frames.clear()
        self._revision += 1
        if self._everyone:
            self._changed[user_id] = (name, self._revision)
            return
        for watcher in self._watchers.get(user_id, ()):
            self._mark(watcher, user_id, name)
        if user_id in self._local:
            self._mark(user_id, user_id, name)

    def _mark(self, watcher: str, user_id: str, name: str) -> None:
        user = self._local[watcher]
        if not user.is_apart(user_id):
            for session in user.sessions:
                self._mark_session(session, user_id, name)

    def _mark_session(self, session: Device, user_id: str, name: str) -> None:
        if session in self._sessions:
            self._dirty[session] = None
            if session.presence_changes is not None:
                session.presence_changes[user_id] = name

    def _switch_mode(self) -> None:
        if self._mode != "auto":
            return
        most = PRESENCE_EVERYONE_MAX if self._everyone else PRESENCE_EVERYONE_AGAIN - 1
        everyone = len(self._online) <= most
        if everyone != self._everyone:
            self._everyone = everyone
            for session in self._sessions:
                self._dirty[session] = None
                session.presence_full = True

    def _send(self, session: Device, now: float, full: bool) -> None:
        """Send PRESENCE: the whole list, or what changed to a session that asked for that (D22)."""
        changes, user, online = session.presence_changes, session.user, self._online
        assert user is not None, "only sessions that have said HELLO are told"
        scope = None if changes is None else self.scope
        if full or changes is None:
            session.connection.send(self._full_frame(user, scope))
        else:
            entries = [
                (peer, name, peer in online and not user.is_apart(peer)) for peer, name in changes.items()
            ]
            session.connection.send(codec.presence(entries, delta=True, scope=scope))
        if changes:
            changes.clear()
        session.presence_full = False
        session.presence_revision = self._revision
        session.presence_told = now

    def _full_frame(self, user: User, scope: str | None) -> bytes:
        if not self._everyone:
            contacts = [peer for peer, chat in user.chats.items() if chat.saved and not user.is_apart(peer)]
            return codec.presence(self._entries({user.user_id, *contacts}), scope=scope)
        if user.blocks is not None:
            seen = [peer for peer in self._online if peer not in user.blocks]
            return codec.presence(self._entries(seen), scope=scope)
        frame = self._frames.get(scope)
        if frame is None:
            frame = self._frames[scope] = codec.presence(self._entries(self._online), scope=scope)
        return frame

    def _entries(self, users: Iterable[str]) -> list[tuple[str, str, bool]]:
        online = self._online
        return [(user, online[user], True) for user in users if user in online]
