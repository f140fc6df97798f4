"""Replaces every worker and front by a process that runs the program now on disk, one at a time, while clients stay connected.

worker: start the successor -> it waits -> the old one comes to rest and gives it everything -> it serves -> the old one ends
                 |                                   |
                 +-- it refuses to start             +-- something does not come to an end: tried again a few times
                     both: nothing has happened, and the old process serves on

front:  start another on the same listeners -> it accepts -> the old one accepts nothing more, and ends when it has nobody left

supervisor, last of all: the process stays, and becomes another program (``router.supervisor.upgrade``)
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from core.events import fields
from core.process.control import LEAVE, LEAVING, STAYS, SUCCEED, WAITING, WORKER_SUCCEEDED
from core.process.settings import ConfigurationError
from router.supervisor.children import Child
from router.supervisor.roles import WORKER, Role
from router.supervisor.service_manager import ServiceManager
from router.supervisor.starter import Starter

_log = logging.getLogger("fastchat.supervisor")

#: Seconds that a new process has for booting, an old one for coming to rest, and a successor for taking over.
_BOOT_PATIENCE: Final = 60.0
_REST_PATIENCE: Final = 15.0
_TAKE_OVER_PATIENCE: Final = 60.0
#: Seconds in which an old worker has to end that has given everything away.
_END_PATIENCE: Final = 30.0
#: How often an old process is asked that does not come to rest, and seconds between two times.
_TRIES: Final = 5
_PAUSE: Final = 1.0


class ReloadFailed(Exception):
    """A process was not replaced; the message is a sentence. It serves on, as do those that come after it."""


class UpgradeFailed(Exception):
    """The supervisor goes on with the old program; the message says why, as the end of a sentence."""


class Host(Protocol):
    """The supervisor, as a reload sees it."""

    starter: Starter
    #: What replaces processes at present: one such thing at a time. None for nothing.
    replacing: str | None

    def on_exit(self, role: Role) -> Callable[[Child], None]:
        """Return what is to be called when a process of this role ends."""

    def replaced(self, role: Role, child: Child) -> None:
        """Note that another process takes the place of this one."""

    def reread_keys(self) -> None:
        """Have all processes read the keys of tokens again. Raises ConfigurationError when they are no good."""

    def tell_workers(self, role: Role, op: str, **values: Any) -> None:
        """Tell all workers but this one."""

    async def upgrade(self, reloaded: list[dict[str, Any]]) -> None:
        """Become the program on disk, which answers with what was `reloaded`. Returns never; raises UpgradeFailed and OSError."""


class Reload:
    """One reload at a time; `run` it."""

    def __init__(
        self,
        host: Host,
        replaceable: Callable[[], list[Role]],
        service_manager: ServiceManager,
        joined: Callable[[Child], None],
    ) -> None:
        """Replace nothing yet.

        `replaceable` returns whose processes are replaced, in this order; `joined` is told of a new process when it is ready.
        """
        self._host = host
        self._replaceable = replaceable
        self._service_manager = service_manager
        self._joined = joined
        self._hung_up: asyncio.Task[None] | None = None
        self._stopped = False

    def stop(self) -> None:
        """Replace nothing more: the server ends, or is drained."""
        self._stopped = True

    def on_hang_up(self) -> None:
        """Do it for SIGHUP."""
        _log.info("SIGHUP: replacing all processes")
        self._hung_up = asyncio.get_running_loop().create_task(
            self._service_manager.reload(self._run_and_log)
        )

    async def _run_and_log(self) -> None:
        try:
            await self.run()
        except ReloadFailed as failed:
            _log.error("SIGHUP: not everything was replaced", extra=fields(reason=str(failed)))

    async def run(self) -> list[dict[str, Any]]:
        """Read the keys of tokens again, and replace all processes; what was replaced, in order.

        The last one is the process that this runs in, which is another program then and answers in its place. Raises ReloadFailed when a
        process could not be replaced.
        """
        try:
            self._host.reread_keys()
        except ConfigurationError as error:
            raise ReloadFailed(f"keeping the current keys: the new ones are invalid: {error}") from None
        if self._host.replacing is not None:
            raise ReloadFailed(f"{self._host.replacing} is under way already: try again when it is done")
        self._host.replacing = "a reload"
        done = []
        roles = self._replaceable()
        try:
            for role in roles:
                if role.child is None or not role.child.ready:
                    raise ReloadFailed(f"{role.name} is {role.state}: try again when the server is ready")
            try:
                await self._host.starter.refresh()
            except OSError as error:
                raise ReloadFailed(str(error)) from None
            for role in roles:
                if self._stopped:
                    raise ReloadFailed("the server is stopping, or is drained")
                started = time.monotonic()
                replace = self._replace_worker if role.kind == WORKER else self._replace_front
                child = await replace(role)
                role.replaced += 1
                seconds = round(time.monotonic() - started, 3)
                _log.info("%s is a new process", role.name, extra=fields(pid=child.pid, seconds=seconds))
                done.append({"process": role.name, "pid": child.pid, "seconds": seconds})
            if self._stopped:
                raise ReloadFailed("the server is stopping, or is drained")
            try:
                await self._host.upgrade(done)
            except (UpgradeFailed, OSError) as failed:
                raise ReloadFailed(
                    f"the supervisor goes on with the old program, and everything else was replaced: {failed}"
                ) from None
        finally:
            self._host.replacing = None
        return done

    async def _replace_worker(self, role: Role) -> Child:
        generation = self._host.starter.next_generation()
        successor = self._start(role, generation)
        role.successor = successor
        try:
            waiting = await hear(successor, _BOOT_PATIENCE, WAITING)
            old = await self._bring_to_rest(role, waiting["path"])
        except ReloadFailed as failed:
            role.successor = None
            successor.signal(signal.SIGKILL)
            raise ReloadFailed(f"{role.name} goes on with the old process: {failed}") from None
        # From here on the successor is the process of this place, whatever happens.
        role.child, role.predecessor, role.successor = successor, old, None
        self._host.replaced(role, old)
        role.generation = generation
        self._host.tell_workers(role, WORKER_SUCCEEDED, worker=role.index, generation=generation)
        await until_ready(role, successor, _TAKE_OVER_PATIENCE)
        await asyncio.wait([old.gone], timeout=_END_PATIENCE)
        old.signal(signal.SIGKILL)
        return successor

    async def _bring_to_rest(self, role: Role, path: str) -> Child:
        """Have the old process give everything away; the process that does it."""
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(_PAUSE)
            old = role.child
            if old is None or not old.ready:
                raise ReloadFailed("that has just ended")
            old.send(SUCCEED, path=path)
            answer = await hear(old, _REST_PATIENCE, LEAVING, STAYS)
            if answer["op"] == LEAVING:
                if role.child is not old:
                    raise ReloadFailed("that has just ended")
                return old
            _log.warning(
                "%s can't be replaced at the moment", role.name, extra=fields(reason=answer["reason"])
            )
        raise ReloadFailed(f"it did not come to rest: {answer['reason']}")

    async def _replace_front(self, role: Role) -> Child:
        old = role.child
        if old is None or not old.ready:
            raise ReloadFailed(f"{role.name} has just ended: try again in a moment")
        try:
            new = self._host.starter.start(role, self._joined, self._host.on_exit(role))
        except OSError as error:
            raise ReloadFailed(f"{role.name} can't be started: {error.strerror}") from None
        role.successor = new
        try:
            await until_ready(role, new, _BOOT_PATIENCE)
            if role.child is not old:
                raise ReloadFailed("that has just ended")
        except ReloadFailed as failed:
            role.successor = None
            new.signal(signal.SIGKILL)
            raise ReloadFailed(f"{role.name} goes on with the old process: {failed}") from None
        role.child, role.predecessor, role.successor = new, old, None
        self._host.replaced(role, old)
        old.send(LEAVE)
        return new

    def _start(self, role: Role, generation: int) -> Child:
        try:
            on_exit = self._host.on_exit(role)
            return self._host.starter.start_successor(role, generation, self._joined, on_exit)
        except OSError as error:
            raise ReloadFailed(f"{role.name} can't be started: {error.strerror}") from None


async def hear(child: Child, seconds: float, *ops: str) -> dict[str, Any]:
    """Wait until a process says one of these. Raises ReloadFailed when it ends, or takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await child.hear(*ops)
    except TimeoutError:
        raise ReloadFailed(
            f"the process {child.pid} did not say `{'` or `'.join(ops)}` within {seconds:g} s"
        ) from None
    except EOFError:
        raise ReloadFailed(_why_it_ended(child)) from None


async def until_ready(role: Role, child: Child, seconds: float) -> None:
    """Wait until a process of this role is ready. Raises ReloadFailed when it ends, or takes longer."""
    done, _ = await asyncio.wait(
        [child.is_ready, child.gone], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    if child.exit_code is not None:
        raise ReloadFailed(_why_it_ended(child))
    if not done:
        raise ReloadFailed(f"the new process of {role.name} was not ready within {seconds:g} s")


def _why_it_ended(child: Child) -> str:
    return child.refused or f"the process {child.pid} ended with {child.how_it_ended()}"
