"""When a child that died is started again, and when the server gives up instead. No clock, no process: times come in.

A child that crashes after it had booted is started again almost at once, since its users wait; when it goes on crashing, later
and later. A child that has never served and dies while booting would most likely do so for ever, so that ends the server, with a message.
One that has served before is never given up: the other children do their work, and have nothing to gain from an end of the server.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Final, NamedTuple

from core.process.control import EXIT_BOOT_FAILURE, EXIT_CONFIGURATION

#: Seconds until the first restart: users of a worker that was killed are to be back within two, and booting takes most of that.
FIRST_DELAY: Final = 0.05
#: What the delay grows to, doubling from crash to crash.
LONGEST_DELAY: Final = 5.0
#: More of them would not matter, and far more overflow.
_DOUBLINGS_MAX: Final = 20
#: The delay is spread by this part of itself to both sides, so that children which died together do not boot together.
JITTER: Final = 0.25
#: Seconds that a child must have been ready for its next crash to count as the first again.
STABLE: Final = 10.0


class CannotBoot(Exception):
    """A process that the server can't do without has ended before it was ready; the message is a sentence."""


class Restart(NamedTuple):
    """Start the child again in `delay` seconds."""

    delay: float


class GiveUp(NamedTuple):
    """Stop the server: `sentence` is for the operator, `exit_code` for whoever started it."""

    exit_code: int
    sentence: str


@dataclasses.dataclass(frozen=True)
class PolicyState:
    """What another program needs to go on with the history of a child."""

    ready_at: float | None
    served: bool
    crashes: int


class RestartPolicy:
    """The history of one child, for example worker 3, over all its processes. `spread` returns numbers from 0 to 1."""

    def __init__(self, name: str, spread: Callable[[], float] = random.random) -> None:
        self._name = name
        self._spread = spread
        #: When the running process became ready; None while it boots.
        self._ready_at: float | None = None
        #: Whether any process of this child ever became ready.
        self._served = False
        #: Deaths without a stable time in between.
        self._crashes = 0

    def to_state(self) -> PolicyState:
        """Return what `take_up` needs."""
        return PolicyState(self._ready_at, self._served, self._crashes)

    def take_up(self, state: PolicyState) -> None:
        """Go on with the history that another program has begun."""
        self._ready_at, self._served, self._crashes = state.ready_at, state.served, state.crashes

    def ready(self, now: float) -> None:
        """Note that the process has booted."""
        self._ready_at = now
        self._served = True

    def died(
        self, now: float, how: str, refused: str | None = None, code: int | None = None
    ) -> Restart | GiveUp:
        """Decide what follows when the process has ended.

        `how` it did is for people; `refused` is the reason that it gave if it refused to start, and `code` its exit code.
        """
        ready_at, self._ready_at = self._ready_at, None
        if ready_at is not None:
            if now - ready_at >= STABLE:
                self._crashes = 0
            self._crashes += 1
            return Restart(self._delay(self._crashes))
        if self._served:
            self._crashes += 1
            return Restart(self._delay(self._crashes))
        if refused is not None:
            # Any other end of a child that said why is a failure of the system, which may be over at the next try.
            exit_code = EXIT_CONFIGURATION if code == EXIT_CONFIGURATION else EXIT_BOOT_FAILURE
            return GiveUp(exit_code, f"{self._name} refused to start: {refused}")
        return GiveUp(
            EXIT_BOOT_FAILURE, f"{self._name} could not start: it ended with {how} before it was ready"
        )

    def _delay(self, failures: int) -> float:
        delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, _DOUBLINGS_MAX), LONGEST_DELAY)
        return delay * (1 + JITTER * (2 * self._spread() - 1))
