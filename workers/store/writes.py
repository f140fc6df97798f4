"""What is committed at once: gathered on the loop, row by row, and written in the thread, one statement for all rows of a kind.

A message's position is given here, when its batch is gathered: the mailbox's head and one more, and so on. So the callbacks of one batch
must all have been called, and have committed their messages, before the next is gathered.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from core.chat.chat import Chat
from core.chat.store import Done
from core.chat.user import Message, User
from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.log_record import Record
from workers.store.rows import (
    Row,
    block_row,
    chat_row,
    hook_call_row,
    id_hash,
    joined,
    message_of,
    message_row,
    user_row,
)
from workers.store.upserts import save_blocks, save_chats, save_hook_calls, save_users

#: Messages of a mailbox after which the rows of its chats are saved, if nothing has saved them before. When a user is loaded, this many
#: messages are counted at most, and those of one batch.
SUM_AFTER: Final = 256


class Numbers:
    """Gives users and chats their numbers; the last given of each."""

    __slots__ = ("chat", "user")

    def __init__(self, user: int, chat: int) -> None:
        self.user = user
        self.chat = chat


class Write:
    """A call of the store that is not a message, from the call until its callback. `user` is pinned meanwhile."""

    __slots__ = ("done", "user")

    def __init__(self, user: User | None, done: Done | None) -> None:
        self.user = user
        self.done = done

    def join(self, batch: Batch) -> None:
        """Add what is to be written."""


class After(Write):
    """Nothing to write, but somebody waits for what comes before."""

    __slots__ = ()

    def join(self, batch: Batch) -> None:
        pass


class SaveUser(Write):
    """See ``core.chat.store.Store``, and so for the others."""

    __slots__ = ()

    def join(self, batch: Batch) -> None:
        assert self.user is not None
        batch.save_user(self.user)


class SaveChat(Write):
    """A chat, and its user if need be."""

    __slots__ = ("chat",)

    def __init__(self, user: User, chat: Chat, done: Done) -> None:
        super().__init__(user, done)
        self.chat = chat

    def join(self, batch: Batch) -> None:
        assert self.user is not None
        batch.save_chat(self.user, self.chat)


class SaveAcknowledged(Write):
    """What a mailbox has as acknowledged, and chats that could wait, with somebody waiting."""

    __slots__ = ()

    def join(self, batch: Batch) -> None:
        assert self.user is not None
        batch.save_acknowledged(self.user)


class SaveBlock(Write):
    """What stands between a user and a peer, with the user if need be."""

    __slots__ = ("peer",)

    def __init__(self, user: User, peer: str, done: Done) -> None:
        super().__init__(user, done)
        self.peer = peer

    def join(self, batch: Batch) -> None:
        assert self.user is not None
        batch.save_block(self.user, self.peer)


class SaveHookCall(Write):
    """What the hook is told of a chat, with the user if need be."""

    __slots__ = ("peer",)

    def __init__(self, user: User, peer: str, done: Done) -> None:
        super().__init__(user, done)
        self.peer = peer

    def join(self, batch: Batch) -> None:
        assert self.user is not None
        batch.save_hook_call(self.user, self.peer)


class Forget(Write):
    """A user to be removed. What comes before it must be written before it, so it can only be at the head of a batch."""

    __slots__ = ("user_id",)

    def __init__(self, user_id: str) -> None:
        super().__init__(None, None)
        self.user_id = user_id

    def join(self, batch: Batch) -> None:
        batch.forgotten.append(self.user_id)


class Alone(Write):
    """A change that only SQLite can make, in a transaction with nothing else that was called before or after it."""

    __slots__ = ()

    def join(self, batch: Batch) -> None:
        batch.alone = self

    def change(self, database: Database) -> None:
        """Make it, in the thread, within the transaction. Raises sqlite3.Error."""
        raise NotImplementedError

    @property
    def rows(self) -> int:
        """About how many rows were written."""
        return 1


class Batch:
    """The writes of one transaction."""

    __slots__ = (
        "_blocks",
        "_heads",
        "_hook_calls",
        "_left_at",
        "_numbers",
        "_repeats",
        "_rows",
        "_seen_at",
        "_summed",
        "_taken",
        "_taken_chats",
        "_through",
        "alone",
        "chats",
        "forgotten",
        "messages",
        "places",
        "user_ids",
        "users",
    )

    def __init__(self, numbers: Numbers, seen_at: int, left_at: int) -> None:
        """`seen_at` and `left_at` are what it is now, see ``rows.user_row``."""
        self._numbers = numbers
        self._seen_at = seen_at
        self._left_at = left_at
        self.messages: list[Message] = []
        self._rows: list[bytes] = []
        #: (chat, id_hash) of each message: no two messages have the same.
        self.places: list[tuple[int, int]] = []
        #: Whom the batch is about.
        self.user_ids: set[str] = set()
        #: A user's number -> the last position given in this batch.
        self._heads: dict[int, int] = {}
        self.users: dict[User, bytes] = {}
        self.chats: dict[Chat, bytes] = {}
        #: (user's number, peer) -> what stands between the two.
        self._blocks: dict[tuple[int, str], Row] = {}
        #: The same -> what the hook is told.
        self._hook_calls: dict[tuple[int, str], Row] = {}
        #: Users whose messages are counted in the rows of their chats -> up to where they were before this batch.
        self._summed: dict[User, int] = {}
        #: A user's number -> everything up to there is acknowledged; and the positions beyond that were taken from each mailbox.
        self._through: dict[int, int] = {}
        self._taken: list[tuple[User, list[int]]] = []
        #: Chats that were taken from each user.
        self._taken_chats: list[tuple[User, dict[Chat, None]]] = []
        self.forgotten: list[str] = []
        #: What comes before everything else, and then nothing else is forgotten, and no message and no call joins.
        self.alone: Alone | None = None
        #: Found while writing: (a message that was there, its row or the message of this batch that has the place).
        self._repeats: list[tuple[Message, Row | Message]] = []

    def __bool__(self) -> bool:
        return bool(self.messages) or self.has_others

    @property
    def has_others(self) -> bool:
        """Whether there is anything but messages."""
        return not self._has_no_changes or bool(self.forgotten) or self.alone is not None

    @property
    def only_forgets(self) -> bool:
        """Whether there is nothing that a `Forget` would have to come behind."""
        return not self.messages and self._has_no_changes

    @property
    def _has_no_changes(self) -> bool:
        changes = self.users, self.chats, self._through, self._blocks, self._summed, self._hook_calls
        return not any(changes)

    # -- On the loop, before --

    def add(self, message: Message) -> None:
        """Give a message the next position, and gather it. One that is withheld gets none."""
        user = message.user
        if not message.chat.saved:
            self.save_chat(user, message.chat)
        if message.withheld:
            mailbox, seq = -user.key, message.lamport
        else:
            mailbox = user.key
            known = self._heads.get(mailbox)
            seq = self._heads[mailbox] = (user.mailbox.head if known is None else known) + 1
            if seq >= user.summed_through + SUM_AFTER:
                self._sum(user)
        hashed = id_hash(message.message_id)
        self.messages.append(message)
        self.places.append((message.chat.key, hashed))
        self._rows.append(message_row(message, hashed, mailbox, seq))
        self.user_ids.add(user.user_id)

    def save_user(self, user: User) -> None:
        """Gather a user as it is now."""
        if not user.key:
            self._numbers.user += 1
            user.key = self._numbers.user
        self.users[user] = user_row(user, self._seen_at, self._left_at)
        self.user_ids.add(user.user_id)

    def save_chat(self, user: User, chat: Chat) -> None:
        """Gather a chat as it is now, and its user if that has never been saved."""
        if not user.saved and user not in self.users:
            self.save_user(user)
        if not chat.key:
            self._numbers.chat += 1
            chat.key = self._numbers.chat
        self.chats[chat] = chat_row(user, chat)
        self.user_ids.add(user.user_id)

    def save_block(self, user: User, peer: str) -> None:
        """Gather what stands between two users now."""
        if not user.saved and user not in self.users:
            self.save_user(user)
        self._blocks[user.key, peer] = block_row(user, peer)
        self.user_ids.add(user.user_id)

    def save_hook_call(self, user: User, peer: str) -> None:
        """Gather what the hook is told of a chat now."""
        if not user.saved and user not in self.users:
            self.save_user(user)
        self._hook_calls[user.key, peer] = hook_call_row(user, peer)
        self.user_ids.add(user.user_id)

    def _sum(self, user: User) -> None:
        """Gather all chats whose rows do not count everything that is committed."""
        through = user.mailbox.head
        if through == user.summed_through:
            return
        for chat in user.chats.values():
            if chat.newest > user.summed_through:
                self.save_chat(user, chat)
        self._summed.setdefault(user, user.summed_through)
        user.summed_through = through

    def save_acknowledged(self, user: User) -> None:
        """Gather what a user has acknowledged until now, and the chats that could wait until then."""
        if not user.saved and user not in self.users:
            self.save_user(user)
        self.user_ids.add(user.user_id)
        mailbox = user.mailbox
        self._through[user.key] = mailbox.acknowledged_through
        if mailbox.unsaved_ahead:
            self._taken.append((user, mailbox.unsaved_ahead))
            mailbox.unsaved_ahead = None
        if user.unsaved_chats:
            for chat in user.unsaved_chats:
                self.save_chat(user, chat)
            self._taken_chats.append((user, user.unsaved_chats))
            user.unsaved_chats = None

    # -- In the thread --

    @property
    def may_repeat(self) -> bool:
        """Whether two of its messages seem to be the same."""
        return len(set(self.places)) < len(self.places)

    def record(self) -> Record:
        """Return everything as a record of the commit log, which knows no `forgotten`."""
        others, changes = 0, b""
        if self.has_others:
            users, chats = list(self.users.values()), list(self.chats.values())
            rest: tuple[list[Any], ...] = (
                list(self._through.items()),
                self._ahead(),
                [],
                [],
                list(self._blocks.values()),
                self._summed_through(),
                list(self._hook_calls.values()),
            )
            # In the order of the fields of `Changes`.
            changes = joined([joined(users), joined(chats), *map(codec.to_json, rest)])
            others = len(users) + len(chats) + sum(map(len, rest))
        record = Record(len(self._rows), b",".join(self._rows), others, changes)
        record.places, record.user_ids = self.places, self.user_ids
        return record

    def write(self, database: Database) -> None:
        """Commit everything to the tables, or raise sqlite3.Error and leave nothing."""
        with database.transaction():
            self._write_all(database)

    def _write_all(self, database: Database) -> None:
        if self.alone is not None:
            self.alone.change(database)
        if self.forgotten:
            user_ids = codec.to_json(self.forgotten)
            for statement in statements.FORGET:
                database.execute(statement, user_ids)
            database.execute(statements.TRIM_MARKS)
        if self.users:
            save_users(database, joined(list(self.users.values())))
        if self.chats:
            save_chats(database, joined(list(self.chats.values())))
        if self.messages:
            try:
                database.execute(statements.APPEND, joined(self._rows))
            except sqlite3.IntegrityError:
                self._append_without_repeats(database)
        if self._through:
            self._write_acknowledged(database)
        if self._blocks:
            save_blocks(database, list(self._blocks.values()))
        if self._hook_calls:
            save_hook_calls(database, list(self._hook_calls.values()))
        if self._summed:
            database.execute(statements.SAVE_SUMMED, codec.to_json(self._summed_through()))

    def _write_acknowledged(self, database: Database) -> None:
        rows = codec.to_json(list(self._through.items()))
        ahead = self._ahead()
        database.execute(statements.SAVE_ACKNOWLEDGED, rows)
        if ahead:
            database.execute(statements.SAVE_AHEAD, codec.to_json(ahead))
        database.execute(statements.FORGET_ACKNOWLEDGED, rows)

    def _ahead(self) -> list[tuple[int, int]]:
        return [(user.key, seq) for user, positions in self._taken for seq in positions]

    def _summed_through(self) -> list[tuple[int, int]]:
        return [(user.key, user.summed_through) for user in self._summed]

    def _append_without_repeats(self, database: Database) -> None:
        """Take out messages that are stored already (D10), and close the gaps in the positions.

        A commit of which the disk said that it failed may come back when the log is read again. Its rows are beyond the heads, and go.
        What it withheld may stay: it is stored after all, unless its place is needed.
        """
        heads = {message.user.key: message.user.mailbox.head for message in self.messages}
        withheld = [(-message.user.key, message.lamport) for message in self.messages if message.withheld]
        database.execute(statements.DROP_BEYOND, codec.to_json(list(heads.items())))
        database.execute(statements.DROP_AT, codec.to_json(withheld))
        database.execute(statements.TRIM_MARKS)
        found = codec.from_json(database.value(statements.FIND, codec.to_json(self.places)))
        taken: dict[tuple[int, int], Row | Message] = {self.places[index]: row for index, *row in found}
        self._rows, self._repeats = [], []
        for message, place in zip(self.messages, self.places, strict=True):
            stored = taken.setdefault(place, message)
            mailbox = message.user.key
            if stored is not message:
                self._repeats.append((message, stored))
            elif message.withheld:
                self._rows.append(message_row(message, place[1], -mailbox, message.lamport))
            else:
                heads[mailbox] += 1
                self._rows.append(message_row(message, place[1], mailbox, heads[mailbox]))
        if self._rows:
            database.execute(statements.APPEND, joined(self._rows))

    # -- On the loop, after --

    @property
    def rows(self) -> int:
        """How many messages were stored."""
        return len(self._rows)

    def succeeded(self) -> None:
        """Note what is saved now, before any callback."""
        for user in self.users:
            user.saved = True
        for chat in self.chats:
            chat.saved = True
        for message, stored in self._repeats:
            if isinstance(stored, Message):
                # Another message of this batch whose id has the same hash: the core sees that it says something else.
                message.original = stored
            else:
                message.original = message_of(stored, message.user, message.chat)

    def failed(self) -> None:
        """Give back what was taken."""
        for user, taken in reversed(self._taken):
            user.mailbox.unsaved_ahead = taken + (user.mailbox.unsaved_ahead or [])
        for user, chats in reversed(self._taken_chats):
            unsaved, user.unsaved_chats = user.unsaved_chats or {}, None
            user.save_later({**chats, **unsaved})  # but for those that have been removed meanwhile
        for user, through in self._summed.items():
            user.summed_through = through
