"""The supervisor's side of the keeper: starts that process, and gives it what the next supervisor needs if this one is killed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Final

from core.events import fields
from router.supervisor.children import Child
from router.supervisor.deposit import close_all, send_deposit
from router.supervisor.handed_on import HandedOn, write_state
from router.supervisor.resources import Resources

_log = logging.getLogger("fastchat.supervisor")

#: Seconds until a keeper that has ended is started again.
_RESTART: Final = 1.0
#: Seconds after which the state is given again though nothing is said to have changed: counts and the dashboard's history do.
_INTERVAL: Final = 30.0
#: Seconds that a keeper has for taking a deposit.
_PATIENCE: Final = 1.0


class Safekeeping:
    """`start` it; then `update` whenever something has changed. `collect` returns the state, or None while nobody could go on with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, collect: Callable[[], HandedOn | None]) -> None:
        self._loop = loop
        self._collect = collect
        #: The keeper, while it runs, and this end of the socket for deposits.
        self.child: Child | None = None
        self._channel: socket.socket | None = None
        #: What it has to know, while one is wanted.
        self._resources: Resources | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._update: asyncio.Handle | None = None
        self._again: asyncio.TimerHandle | None = None

    def start(self, resources: Resources) -> None:
        """Have a keeper from now on, if the settings want one, and there is none.

        With process 1, as in a container, the kernel ends all others.
        """
        if resources.settings.takeover_seconds and self._resources is None and os.getpid() != 1:
            self._resources = resources
            self._start_keeper()

    def _start_keeper(self) -> None:
        assert self._resources is not None and self._resources.run_directory is not None, (
            "they are there first"
        )
        settings, run_directory = self._resources.settings, self._resources.run_directory
        self._restart = None
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(_PATIENCE)
        arguments = ["--deposits", str(theirs.fileno()), "--run-dir", str(run_directory.path)]
        arguments += ["--seconds", str(settings.takeover_seconds)]
        try:
            self.child = Child(
                "keeper",
                "router.supervisor.keeper",
                arguments,
                self._resources.environment_of_children(),
                [theirs.fileno()],
                lambda _: None,
                self._ended,
            )
        except OSError as error:
            self._failed(error.strerror)
        finally:
            theirs.close()
        self.update()

    def _ended(self, child: Child) -> None:
        if child is not self.child:
            return  # one that was stopped, and there is another
        self.child = None
        if self._resources is not None:
            self._failed(child.how_it_ended())

    def _failed(self, why: str | None) -> None:
        _log.error("the keeper ended, and is started again", extra=fields(reason=why))
        self._close()
        self._restart = self._loop.call_later(_RESTART, self._start_keeper)

    def update(self) -> None:
        """Give the keeper the state as it is when all has been done that is under way in this turn of the event loop."""
        if self._update is None and self._channel is not None:
            self._update = self._loop.call_soon(self.update_now)

    def update_now(self) -> None:
        """Give it to the keeper at once: nothing, if nobody could go on with it."""
        if self._update is not None:
            self._update.cancel()
            self._update = None
        if self._channel is None:
            return
        if self._again is not None:
            self._again.cancel()
        self._again = self._loop.call_later(_INTERVAL, self.update)
        state = self._collect()
        deposit: list[int] = []
        try:
            if state is not None:
                deposit.append(write_state(state.to_json()))
                send_deposit(self._channel, [*deposit, *state.descriptors])
            else:
                send_deposit(self._channel, [])
        except OSError as error:
            # It may hang. The next one gets it.
            why = error.strerror or str(error)
            _log.error("the keeper does not take the state", extra=fields(reason=why))
            if self.child is not None:
                self.child.signal(signal.SIGKILL)
        finally:
            close_all(deposit)

    def stop(self) -> None:
        """Have nothing kept any more, until the next `start`."""
        self._resources = None
        for timer in (self._restart, self._update, self._again):
            if timer is not None:
                timer.cancel()
        self._restart = self._update = self._again = None
        if self.child is not None:
            self.child.signal(signal.SIGKILL)
        self._close()

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
