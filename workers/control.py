"""A worker's end of the control pipe; what is said on it stands in ``core.process.control``."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from core.process.control import EXIT_CONFIGURATION, PACKET_MAX_BYTES, decode_control, encode_control


class ControlPipe:
    """Send with `say`; what the supervisor says goes to the function given to `listen`."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def say(self, op: str, **fields: Any) -> None:
        """Tell the supervisor. One that doesn't listen at the moment misses it: everything said here is said again, is
        the last, or is an answer for which nobody waits for ever."""
        with suppress(OSError):
            self._socket.send(encode_control(op, **fields))

    def listen(self, loop: asyncio.AbstractEventLoop, heard: Callable[[dict[str, Any]], None]) -> None:
        """Give every message to `heard`. The process ends at once when the supervisor is gone: nobody else could stop it."""

        def read() -> None:
            while True:
                try:
                    packet = self._socket.recv(PACKET_MAX_BYTES)
                except BlockingIOError:
                    return
                except OSError:
                    packet = b""
                if not packet:
                    os._exit(EXIT_CONFIGURATION)
                heard(decode_control(packet))

        loop.add_reader(self._socket.fileno(), read)
