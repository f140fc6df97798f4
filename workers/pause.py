"""A timer of parts of a millisecond, which the event loop does not have: a timerfd (timerfd_create(2))."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import time
from collections.abc import Callable
from typing import Final

_NANOSECONDS: Final = 1_000_000_000


class _ITimerSpec(ctypes.Structure):
    """``struct itimerspec``: the interval, and the first expiry."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns"))


class Pause:
    """Calls `over` so many seconds after each `begin`, as long as the process lives. Raises OSError where the system has no timerfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, over: Callable[[], None]) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "timerfd_create"):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._settime = library.timerfd_settime
        self._over = over
        self._spec = ctypes.byref(_ITimerSpec(0, 0, int(seconds), int(seconds % 1 * _NANOSECONDS)))
        self._fd: int = library.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        loop.add_reader(self._fd, self._expired)

    def begin(self) -> None:
        """Begin a pause; one that has begun begins again."""
        self._settime(self._fd, 0, self._spec, None)

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it has begun again meanwhile
        self._over()
