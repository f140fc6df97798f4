"""Has the files of the store made for the number of workers, by a child: it may have to copy all data, which takes minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from core.process.control import EXIT_CONFIGURATION
from core.process.settings import ConfigurationError
from router.supervisor.children import Child
from router.supervisor.data_directory import DataDirectory
from router.supervisor.restart_policy import CannotBoot


class FilePreparation:
    """`run` it once, at the start."""

    def __init__(self) -> None:
        #: Makes the files, while it does.
        self.child: Child | None = None

    async def run(self, directory: DataDirectory, workers: int, environment: Mapping[str, str]) -> None:
        """Make the files if need be; what the child tells goes to standard error, as all logging does.

        Raises ConfigurationError and CannotBoot. If the server ends meanwhile, somebody else ends the child.
        """
        if directory.is_prepared(workers):
            return
        arguments = ["prepare", str(directory.path), "--workers", str(workers)]
        arguments += ["--lock", str(directory.lock)]
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_exit(_: Child) -> None:
            self.child = None
            if not ended.done():
                ended.set_result(None)

        try:
            child = Child(
                "prepare", "workers.store", arguments, environment, (directory.lock,), _ignore, on_exit
            )
        except OSError as error:
            raise ConfigurationError(f"can't start the process `prepare`: {error.strerror}") from None
        self.child = child
        await ended
        if child.refused is not None and child.exit_code == EXIT_CONFIGURATION:
            raise ConfigurationError(child.refused)
        if child.exit_code != 0:
            raise CannotBoot(
                f"the files in {directory.path} could not be prepared: the process `prepare` ended with {child.how_it_ended()}"
            )


def _ignore(child: Child) -> None:
    """Do nothing: the child has nothing to be ready for."""
