"""The supervisor: opens the ports, starts workers and fronts, starts again what dies, and stops all of them in order.

It never touches a client's socket. What it holds for the others: the listeners, so that connections which wait for a front that died
wait for the next one; the run directory; the lock on the data directory; and a control pipe to each child, whose end is the end of the
child, so none outlives it.

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
import platform
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from core.auth.tokens import load_verifier
from core.events import fields
from core.process.allocator import environment_of_children
from core.process.capacity import limits_of_container
from core.process.control import EXIT_CONFIGURATION, LOG_LEVEL, RELOAD_KEYS, WORKER_GONE
from core.process.logs import set_log_level
from core.process.settings import PREFIX, ConfigurationError, Settings
from router.admin.dashboard import Dashboard
from router.admin.metrics import MetricsCollector, MetricsPage
from router.admin.port import AdminServer, parse_admin_hosts
from router.admin.recorder import Recorder
from router.operator.operations import Operations
from router.operator.socket import OperatorSocket
from router.supervisor import listeners, preflight
from router.supervisor.build import core_advice, core_kind, fastchat_version
from router.supervisor.children import Child
from router.supervisor.data_directory import DataDirectory, create_data_directory, lock_data_directory
from router.supervisor.draining import Drain
from router.supervisor.hang_watch import HangWatch
from router.supervisor.health import Health, Phase
from router.supervisor.orphans import reap_orphans
from router.supervisor.problem_log import ProblemLog
from router.supervisor.process_usage import ProcessUsage
from router.supervisor.reload import Reload
from router.supervisor.restart_policy import GiveUp
from router.supervisor.roles import FRONT, WORKER, Role
from router.supervisor.run_directory import OPERATOR_SOCKET, RunDirectory, create_run_directory
from router.supervisor.run_directory_watch import RunDirectoryWatch
from router.supervisor.service_manager import ServiceManager
from router.supervisor.starter import Starter
from router.supervisor.stopping import stop_children
from router.supervisor.terminal import Terminal

_log = logging.getLogger("fastchat.supervisor")

#: Seconds that workers have for hearing each other before the ready line, and between two looks.
_BUS_PATIENCE: Final = 5.0
_BUS_RETRY: Final = 0.02
#: Seconds between two looks at what all processes share.
_CHECK_INTERVAL: Final = 1.0
#: Seconds within which a second signal is the first one again, by another way: make passes on what the whole group gets.
_SAME_SIGNAL: Final = 1.0
#: The settings that `/status` shows; others may be secret one day.
_SHOWN: Final = (
    "host",
    "port",
    "admin_host",
    "admin_port",
    "workers",
    "fronts",
    "data_dir",
    "run_dir",
    "store",
    "user_ids",
    "auth",
    "presence",
    "log_level",
    "log_format",
)


class CannotBoot(Exception):
    """A process that the server can't do without has ended before it was ready; the message is a sentence."""


class Supervisor:
    """The whole server. Create it within its event loop, then `run` it once."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._started_at = time.monotonic()
        self._roles = [Role(WORKER, index) for index in range(settings.workers)]
        self._roles += [Role(FRONT, index) for index in range(settings.fronts)]
        #: The listeners of each front.
        self._listeners: list[list[socket.socket]] = []
        self._run_directory: RunDirectory | None = None
        #: With a store that has one.
        self._data_directory: DataDirectory | None = None
        #: Makes the files for this number of workers, while it does.
        self._preparing: Child | None = None
        self._admin: AdminServer | None = None
        self._operators: OperatorSocket | None = None
        self._run_directory_watch: RunDirectoryWatch | None = None
        self._health = Health(self._roles, self._phase, self._problems)
        #: Who started this process and wants to know how it is, such as systemd.
        self._service_manager = ServiceManager(self._loop, self._in_a_line)
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
        # What the store in memory has would be gone with the process.
        replaceable = [role for role in self._roles if role.kind == FRONT or settings.store != "memory"]
        self._reload = Reload(self, replaceable, self._service_manager, self._drain.joined)
        self._terminal = Terminal(self._loop, partial(self._stop_for, "the terminal was closed"))
        #: Whether everybody was ready once, and the operator was told.
        self._announced = False

    async def run(self) -> int:
        """Serve until told to stop; the exit code. Raises ConfigurationError when the server can't be started like this, and CannotBoot."""
        self._loop.add_signal_handler(signal.SIGINT, self._stop_for, signal.SIGINT.name)
        self._loop.add_signal_handler(signal.SIGTERM, self._stop_for, signal.SIGTERM.name, True)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload.on_hang_up)
        self._service_manager.start()
        self._loop.call_later(_CHECK_INTERVAL, self._check)
        self._hang_watch.start()
        try:
            prepare = self._loop.create_task(self._prepare())
            await asyncio.wait((prepare, self._end), return_when=asyncio.FIRST_COMPLETED)
            if not prepare.done():
                prepare.cancel()
                with suppress(asyncio.CancelledError):
                    await prepare
            else:
                await prepare
                _log.info("the core is %s", core_kind(), extra=fields(reason=core_advice()))
                for role in self._roles:
                    self._start(role)
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
        settings = self._settings
        addresses, admin_addresses, warnings = preflight.check_settings(settings)
        container = limits_of_container()
        if container is not None:
            _log.info("%s: workers=%d fronts=%d", container, settings.workers, settings.fronts)
        for warning in warnings:
            _log.warning("%s", warning)
        preflight.raise_descriptor_limit()
        data_directory = settings.data_dir.absolute()
        if settings.store == "sqlite":
            create_data_directory(data_directory)

        first = await listeners.open_listeners("", addresses, settings.port)
        self._listeners = [first]
        self._listeners += ([listeners.share(each) for each in first] for _ in range(1, settings.fronts))
        port = listeners.port_of(first)
        admin = await listeners.open_listeners("ADMIN_", admin_addresses, settings.admin_port)
        dashboard = Dashboard(self._recorder.samples, self.status)
        routes = [*self._health.routes(), *MetricsPage(self._collector()).routes(), *dashboard.routes()]
        names = parse_admin_hosts(settings.admin_hosts)
        self._admin = AdminServer(settings.admin_host, admin, self.status, routes, names)
        await self._admin.start()
        self._recorder.start()
        self._run_directory = await create_run_directory(settings.run_dir, port)
        operations = Operations(
            settings, self._roles, self.status, self.set_log_level, self.drain, self._reload.run
        )
        self._operators = OperatorSocket(self._run_directory.path / OPERATOR_SOCKET, operations.answer)
        await self._operators.start()
        self._run_directory_watch = RunDirectoryWatch(self._run_directory, self._operators)

        self._settings = dataclasses.replace(
            settings,
            port=port,
            admin_port=listeners.port_of(admin),
            data_dir=data_directory,
            run_dir=self._run_directory.path,
            jwt_key_file=_absolute(settings.jwt_key_file),
            jwt_jwks_file=_absolute(settings.jwt_jwks_file),
        )
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        environment = inherited | environment_of_children(inherited) | self._settings.environment()
        keep, lock = self._run_directory.path.parent, None
        if settings.store == "sqlite":
            keep = data_directory
            self._data_directory = await lock_data_directory(data_directory)
            lock = self._data_directory.lock
            if not self._data_directory.is_prepared(settings.workers):
                await self._prepare_files(self._data_directory, environment)
        self.starter = Starter(self._roles, environment, self._listeners, keep, lock)

    async def _prepare_files(self, directory: DataDirectory, environment: Mapping[str, str]) -> None:
        """Let a child make the files for this number of workers; what it tells goes to standard error, as all logging does."""
        arguments = ["prepare", str(directory.path), "--workers", str(self._settings.workers)]
        arguments += ["--lock", str(directory.lock)]
        ended: asyncio.Future[None] = self._loop.create_future()

        def on_exit(_: Child) -> None:
            self._preparing = None
            if not ended.done():
                ended.set_result(None)

        try:
            child = Child(
                "prepare", "workers.store", arguments, environment, (directory.lock,), _ignore, on_exit
            )
        except OSError as error:
            raise ConfigurationError(f"can't start the process `prepare`: {error.strerror}") from None
        self._preparing = child
        await ended  # if the server ends meanwhile, `_shut_down` ends the child
        if child.refused is not None and child.exit_code == EXIT_CONFIGURATION:
            raise ConfigurationError(child.refused)
        if child.exit_code != 0:
            raise CannotBoot(
                f"the files in {directory.path} could not be prepared: the process `prepare` ended with {child.how_it_ended()}"
            )

    # -- Children --

    def _start(self, role: Role) -> None:
        role.restart = None
        if self._run_directory_watch is not None:
            self._run_directory_watch.check()
        try:
            role.child = self.starter.start(role, partial(self._ready, role), self.on_exit(role))
        except OSError as error:
            self._recover(role, f"the system error {error.strerror!r}")

    def on_exit(self, role: Role) -> Callable[[Child], None]:
        """See ``router.supervisor.reload.Host``, as the three below."""
        return partial(self._ended, role)

    def replaced(self, role: Role, child: Child) -> None:
        self._recorder.replaced(role, child)

    def reread_keys(self) -> None:
        if self._settings.auth == "jwt":
            load_verifier(self._settings, Path.read_bytes)
            for child in self._children():
                child.send(RELOAD_KEYS)
            _log.info("the keys of tokens are read again")

    def tell_workers(self, role: Role, op: str, **values: Any) -> None:
        for other in self._roles:
            if other.kind == WORKER and other is not role:
                for child in filter(None, (other.child, other.successor)):
                    child.send(op, **values)

    def _ready(self, role: Role, child: Child) -> None:
        role.policy.ready(time.monotonic())
        self._drain.joined(child)
        if self._announced:
            _log.info("%s is back", role.name, extra=fields(pid=child.pid))
            self._recorder.back(role)
        else:
            self._announce_when_connected(time.monotonic() + _BUS_PATIENCE)

    def _announce_when_connected(self, until: float) -> None:
        """Tell the operator that the server is ready when all are, and have heard each other; if that takes too long, when all are."""
        if self._announced or self._end.done() or not all(role.state == "ready" for role in self._roles):
            return
        if time.monotonic() < until and not all(role.follows_all for role in self._roles):
            self._loop.call_later(_BUS_RETRY, self._announce_when_connected, until)
            return
        self._announced = True
        self._announce()
        self._service_manager.ready()

    def _announce(self) -> None:
        settings = self._settings
        line = (
            f"fastchat ready: ws://{_url_host(settings.host)}:{settings.port}/ws"
            f" admin http://{_url_host(settings.admin_host)}:{settings.admin_port}"
            f" workers={settings.workers} fronts={settings.fronts} pid={os.getpid()}\n"
        )
        with suppress(OSError):  # nobody may be reading, and the server is no worse for it
            os.write(1, line.encode())

    def _check(self) -> None:
        """Look at what all share, reap what has been left to this process, and tell of problems."""
        if self._end.done():
            return
        self._loop.call_later(_CHECK_INTERVAL, self._check)
        reap_orphans([child.pid for child in self._children()])
        if self._run_directory_watch is not None:
            self._run_directory_watch.check()
        if self._announced:
            self._problem_log.sample()

    def _ended(self, role: Role, child: Child) -> None:
        if child is role.predecessor:
            role.predecessor = None
            if role.kind == WORKER:
                if child.exit_code and role.child is not None:
                    # Nobody knows what it had passed on. The next process gets all of that again.
                    role.child.signal(signal.SIGKILL)
                # Its generation is not known any more, and does not matter: all that counts is that it is an earlier one.
                self.tell_workers(
                    role, WORKER_GONE, worker=role.index, generation=role.generation - 1, next=role.generation
                )
            return
        if child is not role.child:
            return  # a successor that never took over
        role.child = None
        self._recorder.ended(role, child)
        if role.kind == WORKER:
            ended, role.generation = role.generation, self.starter.next_generation()
            self.tell_workers(role, WORKER_GONE, worker=role.index, generation=ended, next=role.generation)
        if role.predecessor is not None:
            # The two have the same files, which a third process must not find open.
            role.predecessor.signal(signal.SIGKILL)
            role.predecessor = None
        if not self._end.done():
            self._recover(role, child.how_it_ended(), child)

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
        role.restart = self._loop.call_later(verdict.delay, self._start, role)

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
        self._reload.stop()  # a front that takes the place of another one would need them
        for listener in (listener for each in self._listeners for listener in each):
            listener.close()

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
        if self._run_directory_watch is not None:
            await self._run_directory_watch.stop()
        if self._operators is not None:
            await self._operators.stop()
        if self._admin is not None:
            await self._admin.stop()
        if self._run_directory is not None:
            self._run_directory.remove()
        if self._data_directory is not None:
            self._data_directory.release()

    def _children(self, kind: str | None = None) -> list[Child]:
        """Return those of one kind, or all, also the one that prepares."""
        roles = [role for role in self._roles if kind in (None, role.kind)]
        children = [child for role in roles for child in (role.child, role.predecessor, role.successor)]
        if kind is None:
            children.append(self._preparing)
        return [child for child in children if child is not None]

    # -- What there is to tell --

    def _collector(self) -> MetricsCollector:
        build = {"version": fastchat_version(), "python": platform.python_version(), "core": core_kind()}
        return MetricsCollector(self._roles, self._usage, self._health.is_ready, build)

    def set_log_level(self, level: str) -> None:
        """Log what is at least so severe from now on, in all processes and those that follow. Raises ValueError for what is no level."""
        set_log_level(level)
        self._settings = dataclasses.replace(self._settings, log_level=cast(Any, level))
        self.starter.environment = {**self.starter.environment, **self._settings.environment()}
        for child in self._children():
            child.send(LOG_LEVEL, level=level)
        _log.info("the log level is now %s", level)

    def _problems(self) -> list[str]:
        """Return what is wrong with what the processes share, a sentence each."""
        watch = self._run_directory_watch
        return [watch.problem] if watch is not None and watch.problem is not None else []

    def _phase(self) -> Phase:
        if self._end.done():
            return Phase.STOPPING
        if not self._announced:
            return Phase.STARTING
        return self._drain.phase or Phase.SERVING

    def _in_a_line(self) -> str:
        """Return the state of everything, for the service manager."""
        settings = self._settings
        if self._preparing is not None:
            return f"starting: making the files for {settings.workers} workers"
        if self._phase() is not Phase.SERVING:
            return self._phase()
        serving = f"serving on port {settings.port}, workers={settings.workers} fronts={settings.fronts}"
        return "; ".join(self._health.reasons()) or serving

    def status(self) -> dict[str, Any]:
        """Return the state of everything, as JSON takes it; `status` is what `/healthz` says, `reasons` what `/readyz` does."""
        return {
            "status": self._health.status,
            "reasons": self._health.reasons(),
            "version": fastchat_version(),
            "core": core_kind(),
            "core_advice": core_advice(),
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._started_at, 1),
            "settings": {name: value for name, value in self._settings.as_json().items() if name in _SHOWN},
            "drain": self._drain.status(),
            "processes": [role.status() for role in self._roles],
        }


def _absolute(path: Path | None) -> Path | None:
    """Return the same for a child, which has another working directory."""
    return None if path is None else path.absolute()


def _ignore(child: Child) -> None:
    """Do nothing: the child has nothing to be ready for."""


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
