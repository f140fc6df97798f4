"""``fastchat serve``: from environment and flags to a running server, and from what was wrong to a sentence and an exit code."""

from __future__ import annotations

import asyncio
import dataclasses
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
from router.supervisor import preflight
from router.supervisor.handed_on import HandedOn, NotUnderstood, read_state
from router.supervisor.restart_policy import CannotBoot
from router.supervisor.supervisor import Supervisor
from router.supervisor.takeover import take_over
from router.supervisor.upgrade import UNDERSTOOD, Resume, parse_resume, use_threads_without_signals

_log = logging.getLogger("fastchat.supervisor")


def serve(arguments: Sequence[str]) -> int:
    """Run the server as environment and `arguments` say, until it is told to stop; the exit code."""
    log_format = "text"
    try:
        if (resume := parse_resume(arguments)) is not None:
            return _resume(resume)
        settings = load_settings(os.environ, arguments)
        log_format = settings.log_format
        _configure(settings)
        ignored = describe_ignored(os.environ, PREFIX)
        if ignored is not None:
            _log.warning("%s", ignored)
        preflight.raise_descriptor_limit()
        if (left := take_over(settings)) is not None:
            return _run(dataclasses.replace(left.parsed_settings(), log_level=settings.log_level), left)
        return _run(settings)
    except (ConfigurationError, NotUnderstood) as error:
        _log_failure(str(error), log_format)
        return EXIT_CONFIGURATION
    except CannotBoot as error:
        _log_failure(str(error), log_format)
        return EXIT_BOOT_FAILURE


def _resume(resume: Resume) -> int:
    """Go on with the server of the program that this process was, or say if that could be done. Raises NotUnderstood."""
    state = read_state(resume.descriptor)
    settings = state.parsed_settings()
    if resume.is_check:
        print(UNDERSTOOD)
        return 0
    for descriptor in state.descriptors:
        os.set_inheritable(descriptor, False)
    _configure(settings)
    return _run(settings, state)


def _configure(settings: Settings) -> None:
    setproctitle.setproctitle("fastchat: supervisor")
    configure_logging("supervisor", settings.log_level, settings.log_format)


def _run(settings: Settings, state: HandedOn | None = None) -> int:
    async def run() -> int:
        use_threads_without_signals(asyncio.get_running_loop())
        return await Supervisor(settings, state).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _log_failure(sentences: str, log_format: str) -> None:
    """Tell the operator why the server does not start, or ends."""
    for sentence in sentences.splitlines():
        if log_format == "json":
            _log.critical("%s", sentence)
            continue
        with suppress(OSError):  # nobody may be reading, and the exit code tells too
            print(f"fastchat: {sentence}", file=sys.stderr)
