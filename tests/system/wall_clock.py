"""The time of day as the processes of a server see it, which a test moves as it likes, before they start or while they run.

Python runs a file named ``sitecustomize.py`` at the start of each process, if its directory is in PYTHONPATH. This one puts functions of
its own in the place of those that tell the time of day; they add to the time what a file says. The monotonic clock stays what it is, as
on a machine whose clock is set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.started_processes import python_path

_SITECUSTOMIZE: Final = """
import os
import time

_directory = os.path.dirname(__file__)
_time_ns = time.time_ns


def time_ns():
    for name in (f"offset-{os.getpid()}", "offset"):
        try:
            with open(os.path.join(_directory, name)) as file:
                return _time_ns() + int(file.read()) * 1_000_000_000
        except FileNotFoundError:
            pass


time.time_ns = time_ns
time.time = lambda: time_ns() / 1e9
"""


class WallClock:
    """The clock of all servers that are started from here on."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        (directory / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        monkeypatch.setenv("PYTHONPATH", python_path(directory))
        self.is_off_by(0)

    def is_off_by(self, seconds: int, pid: int | None = None) -> None:
        """From now on it says what it should, and so many seconds more: for all processes, or for this one."""
        new = self._directory / "new"
        new.write_text(str(seconds))
        new.rename(self._directory / ("offset" if pid is None else f"offset-{pid}"))
