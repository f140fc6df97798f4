"""What the supervisor holds for as long as the server runs: the ports, the run directory, and the data directory with its lock."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from core.process.allocator import environment_of_children
from core.process.descriptors import Descriptor, Keep
from core.process.settings import PREFIX, Settings
from router.supervisor import listeners
from router.supervisor.data_directory import DataDirectory, create_data_directory, lock_data_directory
from router.supervisor.preflight import Checked
from router.supervisor.run_directory import RunDirectory, RunDirectoryState, create_run_directory


@dataclasses.dataclass(frozen=True)
class ResourcesState:
    """What another program needs to go on with these."""

    listeners: list[list[Descriptor]]
    admin_listeners: list[Descriptor]
    run_directory: RunDirectoryState
    lock: Descriptor | None
    #: A version without a server API has none.
    api_listeners: list[Descriptor] = dataclasses.field(default_factory=list)


class Resources:
    """Opened one after the other, in the order of the methods. `close` what is open; each method raises ConfigurationError."""

    def __init__(self, settings: Settings) -> None:
        #: With the numbers of the ports, and whole paths, from `create_run_directory` on.
        self.settings = settings
        #: The listeners of each front, those of the admin port, and those of the server API.
        self.listeners: list[list[socket.socket]] = []
        self.admin_listeners: list[socket.socket] = []
        self.api_listeners: list[socket.socket] = []
        self.run_directory: RunDirectory | None = None
        #: With a store that has one.
        self.data_directory: DataDirectory | None = None

    def to_state(self, keep: Keep) -> ResourcesState:
        """Return what `take_up` needs; `keep` is called with each descriptor."""
        assert self.run_directory is not None, "it is created first"
        return ResourcesState(
            [[keep(listener.fileno()) for listener in each] for each in self.listeners],
            [keep(listener.fileno()) for listener in self.admin_listeners],
            self.run_directory.to_state(keep),
            None if self.lock is None else keep(self.lock),
            [keep(listener.fileno()) for listener in self.api_listeners],
        )

    def take_up(self, state: ResourcesState) -> RunDirectory:
        """Go on with what another program has opened, whose settings these are."""
        self.listeners = [[socket.socket(fileno=each) for each in front] for front in state.listeners]
        self.admin_listeners = [socket.socket(fileno=each) for each in state.admin_listeners]
        self.api_listeners = [socket.socket(fileno=each) for each in state.api_listeners]
        self.run_directory = RunDirectory.taken_up(state.run_directory)
        if state.lock is not None:
            self.data_directory = DataDirectory(self.settings.data_dir, state.lock)
            self.data_directory.note(self.run_directory.path)
        return self.run_directory

    async def open_ports(self, checked: Checked) -> None:
        """Listen on the public port, on the admin port, and on that of the server API if there is one."""
        settings = self.settings
        if settings.store == "sqlite":
            create_data_directory(settings.data_dir.absolute())
        first = await listeners.open_listeners("", checked.addresses, settings.port)
        self.listeners = [first]
        self.listeners += ([listeners.share(each) for each in first] for _ in range(1, settings.fronts))
        self.admin_listeners = await listeners.open_listeners(
            "ADMIN_", checked.admin_addresses, settings.admin_port
        )
        if settings.api_port is not None:
            self.api_listeners = await listeners.open_listeners(
                "API_", checked.api_addresses, settings.api_port
            )

    async def create_run_directory(self) -> RunDirectory:
        """Create the run directory; what the settings left open is known then."""
        settings, port = self.settings, listeners.port_of(self.listeners[0])
        self.run_directory = await create_run_directory(settings.run_dir, port)
        self.settings = dataclasses.replace(
            settings,
            port=port,
            admin_port=listeners.port_of(self.admin_listeners),
            api_port=listeners.port_of(self.api_listeners) if self.api_listeners else None,
            api_key_file=_absolute(settings.api_key_file),
            data_dir=settings.data_dir.absolute(),
            run_dir=self.run_directory.path,
            jwt_key_file=_absolute(settings.jwt_key_file),
            jwt_jwks_file=_absolute(settings.jwt_jwks_file),
        )
        return self.run_directory

    async def lock_data_directory(self) -> None:
        """Take the data directory, if the store has one."""
        if self.settings.store == "sqlite":
            assert self.run_directory is not None, "it is created first"
            self.data_directory = await lock_data_directory(self.settings.data_dir)
            self.data_directory.note(self.run_directory.path)

    @property
    def keep(self) -> Path:
        """Where workers leave what counts against limits."""
        assert self.run_directory is not None, "it is created first"
        return self.run_directory.path.parent if self.data_directory is None else self.data_directory.path

    @property
    def lock(self) -> int | None:
        """The descriptor of the lock on the data directory."""
        return None if self.data_directory is None else self.data_directory.lock

    def environment_of_children(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the environment of all processes that are started."""
        inherited = {name: value for name, value in environ.items() if not name.upper().startswith(PREFIX)}
        return inherited | environment_of_children(inherited) | self.settings.environment()

    def close_listeners(self) -> None:
        """Close what this process has of the public port."""
        for listener in (listener for each in self.listeners for listener in each):
            listener.close()

    def close(self) -> None:
        """Remove the run directory, and let others have everything. Whoever serves on the admin port closes that."""
        self.close_listeners()
        if self.run_directory is not None:
            self.run_directory.remove()
        if self.data_directory is not None:
            self.data_directory.release()


def _absolute(path: Path | None) -> Path | None:
    """Return the same for a child, which has another working directory."""
    return None if path is None else path.absolute()
