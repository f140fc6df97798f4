"""Replaces the program of the supervisor by the one on disk, in the same process, as the last step of a reload: exec(2).

    check: the new program starts as a child and reads the state --> quiet: who has asked gets an answer --> exec --> it takes the state up
      |                                                                                                        |
      +-- it does not understand it, or does not start                          +-- the system refuses --------+
          both: the old program goes on, and nothing has happened

The process stays, and with it all that hangs on its number: the children are still its children, and a service manager sees no change. What
was in its memory goes along as JSON (``router.supervisor.handed_on``), and the listeners, locks and control pipes as open descriptors. All
others are closed by the kernel at the moment of the exec. So nothing has to be given up before, and a failed exec leaves all as it was.

What comes meanwhile waits: connections in backlogs, messages in control pipes, the exit codes of children that end, and signals, which are
blocked until the new program has handlers for them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from router.supervisor.handed_on import write_state
from router.supervisor.reload import UpgradeFailed

#: The flags after which the new program finds the descriptor of the state, and that say that it is only to be read.
RESUME: Final = "--resume"
CHECK: Final = "--check"
#: What a program prints that has understood the state.
UNDERSTOOD: Final = "understood"
#: What the supervisor handles.
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds that the new program has for its start.
_CHECK_PATIENCE: Final = 60.0
#: The end of what it says that an operator reads.
_SHOWN: Final = 300
#: Turns of the event loop after which it has handled every signal that had come.
_TURNS: Final = 3


class Resume(NamedTuple):
    """How a program was started that goes on."""

    #: Of the state.
    descriptor: int
    #: Whether it is only to say if it could.
    is_check: bool


def parse_resume(arguments: Sequence[str]) -> Resume | None:
    """Return what the flags of a supervisor say of that; None for a start as any other."""
    if RESUME not in arguments:
        return None
    value = arguments[arguments.index(RESUME) + 1 :]
    return Resume(int(value[0]), CHECK in value)


def use_threads_without_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Have all signals handled by the main thread, which alone can block them. Call it before the loop has threads."""
    block = partial(signal.pthread_sigmask, signal.SIG_BLOCK, SIGNALS)
    loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="fastchat", initializer=block))


async def check(state: bytes, environment: Mapping[str, str]) -> None:
    """Start the new program once, as a child that only reads the state. Raises UpgradeFailed and OSError."""
    descriptor = write_state(state)
    try:
        run = partial(
            subprocess.run,
            [*_command(descriptor), CHECK],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(descriptor,),
            capture_output=True,
            text=True,
            timeout=_CHECK_PATIENCE,
        )
        done = await asyncio.get_running_loop().run_in_executor(None, run)
    except subprocess.TimeoutExpired:
        raise UpgradeFailed(f"the program on disk did not start within {_CHECK_PATIENCE:g} s") from None
    finally:
        os.close(descriptor)
    # Its exit code may have been taken by who reaps orphans; what it prints is what counts.
    if done.stdout.strip() != UNDERSTOOD:
        said = " ".join(done.stderr.split())[-_SHOWN:] or f"it ended with {done.returncode} and said nothing"
        raise UpgradeFailed(f"the program on disk can't go on: {said}")


@contextmanager
def signals_blocked() -> Iterator[None]:
    """In here, signals wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def handle_signals() -> None:
    """Let the loop handle the signals that came before they were blocked."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def become(state: bytes, descriptors: Iterable[int], environment: Mapping[str, str]) -> None:
    """Become the new program, which gets `descriptors`. Returns never; raises OSError, and nothing has changed then."""
    state_descriptor = write_state(state)
    kept = [state_descriptor, *descriptors]
    try:
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        os.execve(sys.executable, _command(state_descriptor), environment)  # noqa: S606 - our own program, and no shell is wanted
    finally:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)
        os.close(state_descriptor)


def _command(descriptor: int) -> list[str]:
    """Return the command line of this process, with which it may go on already."""
    arguments = sys.orig_argv[1:]
    if RESUME in arguments:
        arguments = arguments[: arguments.index(RESUME)]
    return [sys.executable, *arguments, RESUME, str(descriptor)]
