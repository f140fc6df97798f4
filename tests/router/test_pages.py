"""Tests of router.pages, through a real front."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from tests.router.front_process import HEAD, FrontProcess


def ask(front: FrontProcess, line: str, *fields: str, body: bytes = b"") -> tuple[int, str, bytes]:
    """Status, header fields and body of the answer to a request, which must end the connection."""
    request = "\r\n".join([line, "Host: localhost:8000", *fields]).encode() + b"\r\n\r\n" + body
    head, _, answer = front.http(request).partition(b"\r\n\r\n")
    # What aiohttp cannot even parse it answers as HTTP/1.0, where a connection ends unless it is said to go on.
    assert re.search(rb"^connection: close\r?$", head, re.IGNORECASE | re.MULTILINE) or (
        head.startswith(b"HTTP/1.0 400 ") and b"keep-alive" not in head.lower()
    )
    return int(head.split(b" ", 2)[1]), head.decode(), answer


def test_the_page_says_what_this_is_and_how_to_connect(front: FrontProcess) -> None:
    status, head, body = ask(front, "GET / HTTP/1.1")
    assert status == 200
    assert "Content-Type: text/html; charset=utf-8" in head
    assert b"ws://localhost:8000/ws" in body
    assert b'name="viewport"' in body
    assert b"<script" not in body
    assert b"http://" not in body
    assert b"https://" not in body


def test_the_page_may_load_nothing_and_its_style_is_the_only_one(front: FrontProcess) -> None:
    _, head, body = ask(front, "GET / HTTP/1.1")
    style = body.partition(b"<style>")[2].partition(b"</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert f"Content-Security-Policy: default-src 'none'; style-src 'sha256-{digest}';" in head
    assert b"style=" not in body


def test_what_the_client_calls_the_server_is_escaped(front: FrontProcess) -> None:
    answer = front.http(b"GET / HTTP/1.1\r\nHost: <b>&\r\n\r\n")
    assert b"<b>" not in answer


def test_health(front: FrontProcess) -> None:
    status, head, body = ask(front, "GET /healthz HTTP/1.1")
    assert (status, body) == (200, b'{"status": "ok"}')
    assert "application/json" in head


@pytest.mark.parametrize(
    "path", ["/nothing", "/ws/", "/%77s", "/../ws", "//ws", "http://localhost/ws", "/ws;a"]
)
def test_anything_else_is_404(front: FrontProcess, path: str) -> None:
    status, head, body = ask(front, f"GET {path} HTTP/1.1")
    assert status == 404
    assert "text/plain" in head
    assert b"/ws" in body


def test_head_has_no_body(front: FrontProcess) -> None:
    for path in ("/", "/healthz"):
        status, head, body = ask(front, f"HEAD {path} HTTP/1.1")
        assert (status, body) == (200, b"")
        assert "Content-Length: " in head


@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_other_methods_are_405(front: FrontProcess, path: str) -> None:
    status, head, _ = ask(front, f"POST {path} HTTP/1.1", "Content-Length: 3", body=b"a=b")
    assert status == 405
    assert "Allow: GET,HEAD" in head


@pytest.mark.parametrize(
    "line", ["GET / HTTP/1.1", "GET /nothing HTTP/1.1", "POST / HTTP/1.1", "GET / HTTP/1.0"]
)
def test_a_second_request_on_the_connection_is_never_served(front: FrontProcess, line: str) -> None:
    answer = front.http(f"{line}\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n".encode() + HEAD)
    assert answer.count(b"HTTP/1.1 ") + answer.count(b"HTTP/1.0 ") == 1
    assert b" 101 " not in answer


@pytest.mark.parametrize(
    "fields",
    [
        ("Transfer-Encoding: chunked", "Content-Length: 3"),
        ("Content-Length: 3", "Content-Length: 4"),
        ("Expect: something",),
        ("no colon",),
        ("x: \x00",),
    ],
)
def test_what_is_no_http_gets_an_answer_and_the_end(front: FrontProcess, fields: tuple[str, ...]) -> None:
    status, _, _ = ask(front, "GET / HTTP/1.1", *fields)
    assert status in (400, 417)


def test_a_body_that_never_comes_does_not_hold_the_connection(front: FrontProcess) -> None:
    with front.client(upgrade=False) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert b" 405 " in client.read_all()
