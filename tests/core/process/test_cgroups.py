"""core.process.cgroups: what a container leaves of the machine, on made-up trees of /proc and /sys, and in a real group if possible."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from core.process.cgroups import cpus, memory_bytes, usable_cpus, usable_memory

MIB = 2**20
#: What version 1 says where there is no limit.
NO_LIMIT = str(2**63 - 4096)
V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def tree(root: Path, cgroup: str, mountinfo: str, files: dict[str, str]) -> Path:
    """`files` are below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text("22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n" + mountinfo)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v1_mounts(root: str = "/") -> str:
    return (
        "31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
        f"32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
        f"33 31 0:30 {root} /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"
        f"34 31 0:31 {root} /sys/fs/cgroup/systemd ro,nosuid - cgroup cgroup rw,name=systemd\n"
    )


def v1_cgroup(path: str) -> str:
    return f"12:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/system.slice\n"


def test_version_2_in_a_container(tmp_path: Path) -> None:
    """It sees its own group as the root of everything, which then has the limits."""
    files = {"cpu.max": "150000 100000", "memory.max": str(256 * MIB), "memory.high": "max"}
    root = tree(tmp_path, "0::/\n", V2_MOUNT.format(root="/"), files)
    assert (cpus(root), memory_bytes(root)) == (1.5, 256 * MIB)


def test_version_2_on_the_host_the_smallest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "a.slice/cpu.max": "300000 100000",
        "a.slice/b.service/cpu.max": "max 100000",
        "a.slice/b.service/c/cpu.max": "50000 10000",
        "a.slice/memory.max": "max",
        "a.slice/memory.high": str(100 * MIB),
        "a.slice/b.service/memory.max": str(500 * MIB),
        "a.slice/b.service/c/memory.max": "max",
        "other.slice/memory.max": "4096",
        "other.slice/cpu.max": "1000 100000",
    }
    root = tree(tmp_path, "0::/a.slice/b.service/c\n", V2_MOUNT.format(root="/"), files)
    assert (cpus(root), memory_bytes(root)) == (3.0, 100 * MIB)


@pytest.mark.parametrize(
    ("seen", "path"),
    [
        ("/docker/0123", "/docker/0123"),  # no namespace: the paths of the host
        ("/", "/"),  # a namespace
        ("/..", "/../.."),  # a namespace that has been left
        ("/docker/0123", "/elsewhere"),
    ],
)
def test_version_1_in_a_container(tmp_path: Path, seen: str, path: str) -> None:
    """Whatever the paths say, the limits that can be seen are at the mount point."""
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "25000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(512 * MIB),
        "systemd/memory.limit_in_bytes": "1",
    }
    root = tree(tmp_path, v1_cgroup(path), v1_mounts(seen), files)
    assert (cpus(root), memory_bytes(root)) == (0.25, 512 * MIB)


def test_version_1_nested(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/pod/cpu.cfs_quota_us": "200000",
        "cpu,cpuacct/pod/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/pod/one/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/pod/one/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": NO_LIMIT,
        "memory/pod/memory.limit_in_bytes": str(300 * MIB),
        "memory/pod/one/memory.limit_in_bytes": NO_LIMIT,
    }
    root = tree(tmp_path, v1_cgroup("/pod/one"), v1_mounts(), files)
    assert (cpus(root), memory_bytes(root)) == (2.0, 300 * MIB)


def test_both_versions_at_once(tmp_path: Path) -> None:
    """Version 1 has the controllers here, and version 2 is beside it without any."""
    mounts = v1_mounts() + "40 31 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    files = {"memory/memory.limit_in_bytes": str(64 * MIB), "unified/cgroup.procs": ""}
    root = tree(tmp_path, v1_cgroup("/"), mounts, files)
    assert (cpus(root), memory_bytes(root)) == (math.inf, 64 * MIB)


def test_a_mount_point_with_a_blank(tmp_path: Path) -> None:
    mounts = "30 23 0:26 / /sys/fs/cgroup/of\\040mine rw - cgroup2 cgroup2 rw\n"
    root = tree(tmp_path, "0::/x\n", mounts, {"of mine/x/cpu.max": "100000 100000"})
    assert cpus(root) == 1.0


@pytest.mark.parametrize(
    "text", ["", "max", "max 100000", "nonsense", "1", "100000 0", "-1 100000", "0 100000"]
)
def test_what_says_nothing_is_no_limit(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path, "0::/\n", V2_MOUNT.format(root="/"), {"cpu.max": text, "memory.max": "max"})
    assert (cpus(root), memory_bytes(root)) == (math.inf, math.inf)


def test_no_control_groups_no_limit(tmp_path: Path) -> None:
    assert (cpus(tmp_path), memory_bytes(tmp_path)) == (math.inf, math.inf)
    root = tree(tmp_path, "0::/\n", "", {})
    assert (cpus(root), memory_bytes(root)) == (math.inf, math.inf)


def test_what_is_usable_is_never_more_than_there_is() -> None:
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))
    assert 0 < usable_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.2, 1), (1.0, 1), (1.2, 2), (2.5, 3), (7.0, 4), (math.inf, 4)]
)
def test_parts_of_a_cpu_are_rounded_up(monkeypatch: pytest.MonkeyPatch, limit: float, expected: int) -> None:
    """And where the process may not run counts before that."""
    monkeypatch.setattr("core.process.cgroups.cpus", lambda: limit)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert usable_cpus() == expected


@contextmanager
def real_group(limits: dict[str, str]) -> Iterator[list[str]]:
    """A new group for each controller, `limits` being controller/file -> text; yields the files that take its processes."""
    with ExitStack() as stack:
        tasks = []
        for controller in {name.split("/")[0] for name in limits}:
            for parent in (Path("/sys/fs/cgroup", controller), Path("/sys/fs/cgroup")):
                group = parent / f"fastchat-test-{os.getpid()}"
                with suppress(OSError):
                    group.mkdir()
                    break
            else:
                pytest.skip(
                    "no control group can be made here: that takes root and a writable /sys/fs/cgroup"
                )
            stack.callback(group.rmdir)
            for name, text in limits.items():
                file = group / name.split("/")[1]
                if name.startswith(controller + "/") and file.exists():
                    file.write_text(text)
            tasks.append(str(group / "cgroup.procs"))
        yield tasks


def test_a_real_group() -> None:
    limits = {
        "cpu/cpu.cfs_quota_us": "130000",
        "cpu/cpu.max": "130000 100000",
        "memory/memory.limit_in_bytes": str(300 * MIB),
        "memory/memory.max": str(300 * MIB),
    }
    program = (
        "import os, sys\n"
        "for path in sys.argv[1:]: open(path, 'w').write(str(os.getpid()))\n"
        "from core.process.cgroups import cpus, memory_bytes\n"
        "print(cpus(), memory_bytes())"
    )
    with real_group(limits) as tasks:
        if not any(Path(task).with_name("memory.max").exists() or "memory" in task for task in tasks):
            pytest.skip("control groups have no controllers here")
        run = subprocess.run(
            [sys.executable, "-c", program, *tasks], capture_output=True, text=True, check=True
        )
    found_cpus, found_memory = run.stdout.split()
    assert (float(found_cpus), int(found_memory)) == (1.3, 300 * MIB)
