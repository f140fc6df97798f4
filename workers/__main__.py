"""``python -m workers``: started by the supervisor, once for each worker; not meant to be called by hand."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Final

import setproctitle
import uvloop

from core.process.control import EXIT_BOOT_FAILURE, REFUSED
from core.process.logs import configure_logging
from core.process.settings import ConfigurationError, Settings, load_settings
from workers.connection import Connection
from workers.control import ControlPipe
from workers.worker import Worker

#: Objects made between two looks of the garbage collector at what is new: about a millisecond. So many of these between two looks at
#: all that has been new since the one before; and as good as none at everything.
_YOUNG: Final = 10_000
_OLDER: Final = 4
_NEVER: Final = 1_000_000_000


def main(connection_type: type[Connection] = Connection) -> int:
    """Run one worker; the exit code says whether it stopped in order (0) or could not boot (3).

    Only the tests of RFC 6455 have another type of connection, and a program of their own that calls this.
    """
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--index", type=int, required=True, help="which worker this is, from 0")
    parser.add_argument(
        "--generation", type=int, required=True, help="number of this process, unique over all starts"
    )
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the control pipe")
    parser.add_argument("--keep", type=Path, help="directory in which to leave what counts against limits")
    arguments = parser.parse_args()
    setproctitle.setproctitle(f"fastchat: worker {arguments.index}")
    control = ControlPipe(arguments.control)
    try:
        settings = load_settings(os.environ)
        configure_logging(f"worker-{arguments.index}", settings.log_level, settings.log_format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                _serve(
                    settings, arguments.index, arguments.generation, control, connection_type, arguments.keep
                )
            )
    except (ConfigurationError, OSError) as error:
        control.say(REFUSED, reason=str(error))
        return EXIT_BOOT_FAILURE
    return 0


async def _serve(
    settings: Settings,
    index: int,
    generation: int,
    control: ControlPipe,
    connection_type: type[Connection],
    keep: Path | None,
) -> None:
    worker = Worker(settings, index, generation, control, connection_type, keep)
    # What was made while booting lives as long as the process: the collector need not look at it again and again. What is made later goes
    # when the last one who knows it does, so a small look at what is new is enough: at everybody who is here, it takes a tenth of a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _NEVER)
    await worker.run()


if __name__ == "__main__":
    sys.exit(main())
