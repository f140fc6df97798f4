"""``python -m workers``: started by the supervisor, once for each worker; not meant to be called by hand."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from pathlib import Path
from typing import Final

import uvloop

from core.process.child import ControlPipe, run_child
from core.process.settings import Settings
from workers.connection import Connection
from workers.worker import Worker

#: Objects made between two looks of the garbage collector at what is new: about a millisecond. So many of these between two looks at
#: all that has been new since the one before; and as good as none at everything.
_YOUNG: Final = 10_000
_OLDER: Final = 4
_NEVER: Final = 1_000_000_000


def main(connection_type: type[Connection] = Connection) -> int:
    """Run one worker; return its exit code (``core.process.child``).

    Only the tests of RFC 6455 have another type of connection, and a program of their own that calls this.
    """
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument(
        "--generations",
        type=_numbers,
        required=True,
        help="numbers of the processes of all workers, unique over all starts",
    )
    parser.add_argument(
        "--succeeds", type=int, help="take the place of the process of this number, which serves now"
    )
    parser.add_argument(
        "--gathers", type=int, help="take the users of the processes of so many workers, which serve now"
    )
    parser.add_argument("--keep", type=Path, help="directory in which to leave what counts against limits")

    def serve(settings: Settings, options: argparse.Namespace, control: ControlPipe) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, options, control, connection_type))

    return run_child("worker", parser, None, serve)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


async def _serve(
    settings: Settings,
    options: argparse.Namespace,
    control: ControlPipe,
    connection_type: type[Connection],
) -> None:
    worker = Worker(
        settings,
        options.index,
        options.generations,
        control,
        connection_type,
        options.keep,
        succeeds=options.succeeds,
        gathers=options.gathers,
    )
    # What was made while booting lives as long as the process: the collector need not look at it again and again. What is made later goes
    # when the last one who knows it does, so a small look at what is new is enough: at everybody who is here, it takes a tenth of a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _NEVER)
    await worker.run()


if __name__ == "__main__":
    sys.exit(main())
