"""What all clients of a run have sent and received, and whether that is what FastChat promises: D10-D13, D18, D20, D26.

The clients note everything here, in the order in which it happens to them; they run in one process, so there is one such order. In the
end `Ledger.problems` says what was broken, with the history of the messages concerned. It knows nothing of the server:

*Lost.* A message with a MSG_ACK has come to its recipient, over any of the recipient's connections, with the content it was sent with.

*Repeated.* No connection brings the same message twice. A message is named by sender, recipient and message_id together: other senders may
use the same id, and a sender may use it to somebody else.

*Reordered.* A mailbox has one order, and each connection gets a part of it in that order. A message takes its place when it is accepted,
which is at some time between the first attempt to send it and its MSG_ACK. So of two messages from one user to another the first is
before the second for certain when

- its MSG_ACK had come before the second was sent for the first time, or
- on the connection where the second was sent for the first time it was sent before, and that attempt got a MSG_ACK there: what one
  connection sends stays in order.

An attempt that ended with MESSAGE_FAILED or with the connection promises no place: nobody knows whether it was accepted. What is before
another message must come before it on each connection that brings both, and must not come for the first time after it. And
everything that the connections of one recipient show has to fit into one order.

*Numbered.* For who resumes, each connection goes on right behind the cursor and counts by one; a position stands for one message and a
message for one position, for ever; and none is missing.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Final, NamedTuple

#: Problems of each kind that are told in full.
_SHOWN: Final = 3


class Key(NamedTuple):
    """What names a message."""

    sender: str
    recipient: str
    message_id: str


class Event(NamedTuple):
    """What happened to a message on a connection: ``sent``, ``accepted``, ``told`` (a later receipt), ``failed`` or ``received``."""

    at: float
    what: str
    connection: int
    detail: str


class Connection:
    """One connection of one user, from HELLO on."""

    def __init__(self, number: int, user: str, resumes_after: int | None) -> None:
        self.number = number
        self.user = user
        #: The position from which the client asked to go on; None if it did not.
        self.resumes_after = resumes_after
        #: What came, in order, with its position for who resumes.
        self.received: list[tuple[Key, int | None]] = []


class _Sent:
    """One message, as its sender knows it. Times count the events of the whole ledger."""

    def __init__(self, content: str) -> None:
        self.content = content
        #: (connection, time) of each attempt.
        self.attempts: list[tuple[int, int]] = []
        #: Connections -> time of the attempt that was answered with MSG_ACK there.
        self.accepted: dict[int, int] = {}
        #: When it was known first that the message is accepted.
        self.acknowledged_at: int | None = None

    def is_before(self, other: _Sent) -> bool:
        """Whether this one was accepted before the other for certain, both from one user to another."""
        connection, first = other.attempts[0]
        if self.acknowledged_at is not None and self.acknowledged_at < first:
            return True
        return self.accepted.get(connection, first) < first


class Ledger:
    """Takes notes by the methods below; `problems` is the verdict."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._clock = 0
        self._sent: dict[Key, _Sent] = {}
        self._connections: list[Connection] = []
        self._first_received: dict[Key, int] = {}
        self._events: defaultdict[Key, list[Event]] = defaultdict(list)
        #: What happened to nobody's message in particular: (seconds, what).
        self._remarks: list[tuple[float, str]] = []
        self._complaints: list[str] = []

    # -- Notes --

    def connect(self, user: str, resumes_after: int | None = None) -> Connection:
        """A new connection of `user`, who goes on behind a position or, with None, does not resume."""
        connection = Connection(len(self._connections), user, resumes_after)
        self._connections.append(connection)
        return connection

    def sent(self, connection: Connection, key: Key, content: str) -> None:
        """An attempt to send a message, the first or a later one."""
        now = self._note(key, "sent", connection)
        self._sent.setdefault(key, _Sent(content)).attempts.append((connection.number, now))

    def acknowledged(self, connection: Connection, key: Key, status: str, *, told: bool = False) -> None:
        """A MSG_ACK: the answer to the last attempt on this connection, or (`told`) news of what may have been accepted before it."""
        now = self._note(key, "told" if told else "accepted", connection, status)
        sent = self._sent.get(key)
        if sent is None:
            self.complain(f"a MSG_ACK came for {key}, which was never sent")
            return
        if sent.acknowledged_at is None:
            sent.acknowledged_at = now
        tried = [at for number, at in sent.attempts if number == connection.number]
        if not told and tried:
            sent.accepted[connection.number] = tried[-1]

    def failed(self, connection: Connection, key: Key) -> None:
        """MESSAGE_FAILED: the last attempt on this connection was not confirmed."""
        self._note(key, "failed", connection)

    def received(self, connection: Connection, key: Key, content: str, seq: int | None = None) -> None:
        """A MSG, to `connection.user`; `seq` for who resumes."""
        now = self._note(key, "received", connection, "" if seq is None else f"seq {seq}")
        connection.received.append((key, seq))
        self._first_received.setdefault(key, now)
        sent = self._sent.get(key)
        if sent is None:
            self.complain(f"{key} came and was never sent")
        elif sent.content != content:
            self.complain(f"{key} came as {content!r} and was sent as {sent.content!r}\n{self.history(key)}")
        if key.recipient != connection.user:
            self.complain(f"{key} came to {connection.user}\n{self.history(key)}")

    def remark(self, what: str) -> None:
        """Something that helps to understand the rest, such as the end of a process."""
        self._remarks.append((time.monotonic() - self._began, what))

    def complain(self, what: str) -> None:
        """Something that must not happen has happened."""
        self._complaints.append(f"{time.monotonic() - self._began:.3f} s: {what}")

    def _note(self, key: Key, what: str, connection: Connection, detail: str = "") -> int:
        self._clock += 1
        self._events[key].append(Event(time.monotonic() - self._began, what, connection.number, detail))
        return self._clock

    # -- Figures --

    def undelivered(self) -> list[Key]:
        """Messages with a MSG_ACK that have not come to their recipient."""
        return [
            key
            for key, sent in self._sent.items()
            if sent.acknowledged_at is not None and key not in self._first_received
        ]

    def figures(self) -> dict[str, int]:
        """How much has happened, for a test that wants to know that it was enough."""
        kinds = Counter(event.what for events in self._events.values() for event in events)
        return {
            "messages": len(self._sent),
            "acknowledged": sum(sent.acknowledged_at is not None for sent in self._sent.values()),
            "ordered_pairs": sum(1 for _ in self._ordered()),
            "connections": len(self._connections),
            **{what: kinds[what] for what in ("sent", "accepted", "told", "failed", "received")},
        }

    def history(self, *keys: Key) -> str:
        """What happened to these messages, and meanwhile."""
        lines = [(at, f"    {what}") for at, what in self._remarks]
        for key in keys:
            name = f"{key.sender} -> {key.recipient} {key.message_id}"
            for event in self._events.get(key, []):
                user = self._connections[event.connection].user
                lines.append(
                    (
                        event.at,
                        f"  {name} {event.what} {event.detail} on connection {event.connection} of {user}",
                    )
                )
        return "\n".join(f"{at:9.3f} s{line}" for at, line in sorted(lines))

    # -- The verdict --

    def problems(self) -> list[str]:
        """Everything that was not as promised, each with what is needed to understand it; nothing when all was well."""
        found = list(self._complaints)
        for check in (self._lost, self._repeated, self._reordered, self._unordered, self._misnumbered):
            problems = list(check())
            found += problems[:_SHOWN]
            if len(problems) > _SHOWN:
                found.append(f"... and {len(problems) - _SHOWN} more like this")
        return found

    def _lost(self) -> Iterator[str]:
        for key in self.undelivered():
            yield f"LOST: {key} was acknowledged and never came\n{self.history(key)}"

    def _repeated(self) -> Iterator[str]:
        for connection in self._connections:
            for key, count in Counter(key for key, _ in connection.received).items():
                if count > 1:
                    yield f"REPEATED: {key} came {count} times on connection {connection.number}\n{self.history(key)}"

    def _reordered(self) -> Iterator[str]:
        places = [
            {key: place for place, (key, _) in enumerate(connection.received)}
            for connection in self._connections
        ]
        of_user: defaultdict[str, list[int]] = defaultdict(list)
        for connection in self._connections:
            of_user[connection.user].append(connection.number)
        never = self._clock + 1
        for first, second in self._ordered():
            for number in of_user[first.recipient]:
                place = places[number]
                if first in place and second in place and place[first] > place[second]:
                    yield (
                        f"REORDERED: {second} came before {first} on connection {number}\n"
                        f"{self.history(first, second)}"
                    )
            if self._first_received.get(first, never) > self._first_received.get(second, never):
                yield f"REORDERED: {second} came, and {first} had not come yet\n{self.history(first, second)}"

    def _unordered(self) -> Iterator[str]:
        """Whether what the connections of each recipient show, and what senders know for certain, fit into one order."""
        orders: defaultdict[str, TopologicalSorter[Key]] = defaultdict(TopologicalSorter)
        for connection in self._connections:
            keys = dict.fromkeys(key for key, _ in connection.received)
            for before, after in pairwise(keys):
                orders[connection.user].add(after, before)
        for before, after in self._ordered():
            orders[before.recipient].add(after, before)
        for user, order in orders.items():
            try:
                order.prepare()
            except CycleError as error:
                cycle: list[Key] = error.args[1]
                yield f"REORDERED: connections of {user} show different orders of {cycle}\n{self.history(*cycle)}"

    def _misnumbered(self) -> Iterator[str]:
        messages: dict[tuple[str, int], Key] = {}
        positions: dict[Key, int] = {}
        for connection in self._connections:
            expected = None if connection.resumes_after is None else connection.resumes_after + 1
            for key, seq in connection.received:
                if seq is None:
                    continue
                if expected is not None:
                    if seq != expected:
                        yield (
                            f"GAP: {key} came as {seq} where {expected} was due, on connection {connection.number}, "
                            f"which goes on behind {connection.resumes_after}\n{self.history(key)}"
                        )
                    expected = seq + 1
                other = messages.setdefault((connection.user, seq), key)
                if other != key:
                    yield (
                        f"MISNUMBERED: {seq} of {connection.user} is {other} and {key}\n{self.history(other, key)}"
                    )
                known = positions.setdefault(key, seq)
                if known != seq:
                    yield f"MISNUMBERED: {key} is {known} and {seq}\n{self.history(key)}"
        by_user: defaultdict[str, set[int]] = defaultdict(set)
        for user, seq in messages:
            by_user[user].add(seq)
        for user, seqs in by_user.items():
            missing = sorted(set(range(1, max(seqs) + 1)) - seqs)
            if missing:
                yield f"GAP: {user} has got positions up to {max(seqs)}, but never {missing[:20]}\n{self.history()}"

    def _ordered(self) -> Iterator[tuple[Key, Key]]:
        """Pairs of messages from one user to another of which the first was accepted before the second for certain."""
        talks: defaultdict[tuple[str, str], list[tuple[Key, _Sent]]] = defaultdict(list)
        for key, sent in self._sent.items():
            talks[key.sender, key.recipient].append((key, sent))
        for talk in talks.values():
            for place, (second, sent) in enumerate(talk):
                for first, earlier in talk[:place]:
                    if earlier.is_before(sent):
                        yield first, second
