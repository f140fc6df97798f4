"""Deleting a user while the server runs (D36), as the thread does it: in steps, each a transaction of its own.

What the user has sent lies in the mailboxes of others, where positions must not change: a message is replaced by a tombstone, as by
``workers.store.purge``, and counts as acknowledged. The chats with the user are found by going through all chats, `SCAN_ROWS` in a
step: with a million of them that takes 0.3 s altogether, and an index over the peers would nearly double what each new chat costs. A chat
goes after its messages, and a user after all that the user has; so whatever is interrupted can be done again.
"""

from __future__ import annotations

from typing import Final

from core.chat.store import Found, Removed
from core.wire import codec
from workers.store import statements
from workers.store.database import Database
from workers.store.writes import Alone

#: Rows of messages, or of what else a user has, that one step removes: about 3 ms.
STEP_ROWS: Final = 128
#: Chats that one step goes through, 3 ms, and those of them that it removes.
SCAN_ROWS: Final = 8192
CHATS_ROWS: Final = 128

_NOTE: Final = "UPDATE users SET deleting = 1 WHERE user_id = ?"
#: Those who have the note, as a JSON array.
NOTED: Final = "SELECT json_group_array(user_id) FROM users WHERE deleting"

# -- What a user has sent --

_DROP_BLOCKS: Final = "DELETE FROM blocks WHERE peer = ?"
_DROP_HOOK_CALLS: Final = "DELETE FROM hook_calls WHERE peer = ?"
#: (after, how many): the last of so many chats.
_LAST: Final = "SELECT max(number) FROM (SELECT number FROM chats WHERE number > ? ORDER BY number LIMIT ?)"
#: (after, last, peer, how many): numbers of chats.
_CHATS: Final = (
    "SELECT json_group_array(number) FROM (SELECT number FROM chats WHERE number > ? AND number <= ? AND peer = ?"
    " ORDER BY number LIMIT ?)"
)
_IN: Final = "IN (SELECT value FROM json_each(CAST(? AS TEXT)))"
#: (numbers of chats, how many): numbers of messages.
_SENT: Final = f"SELECT json_group_array(number) FROM (SELECT number FROM messages WHERE chat {_IN} LIMIT ?)"  # noqa: S608
#: Numbers of messages, each: [user_id, position] of those that wait; the same acknowledged; and then they are removed.
_WAITING: Final = (
    "SELECT json_group_array(json_array(users.user_id, messages.seq)) FROM messages JOIN users ON users.number = messages.mailbox"  # noqa: S608
    f" WHERE messages.number {_IN} AND messages.seq > users.acknowledged_through"
)
_ACKNOWLEDGE: Final = (
    "INSERT OR IGNORE INTO acknowledged SELECT messages.mailbox, messages.seq FROM messages"  # noqa: S608
    f" JOIN users ON users.number = messages.mailbox WHERE messages.number {_IN} AND messages.seq > users.acknowledged_through"
)
_DROP_WITHHELD: Final = f"DELETE FROM messages WHERE number {_IN} AND mailbox < 0"  # noqa: S608
#: Two of the same chat can't have the same hash.
_BURY: Final = (
    f"UPDATE messages SET chat = {statements.NO_CHAT}, id_hash = random(), message_id = '', content = '', receipts = 0"  # noqa: S608
    f" WHERE number {_IN}"
)
_DROP_CHATS: Final = f"DELETE FROM chats WHERE number {_IN}"  # noqa: S608

# -- What a user has --

_NUMBER: Final = "SELECT number FROM users WHERE user_id = ?"
#: (mailbox, how many): the last of so many positions. Those up to there count as gone before they go.
_THROUGH: Final = "SELECT max(seq) FROM (SELECT seq FROM messages WHERE mailbox = ? ORDER BY seq LIMIT ?)"
_RAISE: Final = "UPDATE users SET purged_through = max(purged_through, ?) WHERE number = ?"
_RECEIVED: Final = "DELETE FROM messages WHERE mailbox = ? AND seq <= ?"
#: (user, how many) each: what goes besides the messages.
_DROP_OWN_CHATS: Final = "DELETE FROM chats WHERE number IN (SELECT number FROM chats WHERE user = ? LIMIT ?)"
_DROP_OTHERS: Final = (
    "DELETE FROM acknowledged WHERE mailbox = ?1 AND seq IN (SELECT seq FROM acknowledged WHERE mailbox = ?1 LIMIT ?2)",
    "DELETE FROM blocks WHERE user = ?1 AND peer IN (SELECT peer FROM blocks WHERE user = ?1 LIMIT ?2)",
    "DELETE FROM hook_calls WHERE user = ?1 AND peer IN (SELECT peer FROM hook_calls WHERE user = ?1 LIMIT ?2)",
)
_DROP_USER: Final = "DELETE FROM users WHERE number = ?"


class NoteDeletion(Alone):
    """See ``core.chat.store.Store``, and so for the others."""

    __slots__ = ("_known", "_then", "_user_id")

    def __init__(self, user_id: str, then: Found[bool]) -> None:
        super().__init__(None, self._tell)
        self._user_id = user_id
        self._then = then
        self._known = False

    def change(self, database: Database) -> None:
        self._known = database.execute(_NOTE, self._user_id).rowcount > 0

    def _tell(self, failure: str | None, now: float) -> None:
        self._then(self._known, failure, now)


class _Step(Alone):
    """Removes something. When it fails it has removed nothing."""

    __slots__ = ("_removed", "_then", "_user_id")

    def __init__(self, user_id: str, then: Found[Removed]) -> None:
        super().__init__(None, self._tell)
        self._user_id = user_id
        self._then = then
        self._removed = Removed([], 0, 0, None)

    @property
    def rows(self) -> int:
        return self._removed.messages + self._removed.chats

    def _tell(self, failure: str | None, now: float) -> None:
        self._then(self._removed if failure is None else Removed([], 0, 0, None), failure, now)


class PurgeSent(_Step):
    """What a user has sent to those of this file, their chats with the user, and their blocks."""

    __slots__ = ("_after",)

    def __init__(self, sender: str, after: int, then: Found[Removed]) -> None:
        super().__init__(sender, then)
        self._after = after

    def change(self, database: Database) -> None:
        if not self._after:
            database.execute(_DROP_BLOCKS, self._user_id)
            database.execute(_DROP_HOOK_CALLS, self._user_id)
        last = database.value(_LAST, self._after, SCAN_ROWS)
        if last is None:
            self._removed = Removed([], 0, 0, None)
            return
        theirs = database.value(_CHATS, self._after, last, self._user_id, CHATS_ROWS)
        chats: list[int] = codec.from_json(theirs)
        if len(chats) == CHATS_ROWS:
            last = chats[-1]
        sent = database.value(_SENT, theirs, STEP_ROWS)
        messages = len(codec.from_json(sent))
        waiting: dict[str, list[int]] = {}
        if messages:
            for user_id, seq in codec.from_json(database.value(_WAITING, sent)):
                waiting.setdefault(user_id, []).append(seq)
            database.execute(_ACKNOWLEDGE, sent)
            if database.execute(_DROP_WITHHELD, sent).rowcount:
                database.execute(statements.TRIM_MARKS)
            database.execute(_BURY, sent)
        acknowledged = list(waiting.items())
        if messages == STEP_ROWS:
            # There may be more.
            self._removed = Removed(acknowledged, messages, 0, self._after)
            return
        if chats:
            database.execute(_DROP_CHATS, theirs)
        self._removed = Removed(acknowledged, messages, 0, last)


class PurgeUser(_Step):
    """What a user has, and at last the user."""

    __slots__ = ()

    def change(self, database: Database) -> None:
        number = database.value(_NUMBER, self._user_id)
        messages, chats, more = 0, 0, False
        if number is not None:
            messages, more = self._messages(database, number)
            if not more:
                chats = database.execute(_DROP_OWN_CHATS, number, STEP_ROWS).rowcount
                more = chats == STEP_ROWS
            for statement in _DROP_OTHERS:
                more = more or database.execute(statement, number, STEP_ROWS).rowcount == STEP_ROWS
            if not more:
                database.execute(_DROP_USER, number)
        self._removed = Removed([], messages, chats, 1 if more else None)

    def _messages(self, database: Database, number: int) -> tuple[int, bool]:
        """Remove some of the messages, those that are withheld last; how many the user has received, and whether there may be more."""
        received = 0
        for mailbox in (number, -number):
            through = database.value(_THROUGH, mailbox, STEP_ROWS)
            if through is None:
                continue
            if mailbox > 0:
                database.execute(_RAISE, through, number)
            gone = database.execute(_RECEIVED, mailbox, through).rowcount
            database.execute(statements.TRIM_MARKS)
            received += gone if mailbox > 0 else 0
            if gone >= STEP_ROWS:
                return received, True
        return received, False
