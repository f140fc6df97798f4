"""A store for tests of the core: durable across a kill of its worker, and slow, or failing, when a test says so.

What is committed is kept as plain records, not as the core's objects, so whatever the core forgets to save is missing after `World.kill`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from core.chat.chat import UNCOUNTED, Block, Chat, HookCall
from core.chat.shard import Shard
from core.chat.store import Covered, Done, Found, Removed
from core.chat.user import Message, User
from core.wire import codec

#: Messages that one `read` brings: so few that tests need several pages.
PAGE = 7


#: Messages that one `covered` gives.
COVERED = 3


class Row(NamedTuple):
    """One stored message; one that is withheld has its Lamport count as its position."""

    seq: int
    sender: str
    message_id: str
    frame: bytes
    receipts: bool
    lamport: int


class ChatRow(NamedTuple):
    """One stored chat."""

    peer_name: str
    confirmed: bool
    written: bool
    active_at: bytes
    read_through: int
    unread: int
    hidden: bool
    muted: bool
    #: The head of the mailbox when this was stored: what came later is not counted.
    summed_through: int


class Record:
    """What is stored of one user."""

    def __init__(self) -> None:
        self.user: tuple[str, bool, str, bool, bool] = ("", False, "", False, False)
        self.chats: dict[str, ChatRow] = {}
        #: The objects that these were saved from: a second one for a chat would be a second row in a database.
        self.objects: dict[str, Chat] = {}
        self.rows: list[Row] = []
        self.withheld: list[Row] = []
        self.blocks: dict[str, Block] = {}
        self.hook_calls: dict[str, HookCall] = {}
        self.acknowledged: tuple[int, frozenset[int]] = (0, frozenset())
        self.purged_through = 0
        self.deleting = False

    def after(self, seq: int) -> list[Row]:
        """The messages behind a position."""
        return [row for row in self.rows if row.seq > seq]

    def is_untold(self) -> bool:
        """Whether a message waits in a chat that is not muted and of which no call of the hook knows."""
        through, ahead = self.acknowledged
        return any(
            row.sender not in self.hook_calls and not self.chats[row.sender].muted
            for row in self.after(max(through, self.purged_through))
            if row.seq not in ahead
        )


class _Write(NamedTuple):
    """Something to commit: what it is about (None for `after_writes`), how it is recorded, and who is told."""

    subject: Message | Chat | User | str | None
    user: User | None
    record: Callable[[], None] | None
    done: Done | None


class RecordingStore:
    """Commits in the order of the calls, in `flush`, as every store must."""

    def __init__(self, records: dict[str, Record] | None = None) -> None:
        self.records: dict[str, Record] = {} if records is None else records
        #: While it is set, nothing is committed, and a read waits for the writes before it.
        self.slow = False
        #: While it is set, nothing is read, though writes go on: a read may see more than what was called before it.
        self.slow_reads = False
        #: While it is set, whatever would be committed fails with this sentence; and what would be read.
        self.failure: str | None = None
        self.read_failure: str | None = None
        #: How many of the next writes fail, all others succeeding; and how many before those succeed.
        self.fail_next = 0
        self.spare_next = 0
        #: How many writes have failed.
        self.failures = 0
        #: What has been committed, oldest first; the users who were forgotten; and how many reads of each kind there were.
        self.committed: list[Message | Chat | User | str] = []
        self.forgotten: list[str] = []
        self.reads: list[str] = []
        self._queue: list[_Write | Callable[[float], None]] = []
        self._shard: Shard | None = None

    @property
    def deletions(self) -> list[str]:
        """Whose deletion has begun; read when a process starts."""
        return [user_id for user_id, record in self.records.items() if record.deleting]

    def listen(self, shard: Shard) -> None:
        self._shard = shard

    # -- Writes --

    def save_user(self, user: User, done: Done) -> None:
        self._write(user, user, lambda: self._save_user(user), done)

    def save_chat(self, user: User, chat: Chat, done: Done) -> None:
        self._write(chat, user, lambda: self._save_chat(user, chat), done)

    def append(self, message: Message) -> None:
        self._write(message, message.user, None, None)

    def after_writes(self, done: Done) -> None:
        self._write(None, None, None, done)

    def save_acknowledged(self, user: User, done: Done | None = None) -> None:
        self._write("acknowledged", user, lambda: self._save_acknowledged(user), done)

    def save_block(self, user: User, peer: str, done: Done) -> None:
        block = (user.blocks or {}).get(peer)

        def record() -> None:
            blocks = self._record(user).blocks
            blocks.pop(peer, None)
            if block is not None:
                blocks[peer] = block

        self._write("block", user, record, done)

    def save_hook_call(self, user: User, peer: str, done: Done) -> None:
        call = (user.hook_calls or {}).get(peer)

        def record() -> None:
            calls = self._record(user).hook_calls
            calls.pop(peer, None)
            if call is not None:
                calls[peer] = call

        self._write("hook call", user, record, done)

    def forget(self, user_id: str) -> None:
        def record() -> None:
            self.records.pop(user_id, None)
            self.forgotten.append(user_id)

        self._write("forgotten", None, record, None)

    def note_deletion(self, user_id: str, done: Found[bool]) -> None:
        known: list[bool] = []

        def record() -> None:
            known.append(user_id in self.records)
            if known[0]:
                self.records[user_id].deleting = True

        self._write(
            "deletion", None, record, lambda failure, now: done(bool(known and known[0]), failure, now)
        )

    def purge_sent(self, sender: str, after: int, done: Found[Removed]) -> None:
        removed = [Removed([], 0, 0, after)]
        self._write(
            "purged",
            None,
            lambda: removed.append(self._purge_sent(sender, after)),
            lambda failure, now: done(removed[-1], failure, now),
        )

    def purge_user(self, user_id: str, done: Found[Removed]) -> None:
        removed = [Removed([], 0, 0, 0)]
        self._write(
            "purged",
            None,
            lambda: removed.append(self._purge_user(user_id)),
            lambda failure, now: done(removed[-1], failure, now),
        )

    def _purge_sent(self, sender: str, after: int) -> Removed:
        """Take one message away, or a chat without any, of the user with this number."""
        users = list(self.records)
        if after >= len(users):
            return Removed([], 0, 0, None)
        user_id, record = users[after], self.records[users[after]]
        through, ahead = record.acknowledged
        for rows in (record.rows, record.withheld):
            for index, row in enumerate(rows):
                if row.sender != sender:
                    continue
                if rows is record.withheld:
                    del rows[index]
                    return Removed([], 1, 0, after)
                rows[index] = Row(row.seq, "", "", b"", False, row.lamport)
                waits = row.seq > through and row.seq not in ahead
                record.acknowledged = through, ahead | {row.seq}
                return Removed([(user_id, [row.seq])] if waits else [], 1, 0, after)
        record.chats.pop(sender, None)
        record.objects.pop(sender, None)
        record.blocks.pop(sender, None)
        return Removed([], 0, 0, after + 1)

    def _purge_user(self, user_id: str) -> Removed:
        record = self.records.get(user_id)
        if record is None:
            return Removed([], 0, 0, None)
        if record.rows:
            row = record.rows.pop(0)
            record.purged_through = row.seq
            return Removed([], int(bool(row.sender)), 0, 1)
        del self.records[user_id]
        return Removed([], 0, len(record.chats), None)

    def _write(
        self,
        subject: Message | Chat | User | str | None,
        user: User | None,
        record: Callable[[], None] | None,
        done: Done | None,
    ) -> None:
        if user is not None:
            user.pins += 1
        self._queue.append(_Write(subject, user, record, done))

    # -- Reads --

    def load(self, user_id: str, done: Found[User | None]) -> None:
        self._read("load", done, lambda: self._load(user_id), None)

    def find(self, user: User, sender: str | None, message_id: str, done: Found[list[Message]]) -> None:
        def find() -> list[Message]:
            record = self._record(user)
            withheld = [] if sender is None else record.withheld
            return [
                self._message(user, row, row in withheld)
                for row in (*record.rows, *withheld)
                if row.message_id == message_id and sender in (None, row.sender) and row.sender in user.chats
            ]

        user.pins += 1
        self._read("find", done, find, [], user)

    def read(self, user: User, after: int, done: Found[list[Message]]) -> None:
        def read() -> list[Message]:
            rows = [row for row in self._record(user).after(after) if row.sender][:PAGE]
            return [self._message(user, row) for row in rows]

        user.pins += 1
        self._read("read", done, read, [], user)

    def senders(self, user: User, after: int, done: Found[list[tuple[int, Chat]]]) -> None:
        def read() -> list[tuple[int, Chat]]:
            rows = self._record(user).after(after)[:PAGE]
            return [(row.seq, user.chats[row.sender]) for row in rows if row.sender in user.chats]

        user.pins += 1
        self._read("senders", done, read, [], user)

    def covered(self, user: User, chat: Chat, after: int, through: int, done: Found[Covered]) -> None:
        head = user.mailbox.head

        def read() -> Covered:
            rows = [row for row in self._record(user).after(after) if row.sender == chat.peer]
            messages = [(row.seq, row.message_id, row.receipts) for row in rows if row.seq <= through]
            return Covered(messages[:COVERED], sum(through < row.seq <= head for row in rows))

        user.pins += 1
        self._read("covered", done, read, Covered([], 0), user)

    def messages_at(self, user: User, positions: list[int], done: Found[list[Message]]) -> None:
        def read() -> list[Message]:
            rows = [row for row in self._record(user).rows if row.seq in positions]
            return [self._message(user, row) for row in rows if row.sender in user.chats]

        user.pins += 1
        self._read("messages_at", done, read, [], user)

    def lasts(self, sender: str, recipients: list[str], done: Found[dict[str, tuple[int, bytes]]]) -> None:
        def read() -> dict[str, tuple[int, bytes]]:
            found: dict[str, tuple[int, bytes]] = {}
            for recipient in recipients:
                record = self.records.get(recipient, Record())
                rows = [row for row in (*record.rows, *record.withheld) if row.sender == sender]
                if rows:
                    last = max(rows, key=lambda row: row.lamport)
                    found[recipient] = (last.lamport, last.frame)
            return found

        self._read("lasts", done, read, {})

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
        def read() -> list[tuple[int, int, bytes]]:
            record = self.records.get(user_id, Record())
            rows = record.withheld if withheld else record.rows
            found = [
                (row.seq, row.lamport, row.frame)
                for row in reversed(rows)
                if row.sender == peer and (before is None or row.seq < before)
            ]
            return found[:limit]

        self._read("history", done, read, [])

    def hook_calls_due(self, before: int, limit: int, done: Found[list[tuple[str, str]]]) -> None:
        def read() -> list[tuple[str, str]]:
            due = [
                (call.due, user_id, peer)
                for user_id, record in self.records.items()
                for peer, call in record.hook_calls.items()
                if call.due is not None and call.due <= before
            ]
            return [(user_id, peer) for _, user_id, peer in sorted(due)[:limit]]

        self._read("hook_calls_due", done, read, [])

    def hook_calls_pending(self, done: Found[tuple[int, int]]) -> None:
        def read() -> tuple[int, int]:
            calls = [call for record in self.records.values() for call in record.hook_calls.values()]
            since = [call.since for call in calls if call.due is not None]
            return len(since), min(since, default=0)

        self._read("hook_calls_pending", done, read, (0, 0))

    def untold(self, after: int, done: Found[tuple[int, list[str]]]) -> None:
        def read() -> tuple[int, list[str]]:
            some = sorted(self.records.items())[after : after + PAGE]
            return (after + PAGE if some else 0), [user_id for user_id, record in some if record.is_untold()]

        self._read("untold", done, read, (after, []))

    def _read(
        self,
        name: str,
        done: Found[Any],
        find: Callable[[], Any],
        nothing: Any,
        user: User | None = None,
    ) -> None:
        def answer(now: float) -> None:
            self.reads.append(name)
            if self.read_failure is None:
                done(find(), None, now)
            else:
                done(nothing, self.read_failure, now)
            if user is not None:
                user.pins -= 1

        self._queue.append(answer)

    # -- The end of a loop turn --

    @property
    def waiting(self) -> bool:
        """Whether there is something to do."""
        return bool(self._queue)

    def commit_one(self, now: float) -> None:
        """Do only the first thing that was asked for, as the batch of a store ends anywhere."""
        rest, self._queue = self._queue[1:], self._queue[:1]
        slow, self.slow = self.slow, False
        self.flush(now)
        self.slow = slow
        self._queue += rest

    def flush(self, now: float) -> bool:
        """Do, or fail, what was asked for; whether there was anything that could be done."""
        assert self._shard is not None, "listen() comes first"
        queue, self._queue = self._queue, []
        if self.slow_reads:
            self._queue = [work for work in queue if not isinstance(work, _Write)]
            queue = [work for work in queue if isinstance(work, _Write)]
        if self.slow:
            first = next((index for index, work in enumerate(queue) if isinstance(work, _Write)), len(queue))
            self._queue[:0] = queue[first:]
            del queue[first:]
        batch: list[Message] = []
        batch_failure: str | None = None
        for work in [*queue, None]:
            failure: str | None = None
            if isinstance(work, _Write):
                failure = self._commit(work, now)
            message = work.subject if isinstance(work, _Write) else None
            if batch and (not isinstance(message, Message) or failure != batch_failure):
                self._appended(batch, batch_failure, now)
                batch = []
            if isinstance(message, Message):
                batch.append(message)
                batch_failure = failure
            elif isinstance(work, _Write):
                if work.done is not None:
                    work.done(failure, now)
                if work.user is not None:
                    work.user.pins -= 1
            elif work is not None:
                work(now)
        return bool(queue)

    def _commit(self, write: _Write, now: float) -> str | None:
        """Record a write; why it fails, if it does."""
        failure = self.failure
        if isinstance(write.subject, Message) and write.subject.deadline <= now:
            failure = "its deadline has passed"
        if self.spare_next and write.subject is not None:
            self.spare_next -= 1
        elif self.fail_next and write.subject is not None:
            self.fail_next -= 1
            failure = "this write failed"
        self.failures += failure is not None
        if failure is None and write.subject is not None and write.subject != "acknowledged":
            self.committed.append(write.subject)
        if failure is None and write.record is not None:
            write.record()
        return failure

    def _appended(self, batch: list[Message], failure: str | None, now: float) -> None:
        assert self._shard is not None, "listen() comes first"
        for message in batch if failure is None else []:
            self._save_chat(message.user, message.chat)
            record = self._record(message.user)
            for row in (*record.rows, *record.withheld):
                if (row.sender, row.message_id) == (message.sender, message.message_id):
                    message.original = self._message(message.user, row, row in record.withheld)
            if message.original is None and message.withheld:
                row = Row(
                    *(message.lamport, message.sender, message.message_id, message.frame),
                    *(message.receipts, message.lamport),
                )
                record.withheld.append(row)
            elif message.original is None:
                seq = max(record.rows[-1].seq if record.rows else 0, record.purged_through) + 1
                row = Row(
                    *(seq, message.sender, message.message_id, message.frame),
                    *(message.receipts, message.lamport),
                )
                record.rows.append(row)
        self._shard.messages.appended(batch, failure, now)
        for message in batch:
            message.user.pins -= 1
        for message in batch if failure is None else []:
            if message.original is None and not message.withheld:
                assert self._row(message).message_id == message.message_id, "the positions agree"

    # -- Records --

    def purge(self, user_id: str, through: int) -> list[tuple[str, int]]:
        """Remove the messages up to a position, as retention does; what the shard is to be told."""
        record = self.records[user_id]
        record.rows = record.after(through)
        record.purged_through = through
        return [(user_id, through)]

    def _record(self, user: User) -> Record:
        if user.user_id not in self.records:
            self._save_user(user)
        return self.records[user.user_id]

    def _row(self, message: Message) -> Row:
        return next(row for row in self.records[message.user.user_id].rows if row.seq == message.seq)

    def _save_user(self, user: User) -> None:
        record = self.records.setdefault(user.user_id, Record())
        record.user = (
            *(user.display_name, user.acknowledges, user.mailbox.epoch),
            *(user.kept, user.banned),
        )

    def _save_chat(self, user: User, chat: Chat) -> None:
        chat.saved = True
        assert self._record(user).objects.setdefault(chat.peer, chat) is chat, "one object for one chat"
        self._record(user).chats[chat.peer] = ChatRow(
            peer_name=chat.peer_name,
            confirmed=chat.confirmed,
            written=chat.written or chat.noting,
            active_at=chat.last_at,
            read_through=chat.read_through,
            unread=chat.unread,
            hidden=chat.hidden,
            muted=chat.muted,
            summed_through=user.mailbox.head,
        )

    def _save_acknowledged(self, user: User) -> None:
        mailbox = user.mailbox
        through = mailbox.acknowledged_through
        _, ahead = self._record(user).acknowledged
        ahead |= frozenset(mailbox.unsaved_ahead or ())
        mailbox.unsaved_ahead = None
        for chat in user.unsaved_chats or ():
            self._save_chat(user, chat)
        user.unsaved_chats = None
        self._record(user).acknowledged = (through, frozenset(seq for seq in ahead if seq > through))

    def _load(self, user_id: str) -> User | None:
        assert self._shard is not None, "listen() comes first"
        record = self.records.get(user_id)
        if record is None:
            return None
        name, acknowledges, epoch, kept, banned = record.user
        user = User(user_id, name, self._shard.settings, epoch)
        user.acknowledges, user.kept, user.banned = acknowledges, kept, banned
        record.objects.clear()
        for peer in record.chats:
            user.chats[peer] = record.objects[peer] = self._chat(record, peer)
        user.blocks = dict(record.blocks) or None
        user.hook_calls = dict(record.hook_calls) or None
        through, ahead = record.acknowledged
        head = max(record.rows[-1].seq if record.rows else 0, record.purged_through)
        lamport = max((row.lamport for row in (*record.rows[-1:], *record.withheld[-1:])), default=0)
        user.mailbox.restore(head, lamport, record.purged_through, through, list(ahead))
        return user

    def _chat(self, record: Record, peer: str) -> Chat:
        """Make a chat as its row says, corrected by what came after that was stored."""
        row = record.chats[peer]
        chat = Chat(peer, row.peer_name)
        chat.confirmed, chat.written, chat.saved = row.confirmed, row.written, True
        chat.read_through, chat.muted = row.read_through, row.muted
        theirs = [message for message in record.rows if message.sender == peer]
        since = [message for message in theirs if message.seq > row.summed_through]
        chat.newest = theirs[-1].seq if theirs else 0
        chat.active_at = max([row.active_at, *(codec.msg_timestamp(message.frame) for message in since)])
        chat.hidden = row.hidden and not since
        chat.unread = row.unread + sum(message.seq > row.read_through for message in since)
        if chat.unread > 0 and record.purged_through > chat.read_through:
            chat.unread += UNCOUNTED
        return chat

    def _message(self, user: User, row: Row, withheld: bool = False) -> Message:
        # One of a chat that is being removed may be read.
        chat = user.chats.get(row.sender) or Chat("", "")
        message = Message(user, chat, row.message_id, row.frame)
        message.seq, message.receipts, message.lamport = row.seq, row.receipts, row.lamport
        if withheld:
            message.seq, message.withheld = 0, True
        return message
