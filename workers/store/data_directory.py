"""The data directory as the store's own programs see it: which files hold, and whether a server is using them.

The rules for the lock and the files are in ``core.process.data_directory``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from core.process.data_directory import is_there, locking, open_lock, read_layout
from core.process.layout import LAYOUT_NAME, LOCK_NAME, Layout
from core.process.settings import ConfigurationError

#: A new layout, until it holds.
UNFINISHED_NAME: Final = f"{LAYOUT_NAME}.new"

#: ``ro`` may read while a server writes, and sees the file as it was at BEGIN. ``immutable`` is for a file to which nobody writes and that
#: has no log; it makes no files beside it. ``rwc`` makes the file if there is none.
Mode = Literal["ro", "rw", "rwc", "immutable"]


def existing_layout(directory: Path) -> Layout:
    """Read what holds in a directory that a server has used. Raises ConfigurationError when it is none, or when it can't be read."""
    check_directory(directory)
    layout = read_layout(directory)
    if layout is None:
        above = directory.absolute().parent
        meant = f"; did you mean {above}?" if (above / LAYOUT_NAME).exists() else ""
        raise ConfigurationError(
            f"{directory} is no data directory of FastChat: it has no {LAYOUT_NAME}{meant}"
        )
    return layout


def check_directory(directory: Path) -> None:
    """Check a directory. Raises ConfigurationError when it is no directory or can't be looked into."""
    try:
        os.listdir(directory)
    except OSError as error:
        raise ConfigurationError(f"can't use the data directory {directory}: {error.strerror}") from None


def shard_file(directory: Path, worker: int, workers: int) -> Path:
    """Return the file of one worker of `workers`. Raises ConfigurationError when the directory is not prepared for them.

    It exists: to open a file that does not would make a new and empty one, and hide that messages are lost.
    """
    layout = existing_layout(directory)
    if layout.workers != workers:
        raise ConfigurationError(
            f"the files in {directory} are for {layout.workers} workers, not for {workers}: start the server again, which makes the files"
        )
    path = directory / layout.shard(worker)
    if not is_there(path):
        raise ConfigurationError(
            f"{path} is {'empty' if path.exists() else 'missing'}: restore the data directory from a backup, all of it at once"
        )
    return path


def next_shard_file(directory: Path, worker: int, workers: int) -> Path:
    """Return what `shard_file` will return once the files of another number of workers hold, which are being made."""
    layout = existing_layout(directory)
    return directory / Layout(layout.generation + 1, workers).shard(worker)


def remove_generation(directory: Path, generation: int) -> None:
    """Remove a generation that does not hold. Raises OSError."""
    shutil.rmtree(directory / Layout(generation, 1).directory)


def switch(directory: Path, layout: Layout) -> None:
    """Make `layout` hold, at once and durably: after a crash it is either this one or the one before. Raises OSError."""
    path = directory / LAYOUT_NAME
    new = directory / UNFINISHED_NAME
    with open(new, "wb", opener=_private) as file:
        file.write(layout.encode())
        file.flush()
        give_to_owner(new)
        os.fsync(file.fileno())
    new.rename(path)
    sync(directory)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, have reached the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_to_owner(path: Path) -> None:
    """Let a new file or directory belong to the owner of the one that it is in.

    An operator may be root where the server is not, and the server must be able to use what a tool has made.
    """
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def file_uri(path: Path, mode: Mode) -> str:
    """Return the name of a file as SQLite takes it, with parameters."""
    return f"{path.absolute().as_uri()}?mode={'ro&immutable=1' if mode == 'immutable' else mode}"


def is_locked(directory: Path) -> bool:
    """Return whether a server or a tool has locked the directory, or might have: a lock that can't be opened is somebody else's."""
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(directory: Path, inherited: int | None = None) -> Iterator[None]:
    """Own the directory; `inherited` is the descriptor of a supervisor that does already. Raises ConfigurationError while a server runs."""
    path = directory / LOCK_NAME
    if inherited is not None:
        # Of the same open file, so this succeeds at once; of any other, it tells that we were called the wrong way.
        try:
            if not os.path.samestat(os.fstat(inherited), path.stat()):
                raise ConfigurationError(f"descriptor {inherited} is not the lock of {directory}")
            fcntl.flock(inherited, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"can't lock {path} as descriptor {inherited}: {error.strerror}"
            ) from None
        yield
        return
    check_directory(directory)
    is_new = not path.exists()
    descriptor = open_lock(directory)
    try:
        if is_new:
            give_to_owner(path)
        for seconds in locking(descriptor, directory):
            time.sleep(seconds)
        yield
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
