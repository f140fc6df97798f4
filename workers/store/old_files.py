"""The files that a change of WORKERS starts from: settled, counted, and cut into slices of the same ages, see ``workers.store.reshard``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import func, select

from core.process.settings import ConfigurationError
from workers.store.retention_clock import ClockState
from workers.store.schema import acknowledged, blocks, chats, hook_calls, marks, messages, users
from workers.store.schema import clock as clock_table
from workers.store.tools import connected

#: Rows of a slice, about: what attaching a file costs must not matter beside it.
SLICE_ROWS: Final = 50_000

TABLES: Final = (users, chats, messages, acknowledged, blocks, hook_calls)
#: Rows of each of `TABLES`.
Counts = tuple[int, ...]


class Source(NamedTuple):
    """An old file."""

    path: Path
    clock: ClockState
    #: By when, on that clock, its last message had been stored.
    latest: int
    #: Slice i has the messages with numbers above limits[i] and up to limits[i + 1].
    limits: list[int]


def settle(path: Path) -> None:
    """Move what is in the log of a file into the file. Raises ConfigurationError when it does not go."""
    with connected(path, "rw") as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
    log = log_of(path)
    if log.exists() and log.stat().st_size:
        raise ConfigurationError(
            f"the write-ahead log {log} can't be moved into the database file: another program has the file open; stop that program first"
        )


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def count(path: Path) -> Counts:
    with connected(path, "immutable") as connection:
        return tuple(connection.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES)


def _cuts(path: Path, clock: ClockState, latest: int) -> Iterator[tuple[int, int, int]]:
    """List cuts in an old file, (passed, number, rows), oldest first: messages up to that number are as old as that by the new clock.

    Between two of them there are as many rows at most, and not more than a slice has.
    """
    with connected(path, "immutable") as connection:
        first, last = connection.execute(
            select(func.min(messages.c.number), func.max(messages.c.number))
        ).one()
        if last is None:
            return
        known = connection.execute(select(marks.c.number, marks.c.passed).order_by(marks.c.number))
        number = first - 1
        for through, passed in (*known, (last, latest)):
            while number < min(through, last):
                rows = min(through, last, number + SLICE_ROWS) - number
                number += rows
                yield passed - clock.passed, number, rows


def slices(paths: Sequence[Path], now: int | None = None) -> list[Source]:
    """Cut all files at the same ages, with about as many messages between each two of them.

    `now` is the time of day in milliseconds since 1970 if the files are copies of files in use, where messages are younger than the clock.
    """
    clocks = [_clock_of(path) for path in paths]
    latest = [
        clock.passed + clock.owed + (max(0, now - clock.wall) if now and clock.wall is not None else 0)
        for clock in clocks
    ]
    cuts = sorted(
        (passed, index, number, rows)
        for index, known in enumerate(zip(paths, clocks, latest, strict=True))
        for passed, number, rows in _cuts(*known)
    )
    # Numbers begin at 1.
    reached = [0] * len(paths)
    edges = [list(reached)]
    waiting = 0
    for _, index, number, rows in cuts:
        reached[index] = number
        waiting += rows
        if waiting >= SLICE_ROWS:
            edges.append(list(reached))
            waiting = 0
    edges.append(reached)
    return [
        Source(path, clock, last, [limits[index] for limits in edges])
        for index, (path, clock, last) in enumerate(zip(paths, clocks, latest, strict=True))
    ]


def _clock_of(path: Path) -> ClockState:
    with connected(path, "immutable") as connection:
        columns = (clock_table.c.passed, clock_table.c.ran, clock_table.c.owed, clock_table.c.wall)
        return ClockState(*connection.execute(select(*columns)).one())
