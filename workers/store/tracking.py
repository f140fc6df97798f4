"""Noting what changes in a worker's file, while another process fills other files from it (``workers.store.live_reshard``).

    BeginTracking --> the file is copied --> Look, written to a path --> ... --> Look --> EndTracking, or the process ends

SQLite itself notes: temporary triggers write the key of each row that is inserted, changed or deleted to temporary tables, in the
transaction that does it, whoever it is. A `Look` takes what they have. What is only in the commit log has not changed the file yet; it is
folded first, so another process that opens the file finds everything in it that is in the look, and all that was committed before.

The triggers belong to the connection. When the storage fails and the file is opened again they are gone, and looks fail from then on: then
the other process must begin anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.chat.store import Done
from workers.store.jobs import Visit
from workers.store.retention import KeepTime, Upkeep
from workers.store.storage import Storage

#: What is noted, and where. A primary key makes a row that changes many times one row.
_TABLES: Final = (
    "CREATE TEMP TABLE changed_users (number INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE changed_chats (number INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE changed_messages (mailbox INTEGER, seq INTEGER, PRIMARY KEY (mailbox, seq)) WITHOUT ROWID",
)
#: Not "OR IGNORE", for which the conflict clause of the statement that fires the trigger may stand in.
_USER: Final = "INSERT INTO changed_users SELECT {0} WHERE {0} NOT IN (SELECT number FROM changed_users)"
_CHAT: Final = "INSERT INTO changed_chats SELECT {0} WHERE {0} NOT IN (SELECT number FROM changed_chats)"
_MESSAGE: Final = (
    "INSERT INTO changed_messages SELECT {0}.mailbox, {0}.seq WHERE NOT EXISTS"
    " (SELECT 1 FROM changed_messages WHERE mailbox = {0}.mailbox AND seq = {0}.seq)"
)
#: Table -> what notes a row of it, new or old.
_NOTES: Final = {
    "users": (_USER.format("new.number"), _USER.format("old.number")),
    "acknowledged": (_USER.format("new.mailbox"), _USER.format("old.mailbox")),
    "blocks": (_USER.format("new.user"), _USER.format("old.user")),
    "hook_calls": (_USER.format("new.user"), _USER.format("old.user")),
    "chats": (_CHAT.format("new.number"), _CHAT.format("old.number")),
    "messages": (_MESSAGE.format("new"), _MESSAGE.format("old")),
}
_TRIGGERS: Final = tuple(
    f"CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} BEGIN {note}; END"
    for table, (new, old) in _NOTES.items()
    for event, note in (("INSERT", new), ("UPDATE", new), ("DELETE", old))
)
#: As ``workers.store.changes.Changes`` has it, without the file.
_LOOK: Final = """
SELECT '"users":' || (SELECT json_group_array(number) FROM changed_users)
    || ',"chats":' || (SELECT json_group_array(number) FROM changed_chats)
    || ',"messages":' || (SELECT json_group_array(json_array(mailbox, seq)) FROM changed_messages)
"""
_IS_TRACKED: Final = "SELECT 1 FROM sqlite_temp_master WHERE name = 'changed_users'"
_NAMES: Final = ("changed_users", "changed_chats", "changed_messages")


class Tracking:
    """What the owner of a store calls. `done` is called from the store's `flush`, with None or with a sentence that says what fails."""

    __slots__ = ("_keep_time", "_upkeep", "_visit")

    def __init__(
        self, visit: Callable[[Visit], None], upkeep: Upkeep, keep_time: Callable[[float], KeepTime]
    ) -> None:
        """`keep_time` lets the time until now pass, and returns what saves it."""
        self._visit = visit
        self._upkeep = upkeep
        self._keep_time = keep_time

    def begin(self, done: Done, now: float) -> None:
        """Note what changes from now on, and remove nothing that is old meanwhile. `end` is to be called also when this fails."""
        self._upkeep.suspend(True)
        self._visit(BeginTracking(self._keep_time(now), done))

    def look(self, path: Path, done: Done) -> None:
        """Write to `path` what has changed since the last look, also by all writes that were called before.

        Acknowledgements and chats that may wait are among them while the store hurries (``workers.store.shard_store.ShardStore.hurry``).
        When this fails nothing is forgotten, so it may be called again; but when the storage has failed, all looks fail.
        """
        self._visit(Look(path, done))

    def end(self, done: Done) -> None:
        """Note nothing any more, and go on removing what is old."""
        self._upkeep.suspend(False)
        self._visit(EndTracking(done))


class BeginTracking(Visit):
    """Notes changes from now on. Messages that are there get a mark, so that a copy of the file says how old they are."""

    __slots__ = ("_keep_time",)

    def __init__(self, keep_time: KeepTime, done: Done) -> None:
        super().__init__(done)
        self._keep_time = keep_time

    def run(self, storage: Storage) -> None:
        self._keep_time.run(storage)
        _end(storage)
        # It can be chosen while there are no such tables only; and a full disk for temporary files must not keep anybody from writing.
        storage.database.execute("PRAGMA temp_store = MEMORY").close()
        for statement in (*_TABLES, *_TRIGGERS):
            storage.database.execute(statement)


class Look(Visit):
    """Writes what has changed since the last look to a file, as JSON: the fields of ``workers.store.changes.Changes``."""

    __slots__ = ("_path",)

    def __init__(self, path: Path, done: Done) -> None:
        super().__init__(done)
        self._path = path

    def run(self, storage: Storage) -> None:
        storage.fold_all()
        if storage.database.value(_IS_TRACKED) is None:
            raise sqlite3.OperationalError("changes are not tracked, since the file was opened again")
        changed = storage.database.value(_LOOK)
        # Before anything is forgotten.
        self._path.write_text(f'{{"file":"{storage.database.path.name}",{changed}}}')
        for table in _NAMES:
            storage.database.execute(f"DELETE FROM {table}")  # noqa: S608


class EndTracking(Visit):
    """Notes no changes any more, and forgets those that were noted."""

    __slots__ = ()

    def run(self, storage: Storage) -> None:
        storage.complete_fold()
        _end(storage)


def _end(storage: Storage) -> None:
    for table in _NOTES:
        for event in ("INSERT", "UPDATE", "DELETE"):
            storage.database.execute(f"DROP TRIGGER IF EXISTS temp.{table}_{event}")
    for table in _NAMES:
        storage.database.execute(f"DROP TABLE IF EXISTS temp.{table}")
