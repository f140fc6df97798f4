"""The sockets of this worker in the run directory, which others may sweep away: cleaners of temporary files, or people.

A socket whose name was removed still listens, but nobody can find it: fronts that start, and workers that start again, would wait for ever.
So the names are looked at, and what is gone is opened anew. The directory itself is made again by the supervisor.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

from core.events import fields

_log = logging.getLogger("fastchat.worker")

#: Seconds between two looks: who comes waits ten times as long for a worker that is away.
_INTERVAL: Final = 1.0


class _Endpoint:
    """A name in the directory, and how to have it again."""

    def __init__(self, path: str, reopen: Callable[[], Awaitable[None]]) -> None:
        self.path = path
        self.reopen = reopen
        #: Device and inode of what has the name; None when there was nothing to be found.
        self.identity = _identity(path)
        #: Whether it was said that it is gone and can't be opened.
        self.told = False


class Endpoints:
    """`add` each name once its socket is open, then let `watch` run."""

    def __init__(self) -> None:
        self._endpoints: list[_Endpoint] = []
        #: How many are gone and could not be opened again, and how many were.
        self.missing = 0
        self.reopened = 0

    def add(self, path: str, reopen: Callable[[], Awaitable[None]]) -> None:
        """Watch over `path`. `reopen` opens it again, in place of whatever has the name; it may raise OSError."""
        self._endpoints.append(_Endpoint(path, reopen))

    def note(self) -> None:
        """Take what has the names now for what they are to be: this process has opened it."""
        for endpoint in self._endpoints:
            endpoint.identity = _identity(endpoint.path)

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            await self.check()

    async def check(self) -> None:
        """Open again what is gone."""
        self.missing = 0
        for endpoint in self._endpoints:
            identity = _identity(endpoint.path)
            if identity is None or identity != endpoint.identity:
                await self._reopen(endpoint)

    async def _reopen(self, endpoint: _Endpoint) -> None:
        try:
            await endpoint.reopen()
        except OSError as error:
            self.missing += 1
            if not endpoint.told:
                endpoint.told = True
                about = fields(path=endpoint.path, reason=error.strerror)
                _log.error(
                    "a socket of this worker is gone and can't be opened again: nobody new finds it",
                    extra=about,
                )
            return
        endpoint.identity = _identity(endpoint.path)
        endpoint.told = False
        self.reopened += 1
        _log.warning(
            "a socket of this worker was removed, and is opened again", extra=fields(path=endpoint.path)
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
