"""Starts the processes of the server's workers and fronts: which program, which arguments, and which sockets it gets."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from core.process.settings import Settings
from router.supervisor.build import CORE_COMMAND
from router.supervisor.children import ROOT, Child
from router.supervisor.roles import WORKER, Role

#: Environment variables that make Python take a compiled core.
_OF_THE_CORE: Final = ("PYTHONPATH", "PYTHONSAFEPATH")
#: The end of what a compiler says that an operator reads.
_SHOWN: Final = 300


class Starter:
    """What all processes need that are started, now and later."""

    def __init__(
        self,
        roles: Sequence[Role],
        environment: Mapping[str, str],
        listeners: Sequence[Sequence[socket.socket]],
        keep: Path,
        lock: int | None,
    ) -> None:
        """Give each worker the number of its first process.

        `listeners` are those of each front; `keep` is where workers leave what counts against limits; `lock` is the descriptor of the lock
        on the data directory.
        """
        self.environment = environment
        self._workers = [role for role in roles if role.kind == WORKER]
        self._listeners = listeners
        self._keep = keep
        self._lock = lock
        #: The number that was given last.
        self.last_generation = 0
        for role in self._workers:
            role.generation = self.next_generation()

    def use(self, settings: Settings) -> None:
        """Give these settings to processes that are started from now on."""
        self.environment = {**self.environment, **settings.environment()}

    def for_workers(self, workers: Sequence[Role]) -> Starter:
        """Return one for another number of workers, each of which gets the number of its first process; `use` their settings."""
        return Starter(workers, self.environment, self._listeners, self._keep, self._lock)

    def next_generation(self) -> int:
        """Return a number that is unique over all starts of all workers, also after a restart of the server, and higher than all before."""
        self.last_generation = max(self.last_generation + 1, time.time_ns())
        return self.last_generation

    async def refresh(self) -> None:
        """Let processes that are started from now on have the compiled core of the sources as they are now, if `make run` has compiled it.

        Raises OSError when it can't be compiled.
        """
        command = self.environment.get(CORE_COMMAND)
        if command is None:
            return
        environment = {name: value for name, value in self.environment.items() if name not in _OF_THE_CORE}
        run = partial(
            subprocess.run, shlex.split(command), cwd=ROOT, env=environment, capture_output=True, text=True
        )
        done = await asyncio.get_running_loop().run_in_executor(None, run)
        # Its exit code may have been taken by who reaps orphans; what it prints is what counts.
        core = done.stdout.strip()
        if not os.path.isdir(core):  # noqa: ASYNC240 - a look at a local directory
            raise OSError(f"the core can't be compiled: {done.stderr.strip()[-_SHOWN:]}")
        self.environment = {**self.environment, "PYTHONPATH": core}

    def environment_of_upgrade(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of this process, and `more`, with the core that processes get that are started now."""
        core = {name: self.environment[name] for name in _OF_THE_CORE if name in self.environment}
        return {**os.environ, **core, **more}

    def start(self, role: Role, on_ready: Callable[[Child], None], on_exit: Callable[[Child], None]) -> Child:
        """Start a process of a role. Raises OSError."""
        if role.kind == WORKER:
            return self._start_worker(role, role.generation, on_ready, on_exit)
        descriptors = [listener.fileno() for listener in self._listeners[role.index]]
        arguments = ["--index", str(role.index), "--listeners", ",".join(map(str, descriptors))]
        return Child(role.name, "router.front", arguments, self.environment, descriptors, on_ready, on_exit)

    def start_successor(
        self, role: Role, generation: int, on_ready: Callable[[Child], None], on_exit: Callable[[Child], None]
    ) -> Child:
        """Start a process that will take the place of the one that a worker has. Raises OSError."""
        return self._start_worker(role, generation, on_ready, on_exit, "--succeeds", str(role.generation))

    def start_gathering(
        self, role: Role, workers: int, on_ready: Callable[[Child], None], on_exit: Callable[[Child], None]
    ) -> Child:
        """Start a process that gets its users from the processes of so many workers that there were before. Raises OSError."""
        return self._start_worker(role, role.generation, on_ready, on_exit, "--gathers", str(workers))

    def _start_worker(
        self,
        role: Role,
        generation: int,
        on_ready: Callable[[Child], None],
        on_exit: Callable[[Child], None],
        *more: str,
    ) -> Child:
        generations = [generation if worker is role else worker.generation for worker in self._workers]
        arguments = ["--index", str(role.index), "--generations", ",".join(map(str, generations))]
        arguments += ["--keep", str(self._keep), *more]
        lock = () if self._lock is None else (self._lock,)
        return Child(role.name, "workers", arguments, self.environment, lock, on_ready, on_exit)
