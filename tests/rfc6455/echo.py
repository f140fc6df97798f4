"""A worker whose connections echo what they get once HELLO is through, with limits that let 16 MiB pass.

Everything else is the real thing: front, hand-over, event loop, picows, `workers.connection`, and the check of UTF-8 in
``core.wire.codec``. No setting leads here: a server that echoes is one whose worker program is that of `EchoServer`, and the tests are in
no package that is installed. Classes of the compiled core can't be derived from, so nothing of the core is.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from picows import WSFrame

from core.process.handover import Ticket
from core.wire import codec
from core.wire.frames import FrameError, Opcode, server_frame
from core.wire.protocol import CloseCode, Refusal
from tests.rfc6455.cases_limits import LARGEST, MIB
from tests.router.server_process import ServerProcess
from workers.connection import Connection
from workers.host import Host

#: The program that is started in the place of ``python -m workers``: everything but its first module is found in the real package.
_PROGRAM: Final = """
from pkgutil import extend_path
import workers
workers.__path__ = extend_path([], "workers")[1:]
from tests.rfc6455.echo import EchoConnection
from workers.__main__ import main
raise SystemExit(main(EchoConnection))
"""


class _BinaryFragments:
    """Those of a message that need not be UTF-8, in the place of ``core.wire.frames.Fragments``."""

    def __init__(self) -> None:
        self._payload = bytearray()

    def add(self, payload: bytes, final: bool) -> None:
        self._payload += payload

    def message(self) -> bytes:
        return bytes(self._payload)


class EchoConnection(Connection):
    """Takes binary data too."""

    __slots__ = ("_opcode",)

    message_max = LARGEST
    outbox_max = LARGEST + MIB

    def __init__(self, host: Host[Connection], ticket: Ticket, now: float) -> None:
        super().__init__(host, ticket, now)
        #: That of the message which is received next; the answer has the same.
        self._opcode = Opcode.TEXT

    def _receive(self, payload: bytes, now: float) -> None:
        if self.session.user is None:
            super()._receive(payload, now)
            return
        opcode, self._opcode = self._opcode, Opcode.TEXT
        try:
            if opcode == Opcode.TEXT:
                with suppress(Refusal):  # it is UTF-8, and that is all that is asked of it
                    codec.decode(payload)
            self.send(server_frame(opcode, payload))
        except FrameError as error:
            self.fail(error.code, error.reason)

    def _receive_binary(self, frame: WSFrame, now: float) -> None:
        if self.fragments is not None:
            self.fail(CloseCode.PROTOCOL_ERROR, "a new message in the middle of a fragmented one")
            return
        self._opcode = Opcode.BINARY
        if frame.fin:
            self._receive(frame.get_payload_as_bytes(), now)
        else:
            self.fragments = cast(Any, _BinaryFragments())
            self._add_fragment(frame, now)


def echo_server(directory: Path) -> ServerProcess:
    """A server that echoes; presence is quiet, so that nothing comes but answers."""
    return ServerProcess(directory, worker=_PROGRAM, workers=2, presence="contacts", pings_per_second=0)
