"""The units in ``deploy/systemd``: systemd's own opinion of them, and whether the server lives with what they forbid.

No systemd runs here: ``test_systemd_runs`` is for that, where namespaces can be made. But what its sandbox would forbid is known from the
unit, and what the server asks of the kernel from strace: so each system call of a server that starts, serves, reloads and stops is held
against the unit. It says no when one of them would fail, and also when the server would get over that.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from core.process.configuration import load_settings
from tests.system.harness import PROJECT, READY, ChatClient, clean_environment, user_on_worker, wait_until

UNITS: Final = PROJECT / "deploy" / "systemd"
SERVER: Final = UNITS / "fastchat.service"
BACKUP: Final = UNITS / "fastchat-backup.service"
VENV: Final = "/opt/fastchat/venv"
#: Seconds that starting may take under strace, on a machine that is busy with other tests.
TIMEOUT: Final = 120.0
#: What `systemd-analyze security` may say at most, in tenths of its ten points: up to 20 is "OK", 100 is "DANGEROUS".
EXPOSURE_MAX: Final = 12

needs_systemd: Final = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed (apt-get install systemd)",
)

#: A call, as strace writes it; and the two halves of one when something else came in between.
_CALL: Final = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)")
_UNFINISHED: Final = " <unfinished ...>"
_RESUMED: Final = re.compile(r"(?P<thread>\d+) +<\.\.\. \w+ resumed>(?P<arguments>.*)")
#: prometheus_client looks for the time at which the machine was started, and does without. What was left behind to count against limits
#: is as old as the wall clock says, where it can't be told whether the machine was started again.
NOT_MISSED: Final = {"/proc/stat", "/proc/sys/kernel/random/boot_id"}


def settings_of(unit: Path) -> list[tuple[str, str]]:
    """Name and value of everything that a unit says."""
    lines = re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE)
    return [(str(name), str(value)) for name, value in lines]


def setting(unit: Path, name: str) -> str:
    """The one value of it."""
    (value,) = (value for each, value in settings_of(unit) if each == name)
    return value


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Ask systemd."""
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as they are shipped, but for the place of the programs, which must exist."""
    directory = tmp_path_factory.mktemp("units")
    for unit in UNITS.glob("fastchat*.[st]*"):
        (directory / unit.name).write_text(unit.read_text().replace(VENV, str(PROJECT / ".venv")))
    return directory


# -- What systemd says --


@needs_systemd
def test_systemd_understands_every_line(units: Path) -> None:
    names = sorted(str(unit) for unit in units.iterdir())
    assert [Path(name).suffix for name in names] == [".service", ".timer", ".service"]
    done = analyze("verify", "--man=no", *names)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_would_say_so(units: Path, tmp_path: Path) -> None:
    """The test above can fail."""
    broken = tmp_path / "fastchat.service"
    broken.write_text((units / "fastchat.service").read_text().replace("KillMode=process", "KilMode=process"))
    assert "'KilMode'" in analyze("verify", "--man=no", str(broken)).stderr


@needs_systemd
@pytest.mark.parametrize("unit", [SERVER.name, BACKUP.name])
def test_systemd_finds_little_exposure(units: Path, unit: str) -> None:
    words = ("security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(units / unit))
    done = analyze(*words)
    assert done.returncode == 0, done.stdout


# -- What the settings say --


def test_the_example_of_the_environment_has_known_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are commented out, and those in the unit; and it is what nginx's configuration asks for."""
    text = (UNITS / "fastchat.env").read_text()
    chosen = dict(re.findall(r"^(FASTCHAT_\w+)=(.*)$", text, re.MULTILINE))
    offered = dict(re.findall(r"^#(FASTCHAT_\w+)=(.*)$", text, re.MULTILINE))
    given = dict(
        word.split("=", 1) for word in re.findall(r"FASTCHAT_\S+", setting_line(SERVER, "FASTCHAT_"))
    )
    assert offered
    assert given.keys() == {"FASTCHAT_DATA_DIR", "FASTCHAT_RUN_DIR"}
    for environment in (chosen | given, chosen | offered | given):
        with monkeypatch.context() as patch:
            for name in list(os.environ):
                if name.startswith("FASTCHAT_"):
                    patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            load_settings(os.environ)
    site = (PROJECT / "deploy" / "nginx" / "fastchat.conf").read_text()
    for name in ("FASTCHAT_ALLOWED_ORIGINS", "FASTCHAT_TRUSTED_PROXIES"):
        assert f"{name}={chosen[name]} " in site


def setting_line(unit: Path, words: str) -> str:
    (line,) = (value for name, value in settings_of(unit) if name == "Environment" and words in value)
    return line


# -- What the server asks of the kernel --


class Call(NamedTuple):
    name: str
    #: With the result, as strace writes them.
    arguments: str


class Trace:
    """Everything that a program and its children asked of the kernel."""

    def __init__(self, path: Path) -> None:
        self.calls: list[Call] = []
        begun: dict[str, str] = {}
        for line in path.read_text(errors="replace").splitlines():
            if line.endswith(_UNFINISHED):
                begun[line.split(" ", 1)[0]] = line.removesuffix(_UNFINISHED)
                continue
            if (resumed := _RESUMED.fullmatch(line)) is not None:
                line = begun.pop(resumed["thread"]) + resumed["arguments"]
            if (match := _CALL.fullmatch(line)) is not None:
                self.calls.append(Call(match["name"], match["arguments"]))
        # Those that the end of their process has ended.
        self.calls += [
            Call(match["name"], match["arguments"]) for match in map(_CALL.match, begun.values()) if match
        ]

    def named(self, *names: str) -> Iterator[Call]:
        return (call for call in self.calls if call.name in names)


def strace(output: Path) -> list[str]:
    """The words before a command."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    return ["strace", "-f", "-o", str(output), "--signal=none", "--string-limit=200"]


class Sandbox(NamedTuple):
    """Where a traced program may write, and what it did."""

    writable: Sequence[Path]
    trace: Trace


def environment(directory: Path) -> dict[str, str]:
    # What Python compiles would be written beside its source, which the sandbox silently refuses.
    return clean_environment() | {
        "FASTCHAT_DATA_DIR": str(directory / "data"),
        "FASTCHAT_RUN_DIR": str(directory / "run"),
        "FASTCHAT_WORKERS": "2",
        "FASTCHAT_PORT": "0",
        "FASTCHAT_ADMIN_PORT": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        "TMPDIR": str(directory / "tmp"),
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short name, for sockets; what systemd makes before the start."""
    directory = tmp_path_factory.mktemp("sd", numbered=True)
    for name in ("data", "run", "tmp"):
        (directory / name).mkdir(mode=0o700)
    return directory


@pytest.fixture(scope="module")
def served(directory: Path) -> Sandbox:
    """A server that starts, makes its files, lets two people chat, is asked to reload and stops."""
    output = directory / "server.trace"
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*strace(output), str(PROJECT / ".venv/bin/fastchat"), "serve"],
            cwd="/",
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], TIMEOUT)
        ready = READY.search(os.read(process.stdout.fileno(), 4096).decode()) if readable else None
        said = (directory / "server.log").read_text()
        if ready is None and "PTRACE" in said:
            pytest.skip("strace may not trace here")
        assert ready is not None, said
        asyncio.run(chat(ready["url"]))
        os.kill(int(ready["pid"]), signal.SIGHUP)
        wait_until(
            lambda: "the supervisor is a new program" in (directory / "server.log").read_text(),
            "all processes to be replaced",
            TIMEOUT,
        )
        os.kill(int(ready["pid"]), signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
    return Sandbox([directory / name for name in ("data", "run", "tmp")], Trace(output))


async def chat(url: str) -> None:
    clients = (ChatClient(url, user_on_worker(index, 2), "Somebody") for index in (0, 1))
    one, other = clients
    async with one, other:
        await one.hello()
        await other.hello()
        await one.open_chat(other)
        message = await one.message(other, "hello")
        await other.receive("MSG", message_id=message["message_id"])


@pytest.fixture(scope="module")
def backed_up(served: Sandbox, directory: Path) -> Sandbox:
    """The backup of what that server has left."""
    output = directory / "backup.trace"
    target = directory / "backups"
    target.mkdir()
    words = (sys.executable, "-m", "workers.store", "backup", str(directory / "data"), str(target / "now"))
    subprocess.run(
        [*strace(output), *words], cwd=PROJECT, env=environment(directory), check=True, timeout=TIMEOUT
    )
    return Sandbox([directory / "data", target, directory / "tmp"], Trace(output))


@pytest.fixture(params=["server", "backup"])
def unit_and_sandbox(request: pytest.FixtureRequest) -> tuple[Path, Sandbox]:
    name = "served" if request.param == "server" else "backed_up"
    sandbox: Sandbox = request.getfixturevalue(name)
    return (SERVER if request.param == "server" else BACKUP), sandbox


def allowed_calls(unit: Path) -> set[str]:
    """What SystemCallFilter leaves."""
    allowed: set[str] = set()
    for name, value in settings_of(unit):
        if name == "SystemCallFilter":
            calls = {call for word in value.removeprefix("~").split() for call in expand(word)}
            allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed | expand("@default")


def expand(word: str) -> set[str]:
    """The system calls of a group, or the one of this name."""
    if not word.startswith("@"):
        return {word}
    lines = [line.strip() for line in analyze("syscall-filter", word).stdout.splitlines()[1:]]
    return {call for line in lines if line and not line.startswith("#") for call in expand(line)}


@pytest.mark.slow
@needs_systemd
def test_every_system_call_is_allowed(unit_and_sandbox: tuple[Path, Sandbox]) -> None:
    unit, sandbox = unit_and_sandbox
    asked = {call.name for call in sandbox.trace.calls}
    assert {"execve", "openat", "mmap", "fsync"} <= asked, "the trace has what a program does at least"
    # Only root gives files to others.
    as_root = {"chown", "fchown"} if os.geteuid() == 0 else set()
    assert asked - allowed_calls(unit) - as_root == set()


@pytest.mark.slow
def test_no_thread_wants_to_be_privileged(unit_and_sandbox: tuple[Path, Sandbox]) -> None:
    """RestrictRealtime, RestrictNamespaces and RestrictSUIDSGID look at arguments."""
    _, sandbox = unit_and_sandbox
    for call in sandbox.trace.named("sched_setscheduler"):
        assert "SCHED_OTHER" in call.arguments
    for call in sandbox.trace.named("clone", "clone3"):
        assert "CLONE_NEW" not in call.arguments
    for call in sandbox.trace.named("chmod", "fchmod", "fchmodat", "mkdir", "openat"):
        assert not re.search("S_IS[UG]ID|, 0[2-7][0-7]{3}[,)]", call.arguments)


@pytest.mark.slow
def test_no_memory_is_written_and_run(unit_and_sandbox: tuple[Path, Sandbox]) -> None:
    """MemoryDenyWriteExecute: neither at once, nor one after the other."""
    unit, sandbox = unit_and_sandbox
    assert setting(unit, "MemoryDenyWriteExecute") == "yes"
    mapped = list(sandbox.trace.named("mmap"))
    assert any("PROT_EXEC" in call.arguments for call in mapped), "libraries are mapped"
    assert [call for call in mapped if "PROT_EXEC" in call.arguments and "PROT_WRITE" in call.arguments] == []
    later = sandbox.trace.named("mprotect", "pkey_mprotect", "shmat")
    assert [call for call in later if re.search("PROT_EXEC|SHM_EXEC", call.arguments)] == []


@pytest.mark.slow
def test_every_socket_is_of_a_family_that_is_allowed(unit_and_sandbox: tuple[Path, Sandbox]) -> None:
    unit, sandbox = unit_and_sandbox
    families = set(setting(unit, "RestrictAddressFamilies").split())
    asked = {call.arguments.split(",")[0] for call in sandbox.trace.named("socket", "socketpair")}
    assert asked <= families
    assert unit is BACKUP or asked == families


@pytest.mark.slow
def test_every_file_is_written_where_that_is_allowed(unit_and_sandbox: tuple[Path, Sandbox]) -> None:
    """ProtectSystem=strict, PrivateTmp and PrivateDevices leave the directories that systemd made, and a few devices."""
    unit, sandbox = unit_and_sandbox
    assert setting(unit, "ProtectSystem") == "strict"
    writing = [
        call.arguments
        for call in sandbox.trace.named("openat", "open", "creat", "mkdir", "mkdirat", "rename", "unlink")
        if call.name not in ("openat", "open") or re.search("O_WRONLY|O_RDWR|O_CREAT", call.arguments)
    ]
    paths = [Path(found) for arguments in writing for found in re.findall(r'"((?:[^"\\]|\\.)*)"', arguments)]
    assert any(path.suffix == ".db" for path in paths)
    elsewhere = {
        str(path) for path in paths if not any(path.is_relative_to(root) for root in sandbox.writable)
    }
    assert elsewhere <= {"/dev/null", "/dev/tty"}


@pytest.mark.slow
def test_nothing_is_read_that_is_hidden(unit_and_sandbox: tuple[Path, Sandbox]) -> None:
    """ProcSubset=pid leaves of /proc what is about processes, PrivateDevices a few devices; what is not found does no harm."""
    unit, sandbox = unit_and_sandbox
    assert setting(unit, "ProcSubset") == "pid"
    opened = [
        match[1]
        for call in sandbox.trace.named("openat", "open", "readlink", "stat", "newfstatat")
        if (match := re.search(r'"(/(?:proc|dev)/[^"]*)"', call.arguments)) and " = -1 " not in call.arguments
    ]
    allowed = re.compile(
        r"/proc/(self|thread-self|\d+)(/|$)|/dev/(null|zero|full|random|urandom|tty|shm|pts)(/|$)"
    )
    assert {path for path in opened if not allowed.match(path)} <= NOT_MISSED
