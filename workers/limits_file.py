"""The files in which workers leave for their successors what counts against limits (``core.chat.kept_limits``).

Each worker writes its own at an orderly end. A worker that starts reads all of them, since with another number of workers its users lived
on others. What is damaged or can't be written is forgotten, with a line in the log; what is older than a minute does not matter.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from core.chat.kept_limits import Ages, Moment, decode, encode, merge
from core.events import fields
from core.wire.protocol import RATE_WINDOW

_log = logging.getLogger("fastchat.worker")

_PATTERN: Final = "limits-*.json"
#: More than a minute of the busiest worker comes to; what is larger is none of ours.
_MAX_BYTES: Final = 64 * 2**20


def moment() -> Moment:
    """Return the time now."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Moment(boot, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


def read_limits(directory: Path) -> dict[str, Ages]:
    """Read what counts now of what workers have left here; files that no longer matter are removed."""
    now = moment()
    files = []
    for path in sorted(directory.glob(_PATTERN)):
        try:
            with open(path, "rb", opener=_own) as file:
                content = file.read(_MAX_BYTES)
            at, users = decode(content)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            _log.warning(
                "can't read what counts against limits: it is forgotten",
                extra=fields(path=path, reason=reason),
            )
            _remove(path)
            continue
        if now.seconds_since(at) < RATE_WINDOW:
            files.append((at, users))
        else:
            _remove(path)
    return merge(files, now)


def write_limits(directory: Path, worker: int, users: dict[str, Ages]) -> None:
    """Leave `users` for whoever comes next; the file is replaced as a whole. Of whom nothing counts nothing is kept."""
    path = directory / f"limits-{worker}.json"
    new = directory / f"limits-{worker}.new"
    users = {user_id: ages for user_id, ages in users.items() if any(ages)}
    try:
        if not users:
            path.unlink(missing_ok=True)
            return
        _remove(new)
        with open(new, "xb", opener=_private) as file:
            file.write(encode(users, moment()))
        new.rename(path)
    except OSError as error:
        _log.warning(
            "can't keep what counts against limits: it is forgotten",
            extra=fields(path=path, reason=error.strerror),
        )
        _remove(new)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _own(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
