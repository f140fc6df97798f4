"""When to connect again: exponential back-off with full jitter, so that clients that lost one server come back spread out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fastchat_client._codes import CloseCode

#: Seconds: the longest wait before the first try after a loss, and ever.
BASE: Final = 0.5
CAP: Final = 30.0
#: Seconds over which clients spread that are expected back: those of a server that restarts, and devices that slept.
SPREAD: Final[dict[int, float]] = {
    CloseCode.SHUTTING_DOWN: 3.0,
    CloseCode.RESTARTING: 3.0,
    CloseCode.NO_SIGN_OF_LIFE: 1.0,
}
#: An overloaded server gets this many seconds of rest at least, and a back-off that starts this far up.
OVERLOAD_REST: Final = 1.0
OVERLOAD_STEP: Final = 3
#: How the close reason of 1012 ends when the server says when to come back.
SUGGESTION: Final = re.compile(r"; reconnect in (\d{1,9}(?:\.\d{1,9})?) s$", re.ASCII)
#: Seconds online after which a connection counts as good: the next loss is the first again.
GOOD_AFTER: Final = 10.0

#: A random number from 0 to 1, 1 excluded.
Random = Callable[[], float]


class Backoff:
    """The waits between the connections of one client."""

    def __init__(self, random: Random) -> None:
        self._random = random
        #: Attempts since the last connection that was good.
        self._attempts = 0
        #: How the last one ended.
        self._code = 0

    def next(self, code: int, reason: str, online_for: float) -> float:
        """Return seconds to wait now that a connection ended with `code` and `reason`, after having been online for so many seconds."""
        if online_for >= GOOD_AFTER:
            self._attempts = 0
        # A device that slept has not failed; only one that is told so again at once may be in a loop.
        if code == CloseCode.NO_SIGN_OF_LIFE != self._code:
            self._attempts = 0
        self._code = code
        if code == CloseCode.TRY_AGAIN_LATER:
            self._attempts = max(self._attempts, OVERLOAD_STEP)
        attempts, self._attempts = self._attempts, self._attempts + 1
        if code == CloseCode.TRY_AGAIN_LATER:
            return OVERLOAD_REST + self._random() * limit(attempts)
        suggested = SUGGESTION.search(reason) if code == CloseCode.RESTARTING else None
        if suggested is not None:
            # The server has spread its clients already. The back-off still holds for one that is sent from server to server.
            return max(min(CAP, float(suggested[1])), self._random() * limit(attempts))
        return self._random() * max(SPREAD.get(code, 0.0), limit(attempts))


def limit(attempts: int) -> float:
    """Return the longest wait, in seconds, after so many attempts before."""
    return min(CAP, BASE * 2.0 ** min(attempts, 16))


def again(random: Random, tries: int) -> float:
    """Return seconds until a request that was not confirmed is repeated, when it has been repeated so often."""
    return BASE + random() * limit(tries)
