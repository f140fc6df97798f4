"""The supervisor's children: starting one, talking with it, and noticing its end.

A child is started with its end of a control pipe (``core.process.control``) and whatever sockets it needs, and with nothing else of ours.
Its death is seen through a pidfd, which cannot be mistaken for another process; by then everything that it had said has been heard.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from core.events import fields
from core.process.control import (
    ANSWER,
    ASK,
    BEAT,
    FAILED,
    LEAVING,
    PACKET_MAX_BYTES,
    READY,
    REFUSED,
    STATS,
    STAYS,
    WAITING,
    decode_control,
    encode_control,
)
from core.process.descriptors import Descriptor, Keep
from core.process.unix_sockets import is_hung_up

_log = logging.getLogger("fastchat.supervisor")

#: Where ``python -m workers`` and ``python -m router.front`` are found: beside this package.
ROOT: Final = Path(__file__).resolve().parents[2]
#: Signals that a terminal sends to all processes at once. Children are deaf to them from their first moment on; the supervisor decides.
_TERMINAL_SIGNALS: Final = (signal.SIGINT, signal.SIGHUP)
#: Where children's standard output goes: the supervisor's is for the one line that it prints there.
_STDERR: Final = 2
#: Packets from one child that are heard before others have their turn.
_BATCH: Final = 32
#: The exit code of a process of which another one was the parent.
_NOT_KNOWN: Final = 255
#: Packets that may wait for a child that does not listen; one that is stuck for so long misses the rest.
_UNSENT_MAX: Final = 1000


class NoAnswer(Exception):
    """A child that was asked something can't answer; the message says why, and goes on after the child's name."""


@dataclasses.dataclass(frozen=True)
class ChildState:
    """What another program needs to go on with a process as its own child. Times are on the monotonic clock."""

    pid: int
    #: Descriptor of this end of the control pipe.
    control: Descriptor
    started_at: float
    ready: bool
    refused: str | None
    stats: dict[str, Any]
    reported_at: float | None
    stats_before: dict[str, Any]
    reported_before: float | None
    beats: int
    hung: str | None
    unsent: list[str]


class Child:
    """One process. `on_ready(child)` is called once, and `on_exit(child)` when it has ended and `exit_code` is known."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        on_ready: Callable[[Child], None],
        on_exit: Callable[[Child], None],
    ) -> None:
        """Start ``python -m module arguments --control N``. `descriptors` are passed on. Raises OSError when that fails."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            command = [sys.executable, "-m", module, *arguments, "--control", str(theirs.fileno())]
            pid = _start(command, environment, (theirs.fileno(), *descriptors))
        except OSError:
            control.close()
            raise
        finally:
            theirs.close()
        self._begin(name, pid, control, on_ready, on_exit)

    @classmethod
    def taken_up(
        cls, name: str, state: ChildState, on_ready: Callable[[Child], None], on_exit: Callable[[Child], None]
    ) -> Self:
        """Go on with a process that another program has started, which has become this one, or was killed.

        Raises ProcessLookupError when the process has ended and is not this one's child: only its parent could tell how.
        """
        is_parent = _is_child(state.pid)
        control = socket.socket(fileno=state.control)
        if not is_parent and not is_running(state.pid, control):
            control.close()
            raise ProcessLookupError
        child = cls.__new__(cls)
        child._begin(name, state.pid, control, on_ready, on_exit)
        child._is_parent = is_parent
        child.started_at = state.started_at
        child.refused = state.refused
        child.stats, child.reported_at = state.stats, state.reported_at
        child.stats_before, child.reported_before = state.stats_before, state.reported_before
        child.beats, child.hung = state.beats, state.hung
        if state.ready:
            child.ready = True
            child.is_ready.set_result(None)
        child._unsent.extend(packet.encode() for packet in state.unsent)
        child._send()
        return child

    def to_state(self, keep: Keep) -> ChildState:
        """Return what `taken_up` needs; `keep` is called with each descriptor."""
        return ChildState(
            self.pid,
            keep(self._control.fileno()),
            self.started_at,
            self.ready,
            self.refused,
            self.stats,
            self.reported_at,
            self.stats_before,
            self.reported_before,
            self.beats,
            self.hung,
            [packet.decode() for packet in self._unsent],
        )

    def _begin(
        self,
        name: str,
        pid: int,
        control: socket.socket,
        on_ready: Callable[[Child], None],
        on_exit: Callable[[Child], None],
    ) -> None:
        self.name = name
        self.pid = pid
        #: Clock of `uptime`, in seconds.
        self.started_at = time.monotonic()
        self.ready = False
        #: Why it refuses to start, if it said so.
        self.refused: str | None = None
        #: Its last report.
        self.stats: dict[str, float] = {}
        #: When it came, on the same clock as `started_at`; None before the first.
        self.reported_at: float | None = None
        #: The same of the report before that.
        self.stats_before: dict[str, float] = {}
        self.reported_before: float | None = None
        #: How many beats of its event loop have come.
        self.beats = 0
        #: Why it was killed, if it hung: a sentence in which it is *it*.
        self.hung: str | None = None
        #: As `subprocess` has it: negative for a signal. None while it runs.
        self.exit_code: int | None = None
        #: Whether this process can learn the exit code.
        self._is_parent = True

        self._loop = asyncio.get_running_loop()
        #: Done when it has ended.
        self.gone: asyncio.Future[None] = self._loop.create_future()
        #: Done when it is ready.
        self.is_ready: asyncio.Future[None] = self._loop.create_future()
        #: What it has said that nobody has heard, of what only some wait for; and None when it has ended.
        self._said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._unsent: deque[bytes] = deque()
        #: Number of a question -> who waits for the answer.
        self._questions: dict[int, asyncio.Future[dict[str, Any]]] = {}
        # Not from 0: a child may answer late what the program before this one has asked.
        self._asked = time.monotonic_ns()
        self._control = control
        self._control.setblocking(False)
        # Of a process that has ended there is one too, until it is waited for.
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._control.fileno(), self._receive)
        self._loop.add_reader(self._pidfd, self._ended)

    def send(self, op: str, **values: Any) -> None:
        """Tell it. What it does not take now waits until it does."""
        if self.exit_code is not None:
            return
        self._unsent.append(encode_control(op, **values))
        if len(self._unsent) > _UNSENT_MAX:
            _log.error(
                "%s does not read the control pipe: its oldest waiting message was dropped",
                self.name,
                extra=fields(pid=self.pid),
            )
            self._unsent.popleft()
        self._send()

    async def ask(self, patience: float, op: str = ASK, **fields: Any) -> dict[str, Any]:
        """Ask the child, which has `patience` seconds, and return its answer. Raises NoAnswer, also when it can't do what it is asked."""
        if self.exit_code is not None:
            raise NoAnswer("has ended")
        if self._unsent:
            # Questions must not push out of the line what it has to know.
            raise NoAnswer("does not read requests at the moment: try again in a moment")
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._questions[number] = answer
        try:
            self.send(op, id=number, **fields)
            async with asyncio.timeout(patience):
                told = await answer
        except TimeoutError:
            raise NoAnswer(f"has not answered within {patience:g} s") from None
        finally:
            del self._questions[number]
        if FAILED in told:
            raise NoAnswer(told[FAILED])
        return told

    async def hear(self, *ops: str) -> dict[str, Any]:
        """Return the next message with one of these ops, which ``router.supervisor.reload`` waits for. Raises EOFError when it ends."""
        while (message := await self._said.get()) is not None:
            if message["op"] in ops:
                return message
        raise EOFError

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.exit_code is not None:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def how_it_ended(self) -> str:
        """Return ``exit code 3`` or ``signal SIGKILL``, for people; of one that hung, also why it was killed."""
        assert self.exit_code is not None, "it still runs"
        if self.hung is not None and self.exit_code in (-signal.SIGKILL, _NOT_KNOWN):
            return f"signal SIGKILL, since {self.hung}"
        if not self._is_parent:
            return "an exit code that only the supervisor before this one could learn"
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return f"signal {signal.Signals(-self.exit_code).name}"
        except ValueError:
            return f"signal {-self.exit_code}"

    # -- Control pipe --

    def _send(self) -> None:
        while self._unsent:
            try:
                self._control.send(self._unsent[0])
            except BlockingIOError:
                self._loop.add_writer(self._control.fileno(), self._send)
                return
            except OSError:
                self._unsent.clear()  # it is gone, or about to be
                break
            self._unsent.popleft()
        self._loop.remove_writer(self._control.fileno())

    def _receive(self) -> None:
        for _ in range(_BATCH):
            try:
                packet = self._control.recv(PACKET_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._loop.remove_reader(self._control.fileno())
                return
            try:
                message = decode_control(packet)
            except ValueError as error:
                about = fields(pid=self.pid, reason=str(error))
                _log.error("%s sent a control message that can't be decoded", self.name, extra=about)
                continue
            if message["op"] == BEAT:
                self.beats += 1
                if not self.ready and not self._is_parent:
                    self._is_now_ready()  # READY went to the supervisor that was killed
            elif message["op"] == STATS:
                self.stats_before, self.reported_before = self.stats, self.reported_at
                self.stats, self.reported_at = message["stats"], time.monotonic()
            elif message["op"] == READY:
                self._is_now_ready()
            elif message["op"] == REFUSED:
                self.refused = str(message.get("reason"))
            elif message["op"] == ANSWER:
                waiting = self._questions.get(message["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(message["answer"])
            elif message["op"] in (WAITING, LEAVING, STAYS):
                self._said.put_nowait(message)

    def _is_now_ready(self) -> None:
        if not self.ready:
            self.ready = True
            self.is_ready.set_result(None)
            self._on_ready(self)

    def _ended(self) -> None:
        self._receive()
        self.exit_code = _wait(self.pid) if self._is_parent else _NOT_KNOWN
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        os.close(self._pidfd)
        self._control.close()
        self.gone.set_result(None)
        self._said.put_nowait(None)
        for waiting in self._questions.values():
            if not waiting.done():
                waiting.set_exception(NoAnswer("ended before it answered"))
        self._on_exit(self)


def _wait(pid: int) -> int:
    """Return the exit code of a child that has ended, as `subprocess` has it."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 0  # who reaps orphans took it for one


def is_running(pid: int, control: socket.socket) -> bool:
    """Return whether the process of this number is still the one at the other end of the control pipe."""
    try:
        os.close(os.pidfd_open(pid))
    except ProcessLookupError:
        return False
    return not is_hung_up(control)


def _is_child(pid: int) -> bool:
    """Return whether this process is the parent of that one, which may have ended."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _start(command: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]) -> int:
    """Start a process to which the terminal's signals do not get through; its number.

    A new program inherits which signals are blocked. Here these are blocked for a moment only; what comes meanwhile comes then.
    """
    before = signal.pthread_sigmask(signal.SIG_SETMASK, _TERMINAL_SIGNALS)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program, and no shell
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,
            pass_fds=descriptors,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # It is waited for by its number, perhaps by another program than this one: `subprocess` need not look after it.
    process.returncode = 0
    return process.pid
