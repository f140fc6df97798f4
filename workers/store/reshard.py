"""Filling new files from those for another number of workers; ``workers.store.prepare`` makes them, and lets them hold.

    upgrade the old files, fold their commit logs, move their write-ahead logs into them --> copy, index, count

The new files are filled side by side, one thread each, since SQLite does the work in long statements during which other threads run.
Users, chats and messages get new numbers in each file, 1, 2, 3 ..., so numbers never grow beyond what there is. What a client may have
seen is copied as it is: positions, epochs, acknowledgements.

Messages must lie in the order of their ages, as marks tell them (``workers.store.schema``), since retention takes the first rows of a
file for the oldest; and the messages of a mailbox in the order of their positions. The rows of one old file therefore stay in their order,
and the files are merged by age: all are cut at the same ages into slices that fit into memory, and what the files have in one slice is
sorted. The clocks of the new files begin at 0, so all times before are negative; no time of day is asked.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    MetaData,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.schema import CreateIndex, CreateTable, DropIndex

from core.placement import Placement
from core.process.layout import Layout
from core.process.settings import ConfigurationError
from workers.store.catch_up import replay
from workers.store.data_directory import file_uri
from workers.store.database import upgrade
from workers.store.old_files import TABLES, Counts, Source, count, log_of, settle, slices
from workers.store.retention_clock import ClockState
from workers.store.schema import NO_CHAT, acknowledged, chats, marks, messages, users
from workers.store.schema import clock as clock_table
from workers.store.tools import Unreadable, connected, reason

_log = logging.getLogger("fastchat.store")

#: What the new files may take, as a multiple of the old: the rows again, and what sorting for the indexes takes meanwhile.
_ROOM: Final = 1.5
#: Bytes of an empty file, generously.
_EMPTY_FILE: Final = 128 * 1024
#: Memory for pages of each file that is being filled, in KiB.
_CACHE_KIB: Final = 64 * 1024
#: Seconds between two lines of progress.
_PROGRESS_INTERVAL: Final = 1.0

_old: Final = MetaData(schema="old")
_old_users, _old_chats, _old_messages, _old_acknowledged = (
    table.to_metadata(_old, schema="old") for table in TABLES
)
_old_marks: Final = marks.to_metadata(_old, schema="old")


def reshard(directory: Path, held: Layout, new: Layout) -> None:
    """Fill the files of `new`, which are there and empty, from those of `held`. Raises ConfigurationError and OSError."""
    try:
        _Reshard(directory, held, new).run()
    except Unreadable as error:
        raise ConfigurationError(
            f"can't prepare the data directory {directory} for {new.workers} workers: {reason(error)};"
            f" the current files are unchanged: run `python -m workers.store check {directory}` to find damage in the files"
        ) from error


class _Map:
    """Old number -> new number of users and chats of one old file in one new file: temporary tables of the new one."""

    def __init__(self, index: int) -> None:
        temporary = MetaData(schema="temp")
        self.users, self.chats = (
            Table(
                f"{kind}_of_{index}",
                temporary,
                Column("old", Integer, primary_key=True, autoincrement=False),
                Column("new", Integer, nullable=False),
            )
            for kind in ("users", "chats")
        )


#: What the old files have in one slice, until it is sorted, with what their marks say of it, by the clock of the new file.
_merged: Final = messages.to_metadata(MetaData(schema="temp"), schema="temp", name="messages_of_a_slice")
_merged.indexes.clear()
for _name in ("passed", "ran"):
    _merged.append_column(Column(_name, Integer, nullable=False))


class _Reshard:
    """One change of the number of workers."""

    def __init__(self, directory: Path, held: Layout, new: Layout) -> None:
        self._directory = directory
        self._held = held
        self._new = new
        self._total = 0
        #: Messages copied so far, and files finished.
        self._copied = 0
        self._finished = 0
        self._lock = threading.Lock()
        #: Set when it has failed somewhere: the others need not go on.
        self._failed = threading.Event()

    def run(self) -> None:
        """Fill the new files, which are there and empty. Raises ConfigurationError, OSError and SQLAlchemyError."""
        paths = [self._directory / name for name in self._held.shards()]
        self._check_room(paths)
        for path in paths:
            upgrade(path)
            replay(path)
            settle(path)
        expected = _sum(map(count, paths))
        self._total = expected[TABLES.index(messages)]
        sources = slices(paths)
        self._log_progress()
        owners = Placement(self._new.workers).owners
        with ThreadPoolExecutor(min(self._new.workers, os.cpu_count() or 1)) as pool:
            filling = [
                pool.submit(
                    self._fill,
                    self._directory / name,
                    [slot for slot, owner in enumerate(owners) if owner == worker],
                    sources,
                )
                for worker, name in enumerate(self._new.shards())
            ]
            self._wait(filling)
        found = _sum(future.result() for future in filling)
        self._log_progress()
        if found != expected:
            differences = ", ".join(
                f"{expected} {table.name} before and {found} after the copy"
                for table, expected, found in zip(TABLES, expected, found, strict=True)
                if expected != found
            )
            raise ConfigurationError(
                f"the files in {self._directory / self._held.directory} can't be copied completely: {differences}; run"
                f" `python -m workers.store check {self._directory}` for details; the server still starts with WORKERS={self._held.workers}"
            )

    def _check_room(self, paths: Sequence[Path]) -> None:
        # What is in a log moves into its file first, where it may replace something or not.
        held = sum(file.stat().st_size for path in paths for file in (path, log_of(path)) if file.exists())
        needed = int(held * _ROOM) + self._new.workers * _EMPTY_FILE
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise ConfigurationError(
                f"the disk is too full to change from {self._held.workers} to {self._new.workers} workers: new files are needed beside the"
                f" old files in {self._directory}, which takes up to {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free;"
                f" the server still starts with WORKERS={self._held.workers}"
            )

    def _wait(self, filling: Sequence[Future[Counts]]) -> None:
        """Wait for all threads. Raises what the first of them that fails has raised."""
        left: set[Future[Counts]] = set(filling)
        try:
            while left:
                done, left = wait(left, _PROGRESS_INTERVAL, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if left:
                    self._log_progress()
        except BaseException:
            self._failed.set()
            raise

    def _log_progress(self) -> None:
        share = self._copied * 100 // self._total if self._total else 100
        _log.info(
            "re-sharding from %d to %d workers: %d %% of %s messages copied, %d of %d files finished",
            self._held.workers,
            self._new.workers,
            share,
            f"{self._total:,}",
            self._finished,
            self._new.workers,
        )

    # -- One new file, in a thread of its own --

    def _fill(self, path: Path, slots: list[int], sources: Sequence[Source]) -> Counts:
        if self._failed.is_set():
            return ()
        maps = [_Map(index) for index in range(len(sources))]
        with connected(path, "rw") as connection:
            for pragma in (
                # A file that is not finished is thrown away, and one that is gets synced as a whole.
                "journal_mode = OFF",
                "synchronous = OFF",
                "locking_mode = EXCLUSIVE",
                f"cache_size = -{_CACHE_KIB}",
                f"temp.cache_size = -{_CACHE_KIB}",
                "foreign_keys = OFF",
            ):
                connection.exec_driver_sql(f"PRAGMA {pragma}")
            for index in messages.indexes:
                connection.execute(DropIndex(index))
            for source, numbers in zip(sources, maps, strict=True):
                with _attached(connection, source.path):
                    _copy_users(connection, numbers, slots, source.clock)
            connection.execute(CreateTable(_merged))
            for slice_ in range(len(sources[0].limits) - 1):
                if self._failed.is_set():
                    return ()
                copied = _copy_slice(connection, sources, maps, slice_)
                with self._lock:
                    self._copied += copied
            _set_clock(connection, sources)
            for index in messages.indexes:
                if self._failed.is_set():
                    return ()
                connection.execute(CreateIndex(index))
            # As `workers.store.database` leaves its files.
            connection.exec_driver_sql("PRAGMA locking_mode = NORMAL")
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        with self._lock:
            self._finished += 1
        return count(path)


def _copy_users(connection: Connection, numbers: _Map, slots: list[int], clock: ClockState) -> None:
    """Copy all users of the attached file who live in these slots, with their chats and acknowledged positions."""
    for table in (numbers.users, numbers.chats):
        connection.execute(CreateTable(table))

    user, chat = numbers.users, numbers.chats
    new = _greatest(connection, users) + func.row_number().over(order_by=_old_users.c.number)
    theirs = select(_old_users.c.number, new).where(_old_users.c.slot.in_(slots))
    connection.execute(insert(user).from_select(["old", "new"], theirs))
    _copy(
        connection,
        users,
        {"number": user.c.new, "left_at": _old_users.c.left_at - clock.passed},
        user.join(_old_users, _old_users.c.number == user.c.old),
        user.c.new,
    )

    new = _greatest(connection, chats) + func.row_number().over(order_by=_old_chats.c.number)
    theirs = select(_old_chats.c.number, new).join(user, user.c.old == _old_chats.c.user)
    connection.execute(insert(chat).from_select(["old", "new"], theirs))
    _copy(
        connection,
        chats,
        {"number": chat.c.new, "user": user.c.new},
        chat.join(_old_chats, _old_chats.c.number == chat.c.old).join(user, user.c.old == _old_chats.c.user),
        chat.c.new,
    )
    _copy(
        connection,
        acknowledged,
        {"mailbox": user.c.new},
        _old_acknowledged.join(user, user.c.old == _old_acknowledged.c.mailbox),
        user.c.new,
    )


def _copy_slice(connection: Connection, sources: Sequence[Source], maps: Sequence[_Map], slice_: int) -> int:
    """Copy the messages of one slice whose recipients have been copied, from all files; how many."""
    copied = 0
    for source, numbers in zip(sources, maps, strict=True):
        low, high = source.limits[slice_ : slice_ + 2]
        if low < high:
            with _attached(connection, source.path):
                copied += _copy_messages(connection, numbers, source.clock, low, high)
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
    number = _greatest(connection, messages) + func.sum(func.count()).over(order_by=_merged.c.passed)
    ran = func.max(func.max(_merged.c.ran)).over(order_by=_merged.c.passed)
    rows = select(number, _merged.c.passed, ran).group_by(_merged.c.passed)
    columns = [marks.c.number, marks.c.passed, marks.c.ran]
    connection.execute(insert(marks).from_select(columns, rows))


def _copy_messages(connection: Connection, numbers: _Map, clock: ClockState, low: int, high: int) -> int:
    """Copy those of the attached file with numbers above `low` and up to `high` whose recipients have been copied; how many."""
    message, user, chat = _old_messages, numbers.users, numbers.chats
    changed: dict[str, ColumnElement[Any] | None] = {
        # Without their own numbers: they get the next ones.
        "number": None,
        "mailbox": user.c.new,
        "chat": func.coalesce(chat.c.new, NO_CHAT),
        "passed": _marked(_old_marks.c.passed, clock.passed + clock.owed) - clock.passed,
        "ran": _marked(_old_marks.c.ran, clock.ran) - clock.ran,
    }
    return _copy(
        connection,
        _merged,
        changed,
        message.join(user, user.c.old == message.c.mailbox).join(
            chat, chat.c.old == message.c.chat, isouter=True
        ),
        message.c.number,
        # One that refers to a chat that is not there stays behind, and the counts tell.
        and_(message.c.number > low, message.c.number <= high),
        or_(chat.c.new.is_not(None), message.c.chat == NO_CHAT),
    )


def _marked(column: ColumnElement[int], without: int) -> ColumnElement[int]:
    """Return what the mark of a message in the attached file says, or `without` if it has none yet."""
    mark = select(column).where(_old_marks.c.number >= _old_messages.c.number).order_by(_old_marks.c.number)
    return func.coalesce(mark.limit(1).scalar_subquery(), without)


def _copy(
    connection: Connection,
    table: Table,
    changed: Mapping[str, ColumnElement[Any] | None],
    source: FromClause,
    order: ColumnElement[int],
    *conditions: ColumnElement[bool],
) -> int:
    """Copy into `table` what its namesake in the attached file has, but for columns that are `changed`, or left out; how many rows."""
    old = _old.tables["old.messages" if table is _merged else f"old.{table.name}"].c
    columns = {
        column.name: changed[column.name] if column.name in changed else old[column.name]
        for column in table.columns
    }
    kept = {name: column for name, column in columns.items() if column is not None}
    rows = select(*kept.values()).select_from(source).where(*conditions).order_by(order)
    return connection.execute(insert(table).from_select(list(kept), rows)).rowcount


def _greatest(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.max(table.c.number))) or 0


@contextmanager
def _attached(connection: Connection, path: Path) -> Iterator[None]:
    """Attach an old file under the name ``old``. It is settled and nobody writes to it, so SQLite need not look out for that."""
    connection.exec_driver_sql("ATTACH DATABASE ? AS old", (file_uri(path, "immutable"),))
    yield
    connection.exec_driver_sql("DETACH DATABASE old")


def _set_clock(connection: Connection, sources: Sequence[Source]) -> None:
    """Set the clock: what has passed since a server ran last, by the file that says the least; its own time grows from mark to mark."""
    walls = [source.clock.wall for source in sources if source.clock.wall is not None]
    owed = min(source.clock.owed for source in sources)
    connection.execute(update(clock_table).values(owed=owed, wall=max(walls, default=None)))
    grown = select(
        marks.c.number, func.max(marks.c.ran).over(order_by=marks.c.number).label("ran")
    ).subquery()
    connection.execute(update(marks).values(ran=grown.c.ran).where(grown.c.number == marks.c.number))


def _sum(counts: Iterable[Counts]) -> Counts:
    return tuple(map(sum, zip(*counts, strict=True)))
