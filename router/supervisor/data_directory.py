"""The data directory: one server at a time, and whether its files are those for the number of workers.

The lock belongs to an open file, not to a process: the supervisor hands that on to all who write below the directory, so it lasts until the
last of them is gone, also when the supervisor itself was killed. What stands in the directory is described in ``core.process.layout``.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from core.process.layout import LAYOUT_NAME, LOCK_NAME, Layout, LayoutError, generation_of, parse_layout
from core.process.settings import PREFIX, ConfigurationError
from router.supervisor.ownership import foreign, user_name

_SETTING: Final = f"{PREFIX}DATA_DIR"
#: Seconds in which another server may let go of the directory: a killed supervisor's children live up to one second longer.
_PATIENCE: Final = 2.0
_RETRY: Final = 0.05


class DataDirectory:
    """A directory that is ours until `release`, and until the last process to which `lock` was passed on has ended."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        #: Descriptor that holds the lock.
        self.lock = lock

    def is_prepared(self, workers: int) -> bool:
        """Whether the files for this number of workers are there, and no others. Raises ConfigurationError for a layout that can't be read.

        If not, ``python -m workers.store prepare`` makes it so, or says why it can't.
        """
        layout = self._layout()
        if layout is None or layout.workers != workers:
            return False
        try:
            left = any(generation_of(name) not in (None, layout.generation) for name in os.listdir(self.path))
            files = [self.path / name for name in layout.shards()]
            return not left and all(file.is_file() and file.stat().st_size for file in files)
        except OSError as error:
            raise ConfigurationError(f"can't read {self.path}: {error.strerror}") from None

    def _layout(self) -> Layout | None:
        path = self.path / LAYOUT_NAME
        try:
            return parse_layout(path.read_bytes())
        except FileNotFoundError:
            return None
        except LayoutError as error:
            raise ConfigurationError(
                f"{path} can't be used: {error}; restore it from a backup, or choose another directory with {_SETTING}"
            ) from None
        except OSError as error:
            raise ConfigurationError(f"can't read {path}: {error.strerror}") from None

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
            f"can't write to the data directory {path}: {error.strerror}; choose another with {_SETTING}"
        ) from None


def _check_owner(path: Path) -> None:
    """A link to a directory elsewhere will do, if nobody else can make it lead somewhere else. Raises ConfigurationError and OSError."""
    link = path.lstat()
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"the data directory {path} is a link that belongs to another user, {user_name(link.st_uid)}: choose another with {_SETTING}"
        )
    if (problem := foreign(path, path.stat())) is not None:
        raise ConfigurationError(f"the data directory {path} {problem}; or choose another with {_SETTING}")
    for file in _files(path):
        try:
            status = file.lstat()
        except FileNotFoundError:
            continue  # what a server that is just ending removes
        problem = "is a link" if stat.S_ISLNK(status.st_mode) else foreign(file, status)
        if problem is not None:
            raise ConfigurationError(
                f"{file} {problem}; in the data directory everything must be the server's own"
            )


def _files(path: Path) -> Iterator[Path]:
    """The files that a server has made in its data directory, and their directories, as far as they are there."""
    for name in os.listdir(path):
        if name in (LAYOUT_NAME, LOCK_NAME):
            yield path / name
        elif generation_of(name) is not None:
            yield path / name
            yield from (path / name / file for file in os.listdir(path / name))


async def lock_data_directory(path: Path) -> DataDirectory:
    """Take the directory, which exists. Raises ConfigurationError when another server has it, or a tool that writes."""
    try:
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"can't open {path / LOCK_NAME}: {error.strerror}; choose another directory with {_SETTING}"
        ) from None
    try:
        await _wait_for(lock, path)
        # For whoever is refused.
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BaseException:
        os.close(lock)
        raise
    return DataDirectory(path, lock)


async def _wait_for(lock: int, path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            holder = os.pread(lock, 32, 0).strip()
            known = f" (process {int(holder)})" if holder.isdigit() else ""
            raise ConfigurationError(
                f"the data directory {path} is in use by another server{known}: stop that, or choose another directory with {_SETTING}"
            )
        await asyncio.sleep(_RETRY)
