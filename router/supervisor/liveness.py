"""Whether a child hangs: its event loop makes no turns.

Each event loop beats twice a second over the control pipe (``core.process.control``). The supervisor looks as often. A child without a beat
for `HANG_LOOKS` looks may hang, or it may be a victim: of a machine that stood still, of a CPU that others use, of a disk. To kill a victim
costs its users their connections and makes the machine busier, so both are told apart before.

- *The supervisor stood still too.* A look that is late says so, and nobody is judged by what did not come meanwhile: the looks begin again.
- *The child could not run.* The kernel knows the state of each thread (proc(5)). R is running or wants to run: an endless loop, or a
  process that gets no CPU time, and these look alike. D waits for a disk: SIGKILL has no effect before that wait ends, and the next process
  would wait for the same disk. A child that used CPU time works on something. All of these have `BUSY_LOOKS` looks.
- *What is left* sleeps without any work, as in a deadlock, or was stopped with SIGSTOP. It does not come back by itself in any time that
  users would wait for, so it hangs after `HANG_LOOKS`.

Looks are counted and not seconds, since a supervisor that was stopped for a while has looked at nobody meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from core.process.control import BEAT_INTERVAL
from router.supervisor.children import Child
from router.supervisor.process_usage import Activity, read_activity

#: Seconds between two looks.
LOOK_INTERVAL: Final = 0.5
#: Looks without a beat after which an idle child hangs. At the last of them three seconds have passed for sure since the loop's last turn:
#: the beat may have come right after a look, and the next one was not due before `BEAT_INTERVAL`.
HANG_LOOKS: Final = round((3.0 + BEAT_INTERVAL) / LOOK_INTERVAL)
#: The same for a child that runs, wants to run, or waits for a disk; and for one that boots, far more than it needs.
BUSY_LOOKS: Final = round(30.0 / LOOK_INTERVAL)
BOOT_LOOKS: Final = round(60.0 / LOOK_INTERVAL)
#: A look that comes so many seconds after the one before is late: a whole look is missing.
LATE: Final = 2 * LOOK_INTERVAL
#: Looks without a beat from which on the kernel is asked. One is ordinary, since beats and looks are not in step.
_ASK_LOOKS: Final = 2
#: The part of the time for which a child has used a CPU that counts as work. Less is what other threads do in the background.
_WORKS: Final = 0.05

Read = Callable[[int], Activity | None]


class Liveness:
    """Watches the processes that fill one place among the children; `look` twice a second."""

    def __init__(self, read: Read = read_activity) -> None:
        self._read = read
        #: Whom the last look saw, and what had come from it.
        self._heard: tuple[Child | None, bool, int] = (None, False, 0)
        self._looked_at = 0.0
        #: Looks since the last beat; and those of them since the supervisor was late last.
        self._looks = 0
        self._steady_looks = 0
        #: When the kernel was asked in the steady looks, and what it said.
        self._activity: deque[tuple[float, Activity | None]] = deque(maxlen=HANG_LOOKS - _ASK_LOOKS + 1)

    def look(self, child: Child | None, now: float) -> str | None:
        """Look at the process: what it did not do for so long that it has to be killed, as a sentence; None if it is to live."""
        late, self._looked_at = now - self._looked_at >= LATE, now
        heard = _heard_of(child)
        if child is None or heard != self._heard:
            self._heard = heard
            self._looks = self._steady_looks = 0
            self._activity.clear()
            return None
        if late:
            self._activity.clear()
        self._looks += 1
        self._steady_looks = 0 if late else self._steady_looks + 1
        if not child.ready:
            return "it did not boot in time" if self._looks >= BOOT_LOOKS else None
        if self._steady_looks >= _ASK_LOOKS:
            self._activity.append((now, self._read(child.pid)))
        if self._looks >= BUSY_LOOKS or (self._is_silent and self._busy_with() is None):
            return self._sentence()
        return None

    def problem(self, child: Child) -> str | None:
        """Return what is wrong with `child`, as a sentence in which it is *it*; None if nothing is known to be."""
        # What was seen of the process before this one, or before the last beat, says nothing about it now.
        return self._sentence() if self._is_silent and self._heard == _heard_of(child) else None

    @property
    def _is_silent(self) -> bool:
        return self._heard[1] and self._steady_looks >= HANG_LOOKS

    def _sentence(self) -> str:
        why = self._busy_with() or ("it was stopped" if self._is_stopped() else "it sleeps and does nothing")
        return f"its event loop has made no turn for {self._looks * LOOK_INTERVAL:.0f} s: {why}"

    def _is_stopped(self) -> bool:
        latest = self._activity[-1][1] if self._activity else None
        return latest is not None and "T" in latest.states

    def _busy_with(self) -> str | None:
        """Return what may keep the process from making turns without its doing; None if nothing does."""
        known = [(at, activity) for at, activity in self._activity if activity is not None]
        if len(known) < 2:
            return "what keeps it is not known"
        states = frozenset[str]().union(*(activity.states for _, activity in known))
        (began, first), (ended, last) = known[0], known[-1]
        if "t" in states:
            return "a debugger has stopped it"
        if "T" in last.states and "R" not in states:
            return None
        if last.cpu_seconds - first.cpu_seconds >= _WORKS * (ended - began):
            return "it uses CPU time, in an endless loop perhaps"
        if "R" in states:
            return "it gets no CPU time"
        return "it waits for a disk" if "D" in states else None


def _heard_of(child: Child | None) -> tuple[Child | None, bool, int]:
    return (child, child is not None and child.ready, 0 if child is None else child.beats)
