"""Preparing a data directory for a number of workers: making its first files, and new ones when that number has changed.

    upgrade the old files, move their logs into them --> copy, index, count --> sync --> switch layout.json --> remove the old files
                                                                                           |
                    killed before: the old files hold, and the new ones are removed at     +-- after: the new files hold
                    the next start

The new files are filled side by side, one thread each, since SQLite does the work in long statements during which other threads run.
Users, chats and messages get new numbers in each file, 1, 2, 3 ..., so numbers never grow beyond what there is. What a client may have
seen is copied as it is: positions, epochs, acknowledgements.

Messages must lie in the order of time, since retention takes the first rows of a file for the oldest; and the messages of a mailbox in
the order of their positions. The rows of one old file therefore stay in their order, and the files are merged by time: all are cut at
the same moments into slices that fit into memory, and what the files have in one slice is sorted by the latest time up to each row.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    MetaData,
    Table,
    and_,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
)
from sqlalchemy.schema import CreateIndex, CreateTable, DropIndex

from core.layout import LAYOUT_NAME, Layout
from core.placement import Placement
from core.settings import ConfigurationError
from workers.store.data_directory import (
    UNFINISHED_NAME,
    Unreadable,
    check_directory,
    connected,
    file_uri,
    generations,
    give_to_owner,
    missing_shards,
    read_layout,
    remove_generation,
    switch,
    sync,
)
from workers.store.database import reason, upgrade
from workers.store.schema import NO_CHAT, acknowledged, chats, messages, users

_log = logging.getLogger("fastchat.store")

#: What the new files may take, as a multiple of the old: the rows again, and what sorting for the indexes takes meanwhile.
_ROOM: Final = 1.5
#: Bytes of an empty file, generously.
_EMPTY_FILE: Final = 128 * 1024
#: Rows of a slice, about: what attaching a file costs must not matter beside it.
_SLICE_ROWS: Final = 50_000
#: Messages whose time is looked at to know where slices begin.
_SAMPLES: Final = 20_000
#: Memory for pages of each file that is being filled, in KiB.
_CACHE_KIB: Final = 64 * 1024
#: Seconds between two lines of progress.
_PROGRESS_INTERVAL: Final = 1.0

_TABLES: Final = (users, chats, messages, acknowledged)
#: Rows of each of `_TABLES`.
Counts = tuple[int, ...]

_old: Final = MetaData(schema="old")
_old_users, _old_chats, _old_messages, _old_acknowledged = (
    table.to_metadata(_old, schema="old") for table in _TABLES
)


def prepare(directory: Path, workers: int) -> Layout:
    """Make the directory hold files for this number of workers; what holds afterwards. The caller has locked it.

    Raises ConfigurationError when that can't be done; what held before does then hold still.
    """
    check_directory(directory)
    held = read_layout(directory)
    try:
        if held is None:
            _check_unused(directory)
        elif missing := missing_shards(directory, held):
            raise ConfigurationError(
                f"{directory / missing[0]} is {'empty' if (directory / missing[0]).exists() else 'missing'}"
                + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
                + ": restore the data directory from a backup, all of it at once"
            )
        (directory / UNFINISHED_NAME).unlink(missing_ok=True)
        for left in directory.glob("etilqs_*"):
            # SQLite removes its temporary files as soon as it has opened them; a kill may come in between.
            left.unlink(missing_ok=True)
        for generation in generations(directory):
            if held is None or generation != held.generation:
                remove_generation(directory, generation)
        if held is None:
            return _make(directory, Layout(1, workers), lambda layout: None)
        if held.workers == workers:
            return held
        new = Layout(held.generation + 1, workers)
        made = _make(directory, new, lambda layout: _Reshard(directory, held, new).run())
        # Nothing depends on it any more: if it fails, it is done at the next start.
        with suppress(OSError):
            remove_generation(directory, held.generation)
        return made
    except OSError as error:
        raise ConfigurationError(
            f"can't prepare the data directory {directory} for {workers} workers: {error.strerror}"
        ) from error
    except Unreadable as error:
        raise ConfigurationError(
            f"can't prepare the data directory {directory} for {workers} workers: {reason(error)};"
            f" what holds is untouched: `python -m workers.store check {directory}` tells whether it is damaged"
        ) from error


def _check_unused(directory: Path) -> None:
    """Without a layout nothing must be there that a server has used: it would be removed."""
    for generation in generations(directory):
        files = sorted((directory / Layout(generation, 1).directory).glob("*.db"))
        if any(map(_has_users, files)):
            # As it must have been, for the operator to write it again.
            expected = Layout(generation, len(files)).encode().decode().strip()
            raise ConfigurationError(
                f"{directory / LAYOUT_NAME} is missing, and there are users in {files[0].parent}: restore it from a backup;"
                f" if no other file is missing, it says {expected}"
            )


def _has_users(path: Path) -> bool:
    """Whether there may be something in this file that anybody would miss."""
    if path.stat().st_size == 0:
        return False
    try:
        with connected(path, "rw") as connection:
            if not connection.dialect.has_table(connection, users.name):
                return False
            return connection.scalar(select(users.c.number).limit(1)) is not None
    except Unreadable:
        return True


def _make(directory: Path, layout: Layout, fill: Callable[[Layout], None]) -> Layout:
    """Make a generation of empty files, fill it, and let it hold."""
    place = directory / layout.directory
    try:
        place.mkdir(mode=0o700)
        give_to_owner(place)
        paths = [directory / name for name in layout.shards()]
        # One by way of all migrations; the others are like it.
        upgrade(paths[0])
        for path in paths[1:]:
            shutil.copyfile(paths[0], path)
        for path in paths:
            path.chmod(0o600)
            give_to_owner(path)
        fill(layout)
        for path in paths:
            sync(path)
        sync(place)
        switch(directory, layout)
    except BaseException:
        # What a crash leaves is removed at the next start; what a refusal leaves must not fill the disk until then.
        if read_layout(directory) != layout:
            shutil.rmtree(place, ignore_errors=True)
        raise
    return layout


class _Source(NamedTuple):
    """An old file."""

    path: Path
    #: Slice i has the messages with numbers above limits[i] and up to limits[i + 1].
    limits: list[int]


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


#: What several old files have in one slice, until it is sorted; `latest` is the latest time of sending in one file up to there.
_merged: Final = messages.to_metadata(MetaData(schema="temp"), schema="temp", name="messages_of_a_slice")
_merged.indexes.clear()
_merged.append_column(Column("latest", Integer, nullable=False))


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
            _settle(path)
        expected = _sum(map(_count, paths))
        self._total = expected[_TABLES.index(messages)]
        sources = _slice(paths, self._total)
        self._tell()
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
        self._tell()
        if found != expected:
            differences = ", ".join(
                f"{expected} {table.name} and {found} after"
                for table, expected, found in zip(_TABLES, expected, found, strict=True)
                if expected != found
            )
            raise ConfigurationError(
                f"the files in {self._directory / self._held.directory} can't be copied as they are: there are {differences};"
                f" `python -m workers.store check {self._directory}` tells more; the server still starts with WORKERS={self._held.workers}"
            )

    def _check_room(self, paths: Sequence[Path]) -> None:
        # What is in a log moves into its file first, where it may replace something or not.
        held = sum(file.stat().st_size for path in paths for file in (path, _log_of(path)) if file.exists())
        needed = int(held * _ROOM) + self._new.workers * _EMPTY_FILE
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise ConfigurationError(
                f"the disk is too full to go from {self._held.workers} to {self._new.workers} workers: new files are made beside the old"
                f" in {self._directory}, which takes up to {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free;"
                f" the server still starts with WORKERS={self._held.workers}"
            )

    def _wait(self, filling: Sequence[Future[Counts]]) -> None:
        """Raises what the first thread that fails has raised."""
        left: set[Future[Counts]] = set(filling)
        try:
            while left:
                done, left = wait(left, _PROGRESS_INTERVAL, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if left:
                    self._tell()
        except BaseException:
            self._failed.set()
            raise

    def _tell(self) -> None:
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

    def _fill(self, path: Path, slots: list[int], sources: Sequence[_Source]) -> Counts:
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
                    _copy_users(connection, numbers, slots)
            if len(sources) > 1:
                connection.execute(CreateTable(_merged))
            for slice_ in range(len(sources[0].limits) - 1):
                if self._failed.is_set():
                    return ()
                copied = _copy_slice(connection, sources, maps, slice_)
                with self._lock:
                    self._copied += copied
            for index in messages.indexes:
                if self._failed.is_set():
                    return ()
                connection.execute(CreateIndex(index))
            # As `workers.store.database` leaves its files.
            connection.exec_driver_sql("PRAGMA locking_mode = NORMAL")
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        with self._lock:
            self._finished += 1
        return _count(path)


def _copy_users(connection: Connection, numbers: _Map, slots: list[int]) -> None:
    """All users of the attached file who live in these slots, with their chats and acknowledged positions."""
    for table in (numbers.users, numbers.chats):
        connection.execute(CreateTable(table))

    user, chat = numbers.users, numbers.chats
    new = _greatest(connection, users) + func.row_number().over(order_by=_old_users.c.number)
    theirs = select(_old_users.c.number, new).where(_old_users.c.slot.in_(slots))
    connection.execute(insert(user).from_select(["old", "new"], theirs))
    _copy(
        connection,
        users,
        {"number": user.c.new},
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


def _copy_slice(connection: Connection, sources: Sequence[_Source], maps: Sequence[_Map], slice_: int) -> int:
    """The messages of one slice whose recipients have been copied, from all files; how many."""
    target = messages if len(sources) == 1 else _merged
    copied = 0
    for source, numbers in zip(sources, maps, strict=True):
        low, high = source.limits[slice_ : slice_ + 2]
        if low < high:
            with _attached(connection, source.path):
                copied += _copy_messages(connection, target, numbers, low, high)
    if target is _merged and copied:
        names = [column.name for column in messages.columns if column.name != "number"]
        order = (_merged.c.latest, _merged.c.number)
        rows = select(*(_merged.c[name] for name in names)).order_by(*order)
        connection.execute(insert(messages).from_select(names, rows))
        connection.execute(delete(_merged))
    return copied


def _copy_messages(connection: Connection, target: Table, numbers: _Map, low: int, high: int) -> int:
    """Those of the attached file with numbers above `low` and up to `high` whose recipients have been copied; how many."""
    message, user, chat = _old_messages, numbers.users, numbers.chats
    changed: dict[str, ColumnElement[Any] | None] = {
        # Without their own numbers: they get the next ones.
        "number": None,
        "mailbox": user.c.new,
        "chat": func.coalesce(chat.c.new, NO_CHAT),
    }
    if target is _merged:
        changed["latest"] = func.max(_past(message.c.sent_at)).over(order_by=message.c.number)
    return _copy(
        connection,
        target,
        changed,
        message.join(user, user.c.old == message.c.mailbox).join(
            chat, chat.c.old == message.c.chat, isouter=True
        ),
        message.c.number,
        # One that refers to a chat that is not there stays behind, and the counts tell.
        and_(message.c.number > low, message.c.number <= high),
        or_(chat.c.new.is_not(None), message.c.chat == NO_CHAT),
    )


def _copy(
    connection: Connection,
    table: Table,
    changed: Mapping[str, ColumnElement[Any] | None],
    source: FromClause,
    order: ColumnElement[int],
    *conditions: ColumnElement[bool],
) -> int:
    """INSERT into `table` what its namesake in the attached file has, but for columns that are `changed`, or left out; how many rows."""
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
    """An old file under the name ``old``. It is settled and nobody writes to it, so SQLite need not look out for that."""
    connection.exec_driver_sql("ATTACH DATABASE ? AS old", (file_uri(path, "immutable"),))
    yield
    connection.exec_driver_sql("DETACH DATABASE old")


# -- Old files --


def _settle(path: Path) -> None:
    """Move what is in the log of a file into the file. Raises ConfigurationError when it does not go."""
    with connected(path, "rw") as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
    log = _log_of(path)
    if log.exists() and log.stat().st_size:
        raise ConfigurationError(
            f"the log {log} can't be moved into its file: another program uses it; stop that first"
        )


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _count(path: Path) -> Counts:
    with connected(path, "immutable") as connection:
        return tuple(connection.scalar(select(func.count()).select_from(table)) or 0 for table in _TABLES)


def _sum(counts: Iterable[Counts]) -> Counts:
    return tuple(map(sum, zip(*counts, strict=True)))


def _past(sent_at: ColumnElement[int]) -> ColumnElement[int]:
    """A time of sending; 0 for one in the future, from when the clock was wrong, which says nothing about the rows around it."""
    return case((sent_at > literal_column(str(time.time_ns() // 1_000_000), Integer), 0), else_=sent_at)


def _slice(paths: Sequence[Path], total: int) -> list[_Source]:
    """Cut all files at the same moments, with about as many messages between each two of them."""
    number, past = messages.c.number, _past(messages.c.sent_at)
    ends: list[tuple[int, int]] = []
    for path in paths:
        with connected(path, "immutable") as connection:
            first, last = connection.execute(select(func.min(number), func.max(number))).one()
            # In a file without messages all slices are empty.
            ends.append((first - 1, last) if first is not None else (0, 0))
    step = sum(last - before for before, last in ends) // _SAMPLES + 1
    times: list[int] = []
    for path, (before, last) in zip(paths, ends, strict=True):
        with connected(path, "immutable") as connection:
            sampled = range(before + 1, last + 1, step)
            times += connection.scalars(select(past).where(number.in_(sampled)))
    times.sort()
    slices = total // _SLICE_ROWS + 1
    edges = [times[len(times) * index // slices] for index in range(1, slices)] if times else []
    sources = []
    for path, (before, last) in zip(paths, ends, strict=True):
        limits = [before]
        with connected(path, "immutable") as connection:
            for edge in edges:
                # The first one that was sent later ends the slice; what comes after it is in the next ones whenever it was sent.
                later = select(number).where(number > limits[-1], past > edge).order_by(number).limit(1)
                first = connection.scalar(later)
                limits.append(last if first is None else first - 1)
        sources.append(_Source(path, [*limits, last]))
    return sources
