"""What every program that uses the data directory does alike: read its layout, see which files are there, and lock it.

What stands in the directory is described in ``core.process.layout``. A program that writes to it holds the lock. The lock belongs to an
open file, not to a process: a supervisor hands it on to its children, so it lasts until the last of them has ended, also when the
supervisor itself was killed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from core.process.layout import LAYOUT_NAME, LOCK_NAME, Layout, LayoutError, generation_of, parse_layout
from core.process.settings import ConfigurationError

#: Seconds in which a server that is just ending may let go of the lock: children of a supervisor notice its end within a second.
_PATIENCE: Final = 2.0
_RETRY: Final = 0.05
#: More than `write_lock` writes: a path of a unix socket has at most 107 bytes.
_LOCK_BYTES: Final = 4096


def read_layout(directory: Path) -> Layout | None:
    """Return what ``layout.json`` says; None when there is none. Raises ConfigurationError."""
    path = directory / LAYOUT_NAME
    try:
        return parse_layout(path.read_bytes())
    except FileNotFoundError:
        return None
    except LayoutError as error:
        raise ConfigurationError(f"{path} can't be used: {error}; restore the file from a backup") from None
    except OSError as error:
        raise ConfigurationError(
            f"can't read {path}: {error.strerror}; expected a file that the server's user can read"
        ) from None


def generations(directory: Path) -> list[int]:
    """Return the generations whose directories are there, whether they hold or not. Raises OSError."""
    found = (
        generation_of(entry.name) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)
    )
    return sorted(generation for generation in found if generation is not None)


def missing_shards(directory: Path, layout: Layout) -> list[str]:
    """Return the files of this layout that are missing or empty: to open one would make a new database of it."""
    return [name for name in layout.shards() if not is_there(directory / name)]


def is_there(shard: Path) -> bool:
    """Tell whether the file of a worker is there and has something in it."""
    return shard.is_file() and shard.stat().st_size > 0


def open_lock(directory: Path) -> int:
    """Open the lock file, and make it if need be; the descriptor is the caller's to close. Raises ConfigurationError."""
    path = directory / LOCK_NAME
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"can't open {path}: {error.strerror}; expected a file that the server's user can read and write"
        ) from None


def locking(lock: int, directory: Path) -> Iterator[float]:
    """Lock what `open_lock` has opened, and write into it which process has it. Yields the seconds to sleep before the next try.

    Raises ConfigurationError when another process keeps the lock for too long.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_lock(lock)
            return
        if time.monotonic() > deadline:
            holder = read_lock(lock)[0]
            known = f" (process {holder})" if holder else ""
            raise ConfigurationError(
                f"the data directory {directory} is in use by a server or a tool{known}: stop that process first"
            )
        yield _RETRY


def write_lock(lock: int, run_dir: str = "") -> None:
    """Write into the lock file which process has it, and the run directory of a server."""
    text = os.fsencode(f"{os.getpid()}\n{run_dir}\n" if run_dir else f"{os.getpid()}\n")
    os.pwrite(lock, text, 0)
    os.ftruncate(lock, len(text))


def read_lock(lock: int) -> tuple[int | None, str]:
    """Return what `write_lock` has written; None and an empty path for what is not known."""
    process, _, rest = os.pread(lock, _LOCK_BYTES, 0).partition(b"\n")
    return int(process) if process.isdigit() else None, os.fsdecode(rest.partition(b"\n")[0])
