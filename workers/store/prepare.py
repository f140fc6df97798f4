"""Preparing a data directory for a number of workers: making its first files, and new ones when that number has changed.

    make empty files --> fill them from the old ones, if there are any --> sync --> switch layout.json --> remove the old files
                                                                                      |
               killed before: the old files hold, and the new ones are removed at     +-- after: the new files hold
               the next start

How they are filled, ``workers.store.reshard`` knows. ``workers.store.live_reshard`` does it while workers run.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from core.process.data_directory import generations, missing_shards, read_layout
from core.process.layout import LAYOUT_NAME, Layout
from core.process.settings import ConfigurationError
from workers.store.data_directory import (
    UNFINISHED_NAME,
    check_directory,
    file_uri,
    give_to_owner,
    remove_generation,
    switch,
    sync,
)
from workers.store.new_file import create

#: Seconds to wait for another process that has a file to itself for a moment.
_BUSY_PATIENCE: Final = 10.0


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
                + (f", and {len(missing) - 1} more files are missing or empty" if len(missing) > 1 else "")
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
            return _make(directory, None, Layout(1, workers), lambda: None)
        if held.workers == workers:
            return held
        new = Layout(held.generation + 1, workers)
        made = _make(directory, held, new, lambda: _reshard(directory, held, new))
        # Nothing depends on it any more: if it fails, it is done at the next start.
        with suppress(OSError):
            remove_generation(directory, held.generation)
        return made
    except OSError as error:
        raise ConfigurationError(
            f"can't prepare the data directory {directory} for {workers} workers: {error.strerror}"
        ) from error
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"can't prepare the data directory {directory} for {workers} workers: {error}"
        ) from error


def _reshard(directory: Path, held: Layout, new: Layout) -> None:
    # Only here, since a first start has nothing to copy and SQLAlchemy takes longer to import than all the rest.
    from workers.store.reshard import reshard

    reshard(directory, held, new)


def _check_unused(directory: Path) -> None:
    """Check that without a layout nothing is there that a server has used: it would be removed."""
    for generation in generations(directory):
        files = sorted((directory / Layout(generation, 1).directory).glob("*.db"))
        if any(map(_has_users, files)):
            # As it must have been, for the operator to write it again.
            expected = Layout(generation, len(files)).encode().decode().strip()
            raise ConfigurationError(
                f"{directory / LAYOUT_NAME} is missing, and there are users in {files[0].parent}: restore {LAYOUT_NAME} from a backup;"
                f" if no other file is missing, write {LAYOUT_NAME} with the content {expected}"
            )


def _has_users(path: Path) -> bool:
    """Return whether there may be something in this file that anybody would miss."""
    if path.stat().st_size == 0:
        return False
    try:
        with closing(sqlite3.connect(file_uri(path, "rw"), uri=True, timeout=_BUSY_PATIENCE)) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'users'").fetchone() is None:
                return False
            return connection.execute("SELECT 1 FROM users LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return True


def _make(directory: Path, held: Layout | None, layout: Layout, fill: Callable[[], None]) -> Layout:
    """Make a generation of empty files, fill it, and let it hold."""
    with new_files(directory, layout):
        fill()
        hold(directory, held, layout)
    return layout


@contextmanager
def new_files(directory: Path, layout: Layout) -> Iterator[None]:
    """Make a generation of empty files, and remove it at the end unless it holds by then. Raises OSError and sqlite3.Error."""
    place = directory / layout.directory
    try:
        place.mkdir(mode=0o700)
        give_to_owner(place)
        paths = [directory / name for name in layout.shards()]
        create(paths[0])
        for path in paths[1:]:
            shutil.copyfile(paths[0], path)
        for path in paths:
            path.chmod(0o600)
            give_to_owner(path)
        yield
    finally:
        # What a crash leaves is removed at the next start; what a refusal leaves must not fill the disk until then.
        if read_layout(directory) != layout:
            shutil.rmtree(place, ignore_errors=True)


def hold(directory: Path, held: Layout | None, new: Layout) -> None:
    """Let the files of `new`, which are complete and closed, hold instead of those of `held`. Raises OSError."""
    for name in new.shards():
        sync(directory / name)
    sync(directory / new.directory)
    try:
        switch(directory, new)
    except OSError:
        # It may be there and nobody knows whether the disk has it: after a loss of power either might hold.
        if held is not None and read_layout(directory) == new:
            switch(directory, held)
        raise
