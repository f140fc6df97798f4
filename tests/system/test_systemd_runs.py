"""The units of ``deploy/systemd``, as they are shipped, run by a real systemd in a machine of its own (``systemd_machine``).

They are installed by the very commands of ``deploy/README.md``. No drop-in is needed for them to run; those in here only make the watchdog
and the timer come within seconds.

What such a machine can't show: what takes a reboot (`Persistent=` of the timer, starting at boot), memory that runs out (`OOMPolicy`), the
files of a day's journal, and `LimitNOFILE` where the host's own limit is lower. Where the kernel has no BPF for control groups, nothing is
said of the address filter (`IPAddressDeny`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed

from tests.core.token_forge import forge
from tests.system.harness import PROJECT, READY, ChatClient, wait_until
from tests.system.systemd_machine import ADDRESS, USER, Machine, missing
from tests.system.systemd_probe import IN_THE_BACKUP, IN_THE_SERVER, WALLS
from tests.system.test_systemd import BACKUP, SERVER

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

URL: Final = "ws://127.0.0.1:8000/ws"
PAGE: Final = PROJECT / "deploy" / "README.md"
GROUP: Final = "system.slice/fastchat.service"
STATE: Final = "/var/lib/fastchat"
BACKUPS: Final = "/var/lib/fastchat-backups"
SETTINGS: Final = "/etc/fastchat/fastchat.env"
#: Seconds in which something has to happen on a machine that is busy with other tests.
TIMEOUT: Final = 90.0
#: Seconds of silence after which the watchdog ends the server, instead of 30.
WATCHDOG: Final = 8
#: Seconds that the server takes at most to stop (TimeoutStopSec is 30).
STOP_SECONDS: Final = 20.0


def commands(section: str, block: int = 0) -> str:
    """One of the blocks of commands in a section of the page, without the editor."""
    match = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None
    blocks: list[str] = re.findall(r"(?:^    .*\n)+", match[1], re.MULTILINE)
    lines = [line.strip() for line in blocks[block].splitlines()]
    return "\n".join(line for line in lines if not line.startswith("editor "))


# -- The machine and the service --


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With everything installed, enabled and started as the page says."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        machine.start()
        said = machine.shell(commands("The service"))
        assert "active (running)" in said
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def service(machine: Machine) -> Machine:
    """The server runs, as shipped."""
    machine.systemctl("reset-failed")
    machine.systemctl("start", "fastchat")
    return machine


@contextmanager
def changed(machine: Machine, unit: str, drop_in: str = "", settings: str = "") -> Iterator[None]:
    """In here, a unit has a drop-in, and the server other settings; what it is to run is started by the caller."""
    machine.systemctl("stop", unit)
    directory = machine.path(f"/etc/systemd/system/{unit}.d")
    shipped = machine.path(SETTINGS).read_text()
    try:
        directory.mkdir(exist_ok=True)
        (directory / "override.conf").write_text(drop_in)
        machine.path(SETTINGS).write_text(f"{shipped}\n{settings}\n")
        machine.systemctl("daemon-reload")
        machine.systemctl("reset-failed")
        yield
    finally:
        machine.systemctl("stop", unit)
        (directory / "override.conf").unlink()
        machine.path(SETTINGS).write_text(shipped)
        machine.systemctl("daemon-reload")


def wait_for(machine: Machine, state: str, unit: str = "fastchat") -> None:
    """Until systemd calls it so."""
    wait_until(lambda: machine.show(unit, "ActiveState") == state, f"{unit} to be {state}", TIMEOUT)


# -- People --


class Left(NamedTuple):
    """A message that was acknowledged, and is not read yet."""

    reader: str
    message_id: str


async def leave_message() -> Left:
    """Two people meet and chat; one goes, and the other writes once more."""
    async with ChatClient(URL, name="Alice") as alice:
        async with ChatClient(URL, name="Bob") as bob:
            await alice.hello()
            await bob.hello()
            await alice.open_chat(bob)
            sent = await alice.message(bob, "hello")
            await bob.receive("MSG", message_id=sent["message_id"], content="hello")
            await bob.send("MSG_ACK", message_id=sent["message_id"])
            await bob.drain()
        waiting = await alice.message(bob, "are you there?")
    return Left(bob.user_id, waiting["message_id"])


async def read_message(left: Left) -> None:
    """It is still there."""
    async with ChatClient(URL, left.reader, "Bob") as bob:
        await bob.hello()
        await bob.receive("MSG", message_id=left.message_id, content="are you there?")


# -- Starting and stopping --


def test_two_people_chat(service: Machine) -> None:
    """With what the page has installed; systemd shows what the server says of itself, and starts it at each boot."""
    with service.network():
        asyncio.run(read_message(asyncio.run(leave_message())))
    assert service.show("fastchat", "StatusText").startswith("serving on port 8000, workers=")
    assert service.show("fastchat", "NRestarts") == "0"
    assert service.systemctl("is-enabled", "fastchat", "fastchat-backup.timer").split() == ["enabled"] * 2
    assert service.path(SETTINGS).stat().st_mode & 0o777 == 0o640


def test_the_core_is_compiled(service: Machine) -> None:
    """Where the page has it compiled to."""
    if not service.path("/opt/fastchat/venv/core").is_symlink():
        pytest.skip("the core is not compiled: python -m scripts.compiled_core")
    command = "runuser -u fastchat -- /opt/fastchat/venv/bin/fastchat status --json"
    assert json.loads(service.shell(command))["core"] == "compiled"


def test_it_is_active_when_everybody_can_connect_and_not_before(machine: Machine) -> None:
    """Type=notify. Before the ready line it is `activating`."""
    machine.systemctl("stop", "fastchat")
    machine.systemctl("reset-failed")
    said, states = machine.journal(), set()
    machine.systemctl("start", "--no-block", "fastchat")
    while (state := machine.show("fastchat", "ActiveState")) != "active":
        states.add(state)
        assert state in ("inactive", "activating"), machine.journal()
    assert "activating" in states
    assert READY.search(machine.journal().removeprefix(said))
    with machine.network():
        asyncio.run(leave_message())


def test_stopping_tells_the_clients_in_time(service: Machine) -> None:
    """D28: 1001. Nothing is left of it, and nothing had to be killed."""

    async def play() -> None:
        async with ChatClient(URL) as client:
            await client.hello()
            began = time.monotonic()
            await asyncio.to_thread(service.systemctl, "stop", "fastchat")
            assert time.monotonic() - began < STOP_SECONDS
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await client.websocket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001

    with service.network():
        asyncio.run(play())
    shown = [service.show("fastchat", name) for name in ("ActiveState", "Result", "ExecMainStatus")]
    assert shown == ["inactive", "success", "0"]
    assert service.processes(GROUP) == []
    assert not service.path("/run/fastchat").exists()


def test_reloading_reads_the_keys_again(machine: Machine) -> None:
    """And does nothing else: the process and its connections stay."""
    keys = [letter * 40 for letter in "ab"]
    settings = "FASTCHAT_AUTH=jwt\nFASTCHAT_JWT_KEY_FILE=/etc/fastchat/key"

    async def gets_in(client: ChatClient, key: str) -> bool:
        claims = {"sub": client.user_id, "exp": int(time.time()) + 600}
        try:
            await client.hello(token=forge(claims, key))
        except AssertionError as error:
            assert "UNAUTHORIZED" in str(error)
            return False
        return True

    async def play() -> None:
        async with ChatClient(URL) as before:
            assert await gets_in(before, keys[0])
            machine.path("/etc/fastchat/key").write_text(keys[1])
            await asyncio.to_thread(machine.systemctl, "reload", "fastchat")
            deadline = time.monotonic() + TIMEOUT
            while True:
                # The front that is asked may be a moment behind.
                async with ChatClient(URL) as after:
                    if await gets_in(after, keys[1]):
                        break
                assert time.monotonic() < deadline, machine.journal()
            await before.drain()

    with changed(machine, "fastchat.service", settings=settings):
        machine.path("/etc/fastchat/key").write_text(keys[0])
        machine.shell("chown root:fastchat /etc/fastchat/key && chmod 0640 /etc/fastchat/key")
        machine.systemctl("start", "fastchat")
        process = machine.show("fastchat", "MainPID")
        with machine.network():
            asyncio.run(play())
        assert machine.show("fastchat", "MainPID") == process
        wait_for(machine, "active")


# -- Ends that nobody wanted --


async def chat_on(machine: Machine, end: Callable[[], None]) -> None:
    """Two people who chat stay connected while the main process is ended somehow, and is started again."""
    async with ChatClient(URL, name="Alice") as alice, ChatClient(URL, name="Bob") as bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        restarts = int(machine.show("fastchat", "NRestarts"))

        def end_and_wait() -> None:
            end()
            wait_until(lambda: int(machine.show("fastchat", "NRestarts")) > restarts, "the restart", TIMEOUT)
            wait_for(machine, "active")

        await asyncio.to_thread(end_and_wait)
        assert int(machine.show("fastchat", "NRestarts")) == restarts + 1
        sent = await alice.message(bob, "still here")
        await bob.receive("MSG", message_id=sent["message_id"], content="still here")


def send_to_main(machine: Machine, number: signal.Signals) -> None:
    machine.run("kill", f"-{int(number)}", machine.show("fastchat", "MainPID"))


def test_a_server_that_hangs_is_started_again(machine: Machine) -> None:
    """By the watchdog, here after seconds; the journal says so, and nobody's connection is closed."""
    with changed(machine, "fastchat.service", f"[Service]\nWatchdogSec={WATCHDOG}\n"):
        machine.systemctl("start", "fastchat")
        with machine.network():
            asyncio.run(chat_on(machine, partial(send_to_main, machine, signal.SIGSTOP)))
        assert "Watchdog timeout" in machine.journal()


def test_a_server_that_is_killed_is_started_again(service: Machine) -> None:
    """With all that it may do in its sandbox; its workers and fronts go on."""
    with service.network():
        asyncio.run(chat_on(service, partial(send_to_main, service, signal.SIGKILL)))
    assert "a supervisor was killed: this one goes on" in service.journal()


def test_a_server_that_is_killed_with_all_its_processes_is_started_again(service: Machine) -> None:
    with service.network():
        left = asyncio.run(leave_message())
    before, ended = int(service.show("fastchat", "NRestarts")), service.processes(GROUP)
    service.systemctl("kill", "--signal=KILL", "fastchat")
    wait_until(lambda: int(service.show("fastchat", "NRestarts")) > before, "the restart", TIMEOUT)
    wait_for(service, "active")
    assert not set(ended) & set(service.processes(GROUP)), "all of its processes are others"
    with service.network():
        asyncio.run(read_message(left))


def test_a_server_that_can_not_start_as_it_is_set_is_not_tried_again(machine: Machine) -> None:
    """RestartPreventExitStatus: exit code 2, and the sentence is in the journal."""
    with changed(machine, "fastchat.service", settings="FASTCHAT_PORT=a hundred"):
        machine.systemctl("start", "fastchat", check=False)
        wait_for(machine, "failed")
        shown = [machine.show("fastchat", name) for name in ("Result", "ExecMainStatus", "NRestarts")]
        assert shown == ["exit-code", "2", "0"]
        assert "FASTCHAT_PORT" in machine.journal()


# -- The sandbox --


#: Mounts that the server may write to: its own, and those that ProtectSystem= leaves alone.
OWN: Final = {STATE, "/run/fastchat", "/tmp", "/var/tmp"}
OF_THE_KERNEL: Final = {"/proc", "/dev/pts", "/dev/shm", "/dev/mqueue"}


def has_no_privileges(status: dict[str, str]) -> None:
    """The service's user, no capability, and a filter for system calls: proc_pid_status(5)."""
    assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
    capabilities = {name: value for name, value in status.items() if name.startswith("Cap")}
    assert len(capabilities) == 5
    assert {int(value, 16) for value in capabilities.values()} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_no_process_of_it_has_privileges(service: Machine) -> None:
    """And nothing that it could write to but its directories."""
    found = service.processes(GROUP)
    assert len(found) >= 4, "the supervisor, a front, two workers"
    others = Path(f"/proc/{service.init}/ns")
    for process in found:
        directory = Path(f"/proc/{process}")
        lines = (directory / "status").read_text().splitlines()
        has_no_privileges({name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
        for name in ("user", "mnt", "ipc", "uts"):
            assert (directory / "ns" / name).readlink() != (others / name).readlink()
        mounts = [line.split() for line in (directory / "mounts").read_text().splitlines()]
        writable = {mount[1] for mount in mounts if "rw" in mount[3].split(",")}
        assert writable == OWN | OF_THE_KERNEL


def test_nobody_else_reads_its_files(service: Machine) -> None:
    """StateDirectoryMode, RuntimeDirectoryMode and UMask; a directory that is closed would do, and each file is, too."""
    with service.network():
        asyncio.run(leave_message())
    for name in (STATE, "/run/fastchat"):
        directory = service.path(name)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert directory.stat().st_uid == USER
        files = list(directory.rglob("*"))
        assert files
        assert [path for path in files if path.stat().st_mode & 0o077] == []


class Told(NamedTuple):
    """What the probe prints."""

    tries: dict[str, str]
    status: dict[str, str]
    namespaces: dict[str, str]


def probed(machine: Machine, unit: Path) -> Told:
    """What the probe tells that runs in the place of a unit's own program."""
    lines = unit.read_text().splitlines()
    kept = [
        line
        for line in lines
        if not re.match("(ExecStart|Type|Restart|RestartSec|RuntimeDirectoryPreserve|WatchdogSec)=", line)
    ]
    program = f"/opt/fastchat/venv/bin/python /opt/fastchat/source/tests/system/systemd_probe.py {ADDRESS}"
    at = kept.index("[Service]") + 1
    # The server runs on, and its files are those of the probe.
    kept[at:at] = ["Type=oneshot", f"ExecStart={program}", "RuntimeDirectoryPreserve=yes"]
    machine.path("/etc/systemd/system/probe.service").write_text("\n".join(kept))
    said = machine.journal("probe")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "probe")
    (line,) = re.findall(r"^\{.*\}$", machine.journal("probe").removeprefix(said), re.MULTILINE)
    return Told(**json.loads(line))


@pytest.mark.parametrize(
    ("unit", "expected"),
    [pytest.param(SERVER, IN_THE_SERVER, id="server"), pytest.param(BACKUP, IN_THE_BACKUP, id="backup")],
)
def test_nobody_gets_out_of_the_sandbox(service: Machine, unit: Path, expected: dict[str, str]) -> None:
    """Tried from inside. What is in the sandbox is what the unit says, line by line; only the program is another."""
    told = probed(service, unit)
    came = told.tries
    if "does not support BPF/cgroup firewalling" in service.journal("probe"):
        assert came.pop("send elsewhere") in ("allowed", "EAFNOSUPPORT")
        expected = {name: value for name, value in expected.items() if name != "send elsewhere"}
    assert {name: "allowed" if how == "allowed" else "refused" for name, how in came.items()} == expected
    assert {name: came[name] for name in WALLS} == WALLS
    has_no_privileges(told.status)
    of_its_own = {
        name
        for name, found in told.namespaces.items()
        if found != os.readlink(f"/proc/{service.init}/ns/{name}")
    }
    assert of_its_own == {"user", "mnt", "ipc", "uts"} | ({"net"} if unit == BACKUP else set())


def test_without_the_sandbox_all_of_that_can_be_done(service: Machine) -> None:
    """So the test above says something."""
    words = ("/opt/fastchat/venv/bin/python", "/opt/fastchat/source/tests/system/systemd_probe.py", ADDRESS)
    came = Told(**json.loads(service.run(*words).stdout)).tries
    assert came.keys() == IN_THE_SERVER.keys()
    assert {name for name, how in came.items() if how != "allowed"} <= {"write " + BACKUPS}


# -- Operators --


def test_the_operators_commands(service: Machine) -> None:
    """As the page has them: what the service's user asks, the server answers."""

    async def ask() -> None:
        async with ChatClient(URL) as client:
            await client.hello()
            words = commands("The service", 1).replace("USER_ID", client.user_id)
            said = await asyncio.to_thread(service.shell, words)
            assert "worker 0" in said
            assert client.user_id in said

    with service.network():
        asyncio.run(ask())


# -- Backup and restore --


def backups(machine: Machine) -> list[str]:
    """The copies there are, oldest first; one that is being made has another name."""
    directory = machine.path(BACKUPS)
    if not directory.exists():
        return []
    return sorted(path.name for path in directory.iterdir() if not path.name.endswith(".unfinished"))


def test_a_backup_is_made_while_the_server_runs_and_can_be_restored(service: Machine) -> None:
    """With the commands of the page. What was written after the backup is gone, what was before is there."""
    known = backups(service)
    with service.network():
        before = asyncio.run(leave_message())
    service.systemctl("start", "fastchat-backup")
    (copy,) = set(backups(service)) - set(known)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}Z", copy)
    assert service.show("fastchat-backup", "Result") == "success"
    kept = service.path(BACKUPS)
    assert [path for path in (kept, *kept.rglob("*")) if path.stat().st_mode & 0o077] == []
    with service.network():
        asyncio.run(read_message(before))
        after = asyncio.run(leave_message())

    service.shell("rm -rf /var/lib/fastchat.old")
    service.shell(re.sub(r"\d{4}-\d\d-\d\dT\d{6}Z", copy, commands("Restore")))

    async def look() -> None:
        async with ChatClient(URL, after.reader, "Bob") as bob:
            await bob.hello()
            assert [message for message in await bob.drain() if message.type == "MSG"] == []

    with service.network():
        asyncio.run(look())
        asyncio.run(read_message(before))


def test_the_timer_makes_the_backups(service: Machine) -> None:
    """It waits for the night; told to come at once, it starts the backup."""
    timer = "fastchat-backup.timer"
    assert [service.show(timer, name) for name in ("ActiveState", "SubState")] == ["active", "waiting"]
    assert service.show(timer, "Unit") == BACKUP.name
    listed = json.loads(service.systemctl("list-timers", "--output=json"))
    (entry,) = (entry for entry in listed if entry["unit"] == timer)
    hours = (entry["next"] / 1e6 - time.time()) / 3600
    assert 0 < hours <= 24.3
    assert (
        3.5 <= time.gmtime(entry["next"] / 1e6).tm_hour + time.gmtime(entry["next"] / 1e6).tm_min / 60 < 3.8
    )
    known = backups(service)
    at_once = "[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nRandomizedDelaySec=0\nAccuracySec=1ms\n"
    with changed(service, timer, at_once):
        service.systemctl("start", timer)
        wait_until(lambda: len(backups(service)) > len(known), "a backup", TIMEOUT)
    wait_until(lambda: service.show(BACKUP.name, "ActiveState") in ("inactive", "failed"), "its end", TIMEOUT)
    service.systemctl("start", timer)
