"""Whether the server is alive, and whether it can serve everybody: ``/healthz`` and ``/readyz`` of the admin port.

They answer different questions. Who asks `/healthz` would start the server again if it did not answer: so that is 200 also while it starts,
which may take minutes when files have to be copied, and while a worker is away, which the supervisor mends better. Who asks
`/readyz` would send new clients elsewhere: that is 503 as long as there is a user whom the server could not serve fully, and says why.

Both are cheap: they read what the processes have reported, and ask nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from aiohttp import web

from core.wire.codec import to_json
from router.supervisor.roles import FRONT, WORKER, Role


class Phase(StrEnum):
    """What the server as a whole is doing."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"
    STOPPING = "stopping"


#: Why a server is not ready in a phase, where that needs more words than the phase.
_WHY: Final = {
    Phase.DRAINING: "the server is draining: it accepts no connections, and closes those that it has one after the other",
    Phase.DRAINED: "the server is drained: it accepts no connections, and has none; stop or restart it",
}


class Health:
    """Reads the places among the children; `phase` tells how far the supervisor is, `problems` what is wrong with what all share."""

    def __init__(
        self,
        roles: Sequence[Role],
        phase: Callable[[], Phase],
        problems: Callable[[], list[str]] = list,
    ) -> None:
        self._roles = roles
        self._phase = phase
        self._problems = problems

    @property
    def status(self) -> str:
        """In a word: ``ok``, ``degraded`` when a process has a problem, or the phase."""
        phase = self._phase()
        if phase is not Phase.SERVING:
            return phase
        return "degraded" if self._problems() or any(role.problems for role in self._roles) else "ok"

    def reasons(self) -> list[str]:
        """Return why not everybody can be served fully, a sentence each; none when the server is ready.

        A front that is away is none as long as there is another one. All others are the processes' problems, which `/status` shows too.
        """
        phase = self._phase()
        reasons = [_WHY.get(phase, f"the server is {phase}")] if phase is not Phase.SERVING else []
        reasons += self._problems()
        for role in self._roles:
            if role.kind == WORKER:
                reasons += [f"{role.name}: {problem}" for problem in role.problems.values()]
        if phase not in _WHY and not any(
            role.kind == FRONT and role.state == "ready" for role in self._roles
        ):
            reasons.append("no front is ready, so no client can connect")
        return reasons

    def is_ready(self) -> bool:
        """Return whether there are no reasons why not."""
        return not self.reasons()

    def routes(self) -> list[web.RouteDef]:
        """Return its routes, for `AdminServer`. OPTIONS is answered as GET: haproxy asks with it unless it is told otherwise."""
        answers = (("/healthz", self._get_health), ("/readyz", self._get_ready))
        return [
            route
            for path, handler in answers
            for route in (web.get(path, handler), web.options(path, handler))
        ]

    async def _get_health(self, request: web.Request) -> web.Response:
        return _json({"status": self.status}, self._phase() is not Phase.STOPPING)

    async def _get_ready(self, request: web.Request) -> web.Response:
        reasons = self.reasons()
        return _json({"ready": not reasons, "reasons": reasons}, not reasons)


def _json(value: dict[str, object], well: bool) -> web.Response:
    return web.Response(body=to_json(value), status=200 if well else 503, content_type="application/json")
