"""``make load SHAPE=storm``: all users come; then, again and again, all connections break off at once, and all come back.

They break off with a TCP reset, without a close frame, as when a network or a proxy fails, and come back as anybody who was cut off:
with exponential back-off and jitter. ``storm->all back`` is the time from the order to break off until the last one has
its HELLO_ACK; `reconnect` has the single ones. Since nothing but the network fails here, no request may fail.

There is a storm every 10 s, in short runs two; the next one waits until everybody is back from the one before, and so does the end.
With ``--processes`` the master gives the orders and measures, and the workers break off and answer.
"""

from __future__ import annotations

import time
from typing import Any, Final

import gevent
from locust import LoadTestShape, events
from locust.env import Environment
from locust.rpc import Message
from locust.runners import LocalRunner, MasterRunner, Runner, WorkerRunner

from bench.load_pair import everybody
from bench.load_report import Failure, report_to, require

#: What a run with storms has to have made besides.
KINDS: Final = ("reconnect", "storm->all back")

#: Seconds from one storm to the next, when the run is long enough for two.
INTERVAL: Final = 10.0
#: Seconds of a run for which no duration was given, as may be on locust's page.
DEFAULT_DURATION: Final = 60
#: Seconds after which a storm fails.
PATIENCE: Final = 60.0

#: To every process that has users: break off all connections.
BREAK_OFF: Final = "fastchat: break off"
#: The answer, with the number of connections: those who had them are back, or have left since.
BACK: Final = "fastchat: back"


class Storm(LoadTestShape):
    """All users from the beginning, and storms."""

    use_common_options = True

    #: When the storm that is going on began, by ``time.perf_counter``.
    _began: float | None = None
    #: From how many processes the answer is still to come, and how many connections the others broke off.
    _awaited = 0
    _broken_off = 0
    #: The time of the run for which the next one is due.
    _due = 0.0

    def reset_time(self) -> None:
        LoadTestShape.reset_time(self)
        self._began = None
        self._due = self._interval()

    def tick(self) -> tuple[int, float] | None:
        """How many users there are to be now, and how many are to come in a second; None at the end."""
        if self._began is not None and time.perf_counter() - self._began > PATIENCE:
            self._over(Failure(f"not all back within {PATIENCE:g} s"))
        if self._began is None:
            run_time = time.perf_counter() - self.start_time
            if run_time >= self._duration():
                return None
            if run_time >= self._due:
                self._due += self._interval()
                self._begin()
        options = self._options()
        return options.num_users or 1, options.spawn_rate or 1

    def back(self, msg: Message, **_: Any) -> None:
        """Note that a process answered."""
        if self._began is None:
            return  # too late
        self._awaited -= 1
        self._broken_off += msg.data["broken off"]
        if self._awaited == 0:
            self._over()

    def _begin(self) -> None:
        assert self.runner is not None
        self._awaited = len(self.runner.clients.all) if isinstance(self.runner, MasterRunner) else 1
        self._broken_off = 0
        self._began = time.perf_counter()
        self.runner.send_message(BREAK_OFF)

    def _over(self, error: Failure | None = None) -> None:
        began, self._began = self._began, None
        if self.runner is not None and began is not None and (self._broken_off or error):
            report_to(self.runner.environment)("storm->all back", began, error=error)

    def _options(self) -> Any:
        assert self.runner is not None
        return self.runner.environment.parsed_options

    def _duration(self) -> float:
        return float(self._options().run_time or DEFAULT_DURATION)

    def _interval(self) -> float:
        return min(INTERVAL, self._duration() / 3)


def prepare(environment: Environment, runner: Runner, **_: Any) -> None:
    """When a process of locust is set up, the only one or the master or a worker."""
    storm = environment.shape_class
    if not isinstance(runner, MasterRunner):
        runner.register_message(BREAK_OFF, break_off)
    if not isinstance(runner, WorkerRunner) and isinstance(storm, Storm):
        runner.register_message(BACK, storm.back)
        events.quitting.add_listener(conclude)


def break_off(environment: Environment, **_: Any) -> None:
    """Break off all connections of this process, and answer when everybody is back."""
    runner = environment.runner
    assert isinstance(runner, LocalRunner | WorkerRunner)
    on_their_way = [way for person in everybody(runner) if (way := person.drop()) is not None]

    def answer() -> None:
        gevent.joinall(on_their_way)
        runner.send_message(BACK, {"broken off": len(on_their_way)})

    gevent.spawn(answer)


def conclude(environment: Environment, **_: Any) -> None:
    """Fail a run in which no storm came about."""
    if environment.runner is not None:
        environment.runner.quit()
    require(environment, KINDS)


events.init.add_listener(prepare)
