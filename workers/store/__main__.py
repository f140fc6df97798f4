"""``python -m workers.store``: what is done to a data directory while no worker, or beside the workers, has it open."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Final

import setproctitle

from core.placement import WORKERS_MAX
from core.process.child import ControlPipe
from core.process.control import EXIT_CONFIGURATION, REFUSED
from core.process.logs import configure_logging
from core.process.settings import PREFIX, ConfigurationError

#: `check`, or what `backup` and `restore` do last, has found damage.
EXIT_DAMAGED: Final = 1

_DESCRIPTION: Final = "Check, export, back up, restore or change the data directory of a server."
_EPILOG: Final = """\
DATA_DIR is the value of FASTCHAT_DATA_DIR, or of DATA= for make; the default is ./data. `check`, `export` and `backup` only read it and
may run beside a server; stop the server for `purge`, `prepare` and `restore`. Exit codes: 0 success, 1 `check`, `backup` or `restore`
found damage, 2 not possible, with the reason on standard error.
"""
_CHECK: Final = """\
Look for damage: missing or broken files, users in the wrong file, missing messages, messages that belong to no user. Each damage is one
line on standard output; a summary follows.
"""
_EXPORT: Final = """\
Print everything that is stored about a user, one JSON object per line: the user, the user's chats, then the messages sent and received, by
time. The field `type` says which of these a line is. Beside a running server, changes during the export may be missing.
"""
_BACKUP: Final = """\
Copy everything to a new directory, and check the copy. Beside a running server, the copy has everything that was acknowledged before the
tool was started. An unfinished copy is removed.
"""
_RESTORE: Final = """\
Make a data directory of a backup, and check it. DATA_DIR must not exist: move the old one away first. Do not copy the files by hand:
clients that resume would miss messages.
"""
_PURGE: Final = """\
Delete a user for good: name, chats, mailbox, and all messages from this user in the mailboxes of others. Stop the server first. The tool
rewrites the files, which takes time and as much free disk space as the largest file. After an interruption, run it again. Backups, and what
is on people's devices, are not changed.
"""
_PREPARE: Final = """\
Make the files for a number of workers, from the files for another number if there are any. A server that is started with another number of
WORKERS does this by itself; to do it by hand takes as much downtime.
"""


def main(words: Sequence[str] | None = None, program: str = "python -m workers.store") -> int:
    """Run one of the tools, as `words` or else the command line says; the exit code. Ends the process as argparse does.

    `program` is what the user has called it by.
    """
    arguments = _parser(program).parse_args(words)
    directory: Path = arguments.directory
    if arguments.tool in ("prepare", "purge", "resize"):
        # What SQLite sorts goes where room is needed anyway, and messages stay where they are. It asks once, when it is first used.
        os.environ["SQLITE_TMPDIR"] = str(directory.absolute())
    for stream in (sys.stdout, sys.stderr):
        # JSON is UTF-8 whatever the terminal is.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        if arguments.tool == "prepare":
            return _prepare(directory, arguments.workers, arguments.lock, arguments.control)
        if arguments.tool == "resize":
            return _resize(directory, arguments.workers, arguments.lock, arguments.control)
        # Each imports what it needs only, since the server waits for `prepare` at its start.
        if arguments.tool == "check":
            from workers.store.check import check

            return EXIT_DAMAGED if check(directory, sys.stdout) else 0
        if arguments.tool == "export":
            from workers.store.export import export

            export(directory, arguments.user_id, sys.stdout)
        elif arguments.tool in ("backup", "restore"):
            from workers.store.backup import backup, restore

            copy = backup if arguments.tool == "backup" else restore
            return EXIT_DAMAGED if copy(directory, arguments.target, sys.stdout) else 0
        else:
            from workers.store.purge import purge

            print(purge(directory, arguments.user_id))
        sys.stdout.flush()
    except ConfigurationError as error:
        print(f"fastchat: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except BrokenPipeError:
        # Whoever read it has seen enough. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CONFIGURATION
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=_DESCRIPTION, epilog=_EPILOG)
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    for name, description in (
        ("check", _CHECK),
        ("export", _EXPORT),
        ("backup", _BACKUP),
        ("restore", _RESTORE),
        ("purge", _PURGE),
        ("prepare", _PREPARE),
    ):
        tool = tools.add_parser(
            name, help=description.partition(".")[0].partition(":")[0], description=description
        )
        if name == "restore":
            tool.add_argument(
                "directory", type=Path, metavar="BACKUP", help="a directory that `backup` has made"
            )
            tool.add_argument("target", type=Path, metavar="DATA_DIR", help="the new data directory")
            continue
        tool.add_argument("directory", type=Path, metavar="DATA_DIR", help="the server's data directory")
        if name == "backup":
            tool.add_argument("target", type=Path, metavar="BACKUP", help="the new directory of the copy")
        if name in ("export", "purge"):
            tool.add_argument("user_id", metavar="USER_ID", help="the user's id")
        if name == "prepare":
            _add_workers(tool)
            # From the supervisor: the descriptor of the control pipe.
            tool.add_argument("--control", type=int, help=argparse.SUPPRESS)
    # Without help, since it is of no use to an operator: a server that runs starts it, see `workers.store.resize`.
    tool = tools.add_parser("resize")
    tool.add_argument("directory", type=Path)
    _add_workers(tool)
    tool.add_argument("--control", type=int, required=True)
    return parser


def _add_workers(tool: argparse.ArgumentParser) -> None:
    tool.add_argument("--workers", type=_workers, required=True, metavar="N", help=f"1 to {WORKERS_MAX}")
    # From the supervisor: the descriptor of the directory's lock.
    tool.add_argument("--lock", type=int, help=argparse.SUPPRESS)


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {WORKERS_MAX}, not {text!r}")
    return int(text)


def _prepare(directory: Path, workers: int, lock: int | None, control: int | None) -> int:
    pipe = ControlPipe(control) if control is not None else None
    if pipe is not None:
        pipe.listen_in_thread()  # what was done so far does no harm when it ends this process
    _boot("prepare")
    from workers.store.data_directory import locked
    from workers.store.prepare import prepare

    try:
        with locked(directory, lock):
            prepare(directory, workers)
    except ConfigurationError as error:
        if pipe is None:
            raise
        pipe.send(REFUSED, reason=str(error))
        return EXIT_CONFIGURATION
    return 0


def _resize(directory: Path, workers: int, lock: int | None, control: int) -> int:
    for number in (signal.SIGINT, signal.SIGHUP):
        # What a terminal sends to all processes. The supervisor gets it too, and ends this one in order.
        signal.signal(number, signal.SIG_IGN)
    pipe = ControlPipe(control)
    _boot("resize")
    from workers.store.resize import resize

    return resize(directory, workers, lock, pipe)


def _boot(name: str) -> None:
    """Do what each process of the server does first. Raises ConfigurationError."""
    setproctitle.setproctitle(f"fastchat: {name}")
    try:
        configure_logging(
            name,
            os.environ.get(f"{PREFIX}LOG_LEVEL", "info"),
            os.environ.get(f"{PREFIX}LOG_FORMAT", "text"),
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
