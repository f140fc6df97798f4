"""``python -m workers.store backup`` and ``restore``: a copy of a data directory, made while its server runs, and its way back.

SQLite's own backup copies each file as it was at one moment, while others write to it. The moment is chosen for all files before the first
is copied: whatever had been acknowledged when the tool was started is in the copy. As long as it
takes, the logs of the files that are still to be copied grow instead of beginning again.

A copy is made beside its place, under another name, and gets its name when all of it is on the disk: what has the name is complete.

A restored directory is behind what clients have seen. Their cursors (D13) would mean positions that are given once more, to other
messages, so `restore` gives each mailbox a new epoch: a client that asks to resume is told ``reset``, and gets all that is
unacknowledged. That is why copying the files back by hand will not do.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

from core.process.layout import Layout
from core.process.settings import ConfigurationError
from workers.store.catch_up import catch_up
from workers.store.check import check
from workers.store.data_directory import Mode, existing_layout, file_uri, switch, sync

#: What is put behind the name of a copy until it is complete.
UNFINISHED_SUFFIX: Final = ".unfinished"
#: Seconds that a statement waits for another process that has the file to itself for a moment.
_BUSY_PATIENCE: Final = 10.0
#: As many random digits as ``core.chat.mailbox`` takes.
_NEW_EPOCHS: Final = "UPDATE users SET epoch = lower(hex(randomblob(6)))"


def backup(directory: Path, target: Path, out: TextIO) -> int:
    """Copy a data directory, which may be in use, to `target`, and check the copy; how many problems were found.

    The copy stays also when it has problems, since there may be no better one. Raises ConfigurationError when there is none: `target`
    exists, has no room, or the files can't be read.
    """
    return _copy(directory, target, out, "the backup", ())


def restore(directory: Path, target: Path, out: TextIO) -> int:
    """Make the data directory `target` of a backup, and check it; how many problems were found. Raises ConfigurationError as `backup` does.

    `target` must not exist: what a server has used before is to be moved away, and may be wanted again.
    """
    return _copy(directory, target, out, "the data directory", (_NEW_EPOCHS,))


def _copy(directory: Path, target: Path, out: TextIO, what: str, statements: Sequence[str]) -> int:
    with _new_directory(directory, target) as unfinished:
        layout = _copy_files(directory, unfinished, statements)
        switch(unfinished, layout)
        sync(unfinished / layout.directory)
    size = sum((target / name).stat().st_size for name in layout.shards())
    problems = check(target, out)
    for name in layout.shards():
        # Who only reads leaves an empty log behind, which goes with somebody who might write.
        with suppress(sqlite3.Error), _connected(target / name, "rw") as copy:
            copy.execute("SELECT count(*) FROM sqlite_master").fetchone()
    found = f"; {problems} problems were found in it, see above" if problems else ""
    print(f"{what} is {target}, {size / 2**20:,.1f} MiB{found}", file=out)
    return problems


@contextmanager
def _new_directory(directory: Path, target: Path) -> Iterator[Path]:
    """Make a directory to write to, which becomes `target` at the end, and goes when an exception leaves."""
    layout = existing_layout(directory)
    if os.path.lexists(target):
        raise ConfigurationError(f"{target} is there already: name a directory that does not exist")
    if directory.resolve() in target.resolve().parents:
        raise ConfigurationError(f"{target} is inside {directory}: choose a directory outside {directory}")
    catch_up(directory, layout.shards())
    unfinished = target.with_name(target.name + UNFINISHED_SUFFIX)
    try:
        unfinished.mkdir(mode=0o700)
    except FileExistsError:
        raise ConfigurationError(
            f"{unfinished} exists: another backup or restore is running, or was interrupted; if none is running, remove {unfinished}"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"can't create the directory {unfinished}: {error.strerror}") from None
    try:
        yield unfinished
        unfinished.rename(target)
        sync(target.absolute().parent)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"can't copy {directory} to {target}: {reason}; the unfinished copy was removed"
        ) from None
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _copy_files(directory: Path, target: Path, statements: Sequence[str]) -> Layout:
    """Copy the files that hold; which those are. Raises sqlite3.Error, OSError and ConfigurationError."""
    with ExitStack() as opened:
        layout = existing_layout(directory)
        sources = []
        for name in layout.shards():
            path = directory / name
            if not path.is_file() or not path.stat().st_size:
                raise ConfigurationError(
                    f"{path} is {'empty' if path.exists() else 'missing'}, so {directory} can't be copied completely:"
                    f" run `python -m workers.store check {directory}` for details"
                )
            sources.append(opened.enter_context(_connected(path, "ro")))
        for source in sources:
            # The moment is that of the first look.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if existing_layout(directory) != layout:
            raise ConfigurationError(
                f"a server with another number of workers was started while {directory} was copied: try again"
            )
        (target / layout.directory).mkdir(mode=0o700)
        for name, source in zip(layout.shards(), sources, strict=True):
            _copy_file(source, target / name, statements)
            source.execute("ROLLBACK")
    return layout


def _copy_file(source: sqlite3.Connection, path: Path, statements: Sequence[str]) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with _connected(path, "rw") as copy:
        # Nobody sees the file before all of it is synched below.
        copy.execute("PRAGMA synchronous = OFF")
        # In one step: in several, each commit of somebody else's in between would make it begin anew.
        source.backup(copy, pages=-1)
        for statement in statements:
            copy.execute(statement)
        # It has become a file with a log; what was done to it is to be in the file itself.
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    sync(path)


def _connected(path: Path, mode: Mode) -> closing[sqlite3.Connection]:
    """Open a connection of the driver's, which alone has SQLite's backup, where each statement is a transaction until BEGIN is said."""
    return closing(
        sqlite3.connect(file_uri(path, mode), uri=True, timeout=_BUSY_PATIENCE, isolation_level=None)
    )
