"""What docs/protocol.md says of refused upgrades is what the front answers, and its waits are those of both clients."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any, Final, cast

import pytest
import uvloop

from core.process.settings import Settings
from core.wire.protocol import reconnect_in
from fastchat_client import _backoff, _conversation, _machine, _requests
from router.front.reception import Reception
from router.front.sockets import now
from scripts import protocol_connecting as connecting
from scripts.protocol_connecting import REFUSED, Refused

PROJECT: Final = Path(__file__).parents[2]
#: Of a request that is right.
FIELDS: Final = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
LATER: Final = 3600.0


def head(line: str = "GET /ws HTTP/1.1", **fields: str) -> bytes:
    """A request whose header fields are those of `FIELDS`, with these in place of theirs; an empty one is left out."""
    changed = FIELDS | {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [line, *(f"{name}: {value}" for name, value in changed.items() if value)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


#: A status -> a request that is answered with it, and the settings of its server.
REQUESTS: Final = {
    400: head(Host=""),
    403: head(Origin="https://elsewhere.example"),
    405: head("POST /ws HTTP/1.1"),
    426: head(Upgrade=""),
    431: head(X="x" * 20_000),
    505: head("GET /ws HTTP/1.0"),
}
#: The beginning of a sentence -> a setting for which the second connection is too much.
LIMITS: Final[dict[str, dict[str, Any]]] = {
    "There are too many": {"connections_per_ip": 1},
    "Too many new": {"connection_rate_per_ip": 1},
    "Too many connections": {"half_open_per_ip": 1},
    "The server has": {"max_connections": 1},
}
#: Answered by the page server (``tests/router/front/test_pages.py``), and by what only a bug brings about.
ELSEWHERE: Final = (404, 500)


class Door:
    """A front without a process: real sockets, and an event loop that does not run."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        chosen = Settings(run_dir=directory, data_dir=directory, **settings)
        self.reception = Reception(chosen, self.loop, cast(Any, None))
        self._sockets: list[socket.socket] = []

    def knock(self, request: bytes) -> socket.socket:
        """Connect and send this."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname(), 10.0)
            server, address = listener.accept()
        server.setblocking(False)
        client.sendall(request)
        self._sockets += [client, server]
        self.reception.handshakes.welcome(server, address)
        for handshake in self.reception.handshakes.deadlines:
            handshake.on_readable()
        return client

    def close(self) -> None:
        for end in self._sockets:
            end.close()
        self.loop.close()


def answer_to(row: Refused, directory: Path) -> bytes:
    """What a client gets in the case of this row."""
    settings = next((chosen for start, chosen in LIMITS.items() if row.body.startswith(start)), {})
    door = Door(directory, **settings)
    try:
        if settings:
            for _ in range(4):
                client = door.knock(head())
        elif row.status in REQUESTS:
            client = door.knock(REQUESTS[row.status])
        else:
            client = door.knock(b"GET /ws")
            if row.status == 408:
                door.reception.handshakes.deadlines.expire(now() + LATER)
            else:
                door.reception.stop(1001, "the server stops")
        return client.recv(65536)
    finally:
        door.close()


@pytest.mark.parametrize(
    "row",
    [row for row in REFUSED if row.status not in ELSEWHERE],
    ids=lambda row: f"{row.status} {row.body[:12]}",
)
def test_the_front_answers_what_the_page_says(row: Refused, tmp_path: Path) -> None:
    """Status, body, and the header fields that the row names."""
    start, _, body = answer_to(row, tmp_path).decode().partition("\r\n\r\n")
    assert start.startswith(f"HTTP/1.1 {row.status} ")
    assert "\r\nConnection: close\r\n" in start + "\r\n"
    assert body.startswith(row.body.removesuffix("...").strip())
    named = dict(re.findall(r"`([A-Z][A-Za-z-]+): ([^`]+)`", row.when))
    if row.status == 426:
        named = {"Upgrade": "websocket"}  # the other one is that of another version
    for name, value in named.items():
        assert f"\r\n{name}: {value}\r\n" in start + "\r\n"
    assert ("Retry-After" in start) == ("Retry-After" in row.when)


def test_another_version_is_told_the_right_one(tmp_path: Path) -> None:
    door = Door(tmp_path)
    try:
        answer = door.knock(head(Sec_WebSocket_Version="8")).recv(65536)
    finally:
        door.close()
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


def test_the_waits_are_those_of_the_python_client() -> None:
    assert (_backoff.BASE, _backoff.CAP) == (connecting.BACK_OFF_FIRST, connecting.BACK_OFF_MAX)
    restart, slept = connecting.RESTART_SPREAD, connecting.SLEPT_SPREAD
    assert {1001: restart, 1012: restart, 4002: slept} == _backoff.SPREAD
    told = _backoff.SUGGESTION.search(reconnect_in("server is restarting", 12.34))
    assert told is not None
    assert told[1] == "12.3"
    assert _backoff.OVERLOAD_REST == connecting.OVERLOAD_REST
    assert _backoff.OVERLOAD_STEP == connecting.OVERLOAD_ATTEMPTS
    assert _backoff.GOOD_AFTER == connecting.GOOD_AFTER
    assert _machine.PING_INTERVAL == connecting.PING_INTERVAL
    assert _machine.PONG_TIMEOUT == connecting.PONG_TIMEOUT
    assert _machine.GREETING_TIMEOUT == connecting.GREETING_TIMEOUT
    assert _conversation.ANSWER_TIMEOUT == connecting.ANSWER_TIMEOUT
    assert _requests.HISTORY_TRIES == connecting.HISTORY_TRIES
    assert sorted(_machine.PASSING) == list(connecting.PASSING)


def test_the_waits_are_those_of_the_javascript_client() -> None:
    modules = (PROJECT / "router" / "web" / "client").glob("*.js")
    source = "".join(path.read_text() for path in modules)
    expected = {
        "PING_INTERVAL": f"{connecting.PING_INTERVAL:g} * SECOND",
        "PONG_TIMEOUT": f"{connecting.PONG_TIMEOUT:g} * SECOND",
        "HELLO_TIMEOUT": f"{connecting.GREETING_TIMEOUT:g} * SECOND",
        "ANSWER_TIMEOUT": f"{connecting.ANSWER_TIMEOUT:g} * SECOND",
        "BACKOFF_FIRST": f"{connecting.BACK_OFF_FIRST:g} * SECOND",
        "BACKOFF_MAX": f"{connecting.BACK_OFF_MAX:g} * SECOND",
        "STABLE_AFTER": f"{connecting.GOOD_AFTER:g} * SECOND",
        "OVERLOAD_PAUSE": f"{connecting.OVERLOAD_REST:g} * SECOND",
        "OVERLOAD_TRIES": f"{connecting.OVERLOAD_ATTEMPTS}",
        "AGAIN_AFTER": f"{connecting.BACK_OFF_FIRST:g} * SECOND",
        "SUGGESTION": f"/{_backoff.SUGGESTION.pattern}/",
        "HISTORY_TRIES": f"{connecting.HISTORY_TRIES}",
    }
    constants = dict(re.findall(r"^(?:export )?const ([A-Z_]+) = (.+);", source, re.MULTILINE))
    assert {name: constants.get(name) for name in expected} == expected
    restart, slept = (
        f"{seconds:g} * SECOND" for seconds in (connecting.RESTART_SPREAD, connecting.SLEPT_SPREAD)
    )
    assert constants["PASSING"] == str(list(connecting.PASSING))
    assert constants["SPREAD"] == f"{{ 1001: {restart}, 1012: {restart}, 4002: {slept} }}"
