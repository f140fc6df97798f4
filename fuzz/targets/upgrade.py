"""The first bytes of a connection: ``router.front.upgrade``, ``router.front.request_head``, ``router.front.origin`` and
``router.front.page_request``.

What is answered is well-formed, 101 is deserved, and what goes to the page server can be read in one way only.
"""

from __future__ import annotations

import base64
import hashlib
import re
from random import Random
from typing import Final

from fuzz.mutate_bytes import SIZE_MAX, mutate_bytes
from fuzz.target import Target
from router.front import page_request
from router.front.origin import OriginPolicy
from router.front.upgrade import HEAD_END, HEAD_MAX_BYTES, Route, answer, route

_POLICIES: Final = (
    OriginPolicy(),
    OriginPolicy("https://chat.example.com,https://*.example.org"),
    OriginPolicy("null,file://"),
    OriginPolicy("*"),
)
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_STATUSES: Final = frozenset({101, 400, 403, 405, 413, 414, 426, 431, 501, 505})
_ANSWER_MAX: Final = 4096

_LINES: Final = (
    *(
        b"Host: localhost:8000",
        b"Host: evil.example",
        b"Host:",
        b"Host: [::1]:8000",
        b"Host: a b",
        b"Host: localhost:99999",
    ),
    *(
        b"Upgrade: websocket",
        b"Upgrade: WebSocket, h2c",
        b"Connection: Upgrade",
        b"Connection: keep-alive, Upgrade",
    ),
    *(
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Key: short",
        b"Sec-WebSocket-Version: 13",
    ),
    *(b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=x"),
    *(
        b"Sec-WebSocket-Protocol: chat",
        b"Origin: http://localhost:3000",
        b"Origin: https://evil.example",
        b"Origin: null",
    ),
    *(
        b"Origin: https://a.example.org",
        b"Origin: http://localhost.evil.example",
        b"Origin: http://[::1]",
        b"Cookie: a=b",
    ),
    *(
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Expect: 100-continue",
        b" folded",
    ),
    *(
        b"X-Forwarded-For: 1.2.3.4, 5.6.7.8",
        b"Authorization: Bearer a.b.c",
        b"X: " + b"y" * 4000,
        b"\0: x",
        b"no colon",
    ),
)
_PLAIN: Final = (
    b"GET /ws HTTP/1.1\r\nHost: localhost:8000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_PAGE: Final = b"GET / HTTP/1.1\r\nHost: localhost:8000\r\nAccept: */*\r\n\r\n"
_STARTS: Final = (
    *(
        b"GET /ws HTTP/1.1",
        b"GET /ws?a=b HTTP/1.1",
        b"GET /ws HTTP/1.0",
        b"POST /ws HTTP/1.1",
        b"GET / HTTP/1.1",
    ),
    *(
        b"GET /ws  HTTP/1.1",
        b"GET http://localhost/ws HTTP/1.1",
        b"GET http://evil.example/ws HTTP/1.1",
        b"GET http://localhost?/ws HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01",
        b"GET /ws HTTP/9.9",
    ),
)


def check(data: bytes) -> bool:
    """Whether it is upgraded."""
    data = data[:HEAD_MAX_BYTES]
    if not data:
        return False
    end = data.find(HEAD_END)
    where = route(data, end)
    if where is Route.INCOMPLETE:
        assert end < 0
    head = data[: end + len(HEAD_END)]
    if where is Route.PAGE:
        _check_page(head)
    if where is not Route.CHAT:
        return False
    statuses = []
    for policy in _POLICIES:
        result = answer(head, policy)
        statuses.append(result.status)
        assert result.status in _STATUSES, result
        assert len(result.wire) <= _ANSWER_MAX
        _well_formed(result.status, result.wire)
        if result.status == 101:
            _deserved(head, result.wire)
    assert 403 not in statuses[3:], "* allows every page"
    return 101 in statuses


def _check_page(head: bytes) -> None:
    refused = page_request.check(head)
    if refused is not None:
        assert refused.status in (400, 405), refused
        _well_formed(refused.status, refused.wire)
        return
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n"), "a line that ends in another way"
    assert b"\0" not in head
    line, *fields = head.removesuffix(HEAD_END).split(b"\r\n")
    assert line.split(b" ")[0] in (b"GET", b"HEAD")
    assert not any(field[:1] in b" \t" or field.partition(b":")[0][-1:] in b" \t" for field in fields)
    names = [field.partition(b":")[0].lower() for field in fields]
    assert names.count(b"host") == 1 or (b"host" not in names and line.endswith(b"/1.0"))
    assert b"transfer-encoding" not in names
    lengths = [
        field.partition(b":")[2].strip() for field in fields if field.lower().startswith(b"content-length:")
    ]
    assert set(lengths) <= {b"0"}


def _well_formed(status: int, wire: bytes) -> None:
    first, _, body = wire.partition(HEAD_END)
    line, *rest = first.split(b"\r\n")
    assert line.startswith(b"HTTP/1.1 %d " % status), line
    fields = [field.partition(b": ") for field in rest]
    names = [name.lower() for name, _, _ in fields]
    assert all(name and value for name, _, value in fields)
    assert all(byte in b"\r\n" or 32 <= byte < 127 for byte in wire)
    if status == 101:
        assert not body
        assert b"sec-websocket-extensions" not in names
    else:
        assert len(names) == len(set(names))
        assert dict(zip(names, (value for _, _, value in fields), strict=True))[b"connection"] == b"close"
        assert body.count(b"\n") == 1


def _deserved(head: bytes, wire: bytes) -> None:
    """Apply the plain rules of RFC 6455, 4.2.1, looked at in the plainest way."""
    line, *rest = head.removesuffix(HEAD_END).split(b"\r\n")
    assert re.match(rb"GET ((https?|wss?)://[^/]+)?/ws[ ?]", line, re.IGNORECASE), line
    assert line.endswith(b" HTTP/1.1"), line
    fields: dict[bytes, list[bytes]] = {}
    for field in rest:
        name, _, value = field.partition(b":")
        fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
    assert len(fields[b"host"]) == 1
    assert any(b"websocket" in value.lower() for value in fields[b"upgrade"])
    assert any(b"upgrade" in value.lower() for value in fields[b"connection"])
    assert fields[b"sec-websocket-version"] == [b"13"]
    (key,) = fields[b"sec-websocket-key"]
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    assert b"Sec-WebSocket-Accept: " + accept in wire
    assert b"transfer-encoding" not in fields
    assert all(value.strip(b"0") == b"" for value in fields.get(b"content-length", []))


def mutate(data: bytes, rng: Random) -> bytes:
    """Change a line, or bytes."""
    if rng.randrange(4) == 0:
        return mutate_bytes(data, rng)
    if rng.randrange(3) == 0:
        data = rng.choice((_PLAIN, _PLAIN, _PAGE))
    lines = data.removesuffix(HEAD_END).split(b"\r\n")
    for _ in range(rng.choice((1, 1, 2))):
        index = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines.insert(index + 1, rng.choice(_LINES))
            case 1:
                del lines[index]
            case 2:
                lines[0] = rng.choice(_STARTS)
            case 3:
                lines[index] = mutate_bytes(lines[index], rng)
            case 4:
                lines[index] = lines[index].swapcase()
            case 5:
                name, _, _ = lines[index].partition(b":")
                same = [line for line in _LINES if line.startswith(name + b":")]
                lines[index] = rng.choice(same or _LINES)
        lines = lines or [rng.choice(_STARTS)]
    return (b"\r\n".join(lines) + HEAD_END * bool(rng.randrange(12)))[:SIZE_MAX]


TARGET: Final = Target(
    check,
    mutate,
    "the handshake (101)",
    ("router.front.upgrade", "router.front.request_head", "router.front.origin", "router.front.page_request"),
)
