"""The parts of a supervisor that have something in memory with which another program can go on (``router.supervisor.handed_on``)."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from core.process.descriptors import NOT_OPEN, Descriptor
from router.admin.recorder import Recorder
from router.operator.operations import RELOAD
from router.supervisor.build import fastchat_version
from router.supervisor.handed_on import HandedOn
from router.supervisor.operator_access import OperatorAccess
from router.supervisor.problem_log import ProblemLog
from router.supervisor.process_usage import ProcessUsage
from router.supervisor.report import Report
from router.supervisor.resources import Resources
from router.supervisor.roles import Role
from router.supervisor.service_manager import ServiceManager
from router.supervisor.terminal import Terminal

#: Seconds that the history of the dashboard may lack when another process goes on.
_HISTORY_AGE: Final = 25.0


@dataclasses.dataclass(frozen=True)
class Parts:
    """What there is; the supervisor's attributes of these names say more."""

    resources: Resources
    access: OperatorAccess
    roles: list[Role]
    report: Report
    service_manager: ServiceManager
    terminal: Terminal
    recorder: Recorder
    usage: ProcessUsage
    problem_log: ProblemLog

    def hand_on(
        self,
        since: float,
        reloaded: list[dict[str, Any]],
        last_generation: int,
        announced: bool,
        is_deposited: bool,
    ) -> HandedOn:
        """Return everything that is to go on in this process; or, if it `is_deposited`, in another one, should this one be killed.

        In that one the descriptors have other numbers, so that their places among all of them stand in the state.
        """
        descriptors: list[int] = []

        def keep(descriptor: int) -> Descriptor:
            descriptors.append(descriptor)
            return Descriptor(len(descriptors) - 1 if is_deposited else descriptor)

        # The next process may have another terminal, or none.
        terminal = NOT_OPEN if is_deposited else self.terminal.descriptor
        return HandedOn(
            program=fastchat_version(),
            since=since,
            reloaded=reloaded,
            started_at=self.report.started_at,
            replaced=self.report.replaced,
            settings=self.resources.settings.as_json(),
            resources=self.resources.to_state(keep),
            access=self.access.to_state(keep, None if is_deposited else RELOAD),
            roles=[role.to_state(keep) for role in self.roles],
            last_generation=last_generation,
            announced=announced,
            notified=self.service_manager.to_state(),
            terminal=NOT_OPEN if terminal == NOT_OPEN else keep(terminal),
            recorder=self.recorder.to_state(_HISTORY_AGE if is_deposited else 0.0),
            started=self.usage.to_state(),
            problems=self.problem_log.to_state(),
            descriptors=descriptors,
            is_deposited=is_deposited,
        )

    def take_up(self, state: HandedOn) -> None:
        """Go on with what is only remembered. What is open, and the roles with their processes, are taken up apart."""
        self.report.started_at, self.report.replaced = state.started_at, state.replaced + 1
        if not state.is_deposited:
            self.service_manager.take_up(state.notified)
        self.usage.take_up(state.started)
        how = "another supervisor goes on" if state.is_deposited else "the supervisor runs a new program"
        self.recorder.take_up(state.recorder, how)
        self.problem_log.take_up(state.problems)
