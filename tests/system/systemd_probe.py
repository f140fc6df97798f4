"""Run as a service by ``test_systemd_runs``: tries what a sandbox is there to prevent, and prints as JSON what came of it.

That is three tables: `tries`, where each is ``allowed`` or the name of the error; `status`, what the kernel says of this process; and its
`namespaces`. Nothing of this does harm in a machine of namespaces, where it is tried without a sandbox
too.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: From sched.h and sys/mount.h.
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_ADDR_NO_RANDOMIZE: Final = 0x0040000

_DIRECTORIES: Final = (
    *("/", "/etc", "/etc/fastchat", "/opt/fastchat/venv", "/var", "/var/log", "/run", "/run/lock", "/home"),
    *("/tmp", "/var/lib/fastchat", "/var/lib/fastchat-backups"),
)
_REFUSED: Final = (
    *(
        "list /root",
        "see PID 1",
        "see the processors",
        "signal PID 1",
        "control groups",
        "netlink",
        "packets",
    ),
    *("send elsewhere", "run what is written", "suid", "mknod", "personality", "set the name", "real time"),
    *("go first", "choose processors", "become root", "become anybody", "users of its own"),
    *("mounts of its own", "mount", "be traced"),
)
#: What has to come of each try in the sandbox of the server, and in that of the backup.
IN_THE_SERVER: Final = {
    **dict.fromkeys([f"write {directory}" for directory in _DIRECTORIES], "refused"),
    **dict.fromkeys(_REFUSED, "refused"),
    "write /tmp": "allowed",
    "write /var/lib/fastchat": "allowed",
    "read the settings": "allowed",
    "TCP": "allowed",
    "send to this machine": "allowed",
}
IN_THE_BACKUP: Final = IN_THE_SERVER | {
    "write /var/lib/fastchat-backups": "allowed",
    "TCP": "refused",
    "send to this machine": "refused",
    "choose processors": "allowed",
}
#: Some errors say which of the walls it was.
WALLS: Final = {
    "write /etc": "EROFS",
    "write /var/log": "EROFS",
    "write /run/lock": "EROFS",
    "control groups": "EROFS",
    "see PID 1": "ENOENT",
    "see the processors": "ENOENT",
    "netlink": "EAFNOSUPPORT",
    "packets": "EAFNOSUPPORT",
}

_library: Final = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_library, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write(directory: str) -> None:
    path = Path(directory, f"probe-{os.getpid()}")
    path.write_text("x")
    path.unlink()


def _send(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"x", (address, 9))


def _make_suid() -> None:
    path = Path("/tmp", f"suid-{os.getpid()}")
    path.touch()
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


def _open(family: int, kind: int) -> None:
    socket.socket(family, kind).close()


def _tries(address: str) -> dict[str, Callable[[], object]]:
    """Name -> what to do; those that change this process come last."""
    return {
        **{
            f"write {directory}": lambda directory=directory: _write(directory)  # type: ignore[misc]
            for directory in _DIRECTORIES
        },
        "read the settings": lambda: Path("/etc/fastchat/fastchat.env").read_bytes(),
        "list /root": lambda: os.listdir("/root"),
        "see PID 1": lambda: os.listdir("/proc/1"),
        "see the processors": lambda: Path("/proc/cpuinfo").read_bytes(),
        "signal PID 1": lambda: os.kill(1, 0),
        "control groups": lambda: os.mkdir(f"/sys/fs/cgroup/probe-{os.getpid()}"),
        "TCP": lambda: _open(socket.AF_INET, socket.SOCK_STREAM),
        "netlink": lambda: _open(socket.AF_NETLINK, socket.SOCK_RAW),
        "packets": lambda: _open(socket.AF_PACKET, socket.SOCK_RAW),
        "send to this machine": lambda: _send("127.0.0.1"),
        "send elsewhere": lambda: _send(address),
        "run what is written": lambda: mmap.mmap(
            -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        ),
        "suid": _make_suid,
        "mknod": lambda: _call("mknod", b"/tmp/null", 0o020666, 0x103),
        "personality": lambda: _call("personality", _ADDR_NO_RANDOMIZE),
        "set the name": lambda: socket.sethostname(socket.gethostname()),
        "real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        "go first": lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
        "choose processors": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
        "become root": lambda: os.setuid(0),
        "become anybody": lambda: os.setuid(os.getuid()),
        "users of its own": lambda: _call("unshare", _CLONE_NEWUSER),
        "mounts of its own": lambda: _call("unshare", _CLONE_NEWNS),
        "mount": lambda: _call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "be traced": lambda: _call("ptrace", 0, 0, 0, 0),
    }


def main() -> None:
    """The address that is not this machine's own is the argument."""
    status = [line.partition(":") for line in Path("/proc/self/status").read_text().splitlines()]
    namespaces = {path.name: os.readlink(path) for path in Path("/proc/self/ns").iterdir()}
    came = {}
    for name, attempt in _tries(sys.argv[1]).items():
        try:
            attempt()
            came[name] = "allowed"
        except OSError as error:
            came[name] = errno.errorcode[error.errno or 0]
    told = {"tries": came, "status": {name: value.strip() for name, _, value in status}}
    print(json.dumps(told | {"namespaces": namespaces}))


if __name__ == "__main__":
    main()
