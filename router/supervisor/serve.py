"""``fastchat serve``: from environment and flags to a running server, and from what was wrong to a sentence and an exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import setproctitle
import uvloop

from core.process.configuration import load_settings
from core.process.control import EXIT_BOOT_FAILURE, EXIT_CONFIGURATION
from core.process.logs import configure_logging
from core.process.service_links import describe_ignored
from core.process.settings import PREFIX, ConfigurationError, Settings
from router.supervisor.restart_policy import CannotBoot
from router.supervisor.supervisor import Supervisor

_log = logging.getLogger("fastchat.supervisor")


def serve(arguments: Sequence[str]) -> int:
    """Run the server as environment and `arguments` say, until it is told to stop; the exit code."""
    log_format = "text"
    try:
        settings = load_settings(os.environ, arguments)
        log_format = settings.log_format
        setproctitle.setproctitle("fastchat: supervisor")
        configure_logging("supervisor", settings.log_level, settings.log_format)
        ignored = describe_ignored(os.environ, PREFIX)
        if ignored is not None:
            _log.warning("%s", ignored)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(settings))
    except ConfigurationError as error:
        _log_failure(str(error), log_format)
        return EXIT_CONFIGURATION
    except CannotBoot as error:
        _log_failure(str(error), log_format)
        return EXIT_BOOT_FAILURE


async def _run(settings: Settings) -> int:
    return await Supervisor(settings).run()


def _log_failure(sentences: str, log_format: str) -> None:
    """Tell the operator why the server does not start, or ends."""
    for sentence in sentences.splitlines():
        if log_format == "json":
            _log.critical("%s", sentence)
            continue
        with suppress(OSError):  # nobody may be reading, and the exit code tells too
            print(f"fastchat: {sentence}", file=sys.stderr)
