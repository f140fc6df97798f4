"""The heartbeat: who is pinged, who is given up (D27), and one timer wheel for all connections of a worker.

A connection needs to be looked at about every 20 s, and hardly ever sooner. A timer each would cost a heap operation per frame; the
wheel costs nothing per frame: a connection sits in the slot of the moment when it is due *if nothing comes*, and when that moment
arrives it says itself whether something came and when to look again.

Nobody is given up for what is not the client's doing. The time for an answer begins when the kernel has the ping; who is not read from is
not judged, nor who has sent something that waits to be read; and when the worker itself stood still, the time begins again.
"""

from __future__ import annotations

import logging
import math
import select
from typing import Final, Protocol

from core.chat.session import Session
from core.wire.protocol import CloseCode
from workers.limits import Limits

_log = logging.getLogger("fastchat.worker")

#: Seconds per slot, and so how late a look may be.
SLOT_SECONDS: Final = 0.25
#: Seconds until somebody is looked at again who can't be judged now.
_LOOK_AGAIN: Final = 1.0
#: Seconds in which not one byte goes out to a silent client before it is given up, though the ping has not reached the kernel: behind
#: what it does not read the ping may wait for ever.
_STUCK: Final = 60.0


class Watched(Protocol):
    """What sits on the wheel."""

    def on_timer(self, now: float) -> float | None:
        """Do what is due, and say when to look again; None for never."""


class Beating(Protocol):
    """A connection, as the heartbeat sees it."""

    session: Session
    #: When the client was heard last.
    last_heard: float
    #: The heartbeat's ping, if one was sent since then.
    unanswered: Ping | None
    #: Bytes that the kernel did not take at once, all in all.
    kept: int

    @property
    def limits(self) -> Limits:
        """How long it may be silent."""

    @property
    def may_be_judged(self) -> bool:
        """Whether the client is read from, and nothing of it waits in the kernel, not even its FIN."""

    def gone_out(self) -> int:
        """Return how many of the kept bytes the kernel has taken since."""

    def ping(self, payload: bytes) -> None:
        """Write a WebSocket ping."""

    def fail(self, code: int, reason: str) -> None:
        """Close for what the client did, or did not do."""


class Ping:
    """A ping of the heartbeat that no sign of life has followed."""

    __slots__ = ("_ahead", "_gone", "_since", "_written")

    def __init__(self, written: float | None = None) -> None:
        #: When it is known that the kernel has it.
        self._written = written
        #: What must have gone out by then (`Connection.gone_out`); what has, and since when that has not changed. Not known before the
        #: end of the turn in which it was sent.
        self._ahead: int | None = None
        self._gone = 0
        self._since = 0.0

    def due(self, connection: Beating, now: float) -> float:
        """Return when there must have been an answer; not before a later turn than the one in which it was sent."""
        if self._written is None:
            gone = connection.gone_out()
            if self._ahead is None:
                self._ahead = connection.kept
                self._gone, self._since = gone, now
            elif gone != self._gone:
                self._gone, self._since = gone, now
            if gone < self._ahead:
                return self._since + _STUCK
            self._written = now
        return self._written + connection.limits.reply

    @property
    def written(self) -> float | None:
        """When it is known that the kernel has it; None if that is not known."""
        return self._written

    def begin_again(self, now: float) -> None:
        """Give the client its whole time from now on: the worker stood still."""
        self._since = now
        if self._written is not None:
            self._written = now


def beat(connection: Beating, now: float) -> float | None:
    """Ping a client from which nothing has come for long; close one that gives no sign of life, or does not say HELLO in time (D2).

    Returns when to look again; None when it was closed.
    """
    due = _next_look(connection, now)
    session = connection.session
    if session.awaits_hello:
        due = min(due, session.hello_deadline)
    if now < due:
        return due
    if not connection.may_be_judged:
        return now + _LOOK_AGAIN
    if session.awaits_hello and now >= session.hello_deadline:
        connection.fail(CloseCode.POLICY_VIOLATION, "no HELLO in time")
    else:
        connection.fail(CloseCode.NO_SIGN_OF_LIFE, "no sign of life; reconnect")
    return None


def _next_look(connection: Beating, now: float) -> float:
    """Return when to look again; in the past when the client has had its time."""
    idle = connection.last_heard + connection.limits.idle
    if now < idle:
        return idle
    ping = connection.unanswered
    if ping is None:
        connection.unanswered = Ping()
        connection.ping(b"alive?")
        return now + SLOT_SECONDS
    due = ping.due(connection, now)
    return due if due <= now else min(due, now + _LOOK_AGAIN)


def is_readable(descriptor: int) -> bool:
    """Return whether bytes, or the other side's FIN, wait in a socket."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))


class TimerWheel:
    """`watch` something, and it is asked to `look` when it is due."""

    def __init__(self, now: float) -> None:
        #: slot number (time divided by SLOT_SECONDS) -> what is due then. Only slots in use exist.
        self._slots: dict[int, list[Watched]] = {}
        self._next = int(now / SLOT_SECONDS)

    def watch(self, watched: Watched, due: float) -> None:
        """Look at it at `due` or up to SLOT_SECONDS later. Watching the same thing twice looks at it twice."""
        slot = max(math.ceil(due / SLOT_SECONDS), self._next)
        self._slots.setdefault(slot, []).append(watched)

    def turn(self, now: float) -> None:
        """Look at everything that is due, each once: who asks for another look at once gets it with the next turn."""
        current = int(now / SLOT_SECONDS)
        slots = [self._slots.pop(slot, ()) for slot in range(self._next, current + 1)]
        self._next = max(self._next, current + 1)
        for watched in (watched for slot in slots for watched in slot):
            try:
                due = watched.on_timer(now)
            except Exception:
                _log.exception("bug in the heartbeat of a connection; the others are not affected")
                continue
            if due is not None:
                self.watch(watched, due)
