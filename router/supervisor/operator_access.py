"""The ways in for operators and backends: the admin port, which only reads, the server API, and the operators' socket in the run
directory.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from core.process.descriptors import Keep
from router.admin.dashboard import Dashboard
from router.admin.port import HOSTS_SETTING as ADMIN_HOSTS
from router.admin.port import AdminServer
from router.admin.recorder import Recorder
from router.api.keys import HOSTS_SETTING as API_HOSTS
from router.guarded_port import parse_hosts
from router.operator.operations import RELOAD
from router.operator.socket import Answer, OperatorSocket, OperatorsState
from router.operator.workers import Workers
from router.supervisor.build import fastchat_version
from router.supervisor.resources import Resources
from router.supervisor.roles import Role
from router.supervisor.run_directory import OPERATOR_SOCKET, RunDirectory
from router.supervisor.run_directory_watch import RunDirectoryWatch

if TYPE_CHECKING:
    from router.api.server import ApiServer

#: From 0 on, since Prometheus does not see the first step of a counter that was not there before.
_NO_CALLS: Final = {("other", 404): 0}
#: Seconds in which who is connected to the operators' socket has to have an answer, before the supervisor becomes another program.
_QUIET_PATIENCE: Final = 6.0


@dataclasses.dataclass(frozen=True)
class AccessState:
    """What another program needs to go on."""

    operators: OperatorsState
    #: What the dashboard's page knows this server by.
    instance: str


class OperatorAccess:
    """`start_ports`, then `start_operators` or `take_up_operators`; `stop` what was started."""

    def __init__(
        self,
        resources: Resources,
        roles: Sequence[Role],
        recorder: Recorder,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._resources = resources
        self.workers = Workers(roles)
        self._samples = recorder.samples
        self._status = status
        self._dashboard: Dashboard | None = None
        self._admin: AdminServer | None = None
        #: None without FASTCHAT_API_PORT.
        self._api: ApiServer | None = None
        self._operators: OperatorSocket | None = None
        self._watch: RunDirectoryWatch | None = None

    async def start_ports(self, routes: Sequence[web.RouteDef], instance: str | None = None) -> None:
        """Answer on the ports, which are open. The admin port has `routes` and the dashboard, known by `instance` if one was before."""
        settings = self._resources.settings
        self._dashboard = Dashboard(self._samples, self._status, instance)
        self._admin = AdminServer(
            settings.admin_host,
            self._resources.admin_listeners,
            self._status,
            [*routes, *self._dashboard.routes()],
            parse_hosts(ADMIN_HOSTS, settings.admin_hosts),
        )
        await self._admin.start()
        if self._resources.api_listeners:
            from router.api.server import ApiServer  # what it loads is for those who want it

            names = parse_hosts(API_HOSTS, settings.api_hosts)
            self._api = ApiServer(
                settings, self._resources.api_listeners, self.workers, fastchat_version(), names
            )
            await self._api.start()

    def api_calls(self) -> Mapping[tuple[str, int], int]:
        """Return how many calls of the server API were answered, by call and status."""
        return _NO_CALLS if self._api is None else self._api.counts

    def processes(self) -> Collection[int]:
        """Return the processes that were started for this and are waited for."""
        return () if self._api is None else self._api.exports

    def reread_keys(self) -> None:
        """Read the keys of the server API again. Raises ConfigurationError."""
        if self._api is not None:
            self._api.reread_keys()

    async def start_operators(self, directory: RunDirectory, answer: Answer) -> None:
        """Answer on the operators' socket, and see to it that it stays in its directory."""
        await self._operator_socket(directory, answer).start()

    def take_up_operators(
        self, directory: RunDirectory, answer: Answer, state: AccessState, reloaded: list[dict[str, Any]]
    ) -> None:
        """Do the same where another program has ended; who has asked for a reload is told what was `reloaded`."""
        self._operator_socket(directory, answer).take_up(state.operators, {"replaced": reloaded})

    def _operator_socket(self, directory: RunDirectory, answer: Answer) -> OperatorSocket:
        self._operators = OperatorSocket(directory.path / OPERATOR_SOCKET, answer)
        self._watch = RunDirectoryWatch(directory, self._operators)
        return self._operators

    def check(self) -> None:
        """Make the run directory and the operators' socket again if they are gone."""
        if self._watch is not None:
            self._watch.check()

    @property
    def problem(self) -> str | None:
        """Why the run directory can't be used, as a sentence; None when it can."""
        return None if self._watch is None else self._watch.problem

    async def go_quiet(self) -> None:
        """Let nobody in, and wait for a while until everybody has an answer, but for who has asked for a reload."""
        assert self._admin is not None and self._operators is not None, "they were started"
        quiet = [self._admin.go_quiet(), self._operators.go_quiet(_QUIET_PATIENCE, RELOAD)]
        await asyncio.gather(*quiet, *([self._api.go_quiet()] if self._api is not None else []))

    def go_on(self) -> None:
        """Let people in again after `go_quiet`."""
        assert self._admin is not None and self._operators is not None, "they were started"
        self._admin.go_on()
        if self._api is not None:
            self._api.go_on()
        self._operators.go_on()

    def to_state(self, keep: Keep, what: str | None) -> AccessState:
        """Return what another program needs; see `OperatorSocket.to_state`. The descriptor of the admin port is the resources'."""
        assert self._dashboard is not None and self._operators is not None, "they were started"
        return AccessState(self._operators.to_state(keep, what), self._dashboard.instance)

    async def stop(self) -> None:
        """Close all that is open."""
        if self._watch is not None:
            await self._watch.stop()
        if self._operators is not None:
            await self._operators.stop()
        for port in (self._admin, self._api):
            if port is not None:
                await port.stop()
