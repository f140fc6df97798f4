"""A machine of its own in namespaces of this one, with a real systemd as its PID 1.

Nothing of the host is changed. The machine has namespaces for processes, mounts, its name, System V IPC, network and control groups. Its
root is a tmpfs in which the host's programs are bound read-only; /etc, /dev, /run and /var are its own. Its systemd knows the units
below /etc/systemd/system only, and no generators. What no namespace divides (clock, modules, kernel log, auditing, sysctl) is taken from
it. All that it has on the host is a control group, which `stop` removes.

The shell that starts it waits on a pipe. When the test ends, in whatever way, the pipe closes, the shell kills PID 1, and with that the
kernel ends all other processes and mounts of the machine.

    machine = Machine(directory)
    machine.start()
    machine.run("systemctl", "start", "fastchat")
    machine.stop()
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final
from uuid import uuid4

from scripts.compiled_core import find
from tests.system.harness import PROJECT, wait_until

SYSTEMD: Final = Path("/lib/systemd/systemd")
JOURNALD: Final = Path("/lib/systemd/systemd-journald")
_TOOLS: Final = ("unshare", "nsenter", "setpriv", "pivot_root", "ldconfig")
#: Seconds for systemd to be up.
_TIMEOUT: Final = 30.0
#: Seconds for one command in it.
COMMAND_SECONDS: Final = 120.0
#: An address of the machine that is not a loopback one; of a network that nobody has (RFC 5737).
ADDRESS: Final = "192.0.2.1"
#: The user id of the service: nobody of the host has files that it could reach.
USER: Final = 987

_NAMESPACES: Final = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child")

#: What a machine is made of, in small.
_PROBE: Final = r"""
mount -t tmpfs none /mnt
mkdir /mnt/groups
mount -t cgroup2 none /mnt/groups
mknod /mnt/null c 1 3
: >/mnt/null
"""

#: $1 is the control group, $2 the machine's directory, $3 the capabilities. Ends the machine when its input ends, and cleans up after it.
_OUTER: Final = r"""
set -u
mkdir "$1" || exit 1
exec 3<&0
(
    echo 0 >"$1/cgroup.procs" &&
    exec setpriv --pdeathsig KILL --bounding-set "$3" \
        unshare NAMESPACES /bin/sh -eu "$2/inner" "$2"
) >"$2/log" 2>&1 </dev/null 3<&- &
child=$!
(
    while read -r nothing <&3; do :; done
    kill -KILL "$child"
) 2>/dev/null &
watcher=$!
{ wait "$child"; kill -KILL "$watcher"; wait "$watcher"; } 2>/dev/null
tries=0
until find "$1" -depth -type d -exec rmdir {} + 2>/dev/null && [ ! -e "$1" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || exit 1
    sleep 0.1
done
""".replace("NAMESPACES", " ".join(_NAMESPACES))

#: What namespaces don't divide, and what a chat server's machine has no need of.
_NOT_THE_HOSTS: Final = ",".join(
    f"-{capability}"
    for capability in (
        *("sys_module", "sys_time", "sys_rawio", "sys_boot", "sys_pacct", "syslog", "wake_alarm"),
        *("audit_control", "audit_write", "audit_read", "mac_admin", "mac_override"),
    )
)

#: $1 is the machine's directory; `root` in it becomes the root.
_INNER: Final = r"""
root=$1/root
mount -t tmpfs -o mode=0755,size=1g machine "$root"
cp -a "$1/files/." "$root"
cd "$root"
mkdir -p usr proc sys dev run tmp var/lib var/log var/tmp root home old opt/python opt/fastchat/source opt/fastchat/packages
chmod 1777 tmp var/tmp
chmod 0700 root
ln -s ../run var/run

read_only() { mount --bind "$1" "$2" && mount -o remount,bind,ro "$2"; }
read_only /usr usr
for name in bin sbin lib lib32 lib64 libx32; do
    if [ -L "/$name" ]; then cp -P "/$name" .; elif [ -d "/$name" ]; then mkdir "$name" && read_only "/$name" "$name"; fi
done
read_only "$(cat "$1/source")" opt/fastchat/source
read_only "$(cat "$1/packages")" opt/fastchat/packages
if [ -s "$1/python" ]; then
    read_only "$(cat "$1/python")" opt/python
    ldconfig -X -r "$root"
fi

mount -t tmpfs -o mode=0755,nosuid tmpfs dev
mknod -m 0666 dev/null c 1 3
mknod -m 0666 dev/zero c 1 5
mknod -m 0666 dev/full c 1 7
mknod -m 0666 dev/random c 1 8
mknod -m 0666 dev/urandom c 1 9
mknod -m 0666 dev/tty c 5 0
ln -s /proc/self/fd dev/fd
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs run
mount -t proc proc proc
for name in proc/sys proc/sysrq-trigger; do
    if [ -e "$name" ]; then read_only "$name" "$name"; fi
done
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
hostname fastchat-machine

pivot_root . old
umount -l old
rmdir old
cd /
exec env -i container=fastchat-test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/etc/systemd/system \
    SYSTEMD_GENERATOR_PATH=/etc/nothing SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/etc/nothing \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=journal --crash-shell=no
"""

#: The machine's /etc. Its units are the least that those of ``deploy/systemd`` ask for.
_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    f"fastchat:x:{USER}:{USER}::/var/lib/fastchat:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": f"root:x:0:\nfastchat:x:{USER}:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "fastchat-machine\n",
    "etc/os-release": "ID=fastchat-machine\n",
    # For runuser(1).
    "etc/pam.d/other": "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
    "etc/ld.so.conf": "/opt/python/lib\n",
    # Empty: neither switches the kernel's auditing on nor off.
    "etc/systemd/journald.conf": "[Journal]\nStorage=volatile\nAudit=\nReadKMsg=no\nForwardToWall=no\nRateLimitBurst=0\n",
    "etc/systemd/system.conf": "[Manager]\nDefaultTimeoutStartSec=60\n",
    "etc/systemd/system/systemd-journald.socket": "[Unit]\nDefaultDependencies=no\nBefore=sockets.target\n[Socket]\n"
    "ListenStream=/run/systemd/journal/stdout\nListenDatagram=/run/systemd/journal/socket\nSocketMode=0666\n"
    "PassCredentials=yes\nPassSecurity=yes\nReceiveBuffer=8M\n",
    "etc/systemd/system/systemd-journald.service": "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.socket\n"
    "After=systemd-journald.socket\nBefore=sysinit.target\n[Service]\nType=notify\n"
    f"ExecStart={JOURNALD}\nStandardOutput=null\nStandardError=null\nSockets=systemd-journald.socket\n"
    "FileDescriptorStoreMax=512\n",
    "etc/systemd/system/sysinit.target": "[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n",
    "etc/systemd/system/multi-user.target": "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n",
    "etc/systemd/system/basic.target": "[Unit]\nDefaultDependencies=no\nRequires=sysinit.target\n"
    "After=sysinit.target\nWants=timers.target\n",
} | {
    f"etc/systemd/system/{name}.target": "[Unit]\nDefaultDependencies=no\n"
    for name in ("shutdown", "umount", "timers", "sockets", "network", "local-fs", "time-set", "time-sync")
}


@cache
def missing() -> str | None:
    """Why there can be no machine here; None when there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a machine of its own takes Linux and root"
    if not SYSTEMD.exists() or not JOURNALD.exists():
        return "systemd is not installed (apt-get install systemd)"
    for tool in _TOOLS:
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"{tool} is not installed (apt-get install util-linux)"
    words = ["unshare", *_NAMESPACES, "/bin/sh", "-euc", _PROBE]
    done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    if done.returncode:
        return f"no namespaces, mounts or devices of its own here: {done.stderr.strip()}"
    control = control_groups()
    if control is None:
        return "no control groups (cgroup2)"
    group = control / f"fastchat-probe-{uuid4().hex[:12]}"
    try:
        group.mkdir()
        group.rmdir()
    except OSError as error:
        return f"no control groups of its own here: {error}"
    return None


def control_groups() -> Path | None:
    """Where cgroup2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


class Machine:
    """One that runs from `start` to `stop`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        control = control_groups()
        assert control is not None
        #: Its control group, as the host sees it.
        self.group = control / f"fastchat-test-{uuid4().hex[:12]}"
        self._outer: subprocess.Popen[bytes] | None = None
        #: PID 1, as the host counts; 0 before it is there.
        self.init = 0

    # -- Its life --

    def start(self) -> None:
        """After this, systemd is up, and the sources and a virtual environment are where an installation has them."""
        self._write_files()
        (self._directory / "root").mkdir()
        (self._directory / "inner").write_text(_INNER)
        words = ["/bin/sh", "-c", _OUTER, "machine", str(self.group), str(self._directory), _NOT_THE_HOSTS]
        self._outer = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
        wait_until(self._is_up, "systemd to be up", _TIMEOUT)
        with self.network():
            _bring_up("lo", "127.0.0.1", "255.0.0.0")
            _bring_up("lo:1", ADDRESS, "255.255.255.255")

    def stop(self) -> None:
        """After this, there is neither a process nor a mount nor a control group of it. May be called twice."""
        if self._outer is None or self._outer.stdin is None:
            return
        self._outer.stdin.close()
        assert self._outer.wait(_TIMEOUT) == 0, "the machine's control group is still there"

    def _is_up(self) -> bool:
        assert self._outer is not None
        assert self._outer.poll() is None, self.log()
        self.init = next(filter(_is_first, self.processes("init.scope")), 0)
        if not self.init:
            return False
        done = self.run("systemctl", "is-active", "multi-user.target", check=False)
        return done.stdout.strip() == "active"

    def _write_files(self) -> None:
        """The machine's /etc, and a virtual environment where an installation has it, as pip would have made it."""
        files = self._directory / "files"
        for name, content in _FILES.items():
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_text(content)
        (files / "etc/nothing").mkdir()
        base = Path(sys.base_prefix)
        inside = Path("/usr") if base == Path("/usr") else Path("/opt/python")
        venv = files / "opt/fastchat/venv"
        packages = venv / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        packages.mkdir(parents=True)
        (packages / "machine.pth").write_text("/opt/fastchat/source\n/opt/fastchat/packages\n")
        (venv / "bin").mkdir()
        (venv / "bin/python").symlink_to(inside / "bin" / f"python{sysconfig.get_python_version()}")
        (venv / "pyvenv.cfg").write_text(f"home = {inside / 'bin'}\ninclude-system-site-packages = false\n")
        _, script = (PROJECT / ".venv/bin/fastchat").read_text().split("\n", 1)
        (venv / "bin/fastchat").write_text(f"#!/opt/fastchat/venv/bin/python\n{script}")
        (venv / "bin/fastchat").chmod(0o755)
        core = find()
        if core is not None and core.is_relative_to(PROJECT):
            (venv / "core").symlink_to(Path("/opt/fastchat/source") / core.relative_to(PROJECT))
        (self._directory / "source").write_text(str(PROJECT))
        (self._directory / "packages").write_text(sysconfig.get_path("purelib"))
        (self._directory / "python").write_text("" if inside == Path("/usr") else str(base))

    # -- What is done in it --

    def processes(self, group: str) -> list[int]:
        """The processes of one of its control groups, such as ``system.slice/fastchat.service``, as the host counts."""
        try:
            return [int(number) for number in (self.group / group / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def path(self, name: str) -> Path:
        """A file of it, for this process; `name` is absolute there."""
        return Path(f"/proc/{self.init}/root{name}")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its root."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH": "/etc/systemd/system"}
        done = subprocess.run(
            self._inside(*words),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}\n{self.log()}"
        return done

    def _inside(self, *words: str) -> list[str]:
        """A command that runs in the machine, with what its own processes may and no more: nsenter alone would leave it all to it."""
        return [
            *("setpriv", "--bounding-set", _NOT_THE_HOSTS, "nsenter", f"--target={self.init}", "--all", "--"),
            *words,
        ]

    def shell(self, script: str) -> str:
        """Run commands as an administrator types them, in the directory of the sources, until one fails; what they print."""
        return self.run("/bin/sh", "-euc", f"cd /opt/fastchat/source\n{script}").stdout

    def systemctl(self, *words: str, check: bool = True) -> str:
        """What systemctl says."""
        return self.run("systemctl", *words, check=check).stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def journal(self, unit: str = "fastchat") -> str:
        """All that a unit has said until now, and what systemd has said of it."""
        return self.shell(f"journalctl --sync && journalctl --unit={unit} --output=cat")

    def log(self) -> str:
        """What went wrong at its start, and its journal."""
        said = (self._directory / "log").read_text(errors="replace")
        if self.init:
            words = self._inside("journalctl", "--lines=200")
            said += subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS).stdout
        return said

    @contextmanager
    def network(self) -> Iterator[None]:
        """In here, what this thread connects to is the machine."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.init}/ns/net") as its:
            _enter(its.fileno())
            try:
                yield
            finally:
                _enter(ours.fileno())


def _is_first(process: int) -> bool:
    """Whether it is PID 1 in its own namespace."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines())


def _enter(namespace: int) -> None:
    """setns(2), which Python has since 3.12."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _bring_up(interface: str, address: str, mask: str) -> None:
    """As `ip address add` and `ip link set up` do (netdevice(7))."""
    name = interface.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((0x8916, address), (0x891C, mask)):
            packed = struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, packed)
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", name, 0x1 | 0x40))
