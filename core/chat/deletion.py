"""Deleting a user while the server runs (D36): from the owner's shard to all shards, and back.

    delete: a durable note -> `_noted`: devices are closed, nobody finds the user any more -> nothing about the user is under way ->
    PURGE to all shards, this one included: they remove what the user sent, step by step -> PURGED from all ->
    what the user had goes, step by step, and with the last of it the note -> everybody who asked is answered

Whoever dies in between: a new process of the owner begins again from the note (`start`), and one of another shard, which asks everybody who
is online, is told again. Only the answer to the last PURGE counts, so none can arrive when the user has begun anew.

Steps are taken in ticks, some in each: so a process that is to be replaced comes to rest, and its successor goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from core.chat.chat import NO_BLOCK
from core.chat.envelope import Record, RecordKind
from core.chat.store import Found, Removed
from core.events import fields
from core.wire import codec
from core.wire.protocol import CloseCode

if TYPE_CHECKING:
    from core.chat.blocks import Blocks
    from core.chat.chat import Chat
    from core.chat.chat_lists import ChatLists
    from core.chat.exchange import Exchange
    from core.chat.presence import Presence
    from core.chat.store import Store
    from core.chat.typing import TypingIndicators
    from core.chat.user import Device, User
    from core.chat.users import Users

_log = logging.getLogger("fastchat.core")

#: What a client reads whose user is deleted.
DELETED_REASON: Final = "this user was deleted"
#: Seconds after which who asked is told that the deletion goes on. An operator's command waits 5 s for a worker.
PATIENCE: Final = 3.0
#: Steps in one tick. Each is a transaction of a few milliseconds, between which others commit.
_STEPS: Final = 16
#: Seconds until a step that the store could not do is tried again.
_AGAIN: Final = 1.0

#: Takes the answer: facts, or ``{"problem": sentence}``.
Tell = Callable[[dict[str, Any]], None]


class _Steps:
    """Calls the store step by step, at the pace of the ticks, until nothing is left."""

    __slots__ = ("_done", "_due", "_following", "_granted", "_runs", "_take", "chats", "messages")

    def __init__(
        self, take: Callable[[int, Found[Removed]], None], done: Callable[[Removed, bool, float], None]
    ) -> None:
        """`take` takes the step that begins there; `done` is told what a step has removed, and whether it was the last one."""
        self._take = take
        self._done = done
        self._following: int | None = 0
        #: When the next step may be taken, how many more before the next tick, and whether one is on its way.
        self._due = 0.0
        self._granted = 0
        self._runs = False
        #: How many have been removed.
        self.messages = 0
        self.chats = 0

    def tick(self, now: float) -> None:
        """Take the next steps."""
        if now >= self._due:
            self._granted = _STEPS
            self._next()

    def _next(self) -> None:
        if self._granted and not self._runs and self._following is not None:
            self._granted -= 1
            self._runs = True
            self._take(self._following, self._taken)

    def _taken(self, removed: Removed, failure: str | None, now: float) -> None:
        self._runs = False
        if failure is not None:
            self._due, self._granted = now + _AGAIN, 0
            return
        self.messages += removed.messages
        self.chats += removed.chats
        self._following = removed.following
        self._done(removed, removed.following is None, now)
        self._next()


class _Deletion:
    """A user of this shard who is being deleted."""

    __slots__ = ("asked", "closed", "noted", "sent", "steps", "user", "waiting")

    def __init__(self) -> None:
        #: Whether the note is durable.
        self.noted = False
        #: The user as memory knew it, until nothing about it is under way.
        self.user: User | None = None
        #: How many devices were closed, and how many messages all shards have removed.
        self.closed = 0
        self.sent = 0
        #: Worker -> the ticket of the last PURGE that it was sent and has not answered; None until they are told.
        self.waiting: dict[int, int] | None = None
        #: What removes the user's own.
        self.steps: _Steps | None = None
        #: (until when, who) waits for the answer.
        self.asked: list[tuple[float, Tell]] = []


class _Purge:
    """What this shard removes of a user, of whatever shard; `ticket` of that `worker` is to be answered."""

    __slots__ = ("steps", "ticket", "worker")

    def __init__(self, worker: int, ticket: int) -> None:
        self.worker = worker
        self.ticket = ticket
        #: None until memory has forgotten what it has, which comes before the first step.
        self.steps: _Steps | None = None


class Deletions:
    """The deletions of users of one shard, and what others ask it to remove."""

    __slots__ = (
        *("_blocks", "_counters", "_exchange", "_generations", "_lists", "_lost", "_open", "_presence"),
        *("_purges", "_store", "_typing", "_users"),
    )

    def __init__(
        self,
        users: Users,
        exchange: Exchange,
        store: Store,
        presence: Presence,
        typing: TypingIndicators,
        lists: ChatLists,
        blocks: Blocks,
        counters: dict[str, int],
    ) -> None:
        self._users = users
        self._exchange = exchange
        self._store = store
        self._presence = presence
        self._typing = typing
        self._lists = lists
        self._blocks = blocks
        self._counters = counters
        counters["deletions_total"] = 0
        #: Users of this shard, and of whom this shard removes something; both by user id.
        self._open: dict[str, _Deletion] = {}
        self._purges: dict[str, _Purge] = {}
        #: Worker -> the newest of its processes that has sent a PURGE: what an earlier one has sent came too late.
        self._generations: dict[int, int] = {}
        #: Workers that a PURGE did not reach, since the queue to them was full.
        self._lost: set[int] = set()
        users.loaded = self._loaded
        presence.asked = self._tell_again
        exchange.on(RecordKind.PURGE, 1, self._purge, lost=self._lost.add)
        # Who asks for presence is told again what it is to remove, and answers again.
        exchange.on(RecordKind.PURGED, 0, self._purged, body=True, lost=presence.owe)

    def __len__(self) -> int:
        """Return how many users of this shard are being deleted."""
        return len(self._open)

    def start(self) -> None:
        """Go on with what a process before has noted."""
        for user_id in self._store.deletions:
            if user_id not in self._open:
                _log.info("the deletion of a user goes on", extra=fields(user=user_id))
                deletion = self._open[user_id] = _Deletion()
                deletion.noted = True
                self._users.deleted.add(user_id)

    # -- At the owner's shard --

    def delete(self, user_id: str, tell: Tell, now: float) -> None:
        """Delete a user of this shard; `tell` is called once, when it is done, or with the state that it has after some seconds."""
        deletion = self._open.get(user_id)
        if deletion is None:
            deletion = self._open[user_id] = _Deletion()
            self._store.note_deletion(user_id, partial(self._noted, user_id))
        deletion.asked.append((now + PATIENCE, tell))

    def _noted(self, user_id: str, known: bool, failure: str | None, now: float) -> None:
        """Close the devices, and let nobody find the user any more."""
        deletion = self._open[user_id]
        if failure is not None or not known:
            del self._open[user_id]
            problem = {"problem": f"the store can't note the deletion: {failure}"}
            self._answer(deletion, {"user": user_id, "state": "unknown"} if failure is None else problem)
            return
        _log.info("a user is being deleted", extra=fields(user=user_id))
        deletion.noted = True
        self._users.deleted.add(user_id)
        self._close(user_id, deletion, now)

    def _close(self, user_id: str, deletion: _Deletion, now: float) -> None:
        user = self._users.known.pop(user_id, None)
        if user is not None:
            user.deleted = True
            deletion.user = user
            for session in list(user.sessions):
                deletion.closed += 1
                session.close(CloseCode.DELETED, DELETED_REASON, now)
        self._presence.remove(user_id)

    def tick(self, now: float) -> None:
        """Take the next steps, and tell those who have waited long enough."""
        if not (self._open or self._purges or self._lost):
            return
        while self._lost:
            self._tell_again(self._lost.pop())
        for purge in list(self._purges.values()):
            if purge.steps is not None:
                purge.steps.tick(now)
        for user_id, deletion in list(self._open.items()):
            self._advance(user_id, deletion, now)
            late = [tell for until, tell in deletion.asked if until <= now]
            deletion.asked = [(until, tell) for until, tell in deletion.asked if until > now]
            for tell in late:
                tell({"user": user_id, "state": "deleting"})

    def _advance(self, user_id: str, deletion: _Deletion, now: float) -> None:
        if not deletion.noted:
            return
        if deletion.waiting is None:
            # One that a predecessor has noted may have come with its devices.
            self._close(user_id, deletion, now)
            if deletion.user is not None and deletion.user.busy:
                return
            if deletion.user is not None:
                deletion.user.mailbox.let_go()
                deletion.user = None
            deletion.waiting = {}
            for worker in (self._exchange.index, *self._exchange.others):
                self._send(user_id, deletion.waiting, worker)
        elif not deletion.waiting:
            if deletion.steps is None:
                deletion.steps = _Steps(
                    partial(self._take_own, user_id), partial(self._own_step, user_id, deletion)
                )
            deletion.steps.tick(now)

    def _send(self, user_id: str, waiting: dict[int, int], worker: int) -> None:
        ticket = waiting[worker] = self._exchange.ticket()
        if worker == self._exchange.index:
            self._begin(user_id, worker, ticket)
        else:
            self._exchange.post(worker, RecordKind.PURGE, ticket, user_id.encode())

    def _tell_again(self, worker: int) -> None:
        """Tell a new process of another worker what it has to remove, or one that something did not reach."""
        for user_id, deletion in self._open.items():
            if deletion.waiting is not None and worker in deletion.waiting:
                self._send(user_id, deletion.waiting, worker)

    def _purged(self, record: Record, now: float) -> None:
        """Note that another shard has removed everything."""
        user_id, messages = codec.from_json(record.body)
        self._done(user_id, record.worker, record.ticket, messages)

    def _done(self, user_id: str, worker: int, ticket: int, messages: int) -> None:
        deletion = self._open.get(user_id)
        if deletion is None or deletion.waiting is None or deletion.waiting.get(worker) != ticket:
            return
        del deletion.waiting[worker]
        deletion.sent += messages

    def _take_own(self, user_id: str, following: int, done: Found[Removed]) -> None:
        self._store.purge_user(user_id, done)

    def _own_step(self, user_id: str, deletion: _Deletion, removed: Removed, last: bool, now: float) -> None:
        steps = deletion.steps
        if not last or steps is None:
            return
        del self._open[user_id]
        self._users.deleted.discard(user_id)
        self._counters["deletions_total"] += 1
        facts = {
            "received": steps.messages,
            "sent": deletion.sent,
            "chats": steps.chats,
            "closed": deletion.closed,
        }
        _log.info("a user is deleted", extra=fields(user=user_id, **facts))
        self._answer(deletion, {"user": user_id, "state": "deleted", **facts})

    def _answer(self, deletion: _Deletion, facts: dict[str, Any]) -> None:
        for _, tell in deletion.asked:
            tell(facts)

    # -- At every shard --

    def _purge(self, record: Record, now: float) -> None:
        if record.generation >= self._generations.get(record.worker, 0):
            self._generations[record.worker] = record.generation
            self._begin(record.texts[0], record.worker, record.ticket)

    def _begin(self, user_id: str, worker: int, ticket: int) -> None:
        purge = self._purges.get(user_id)
        if purge is not None:
            purge.worker, purge.ticket = worker, ticket
            return
        self._purges[user_id] = purge = _Purge(worker, ticket)
        self._users.deleted.add(user_id)
        # What has come from the user is decided before memory forgets it; nothing more comes.
        self._store.after_writes(partial(self._settled, user_id, purge))

    def _settled(self, user_id: str, purge: _Purge, failure: str | None, now: float) -> None:
        for user in list(self._users.known.values()):
            self._forget(user, user_id, now)
        take = partial(self._store.purge_sent, user_id)
        purge.steps = _Steps(take, partial(self._step, user_id, purge))

    def _step(self, user_id: str, purge: _Purge, removed: Removed, last: bool, now: float) -> None:
        for recipient, positions in removed.acknowledged:
            user = self._users.known.get(recipient)
            if user is not None:
                for seq in positions:
                    user.mailbox.acknowledge(seq)
        steps = purge.steps
        if not last or steps is None:
            return
        del self._purges[user_id]
        if purge.worker == self._exchange.index:
            self._done(user_id, purge.worker, purge.ticket, steps.messages)
            return
        self._users.deleted.discard(user_id)
        body = codec.to_json([user_id, steps.messages])
        self._exchange.post(purge.worker, RecordKind.PURGED, purge.ticket, body)

    def _loaded(self, user: User) -> None:
        """Forget what a user who comes into memory has of those who are being deleted, since the store may have it still."""
        for user_id in self._purges:
            self._forget(user, user_id, 0.0)

    def _forget(self, user: User, peer: str, now: float) -> None:
        """Forget all that `user`, who is in memory, has of a peer who is deleted, and show it no more."""
        was_apart, chat = user.is_apart(peer), user.chats.pop(peer, None)
        if was_apart:
            user.set_block(peer, NO_BLOCK)
        if user.hook_calls is not None:
            user.hook_calls.pop(peer, None)
        self._blocks.forget(user.user_id, peer)
        if chat is not None:
            self._forget_chat(user, chat)
        if was_apart or chat is not None:
            self._lists.removed(user, peer, now)

    def _forget_chat(self, user: User, chat: Chat) -> None:
        peer = chat.peer
        if user.unsaved_chats:
            user.unsaved_chats.pop(chat, None)
        user.mailbox.forget(peer)
        for session in user.sessions:
            _forget_on(session, peer)
            if session.announcements is not None:
                session.announcements.forget(chat)
        self._typing.end(user, peer)
        self._presence.unwatch(user.user_id, peer)


def _forget_on(session: Device, peer: str) -> None:
    """Write nothing more of the peer to a device, nor take TYPING for meant for the peer."""
    session.page = [message for message in session.page if message.sender != peer]
    if session.chosen_peer == peer:
        session.chosen_peer = None
    if session.received_peer == peer:
        session.received_peer = None
    if session.typing_to:
        session.typing_to.pop(peer, None)
