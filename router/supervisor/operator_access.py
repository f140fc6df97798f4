"""The ways in for operators: the admin port, which only reads, and the operators' socket in the run directory."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp import web

from core.process.descriptors import Keep
from router.admin.dashboard import Dashboard
from router.admin.port import AdminServer, parse_admin_hosts
from router.admin.samples import Samples
from router.operator.operations import RELOAD
from router.operator.socket import Answer, OperatorSocket, OperatorsState
from router.supervisor.resources import Resources
from router.supervisor.run_directory import OPERATOR_SOCKET, RunDirectory
from router.supervisor.run_directory_watch import RunDirectoryWatch

#: Seconds in which who is connected to the operators' socket has to have an answer, before the supervisor becomes another program.
_QUIET_PATIENCE: Final = 6.0


@dataclasses.dataclass(frozen=True)
class AccessState:
    """What another program needs to go on."""

    operators: OperatorsState
    #: What the dashboard's page knows this server by.
    instance: str


class OperatorAccess:
    """`start_admin`, then `start_operators` or `take_up_operators`; `stop` what was started."""

    def __init__(self, resources: Resources, samples: Samples, status: Callable[[], dict[str, Any]]) -> None:
        self._resources = resources
        self._samples = samples
        self._status = status
        self._dashboard: Dashboard | None = None
        self._admin: AdminServer | None = None
        self._operators: OperatorSocket | None = None
        self._watch: RunDirectoryWatch | None = None

    async def start_admin(self, routes: Sequence[web.RouteDef], instance: str | None = None) -> None:
        """Answer on the admin port, which is open: `routes` and the dashboard, which is known by `instance` if there was one before."""
        settings = self._resources.settings
        self._dashboard = Dashboard(self._samples, self._status, instance)
        self._admin = AdminServer(
            settings.admin_host,
            self._resources.admin_listeners,
            self._status,
            [*routes, *self._dashboard.routes()],
            parse_admin_hosts(settings.admin_hosts),
        )
        await self._admin.start()

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
        await asyncio.gather(self._admin.go_quiet(), self._operators.go_quiet(_QUIET_PATIENCE, RELOAD))

    def go_on(self) -> None:
        """Let people in again after `go_quiet`."""
        assert self._admin is not None and self._operators is not None, "they were started"
        self._admin.go_on()
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
        if self._admin is not None:
            await self._admin.stop()
