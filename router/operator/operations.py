"""What an operator may ask of a running server, over its operator socket: what it is doing, about a user, and to change something.

A request is a JSON object, and so is the answer; one that can't be given is ``{"problem": sentence}``.

| what | fields | answer |
|---|---|---|
| status | | what ``/status`` of the admin port shows |
| who | user | what is known of a user: see ``core.chat.operator`` |
| kick | user | closed: how many connections of the user were closed, with 1008 |
| ban | user | changed: whether the user was not banned before, closed: how many connections were closed, with 4003 |
| unban | user | changed: whether the user was banned |
| delete | user | state: `deleted`, with received and sent messages, chats, closed connections; `deleting` while it goes on; `unknown` |
| reload | | replaced: the processes that were replaced while clients stayed connected, the supervisor last, with how long that took |
| resize | workers | workers, before, seconds, warning (a sentence or null): the server has another number of workers |
| drain | seconds (optional) | state, seconds left, connections: from now on the server accepts none, and closes those that it has |
| log_level | level | level: from now on every process logs what is at least so severe |

A user is known to one worker, which is asked over its control pipe; one that is away or hangs is a sentence too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from core.chat.operator import BAN, DELETE, KICK, UNBAN, WHO
from core.process.settings import RULES, Settings
from core.wire.protocol import Refusal
from core.wire.validation import Validator
from router.operator.workers import Away, Workers
from router.supervisor.reload import ReloadFailed
from router.supervisor.resize import ResizeFailed

STATUS: Final = "status"
DRAIN: Final = "drain"
LOG_LEVEL: Final = "log_level"
RELOAD: Final = "reload"
RESIZE: Final = "resize"

#: Seconds that the replacement of all processes may take: it waits for each of them.
RELOAD_PATIENCE: Final = 900.0
#: The same for a change of the number of workers, which copies all files.
RESIZE_PATIENCE: Final = 24 * 3600.0

#: What the worker answers where the user lives.
_ABOUT_USER: Final = (WHO, KICK, BAN, UNBAN, DELETE)


class Problem(Exception):
    """A request that can't be answered; the message is a sentence for the operator."""


class Operations:
    """Answers requests. `set_log_level` and `drain` raise ValueError, with a sentence, for what can't be done."""

    def __init__(
        self,
        settings: Settings,
        workers: Workers,
        status: Callable[[], dict[str, Any]],
        set_log_level: Callable[[str], None],
        drain: Callable[[float | None], dict[str, Any]],
        reload: Callable[[], Awaitable[list[dict[str, Any]]]],
        resize: Callable[[int], Awaitable[dict[str, Any]]],
    ) -> None:
        self._validator = Validator(settings.user_ids)
        self._workers = workers
        self._status = status
        self._set_log_level = set_log_level
        self._reload = reload
        self._resize = resize
        self._drain = drain

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request; any object may be one."""
        what = request.get("what")
        try:
            if what == STATUS:
                return self._status()
            if what in _ABOUT_USER:
                return await self._ask_worker(what, request.get("user"))
            if what == LOG_LEVEL:
                return self._change_log_level(request.get("level"))
            if what == DRAIN:
                return self._begin_drain(request.get("seconds"))
            if what == RELOAD:
                return {"replaced": await self._reload()}
            if what == RESIZE:
                return await self._change_number(request.get("workers"))
            known = ", ".join((STATUS, *_ABOUT_USER, LOG_LEVEL, DRAIN, RELOAD))
            raise Problem(f"`what` must be one of {known} and {RESIZE}")
        except (Problem, Away, ReloadFailed, ResizeFailed) as problem:
            return {"problem": str(problem)}
        except Refusal as refusal:
            return {"problem": refusal.message}

    async def _ask_worker(self, what: str, user: Any) -> dict[str, Any]:
        return await self._workers.ask(self._validator.user_id(user, "user"), what)

    async def _change_number(self, workers: Any) -> dict[str, Any]:
        if type(workers) is not int:
            raise Problem("`workers` must be an integer")
        return await self._resize(workers)

    def _begin_drain(self, seconds: Any) -> dict[str, Any]:
        most = RULES["drain_seconds"].le
        assert most is not None, "the setting has bounds"
        if seconds is not None and not (type(seconds) in (int, float) and 0 <= seconds <= most):
            raise Problem(f"`seconds` must be a number from 0 to {most:g}")
        try:
            return self._drain(seconds)
        except ValueError as problem:
            raise Problem(str(problem)) from None

    def _change_log_level(self, level: Any) -> dict[str, Any]:
        if not isinstance(level, str):
            raise Problem("`level` must be a string")
        try:
            self._set_log_level(level)
        except ValueError as problem:
            raise Problem(str(problem)) from None
        return {"level": level}
