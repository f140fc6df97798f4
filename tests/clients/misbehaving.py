"""A server that misbehaves, in memory and in virtual time, and the player of `scenarios.json` for the Python client.

README.md beside this file says what the steps mean; `javascript/play.mjs` is the same for the JavaScript client.

    for scenario in scenarios("python"):
        play(scenario, make_subject)

`make_subject(loop, network, options)` makes the client under test, wrapped as a `Subject`; it connects through ``network.connect``. The
event loop's time stands still unless the player moves it, so what takes minutes in a scenario takes milliseconds, and is exact.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from tests.clients.network import Data, Failed, Link, Network, Refused, VirtualLoop

SCENARIOS: Final = Path(__file__).with_name("scenarios.json")
CAPABILITIES: Final = ["receipts", "resume", "history", "carbons", "presence_delta"]
#: Frames of these types are looked for anywhere among those that came, since their order means nothing.
UNORDERED: Final = frozenset({"MSG_ACK", "READ"})

#: Where the client logs.
LOGGER: Final = "fastchat_client"

#: How all tokens of scenarios begin: nothing that is shown may have it.
SECRET: Final = "secret-"  # noqa: S105 - of the tests

Scenario = dict[str, Any]


# -- The client under test --


class Subject(Protocol):
    """The client as the player sees it. Names and fields are JavaScript's, as in the scenarios; times are the loop's, in seconds."""

    #: (name, fields) of all events so far, in order.
    events: list[tuple[str, Data]]

    def call(self, method: str, arguments: list[Any]) -> Any:
        """Call a method: an awaitable, a Sent, or None."""

    def shown(self) -> str:
        """All that the client has shown of itself: events, errors with their causes, its own representation."""

    def look(self) -> Data:
        """`state`, `closed`, `retryAt`, `cursor` and `presence`, as they are now."""

    def look_at_sent(self, sent: Any) -> Data:
        """`status`, and `error` (the code, or None), of what `send` returned."""

    def promise(self, sent: Any, name: str) -> Awaitable[Any]:
        """`accepted`, `delivered` or `read` of a Sent."""

    def plain(self, value: Any) -> Any:
        """What an awaitable returned, as JSON would have it."""

    def error_code(self, error: BaseException) -> str:
        """The code of what an awaitable raised; the player asks for it only then."""

    def throw_next(self, event: str) -> None:
        """Let the listener of this event raise an exception the next time, after it has noted the event."""

    def wait_next(self, event: str) -> None:
        """Let the listener of this event be a coroutine from now on, which waits for `end_listener`."""

    def end_listener(self, event: str, fails: bool) -> None:
        """Let the listener of this event that waits for the longest time come to its end, and the next ones not wait any more."""

    def close_at(self, event: str) -> None:
        """Let the listener of this event close the client the next time."""


MakeSubject = Callable[[VirtualLoop, Network, Data], Subject]


# -- The player --


def scenarios(client: str) -> list[Scenario]:
    """The scenarios for `client`, with ids for names."""
    content = json.loads(SCENARIOS.read_text())
    return [
        substituted(scenario) for scenario in content["scenarios"] if client in scenario.get("only", [client])
    ]


def substituted(scenario: Scenario) -> Scenario:
    """The scenario with ids for names."""
    users = json.loads(SCENARIOS.read_text())["users"]
    made: Scenario = _substitute(scenario, {f"@{name}": user_id for name, user_id in users.items()})
    return made


def play(scenario: Scenario, make_subject: MakeSubject) -> None:
    """Play one scenario. Raises Failed, which names the step."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    log = Log()
    logging.getLogger(LOGGER).addHandler(log)
    try:
        player = _Player(loop, scenario, make_subject, log)
        player.run(scenario["steps"], "")
        if SECRET in player.subject.shown() or SECRET in "".join(log.all):
            raise Failed("a token is shown")
    finally:
        logging.getLogger(LOGGER).removeHandler(log)
        loop.is_ending = True
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.settle()
        asyncio.set_event_loop(None)
        loop.close()


class Log(logging.Handler):
    """What the client has logged: all of it, and what nobody has looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[str] = []
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the client's own; those of the package below it are another matter."""
        text = record.getMessage()
        self.all.append(text)
        if record.name == LOGGER:
            self.said.append(text)


class _Player:
    def __init__(self, loop: VirtualLoop, scenario: Scenario, make_subject: MakeSubject, log: Log) -> None:
        self.loop = loop
        self.log = log
        self.network = Network(loop)
        self.users: Mapping[str, str] = json.loads(SCENARIOS.read_text())["users"]
        number, token = scenario.get("random", 0.5), scenario.get("token")
        #: What the function for tokens answers, how often it was asked, and its answers that are still to come, by number.
        self.answers: list[Any] = token if isinstance(token, list) else []
        self.asked = 0
        self.questions: dict[int, asyncio.Future[Any]] = {}
        options = {
            "userId": self.users["me"],
            "displayName": "Me Myself",
            "token": self.token_of if isinstance(token, list) else token,
            "cursor": scenario.get("cursor"),
            "random": lambda: number,
        }
        self.subject = make_subject(loop, self.network, options)
        self.sents: dict[str, Any] = {}
        self.promises: dict[str, asyncio.Future[Any]] = {}
        #: How many events of each name have been looked at.
        self.seen: dict[str, int] = {}

    def run(self, steps: list[Data], place: str) -> None:
        for number, step in enumerate(steps):
            self.loop.settle()
            try:
                self.step(step, f"{place}{number}.")
            except Failed as failure:
                if not failure.args[0].startswith("step "):
                    raise Failed(f"step {place}{number} {json.dumps(step)}: {failure}") from None
                raise
        self.loop.settle()

    def step(self, step: Data, place: str) -> None:
        if "server" in step:
            getattr(self, f"server_{step['server']}")(step)
        elif "client" in step:
            self.client(step)
        elif "repeat" in step:
            for number in range(step["repeat"]):
                self.run(_substitute(step["steps"], {f"{{{step['as']}}}": str(number)}), f"{place}{number}.")
        elif "events" in step:
            self.events(step["events"])
        elif "sent" in step:
            self.sent(step)
        elif "promise" in step:
            self.promise(step)
        elif "time" in step:
            self.loop.advance(step["time"])
        elif "stall" in step:
            self.stall(step, place)
        elif "attempt" in step:
            self.attempt(*step["attempt"])
        elif "no_attempt" in step:
            self.no_attempt(step["no_attempt"])
        else:
            self.client_is(step)

    # -- The server --

    @property
    def link(self) -> Link:
        if not self.network.links:
            raise Failed("the client has not tried to connect")
        return self.network.links[-1]

    def server_accept(self, step: Data) -> None:
        if not self.link.waiting:
            raise Failed("no attempt is waiting")
        self.link.accepted.set_result(None)
        self.loop.settle()

    def server_refuse(self, step: Data) -> None:
        if not self.link.waiting:
            raise Failed("no attempt is waiting")
        self.link.accepted.set_exception(Refused(step.get("status")))

    def server_greet(self, step: Data) -> None:
        self.server_accept(step)
        self.server_expect({"type": "HELLO", "data": step.get("hello", {}), "absent": step.get("absent", [])})
        ack: Data = {"user_id": self.users["me"], "status": "connected", "capabilities": CAPABILITIES}
        ack |= {"cursor": "e.0", "resumed": "full"} | step.get("ack", {})
        kept = {name: value for name, value in ack.items() if value is not None}
        self.server_send({"type": "HELLO_ACK", "data": kept})

    def server_expect(self, step: Data) -> None:
        kind, wanted = step["type"], step.get("data", {})
        waiting = [frame for frame in self.link.frames if frame.type == kind and not frame.taken]
        if kind not in UNORDERED:
            waiting = waiting[:1]
        for frame in waiting:
            if _contains(frame.data, wanted) and not set(step.get("absent", [])) & frame.data.keys():
                frame.taken = True
                return
        came = [(frame.type, frame.data) for frame in self.link.frames if not frame.taken]
        raise Failed(f"did not come; not taken are {json.dumps(came)}")

    def server_expect_none(self, step: Data) -> None:
        left = [f.data for f in self.link.frames if f.type == step["type"] and not f.taken]
        if left:
            raise Failed(f"there is {json.dumps(left)}")

    def server_send(self, step: Data) -> None:
        self.link.tell(json.dumps({"type": step["type"], "data": step["data"]}))

    def server_send_text(self, step: Data) -> None:
        self.link.tell(step["text"])

    def server_close(self, step: Data) -> None:
        self.link.close_from_server(step["code"], step.get("reason", ""))

    def server_drop(self, step: Data) -> None:
        self.link.close_from_server(1006, "")

    def server_silent(self, step: Data) -> None:
        self.link.silent = True

    def server_pongs(self, step: Data) -> None:
        self.link.pongs = step["on"]

    def server_connections(self, step: Data) -> None:
        count = sum(link.open for link in self.network.links)
        if count != step["open"]:
            raise Failed(f"{count} are open")

    def server_closed_by_client(self, step: Data) -> None:
        if self.link.closed_by_client != step["code"]:
            raise Failed(f"the client closed with {self.link.closed_by_client}")

    # -- The client --

    def token_of(self) -> Any:
        """The next answer of the function that is the option `token`."""
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        number, self.asked = self.asked, self.asked + 1
        if answer == "throws":
            raise RuntimeError("thrown by the scenario")
        if answer != "rejects" and answer != "later" and not isinstance(answer, dict):
            return answer
        promise: asyncio.Future[Any] = self.loop.create_future()
        if answer == "rejects":
            promise.set_exception(RuntimeError("rejected by the scenario"))
            promise.exception()  # whether the client looks at it is its own affair
        elif answer == "later":
            self.questions[number] = promise
        else:
            promise.set_result(answer["promise"])
        return _stubborn(promise)

    def client(self, step: Data) -> None:
        method: str = step["client"]
        if method == "listener_throws":
            self.subject.throw_next(step["event"])
            return
        if method == "listener_waits":
            self.subject.wait_next(step["event"])
            return
        if method == "listener_ends":
            self.subject.end_listener(step["event"], step.get("fails", False))
            return
        if method == "close_at":
            self.subject.close_at(step["event"])
            return
        if method == "answer":
            self.questions[step["question"]].set_result(step["token"])
            return
        made = self.subject.call(method, step.get("args", []))
        name: str = step.get("as", method)
        if method == "send":
            self.sents[name] = made
        elif made is not None:
            self.promises[name] = self._kept(made)
        self.loop.settle()

    def _kept(self, made: Awaitable[Any]) -> asyncio.Future[Any]:
        """The outcome of it. A scenario need not look: what nobody has looked at would be logged when it is collected, in another test."""
        outcome = asyncio.ensure_future(made, loop=self.loop)
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        return outcome

    def sent(self, step: Data) -> None:
        came = self.subject.look_at_sent(self.sents[step["sent"]])
        for field in ("status", "error", "content", "original"):
            if field in step and not _contains(came[field], step[field]):
                raise Failed(f"it is {json.dumps(came)}")

    def promise(self, step: Data) -> None:
        name: str = step["promise"]
        sent, _, which = name.rpartition(".")
        if name not in self.promises and sent in self.sents:
            made = self.subject.promise(self.sents[sent], which)
            self.promises[name] = self._kept(made)
            self.loop.settle()
        future = self.promises[name]
        if not future.done():
            came: Data = {"is": "pending"}
        elif (error := future.exception()) is not None:
            came = {"is": "rejected", "error": self.subject.error_code(error)}
        else:
            came = {"is": "resolved", "value": self.subject.plain(future.result())}
        for field in ("is", "error", "value"):
            if field in step and not _contains(came.get(field), step[field]):
                raise Failed(f"it is {json.dumps(came)}")

    def events(self, wanted: Mapping[str, list[Data]]) -> None:
        for name, expected in wanted.items():
            came = [event for kind, event in self.subject.events if kind == name]
            fresh = came[self.seen.get(name, 0) :]
            self.seen[name] = len(came)
            if not _contains(fresh, expected):
                raise Failed(f"the events `{name}` are {json.dumps(fresh)}")

    def client_is(self, step: Data) -> None:
        now = self.subject.look()
        for field, wanted in step.items():
            if field == "attempts":
                if len(self.network.links) != wanted:
                    raise Failed(f"it has tried {len(self.network.links)} times")
            elif field == "asked":
                if self.asked != wanted:
                    raise Failed(f"it was asked {self.asked} times")
            elif field == "warnings":
                self.warned(wanted)
            elif field == "retryIn":
                wait = now["retryAt"] - self.loop.time()
                if not wanted[0] - 1e-6 <= wait <= wanted[1] + 1e-6:
                    raise Failed(f"the next attempt is in {wait} s")
            elif field == "presence" and now["presence"] != wanted:
                raise Failed(f"presence is {json.dumps(now['presence'])}")
            elif not _contains(now[field], wanted):
                raise Failed(f"{field} is {json.dumps(now[field])}")

    def warned(self, wanted: list[str]) -> None:
        fresh = self.log.said
        self.log.said = []
        if len(fresh) != len(wanted) or not all(one in text for one, text in zip(wanted, fresh, strict=True)):
            raise Failed(f"the warnings are {json.dumps(fresh)}")

    # -- Time --

    def stall(self, step: Data, place: str) -> None:
        links = list(self.network.links)
        for link in links:
            link.hold()
        self.run(step.get("steps", []), place)
        self.loop.stall(step["stall"])
        for link in links:
            link.release()

    def attempt(self, least: float, most: float) -> None:
        known, began = len(self.network.links), self.loop.time()
        if least == 0 and known and self.link.waiting:
            return  # it came without time passing
        if least > 0:
            self.loop.advance(least - 1e-3)
            if len(self.network.links) > known:
                raise Failed("the client tried too early")
        while len(self.network.links) == known:
            left = began + most - self.loop.time()
            if left < -2e-3:
                raise Failed("the client did not try in time")
            self.loop.advance(min(0.01, max(left, 1e-3)))

    def no_attempt(self, seconds: float) -> None:
        known = len(self.network.links)
        self.loop.advance(seconds)
        if len(self.network.links) > known:
            raise Failed("the client tried to connect")


async def _stubborn(promise: asyncio.Future[Any]) -> Any:
    """What comes of a promise, for somebody who does not stop when told to."""
    while True:
        try:
            return await asyncio.shield(promise)
        except asyncio.CancelledError:
            if promise.cancelled() or asyncio.get_running_loop().is_ending:  # type: ignore[attr-defined]
                raise


def _substitute(value: Any, named: Mapping[str, str]) -> Any:
    """The same, with other words in all strings and keys."""
    if isinstance(value, str):
        for name, word in named.items():
            value = word if value == name else value.replace(name, word) if name.startswith("{") else value
        return value
    if isinstance(value, list):
        return [_substitute(item, named) for item in value]
    if isinstance(value, dict):
        return {_substitute(key, named): _substitute(item, named) for key, item in value.items()}
    return value


def _contains(came: Any, wanted: Any) -> bool:
    """Whether `came` is what a scenario wants: objects may have more fields, ``"*"`` is anything but null."""
    if wanted == "*":
        return came is not None
    if isinstance(wanted, dict):
        return isinstance(came, dict) and all(
            name in came and _contains(came[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(came, list)
            and len(came) == len(wanted)
            and all(_contains(one, other) for one, other in zip(came, wanted, strict=True))
        )
    return bool(came == wanted) and isinstance(came, bool) == isinstance(wanted, bool)
