"""A worker whose sessions echo what they get once HELLO is through, with limits that let 16 MiB pass.

Everything else is the real thing: front, hand-over, event loop, picows, `workers.connection`, and the check of UTF-8 in
``core.wire.codec``. No setting leads here: a server that echoes is one whose worker program is that of `EchoServer`, and the tests are in
no package that is installed.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from picows import WSFrame

from core.chat.session import Session
from core.process.handover import Ticket
from core.wire import codec
from core.wire.frames import Fragments, Opcode, server_frame
from core.wire.protocol import CloseCode, Refusal
from tests.rfc6455.cases_limits import LARGEST, MIB
from tests.router.server_process import ServerProcess
from workers.connection import Connection, Host

_PROJECT: Final = Path(__file__).resolve().parents[2]
#: The program that is started in the place of ``python -m workers``: everything but its first module is found in the real package.
_PROGRAM: Final = f"""
import workers
workers.__path__.insert(0, {str(_PROJECT / "workers")!r})
from tests.rfc6455.echo import EchoConnection
from workers.__main__ import main
raise SystemExit(main(EchoConnection))
"""


class EchoSession(Session):
    """Echoes, once HELLO is through."""

    __slots__ = ("opcode",)

    #: That of the message which is received next; the answer has the same.
    opcode: Opcode

    def receive(self, payload: bytes, now: float) -> None:
        """The payload of one message."""
        if self.user is None:
            super().receive(payload, now)
            return
        opcode, self.opcode = self.opcode, Opcode.TEXT
        if opcode == Opcode.TEXT:
            with suppress(Refusal):  # it is UTF-8, and that is all that is asked of it
                codec.decode(payload)
        self.connection.send(server_frame(opcode, payload))


class _BinaryFragments(Fragments):
    """Those of a message that need not be UTF-8."""

    __slots__ = ()

    def add(self, payload: bytes, final: bool) -> None:
        self._payload += payload


class EchoConnection(Connection):
    """Takes binary data too."""

    __slots__ = ()

    message_max = LARGEST
    outbox_max = LARGEST + MIB

    session: EchoSession

    def __init__(self, host: Host, ticket: Ticket, now: float) -> None:
        super().__init__(host, ticket, now)
        self.session = EchoSession(host.shard, self, ticket.user_id, ticket.strikes, now)
        self.session.opcode = Opcode.TEXT

    def _receive_binary(self, frame: WSFrame, now: float) -> None:
        if self._fragments is not None:
            self.fail(CloseCode.PROTOCOL_ERROR, "a new message in the middle of a fragmented one")
            return
        self.session.opcode = Opcode.BINARY
        if frame.fin:
            self._receive(frame.get_payload_as_bytes(), now)
        else:
            self._fragments = _BinaryFragments()
            self._add_fragment(frame, now)


def echo_server(directory: Path) -> ServerProcess:
    """A server that echoes; presence is quiet, so that nothing comes but answers."""
    return ServerProcess(directory, worker=_PROGRAM, workers=2, presence="contacts", pings_per_second=0)
