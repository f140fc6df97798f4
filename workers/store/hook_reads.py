"""What the hook asks of the database (D33), about all users: see ``workers.store.reads``.

What is in the commit log only is not found: it is folded within seconds.
"""

from __future__ import annotations

from core.chat.store import Found
from core.process.settings import Settings
from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.reads import Question, T


class _OfAll(Question[T]):
    """A question about nobody in particular."""

    __slots__ = ()

    def __init__(self, done: Found[T]) -> None:
        super().__init__("", None, done)

    @property
    def user_ids(self) -> set[str]:
        return set()


class HookCallsDue(_OfAll["list[tuple[str, str]]"]):
    """See ``core.chat.store.Store``, and so for the others."""

    __slots__ = ("_before", "_limit")

    def __init__(self, before: int, limit: int, done: Found[list[tuple[str, str]]]) -> None:
        super().__init__(done)
        self._before = before
        self._limit = limit

    def read(self, database: Database) -> None:
        found = database.value(statements.HOOK_CALLS_DUE, self._before, self._limit)
        self.answer = codec.from_json(found)

    def found(self, settings: Settings) -> list[tuple[str, str]]:
        return [(user_id, peer) for user_id, peer in self.answer]

    def nothing(self) -> list[tuple[str, str]]:
        return []


class HookCallsPending(_OfAll["tuple[int, int]"]):
    """How many there are, and since when."""

    __slots__ = ()

    def read(self, database: Database) -> None:
        self.answer = codec.from_json(database.value(statements.HOOK_CALLS_PENDING))

    def found(self, settings: Settings) -> tuple[int, int]:
        count, since = self.answer
        return count, since or 0

    def nothing(self) -> tuple[int, int]:
        return 0, 0


class Untold(_OfAll["tuple[int, list[str]]"]):
    """Users with a message of which no call knows."""

    __slots__ = ("_after",)

    def __init__(self, after: int, done: Found[tuple[int, list[str]]]) -> None:
        super().__init__(done)
        self._after = after

    @property
    def weight(self) -> int:
        return 64

    def read(self, database: Database) -> None:
        self.answer = codec.from_json(database.value(statements.UNTOLD, self._after))

    def found(self, settings: Settings) -> tuple[int, list[str]]:
        last, user_ids = self.answer
        return last or 0, [user_id for user_id in user_ids if user_id is not None]

    def nothing(self) -> tuple[int, list[str]]:
        return self._after, []
