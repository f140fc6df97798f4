"""What a load tells locust: one request after the other, and whether a run has shown anything at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Protocol

from locust.env import Environment


class Failure(Exception):
    """Why something did not succeed; the text is what locust groups failures by, so it names no user and no message."""


class Report(Protocol):
    """Takes note of a request that began at `started` and ended at `finished`, by ``time.perf_counter``; without it, now."""

    def __call__(
        self, name: str, started: float, finished: float | None = None, error: Failure | None = None
    ) -> None: ...


def report_to(environment: Environment) -> Report:
    """Return the `Report` that goes into locust's figures."""

    def report(
        name: str, started: float, finished: float | None = None, error: Failure | None = None
    ) -> None:
        environment.events.request.fire(
            request_type="ws",
            name=name,
            response_time=((time.perf_counter() if finished is None else finished) - started) * 1000,
            response_length=0,
            exception=error,
            context={},
        )

    return report


def require(environment: Environment, kinds: Iterable[str]) -> None:
    """Let the run fail when it never came to one of these kinds of request: it has not shown that they work.

    To be called when all figures are in. On locust's page it may be that no run was started, and nothing is to be judged.
    """
    if environment.web_ui is not None and environment.stats.total.num_requests == 0:
        return
    missing = [kind for kind in kinds if (kind, "ws") not in environment.stats.entries]
    if missing:
        logging.getLogger(__name__).error("never tried: %s", ", ".join(missing))
        environment.process_exit_code = 1
