"""Finds what a supervisor that was killed has left: its processes, which serve on, and its state (``router.supervisor.keeper``).

The keeper is looked for in the run directory of the same port, and in the one that stands in the lock of the data directory. A start of the
server with the same settings goes on with the processes. One with others lets them end first: they have its port, or its files.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from core.events import fields
from core.process.data_directory import read_lock
from core.process.layout import LOCK_NAME
from core.process.settings import Settings
from router.supervisor.deposit import END, TAKEN, close_all, keeper_endpoint, receive_deposit
from router.supervisor.handed_on import HandedOn, NotUnderstood, read_state
from router.supervisor.keeper import is_own_user
from router.supervisor.run_directory import base_directory, run_directories

_log = logging.getLogger("fastchat.supervisor")

#: Seconds that a keeper has for giving what it keeps.
_PATIENCE: Final = 10.0
#: What may differ: it can be changed while the server runs, or it is of the machine.
_CHANGEABLE: Final = frozenset({"log_level", "run_dir"})


def take_over(settings: Settings) -> HandedOn | None:
    """Return the state of a supervisor of these settings that was killed, whose processes are this one's now; None if there is none."""
    for directory in dict.fromkeys(_places(settings)):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
            keeper.settimeout(_PATIENCE)
            keeper.connect(keeper_endpoint(str(directory)))
            if is_own_user(keeper) and (state := _receive(keeper, settings)) is not None:
                return state
    return None


def _places(settings: Settings) -> Iterator[Path]:
    """Return the run directories in which a keeper may listen."""
    with suppress(OSError):
        if settings.run_dir is not None or settings.port:
            yield from run_directories(base_directory(settings.run_dir, settings.port))
    if settings.store == "sqlite":
        with suppress(OSError):
            lock = os.open(settings.data_dir / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if noted := read_lock(lock)[1]:
                    yield Path(noted)
            finally:
                os.close(lock)


def _receive(keeper: socket.socket, settings: Settings) -> HandedOn | None:
    """Get what is kept, and say what becomes of it. Raises OSError."""
    received: list[int] = []
    why = ""
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
    close_all(received)
    keeper.send(END)
    _log.warning(
        "a supervisor was killed, and its processes end now: this server can't go on with them",
        extra=fields(reason=why),
    )
    return None


def differences(wanted: Settings, given: Settings) -> list[str]:
    """Return the names of the settings because of which a server that is to have these can't go on with processes that have those."""
    found = []
    for name in (field.name for field in dataclasses.fields(Settings)):
        want, have = getattr(wanted, name), getattr(given, name)
        if isinstance(want, Path):
            want = want.absolute()
        any_port = name in ("port", "admin_port") and want == 0
        if want != have and name not in _CHANGEABLE and not any_port:
            found.append(name)
    base = wanted.run_dir and wanted.run_dir.absolute()
    return found if base in (None, given.run_dir and given.run_dir.parent) else [*found, "run_dir"]
