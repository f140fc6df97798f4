"""What every child of the supervisor does alike: how it boots, and its end of the control pipe.

A program makes a parser with its own arguments and calls `run_child`, which reads the settings, sets logging up, and says REFUSED when the
child cannot boot. What is said on the pipe stands in ``core.process.control``, and the exit codes too.

There is no event loop here: `ControlPipe.listen` takes the loop's ``add_reader``, and `run_child` a function that runs until the child is
told to stop.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import setproctitle

from core.events import fields
from core.process.control import (
    BEAT,
    BEAT_INTERVAL,
    EXIT_BOOT_FAILURE,
    EXIT_CONFIGURATION,
    LOG_LEVEL,
    PACKET_MAX_BYTES,
    REFUSED,
    decode_control,
    encode_control,
)
from core.process.logs import configure_logging, set_log_level
from core.process.settings import ConfigurationError, Settings
from core.process.unix_sockets import is_hung_up

#: op -> what a child does about it, given the whole message.
Handlers = Mapping[str, Callable[[dict[str, Any]], object]]

#: What a terminal sends to all processes at once. The supervisor gets it too, and stops its children in order.
_TERMINAL_SIGNALS: Final = (signal.SIGINT, signal.SIGHUP)


class ControlPipe:
    """A child's end of the control pipe."""

    def __init__(self, descriptor: int) -> None:
        """Take over the end of the pipe at `descriptor`. Raises OSError when that is no socket."""
        self._socket = socket.socket(fileno=descriptor)
        self._next_beat = 0.0

    def end_if_alone(self) -> None:
        """End the process if nobody has the other end of the pipe any more, which `listen` would notice only later."""
        if is_hung_up(self._socket):
            os._exit(EXIT_CONFIGURATION)

    def send(self, op: str, **values: Any) -> None:
        """Send a message. A supervisor that does not read at the moment misses it.

        So each message is one that is sent again, or the last one, or an answer that is not waited for endlessly.
        """
        with suppress(OSError):
            self._socket.send(encode_control(op, **values), socket.MSG_DONTWAIT)

    def beat(self, now: float) -> None:
        """Send BEAT if one is due: a sign that the event loop makes turns. To be called by a timer of that loop, and by nothing else."""
        if now >= self._next_beat:
            self._next_beat = now + BEAT_INTERVAL
            self.send(BEAT)

    def listen(self, add_reader: Callable[[int, Callable[[], None]], object], handlers: Handlers) -> None:
        """Call the handler of each message from now on; `add_reader` is the event loop's. A message without a handler is ignored.

        LOG_LEVEL has a handler already. The process ends at once when nobody has the other end, since nothing else could stop it, and the
        next server wants its port.
        """

        def on_readable() -> None:
            with suppress(BlockingIOError):
                while True:
                    self._handle(handlers, socket.MSG_DONTWAIT)

        add_reader(self._socket.fileno(), on_readable)

    def listen_in_thread(self, handlers: Handlers | None = None) -> None:
        """Do the same for a child that has no event loop. Handlers are called in that thread."""

        def read() -> None:
            while True:
                self._handle(handlers or {})

        threading.Thread(target=read, daemon=True).start()

    def _handle(self, handlers: Handlers, flags: int = 0) -> None:
        """Receive and handle one message. Raises BlockingIOError when there is none."""
        try:
            packet = self._socket.recv(PACKET_MAX_BYTES, flags)
        except BlockingIOError:
            raise
        except OSError:
            packet = b""
        if not packet:
            os._exit(EXIT_CONFIGURATION)
        message = decode_control(packet)
        op = message["op"]
        if op == LOG_LEVEL:
            set_log_level(message["level"])
        elif op in handlers:
            handlers[op](message)


def run_child(
    kind: str,
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    serve: Callable[[Settings, argparse.Namespace, ControlPipe], None],
) -> int:
    """Boot a child, such as a ``worker``, and let it `serve` until it is told to stop; return the exit code of the process.

    `parser` has the program's own arguments; ``--index`` and ``--control`` are added here. `arguments` are those of the process if None.
    `serve` raises ConfigurationError for what the operator has to change (exit code 2), and OSError for what the system refuses (3).
    """
    for number in _TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parser.add_argument("--index", type=int, required=True, help=f"which {kind} this is, from 0")
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the control pipe")
    options = parser.parse_args(arguments)
    setproctitle.setproctitle(f"fastchat: {kind} {options.index}")
    control = ControlPipe(options.control)
    try:
        settings = Settings.handed_down(os.environ)
        configure_logging(f"{kind}-{options.index}", settings.log_level, settings.log_format)
        # Another supervisor may have started another process in this place, with the same files.
        control.end_if_alone()
        serve(settings, options, control)
    except ConfigurationError as error:
        control.send(REFUSED, reason=str(error))
        return EXIT_CONFIGURATION
    except OSError as error:
        control.send(REFUSED, reason=str(error))
        return EXIT_BOOT_FAILURE
    return 0


def reload_keys(load: Callable[[], None], log: logging.Logger) -> None:
    """Read keys or secrets again with `load`. When it raises ConfigurationError the current keys stay, and `log` says why."""
    try:
        load()
    except ConfigurationError as error:
        log.error("keeping the current keys: the new ones are invalid", extra=fields(reason=str(error)))
