"""Tells, in the log and on the dashboard, when a process that runs has a problem, and when that is over.

A problem that passes by itself, such as a worker that hung for a quarter of a minute, would leave no trace otherwise: `/status` shows what
is, not what was. Ends and starts of processes are told by the supervisor itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from core.events import fields
from router.admin.recorder import Recorder
from router.supervisor.roles import Problem, Role

_log = logging.getLogger("fastchat.supervisor")

#: Looks at which a problem is there before it is told: workers that start have not heard each other for a moment.
_SETTLED_LOOKS: Final = 2


class _Known(NamedTuple):
    """A problem of the process that fills a place."""

    pid: int
    since: float
    looks: int


class KnownState(NamedTuple):
    """A problem that is known, of the process in a place, for another program."""

    role: str
    problem: str
    pid: int
    since: float
    looks: int


class ProblemLog:
    """Compares, at each look, what is wrong with what was; `look` once a second. `recorder` keeps what the dashboard shows."""

    def __init__(
        self, roles: Sequence[Role], recorder: Recorder, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._roles = roles
        self._recorder = recorder
        self._clock = clock
        self._known: dict[tuple[Role, Problem], _Known] = {}

    def to_state(self) -> list[KnownState]:
        """Return what `take_up` needs."""
        return [KnownState(role.name, problem.name, *known) for (role, problem), known in self._known.items()]

    def take_up(self, state: Iterable[KnownState]) -> None:
        """Tell nothing again that another program has told."""
        roles = {role.name: role for role in self._roles}
        for each in state:
            if each.role in roles and each.problem in Problem.__members__:
                known = _Known(each.pid, each.since, each.looks)
                self._known[roles[each.role], Problem[each.problem]] = known

    def sample(self) -> None:
        """Tell what has begun and what is over since the last look."""
        now = self._clock()
        for role in self._roles:
            if role.child is None:
                continue
            problems = role.problems
            for problem in Problem:
                if problem is not Problem.AWAY:
                    self._compare(role, role.child.pid, problem, problems.get(problem), now)

    def _compare(self, role: Role, pid: int, problem: Problem, sentence: str | None, now: float) -> None:
        known = self._known.pop((role, problem), None)
        if known is not None and known.pid != pid:
            known = None  # that process has ended, and its problems with it
        if sentence is not None:
            known = _Known(pid, now, 1) if known is None else known._replace(looks=known.looks + 1)
            self._known[role, problem] = known
            if known.looks == _SETTLED_LOOKS:
                _log.warning("%s: %s", role.name, sentence, extra=fields(pid=pid))
                self._recorder.problem(role, sentence)
        elif known is not None and known.looks >= _SETTLED_LOOKS:
            seconds = round(now - known.since, 1)
            _log.info("%s: %s", role.name, problem, extra=fields(pid=pid, seconds=seconds))
            self._recorder.recovered(role, f"{problem}, after {seconds:.0f} s")
