"""A FastChat user whose client uses no capability: says HELLO, sends PING every 15 s, and comes back when cut off.

`Person` is the client program; what is said, and to whom, is the business of `bench.load_pair`. Greenlets of its own keep the
heartbeat and, while the connection is lost, try to get a new one: after a pause between 0 and 1 s, then 0 and 2, 4, 8 and so on up
to 30 s. The pauses are drawn from the whole range so that those who were cut off together do not come back together.

What becomes of a request whose connection goes:

- The server's side ended it: what was pending fails, under its own name and with the reason. The way back is one request, `reconnect`,
  from the loss until HELLO_ACK; attempts that fail on the way are part of it. It fails after `PATIENCE`.
- We ended it ourselves: what was pending is nobody's failure and is not reported.
- A message on its way to somebody who is cut off stays expected: the server sends it again at the next HELLO, with the same id.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from uuid import uuid4

import gevent
import websocket
from gevent.event import AsyncResult, Event

from bench.connection import ANSWER_TIMEOUT, Connection, Message
from bench.load_report import Failure, Report

#: Seconds from one PING to the next, as docs/protocol.md asks.
PING_INTERVAL: Final = 15.0
#: The first PING comes within so many seconds after HELLO_ACK, so that people who came together do not ping together.
FIRST_PING_WITHIN: Final = 2.0
#: Seconds that the pause before the first attempt to come back takes at most; it doubles with each attempt ...
FIRST_PAUSE: Final = 1.0
#: ... up to this.
LONGEST_PAUSE: Final = 30.0
#: Seconds after which somebody who is still cut off counts as a failure. A worker that was killed is back long before.
PATIENCE: Final = 30.0


class Missing(Failure):
    """An answer did not come in time."""


class Lost(Failure):
    """The connection went before the answer came. `excused`: not by the server, or before anything was asked of it."""

    def __init__(self, reason: str, excused: bool = False) -> None:
        super().__init__(reason)
        self.excused = excused


class Answer(NamedTuple):
    """A message that was expected and has come, at a time by ``time.perf_counter``."""

    when: float
    data: Message


class Expectation:
    """A message that is to come. A `lasting` one survives the loss of the connection, since the server sends it again."""

    def __init__(self, kind: str, fields: Message, lasting: bool) -> None:
        self._kind = kind
        self._fields = fields
        self.lasting = lasting
        self._result: AsyncResult[Answer] = AsyncResult()

    @property
    def over(self) -> bool:
        return bool(self._result.ready())

    def matches(self, kind: str, data: Message) -> bool:
        return not self.over and kind == self._kind and self._fields.items() <= data.items()

    def succeed(self, answer: Answer) -> None:
        self._result.set(answer)

    def fail(self, failure: Failure) -> None:
        """Note that it will not come; what has come before stays so."""
        if not self.over:
            self._result.set_exception(failure)

    def wait(self) -> bool:
        """Wait as long as an answer may take; whether it is decided."""
        self._result.wait(timeout=ANSWER_TIMEOUT)
        return self.over

    def miss(self) -> None:
        """Note that it has not come in time."""
        self.fail(Missing(f"no {self._kind} as expected within {ANSWER_TIMEOUT:g} s"))

    def answer(self) -> Answer:
        """Wait for the message. Raises Failure when it does not come in time, or cannot come any more."""
        if not self.wait():
            self.miss()
        answer: Answer = self._result.get()
        return answer


class Person:
    """One user with one connection. After `arrive` it stays connected, whatever happens, until `leave`."""

    def __init__(self, url: str, report: Report) -> None:
        self.user_id = str(uuid4())
        self.name = f"User {self.user_id[:8]}"
        self._url = url
        self._report = report
        #: Set while the server knows of the connection: from HELLO_ACK until it is lost.
        self.there = Event()
        #: How often a connection was lost.
        self.losses = 0
        self._connection: Connection | None = None
        #: The way back, while cut off, and since when.
        self._return: gevent.Greenlet | None = None
        self._away_since = 0.0
        #: The way back took too long, which has been reported.
        self._overdue = False
        #: What is to come.
        self._expected: list[Expectation] = []
        #: What the last message of each type is to bring about, here or at the peer: it fails when the server answers with ERROR.
        self._caused: dict[str, list[Expectation]] = {}

    # -- Coming and leaving --

    def arrive(self) -> None:
        """Connect and say HELLO, reported as two requests. After a Failure it goes on trying, as after a loss."""
        started = time.perf_counter()
        try:
            self._enter(first=True)
        except Failure:
            self._come_back(started)
            raise

    def leave(self) -> None:
        """Close politely, or stop trying to come back."""
        self.there.clear()
        if self._return is not None:
            unfinished = not self._return.ready()
            self._return.kill()
            self._return = None
            if unfinished and not self._overdue and time.perf_counter() - self._away_since > ANSWER_TIMEOUT:
                self._report("reconnect", self._away_since, error=Failure("not back before leaving"))
        connection, self._connection = self._connection, None
        if connection is not None:
            self._forsake(Lost("left", excused=True))
            connection.close()

    def drop(self) -> gevent.Greenlet | None:
        """Break the connection off with a TCP reset. What was started ends when the person is back, or has left; None: not there."""
        if self._connection is None or not self.there.is_set():
            return None
        connection = self._connection
        connection.reset()
        self._lose(connection, Lost("dropped", excused=True))
        return self._return

    # -- Talking --

    def expect(self, kind: str, lasting: bool = False, **fields: Any) -> Expectation:
        """Say what is to come to this person, before sending what brings it about."""
        expectation = Expectation(kind, fields, lasting)
        if self._connection is None and not lasting:
            expectation.fail(Lost("not connected", excused=True))
        self._expected = [known for known in self._expected if not known.over]
        self._expected.append(expectation)
        return expectation

    def send(self, kind: str, data: Message, causes: Iterable[Expectation] = ()) -> None:
        """Send a message; what it `causes` fails when the server answers with ERROR and, unless lasting, with the connection."""
        self._caused[kind] = list(causes)
        if self._connection is not None:
            self._connection.send(kind, data)
        else:
            self._forsake(Lost("not connected", excused=True))

    # -- What comes --

    def _received(self, kind: str, data: Message, when: float) -> None:
        if kind == "ERROR":
            for expectation in self._caused.get(data.get("details", {}).get("type"), ()):
                expectation.fail(Failure(f"ERROR {data['code']}: {data['message']}"))
            return
        for expectation in self._expected:
            if expectation.matches(kind, data):
                expectation.succeed(Answer(when, data))
                break
        if kind == "MSG":  # one that comes again is acknowledged again: the first acknowledgement got lost
            self.send("MSG_ACK", {"message_id": data["message_id"], "from": data["from"]})

    def _ended(self, connection: Connection, reason: str) -> None:
        self._lose(connection, Lost(reason))

    # -- The connection --

    def _enter(self, first: bool) -> None:
        """Connect and say HELLO. Only of the `first` attempt a failure is a request of its own; the next belong to `reconnect`."""
        started = time.perf_counter()
        try:
            self._connection = Connection(self._url, self._received, self._ended)
        except (OSError, websocket.WebSocketException) as error:
            failure = Failure(f"{type(error).__name__}: {error}")
            if first:
                self._report("connect", started, error=failure)
            raise failure from error
        self._report("connect", started)
        connection = self._connection
        started = time.perf_counter()
        acknowledged = self.expect("HELLO_ACK", user_id=self.user_id, status="connected")
        self.send("HELLO", {"user_id": self.user_id, "display_name": self.name}, [acknowledged])
        try:
            answer = acknowledged.answer()
        except Failure as failure:
            if first:
                self._report("HELLO->HELLO_ACK", started, error=failure)
            connection.reset()
            self._lose(connection, Lost("HELLO failed", excused=True))
            raise
        self._report("HELLO->HELLO_ACK", started, answer.when)
        if self._connection is not connection:
            raise Lost("connection lost")
        self.there.set()
        gevent.spawn(self._keep_alive, connection)

    def _keep_alive(self, connection: Connection) -> None:
        """Send PING until the connection ends; without PONG in time it is dead, as docs/protocol.md says."""
        pause = random.uniform(0, FIRST_PING_WITHIN)
        while not connection.over.wait(timeout=pause):
            pause = PING_INTERVAL
            started = time.perf_counter()
            pong = self.expect("PONG")
            self.send("PING", {}, [pong])
            try:
                self._report("PING->PONG", started, pong.answer().when)
            except Failure as failure:
                if not (isinstance(failure, Lost) and failure.excused):
                    self._report("PING->PONG", started, error=failure)
                if isinstance(failure, Missing):
                    connection.reset()
                    self._lose(connection, Lost("connection lost: no PONG"))

    def _lose(self, connection: Connection, loss: Lost) -> None:
        """Note that the connection is no more. Does nothing for one that has been left or given up before."""
        if connection is not self._connection:
            return
        self._connection = None
        self._forsake(loss)
        if self.there.is_set():
            self.there.clear()
            self.losses += 1
            self._come_back(time.perf_counter())

    def _forsake(self, loss: Lost) -> None:
        """Give up what hangs on the connection that was lost."""
        for expectation in [
            *self._expected,
            *(cause for causes in self._caused.values() for cause in causes),
        ]:
            if not expectation.lasting:
                expectation.fail(loss)
        self._caused.clear()

    def _come_back(self, since: float) -> None:
        self._away_since = since
        self._overdue = False
        self._return = gevent.spawn(self._try_again)

    def _try_again(self) -> None:
        """Exponential back-off with full jitter, until back."""
        longest = FIRST_PAUSE
        while True:
            gevent.sleep(random.uniform(0, longest))
            longest = min(2 * longest, LONGEST_PAUSE)
            try:
                self._enter(first=False)
            except Failure as failure:
                if not self._overdue and time.perf_counter() - self._away_since > PATIENCE:
                    self._overdue = True
                    reason = Failure(f"not back within {PATIENCE:g} s: {failure}")
                    self._report("reconnect", self._away_since, error=reason)
            else:
                if not self._overdue:
                    self._report("reconnect", self._away_since)
                return
