"""Tells systemd, or another service manager with its protocol, how far the server is and that it is alive: sd_notify(3).

Whoever started the server names a datagram socket in NOTIFY_SOCKET, and in WATCHDOG_USEC how long it waits for a sign of life before it
ends the server and starts it again. Without them nothing is sent. A sign of life is sent by the event loop of the supervisor itself, at
half of that time, so one that hangs sends none; how the workers are does not matter to it, since the supervisor mends them better.

Until the server is ready each beat asks for more time to start: files for another number of workers may take minutes, and a loop that
hangs meanwhile asks for none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Final, NamedTuple

from core.events import fields

_log = logging.getLogger("fastchat.supervisor")

#: What the service manager has put into the environment.
_SOCKET: Final = "NOTIFY_SOCKET"
_INTERVAL: Final = "WATCHDOG_USEC"
_WATCHED_PROCESS: Final = "WATCHDOG_PID"
_VARIABLES: Final = (_SOCKET, _INTERVAL, _WATCHED_PROCESS)
#: Seconds between two beats when nobody watches: the state may have changed.
_BEAT: Final = 10.0
#: Seconds that starting may take from the last beat on.
_MORE_TIME: Final = 60.0
#: Bytes of a state: a line in what ``systemctl status`` shows.
_STATE_MAX_BYTES: Final = 500
_MICROSECONDS: Final = 1_000_000


class NotifiedState(NamedTuple):
    """What another program needs to go on: whether the server was said to be ready, and what could not be said yet."""

    is_ready: bool
    unsent: list[str]


class ServiceManager:
    """Whoever has started the server, if that is to be told. `describe` tells the server's state in a line.

    The variables are taken out of `environ`: they are meant for this process and for none that it starts.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        describe: Callable[[], str],
        environ: MutableMapping[str, str] = os.environ,
    ) -> None:
        self._loop = loop
        self._describe = describe
        #: What was taken out, for another program that goes on in this process.
        self.environment = {name: environ.pop(name) for name in _VARIABLES if name in environ}
        self._address = _address(self.environment.get(_SOCKET, ""))
        watchdog = _watchdog(self.environment.get(_INTERVAL, ""), self.environment.get(_WATCHED_PROCESS, ""))
        #: Seconds from one beat to the next.
        self._interval = watchdog / 2 if watchdog is not None else _BEAT
        self._is_watched = watchdog is not None
        self._is_ready = False
        #: What could not be sent when it was due: it goes first at the next beat.
        self._unsent: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin with the beats."""
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._beat()

    def to_state(self) -> NotifiedState:
        """Return what `take_up` needs besides the environment."""
        return NotifiedState(self._is_ready, self._unsent)

    def take_up(self, state: NotifiedState) -> None:
        """Go on where another program has ended, perhaps in the middle of `reload`. Call it before `start`, and that after it."""
        self._is_ready = state.is_ready
        self._unsent = [*state.unsent]
        if state.is_ready:
            self._unsent.append("READY=1")

    def ready(self) -> None:
        """Tell that the server is ready."""
        self._is_ready = True
        self._notify("READY=1", self._state())

    async def reload(self, action: Callable[[], Awaitable[None]]) -> None:
        """Do what reads again something that was read at the start."""
        if self._is_ready:
            self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        await action()
        if self._is_ready:
            self.ready()

    def more_time(self, seconds: float) -> None:
        """Ask for so much time before the end of the server, besides the time that an end takes anyway."""
        self._notify(
            "STOPPING=1", self._state(), f"EXTEND_TIMEOUT_USEC={int((seconds + _MORE_TIME) * _MICROSECONDS)}"
        )

    def stopping(self) -> None:
        """Tell that the server has begun to end; signs of life go on until `close`."""
        self._describe = lambda: "stopping"
        self._notify("STOPPING=1", self._state())

    def close(self) -> None:
        """End the beats."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._beat)
        unsent, self._unsent = self._unsent, []
        for text in unsent:
            self._notify(text)
        words = [self._state()]
        if self._is_watched:
            words.append("WATCHDOG=1")
        if not self._is_ready:
            words.append(f"EXTEND_TIMEOUT_USEC={int(max(_MORE_TIME, 2 * self._interval) * _MICROSECONDS)}")
        self._notify(*words, again=False)

    def _state(self) -> str:
        line = " ".join(self._describe().split())
        return "STATUS=" + line.encode()[:_STATE_MAX_BYTES].decode(errors="ignore")

    def _notify(self, *words: str, again: bool = True) -> None:
        """Send at once, without waiting for anybody. What a later beat does not say anyway is kept when there is no room for it."""
        if self._socket is None or self._address is None:
            return
        text = "\n".join(words)
        try:
            self._socket.sendto(text.encode(), self._address)
        except BlockingIOError:
            if again:
                self._unsent.append(text)
        except OSError as error:
            # Nobody is there to hear it, which does no harm to those who chat.
            _log.debug("the service manager can't be told", extra=fields(reason=error.strerror))


def _address(name: str) -> bytes | None:
    """Return the address of a unix socket; None for nobody. ``@`` begins a name that is in no directory, see unix(7)."""
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    if name.startswith("/"):
        return os.fsencode(name)
    if name:
        _log.warning(
            "NOTIFY_SOCKET is neither an absolute path nor begins with @: the server sends no notifications"
        )
    return None


def _watchdog(microseconds: str, process: str) -> float | None:
    """Return seconds within which a sign of life is expected from this process; None if it is not."""
    if process and process != str(os.getpid()):
        return None
    with suppress(ValueError):
        if (watchdog := int(microseconds)) > 0:
            return watchdog / _MICROSECONDS
    return None
