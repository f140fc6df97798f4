"""Fills the dashboard's history: asks, once a second, what is known of each process, and notes when one ends and comes back."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any, Final

from router.admin.columns import SUPERVISOR
from router.admin.samples import Reading, Samples
from router.supervisor.children import Child
from router.supervisor.process_usage import ProcessUsage
from router.supervisor.roles import WORKER, Role

#: Seconds between two looks. Children report once a second; looking twice as often shows it sooner, and costs next to nothing.
_INTERVAL: Final = 0.5


@dataclasses.dataclass(frozen=True)
class RecorderState:
    """What another program needs to go on with the history."""

    #: Of the process, on the monotonic clock.
    started_at: float
    samples: dict[str, Any]


class Recorder:
    """Watches the places among the children; `samples` is what it has seen. `start` it within the event loop."""

    def __init__(self, roles: Sequence[Role], usage: ProcessUsage) -> None:
        workers = sum(role.kind == WORKER for role in roles)
        self._started_at = time.monotonic()
        self._roles = roles
        self._usage = usage
        self._timer: asyncio.TimerHandle | None = None
        self.samples = Samples(workers, len(roles) - workers, self._started_at)
        #: What was written down last, and when.
        self._state: tuple[float, RecorderState | None] = (0.0, None)

    def start(self) -> None:
        """Begin to look."""
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._sample)

    def to_state(self, max_age: float = 0.0) -> RecorderState:
        """Return what `take_up` needs. It may be as it was so many seconds ago: an hour of samples takes some 20 ms to write down."""
        written, state = self._state
        if state is None or time.monotonic() - written >= max_age:
            state = RecorderState(self._started_at, self.samples.to_state())
            self._state = time.monotonic(), state
        return state

    def take_up(self, state: RecorderState, how: str) -> None:
        """Go on with the history of another program; `how` says for people what has happened."""
        self._started_at = state.started_at
        self.samples.take_up(state.samples)
        self.samples.upgraded(time.time(), how)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def ended(self, role: Role, child: Child) -> None:
        """Note the end of the process that filled the place, and count what it had reported last."""
        text = f"{role.name} ended with {child.how_it_ended()}"
        # How much CPU it has used at the end is not to be had any more.
        self.samples.ended(time.monotonic(), time.time(), _reading(role.name, child, None), text)

    def replaced(self, role: Role, child: Child) -> None:
        """Note that another process takes the place of this one, and count what this one had reported last."""
        text = f"{role.name} is replaced while its clients stay connected"
        self.samples.replaced(time.monotonic(), time.time(), _reading(role.name, child, None), text)

    def resize(self, workers: int) -> None:
        """Have so many new workers in the place of all that there are. Call it while the roles are still those of the old ones."""
        readings = [
            _reading(role.name, role.child, self._usage)
            for role in self._roles
            if role.kind == WORKER and role.child is not None
        ]
        self.samples.resize(time.monotonic(), time.time(), workers, readings)

    def back(self, role: Role) -> None:
        """Note that the place is filled again."""
        self.samples.back(time.time(), role.name, f"{role.name} is back")

    def problem(self, role: Role, text: str) -> None:
        """Note that the process does not serve as it should."""
        self.samples.problem(time.time(), role.name, f"{role.name}: {text}")

    def recovered(self, role: Role, text: str) -> None:
        """Note that a problem of the process is over."""
        self.samples.recovered(time.time(), role.name, f"{role.name}: {text}")

    def _sample(self) -> None:
        self.start()  # first of all, since time must go on whatever happens below
        readings = [
            _reading(role.name, role.child, self._usage) for role in self._roles if role.child is not None
        ]
        used = self._usage.read(os.getpid())
        readings.append(
            Reading(
                SUPERVISOR,
                self._started_at,
                True,
                None,
                {},
                used.cpu_seconds if used else None,
                used.resident_bytes if used else None,
            )
        )
        self.samples.take(time.monotonic(), time.time(), readings)


def _reading(name: str, child: Child, usage: ProcessUsage | None) -> Reading:
    used = usage.read(child.pid) if usage is not None else None
    return Reading(
        name,
        child.started_at,
        child.ready,
        child.reported_at,
        child.stats,
        used.cpu_seconds if used else None,
        used.resident_bytes if used else None,
    )
