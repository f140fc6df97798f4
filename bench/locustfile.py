"""A load of chatting pairs for a running server: ``make load USERS=50 DURATION=20``.

Each locust user is a *pair* of FastChat users with a connection each, so 50 locust users are 100 connections. The two say
HELLO, open their chat and show that they are typing; then they talk for some turns, a message each way and a PING; then
they leave, and come back. The name of a request says what its time covers: ``MSG->MSG_ACK`` until the sender has the
acknowledgement, ``MSG->delivered`` until the message is at the peer, both from the moment before the send.

The pace stays within the limits that the server has by default, so any RATE_LIMITED is a finding. The run fails (exit code
1) when a request failed, and also when some kind of request was never made.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final
from uuid import uuid4

import websocket
from locust import User, constant_pacing, events, task
from locust.env import Environment

from bench.connection import Connection, Expectation, Failure, Message

#: Seconds between two turns: 40 MSG and 40 PING a minute and user, where 60 are allowed.
PACE: Final = 1.5
#: Turns between coming and leaving: HELLO, OPEN_CHAT and TYPING, of which there is one a visit, come to 5 a minute, where 30,
#: 20 and 10 are allowed.
TURNS_A_VISIT: Final = 8

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


class Pair(User):
    """Two people who chat with each other."""

    wait_time = constant_pacing(PACE)

    def on_start(self) -> None:
        self.alice = str(uuid4())
        self.bob = str(uuid4())
        self.turns = 0
        self.connections: dict[str, Connection] = {}

    def on_stop(self) -> None:
        self.leave()

    @task
    def turn(self) -> None:
        """One turn of the talk, after coming in if they are not there. A failure has been reported and ends the visit."""
        try:
            if not self.connections:
                self.arrive()
            self.message(self.alice, self.bob)
            self.message(self.bob, self.alice)
            for user in self.connections:
                self.ping(user)
            self.turns += 1
        except Failure:
            self.turns = TURNS_A_VISIT
        if self.turns >= TURNS_A_VISIT:
            self.leave()

    # -- The journey --

    def arrive(self) -> None:
        for user in (self.alice, self.bob):
            self.connections[user] = self.connect()
        for user in (self.alice, self.bob):
            self.hello(user)
        self.open_chat(self.alice, self.bob)
        self.typing(self.alice, self.bob)
        self.typing(self.bob, self.alice)

    def leave(self) -> None:
        self.turns = 0
        while self.connections:
            _, connection = self.connections.popitem()
            connection.close()

    def connect(self) -> Connection:
        started = time.perf_counter()
        try:
            connection = Connection(str(self.host))
        except (OSError, websocket.WebSocketException) as error:
            failure = Failure(f"{type(error).__name__}: {error}")
            self.report("connect", started, error=failure)
            raise failure from error
        self.report("connect", started, time.perf_counter())
        return connection

    def hello(self, user: str) -> None:
        acknowledged = self.connections[user].expect("HELLO_ACK", user_id=user, status="connected")
        data = {"user_id": user, "display_name": f"User {user[:8]}"}
        self.exchange(user, "HELLO", data, {"HELLO->HELLO_ACK": acknowledged})

    def open_chat(self, user: str, peer: str) -> None:
        opened = self.connections[user].expect("CHAT_OPENED", target_user_id=peer)
        data = {"target_user_id": peer, "target_display_name": f"User {peer[:8]}"}
        self.exchange(user, "OPEN_CHAT", data, {"OPEN_CHAT->CHAT_OPENED": opened})

    def typing(self, user: str, peer: str) -> None:
        delivered = self.connections[peer].expect("TYPING", user_id=user, is_typing=True)
        self.exchange(user, "TYPING", {"is_typing": True}, {"TYPING->delivered": delivered})

    def message(self, user: str, peer: str) -> None:
        message_id = str(uuid4())
        data = {"to": peer, "content": f"turn {self.turns}", "message_id": message_id}
        acknowledged = self.connections[user].expect("MSG_ACK", message_id=message_id, status="delivered")
        delivered = self.connections[peer].expect("MSG", **{"from": user}, **data)
        self.exchange(user, "MSG", data, {"MSG->MSG_ACK": acknowledged, "MSG->delivered": delivered})

    def ping(self, user: str) -> None:
        self.exchange(user, "PING", {}, {"PING->PONG": self.connections[user].expect("PONG")})

    # -- Reports --

    def exchange(self, user: str, kind: str, data: Message, answers: dict[str, Expectation]) -> None:
        """Send, wait for all answers and report each under its name. Raises the first Failure after all are reported."""
        failures = []
        started = time.perf_counter()
        self.connections[user].send(kind, data, answers.values())
        for name, answer in answers.items():
            try:
                self.report(name, started, answer.arrived())
            except Failure as failure:
                self.report(name, started, error=failure)
                failures.append(failure)
        if failures:
            raise failures[0]

    def report(
        self, name: str, started: float, arrived: float | None = None, error: Failure | None = None
    ) -> None:
        """Tell locust of one request; a failed one lasted until now."""
        finished = time.perf_counter() if arrived is None else arrived
        self.environment.events.request.fire(
            request_type="ws",
            name=name,
            response_time=(finished - started) * 1000,
            response_length=0,
            exception=error,
            context={},
        )


def fail_when_nothing_was_tried(environment: Environment, **_: Any) -> None:
    """A run that never came to one kind of request has not shown that it works."""
    missing = [kind for kind in KINDS if (kind, "ws") not in environment.stats.entries]
    if missing:
        logging.getLogger(__name__).error("never tried: %s", ", ".join(missing))
        environment.process_exit_code = 1


events.quitting.add_listener(fail_when_nothing_was_tried)
