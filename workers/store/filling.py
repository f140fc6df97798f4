"""One new file for another number of workers: filled from old files, and kept up with what changes in these afterwards.

    fill (from files to which nobody writes) --> catch_up (with the files in use), any number of times --> finish

Users, chats and messages get new numbers, 1, 2, 3 ..., so numbers never grow beyond what there is. What a client may have seen is copied
as it is: positions, epochs, acknowledgements. Which new number an old one has got stays in temporary tables, for `NewFile.catch_up`.

Messages must lie in the order of their ages, as marks tell them (``workers.store.schema``), since retention takes the first rows of a
file for the oldest; and the messages of a mailbox in the order of their positions. The rows of one old file therefore stay in their order,
and the files are merged by age: all are cut at the same ages into slices that fit into memory, and what the files have in one slice is
sorted. The clock of the new file begins at 0, so all times before are negative; no time of day is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.schema import CreateIndex, CreateTable, DropIndex

from workers.store.changes import CatchUp, Changes
from workers.store.data_directory import sync
from workers.store.old_files import Source
from workers.store.retention_clock import ClockState
from workers.store.row_copies import (
    Map,
    attached,
    copy_acknowledged,
    copy_blocks,
    copy_chats,
    copy_hook_calls,
    copy_messages,
    copy_users,
    number_chats,
    number_users,
    old_messages,
    slots,
)
from workers.store.schema import clock as clock_table
from workers.store.schema import marks, messages
from workers.store.tools import connected

#: Memory for pages of a file that is being filled, in KiB, and of one that waits for the others.
_CACHE_KIB: Final = 64 * 1024
_SMALL_CACHE_KIB: Final = 2 * 1024

_old_marks: Final = marks.to_metadata(MetaData(schema="old"), schema="old")


class Stopped(Exception):
    """Filling was stopped from outside."""


#: What the old files have in one slice, until it is sorted, with what their marks say of it, by the clock of the new file.
_merged: Final = messages.to_metadata(MetaData(schema="temp"), schema="temp", name="messages_of_a_slice")
_merged.indexes.clear()
for _name in ("passed", "ran"):
    _merged.append_column(Column(_name, Integer, nullable=False))


class NewFile:
    """A file that is there and empty, until it is finished. `close` must be called at the end.

    One thread at a time may use it. The methods raise SQLAlchemyError; after an exception the file is of no use.
    """

    def __init__(self, path: Path, slots: list[int], stopped: Event) -> None:
        """Make it the file of the users of these slots. `fill` raises Stopped when `stopped` is set."""
        self.path = path
        self._slots = slots
        self._stopped = stopped
        self._opened = ExitStack()
        self._connection: Connection
        self._sources: Sequence[Source]
        self._maps: list[Map]
        self._catching_up: dict[str, CatchUp] = {}

    def fill(self, sources: Sequence[Source], copied: Callable[[int], None]) -> None:
        """Copy what is in these files, which comes first; calls `copied` with numbers of messages, slice by slice."""
        self._check()
        self._sources = sources
        self._maps = [Map(index) for index in range(len(sources))]
        connection = self._connection = self._opened.enter_context(connected(self.path, "rw"))
        for pragma in (
            # A file that is not finished is thrown away, and one that is gets synced as a whole.
            "main.journal_mode = OFF",
            "main.synchronous = OFF",
            # Not for the files that are attached, some of which are in use.
            "main.locking_mode = EXCLUSIVE",
            f"main.cache_size = -{_CACHE_KIB}",
            f"temp.cache_size = -{_CACHE_KIB}",
            "foreign_keys = OFF",
        ):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        for index in messages.indexes:
            connection.execute(DropIndex(index))
        connection.execute(CreateTable(slots))
        connection.execute(insert(slots), [{"slot": slot} for slot in self._slots])
        for source, numbers in zip(sources, self._maps, strict=True):
            with attached(connection, source.path, "immutable"):
                _copy_users(connection, numbers, source.clock)
        connection.execute(CreateTable(_merged))
        for slice_ in range(len(sources[0].limits) - 1):
            self._check()
            copied(_copy_slice(connection, sources, self._maps, slice_))
            # Little by little, since a worker that syncs a little meanwhile waits for all that is written.
            sync(self.path)
        _set_clock(connection, sources)
        for index in messages.indexes:
            self._check()
            connection.execute(CreateIndex(index))
        for pragma in (f"main.cache_size = -{_SMALL_CACHE_KIB}", f"temp.cache_size = -{_SMALL_CACHE_KIB}"):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        connection.exec_driver_sql("PRAGMA shrink_memory").close()

    def catch_up(self, live: Path, changes: Changes) -> None:
        """Copy what has changed in a file in use since its copy, one of the sources, was made. Raises ConfigurationError too."""
        connection = self._connection
        if live.name not in self._catching_up:
            index = [source.path.name for source in self._sources].index(live.name)
            self._catching_up[live.name] = CatchUp(self._maps[index], self._sources[index].clock)
        with attached(connection, live, "ro"):
            connection.exec_driver_sql("BEGIN")
            self._catching_up[live.name].copy(connection, changes)
            connection.exec_driver_sql("COMMIT")

    def finish(self) -> None:
        """Leave the file as ``workers.store.database`` leaves its files, and close it; then it is to be synced."""
        self._connection.exec_driver_sql("PRAGMA main.locking_mode = NORMAL")
        self._connection.exec_driver_sql("PRAGMA main.journal_mode = WAL")
        self.close()

    def close(self) -> None:
        """Close the file; the tables with the numbers are gone."""
        self._opened.close()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped


def _copy_users(connection: Connection, numbers: Map, clock: ClockState) -> None:
    """Copy all users of the attached file who go into the new one, with all that they have but messages."""
    for table in (numbers.users, numbers.chats):
        connection.execute(CreateTable(table))
    for statement in (
        *(number_users(numbers), copy_users(numbers, clock), copy_acknowledged(numbers)),
        *(copy_blocks(numbers), copy_hook_calls(numbers)),
        *(number_chats(numbers), copy_chats(numbers)),
    ):
        connection.execute(statement)


def _copy_slice(connection: Connection, sources: Sequence[Source], maps: Sequence[Map], slice_: int) -> int:
    """Copy the messages of one slice whose recipients have been copied, from all files; how many."""
    copied = 0
    for source, numbers in zip(sources, maps, strict=True):
        low, high = source.limits[slice_ : slice_ + 2]
        if low < high:
            with attached(connection, source.path, "immutable"):
                copied += _copy_to_slice(connection, numbers, source, low, high)
    if copied:
        _write_marks(connection)
        names = [column.name for column in messages.columns if column.name != "number"]
        order = (_merged.c.passed, _merged.c.number)
        rows = select(*(_merged.c[name] for name in names)).order_by(*order)
        connection.execute(insert(messages).from_select(names, rows))
        connection.execute(delete(_merged))
    return copied


def _write_marks(connection: Connection) -> None:
    """Write marks for the messages of a slice, which get the next numbers in the order of `passed`."""
    number = (connection.scalar(select(func.max(messages.c.number))) or 0) + func.sum(func.count()).over(
        order_by=_merged.c.passed
    )
    ran = func.max(func.max(_merged.c.ran)).over(order_by=_merged.c.passed)
    rows = select(number, _merged.c.passed, ran).group_by(_merged.c.passed)
    columns = [marks.c.number, marks.c.passed, marks.c.ran]
    connection.execute(insert(marks).from_select(columns, rows))


def _copy_to_slice(connection: Connection, numbers: Map, source: Source, low: int, high: int) -> int:
    """Copy those of the attached file with numbers above `low` and up to `high` whose recipients have been copied; how many."""
    clock = source.clock
    ages = {
        "passed": _marked(_old_marks.c.passed, source.latest) - clock.passed,
        "ran": _marked(_old_marks.c.ran, clock.ran) - clock.ran,
    }
    between = and_(old_messages.c.number > low, old_messages.c.number <= high)
    return connection.execute(copy_messages(_merged, numbers, between, ages)).rowcount


def _marked(column: ColumnElement[int], without: int) -> ColumnElement[int]:
    """Return what the mark of a message in the attached file says, or `without` if it has none yet."""
    mark = select(column).where(_old_marks.c.number >= old_messages.c.number).order_by(_old_marks.c.number)
    return func.coalesce(mark.limit(1).scalar_subquery(), without)


def _set_clock(connection: Connection, sources: Sequence[Source]) -> None:
    """Set the clock: what has passed since a server ran last, by the file that says the least; its own time grows from mark to mark."""
    walls = [source.clock.wall for source in sources if source.clock.wall is not None]
    owed = min(source.clock.owed for source in sources)
    connection.execute(update(clock_table).values(owed=owed, wall=max(walls, default=None)))
    grown = select(
        marks.c.number, func.max(marks.c.ran).over(order_by=marks.c.number).label("ran")
    ).subquery()
    connection.execute(update(marks).values(ran=grown.c.ran).where(grown.c.number == marks.c.number))
