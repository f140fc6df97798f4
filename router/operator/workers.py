"""The workers, for who wants something of the users: each user is known to one worker, which is asked over its control pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from core.placement import Placement
from router.supervisor.children import NoAnswer
from router.supervisor.roles import WORKER, Role

#: Seconds that a worker has to answer; it may have to ask its store.
_PATIENCE: Final = 5.0


class Away(Exception):
    """A worker does not answer now; the message is a sentence."""


class Workers:
    """Asks them what ``core.chat.operator`` answers, as they are at that moment."""

    def __init__(self, roles: Sequence[Role]) -> None:
        self._roles = roles

    async def ask(self, user_id: str, what: str, **about: Any) -> dict[str, Any]:
        """Ask the worker where a user lives. Raises Away."""
        workers = self._workers()
        role = workers[Placement(len(workers)).worker_of(user_id)]
        name = f"{role.name}, where this user lives,"
        return await self._ask(role, name, what, {"user": user_id, **about})

    async def ask_any(self, what: str, **about: Any) -> dict[str, Any]:
        """Ask any worker. Raises Away."""
        workers = self._workers()
        ready = (role for role in workers if role.child is not None and role.child.ready)
        role = next(ready, workers[0])
        return await self._ask(role, role.name, what, about)

    def by_worker(self, user_ids: Iterable[str]) -> list[list[str]]:
        """Return these users, those of one worker together."""
        placement = Placement(len(self._workers()))
        groups: dict[int, list[str]] = {}
        for user_id in user_ids:
            groups.setdefault(placement.worker_of(user_id), []).append(user_id)
        return list(groups.values())

    def _workers(self) -> list[Role]:
        return [role for role in self._roles if role.kind == WORKER]

    async def _ask(self, role: Role, name: str, what: str, about: dict[str, Any]) -> dict[str, Any]:
        if role.child is None or not role.child.ready:
            raise Away(f"{name} is {role.state}: try again in a moment")
        try:
            return await role.child.ask(_PATIENCE, what=what, **about)
        except NoAnswer as problem:
            raise Away(f"{name} {problem}") from None
