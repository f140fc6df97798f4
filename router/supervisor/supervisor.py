"""The supervisor: opens the ports, starts workers and fronts, starts again what dies, and stops all of them in order.

It never touches a client's socket. What it holds for the others: the listeners, so that connections which wait for a front that died
wait for the next one; the run directory; the lock on the data directory; and a control pipe to each child, whose end is the end of the
child. If it is killed, the keeper has all that for the next supervisor (``router.supervisor.keeper``).

    prepare (ports, directories, files) --> children boot --> ready --> ... --> stop: fronts, then workers --> exit
         |                                       |                       ^
         +-- not as it should be: exit 2         +-- one could not: exit 2 when the operator has to change something, else 3
                                                                         |
                                                                      a signal

Signal handlers only note what was asked for. With a time for it, SIGTERM drains the server first (``router.supervisor.draining``). A signal
a second or more after that ends the drain, and one during the stop ends all children at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from core.events import fields
from core.process.capacity import limits_of_container
from core.process.child import reload_keys
from core.process.control import EXIT_CONFIGURATION, LOG_LEVEL, RELOAD_KEYS, WORKER_GONE
from core.process.logs import flush_logs, set_log_level
from core.process.settings import ConfigurationError, Settings
from router.admin.columns import SUPERVISOR
from router.admin.metrics import MetricsPage
from router.admin.recorder import Recorder
from router.operator.operations import Operations
from router.supervisor import preflight
from router.supervisor.build import core_advice, core_kind, fastchat_version
from router.supervisor.children import Child
from router.supervisor.draining import Drain
from router.supervisor.file_preparation import FilePreparation
from router.supervisor.handed_on import HandedOn
from router.supervisor.hang_watch import HangWatch
from router.supervisor.health import Health, Phase
from router.supervisor.operator_access import OperatorAccess
from router.supervisor.orphans import reap_orphans
from router.supervisor.parts import Parts
from router.supervisor.problem_log import ProblemLog
from router.supervisor.process_usage import ProcessUsage
from router.supervisor.reload import Reload, UpgradeFailed
from router.supervisor.report import Report
from router.supervisor.resize import Resize
from router.supervisor.resources import Resources
from router.supervisor.restart_policy import CannotBoot, GiveUp
from router.supervisor.roles import FRONT, WORKER, Role
from router.supervisor.safekeeping import Safekeeping
from router.supervisor.service_manager import ServiceManager
from router.supervisor.starter import Starter
from router.supervisor.stopping import stop_children
from router.supervisor.terminal import Terminal
from router.supervisor.upgrade import SIGNALS, become, check, handle_signals, signals_blocked

_log = logging.getLogger("fastchat.supervisor")

#: Seconds that workers have for hearing each other before the ready line, and between two looks.
_BUS_PATIENCE: Final = 5.0
_BUS_RETRY: Final = 0.02
#: Seconds between two looks at what all processes share.
_CHECK_INTERVAL: Final = 1.0
#: Seconds within which a second signal is the first one again, by another way: make passes on what the whole group gets.
_SAME_SIGNAL: Final = 1.0


class Supervisor:
    """The whole server. Create it within its event loop, then `run` it once."""

    def __init__(self, settings: Settings, state: HandedOn | None = None) -> None:
        """`state` is what another program has handed on: the one that this process was, or a supervisor that was killed; or there is none.

        The settings are from there then.
        """
        self._loop = asyncio.get_running_loop()
        self._resources = Resources(settings)
        self._roles = [Role(WORKER, index) for index in range(settings.workers)]
        self._roles += [Role(FRONT, index) for index in range(settings.fronts)]
        self._file_preparation = FilePreparation()
        self._health = Health(self._roles, self._phase, self._problems)
        #: What the processes use.
        self._usage = ProcessUsage()
        #: The history that the dashboard shows.
        self._recorder = Recorder(self._roles, self._usage)
        self._problem_log = ProblemLog(self._roles, self._recorder)
        #: Starts processes, once everything is prepared for that.
        self.starter: Starter
        self._hang_watch = HangWatch(self._loop, self._roles)
        #: The exit code, once it is settled that the server ends; and when a signal settled it.
        self._end: asyncio.Future[int] = self._loop.create_future()
        self._stopping_since = -math.inf
        self._drain = Drain(self._loop, self._roles, settings.drain_seconds, self._close_listeners)
        self._report = Report(
            self._resources,
            self._roles,
            self._health,
            self._drain,
            self._phase,
            lambda: self._file_preparation.child is not None,
        )
        self._access = OperatorAccess(self._resources, self._roles, self._recorder, self._report.status)
        #: Who started this process and wants to know how it is, such as systemd.
        self._service_manager = ServiceManager(self._loop, self._report.in_a_line)
        self.replacing: str | None = None
        #: Keeps all this for the next supervisor.
        self._safekeeping = Safekeeping(self._loop, self._deposit)
        self._reload = Reload(self, self._replaceable, self._service_manager, self._joined)
        changed = self._safekeeping.update_now
        self._resize = Resize(self, self._roles, self._resources, self._joined, changed)
        closed = partial(self._stop_for, "the terminal was closed")
        of_this_process = state if state is not None and not state.is_deposited else None
        self._terminal = Terminal(self._loop, closed, of_this_process.terminal if of_this_process else None)
        self._parts = Parts(
            self._resources,
            self._access,
            self._roles,
            self._report,
            self._service_manager,
            self._terminal,
            self._recorder,
            self._usage,
            self._problem_log,
        )
        #: Whether everybody was ready once, and the operator was told.
        self._announced = of_this_process is not None and of_this_process.announced
        self._state = state
        if state is not None:
            self._parts.take_up(state)

    async def run(self) -> int:
        """Serve until told to stop; the exit code. Raises ConfigurationError when the server can't be started like this, and CannotBoot."""
        self._loop.add_signal_handler(signal.SIGINT, self._stop_for, signal.SIGINT.name)
        self._loop.add_signal_handler(signal.SIGTERM, self._stop_for, signal.SIGTERM.name, True)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload.on_hang_up)
        if self._state is not None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._service_manager.start()
        self._loop.call_later(_CHECK_INTERVAL, self._check)
        self._hang_watch.start()
        try:
            first = self._prepare() if self._state is None else self._resume(self._state)
            prepare = self._loop.create_task(first)
            await asyncio.wait((prepare, self._end), return_when=asyncio.FIRST_COMPLETED)
            if not prepare.done():
                prepare.cancel()
                with suppress(asyncio.CancelledError):
                    await prepare
            else:
                await prepare
            return await self._end
        finally:
            self._service_manager.stopping()
            await self._shut_down()
            self._service_manager.close()
            self._terminal.close()
            for number in (signal.SIGINT, signal.SIGTERM):
                # Everything is done: one more Ctrl-C must not turn a good end into a bad one.
                self._loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    # -- Before anything is started --

    async def _prepare(self) -> None:
        resources = self._resources
        checked = preflight.check_settings(resources.settings)
        workers, fronts = resources.settings.workers, resources.settings.fronts
        if (container := limits_of_container()) is not None:
            _log.info("%s: workers=%d fronts=%d", container, workers, fronts)
        for warning in checked.warnings:
            _log.warning("%s", warning)
        await resources.open_ports(checked)
        await self._start_admin()
        run_directory = await resources.create_run_directory()
        await self._access.start_operators(run_directory, self._operations().answer)
        environment = resources.environment_of_children()
        await resources.lock_data_directory()
        if resources.data_directory is not None:
            await self._file_preparation.run(resources.data_directory, workers, environment)
        self._make_starter()
        for role in self._roles:
            self.start(role)

    async def _start_admin(self, instance: str | None = None) -> None:
        metrics = MetricsPage(self._report.collector(self._usage, self._access.api_calls))
        await self._access.start_ports([*self._health.routes(), *metrics.routes()], instance)
        self._recorder.start()

    def _operations(self) -> Operations:
        return Operations(
            self._resources.settings,
            self._access.workers,
            self._report.status,
            self.set_log_level,
            self.drain,
            self._reload.run,
            self._resize.run,
        )

    def _make_starter(self) -> None:
        resources = self._resources
        environment = resources.environment_of_children()
        self.starter = Starter(self._roles, environment, resources.listeners, resources.keep, resources.lock)
        _log.info("the core is %s", core_kind(), extra=fields(reason=core_advice()))

    # -- Another program in the same process (``router.supervisor.upgrade``) --

    async def upgrade(self, reloaded: list[dict[str, Any]]) -> None:
        """See ``router.supervisor.reload.Host``."""
        since = time.monotonic()
        environment = self.starter.environment_of_upgrade(self._service_manager.environment)
        await check(self._hand_on(since, reloaded).to_json(), environment)
        try:
            await self._access.go_quiet()
            with signals_blocked():
                await handle_signals()
                if self._phase() is not Phase.SERVING:
                    raise UpgradeFailed(f"the server is {self._phase()}")
                flush_logs()
                # The end of its socket is not the end of this process.
                self._safekeeping.stop()
                state = self._hand_on(since, reloaded)
                become(state.to_json(), state.descriptors, environment)
        finally:
            self._access.go_on()
            self._safekeeping.start(self._resources)

    def _deposit(self) -> HandedOn | None:
        """Return what another process needs to go on; None while none could."""
        # Workers that have come to rest for another number of them need this very process.
        if self._phase() not in (Phase.STARTING, Phase.SERVING) or self._resize.is_under_way:
            return None
        return self._hand_on(time.monotonic(), [], is_deposited=True)

    def _hand_on(self, since: float, reloaded: list[dict[str, Any]], is_deposited: bool = False) -> HandedOn:
        return self._parts.hand_on(
            since, reloaded, self.starter.last_generation, self._announced, is_deposited
        )

    async def _resume(self, state: HandedOn) -> None:
        """Go on where another program has ended."""
        self._state = None
        run_directory = self._resources.take_up(state.resources)
        self._make_starter()
        self.starter.last_generation = state.last_generation
        roles = {(role.kind, role.index): role for role in self._roles}
        ended = []
        for each in state.roles:
            role = roles[each.kind, each.index]
            role.take_up(each, partial(self._ready, role), self.on_exit(role))
            if role.child is None and each.child is not None:
                ended.append(role)
            elif role.child is None:
                role.restart = self._loop.call_later(each.restart or 0.0, self.start, role)
        for role in ended:
            self._lost(role, "an end that no supervisor saw")
        # A page of another version has to be loaded again.
        await self._start_admin(state.access.instance if state.program == fastchat_version() else None)
        self._safekeeping.start(self._resources)
        seconds = round(time.monotonic() - state.since, 3)
        if state.is_deposited:
            _log.warning("a supervisor was killed: this one goes on with its workers and fronts")
            self.set_log_level(self._resources.settings.log_level)
            reload_keys(self.reread_keys, _log)
        else:
            _log.info("the supervisor is a new program", extra=fields(pid=os.getpid(), seconds=seconds))
        reloaded = [*state.reloaded, {"process": SUPERVISOR, "pid": os.getpid(), "seconds": seconds}]
        self._access.take_up_operators(run_directory, self._operations().answer, state.access, reloaded)
        self._announce_when_connected(time.monotonic() + _BUS_PATIENCE)

    # -- Children --

    def start(self, role: Role) -> None:
        """See ``router.supervisor.resize.Host``."""
        role.restart = None
        self._access.check()
        try:
            role.child = self.starter.start(role, partial(self._ready, role), self.on_exit(role))
        except OSError as error:
            self._recover(role, f"the system error {error.strerror!r}")
        # At once: a worker that is not in the deposit must not come as far as its files beside the next supervisor's.
        self._safekeeping.update_now()

    def on_exit(self, role: Role) -> Callable[[Child], None]:
        """See ``router.supervisor.reload.Host``, as the three below."""
        return partial(self._ended, role)

    def replaced(self, role: Role, child: Child) -> None:
        self._recorder.replaced(role, child)
        self._safekeeping.update()

    def resized(self, workers: list[Role], starter: Starter) -> None:
        """See ``router.supervisor.resize.Host``."""
        self._recorder.resize(len(workers))
        self._roles[:] = [*workers, *(role for role in self._roles if role.kind == FRONT)]
        self.starter = starter
        for role in workers:
            if role.child is None:
                self.start(role)

    def reread_keys(self) -> None:
        self._access.reread_keys()
        settings = self._resources.settings
        if settings.auth == "jwt" or settings.hook_url:
            preflight.check_keys(settings)
            for child in self._children():
                child.send(RELOAD_KEYS)
            _log.info("keys and secrets are read again")

    def tell_workers(self, role: Role, op: str, **values: Any) -> None:
        for other in self._roles:
            if other.kind == WORKER and other is not role:
                for child in filter(None, (other.child, other.successor)):
                    child.send(op, **values)

    def _ready(self, role: Role, child: Child) -> None:
        role.policy.ready(time.monotonic())
        self._joined(child)
        if self._announced:
            _log.info("%s is back", role.name, extra=fields(pid=child.pid))
            self._recorder.back(role)
        else:
            self._announce_when_connected(time.monotonic() + _BUS_PATIENCE)

    def _joined(self, child: Child) -> None:
        self._drain.joined(child)
        self._safekeeping.update()

    def _announce_when_connected(self, until: float) -> None:
        """Tell the operator that the server is ready when all are, and have heard each other; if that takes too long, when all are."""
        if self._announced or self._end.done() or not all(role.state == "ready" for role in self._roles):
            return
        if time.monotonic() < until and not all(role.follows_all for role in self._roles):
            self._loop.call_later(_BUS_RETRY, self._announce_when_connected, until)
            return
        self._announced = True
        self._safekeeping.start(self._resources)
        self._report.announce()
        self._service_manager.ready()

    def _check(self) -> None:
        """Look at what all share, reap what has been left to this process, and tell of problems."""
        if self._end.done():
            return
        self._loop.call_later(_CHECK_INTERVAL, self._check)
        reap_orphans([*(child.pid for child in self._children()), *self._access.processes()])
        self._access.check()
        if self._announced:
            self._problem_log.sample()

    def _ended(self, role: Role, child: Child) -> None:
        if child is role.predecessor:
            role.predecessor = None
            if role.kind == WORKER:
                # Its generation is not known any more, and does not matter: all that counts is that it is an earlier one.
                self.tell_workers(
                    role, WORKER_GONE, worker=role.index, generation=role.generation - 1, next=role.generation
                )
            return
        if child is not role.child or role not in self._roles:
            return  # one that never took over, or that has given everything away
        self._recorder.ended(role, child)
        self._lost(role, child.how_it_ended(), child)

    def _lost(self, role: Role, how: str, child: Child | None = None) -> None:
        """Fill a place again whose process has ended, and tell the others."""
        role.child, role.gathers = None, False
        self._safekeeping.update()
        if role.kind == WORKER:
            ended, role.generation = role.generation, self.starter.next_generation()
            self.tell_workers(role, WORKER_GONE, worker=role.index, generation=ended, next=role.generation)
        if role.predecessor is not None:
            # The two have the same files, which a third process must not find open.
            role.predecessor.signal(signal.SIGKILL)
            role.predecessor = None
        if not self._end.done():
            self._recover(role, how, child)

    def _recover(self, role: Role, how: str, child: Child | None = None) -> None:
        """Start the process of `role` again, which ended, or could not even be started."""
        role.last_end = how
        if role.retired:
            return
        refused, code = (child.refused, child.exit_code) if child is not None else (None, None)
        verdict = role.policy.died(time.monotonic(), how, refused, code)
        if isinstance(verdict, GiveUp):
            if not self._end.done():
                problem = ConfigurationError if verdict.exit_code == EXIT_CONFIGURATION else CannotBoot
                self._end.set_exception(problem(verdict.sentence))
            return
        if child is not None and refused is not None:
            _log.error("%s refused to start", role.name, extra=fields(pid=child.pid, reason=refused))
        # Who asks a front to end (SIGTERM) wants this.
        level = logging.INFO if child is not None and child.exit_code == 0 else logging.ERROR
        about = fields(pid=child.pid if child is not None else None)
        _log.log(level, "%s ended with %s and is started again", role.name, how, extra=about)
        role.restarts += 1
        role.restart = self._loop.call_later(verdict.delay, self.start, role)

    # -- The end --

    def _stop_for(self, why: str, may_drain: bool = False) -> None:
        now = time.monotonic()
        is_same_signal = now - self._stopping_since <= _SAME_SIGNAL
        if self._end.done():
            if not is_same_signal:
                _log.warning("%s again: ending all processes at once", why)
                for child in self._children():
                    child.signal(signal.SIGKILL)
        elif may_drain and self._announced and self._drain.precedes_stop:
            self._stopping_since = now
            _log.info("%s: draining, then stopping", why)
            self._drain.begin_then(self._stop)
            self._service_manager.more_time(self._drain.seconds_left)
        elif not is_same_signal:
            self._stopping_since = now
            _log.info("%s: stopping", why)
            self._stop()

    def _stop(self) -> None:
        if not self._end.done():
            self._end.set_result(0)

    def drain(self, seconds: float | None) -> dict[str, Any]:
        """Take no more connections, and close those that are there. Raises ValueError for a server that starts or stops."""
        if self._phase() in (Phase.STARTING, Phase.STOPPING):
            raise ValueError(f"the server is {self._phase()}")
        return self._drain.begin(seconds)

    def _close_listeners(self) -> None:
        self._safekeeping.stop()
        self._reload.stop()  # a front that takes the place of another one would need them
        self._resize.stop()
        self._resources.close_listeners()

    async def _shut_down(self) -> None:
        """End all processes; nothing of the server is left when this returns."""
        self._hang_watch.stop()
        self._recorder.stop()
        for role in self._roles:
            if role.restart is not None:
                role.restart.cancel()
        self._drain.stop()
        self._close_listeners()
        # The fronts first: what they still hand over finds its worker, which then says goodbye in its place.
        await stop_children(self._children(FRONT))
        await stop_children(self._children(WORKER))
        await stop_children(self._children(None))
        await self._access.stop()
        self._resources.close()

    def _children(self, kind: str | None = None) -> list[Child]:
        """Return those of one kind, or all, also the one that prepares."""
        roles = [role for role in self._roles if kind in (None, role.kind)]
        children = [child for role in roles for child in (role.child, role.predecessor, role.successor)]
        if kind is None:
            children += [self._file_preparation.child, self._safekeeping.child]
        if kind != FRONT:
            children += self._resize.children
        return [*dict.fromkeys(child for child in children if child is not None)]

    def _replaceable(self) -> list[Role]:
        # What the store in memory has would be gone with the process.
        in_memory = self._resources.settings.store == "memory"
        return [role for role in self._roles if role.kind == FRONT or not in_memory]

    # -- What there is to tell --

    def set_log_level(self, level: str) -> None:
        """Log what is at least so severe from now on, in all processes and those that follow. Raises ValueError for what is no level."""
        set_log_level(level)
        resources = self._resources
        resources.settings = dataclasses.replace(resources.settings, log_level=cast(Any, level))
        self.starter.use(resources.settings)
        for child in self._children():
            child.send(LOG_LEVEL, level=level)
        self._safekeeping.update()
        _log.info("the log level is now %s", level)

    def _problems(self) -> list[str]:
        """Return what is wrong with what the processes share, a sentence each."""
        return [problem] if (problem := self._access.problem) is not None else []

    def _phase(self) -> Phase:
        if self._end.done():
            return Phase.STOPPING
        if not self._announced:
            return Phase.STARTING
        return self._drain.phase or Phase.SERVING
