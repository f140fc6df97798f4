"""Notices when the run directory, or the operators' socket in it, is swept away, and makes both again.

The workers open their own sockets in it again (``workers.endpoints``). What can't be mended keeps the server from being ready, and is said.
"""

from __future__ import annotations

import asyncio
import logging

from core.events import fields
from core.process.settings import ConfigurationError
from router.operator.socket import OperatorSocket
from router.supervisor.run_directory import RunDirectory

_log = logging.getLogger("fastchat.supervisor")


class RunDirectoryWatch:
    """Call `check` once a second, and before a process is started that needs the directory."""

    def __init__(self, directory: RunDirectory, operators: OperatorSocket) -> None:
        self._directory = directory
        self._operators = operators
        self._reopening: asyncio.Task[None] | None = None
        self._stopped = False
        #: Why the directory can't be used, as a sentence; None when it can.
        self.problem: str | None = None

    def check(self) -> None:
        """Make the directory again if it is gone, and have the operators' socket opened again."""
        if self._stopped:
            return  # the directory is about to be removed in order
        problem = None
        try:
            if self._directory.restore():
                _log.warning(
                    "the run directory was removed, and is made again",
                    extra=fields(path=self._directory.path),
                )
        except ConfigurationError as error:
            problem = str(error)
            if problem != self.problem:
                _log.error("%s", problem)
        self.problem = problem
        if problem is None and (self._reopening is None or self._reopening.done()):
            self._reopening = asyncio.get_running_loop().create_task(self._reopen())

    async def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._reopening is not None:
            await asyncio.wait([self._reopening])

    async def _reopen(self) -> None:
        try:
            if await self._operators.restore():
                _log.warning(
                    "the operators' socket was removed, and is opened again",
                    extra=fields(path=self._operators.path),
                )
        except OSError as error:
            _log.error(
                "the operators' socket was removed and can't be opened again, so operator commands fail",
                extra=fields(path=self._operators.path, reason=error.strerror),
            )
