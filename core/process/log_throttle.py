"""How many lines an event may fill, so that misbehaving clients fill neither the disk nor anybody's time.

Events of one kind (the same sentence and close code) share a window of a minute. In it so many are logged, and of those so many about one
user, or one address when the user is not known, that one client can't use up what others need. At the end of the window one
line says how many more there were. Memory is bounded: what is kept of a kind is no more than was logged of it, and there are at most
so many kinds.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

#: Seconds.
WINDOW: Final = 60.0
#: Lines of one kind in a window, and those about one user or address.
KIND_MAX: Final = 100
WHO_MAX: Final = 5
#: At debug level so many times as many: who asked for it wants to see it.
DEBUG_TIMES: Final = 10
#: Kinds that are kept apart. There are far fewer; should a library make up sentences, they share what is left.
KINDS_MAX: Final = 500


class Kind(NamedTuple):
    """What makes two events the same kind."""

    logger: str
    level: int
    #: Before anything is filled in.
    sentence: str
    code: int | None = None


#: The kind of everything beyond KINDS_MAX.
_OTHERS: Final = Kind("fastchat.log", logging.WARNING, "other events")


class Held(NamedTuple):
    """A summary: how many events of a kind were not logged, within how many seconds."""

    kind: Kind
    number: int
    seconds: float


class _Window:
    """The present window of a kind."""

    __slots__ = ("began", "held", "held_since", "logged", "who")

    def __init__(self, now: float) -> None:
        self.began = now
        self.logged = 0
        #: user or address -> lines about it.
        self.who: dict[str, int] = {}
        #: Events that were not logged and not summed up yet, and when the window of the first of them began.
        self.held = 0
        self.held_since = now


class Throttle:
    """Times are in seconds on a clock of the caller's that never goes back."""

    def __init__(self) -> None:
        self._windows: dict[Kind, _Window] = {}
        #: Those of them that have something to sum up.
        self._holding: dict[Kind, _Window] = {}

    def admit(self, kind: Kind, who: str | None, now: float) -> bool:
        """Return whether an event is to be logged."""
        window = self._windows.get(kind)
        if window is None:
            kind, window = self._open(kind, now)
        if now >= window.began + WINDOW:
            window.began, window.logged = now, 0
            window.who.clear()
        times = DEBUG_TIMES if kind.level <= logging.DEBUG else 1
        about = window.who.get(who, 0) if who is not None else 0
        if window.logged >= KIND_MAX * times or about >= WHO_MAX * times:
            if not window.held:
                window.held_since = window.began
                self._holding[kind] = window
            window.held += 1
            return False
        window.logged += 1
        if who is not None:
            window.who[who] = about + 1
        return True

    @property
    def holds(self) -> bool:
        """Whether there is something that will be summed up."""
        return bool(self._holding)

    def due(self) -> float | None:
        """Return when the first of it will be; None when there is nothing."""
        began = [window.held_since for window in list(self._holding.values())]
        return min(began) + WINDOW if began else None

    def summaries(self, now: float, *, all_of_them: bool = False) -> list[Held]:
        """Return what was held in windows that are over, or in all; each is returned once."""
        found = []
        for kind, window in list(self._holding.items()):
            if all_of_them or now >= window.held_since + WINDOW:
                found.append(Held(kind, window.held, now - window.held_since))
                window.held = 0
                del self._holding[kind]
        return found

    def _open(self, kind: Kind, now: float) -> tuple[Kind, _Window]:
        if len(self._windows) >= KINDS_MAX:
            for other, window in list(self._windows.items()):
                if not window.held and now >= window.began + WINDOW:
                    del self._windows[other]
            if len(self._windows) >= KINDS_MAX:
                kind = _OTHERS
        return kind, self._windows.setdefault(kind, _Window(now))
