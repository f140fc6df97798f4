"""Tests of router.front.page_request."""

from __future__ import annotations

import pytest

from router.front.page_request import check


def head(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "Host: localhost:8000") -> bytes:
    """The head of a request, with CRLF behind each line and at the end."""
    lines = [line, *([] if host is None else [host]), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize(
    "request_",
    [
        head(),
        head(line="HEAD /app.js?v=1 HTTP/1.1"),
        head(line="GET / HTTP/1.0"),
        head(line="GET / HTTP/1.0", host=None),
        head(line="GET http://localhost:8000/ HTTP/1.1"),
        head("Content-Length: 0"),
        head("Empty:", "Tab:\t x \t", "High: \xe9", "Connection: keep-alive, Upgrade"),
        head(host="hOsT:\t[::1]:8000 "),
    ],
)
def test_what_can_be_read_in_one_way_goes_to_the_page_server(request_: bytes) -> None:
    assert check(request_) is None


@pytest.mark.parametrize(
    "request_",
    [
        # Where a line or a field ends.
        head(line="GET  / HTTP/1.1"),
        head(line="GET / HTTP/1.1 "),
        head(line="GET / HTTP/1.10"),
        head(line="GET / HTTP/2.0"),
        head(line="GET / HTTP/1.1\nX: y"),
        head(line="GET /\0 HTTP/1.1"),
        head(line="GET /\xe9 HTTP/1.1"),
        head(line="G@T / HTTP/1.1"),
        head("X: a\nY: b"),
        head("X: a\rY: b"),
        head("X: a\0"),
        head("X: \x7f"),
        head("X : a"),
        head(" X: a"),
        head("X: a", " b"),
        head("X Y: a"),
        head("X\xe9: a"),
        head(": a"),
        head("nonsense"),
        head() + b"X",
        # Whom it is for.
        head(host=None),
        head(host="Host:"),
        head(host="Host: user@localhost"),
        head(host="Host: localhost/path"),
        head(host="Host: local host"),
        head("Host: localhost:8000"),
        head("HOST: other"),
        head("Host: other", line="GET / HTTP/1.0"),
        # Where it ends.
        head("Content-Length: 3"),
        head("Content-Length: 00"),
        head("Content-Length: 0, 0"),
        head("Content-Length: +0"),
        head("Content-Length:"),
        head("Content-Length: 0", "content-length: 3"),
        head("Transfer-Encoding: chunked"),
        head("transfer-encoding: identity"),
        head("Transfer-Encoding:"),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_400(request_: bytes) -> None:
    answer = check(request_)
    assert answer is not None
    assert answer.status == 400
    assert b"\r\nConnection: close\r\n" in answer.wire


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "TRACE", "CONNECT", "get", "BREW"])
def test_pages_are_for_reading(method: str) -> None:
    """Also with a body, since it is the method that is wrong first."""
    for fields in ([], ["Content-Length: 3"]):
        answer = check(head(*fields, line=f"{method} / HTTP/1.1"))
        assert answer is not None
        assert answer.status == 405
        assert b"\r\nAllow: GET, HEAD\r\n" in answer.wire
