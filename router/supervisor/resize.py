"""Changes the number of workers while clients stay connected.

    the workers note what they write, and a child copies all that is stored to files for the new workers
        --> the new workers boot, and wait --> all old workers come to rest --> the child copies what has been written meanwhile
        --> the new files hold --> the fronts go by the new number --> the old workers give sessions and sockets to the new ones, and end

Until the new files hold, whatever goes wrong ends the resize, and the old workers go on; only clients in the middle of a frame may have
been closed. Afterwards there is no way back, and none is needed: the new files have everything. A worker that dies then, an old or a new
one, costs its clients their connections.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from core.events import fields
from core.placement import WORKERS_MAX
from core.process.bus import bus_endpoint
from core.process.cgroups import usable_memory
from core.process.control import (
    CATCH_UP,
    FILL,
    FINISH,
    GIVE,
    GO_ON,
    LOOK,
    REMOVE,
    RESIZE,
    REST,
    SETTLE,
    STOP,
    TRACK,
    UNTRACK,
    WAITING,
)
from core.process.data_directory import read_layout
from core.process.layout import Layout
from core.process.settings import ConfigurationError, Settings
from core.process.succession import Kind, send_packet, succession_endpoint
from core.wire.codec import to_json
from router.supervisor import preflight
from router.supervisor.children import Child, NoAnswer
from router.supervisor.data_directory import DataDirectory
from router.supervisor.reload import ReloadFailed, hear, until_ready
from router.supervisor.resources import Resources
from router.supervisor.roles import FRONT, WORKER, Role
from router.supervisor.starter import Starter

_log = logging.getLogger("fastchat.supervisor")

#: Seconds that the copy of everything may take.
_COPY_PATIENCE: Final = 24 * 3600.0
#: Seconds that it may take to copy what was written meanwhile.
_CATCH_UP_PATIENCE: Final = 3600.0
#: Seconds that it may take to write down what was noted, and to copy it for the last time.
_LAST_PATIENCE: Final = 20.0
#: Seconds that a worker has for an answer; for coming to rest; for booting, and for taking over.
_PATIENCE: Final = 10.0
_REST_PATIENCE: Final = 5.0
_BOOT_PATIENCE: Final = 60.0
_TAKE_OVER_PATIENCE: Final = 60.0
#: Seconds in which old workers have to give everything away, and then to end.
_GIVE_PATIENCE: Final = 20.0
_END_PATIENCE: Final = 30.0
#: Seconds that a front has for going by the new number, while everybody waits.
_FRONT_PATIENCE: Final = 2.0
#: Descriptors that a worker needs besides those of its connections.
_SPARE_DESCRIPTORS: Final = 1024
#: Users, or rows, that are copied quickly enough for everybody to wait; and how often it is tried to get below.
_FEW: Final = 500
_CATCH_UPS: Final = 20
#: How often workers are asked to come to rest, and seconds between two times.
_TRIES: Final = 5
_PAUSE: Final = 1.0
#: How often workers are asked whether anything is on its way between them: each time something was it may cause something else.
_WAVES: Final = 50


class ResizeFailed(Exception):
    """The number of workers was not changed; the message is a sentence."""


class Host(Protocol):
    """The supervisor, as a resize sees it."""

    starter: Starter
    #: See ``router.supervisor.reload.Host``.
    replacing: str | None

    def on_exit(self, role: Role) -> Callable[[Child], None]:
        """Return what is to be called when a process of this role ends."""

    def start(self, role: Role) -> None:
        """Start a process of this role, which has none."""

    def resized(self, workers: list[Role], starter: Starter) -> None:
        """Have these workers in the place of the old ones, which are retired, from now on. Those without a process are started."""


class Resize:
    """One resize at a time; `run` it."""

    def __init__(
        self,
        host: Host,
        roles: Sequence[Role],
        resources: Resources,
        joined: Callable[[Child], None],
        changed: Callable[[], None],
    ) -> None:
        """`roles` are all there are, as they change.

        `joined` is told of a new process when it is ready; `changed` is called when `is_under_way` has changed.
        """
        self._host = host
        self._changed = changed
        self._roles = roles
        self._resources = resources
        self._joined = joined
        self._change: _Change | None = None
        self._stopped = False

    @property
    def children(self) -> list[Child]:
        """The processes that take part and fill no place yet, or no more."""
        return self._change.children if self._change is not None else []

    @property
    def is_under_way(self) -> bool:
        """Whether processes wait for what this process says next."""
        return self._change is not None

    def stop(self) -> None:
        """Change nothing more: the server ends, or is drained."""
        self._stopped = True

    async def run(self, workers: int) -> dict[str, Any]:
        """Change the number of workers; what the operator is told. Raises ResizeFailed when it stays as it was."""
        warning = self._check(workers)
        before, started = self._resources.settings.workers, time.monotonic()
        _log.info("the number of workers is changed from %d to %d", before, workers)
        self._change = _Change(
            self._host, self._roles, self._resources, workers, self._joined, lambda: self._stopped
        )
        self._changed()
        self._host.replacing = "a change of the number of workers"
        try:
            await self._change.make()
        except (NoAnswer, ReloadFailed, OSError) as failed:
            _log.error("the number of workers stays %d", before, extra=fields(reason=str(failed)))
            raise ResizeFailed(f"the server still has {before} workers: {failed}") from None
        finally:
            self._change = self._host.replacing = None
            self._changed()
        seconds = round(time.monotonic() - started, 3)
        _log.info("the server has %d workers", workers, extra=fields(seconds=seconds))
        return {"workers": workers, "before": before, "seconds": seconds, "warning": warning}

    def _check(self, workers: int) -> str | None:
        """Return what the operator should know. Raises ResizeFailed."""
        settings = self._resources.settings
        if self._host.replacing is not None:
            raise ResizeFailed(f"{self._host.replacing} is under way already: try again when it is done")
        if self._stopped:
            raise ResizeFailed("the server is stopping, or is drained")
        if not 1 <= workers <= WORKERS_MAX:
            raise ResizeFailed(f"the number of workers must be from 1 to {WORKERS_MAX}, not {workers}")
        if workers == settings.workers:
            raise ResizeFailed(f"the server has {workers} workers already")
        if settings.store == "memory":
            raise ResizeFailed(
                "the store in memory has no files that new workers could open: restart the server with another number of workers"
            )
        connections = 0
        for role in self._roles:
            if role.child is None or not role.child.ready:
                raise ResizeFailed(f"{role.name} is {role.state}: try again when the server is ready")
            connections += int(role.child.stats.get("connections", 0))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if connections / workers + _SPARE_DESCRIPTORS > limit:
            raise ResizeFailed(
                f"{connections} connections do not fit into {workers} workers, each of which may have {limit} file descriptors"
            )
        try:
            return preflight.check_memory(dataclasses.replace(settings, workers=workers), usable_memory())
        except ConfigurationError as problem:
            raise ResizeFailed(str(problem)) from None


class _Change:
    """What a change of the number is about; `make` it."""

    def __init__(
        self,
        host: Host,
        roles: Sequence[Role],
        resources: Resources,
        workers: int,
        joined: Callable[[Child], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._host = host
        self._roles = roles
        self._resources = resources
        self._joined = joined
        self._stopped = stopped
        self._new = [Role(WORKER, index) for index in range(workers)]
        self._starter = host.starter.for_workers(self._new)
        #: The processes of the old workers, all of which have to stay the same; and of the new ones.
        self._old = {role: role.child for role in roles if role.kind == WORKER and role.child is not None}
        self._successors: dict[Role, Child] = {}
        self._copier: Child | None = None
        self._waves = 0

    @property
    def _settings(self) -> Settings:
        """Those of now, with the new number."""
        return dataclasses.replace(self._resources.settings, workers=len(self._new))

    @property
    def children(self) -> list[Child]:
        copier = [self._copier] if self._copier is not None else []
        return [
            child
            for child in (*self._old.values(), *self._successors.values(), *copier)
            if not child.gone.done()
        ]

    async def make(self) -> None:
        """Do all of it. Raises NoAnswer, ReloadFailed or OSError when nothing has changed."""
        try:
            self._copier = self._start_copier()
            await self._copy()
            paths = await self._boot()
            await self._come_to_rest()
            # Who dies from here on is not started again: that process would write to files of which the rest is being copied.
            for role in self._old:
                role.retire()
            await self._finish(await self._look())
        except BaseException:
            await self._undo()
            raise
        # From here on these are the workers, whatever happens.
        for role, child in self._successors.items():
            if not child.gone.done():
                role.child, role.gathers = child, True
                role.policy.ready(time.monotonic())  # it has booted
        self._resources.settings = self._settings
        self._starter.use(self._resources.settings)
        self._host.resized(self._new, self._starter)
        await self._tell_fronts()
        await self._give(paths)

    @property
    def _directory(self) -> DataDirectory:
        directory = self._resources.data_directory
        assert directory is not None, "the store has files"
        return directory

    @property
    def _run_dir(self) -> Path:
        run_dir = self._resources.settings.run_dir
        assert run_dir is not None, "the supervisor fills it in"
        return run_dir

    def _start_copier(self) -> Child:
        directory = self._directory
        arguments = [
            "resize",
            str(directory.path),
            "--workers",
            str(len(self._new)),
            "--lock",
            str(directory.lock),
        ]
        return Child(
            "resize",
            "workers.store",
            arguments,
            self._starter.environment,
            (directory.lock,),
            lambda _: None,
            lambda _: None,
        )

    async def _undo(self) -> None:
        """Let the old workers go on, and remove what was made."""
        for role, child in self._old.items():
            role.retired = False
            child.send(GO_ON)
            child.send(UNTRACK)
            if role.child is None and role.restart is None and not self._stopped():
                self._host.start(role)
        for successor in self._successors.values():
            successor.signal(signal.SIGKILL)
            await successor.gone
        if self._copier is not None:
            self._copier.send(STOP)
            # A copier that is busy with a large file notices it a moment later.
            await _until_gone(self._copier)
            await asyncio.to_thread(shutil.rmtree, self._new_files(), ignore_errors=True)
        run_dir = self._run_dir
        left = [str(run_dir / f"look-{role.index}") for role in self._old]
        for role in self._new:
            left.append(succession_endpoint(str(run_dir), role.index))
            left.append(bus_endpoint(str(run_dir), role.index, role.generation))
        for path in left:
            with suppress(OSError):
                os.unlink(path)

    async def _copy(self) -> None:
        await self._ask_old(TRACK, _PATIENCE)
        await self._ask_copier(FILL, _COPY_PATIENCE)
        for _ in range(_CATCH_UPS):
            told = await self._ask_copier(CATCH_UP, _CATCH_UP_PATIENCE, looks=await self._look())
            if told["rows"] <= _FEW:
                return
        raise NoAnswer(
            f"clients write faster than it can be copied: {told['rows']} rows were left again and again"
        )

    async def _finish(self, looks: list[str]) -> None:
        """Have the new files hold. Raises NoAnswer when the old ones do."""
        assert self._copier is not None, "it is started first"
        try:
            await self._ask_copier(FINISH, _LAST_PATIENCE, looks=looks)
        except NoAnswer:
            # It may have died, or have been too slow, before or behind the switch.
            self._copier.signal(signal.SIGKILL)
            await self._copier.gone
            if not await asyncio.to_thread(self._holds):
                raise

    def _holds(self) -> bool:
        """Return whether the new files hold, also after a loss of power."""
        directory = self._directory.path
        layout = read_layout(directory)
        if layout is None or layout.workers != len(self._new):
            return False
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True

    def _new_files(self) -> Path:
        """Return the directory of the new files, as long as the old ones hold."""
        layout = read_layout(self._directory.path)
        assert layout is not None, "the store has files"
        return self._directory.path / Layout(layout.generation + 1, len(self._new)).directory

    async def _boot(self) -> list[str]:
        """Start the new workers; where each of them waits."""
        self._starter.use(self._settings)
        for role in self._new:
            on_exit = self._host.on_exit(role)
            self._successors[role] = self._starter.start_gathering(
                role, len(self._old), self._joined, on_exit
            )
        return [(await hear(child, _BOOT_PATIENCE, WAITING))["path"] for child in self._successors.values()]

    async def _come_to_rest(self) -> None:
        """Have all old workers stand still, with nothing on its way between them. Raises NoAnswer when that can't be."""
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(_PAUSE)
            # Little has to be left for the last time.
            await self._ask_copier(CATCH_UP, _CATCH_UP_PATIENCE, looks=await self._look())
            try:
                await self._ask_old(REST, _REST_PATIENCE)
                await self._settle()
                return
            except NoAnswer as busy:
                problem = busy
                for child in self._old.values():
                    child.send(GO_ON)
                _log.warning("the workers can't be replaced at the moment", extra=fields(reason=str(problem)))
        raise problem

    async def _settle(self) -> None:
        for _ in range(_WAVES):
            self._waves += 1
            told = await self._ask_old(SETTLE, _REST_PATIENCE, wave=self._waves)
            if not any(answer["sent"] for answer in told):
                return
        raise NoAnswer("send each other records without an end")

    async def _look(self) -> list[str]:
        """Have all old workers write down what they have noted; the paths."""
        paths = {role: str(self._run_dir / f"look-{role.index}") for role in self._old}
        await self._ask_old(LOOK, _LAST_PATIENCE, paths=paths)
        return list(paths.values())

    async def _ask_old(
        self, op: str, patience: float, paths: Mapping[Role, str] | None = None, **values: Any
    ) -> list[dict[str, Any]]:
        """Ask all old workers the same at once. Raises NoAnswer when one can't do it, or the resize is to end."""
        if self._stopped():
            raise NoAnswer("the server is stopping, or is drained")
        for role, child in self._old.items():
            if role.child is not child or not child.ready:
                raise NoAnswer(f"{role.name} has ended meanwhile: try again when the server is ready")

        async def ask(role: Role, child: Child) -> dict[str, Any]:
            own = {} if paths is None else {"path": paths[role]}
            try:
                return await child.ask(patience, op, **values, **own)
            except NoAnswer as problem:
                raise NoAnswer(f"{role.name} {problem}") from None

        return await asyncio.gather(*(ask(role, child) for role, child in self._old.items()))

    async def _ask_copier(self, op: str, patience: float, **values: Any) -> dict[str, Any]:
        assert self._copier is not None, "it is started first"
        try:
            return await self._copier.ask(patience, op, **values)
        except NoAnswer as problem:
            if self._copier.refused is not None:
                raise NoAnswer(self._copier.refused) from None
            raise NoAnswer(f"the process that copies the files {problem}") from None

    async def _tell_fronts(self) -> None:
        fronts = [
            child
            for role in self._roles
            if role.kind == FRONT
            for child in (role.child, role.predecessor, role.successor)
            if child is not None
        ]
        told = await asyncio.gather(
            *(front.ask(_FRONT_PATIENCE, RESIZE, workers=len(self._new)) for front in fronts),
            return_exceptions=True,
        )
        for front, answer in zip(fronts, told, strict=True):
            if isinstance(answer, BaseException):
                # It would hand users to the wrong workers. Another one takes its place.
                _log.error("%s did not take the new number of workers: %s", front.name, answer)
                front.signal(signal.SIGKILL)

    async def _give(self, paths: Sequence[str]) -> None:
        for role, child in self._old.items():
            child.send(GIVE, paths=list(paths))
            # At once, if it has ended already.
            child.gone.add_done_callback(partial(_stand_in_for, role.index, paths))
        # A new worker that fails, or is too slow, is started again as any process.
        taking_over = [
            asyncio.create_task(until_ready(role, child, _TAKE_OVER_PATIENCE))
            for role, child in self._successors.items()
        ]
        _, late = await asyncio.wait(taking_over, timeout=_GIVE_PATIENCE)
        if late:
            # Others must not wait for an old worker that hangs.
            for child in self._old.values():
                child.signal(signal.SIGKILL)
        await asyncio.gather(*taking_over, return_exceptions=True)
        for role in self._successors:
            role.gathers = False
        for child in self._old.values():
            await _until_gone(child)
        if self._copier is not None:
            with suppress(NoAnswer):  # then the next start does it
                await self._ask_copier(REMOVE, _CATCH_UP_PATIENCE)
            await _until_gone(self._copier)


async def _until_gone(child: Child) -> None:
    """Wait for the end of a process that is to end by itself; kill it if it does not."""
    await asyncio.wait([child.gone], timeout=_END_PATIENCE)
    child.signal(signal.SIGKILL)
    await child.gone


def _stand_in_for(worker: int, paths: Iterable[str], _: asyncio.Future[None]) -> None:
    """Tell new workers that nothing more comes from an old one that has ended. Who has heard from all old ones does not listen any more."""
    for path in paths:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(_PATIENCE)
            channel.connect(path)
            send_packet(channel, Kind.CLOSED, to_json({"worker": worker}))
