"""The data directory: one server at a time, and whether its files are those for the number of workers.

The rules for the lock and the files are in ``core.process.data_directory``.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.process.data_directory import (
    generations,
    locking,
    missing_shards,
    open_lock,
    read_layout,
    write_lock,
)
from core.process.layout import LAYOUT_NAME, LOCK_NAME, generation_of
from core.process.settings import PREFIX, ConfigurationError
from router.supervisor.ownership import foreign, user_name

_SETTING: Final = f"{PREFIX}DATA_DIR"


class DataDirectory:
    """A directory that is ours until `release`, and until the last process to which `lock` was passed on has ended."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        #: Descriptor that holds the lock.
        self.lock = lock

    def is_prepared(self, workers: int) -> bool:
        """Return whether the files for these workers are there, and no others. Raises ConfigurationError for a layout that can't be read.

        If not, ``python -m workers.store prepare`` makes it so, or says why it can't.
        """
        with _another_may_do():
            layout = read_layout(self.path)
        if layout is None or layout.workers != workers:
            return False
        try:
            return generations(self.path) == [layout.generation] and not missing_shards(self.path, layout)
        except OSError as error:
            raise ConfigurationError(
                f"can't read {self.path}: {error.strerror}; expected a directory that the server's user can read"
            ) from None

    def note(self, run_dir: Path) -> None:
        """Write down where a keeper listens if this server's supervisor is killed (``router.supervisor.takeover``)."""
        write_lock(self.lock, str(run_dir))

    def release(self) -> None:
        """Let others have it."""
        os.close(self.lock)


def create_data_directory(path: Path) -> None:
    """Create it if need be, and make sure that it and what is in it are ours alone, and that it can be written to.

    What is ours to look after there is checked, not what else an operator keeps in it. Raises ConfigurationError.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(path)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"can't write to the data directory {path}: {error.strerror}; expected a directory that the server's user can write to;"
            f" choose another directory with {_SETTING}"
        ) from None


def _check_owner(path: Path) -> None:
    """Check that nobody else can make a link to a directory elsewhere lead somewhere else. Raises ConfigurationError and OSError."""
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"the data directory {path} is a symbolic link that belongs to another user, {user_name(link.st_uid)}: create the link as"
            f" {user_name(os.geteuid())} or as root, or choose another directory with {_SETTING}"
        )
    if (problem := foreign(path, path.stat())) is not None:
        raise ConfigurationError(
            f"the data directory {path} {problem}; or choose another directory with {_SETTING}"
        )
    for file in _files(path):
        try:
            status = file.lstat()
        except FileNotFoundError:
            continue  # what a server that is just ending removes
        problem = "is a symbolic link" if stat.S_ISLNK(status.st_mode) else foreign(file, status)
        if problem is not None:
            raise ConfigurationError(
                f"{file} {problem}; every file in the data directory must be a regular file or directory of the server's user"
            )


def _files(path: Path) -> Iterator[Path]:
    """Return the files that a server has made in its data directory, and their directories, as far as they are there."""
    for name in os.listdir(path):
        if name in (LAYOUT_NAME, LOCK_NAME):
            yield path / name
        elif generation_of(name) is not None:
            yield path / name
            yield from (path / name / file for file in os.listdir(path / name))


async def lock_data_directory(path: Path) -> DataDirectory:
    """Take the directory, which exists. Raises ConfigurationError when another server has it, or a tool that writes."""
    with _another_may_do():
        lock = open_lock(path)
        try:
            for seconds in locking(lock, path):
                await asyncio.sleep(seconds)
        except BaseException:
            os.close(lock)
            raise
    return DataDirectory(path, lock)


@contextmanager
def _another_may_do() -> Iterator[None]:
    """Add to a ConfigurationError how another directory is chosen."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; or choose another directory with {_SETTING}") from None
