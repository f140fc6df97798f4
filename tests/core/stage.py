"""Stages for tests of ``core.chat.succession``: the same conversation with and without a successor, and with one that does not get all.

A scenario says which field of which records it needs (`needs`). It is played three times: on one process, with a successor at
`Stage.succeed`, and with a successor that does not get the field. The first two are the same for every client; the third is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.core.noting import Event, Noting
from tests.core.world import Taken, World

#: Where a field is: in the record of the shard, in its part about presence, in that of a user, in those of connections.
SHARD: Final = "shard"
PRESENCE: Final = "presence"
USER: Final = "user"
SESSION: Final = "session"
#: Bytes that wait for a client which does not read.
SLOW: Final = 1 << 20

Change = Callable[[Taken], None]


class Stage:
    """Ann on worker 0, Bob on the same one or on worker 1, Cat on worker 1; and how a worker is replaced, if it is."""

    def __init__(self, far: bool, replace: bool, change: Change | None = None, **settings: Any) -> None:
        self.world = World(2, **settings)
        self.ann_id = self.world.user_on(0)
        self.bob_id = self.world.user_on(int(far))
        self.cat_id = self.world.user_on(1)
        self.far = far
        self.clients: list[Noting] = []
        #: What operators were told.
        self.told: list[Any] = []
        self._replace = replace
        self._change = change

    def succeed(self, *workers: int) -> None:
        """Replace these workers, or that of Bob."""
        self.world.settle()
        for worker in workers or (int(self.far),):
            if self._replace:
                self.world.succeed(worker, self._change)

    def connect(self, user: str) -> Noting:
        """A connection without HELLO."""
        client = Noting(self.world, user)
        self.clients.append(client)
        return client

    def come(self, user: str, *capabilities: str, **hello: Any) -> Noting:
        """A connection that has said HELLO."""
        client = self.connect(user)
        name = {self.ann_id: "Ann Lee", self.bob_id: "Bob Ray"}.get(user, "Somebody")
        client.hello(name, capabilities=list(capabilities), **hello)
        return client

    def chatting(self, *capabilities: str) -> tuple[Noting, Noting]:
        """A device of Ann's and one of Bob's, who have a chat that both know of; nothing is due."""
        ann, bob = self.come(self.ann_id, *capabilities), self.come(self.bob_id, *capabilities)
        ann.open_chat(self.bob_id)
        self.rest()
        return ann, bob

    def rest(self) -> None:
        """Let all pongs come that are asked for, and let them count."""
        for _ in range(3):
            self.world.pass_time(1.2, 0.2)
            for client in self.clients:
                if client.open:
                    client.answer_those_that_came()
        self.world.pass_time(6.0, 0.5)

    def events(self) -> list[list[Event]]:
        """All that came to each client, and what each is like in the end."""
        ends: list[list[Event]] = [[(0.0, "told", self.told)]]
        ends += [[*client.events, (0.0, "held", client.held_until)] for client in self.clients]
        return ends


def needs(
    part: str, field: str, **limits: Any
) -> Callable[[Callable[[Stage], None]], Callable[[bool], None]]:
    """Make a test of a scenario that needs a field of a part of the records; `limits` are settings."""

    def make(play: Callable[[Stage], None]) -> Callable[[bool], None]:
        def test(far: bool) -> None:
            stages = [
                Stage(far, False, **limits),
                Stage(far, True, **limits),
                Stage(far, True, _without(part, field), **limits),
            ]
            for stage in stages:
                play(stage)
            alone, succeeded, incomplete = [stage.events() for stage in stages]
            assert succeeded == alone
            assert incomplete != alone, f"nobody needs {field}"

        test.__name__, test.__doc__ = play.__name__, play.__doc__
        return test

    return make


def _without(part: str, field: str) -> Change:
    """Take a field out of all records that have it."""

    def change(taken: Taken) -> None:
        parts = list(_parts(taken, part))
        assert any(field in one for one in parts), f"no {part} has {field!r}"
        for one in parts:
            one.pop(field, None)

    return change


def _parts(taken: Taken, part: str) -> Iterator[dict[str, Any]]:
    for record, _ in taken:
        if part == SHARD and record["kind"] == "shard":
            yield record
        elif part == PRESENCE and record["kind"] == "shard":
            yield record["presence"]
        elif part == USER and record["kind"] == "user":
            yield record
        elif part == SESSION:
            yield from record.get("sessions", [])
