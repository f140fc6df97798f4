"""The C library's allocator, from which processes that hold connections take all their memory, Python's objects included.

Python's own allocator can give back only whole blocks of 1 MiB: one object that outlives a crowd keeps a whole block, and after 10,000
connections have gone two thirds of what they took stay. glibc's can give back every free page, also between pages that are in use
(``malloc_trim``), but does so by itself only at the end of the heap. So these processes are started with ``PYTHONMALLOC=malloc``, which
costs 5 % more instructions for a message, and ask for it when it pays.

With another C library nothing is asked for, and Python's allocator stays.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

#: The environment variable by which Python chooses its allocator.
PYTHON_MALLOC: Final = "PYTHONMALLOC"
#: Of mallopt(3). Blocks up to a size are not joined with their free neighbours at once but all together later, which takes a quarter of
#: a second when a crowd of 100,000 has left. With a size of 0 they are joined at once, and nothing is slower.
_M_MXFAST: Final = 1
#: Bytes that must have become free since the last time before giving back is worth while, or that part of what is in use, as a number of
#: bits to shift by; and the seconds between two times. It takes a quarter of a millisecond a MiB, and more again when the memory is needed
#: once more.
_WORTH: Final = 4 * 2**20
_WORTH_SHIFT: Final = 6
_PAUSE: Final = 5.0
#: A crowd leaves in several steps, and the last may be small but free pages that the others could not. So this many seconds after a time
#: that was worth while, there is one more, for this many bytes.
_REST_AFTER: Final = 10.0
_REST: Final = 2**18


class _MallInfo(ctypes.Structure):
    """``struct mallinfo2``, see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def environment_of_children(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what makes a new process use the C library's allocator, if that can give memory back and nobody has chosen another."""
    return {PYTHON_MALLOC: "malloc"} if _glibc() is not None and not environ.get(PYTHON_MALLOC) else {}


def _glibc() -> Any:
    """Return the C library, if it is glibc 2.33 or newer."""
    library = ctypes.CDLL(None)
    if not (hasattr(library, "malloc_trim") and hasattr(library, "mallinfo2")):
        return None
    library.mallinfo2.restype = _MallInfo
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library


class Allocator:
    """That of this process; `give_back` now and then. Make it before there is much to be allocated."""

    def __init__(self, release: Callable[[], None] | None = None) -> None:
        """`release` makes the process let go of what it can do without; it is called before memory is given back."""
        self._release = release
        self._library = _glibc()
        #: Whether Python's objects come from there too; if not, nobody knows how many of them are in use.
        self._has_everything = os.environ.get(PYTHON_MALLOC) == "malloc"
        #: The least that has been free since memory was given back, and when that was.
        self._least_free = 0
        self._given_back_at = 0.0
        #: When to give back the rest.
        self._rest_at = math.inf
        if self._library is not None:
            self._library.mallopt(_M_MXFAST, 0)

    def used_bytes(self) -> int | None:
        """Return what is in use; None where nobody knows."""
        if self._library is None or not self._has_everything:
            return None
        info = self._library.mallinfo2()
        used: int = info.uordblks + info.hblkhd
        return used

    def give_back(self, now: float) -> bool:
        """Give free memory back to the system if enough has become free since the last time; whether it did. At most every few seconds."""
        if self._library is None or now < self._given_back_at + _PAUSE:
            return False
        info = self._library.mallinfo2()
        self._least_free = min(self._least_free, info.fordblks)
        more = info.fordblks - self._least_free
        is_worth = more >= max(_WORTH, info.uordblks >> _WORTH_SHIFT)
        if not is_worth and (more < _REST or now < self._rest_at):
            return False
        if self._release is not None:
            self._release()
        self._library.malloc_trim(0)
        # What was given back still counts as free.
        self._least_free = self._library.mallinfo2().fordblks
        self._given_back_at = now
        self._rest_at = now + _REST_AFTER if is_worth else math.inf
        return True
