"""What is asked of the database: gathered on the loop, read in the thread, and made into objects on the loop.

What is asked often is read with one statement for all of a kind.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from core.chat.chat import Chat
from core.chat.store import Covered, Found
from core.chat.user import Message, User
from core.process.settings import Settings
from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.rows import Row, frame_of, id_hash, lamport_of, message_of, messages_of, user_of

#: How much is read by one job, as the sum of `Question.weight`: half a MiB of messages, or 256 users.
READS_WEIGHT: Final = 512

#: Chats that can be looked through for an id at the cost of one committed message.
_CHATS_LOOKED_THROUGH: Final = 32

T = TypeVar("T")
#: A position beyond all positions.
_END: Final = 2**62


class Question(Generic[T]):
    """One read, from the call until its callback, of the mailbox of a user; who is in memory is pinned meanwhile."""

    __slots__ = ("after", "answer", "done", "user", "user_id")

    def __init__(self, user_id: str, user: User | None, done: Found[T]) -> None:
        self.user_id = user_id
        self.user = user
        self.done = done
        #: How many writes had been called before it.
        self.after = 0
        self.answer: Any = None

    @property
    def user_ids(self) -> set[str]:
        """Whose mailboxes it is about: what is in the commit log about them must be folded first."""
        return {self.user_id}

    @property
    def weight(self) -> int:
        """What it costs to read and to call back, as many times as one committed message."""
        return 2

    def read(self, database: Database) -> None:
        """Answer it by itself, if not all of its kind are answered at once. Raises sqlite3.Error. In the thread."""
        raise NotImplementedError

    def found(self, settings: Settings) -> T:
        """Make the answer into objects."""
        raise NotImplementedError

    def nothing(self) -> T:
        """Return what goes with a failure."""
        raise NotImplementedError


class Load(Question["User | None"]):
    """See ``core.chat.store.Store``, and so for the others."""

    __slots__ = ()

    def __init__(self, user_id: str, done: Found[User | None]) -> None:
        super().__init__(user_id, None, done)

    def found(self, settings: Settings) -> User | None:
        return None if self.answer is None else user_of(self.answer, settings)

    def nothing(self) -> None:
        return None


class Find(Question["list[Message]"]):
    """Messages by id, in one chat or in all of a user's."""

    __slots__ = ("message_id", "sender")

    def __init__(self, user: User, sender: str | None, message_id: str, done: Found[list[Message]]) -> None:
        super().__init__(user.user_id, user, done)
        self.sender = sender
        self.message_id = message_id

    @property
    def weight(self) -> int:
        assert self.user is not None
        return 2 if self.sender is not None else 2 + len(self.user.chats) // _CHATS_LOOKED_THROUGH

    def row(self) -> tuple[int, str | None, int]:
        """Return what ``statements.FIND_IN_MAILBOX`` takes; right once all writes before this read have been gathered."""
        assert self.user is not None
        return self.user.key, self.sender, id_hash(self.message_id)

    def found(self, settings: Settings) -> list[Message]:
        assert self.user is not None
        # The same hash may be that of another id.
        same = messages_of(sorted(row for row in self.answer if row[2] == self.message_id), self.user)
        if self.sender is not None:
            return [message for message in same if _is_committed(message)]
        return [message for message in same if _is_committed(message) and not message.withheld]

    def nothing(self) -> list[Message]:
        return []


class Read(Question["list[Message]"]):
    """A window of a mailbox."""

    __slots__ = ("position",)

    def __init__(self, user: User, position: int, done: Found[list[Message]]) -> None:
        super().__init__(user.user_id, user, done)
        self.position = position

    @property
    def weight(self) -> int:
        return 64

    def found(self, settings: Settings) -> list[Message]:
        user = self.user
        assert user is not None
        chats = {chat.key: chat for chat in user.chats.values()}
        # One of a chat that is being removed says how far the window goes.
        return [message_of(row, user, chats.get(row[1]) or Chat("", "")) for row in self.answer]

    def nothing(self) -> list[Message]:
        return []


class Senders(Question["list[tuple[int, Chat]]"]):
    """Whose the messages of a mailbox are."""

    __slots__ = ("position",)

    def __init__(self, user: User, position: int, done: Found[list[tuple[int, Chat]]]) -> None:
        super().__init__(user.user_id, user, done)
        self.position = position

    @property
    def weight(self) -> int:
        return 128

    def read(self, database: Database) -> None:
        assert self.user is not None
        found = database.value(statements.SENDERS, self.user.key, self.position)
        self.answer = codec.from_json(found)

    def found(self, settings: Settings) -> list[tuple[int, Chat]]:
        assert self.user is not None
        # A commit that failed may have left rows all the same, beyond the head.
        head = self.user.mailbox.head
        chats = {chat.key: chat for chat in self.user.chats.values()}
        return [(seq, chats[chat]) for seq, chat in self.answer if chat in chats and seq <= head]

    def nothing(self) -> list[tuple[int, Chat]]:
        return []


class Cover(Question["Covered"]):
    """What is read with a message of a chat, and how much is left."""

    __slots__ = ("_chat", "_head", "_position", "_through")

    def __init__(self, user: User, chat: Chat, position: int, through: int, done: Found[Covered]) -> None:
        super().__init__(user.user_id, user, done)
        self._chat = chat
        self._position = position
        #: Up to where there are messages for this question: rows beyond the head may be those of a commit that failed.
        self._head = user.mailbox.head
        self._through = min(through, self._head)

    @property
    def weight(self) -> int:
        return 64

    def read(self, database: Database) -> None:
        self.answer = [], 0
        conversation = database.value(statements.CONVERSATION, self.user_id, self._chat.peer)
        if conversation is None:
            return
        mailbox, chat, count = codec.from_json(conversation)
        covered, counted = statements.COVERED, statements.COUNT
        if count <= statements.SMALL_CHAT and count < self._head - self._position:
            covered, counted = statements.COVERED_OF_SMALL, statements.COUNT_OF_SMALL
        found = database.value(covered, mailbox, chat, self._position, self._through)
        beyond = database.value(counted, mailbox, chat, self._through, self._head)
        self.answer = codec.from_json(found), beyond

    def found(self, settings: Settings) -> Covered:
        rows, beyond = self.answer
        return Covered([(seq, message_id, bool(receipts)) for seq, message_id, receipts in rows], beyond)

    def nothing(self) -> Covered:
        return Covered([], 0)


class MessagesAt(Question["list[Message]"]):
    """Some messages of a mailbox."""

    __slots__ = ("_positions",)

    def __init__(self, user: User, positions: list[int], done: Found[list[Message]]) -> None:
        super().__init__(user.user_id, user, done)
        self._positions = positions

    @property
    def weight(self) -> int:
        return 2 + len(self._positions) // 2

    def read(self, database: Database) -> None:
        assert self.user is not None
        positions = codec.to_json(self._positions)
        self.answer = codec.from_json(database.value(statements.MESSAGES_AT, self.user.key, positions))

    def found(self, settings: Settings) -> list[Message]:
        assert self.user is not None
        return [message for message in messages_of(self.answer, self.user) if _is_committed(message)]

    def nothing(self) -> list[Message]:
        return []


class Lasts(Question["dict[str, tuple[int, bytes]]"]):
    """The newest messages from one user in the mailboxes of some."""

    __slots__ = ("_recipients",)

    def __init__(self, sender: str, recipients: list[str], done: Found[dict[str, tuple[int, bytes]]]) -> None:
        super().__init__(sender, None, done)
        self._recipients = recipients

    @property
    def user_ids(self) -> set[str]:
        return set(self._recipients)

    @property
    def weight(self) -> int:
        return 2 * len(self._recipients)

    def read(self, database: Database) -> None:
        small: list[str] = []
        self.answer = []
        for recipient in self._recipients:
            conversation = database.value(statements.CONVERSATION, recipient, self.user_id)
            if conversation is None:
                continue
            mailbox, chat, count = codec.from_json(conversation)
            if count <= statements.SMALL_CHAT:
                small.append(recipient)
                continue
            newest: list[Row] = []
            for whose in (mailbox, -mailbox):
                newest += codec.from_json(database.value(statements.HISTORY, whose, chat, _END, 1))
            self.answer.append([recipient, *max(newest, key=lamport_of)])
        if small:
            found = database.value(statements.LASTS, codec.to_json(small), self.user_id)
            self.answer += codec.from_json(found)

    def found(self, settings: Settings) -> dict[str, tuple[int, bytes]]:
        return {
            recipient: (lamport_of(row), frame_of(row, self.user_id, recipient))
            for recipient, *row in self.answer
        }

    def nothing(self) -> dict[str, tuple[int, bytes]]:
        return {}


class History(Question["list[tuple[int, int, bytes]]"]):
    """One side of a conversation."""

    __slots__ = ("_before", "_limit", "_peer", "_withheld")

    def __init__(
        self,
        user_id: str,
        peer: str,
        before: int | None,
        limit: int,
        done: Found[list[tuple[int, int, bytes]]],
        *,
        withheld: bool,
    ) -> None:
        super().__init__(user_id, None, done)
        self._peer = peer
        self._before = _END if before is None else before
        self._limit = limit
        self._withheld = withheld

    @property
    def weight(self) -> int:
        return 32

    def read(self, database: Database) -> None:
        self.answer = []
        conversation = database.value(statements.CONVERSATION, self.user_id, self._peer)
        if conversation is None:
            return
        mailbox, chat, count = codec.from_json(conversation)
        statement = statements.HISTORY_OF_SMALL if count <= statements.SMALL_CHAT else statements.HISTORY
        mailbox = -mailbox if self._withheld else mailbox
        self.answer = codec.from_json(database.value(statement, mailbox, chat, self._before, self._limit))

    def found(self, settings: Settings) -> list[tuple[int, int, bytes]]:
        return [(row[0], lamport_of(row), frame_of(row, self._peer, self.user_id)) for row in self.answer]

    def nothing(self) -> list[tuple[int, int, bytes]]:
        return []


class Reads:
    """The reads of one job, in the order of the calls. Made when the writes before them have been gathered."""

    __slots__ = (
        *("_finds", "_loads", "_others", "_places", "_reads", "_windows"),
        *("failure", "questions", "user_ids"),
    )

    def __init__(self, questions: list[Question[Any]]) -> None:
        self.questions = questions
        self.failure: str | None = None
        self.user_ids = {user_id for question in questions for user_id in question.user_ids}
        self._loads = [question for question in questions if isinstance(question, Load)]
        self._finds = [question for question in questions if isinstance(question, Find)]
        self._places = [find.row() for find in self._finds]
        self._reads = [question for question in questions if isinstance(question, Read)]
        self._windows = [(read.user.key, read.position) for read in self._reads if read.user is not None]
        #: Those that are answered one by one.
        self._others = [question for question in questions if not isinstance(question, Load | Find | Read)]

    def read(self, database: Database) -> None:
        """Answer all. Raises sqlite3.Error. In the thread."""
        if self._loads:
            rows = _ask(database, statements.LOAD, [load.user_id for load in self._loads])
            known = {row[1]: row for row in rows}
            for load in self._loads:
                load.answer = known.get(load.user_id)
        if self._finds:
            for find in self._finds:
                find.answer = []
            for index, *row in _ask(database, statements.FIND_IN_MAILBOX, self._places):
                self._finds[index].answer.append(row)
        if self._reads:
            answers = _ask(database, statements.READ, self._windows)
            for read, answer in zip(self._reads, answers, strict=True):
                read.answer = answer
        for question in self._others:
            question.read(database)


def _ask(database: Database, statement: str, given: list[Any]) -> list[Row]:
    rows: list[Row] = codec.from_json(database.value(statement, codec.to_json(given)))
    return rows


def _is_committed(message: Message) -> bool:
    """Return whether it is: a commit that failed may have left rows all the same, beyond the head. What is withheld has no position."""
    return message.seq <= message.user.mailbox.head
