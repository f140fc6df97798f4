"""Reaps processes that are nobody's children any more.

Whoever is process 1, as in a container, becomes the parent of every process whose own parent has ended, and each that ends stays a zombie
until it is reaped. So does a child that was there before this program was, of a shell that has become it.
"""

from __future__ import annotations

import os
from collections.abc import Collection


def reap_orphans(own: Collection[int]) -> int:
    """Reap the children that have ended and are not among `own`, whose exit codes somebody waits for; how many there were.

    An own child that has ended but has not been waited for may hide others until it is: call this again and again.
    """
    reaped = 0
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return reaped
        if ended is None or ended.si_pid in own:
            return reaped
        os.waitpid(ended.si_pid, os.WNOHANG)
        reaped += 1
