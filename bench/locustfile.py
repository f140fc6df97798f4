"""A load of chatting people for a running server: ``make load USERS=50 DURATION=20``, or ``make load-ui`` for locust's page.

Each locust user is a *pair* of FastChat users with a connection each, so 50 locust users are 100 connections. The two say
HELLO, open their chat and show that they are typing; then they talk for some turns at a human pace, a message each way in a turn; then
they leave, and come back. Each sends PING every 15 s, the first one soon after HELLO, and comes back with exponential back-off
when its connection is lost. `bench.load_pair` has the talk, `bench.load_person` a person's connection.

The name of a request says what its time covers: ``MSG->MSG_ACK`` until the sender has the acknowledgement, ``MSG->delivered`` until
the message is at the peer, both from the moment before the send. Only when a connection was lost there are also ``reconnect``, from
the loss to HELLO_ACK, ``MSG again->MSG_ACK``, for messages that were sent again with the same id, and ``MSG->delivered after
reconnect``, for messages to whose sender or recipient that happened.

The pace stays within the limits that the server has by default, so any RATE_LIMITED is a finding. The run fails (exit code
1) when a request failed, and also when some kind of request was never made. With ``--processes`` this is judged by the master, which has
the figures of all.

The number of users is even over time, or what a file of `bench.shapes` says that is loaded beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import gevent
from locust import events
from locust.env import Environment
from locust.rpc import Message
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.stats import CSV_STATS_INTERVAL_SEC
from locust.web import WebUI

from bench.load_pair import Pair
from bench.load_report import require

__all__ = ["Pair"]

#: Every kind of request that a run has to have made, in the order of the journey.
KINDS: Final = (
    "connect",
    "HELLO->HELLO_ACK",
    "OPEN_CHAT->CHAT_OPENED",
    "TYPING->delivered",
    "MSG->MSG_ACK",
    "MSG->delivered",
    "PING->PONG",
)

#: From the master to its workers: stop the users, and tell when all that they reported has been sent.
FINISH: Final = "fastchat: finish"
#: The answer.
FINISHED: Final = "fastchat: finished"
#: Seconds beyond the stop timeout that the master waits for this.
FINISH_TIMEOUT: Final = 10.0


def prepare(environment: Environment, runner: Runner, web_ui: WebUI | None, **_: Any) -> None:
    """When a process of locust is set up, the only one or the master or a worker."""
    if isinstance(runner, WorkerRunner):
        runner.register_message(FINISH, finish)
        return
    if isinstance(runner, MasterRunner):
        wait_for_the_last_figures(environment, runner)
    if web_ui is not None:
        gevent.spawn(tell_address, web_ui)
    options = environment.parsed_options
    if options is not None and options.html_file:
        report = Path(options.html_file)
        report.unlink(missing_ok=True)  # that of the run before must not pass for this one's
        events.quit.add_listener(lambda **_: tell_report(report))
    events.quitting.add_listener(conclude)


def finish(environment: Environment, **_: Any) -> None:
    """In a worker: stop the users, then send what they have reported since the last time."""
    runner = environment.runner
    assert isinstance(runner, WorkerRunner)
    runner.stop()
    figures: dict[str, Any] = {}
    environment.events.report_to_master.fire(client_id=runner.client_id, data=figures)
    runner.send_message("stats", figures)
    runner.send_message(FINISHED)


def wait_for_the_last_figures(environment: Environment, runner: MasterRunner) -> None:
    """Let the master finish all workers before it stops: by itself it waits half a second, and people take longer to leave."""
    finished: set[str] = set()

    def note(msg: Message, **_: Any) -> None:
        finished.add(msg.node_id)

    def stop_workers(**_: Any) -> None:
        finished.clear()
        runner.send_message(FINISH)
        missing = {client.id for client in runner.clients.missing}
        with gevent.Timeout(environment.stop_timeout + FINISH_TIMEOUT, False):
            while {client.id for client in runner.clients.all} - missing - finished:
                gevent.sleep(0.05)

    runner.register_message(FINISHED, note)
    environment.events.test_stopping.add_listener(stop_workers)


def tell_address(web_ui: WebUI) -> None:
    """Print where the page is, once it is there; port 0 is a free one."""
    server: Any = None  # locust says that it is one or None; at first there is no such attribute
    while server is None or not server.started:
        gevent.sleep(0.05)
        server = getattr(web_ui, "server", None)
    print(f"locust's page: http://{web_ui.host}:{server.server_port}", flush=True)


def tell_report(report: Path) -> None:
    if report.exists():
        print(f"report: {report}", flush=True)


def conclude(environment: Environment, **_: Any) -> None:
    """Fail a run that never came to one kind of request: it has not shown that it works."""
    if environment.runner is not None:
        environment.runner.quit()  # where somebody interrupted it, people have not left yet
    require(environment, KINDS)
    if environment.parsed_options is not None and environment.parsed_options.csv_prefix:
        gevent.sleep(CSV_STATS_INTERVAL_SEC)  # the files are written at intervals, and not at the end


events.init.add_listener(prepare)
