"""Tools and the re-sharding read SQLite files, so what is in commit logs only must be folded first (``workers.store.commit_log``).

A server folds everything within seconds, so beside one a tool waits for what was committed before it began. Where no server runs, what a
killed one has left is folded here.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from core.process.settings import ConfigurationError
from workers.store import statements
from workers.store.data_directory import file_uri, is_locked, locked
from workers.store.segment import Content, read_log, segment_paths
from workers.store.storage import Storage

#: Seconds to wait for a server, which takes two, or longer when its disk is slow; and between two looks.
_PATIENCE: Final = 20.0
_RETRY: Final = 0.1
#: Higher than the number of any record.
_NEVER: Final = 2**63 - 1


def catch_up(directory: Path, shards: Sequence[str]) -> None:
    """Have all files of a directory have what had been committed when this was called. Raises ConfigurationError.

    May run beside a server.
    """
    paths = [directory / name for name in shards]
    targets = {path: unfolded(path).last for path in paths if _has_log(path)}
    deadline = time.monotonic() + _PATIENCE
    # Of a file that can't be read, whoever wants to read it says what is wrong.
    while behind := [path for path, last in targets.items() if folded_through(path) < last < _NEVER]:
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"the server has not moved the commit log of {behind[0]} into the database for {_PATIENCE:g} s: see in the server's log"
                " whether its storage fails, then try again"
            )
        if is_locked(directory):
            time.sleep(_RETRY)
            continue
        with locked(directory):
            for path in behind:
                replay(path)


def replay(path: Path) -> None:
    """Fold what is in the commit log of a file and remove the log. The caller has locked the directory. Raises ConfigurationError."""
    if not _has_log(path):
        return
    try:
        with closing(Storage(path, "fsync")):
            pass
    except (sqlite3.Error, OSError) as error:
        raise ConfigurationError(
            f"the commit log of {path} can't be moved into the database: {error}; run the command as the server's user, or check the disk"
        ) from error


def unfolded(path: Path) -> Content:
    """Return what is in the commit log of a file only, as it was at one moment. Raises ConfigurationError when it can't be read."""
    folded = folded_through(path)
    while True:
        try:
            content = read_log(path, folded)
        except OSError as error:
            raise ConfigurationError(
                f"can't read the commit log of {path}: {error.strerror}; run the command as the server's user or as root"
            ) from None
        # A server may have folded meanwhile, and have written over what was to be read.
        before, folded = folded, folded_through(path)
        if folded == before:
            return content


def folded_through(path: Path) -> int:
    """Return the number of the last record that has been folded; higher than all when the file can't be read, or knows no log."""
    try:
        with closing(sqlite3.connect(file_uri(path, "ro"), uri=True, timeout=_PATIENCE)) as connection:
            found = connection.execute(statements.LOAD_FOLDED).fetchone()
    except sqlite3.Error:
        return _NEVER
    return int(found[0])


def _has_log(path: Path) -> bool:
    return any(segment.exists() for segment in segment_paths(path))
