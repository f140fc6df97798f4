"""Tests of router.front.upgrade."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from router.front.origin import OriginPolicy
from router.front.upgrade import HEAD_END, HEAD_MAX_BYTES, Answer, Route, answer, refusal, route

#: The example of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIELDS = {
    "Host": "localhost:8000",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(*lines: str, **changes: str | None) -> bytes:
    """A handshake; `changes` replace header fields, None leaves one out. `lines`: another request line, and fields to add."""
    line, *more = lines or ("GET /ws HTTP/1.1",)
    fields = FIELDS | {name.replace("_", "-"): value for name, value in changes.items()}
    head = [line, *(f"{name}: {value}" for name, value in fields.items() if value is not None), *more]
    return "\r\n".join(head).encode("latin-1") + HEAD_END


def ask(head: bytes, allowed: str = "") -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, header fields and body of the answer, and what holds for every answer."""
    result = answer(head, OriginPolicy(allowed))
    start, _, body = result.wire.partition(HEAD_END)
    line, *rest = start.split(b"\r\n")
    fields = dict(field.lower().split(b": ", 1) for field in rest)
    assert line.startswith(b"HTTP/1.1 %d " % result.status)
    assert len(fields) == len(rest)
    if result.status != 101:
        assert fields[b"connection"] == b"close"
        assert int(fields[b"content-length"]) == len(body)
        assert fields[b"content-type"] == b"text/plain; charset=utf-8"
        assert body.endswith(b".\n")
        assert body.count(b"\n") == 1
    return result.status, fields, body


def test_a_handshake_is_answered_with_101_and_no_extension() -> None:
    head = request("GET /ws?token=x HTTP/1.1", Sec_WebSocket_Extensions="permessage-deflate")
    result = answer(head, OriginPolicy())
    assert result.status == 101
    assert b"\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n" in result.wire
    assert result.wire.endswith(HEAD_END)
    assert b"extensions" not in result.wire.lower()
    assert b"connection: upgrade" in result.wire.lower()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Connection": "keep-alive, Upgrade"}, 101),  # Firefox
        ({"Upgrade": "WebSocket"}, 101),
        ({"Host": "[::1]:8000"}, 101),
        ({"Sec_WebSocket_Protocol": "chat, superchat"}, 101),
        ({"Host": None}, 400),
        ({"Host": ""}, 400),
        ({"Host": "a b"}, 400),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, 400),
        ({"Sec_WebSocket_Key": "not base64!"}, 400),
        ({"Sec_WebSocket_Version": None}, 400),
        ({"Content_Length": "5"}, 400),
        ({"Transfer_Encoding": "chunked"}, 400),
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Upgrade": "websocket, h2c"}, 101),  # RFC 9110, 7.8: a list, of which the server chooses
        ({"Upgrade": "h2c ,\tWebSocket"}, 101),
        ({"Upgrade": "websocket/13"}, 426),
        ({"Upgrade": "websockets"}, 426),
        ({"Connection": None}, 426),
        ({"Connection": "keep-alive"}, 426),
    ],
)
def test_header_fields_decide(changes: dict[str, str | None], status: int) -> None:
    assert ask(request(**changes))[0] == status


@pytest.mark.parametrize(
    "line",
    [
        "Host: localhost:8000",
        "Host: other",
        f"Sec-WebSocket-Key: {KEY}",
        "no colon",
        "na me: x",
        " folded: x",
        "x: \x00",
    ],
)
def test_what_must_not_come_twice_or_is_no_field_is_refused(line: str) -> None:
    assert ask(request("GET /ws HTTP/1.1", line))[0] == 400


def test_two_origins_are_refused() -> None:
    head = request("GET /ws HTTP/1.1", "Origin: http://localhost", "Origin: http://localhost")
    assert ask(head)[0] == 400


def test_a_bare_line_feed_is_not_the_end_of_a_line() -> None:
    assert ask(request("GET /ws HTTP/1.1", "a: b\nHost: other"))[0] == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "get", "BREW"])
@pytest.mark.parametrize("length", [None, "5"])
def test_other_methods_get_405_with_or_without_a_body(method: str, length: str | None) -> None:
    status, fields, _ = ask(request(f"{method} /ws HTTP/1.1", Content_Length=length))
    assert status == 405
    assert fields[b"allow"] == b"get"


def test_a_request_without_upgrade_is_told_what_would_be_right() -> None:
    status, fields, body = ask(request(Upgrade=None, Connection=None))
    assert status == 426
    assert fields[b"upgrade"] == b"websocket"
    assert b"WebSocket connections only" in body


@pytest.mark.parametrize("version", ["8", "14", "13, 8", "x"])
def test_another_version_is_told_the_right_one(version: str) -> None:
    status, fields, _ = ask(request(Sec_WebSocket_Version=version))
    assert status == 426
    assert fields[b"sec-websocket-version"] == b"13"


def test_http_1_0_is_not_supported() -> None:
    assert ask(request("GET /ws HTTP/1.0"))[0] == 505


def test_http_1_0_is_told_so_also_without_host() -> None:
    assert ask(request("GET /ws HTTP/1.0", Host=None))[0] == 505


def test_other_versions_of_http_are_malformed() -> None:
    assert ask(request("GET /ws HTTP/2.0"))[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        request(f"GET /ws?{'x' * 9000} HTTP/1.1"),
        request("GET /ws HTTP/1.1", f"Cookie: {'x' * 9000}"),
        request("GET /ws HTTP/1.1", *(f"x{n}: x" for n in range(200))),
    ],
)
def test_a_head_within_its_limit_may_be_one_long_line_or_many(head: bytes) -> None:
    """`route` sees to it that a head has at most `HEAD_MAX_BYTES`."""
    assert 8192 < len(head) < HEAD_MAX_BYTES or head.count(b"\n") > 128
    assert ask(head)[0] == 101


def test_two_upgrade_fields_are_one_list() -> None:
    assert ask(request("GET /ws HTTP/1.1", "Upgrade: websocket", Upgrade="h2c"))[0] == 101


@pytest.mark.parametrize(
    ("target", "origin", "status"),
    [
        ("http://localhost:8000/ws", None, 101),
        ("HTTP://[::1]:8000/ws?token=x", None, 101),
        ("ws://localhost/ws", None, 101),
        ("http://localhost:99999/ws", None, 400),
        ("http:///ws", None, 400),
        ("http://me@localhost/ws", None, 400),
        # The host of the target counts, and not that of Host (RFC 9112, 3.2.2).
        ("http://127.0.0.9:8000/ws", "http://127.0.0.9:8000", 101),
        ("http://192.0.2.9/ws", "http://192.0.2.9", 101),
        ("http://192.0.2.9/ws", "http://192.0.2.8", 403),
        ("http://evil.example/ws", "http://evil.example", 403),
    ],
)
def test_a_target_in_the_absolute_form(target: str, origin: str | None, status: int) -> None:
    head = request(f"GET {target} HTTP/1.1", Host="192.0.2.8", Origin=origin)
    assert route(head, head.find(HEAD_END)) is Route.CHAT
    assert ask(head)[0] == status


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ("", "http://localhost:3000", 101),
        ("", "https://evil.example", 403),
        ("", "null", 403),
        ("null", "null", 101),
        ("file://", "file://", 101),
        ("file://", "null", 403),
        ("*", "https://evil.example", 101),
        ("https://*.example.com", "https://a.example.com", 101),
    ],
)
def test_d6_the_origin_is_checked_before_the_upgrade(allowed: str, origin: str, status: int) -> None:
    assert ask(request(Origin=origin), allowed)[0] == status


def test_d6_a_request_without_origin_is_no_page_and_allowed() -> None:
    assert ask(request())[0] == 101


def test_what_a_client_sent_does_not_come_back_unescaped() -> None:
    _, _, body = ask(request(Sec_WebSocket_Key="\x1b]0;title\x07<b>"))
    assert b"\x1b" not in body
    assert b"\x07" not in body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"G", Route.INCOMPLETE),
        (b"GET /ws HTTP/1.1\r\n", Route.INCOMPLETE),
        (b"GET /ws HTTP/1.1\r\n\r\n", Route.CHAT),
        (b"GET /ws HTTP/1.1\r\n\r\nmore", Route.CHAT),
        (b"GET /ws?a=/ HTTP/1.1\r\n\r\n", Route.CHAT),
        (b"GET http://localhost:8000/ws?a HTTP/1.1\r\n\r\n", Route.CHAT),
        (b"GET WSS://x/ws HTTP/1.1\r\n\r\n", Route.CHAT),
        (b"GET http://localhost HTTP/1.1\r\n\r\n", Route.PAGE),
        (b"GET http://localhost/?/ws HTTP/1.1\r\n\r\n", Route.PAGE),
        (b"GET http:/ws HTTP/1.1\r\n\r\n", Route.PAGE),
        (b"GET ftp://localhost/ws HTTP/1.1\r\n\r\n", Route.PAGE),
        (b"POST /ws HTTP/1.0\r\n\r\n", Route.CHAT),
        (b"GET / HTTP/1.1\r\n\r\n", Route.PAGE),
        (b"GET /ws/ HTTP/1.1\r\n\r\n", Route.PAGE),
        (b"GET /wsx HTTP/1.1\r\n\r\n", Route.PAGE),
        (b"GET /?/ws HTTP/1.1\r\n\r\n", Route.PAGE),
        (b"GET /ws\r\n\r\n", Route.MALFORMED),
        (b"GET  /ws HTTP/1.1\r\n\r\n", Route.MALFORMED),
        (b"GET /ws HTTP/1.1 x\r\n\r\n", Route.MALFORMED),
        (b"GET /ws FTP/1.1\r\n\r\n", Route.MALFORMED),
        (b"\r\n\r\n", Route.MALFORMED),
        (b"\x16\x03\x01\x02\x00\x01", Route.MALFORMED),
        (b" ", Route.MALFORMED),
        (b"G" * HEAD_MAX_BYTES, Route.TOO_LARGE),
        (b"G" * (HEAD_MAX_BYTES - 1), Route.INCOMPLETE),
    ],
)
def test_where_a_request_goes(data: bytes, expected: Route) -> None:
    assert route(data, data.find(HEAD_END)) is expected


def test_a_refusal_says_how_long_it_is_and_that_the_connection_ends() -> None:
    assert refusal(HTTPStatus.NOT_FOUND, "Nothing.", Retry_After="1") == Answer(
        404,
        b"HTTP/1.1 404 Not Found\r\nRetry-After: 1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 9\r\n"
        b"X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\nNothing.\n",
    )


@pytest.mark.parametrize("octet", ["\x00", "\xff", "x"])
def test_a_refusal_is_short_whatever_came(octet: str) -> None:
    """Found by `fuzz`: of a bad header the answer showed every byte, in four characters each."""
    head = request("GET /ws HTTP/1.1", f"{octet * 4000} : x")
    assert len(answer(head, OriginPolicy()).wire) < 1024
