"""One WebSocket of one user under load: a greenlet reads, and whoever waits learns when the answer came.

Written for gevent, which locust runs on: ``websocket-client`` uses plain sockets, and these give way to other greenlets.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any, Final

import gevent
import websocket
from gevent.event import AsyncResult

#: Seconds until an answer counts as missing.
ANSWER_TIMEOUT: Final = 5.0

Message = dict[str, Any]


class Failure(Exception):
    """Why an exchange did not succeed; the text is what locust groups failures by, so it names no user and no message."""


class Expectation:
    """A message that is to come. `arrived` returns the time at which it did, by ``time.perf_counter``."""

    def __init__(self, kind: str, fields: Message) -> None:
        self._kind = kind
        self._fields = fields
        self._result: AsyncResult[float] = AsyncResult()

    @property
    def over(self) -> bool:
        return bool(self._result.ready())

    def matches(self, kind: str, data: Message) -> bool:
        return not self.over and kind == self._kind and self._fields.items() <= data.items()

    def succeed(self, when: float) -> None:
        self._result.set(when)

    def fail(self, reason: str) -> None:
        """It will not come; what has come before stays so."""
        if not self.over:
            self._result.set_exception(Failure(reason))

    def arrived(self) -> float:
        """Wait for the message. Raises Failure when it does not come in time, or cannot come any more."""
        self._result.wait(timeout=ANSWER_TIMEOUT)
        if not self.over:
            self.fail(f"no {self._kind} as expected within {ANSWER_TIMEOUT:g} s")
        return float(self._result.get())


class Connection:
    """An open connection; connects when it is made. Raises OSError or ``websocket.WebSocketException`` when it cannot."""

    def __init__(self, url: str) -> None:
        # Two greenlets send: the one of the journey, and the reader for acknowledgements and pongs.
        self._socket = websocket.WebSocket(enable_multithread=True)
        self._socket.connect(url, timeout=ANSWER_TIMEOUT)
        self._socket.settimeout(None)
        self._closed = ""
        #: What is to come on this connection.
        self._expected: list[Expectation] = []
        #: What the last message of each type is to bring about, here or at the peer: it fails when the server answers with ERROR.
        self._caused: dict[str, Iterable[Expectation]] = {}
        self._reader = gevent.spawn(self._read)

    def expect(self, kind: str, **fields: Any) -> Expectation:
        """Say what is to come on this connection, before sending what brings it about."""
        expectation = Expectation(kind, fields)
        if self._closed:
            expectation.fail(self._closed)
        self._expected = [known for known in self._expected if not known.over]
        self._expected.append(expectation)
        return expectation

    def send(self, kind: str, data: Message, causes: Iterable[Expectation] = ()) -> None:
        """Send a message; what it `causes` fails when it cannot be sent, and when the server answers with ERROR."""
        self._caused[kind] = causes
        try:
            self._socket.send(json.dumps({"type": kind, "data": data}))
        except (OSError, websocket.WebSocketException) as error:
            for expectation in causes:
                expectation.fail(self._closed or f"could not send: {type(error).__name__}")

    def close(self) -> None:
        """Close politely: the reader ends with the close frame of the server."""
        if not self._closed:
            try:
                self._socket.send_close()
            except (OSError, websocket.WebSocketException):
                self._reader.kill()
        self._reader.join(timeout=ANSWER_TIMEOUT)
        self._socket.shutdown()

    def _read(self) -> None:
        try:
            while not self._closed:
                opcode, payload = self._socket.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    code = int.from_bytes(payload[:2], "big")
                    self._closed = f"closed by the server: {code} {payload[2:].decode()}"
                else:
                    self._handle(json.loads(payload), time.perf_counter())
        except (OSError, websocket.WebSocketException) as error:
            self._closed = f"connection lost: {type(error).__name__}"
        finally:
            self._closed = self._closed or "the reader ended"
            for expectation in self._expected:
                expectation.fail(self._closed)

    def _handle(self, message: Message, when: float) -> None:
        kind, data = message["type"], message["data"]
        if kind == "ERROR":
            for expectation in self._caused.get(data.get("details", {}).get("type"), ()):
                expectation.fail(f"ERROR {data['code']}: {data['message']}")
            return
        for expectation in self._expected:
            if expectation.matches(kind, data):
                expectation.succeed(when)
                break
        if kind == "MSG":
            self.send("MSG_ACK", {"message_id": data["message_id"], "from": data["from"]})
