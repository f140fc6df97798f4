"""The directory with the sockets between our own processes.

It is private: whoever can open a socket in it can hand connections to a worker. It belongs to one start of the server: the processes of an
earlier one that was killed may live a second longer, and what they do to *their* sockets on their way out must not hit ours. So it is
a new directory each time, inside one that is locked by the server that uses it; what earlier ones left there is removed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from core.placement import WORKERS_MAX
from core.process.bus import bus_endpoint
from core.process.descriptors import Descriptor, Keep
from core.process.handover import endpoint
from core.process.settings import PREFIX, ConfigurationError
from core.process.succession import succession_endpoint
from router.supervisor.ownership import foreign

_SETTING: Final = f"{PREFIX}RUN_DIR"
#: What the socket for operators is called in the directory (``router.operator.socket``).
OPERATOR_SOCKET: Final = "operator.sock"
#: ``sun_path`` of a unix socket has 108 bytes, and the last one is 0.
_PATH_MAX_BYTES: Final = 107
#: What our directories in the locked one are called; nothing else in there is touched.
_NAME: Final = re.compile(r"run-[0-9a-f]{4}")
#: Seconds in which another server may let go of the directory: the one before this on the same port, which is just ending.
_PATIENCE: Final = 1.5
_RETRY: Final = 0.05


class RunDirectoryState(NamedTuple):
    """What another program needs to go on with the directory."""

    path: str
    lock: Descriptor
    created: list[str]


class RunDirectory:
    """A directory of our own; `remove` it at the end."""

    def __init__(self, path: Path, lock: int, created: list[Path]) -> None:
        self.path = path
        #: Descriptor of the directory around it, whose lock ends with this process if not before.
        self._lock = lock
        #: Directories that go too if they are empty, innermost first.
        self._created = created

    def to_state(self, keep: Keep) -> RunDirectoryState:
        """Return what `taken_up` needs; `keep` is called with the descriptor."""
        return RunDirectoryState(str(self.path), keep(self._lock), [*map(str, self._created)])

    @classmethod
    def taken_up(cls, state: RunDirectoryState) -> Self:
        """Go on with the directory of another program."""
        return cls(Path(state.path), state.lock, [*map(Path, state.created)])

    def restore(self) -> bool:
        """Make it again if it was removed; whether it was. Raises ConfigurationError when the place is not ours any more.

        Cleaners of temporary files do that, and people. The sockets that were in it are opened again by those whose they are.
        """
        base = self.path.parent
        try:
            if not _is_locked_by(base, self._lock):
                lock = _lock_now(base, self._created or [base])
                if lock is None:
                    raise ConfigurationError(
                        f"the run directory {base} was removed, and another server uses this path now:"
                        f" stop one of the two servers, or give each a directory of its own with {_SETTING}"
                    )
                os.close(self._lock)
                self._lock = lock
            elif self.path.is_dir():
                return False
            self.path.mkdir(mode=0o700, exist_ok=True)
            _check_owner(self.path)
        except OSError as error:
            raise ConfigurationError(
                f"the run directory {self.path} was removed, and the server can't create the directory again: {error.strerror}"
            ) from None
        return True

    def remove(self) -> None:
        """Remove it and everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        for directory in self._created:
            with suppress(OSError):
                directory.rmdir()
        os.close(self._lock)


async def create_run_directory(setting: Path | None, port: int) -> RunDirectory:
    """Create a directory below the one that the operator set, or below the default one of this user and port.

    Raises ConfigurationError when the place is not ours alone, is in use by another server, or has too long a name.
    """
    base = base_directory(setting, port)
    created = [base, base.parent] if setting is None else [] if base.exists() else [base]
    _check_length(base)
    try:
        lock = await _lock(base, created)
        try:
            for left in run_directories(base):
                shutil.rmtree(left, ignore_errors=True)
            path = base / f"run-{os.urandom(2).hex()}"
            path.mkdir(mode=0o700)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise ConfigurationError(
            f"can't use {base} for the server's own sockets: {error.strerror}; choose another directory with {_SETTING}"
        ) from None
    return RunDirectory(path, lock, created)


def default_parent() -> Path:
    """Return where the directories of this user's servers are, by public port, unless the operator has set another one."""
    return Path(tempfile.gettempdir()) / f"fastchat-{os.geteuid()}"


def operator_sockets(base: Path) -> list[Path]:
    """Return the operators' sockets below the directory that a server was given, or in it if it is the server's own; there is one at most,
    unless the directory is the server's no more."""
    return [
        path for directory in [base, *run_directories(base)] if (path := directory / OPERATOR_SOCKET).exists()
    ]


def base_directory(setting: Path | None, port: int) -> Path:
    """Return the directory that a server locks, in which it makes one of its own."""
    return default_parent() / str(port) if setting is None else setting.absolute()


def run_directories(base: Path) -> list[Path]:
    """Return those that servers have made in there: of the server that runs, or what others have left. Raises OSError."""
    return [base / name for name in sorted(os.listdir(base)) if _NAME.fullmatch(name)]


async def _lock(base: Path, created: list[Path]) -> int:
    """Lock `base`, created if need be, and return the descriptor that holds the lock."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        # A server that just ended may take away at any moment what it had in common with us.
        with suppress(FileNotFoundError):
            lock = _lock_now(base, created)
            if lock is not None:
                return lock
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"{base} is in use by another server: choose another directory with {_SETTING}"
            )
        await asyncio.sleep(_RETRY)


def _lock_now(base: Path, created: list[Path]) -> int | None:
    """Do the same, or return None while somebody else has the lock, or takes the directory away."""
    for directory in reversed(created):
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700, parents=True)
        # Before anything is put into it: a name in a directory where everybody can write may lead anywhere.
        _check_owner(directory)
    if not created:
        _check_owner(base)
    lock = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_locked_by(base, lock):
            return lock
    os.close(lock)
    return None


def _is_locked_by(base: Path, lock: int) -> bool:
    """Return whether `base` is still the directory that `lock` is a descriptor of."""
    try:
        return os.path.samestat(os.fstat(lock), os.lstat(base))
    except FileNotFoundError:
        return False


def _check_owner(directory: Path) -> None:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        problem: str | None = "is not a directory: remove that file or link"
    else:
        problem = foreign(directory, status)
    if problem is not None:
        raise ConfigurationError(
            f"{directory} {problem}; or choose another directory with {_SETTING}: the directory holds the server's own sockets, so no other"
            " user may have write permission"
        )


def _check_length(base: Path) -> None:
    directory, last = str(base / "run-0000"), WORKERS_MAX - 1
    names = (
        bus_endpoint(directory, last, 0),
        endpoint(directory, last),
        succession_endpoint(directory, last),
        f"{directory}/{OPERATOR_SOCKET}",
    )
    too_long = max(len(os.fsencode(name)) for name in names) - _PATH_MAX_BYTES
    if too_long > 0:
        raise ConfigurationError(
            f"the path {base} is {too_long} bytes too long for unix sockets: choose a shorter path with {_SETTING}"
        )
