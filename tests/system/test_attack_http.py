"""Requests that two readers could read in two ways, that never end, or whose answer nobody reads.

One connection takes one request: whatever stands behind it, and however its end is disguised, is never answered as another.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.system.harness import Server, StartServer, wait_until
from tests.system.nginx_process import NAME, Nginx, find_nginx, running_nginx
from tests.system.raw_client import PING, RawClient, client_frame, upgrade_request
from tests.system.status import status

#: What must not be answered: it stands behind another request.
SECOND: Final = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: Connections of the bystanders.
PAIR: Final = 2
#: Seconds after which nothing more comes from a proxy.
QUIET: Final = 5.0
#: The same as a chunk of a body, which has another end for who does not know of chunks.
CHUNK: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SECOND), SECOND)
LENGTH: Final = f"Content-Length: {len(SECOND)}"

#: Lines of a head, and what follows it. Where there are two ways to find the end of the request, the second begins at one of them.
AMBIGUOUS: Final[dict[str, tuple[list[str], bytes]]] = {
    "both lengths, the first is right": ([LENGTH, "Transfer-Encoding: chunked"], b"0\r\n\r\n" + SECOND),
    "both lengths, the second is right": (["Content-Length: 4", "Transfer-Encoding: chunked"], CHUNK),
    "two lengths": (["Content-Length: 0", LENGTH], SECOND),
    "the same length twice": ([LENGTH, LENGTH], SECOND),
    "a list of lengths": ([f"{LENGTH}, {len(SECOND)}"], SECOND),
    "a length with a sign": ([LENGTH.replace(" ", " +")], SECOND),
    "a negative length": (["Content-Length: -1"], SECOND),
    "a length in hex": ([f"Content-Length: {len(SECOND):#x}"], SECOND),
    "a space before the colon": (["Transfer-Encoding : chunked"], b"0\r\n\r\n" + SECOND),
    "a vertical tab": (["Transfer-Encoding:\x0bchunked"], b"0\r\n\r\n" + SECOND),
    "chunked, but not last": (["Transfer-Encoding: chunked, identity"], b"0\r\n\r\n" + SECOND),
    "a coding that is none": (["Transfer-Encoding: xchunked"], SECOND),
    "a folded line": (["X: a", " Transfer-Encoding: chunked"], b"0\r\n\r\n" + SECOND),
    "a bare LF": (["X: a\nTransfer-Encoding: chunked"], b"0\r\n\r\n" + SECOND),
    "a bare CR": (["X: a\rTransfer-Encoding: chunked"], b"0\r\n\r\n" + SECOND),
    "a NUL in a value": (["X: a\0b"], SECOND),
    "a NUL in a name": (["X\0: a"], SECOND),
    "a space in a name": (["X Y: a"], SECOND),
    "a name that is no token": (["X(Y): a"], SECOND),
    "a name with a byte above 127": (["X\xe9: a"], SECOND),
    "no name": ([": a"], SECOND),
    "no colon": (["nonsense"], SECOND),
    "two Hosts": (["Host: another"], SECOND),
}
#: A body that there is no doubt about, and no use for.
BODIES: Final[dict[str, tuple[list[str], bytes]]] = {
    "a body": ([LENGTH], SECOND),
    "chunks": (["Transfer-Encoding: chunked"], CHUNK),
    "no chunks": (["Transfer-Encoding: chunked"], b"0\r\n\r\n" + SECOND),
}
#: A request line, the Host, and the right answer on ``/`` and on ``/ws``.
LINES: Final[dict[str, tuple[str, str, int, int]]] = {
    "two spaces": ("GET  {} HTTP/1.1", "localhost", 400, 400),
    "tabs": ("GET\t{}\tHTTP/1.1", "localhost", 400, 400),
    "a space at the end": ("GET {} HTTP/1.1 ", "localhost", 400, 400),
    "lower case": ("get {} HTTP/1.1", "localhost", 405, 405),
    "HTTP/0.9": ("GET {}", "localhost", 400, 400),
    "HTTP/2.0": ("GET {} HTTP/2.0", "localhost", 400, 400),
    "a bare LF": ("GET {} HTTP/1.1\nX:y", "localhost", 400, 400),
    "a NUL": ("GET {}\0 HTTP/1.1", "localhost", 400, 400),
    "a byte above 127": ("GET {}?\xff HTTP/1.1", "localhost", 400, 400),
    "somebody's proxy": ("CONNECT {} HTTP/1.1", "localhost", 405, 405),
    "TRACE": ("TRACE {} HTTP/1.1", "localhost", 405, 405),
    "a user in Host": ("GET {} HTTP/1.1", "me@localhost", 400, 400),
    "a path in Host": ("GET {} HTTP/1.1", "localhost/x", 400, 400),
    "an empty Host": ("GET {} HTTP/1.1", "", 400, 400),
    "the absolute form": ("GET http://localhost{} HTTP/1.1", "localhost", 200, 426),
    "the absolute form of elsewhere": ("GET http://other.example{} HTTP/1.1", "localhost", 200, 426),
}


class Outcome(NamedTuple):
    """What became of a connection until the server ended it."""

    #: The status of each answer.
    statuses: list[int]
    #: The first answer, and behind 101 all frames.
    wire: bytes


def outcomes(server: Server, requests: Mapping[str, bytes]) -> dict[str, Outcome]:
    """All are sent at once, on connections of their own. AssertionError when the server does not end each of them."""
    with ExitStack() as stack:
        clients = {name: stack.enter_context(RawClient.to(server.port)) for name in requests}
        for name, client in clients.items():
            client.send(requests[name])
        return {name: outcome(client) for name, client in clients.items()}


def outcome(client: RawClient) -> Outcome:
    client.until_end(timeout=20.0)
    wire = client._received
    left, statuses = wire, []
    while left:
        head, blank, left = left.partition(b"\r\n\r\n")
        assert blank, f"half an answer came: {wire!r}"
        line = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
        assert line is not None, f"no answer by HTTP came: {wire!r}"
        statuses.append(int(line[1]))
        if statuses[-1] == 101:
            return Outcome(statuses, left)
        assert b"\r\nConnection: close" in head, "a proxy would send the next request on this connection"
        length = re.search(rb"^Content-Length: (\d+)\r?$", head, re.MULTILINE | re.IGNORECASE)
        assert length is not None
        left = left[int(length[1]) :]
    return Outcome(statuses, wire)


def request(line: str, *fields: str, host: str = "localhost") -> bytes:
    """The head of a request for a page."""
    return "\r\n".join([line, f"Host: {host}", *fields, "", ""]).encode("latin-1")


def upgrade(*fields: str) -> bytes:
    """The head of a request for the upgrade, with more lines."""
    return upgrade_request()[:-2] + "".join(f"{field}\r\n" for field in fields).encode("latin-1") + b"\r\n"


def statuses(server: Server, requests: Mapping[str, bytes]) -> dict[str, list[int]]:
    return {name: outcome.statuses for name, outcome in outcomes(server, requests).items()}


# -- Smuggling --


@pytest.mark.attack("request smuggling", "malformed request")
@pytest.mark.parametrize("what", ["page", "upgrade"])
def test_where_a_request_ends_is_never_in_doubt(server: Server, what: str) -> None:
    """A request with a body, or with something that looks like one, is refused, and what stands behind it never answered."""
    shapes = AMBIGUOUS | BODIES
    heads = {
        name: upgrade(*fields) if what == "upgrade" else request("GET / HTTP/1.1", *fields)
        for name, (fields, _) in shapes.items()
    }
    found = statuses(server, {name: heads[name] + behind for name, (_, behind) in shapes.items()})
    assert found == {name: [400] for name in shapes}


@pytest.mark.attack("request smuggling")
def test_a_body_that_is_posted_is_no_request(server: Server) -> None:
    shapes = AMBIGUOUS | BODIES
    posts = {name: request("POST / HTTP/1.1", *fields) + behind for name, (fields, behind) in shapes.items()}
    assert all(found in ([400], [405]) for found in statuses(server, posts).values())


@pytest.mark.attack("request smuggling", "malformed request")
@pytest.mark.parametrize(("path", "column"), [("/", 2), ("/ws", 3)])
def test_request_lines(server: Server, path: str, column: int) -> None:
    requests = {name: request(line[0].format(path), host=line[1]) + SECOND for name, line in LINES.items()}
    assert statuses(server, requests) == {name: [line[column]] for name, line in LINES.items()}


@pytest.mark.slow
@pytest.mark.attack("request smuggling")
def test_other_protocols(server: Server) -> None:
    """And lines that end with LF alone: they are no head, for which the server waits; it ends the wait."""
    requests = {
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + SECOND,
        "an empty line first": b"\r\n" + SECOND,
        "LF for CRLF": SECOND.replace(b"\r\n", b"\n"),
        "LF for CRLF, then another": SECOND.replace(b"\r\n", b"\n") + SECOND,
        "a CR too many": SECOND[:-4] + b"\r\r\n\r\n" + SECOND,
    }
    found = statuses(server, requests)
    assert found.pop("LF for CRLF") == [408]
    assert set(map(tuple, found.values())) == {(400,)}


@pytest.mark.attack("request smuggling")
def test_pipelined_requests(server: Server) -> None:
    """Behind a page, whatever it says of the connection, there is no second answer; behind an upgrade there are frames and nothing else."""
    keep = "Connection: keep-alive"
    requests = {
        "page": request("GET / HTTP/1.1", keep) + SECOND * 10,
        "healthz": SECOND * 10,
        "where nothing should follow": request("GET / HTTP/1.1", "Connection: close") + SECOND,
        "HTTP/1.0": request("GET / HTTP/1.0", keep) + SECOND,
        "an upgrade behind a page": SECOND + upgrade(),
        "a page that offers an upgrade": request(
            "GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"
        )
        + SECOND,
        "a refused upgrade": upgrade_request(Sec_WebSocket_Version="8") + SECOND,
    }
    found = outcomes(server, requests)
    assert {name: outcome.statuses for name, outcome in found.items()} == {
        name: [426] if name == "a refused upgrade" else [200] for name in requests
    }
    for behind in (SECOND, upgrade()):
        outcome = outcomes(server, {"": upgrade() + behind})[""]
        assert outcome.statuses == [101]
        assert b"HTTP/" not in outcome.wire
        assert outcome.wire[2:4] == b"\x03\xea", "G is a reserved bit, so it is 1002"


@pytest.mark.attack("request smuggling")
def test_frames_behind_a_refused_upgrade_are_not_read(server: Server) -> None:
    """As the body of a request that is none: nobody is greeted, and nothing of it is a frame."""
    with RawClient.to(server.port) as client:
        hello = client.hello_bytes()
        client.send(upgrade(f"Content-Length: {len(hello)}") + hello + client_frame(PING, b"ping"))
        outcome_ = outcome(client)
    assert outcome_.statuses == [400]
    assert b"HELLO" not in outcome_.wire


@pytest.mark.attack("malformed request")
def test_refusals_show_nothing_of_what_is_inside(server: Server) -> None:
    """No versions of what the server is made of; and none is taken for a page by a browser that guesses."""
    requests = {
        name: request("GET / HTTP/1.1", *fields) + behind for name, (fields, behind) in AMBIGUOUS.items()
    }
    for name, outcome in outcomes(server, requests).items():
        assert not re.search(rb"python|aiohttp|<", outcome.wire, re.IGNORECASE), name
        assert b"\r\nX-Content-Type-Options: nosniff\r\n" in outcome.wire, name


# -- Slowly --


@pytest.mark.slow
@pytest.mark.attack("slow handshake")
def test_who_goes_on_dribbling_has_10_seconds_all_the_same(server: Server) -> None:
    """A byte now and then is no reason to wait longer; and it is answered."""
    began = time.monotonic()
    with RawClient.to(server.port) as page, RawClient.to(server.port) as chat:
        page.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        chat.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nX: ")
        open_ = [page, chat]
        while open_:
            assert time.monotonic() < began + 20.0, "the server listened for 20 s"
            open_ = [client for client in open_ if not select.select([client.socket], [], [], 0.1)[0]]
            for client in open_:
                client.send(b"x")
        assert time.monotonic() > began + 9.5
        for client in (page, chat):
            assert outcome(client).statuses == [408]


# -- Behind nginx --


def seen(server: Server) -> tuple[int, int]:
    """Connections that the front has accepted, and requests that it has answered or upgraded."""
    (front,) = [each["stats"] for each in status(server)["processes"] if each["kind"] == "front"]
    answered = ("front_page_requests_total", "front_upgrades_total", "front_refused_total")
    return front.get("front_accepted_total", 0), sum(
        value for name, value in front.items() if name.startswith(answered)
    )


def logged(nginx: Nginx) -> int:
    """Requests that nginx has answered."""
    log = nginx.directory / "access.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def count_answers(connections: Sequence[socket.socket]) -> list[int]:
    """How many answers came on each until nginx ended it, or said nothing more."""
    deadline = time.monotonic() + QUIET
    received = [b""] * len(connections)
    for index, connection in enumerate(connections):
        with suppress(TimeoutError, ConnectionError):
            while True:
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                part = connection.recv(65536)
                if not part:
                    break
                received[index] += part
    return [len(re.findall(rb"HTTP/1\.1 (?!100)\d{3} ", data)) for data in received]


@pytest.mark.slow
@pytest.mark.attack("request smuggling")
@pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed (apt-get install nginx)")
@pytest.mark.parametrize("what", ["page", "upgrade"])
def test_nginx_and_the_front_agree_where_a_request_ends(
    start_server: StartServer, tmp_path: Path, what: str
) -> None:
    """Each request that nginx sees gets one answer, on a connection of its own; and none is left for whoever comes next."""
    server = start_server(trusted_proxies="127.0.0.1")
    wait_until(lambda: seen(server) == (PAIR, PAIR), "the front to have told of the bystanders")
    with running_nginx(tmp_path / "prefix", server.port) as nginx:
        with ExitStack() as stack:
            connections = []
            for number, (fields, behind) in enumerate((AMBIGUOUS | BODIES).values()):
                # From an address for each, since nginx limits them.
                connections.append(stack.enter_context(nginx.connect(address=f"127.0.3.{number + 1}")))
                head = upgrade(*fields) if what == "upgrade" else request("GET / HTTP/1.1", *fields)
                whole = (head + behind).replace(b"Host: localhost", b"Host: " + NAME.encode())
                connections[-1].sendall(whole)
            answers = count_answers(connections)
        assert all(answers), answers
        total = sum(answers)
        wait_until(lambda: logged(nginx) >= total, "nginx to log what it has answered")

        def one_each() -> bool:
            accepted, requests = seen(server)
            return PAIR < accepted == requests

        wait_until(one_each, "each connection to the front to have been one request")
        assert seen(server)[0] - PAIR <= total, "the front has seen a request that nginx does not know of"
        for _ in range(10):
            status_, _, body = nginx.ask("/healthz")
            assert (status_, body) == (200, b'{"status": "ok"}'), "this is the answer to another request"
