"""Two people who chat with each other: what a locust user is in this load."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Final
from uuid import uuid4

from locust import User, between, task
from locust.env import Environment
from locust.runners import Runner

from bench.connection import Message
from bench.load_person import PATIENCE, Answer, Expectation, Lost, Person
from bench.load_report import Failure, report_to

#: Seconds between two turns, in each of which both write one message: about 40 MSG a minute and user, and never more than the 60
#: that are allowed.
PAUSE: Final = (1.0, 2.0)
#: Turns between coming and leaving. HELLO, OPEN_CHAT and TYPING, of which there is one a visit, come to at most 8 a minute, where 30,
#: 20 and 10 are allowed.
TURNS_A_VISIT: Final = (8, 24)


class Pair(User):
    """Two people who come, open their chat, show that they are typing, talk for some turns, leave, and come back.

    They talk while both are there. Who is cut off comes back by itself, and the talk goes on. A failure has been reported when it is
    raised, and costs the turn.
    """

    wait_time = between(*PAUSE)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.report = report_to(environment)
        self.people: list[Person] = []
        #: Turns until they leave.
        self.turns = 0
        #: They have their chat, and have shown that they are typing.
        self.met = False

    def on_start(self) -> None:
        self.people = [Person(str(self.host), self.report) for _ in range(2)]

    def on_stop(self) -> None:
        self.leave()

    @task
    def turn(self) -> None:
        """One turn of the talk, after coming in if they are not there."""
        alice, bob = self.people
        try:
            if self.turns == 0:
                self.turns = random.randint(*TURNS_A_VISIT)
                self.arrive()
            alice.there.wait(timeout=1)
            bob.there.wait(timeout=1)
            if not self.met:
                self.meet(alice, bob)
            self.message(alice, bob)
            self.message(bob, alice)
        except Failure:
            return
        self.turns -= 1
        if self.turns == 0:
            self.leave()

    # -- The journey --

    def arrive(self) -> None:
        """Both, one after the other; the first Failure is raised when both have tried, and will go on trying."""
        failures = []
        for person in self.people:
            try:
                person.arrive()
            except Failure as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def meet(self, alice: Person, bob: Person) -> None:
        if not (alice.there.is_set() and bob.there.is_set()):
            raise Lost("not there", excused=True)
        data = {"target_user_id": bob.user_id, "target_display_name": bob.name}
        opened = alice.expect("CHAT_OPENED", target_user_id=bob.user_id)
        self.exchange(alice, "OPEN_CHAT", data, "OPEN_CHAT->CHAT_OPENED", opened)
        for person, peer in ((alice, bob), (bob, alice)):
            shown = peer.expect("TYPING", user_id=person.user_id, is_typing=True)
            self.exchange(person, "TYPING", {"is_typing": True}, "TYPING->delivered", shown)
        self.met = True

    def leave(self) -> None:
        self.turns = 0
        self.met = False
        for person in self.people:
            person.leave()

    def message(self, sender: Person, recipient: Person) -> None:
        """One message, to its acknowledgement and to the peer.

        Neither is excused by a loss: a sender who is cut off before the acknowledgement sends the message again with the same id, and to
        a recipient who is cut off the server has to send it again. These have names of their own, since their time is mostly that of
        the way back.
        """
        if not (sender.there.is_set() and recipient.there.is_set()):
            raise Lost("not there", excused=True)
        message_id = str(uuid4())
        data = {"to": recipient.user_id, "content": f"{self.turns} turns to go", "message_id": message_id}
        losses = recipient.losses
        arrival = recipient.expect("MSG", lasting=True, **{"from": sender.user_id}, **data)
        started = time.perf_counter()
        acknowledged: Answer | None = None
        repeated = False
        failures: list[Failure] = []
        try:
            acknowledged = self.send_message(sender, data, arrival).answer()
        except Failure as failure:
            self.report_failure("MSG->MSG_ACK", started, failure)
            if isinstance(failure, Lost):
                repeated = True
                self.repeat(sender, data, arrival)
            else:
                failures.append(failure)
        try:
            arrived = self.arrived(arrival, recipient, losses)
        except Failure as failure:
            self.report_failure("MSG->delivered", started, failure)
            failures.append(failure)
        else:
            disturbed = repeated or recipient.losses != losses
            name = "MSG->delivered after reconnect" if disturbed else "MSG->delivered"
            self.report(name, started, arrived.when)
        if acknowledged is not None:
            status = acknowledged.data.get("status")
            error = None
            # Only now it is certain that the recipient's connection was not lost meanwhile: the message would not have come over it.
            if status != "delivered" and recipient.losses == losses:
                error = Failure(f"the peer is there, and MSG_ACK says {status}")
                failures.append(error)
            self.report("MSG->MSG_ACK", started, acknowledged.when, error)
        if failures:
            raise failures[0]

    def repeat(self, sender: Person, data: Message, arrival: Expectation) -> None:
        """Send a message again when the sender is back: nobody knows whether the first one came in, and the id makes it one message."""
        if not sender.there.wait(timeout=PATIENCE):  # reported as `reconnect`
            arrival.fail(Lost("the sender did not come back", excused=True))
            return
        started = time.perf_counter()
        try:
            self.answered("MSG again->MSG_ACK", started, self.send_message(sender, data, arrival))
        except Failure as failure:
            arrival.fail(Lost("no second chance", excused=True) if isinstance(failure, Lost) else failure)

    # -- Questions and answers --

    def send_message(self, sender: Person, data: Message, arrival: Expectation) -> Expectation:
        """Send it; what is returned is the acknowledgement that is to come."""
        acknowledgement = sender.expect("MSG_ACK", message_id=data["message_id"])
        sender.send("MSG", data, [acknowledgement, arrival])
        return acknowledgement

    def arrived(self, arrival: Expectation, recipient: Person, losses: int) -> Answer:
        """Wait for a message at the recipient, who had so many `losses` when it was sent; after another, first for the recipient."""
        while not arrival.wait():
            if recipient.losses == losses:
                arrival.miss()
                break
            losses = recipient.losses
            if not recipient.there.wait(timeout=PATIENCE):  # reported as `reconnect`
                arrival.fail(Lost("the recipient did not come back", excused=True))
        return arrival.answer()

    def exchange(self, sender: Person, kind: str, data: Message, name: str, expectation: Expectation) -> None:
        """Send, wait for what it brings about and report it. Raises a Failure after it is reported."""
        started = time.perf_counter()
        sender.send(kind, data, [expectation])
        self.answered(name, started, expectation)

    def answered(self, name: str, started: float, expectation: Expectation) -> None:
        """Wait for an answer and report it. Raises a Failure after it is reported."""
        try:
            self.report(name, started, expectation.answer().when)
        except Failure as failure:
            self.report_failure(name, started, failure)
            raise

    def report_failure(self, name: str, started: float, failure: Failure) -> None:
        """Report it, unless it is a loss that is nobody's fault."""
        if not (isinstance(failure, Lost) and failure.excused):
            self.report(name, started, error=failure)


def everybody(runner: Runner) -> Iterator[Person]:
    """All people of the pairs that run in this process."""
    for greenlet in runner.user_greenlets:
        for user in greenlet.args:  # none are left when it has ended
            if isinstance(user, Pair):
                yield from user.people
