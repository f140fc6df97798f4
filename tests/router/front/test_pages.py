"""Tests of router.front.pages, through a real front."""

from __future__ import annotations

import gzip
import html
import json
import re
from pathlib import Path

import pytest

from router.front.pages import read_page
from router.static_files import WEB, read_static_files, without_comments
from tests.router.front_process import HEAD, FrontProcess


def ask(front: FrontProcess, line: str, *fields: str, body: bytes = b"") -> tuple[int, str, bytes]:
    """Status, header fields and body of the answer to a request, which must end the connection."""
    request = "\r\n".join([line, "Host: localhost:8000", *fields]).encode() + b"\r\n\r\n" + body
    head, _, answer = front.http(request).partition(b"\r\n\r\n")
    assert re.search(rb"^connection: close\r?$", head, re.IGNORECASE | re.MULTILINE)
    return int(head.split(b" ", 2)[1]), head.decode(), answer


def fields(head: str, name: str) -> list[str]:
    """The values of all header fields of this name."""
    return re.findall(rf"^{name}: (.*?)\r?$", head, re.IGNORECASE | re.MULTILINE)


def field(head: str, name: str) -> str:
    """The value of a header field that is there once."""
    found = fields(head, name)
    assert len(found) == 1, f"{name} is there {len(found)} times in {head}"
    return found[0]


FILES = [
    ("/", "text/html; charset=utf-8"),
    ("/app.js", "text/javascript; charset=utf-8"),
    ("/fastchat.js", "text/javascript; charset=utf-8"),
    ("/client/machine.js", "text/javascript; charset=utf-8"),
    ("/client/fastchat.d.ts", "text/plain; charset=utf-8"),
    ("/chat.css", "text/css; charset=utf-8"),
    ("/icon.svg", "image/svg+xml; charset=utf-8"),
    ("/icon-192.png", "image/png"),
    ("/manifest.webmanifest", "application/manifest+json; charset=utf-8"),
]
EVERY_FILE = pytest.mark.parametrize(("path", "content_type"), FILES)


@EVERY_FILE
def test_the_files_of_the_page_are_served_as_they_are(
    front: FrontProcess, path: str, content_type: str
) -> None:
    status, head, body = ask(front, f"GET {path} HTTP/1.1")
    assert status == 200
    assert field(head, "Content-Type") == content_type
    assert int(field(head, "Content-Length")) == len(body)
    source = (WEB / (path.strip("/") or "index.html")).read_bytes()
    assert body == (without_comments(source.decode()).encode() if path.endswith(".js") else source)
    assert field(head, "X-Content-Type-Options") == "nosniff"
    assert field(head, "Referrer-Policy") == "no-referrer"
    # The page says what it may do; its files are under its policy, and by themselves may do nothing.
    if path == "/":
        assert "microphone=()" in field(head, "Permissions-Policy")
    else:
        assert field(head, "Content-Security-Policy") == "default-src 'none'; frame-ancestors 'none'"
    assert field(head, "Server") == "FastChat"


@EVERY_FILE
def test_browsers_keep_them_and_ask_whether_they_are_the_same(
    front: FrontProcess, path: str, content_type: str
) -> None:
    _, head, body = ask(front, f"GET {path} HTTP/1.1")
    assert field(head, "Cache-Control") == "no-cache"
    etag = field(head, "ETag")
    assert re.fullmatch(r'"[0-9a-f]{20}"', etag)
    for known in (etag, f'"something-else", {etag}', f"W/{etag}", "*"):
        status, head, nothing = ask(front, f"GET {path} HTTP/1.1", f"If-None-Match: {known}")
        assert (status, nothing) == (304, b""), known
        assert field(head, "ETag") == etag
        assert field(head, "Cache-Control") == "no-cache"
        assert "default-src 'none'" in field(head, "Content-Security-Policy")
    for other in ('"something else"', etag.replace('"', ""), "nonsense", ""):
        status, _, again = ask(front, f"GET {path} HTTP/1.1", f"If-None-Match: {other}")
        assert (status, again) == (200, body), other


def test_gzip_for_who_wants_it(front: FrontProcess) -> None:
    _, head, plain = ask(front, "GET /client/machine.js HTTP/1.1")
    assert fields(head, "Content-Encoding") == []
    assert field(head, "Vary") == "Accept-Encoding"
    for accepted in (
        "gzip",
        "br, GZIP;q=0.5",
        "deflate, gzip; q=1.0",
        "x-gzip",
        "*",
        "gzip, *;q=0",
        "identity;q=0.4, *;q=0.5",
    ):
        _, zipped_head, zipped = ask(front, "GET /client/machine.js HTTP/1.1", f"Accept-Encoding: {accepted}")
        assert field(zipped_head, "Content-Encoding") == "gzip"
        assert gzip.decompress(zipped) == plain
        assert len(zipped) < len(plain) / 2
        etag = field(zipped_head, "ETag")
        assert etag != field(head, "ETag"), "other bytes, another name"
        status, _, _ = ask(
            front, "GET /client/machine.js HTTP/1.1", f"Accept-Encoding: {accepted}", f"If-None-Match: {etag}"
        )
        assert status == 304
    for refused in (
        "br",
        "gzip;q=0",
        "gzip; q=0.000",
        "gzip ; q = 0.",
        "gzip;q=0, *",
        "*;q=0",
        "identity",
        "identity, gzip;q=0.5",
        "gzip;q=more",
        "notgzip",
        "",
    ):
        _, head, body = ask(front, "GET /client/machine.js HTTP/1.1", f"Accept-Encoding: {refused}")
        assert (fields(head, "Content-Encoding"), body) == ([], plain), refused
    _, head, _ = ask(front, "GET /client/machine.js HTTP/1.1", "Accept-Encoding: br", "Accept-Encoding: gzip")
    assert field(head, "Content-Encoding") == "gzip", "a list may come in several lines"


def test_the_page_may_load_its_own_files_and_talk_to_its_own_server(front: FrontProcess) -> None:
    _, head, body = ask(front, "GET / HTTP/1.1")
    assert field(head, "Content-Security-Policy") == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws://localhost:8000 wss://localhost:8000;"
        " img-src 'self' data:; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    page = body.decode()
    icons = [icon["src"] for icon in json.loads((WEB / "manifest.webmanifest").read_text())["icons"]]
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", page)
    loaded = re.findall(r'(?:src|href)="(/[^"?]*)', page)
    for path in (*loaded, *icons):
        assert ask(front, f"GET {path} HTTP/1.1")[0] == 200, path
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    "host",
    [
        "evil.example; script-src *",
        "a b",
        "<b>&",
        "x'none'",
        "localhost:99999",
        "localhost:8000 https:",
        "[::g]",
    ],
)
def test_what_the_client_calls_the_server_can_not_loosen_the_policy(front: FrontProcess, host: str) -> None:
    head = front.http(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).partition(b"\r\n\r\n")[0]
    assert b"Content-Security-Policy: " in head or b" 400 " in head
    assert host.encode() not in head
    if b" 200 " in head:
        assert b"connect-src 'self'; img-src" in head


def test_the_service_worker_knows_the_version_of_each_file(front: FrontProcess) -> None:
    """It may fetch the files of the page and do nothing else; browsers ask for it at each load."""
    _, head, body = ask(front, "GET /sw.js HTTP/1.1")
    policy = "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"
    assert field(head, "Content-Security-Policy") == policy
    assert field(head, "Cache-Control") == "no-cache"
    filled = re.search(rb"^const SHELL = (.*);$", body, re.MULTILINE)
    assert filled is not None
    shell = json.loads(filled[1])
    assert set(shell["files"]) > {"/", "/app.js", "/client/machine.js", "/chat.css", "/manifest.webmanifest"}
    assert not set(shell["files"]) & {"/sw.js", "/client/fastchat.d.ts", "/icon-512.png"}
    for path, digest in shell["files"].items():
        assert field(ask(front, f"GET {path} HTTP/1.1")[1], "ETag") == f'"{digest}"'
    again = read_page("")["/sw.js"]
    assert again.digest == read_page("")["/sw.js"].digest, "the same in every process"
    assert field(head, "ETag") == f'"{again.digest}"'
    other = read_page("https://app.example.com/login")["/sw.js"]
    assert other.digest != again.digest, "another page, another worker"


def test_the_page_is_told_where_users_log_in(run_dir: Path) -> None:
    """As an attribute, out of which nothing gets; nothing else on the page is another."""
    url = "https://app.example.com/login?a='b'&c=d"
    with FrontProcess(run_dir, login_url=url) as front:
        _, _, body = ask(front, "GET / HTTP/1.1")
    plain = (WEB / "index.html").read_text()
    told = f'<meta name="fastchat-login" content="{html.escape(url)}">'
    assert body.decode() == plain.replace('<meta name="fastchat-login" content="">', told) != plain


def test_comments_of_scripts_stay_here() -> None:
    """Lines that are nothing else; the numbers of the lines stay, and so does all that runs."""
    script = "a();\n  // one\n/** two\n * lines */\nb(); // c\n/** @type {any} */ (d).e();\n  /** f */\n/** g */\nh();\n"
    left = "a();\n\n\n\nb(); // c\n/** @type {any} */ (d).e();\n\n\nh();\n"
    assert without_comments(script) == left
    for path in [*WEB.glob("*.js"), *WEB.glob("client/*.js")]:
        source = path.read_text()
        served = without_comments(source).split("\n")
        assert len(served) == len(source.split("\n"))
        # No text goes over several lines, in which what looks like a comment would be none.
        assert all(line.count("`") % 2 == 0 for line in served), path.name
        in_comment = False
        for line, kept in zip(source.split("\n"), served, strict=True):
            words = line.strip()
            in_comment |= words.startswith("/**") and "*/" not in words[:-2]
            is_comment = in_comment or words.startswith("//")
            in_comment &= not words.endswith("*/")
            assert kept == ("" if is_comment else line), (path.name, line)


def test_only_files_with_a_known_suffix_are_served(tmp_path: Path) -> None:
    for name in ("a.js", "b.css", ".hidden", "c.py", "d.js~", "e"):
        (tmp_path / name).write_text("x")
    for folder in ("f.js", "client", "dashboard"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "g.js").write_text("x")
    (tmp_path / "client" / "package.json").write_text("x")
    assert sorted(read_static_files(tmp_path, "client")) == ["a.js", "b.css", "client/g.js"]


def test_health(front: FrontProcess) -> None:
    status, head, body = ask(front, "GET /healthz HTTP/1.1")
    assert (status, body) == (200, b'{"status": "ok"}')
    assert "application/json" in head


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/ws/",
        "/%77s",
        "/../ws",
        "//ws",
        "http://localhost/wsx",
        "/ws;a",
        "/index.html",
        "/app.js/",
        "/APP.JS",
        "/app.js%00",
        "/../pages.py",
        "/..%2fpages.py",
        "/%2e%2e/pages.py",
        "/.%2e/web/app.js",
        "/web/app.js",
        "/client",
        "/client/",
        "/client/package.json",
        "/client/../app.js",
        "/dashboard/charts.js",
        "/dashboard/",
        "/static/../../../../etc/passwd",
        "//etc/passwd",
        "/..\\pages.py",
    ],
)
def test_anything_else_is_404(front: FrontProcess, path: str) -> None:
    status, head, body = ask(front, f"GET {path} HTTP/1.1")
    assert status == 404
    assert "text/plain" in head
    assert b"/ws" in body


def test_head_has_no_body(front: FrontProcess) -> None:
    for path in ("/", "/app.js", "/healthz"):
        status, head, body = ask(front, f"HEAD {path} HTTP/1.1")
        assert (status, body) == (200, b"")
        assert "Content-Length: " in head


@pytest.mark.parametrize("path", ["/", "/app.js", "/healthz"])
def test_other_methods_are_405(front: FrontProcess, path: str) -> None:
    status, head, _ = ask(front, f"POST {path} HTTP/1.1", "Content-Length: 3", body=b"a=b")
    assert status == 405
    assert "Allow: GET, HEAD" in head


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
        ("Host: another",),
    ],
)
def test_what_is_no_http_gets_an_answer_and_the_end(front: FrontProcess, fields: tuple[str, ...]) -> None:
    status, _, _ = ask(front, "GET / HTTP/1.1", *fields)
    assert status in (400, 417)


def test_a_body_that_never_comes_does_not_hold_the_connection(front: FrontProcess) -> None:
    with front.client(upgrade=False) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert b" 405 " in client.read_all()
