"""What control groups leave to this process of the machine, as in a container: CPUs and memory. See cgroups(7).

A process is in one group of each hierarchy. Version 2 has a single hierarchy, version 1 one for each controller, and a machine may use
both. Groups are nested, and the smallest limit on the way up counts, so all of them are read that can be seen: a container often sees only
its own group, as the root of everything.

`root` is where ``/proc`` and the mount points are looked for. What can't be read is no limit.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

_ROOT: Final = Path("/")
#: File system types of the two versions.
_VERSION_1: Final = "cgroup"
_VERSION_2: Final = "cgroup2"
#: How mountinfo writes blanks and backslashes; see proc(5).
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class _Mount(NamedTuple):
    """Where a hierarchy can be seen."""

    version: str
    #: Those of version 1; the unified hierarchy names none.
    controllers: frozenset[str]
    #: The group that is seen at `point`; what is above it is out of sight.
    root: PurePosixPath
    point: PurePosixPath


def cpus(root: Path = _ROOT) -> float:
    """Return how many CPUs may be used at the same time, on average; a fraction of one is possible. Infinite when there is no limit."""
    found = math.inf
    for version, group in _groups("cpu", root):
        with suppress(OSError, ValueError, ZeroDivisionError):  # "max" is no number: no limit here
            if version == _VERSION_2:
                quota, period = map(int, (group / "cpu.max").read_text().split())
            else:
                quota = int((group / "cpu.cfs_quota_us").read_text())
                period = int((group / "cpu.cfs_period_us").read_text())
            if quota > 0:
                found = min(found, quota / period)
    return found


def memory_bytes(root: Path = _ROOT) -> float:
    """Return how much memory may be used. Infinite when there is no limit.

    Past ``memory.high`` nothing is killed, but every process of the group is slowed down until it hardly runs: a limit all the same.
    """
    found = math.inf
    for version, group in _groups("memory", root):
        names = ("memory.max", "memory.high") if version == _VERSION_2 else ("memory.limit_in_bytes",)
        for name in names:
            with suppress(OSError, ValueError):
                found = min(found, int((group / name).read_text()))
    return found


def usable_cpus() -> int:
    """Return how many CPUs this process may use, at least 1: of those that it may run on what its control groups leave, rounded up."""
    return max(1, math.ceil(min(affinity(), cpus())))


def affinity() -> int:
    """Return on how many CPUs this process may run."""
    return len(os.sched_getaffinity(0))


def usable_memory() -> int:
    """Return bytes of memory that this process may use: the machine's, or what its control groups leave of them."""
    return int(min(machine_memory(), memory_bytes()))


def machine_memory() -> int:
    """Return bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups(controller: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Iterate over the groups that limit this process, its own and those above it: (version, directory)."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = list(_mounts((root / "proc/self/mountinfo").read_text()))
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        for mount in mounts:
            if mount.version == _VERSION_2:
                if controllers:
                    continue
            elif controller not in controllers.split(",") or controller not in mount.controllers:
                continue
            inside = _below(PurePosixPath(path), mount.root)
            for group in (inside, *inside.parents):
                yield mount.version, root / mount.point.relative_to("/") / group


def _below(path: PurePosixPath, top: PurePosixPath) -> PurePosixPath:
    """Return where a group is below the one that is seen at the mount point; that one itself when it lies elsewhere, as seen from here."""
    if ".." in path.parts or not path.is_relative_to(top):
        return PurePosixPath()
    return path.relative_to(top)


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        version, _, options = after.split(" ", 2)
        if version in (_VERSION_1, _VERSION_2):
            group, point = (PurePosixPath(_unescaped(part)) for part in before.split(" ")[3:5])
            yield _Mount(version, frozenset(options.split(",")), group, point)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
