"""Finds what a supervisor that was killed has left: its processes, which serve on, and its state (``router.supervisor.keeper``).

The keeper is looked for in the run directory of the same port, and in the one that stands in the lock of the data directory. A start of the
server with the same settings goes on with the processes. One with others lets them end first: they have its port, or its files.
"""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import select
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from core.events import fields
from core.process.data_directory import read_lock
from core.process.layout import LOCK_NAME
from core.process.settings import Settings
from core.process.unix_sockets import peer_uid
from router.supervisor.children import is_running
from router.supervisor.deposit import END, TAKEN, close_all, keeper_endpoint, receive_deposit
from router.supervisor.handed_on import HandedOn, NotUnderstood, read_state
from router.supervisor.run_directory import base_directory, run_directories

_log = logging.getLogger("fastchat.supervisor")

#: Seconds that a keeper has for giving what it keeps; more than it waits for another one.
_PATIENCE: Final = 15.0
#: Seconds in which processes end that nobody goes on with; then they are killed.
_END_PATIENCE: Final = 2.0
#: Seconds between two looks, and how much longer it may take than it should.
_RETRY: Final = 0.1
_MARGIN: Final = 3.0
#: What may differ: it can be changed while the server runs, or it is of the machine.
_CHANGEABLE: Final = frozenset({"log_level", "run_dir"})


def take_over(settings: Settings) -> HandedOn | None:
    """Return the state of a supervisor of these settings that was killed, whose processes are this one's now; None if there is none.

    Blocks while the processes of a killed supervisor have the data directory and can't be found, until they end by themselves.
    """
    deadline = time.monotonic() + settings.takeover_seconds + _MARGIN
    is_told = False
    while True:
        noted, is_left_locked = _look_at_lock(settings)
        for directory in dict.fromkeys([*_run_directories(settings), *noted]):
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
                keeper.settimeout(_PATIENCE)
                keeper.connect(keeper_endpoint(str(directory)))
                if peer_uid(keeper) == os.geteuid() and (state := _receive(keeper, settings)) is not None:
                    return state
        if not is_left_locked or time.monotonic() > deadline:
            return None
        if not is_told:
            _log.warning(
                "a supervisor was killed, and its processes have the data directory: waiting for them"
            )
            is_told = True
        time.sleep(_RETRY)


def _run_directories(settings: Settings) -> list[Path]:
    """Return the run directories of servers on the same port."""
    with suppress(OSError):
        if settings.run_dir is not None or settings.port:
            return run_directories(base_directory(settings.run_dir, settings.port))
    return []


def _look_at_lock(settings: Settings) -> tuple[list[Path], bool]:
    """Return the run directory of the server that has locked the data directory, or had; and whether others have the lock now than the
    process that took it, which has ended."""
    if settings.store != "sqlite":
        return [], False
    noted: list[Path] = []
    with suppress(OSError):
        lock = os.open(settings.data_dir / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            holder, run_dir = read_lock(lock)
            noted += [Path(run_dir)] if run_dir else []
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return noted, holder is not None and not _exists(holder)
        finally:
            os.close(lock)
    return noted, False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's
    return True


def _receive(keeper: socket.socket, settings: Settings) -> HandedOn | None:
    """Get what is kept, and say what becomes of it. Raises OSError."""
    received: list[int] = []
    state = None
    try:
        received = receive_deposit(keeper)
        state = read_state(received[0], received[1:])
        differ = differences(settings, state.parsed_settings())
        if not differ:
            keeper.send(TAKEN)
            return state
        why = f"other settings: {', '.join(differ)}"
    except (EOFError, IndexError):
        return None
    except NotUnderstood as problem:
        why = str(problem)
    _log.warning(
        "a supervisor was killed, and its processes end now: this server can't go on with them",
        extra=fields(reason=why),
    )
    left = [] if state is None else _processes(state)
    close_all(received[1:])
    keeper.send(END)
    _see_them_end(left)
    return None


def _processes(state: HandedOn) -> list[int]:
    """Return a pidfd of each process of workers and fronts that runs."""
    found = []
    for child in (
        each for role in state.roles for each in (role.child, role.predecessor) if each is not None
    ):
        with socket.socket(fileno=os.dup(child.control)) as control:
            if is_running(child.pid, control):
                found.append(os.pidfd_open(child.pid))
    return found


def _see_them_end(pidfds: list[int]) -> None:
    """Wait for processes that end by themselves, and kill those that hang; close the descriptors."""
    deadline = time.monotonic() + _END_PATIENCE
    for pidfd in pidfds:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll.poll(_END_PATIENCE * 1000)
        os.close(pidfd)


def differences(wanted: Settings, given: Settings) -> list[str]:
    """Return the names of the settings because of which a server that is to have these can't go on with processes that have those."""
    found = []
    for name in (field.name for field in dataclasses.fields(Settings)):
        want, have = getattr(wanted, name), getattr(given, name)
        if isinstance(want, Path):
            want = want.absolute()
        any_port = name in ("port", "admin_port", "api_port") and want == 0
        if want != have and name not in _CHANGEABLE and not any_port:
            found.append(name)
    base = wanted.run_dir and wanted.run_dir.absolute()
    return found if base in (None, given.run_dir and given.run_dir.parent) else [*found, "run_dir"]
