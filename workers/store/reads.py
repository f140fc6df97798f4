"""What is asked of the database: gathered on the loop, read in the thread with one statement a kind, and made into objects on the loop."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from core.chat.chat import Chat
from core.chat.store import Found
from core.chat.user import Message, User
from core.process.settings import Settings
from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.rows import Row, frame_of, id_hash, messages_of, user_of

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
    def weight(self) -> int:
        """What it costs to read and to call back, as many times as one committed message."""
        return 2

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
        # The same hash may be that of another id; and a commit that failed may have left rows all the same, beyond the head.
        head = self.user.mailbox.head
        rows = sorted(row for row in self.answer if row[2] == self.message_id and row[0] <= head)
        return messages_of(rows, self.user)

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
        assert self.user is not None
        return messages_of(self.answer, self.user)

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

    def found(self, settings: Settings) -> list[tuple[int, Chat]]:
        assert self.user is not None
        # A commit that failed may have left rows all the same, beyond the head.
        head = self.user.mailbox.head
        chats = {chat.key: chat for chat in self.user.chats.values()}
        return [(seq, chats[chat]) for seq, chat in self.answer if chat in chats and seq <= head]

    def nothing(self) -> list[tuple[int, Chat]]:
        return []


class History(Question["list[tuple[int, int, bytes]]"]):
    """One side of a conversation."""

    __slots__ = ("before", "limit", "peer")

    def __init__(
        self,
        user_id: str,
        peer: str,
        before: int | None,
        limit: int,
        done: Found[list[tuple[int, int, bytes]]],
    ) -> None:
        super().__init__(user_id, None, done)
        self.peer = peer
        self.before = _END if before is None else before
        self.limit = limit

    @property
    def weight(self) -> int:
        return 32

    def found(self, settings: Settings) -> list[tuple[int, int, bytes]]:
        return [(row[0], row[7], frame_of(row, self.peer, self.user_id)) for row in self.answer]

    def nothing(self) -> list[tuple[int, int, bytes]]:
        return []


class Reads:
    """The reads of one job, in the order of the calls. Made when the writes before them have been gathered."""

    __slots__ = (
        *("_finds", "_histories", "_loads", "_places", "_reads", "_senders", "_windows"),
        *("failure", "questions", "user_ids"),
    )

    def __init__(self, questions: list[Question[Any]]) -> None:
        self.questions = questions
        self.failure: str | None = None
        self.user_ids = {question.user_id for question in questions}
        self._loads = [question for question in questions if isinstance(question, Load)]
        self._finds = [question for question in questions if isinstance(question, Find)]
        self._places = [find.row() for find in self._finds]
        self._reads = [question for question in questions if isinstance(question, Read)]
        self._windows = [(read.user.key, read.position) for read in self._reads if read.user is not None]
        self._senders = [question for question in questions if isinstance(question, Senders)]
        self._histories = [question for question in questions if isinstance(question, History)]

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
        for senders in self._senders:
            assert senders.user is not None
            found = database.value(statements.SENDERS, senders.user.key, senders.position)
            senders.answer = codec.from_json(found)
        for history in self._histories:
            history.answer = self._page(database, history)

    @staticmethod
    def _page(database: Database, history: History) -> list[Row]:
        conversation = database.value(statements.CONVERSATION, history.user_id, history.peer)
        if conversation is None:
            return []
        mailbox, chat, count = codec.from_json(conversation)
        if count <= statements.SMALL_CHAT:
            found = database.value(statements.HISTORY_OF_SMALL, chat, history.before, history.limit)
        else:
            found = database.value(statements.HISTORY, mailbox, chat, history.before, history.limit)
        rows: list[Row] = codec.from_json(found)
        return rows


def _ask(database: Database, statement: str, given: list[Any]) -> list[Row]:
    rows: list[Row] = codec.from_json(database.value(statement, codec.to_json(given)))
    return rows
