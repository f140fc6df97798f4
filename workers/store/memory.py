"""The store that keeps nothing beyond the process: objects in dictionaries. What a disk costs is measured against it.

It commits in the order of the calls and only in `flush`, once a loop turn, so that the core sees the same sequence of events as with a
store on disk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from core.chat.chat import Chat, HookCall
from core.chat.packed import Packed
from core.chat.store import EXPIRED, Covered, Done, Found, Listeners, Removed
from core.chat.user import Message, User
from core.process.settings import Settings
from core.wire.protocol import FORGET_AFTER, REPLAY_WINDOW_BYTES
from workers.store.memory_record import MemoryRecord

T = TypeVar("T")

#: Acknowledged messages that are kept for each mailbox, and withheld ones, and how many go at once when there are more.
ACKNOWLEDGED_KEPT: Final = 1000
_TRIM: Final = 250
#: Messages of which one call gives the senders, and which one call says are covered.
_SENDERS_MAX: Final = 4096
_COVERED_MAX: Final = 512
#: Mailboxes looked through in one turn for what is past, and seconds between two such turns, and between two rounds.
_SWEEP_RECORDS: Final = 100
_SWEEP_INTERVAL: Final = 0.1
_SWEEP_ROUND: Final = 10.0


class MemoryStore:
    """Implements ``core.chat.store.Store`` and ``workers.store.shard_store.ShardStore``. `listen` comes before everything else."""

    failure: str | None = None
    tracking: None = None

    def __init__(self, settings: Settings) -> None:
        self.deletions: list[str] = []
        self._settings = settings
        self._retention = settings.retention_days * 86_400
        self._listeners: Listeners
        self._records: dict[str, MemoryRecord] = {}
        #: Users without chats, and so without messages: name, whether they acknowledge, epoch, and when they were saved last. There may be
        #: a crowd of them, and most never come back.
        self._chatless = Packed()
        self._chatless_sweep = self._chatless.blocks()
        #: What was called since the last turn, in order: messages, and how to do and answer everything else.
        self._waiting: deque[Message | Callable[[float], None]] = deque()
        #: Users whose acknowledgements are to be saved.
        self._unsaved: dict[User, None] = {}
        #: (user, peer) -> what the hook is told.
        self._hook_calls: dict[tuple[str, str], HookCall] = {}
        #: When `flush` was called last.
        self._now = 0.0
        self._next_sweep = 0.0
        self._sweep: Iterator[str] = iter(())
        self._messages = 0

    def listen(self, listeners: Listeners) -> None:
        """Say who is told."""
        self._listeners = listeners

    def prepare_start(self) -> None:
        """Do nothing: there is nothing to load."""

    def start(self) -> None:
        """Do nothing: there is nothing to open."""

    def stats(self) -> dict[str, Any]:
        """Return its part of what the worker reports: without a disk there are no commits."""
        return {
            "store_rows_total": self._messages,
            "store_waiting": len(self._waiting),
            "store_failing": 0,
            "store_log_bytes": 0,
            "store_unfolded_rows": 0,
        }

    def hurry(self, hurries: bool) -> None:
        """Do nothing: nothing waits."""

    def begin_close(self, patience: float = 5.0) -> None:
        """Do nothing: `close` takes no time."""

    def close(self, patience: float = 5.0) -> None:
        """Do what was called."""
        while self._waiting:
            self._do_waiting(self._now)
        self._save_unsaved()

    # -- Writes: see core.chat.store.Store --

    def save_user(self, user: User, done: Done) -> None:
        self._write(user, lambda: self._seen(user), done)

    def save_chat(self, user: User, chat: Chat, done: Done) -> None:
        def save() -> None:
            self._record(user)
            chat.saved = True

        self._write(user, save, done)

    def append(self, message: Message) -> None:
        message.user.pins += 1
        self._waiting.append(message)

    def after_writes(self, done: Done) -> None:
        self._waiting.append(lambda now: done(None, now))

    def save_acknowledged(self, user: User, done: Done | None = None) -> None:
        # Mailbox and chats remember; the store only needs to know that this one can be trimmed, once a turn.
        if done is not None:
            self._write(user, lambda: self._acknowledged(user), done)
        elif user not in self._unsaved:
            user.pins += 1
            self._unsaved[user] = None

    def save_block(self, user: User, peer: str, done: Done) -> None:
        # The user remembers; but one who blocks, or is blocked, is nobody to be forgotten.
        self._write(user, lambda: self._seen(user), done)

    def save_hook_call(self, user: User, peer: str, done: Done) -> None:
        def save() -> None:
            self._record(user)
            call = (user.hook_calls or {}).get(peer)
            if call is None:
                self._hook_calls.pop((user.user_id, peer), None)
            else:
                self._hook_calls[user.user_id, peer] = call

        self._write(user, save, done)

    def forget(self, user_id: str) -> None:
        self._waiting.append(lambda now: self._forget(user_id))

    def note_deletion(self, user_id: str, done: Found[bool]) -> None:
        # Nothing outlives the process, so there is nobody to read a note.
        def answer(now: float) -> None:
            known = user_id in self._records or self._chatless.get(user_id) is not None
            done(known, None, now)

        self._waiting.append(answer)

    def purge_sent(self, sender: str, after: int, done: Found[Removed]) -> None:
        def remove(now: float) -> None:
            # All at once: it goes through users, not through their messages.
            self._drop_hook_calls(1, sender)
            steps = [record.remove(sender) for record in self._records.values() if record.has(sender)]
            acknowledged = [each for step in steps for each in step.acknowledged]
            done(Removed(acknowledged, sum(step.messages for step in steps), 0, None), None, now)

        self._waiting.append(remove)

    def purge_user(self, user_id: str, done: Found[Removed]) -> None:
        def remove(now: float) -> None:
            record = self._records.get(user_id)
            messages = [] if record is None else list(filter(None, record.messages))
            chats = 0 if record is None else len(record.user.chats)
            self._drop_hook_calls(0, user_id)
            self._forget(user_id)
            done(Removed([], len(messages), chats, None), None, now)

        self._waiting.append(remove)

    def _drop_hook_calls(self, which: int, user_id: str) -> None:
        """Remove the calls that are about a user (0) or of a user (1)."""
        for key in [key for key in self._hook_calls if key[which] == user_id]:
            del self._hook_calls[key]

    def _write(self, user: User, save: Callable[[], None], done: Done | None) -> None:
        def write(now: float) -> None:
            save()
            try:
                if done is not None:
                    done(None, now)
            finally:
                user.pins -= 1

        user.pins += 1
        self._waiting.append(write)

    # -- Reads: see core.chat.store.Store --

    def load(self, user_id: str, done: Found[User | None]) -> None:
        def answer(now: float) -> None:
            record = self._records.get(user_id)
            done(self._load_chatless(user_id) if record is None else record.user, None, now)

        self._waiting.append(answer)

    def find(self, user: User, sender: str | None, message_id: str, done: Found[list[Message]]) -> None:
        def find() -> list[Message]:
            record = self._record(user)
            senders = user.chats if sender is None else (sender,)
            found = (record.find(peer, message_id) for peer in senders)
            return sorted(
                (
                    message
                    for message in found
                    if message is not None and (sender is not None or not message.withheld)
                ),
                key=lambda found: found.seq,
            )

        self._read(user, find, done)

    def read(self, user: User, after: int, done: Found[list[Message]]) -> None:
        def read() -> list[Message]:
            record = self._record(user)
            start = end = record.behind(after)
            size = 0
            while end < len(record.messages) and size < REPLAY_WINDOW_BYTES:
                message = record.messages[end]
                size += len(message.frame) if message is not None else 0
                end += 1
            return list(filter(None, record.messages[start:end]))

        self._read(user, read, done)

    def senders(self, user: User, after: int, done: Found[list[tuple[int, Chat]]]) -> None:
        def read() -> list[tuple[int, Chat]]:
            record = self._record(user)
            start = record.behind(after)
            found = record.messages[start : start + _SENDERS_MAX]
            return [(message.seq, message.chat) for message in found if message is not None]

        self._read(user, read, done)

    def covered(self, user: User, chat: Chat, after: int, through: int, done: Found[Covered]) -> None:
        head = user.mailbox.head

        def read() -> Covered:
            record = self._record(user)
            behind = [
                message
                for message in record.messages[record.behind(after) :]
                if message is not None and message.chat is chat
            ]
            covered = [
                (message.seq, message.message_id, message.receipts)
                for message in behind
                if message.seq <= through
            ]
            beyond = sum(through < message.seq <= head for message in behind)
            return Covered(covered[:_COVERED_MAX], beyond)

        self._read(user, read, done)

    def messages_at(self, user: User, positions: list[int], done: Found[list[Message]]) -> None:
        def read() -> list[Message]:
            found = map(self._record(user).at, positions)
            return [message for message in found if message is not None]

        self._read(user, read, done)

    def lasts(self, sender: str, recipients: list[str], done: Found[dict[str, tuple[int, bytes]]]) -> None:
        def answer(now: float) -> None:
            found: dict[str, tuple[int, bytes]] = {}
            for recipient in recipients:
                record = self._records.get(recipient)
                sent = record.ids.get(sender) if record is not None else None
                if sent:
                    message = sent[next(reversed(sent))]
                    found[recipient] = (message.lamport, message.frame)
            done(found, None, now)

        self._waiting.append(answer)

    def history(
        self,
        user_id: str,
        peer: str,
        before: int | None,
        limit: int,
        done: Found[list[tuple[int, int, bytes]]],
        *,
        withheld: bool = False,
    ) -> None:
        def answer(now: float) -> None:
            found: list[tuple[int, int, bytes]] = []
            record = self._records.get(user_id)
            if record is not None:
                kept: Sequence[Message | None] = record.withheld if withheld else record.messages
                for message in reversed(kept[: record.end(kept, before)]):
                    if len(found) == limit:
                        break
                    if message is not None and message.sender == peer:
                        found.append((message.seq or message.lamport, message.lamport, message.frame))
            done(found, None, now)

        self._waiting.append(answer)

    def hook_calls_due(self, before: int, limit: int, done: Found[list[tuple[str, str]]]) -> None:
        def answer(now: float) -> None:
            due = sorted(
                (call.due, key)
                for key, call in self._hook_calls.items()
                if call.due is not None and call.due <= before
            )
            done([key for _, key in due[:limit]], None, now)

        self._waiting.append(answer)

    def hook_calls_pending(self, done: Found[tuple[int, int]]) -> None:
        def answer(now: float) -> None:
            pending = [call.since for call in self._hook_calls.values() if call.due is not None]
            done((len(pending), min(pending, default=0)), None, now)

        self._waiting.append(answer)

    def untold(self, after: int, done: Found[tuple[int, list[str]]]) -> None:
        def answer(now: float) -> None:
            some = list(islice(self._records.values(), after, after + _SWEEP_RECORDS))
            untold = [record.user.user_id for record in some if self._is_untold(record)]
            done((after + len(some) if some else 0, untold), None, now)

        self._waiting.append(answer)

    def _is_untold(self, record: MemoryRecord) -> bool:
        user = record.user
        return any(
            message is not None
            and not (user.mailbox.is_acknowledged(message.seq) or message.chat.muted)
            and (user.user_id, message.sender) not in self._hook_calls
            for message in record.messages
        )

    def _read(self, user: User, read: Callable[[], T], done: Found[T]) -> None:
        def answer(now: float) -> None:
            try:
                done(read(), None, now)
            finally:
                user.pins -= 1

        user.pins += 1
        self._waiting.append(answer)

    # -- The end of a loop turn --

    def flush(self, now: float) -> bool:
        """Do what was called in this loop turn, telling everybody concerned; whether more was called meanwhile."""
        self._now = now
        if now >= self._next_sweep:
            self._scan(now)
        self._do_waiting(now)
        self._save_unsaved()
        return bool(self._waiting)

    def _save_unsaved(self) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        for user in unsaved:
            user.pins -= 1
            self._acknowledged(user)

    def _do_waiting(self, now: float) -> None:
        """Do everything that waits now. Should a callback raise, a bug, the rest is done in the next turn."""
        waiting = self._waiting
        for _ in range(len(waiting)):
            if not waiting:
                return
            call = waiting.popleft()
            if not isinstance(call, Message):
                call(now)
                continue
            if 0.0 < call.deadline <= now:
                self._call_appended([call], EXPIRED, now)
                continue
            messages = [call]
            while waiting and isinstance(waiting[0], Message) and not 0.0 < waiting[0].deadline <= now:
                messages.append(waiting.popleft())  # type: ignore[arg-type]
            self._append(messages, now)

    def _append(self, messages: list[Message], now: float) -> None:
        for message in messages:
            record = self._record(message.user)
            message.chat.saved = True
            ids = record.ids.get(message.sender)
            if ids is None:
                ids = record.ids[message.sender] = {}
            stored = ids.setdefault(message.message_id, message)
            if stored is not message:
                message.original = stored
                continue
            self._messages += 1
            if message.withheld:
                record.withheld.append(message)
                record.withheld_at.append(now)
                if len(record.withheld) > ACKNOWLEDGED_KEPT + _TRIM:
                    record.drop_withheld(_TRIM)
            else:
                record.messages.append(message)
                record.stored_at.append(now)
        self._call_appended(messages, None, now)

    def _call_appended(self, messages: list[Message], failure: str | None, now: float) -> None:
        try:
            self._listeners.appended(messages, failure, now)
        finally:
            for message in messages:
                message.user.pins -= 1

    def _record(self, user: User) -> MemoryRecord:
        record = self._records.get(user.user_id)
        if record is None:
            record = self._records[user.user_id] = MemoryRecord(user)
            self._chatless.pop(user.user_id)
            user.saved = True
        return record

    def _seen(self, user: User) -> None:
        record = self._records.get(user.user_id)
        if (
            user.chats
            or user.blocks
            or user.kept
            or user.banned
            or user.hook_calls
            or (record is not None and record.messages)
        ):
            self._record(user)
            return
        self._records.pop(user.user_id, None)
        self._chatless[user.user_id] = [user.display_name, user.acknowledges, user.mailbox.epoch, self._now]
        user.saved = True

    def _load_chatless(self, user_id: str) -> User | None:
        kept = self._chatless.get(user_id)
        if kept is None:
            return None
        name, acknowledges, epoch, _ = kept
        user = User(user_id, name, self._settings, epoch)
        user.acknowledges, user.saved = acknowledges, True
        return user

    def _acknowledged(self, user: User) -> None:
        record = self._record(user)
        user.mailbox.unsaved_ahead = None
        user.unsaved_chats = None
        surplus = user.mailbox.acknowledged_through + 1 - record.first - ACKNOWLEDGED_KEPT
        if surplus > 0:
            self._listeners.purged([(user.user_id, record.drop(surplus + _TRIM))], self._now)

    def _forget(self, user_id: str) -> None:
        self._records.pop(user_id, None)
        self._chatless.pop(user_id)

    # -- Retention and strangers --

    def _scan(self, now: float) -> None:
        """Look through some of the records; a round through all takes some turns."""
        purged: list[tuple[str, int]] = []
        self._next_sweep = now + _SWEEP_INTERVAL
        user_ids = list(islice(self._sweep, _SWEEP_RECORDS))
        chatless: list[tuple[str, Any]] = []
        for block in self._chatless_sweep:
            chatless += block
            if len(chatless) >= _SWEEP_RECORDS:
                break
        if not user_ids and not chatless:
            self._sweep, self._chatless_sweep = iter(list(self._records)), self._chatless.blocks()
            self._next_sweep = now + _SWEEP_ROUND
        for user_id in user_ids:
            record = self._records.get(user_id)
            if record is None or not self._retention:
                continue
            record.drop_withheld(bisect_right(record.withheld_at, now - self._retention))
            past = bisect_right(record.stored_at, now - self._retention)
            if past:
                purged.append((user_id, record.drop(past)))
        forgotten = now - FORGET_AFTER
        strangers = [user_id for user_id, (*_, seen_at) in chatless if seen_at < forgotten]
        if purged:
            self._listeners.purged(purged, now)
        if strangers:
            self._listeners.strangers(strangers, now)
