"""Other people's pages in a user's browser, a real Chromium: they get no WebSocket, and nothing of the admin port.

`evil.example` is the attacker's: its pages come from a server of the test's own, and it points to this machine, so with the port of
FastChat in the URL it is a name that was bound to FastChat behind the browser's back (DNS rebinding).
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.system.browser import PATIENCE, Browser, running_browser
from tests.system.harness import Server, wait_until
from tests.system.status import figure, status

pytestmark = pytest.mark.slow

EVIL: Final = "evil.example"
#: What is to be had on the admin port.
ADMIN_PATHS: Final = (
    *("/", "/status", "/metrics", "/healthz", "/readyz", "/dashboard/", "/dashboard/about"),
    *("/dashboard/samples?step=1&after=0&events=0", "/dashboard/dashboard.js", "/nothing"),
)
#: A page that came from the attacker before the name was bound anew has the attacker's policy (CSP), which is none.
OWN_PAGE: Final[dict[str, Any]] = {"bypass_csp": True}
#: How a page opens a WebSocket, and what comes of it.
CONNECT: Final = """url => new Promise(resolve => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve("open");
    socket.onclose = event => resolve(`closed ${event.code}`);
})"""
#: How it makes a request: the status and the text of the answer, as far as it can read them; else what went wrong.
FETCH: Final = """([url, options]) => fetch(url, options).then(
    async answer => [answer.type, answer.status, await answer.text()],
    error => [error.name])"""
#: How it takes something in, as `tag`, which tells whether that worked.
EMBED: Final = """([tag, attribute, url]) => new Promise(resolve => {
    const element = document.createElement(tag);
    element.onload = () => resolve("loaded");
    element.onerror = () => resolve("failed");
    element[attribute] = url;
    if (tag === "link") element.rel = "stylesheet";
    document.body.append(element);
})"""


class _Page(BaseHTTPRequestHandler):
    """Answers everything with an empty page."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>A page</title><link rel=icon href=data:,><h1>Good morning</h1>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody wants to know."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_browser(EVIL) as browser:
        yield browser


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of a web server that is not FastChat's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, name="elsewhere")
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def page_of(browser: Browser, url: str, **options: Any) -> Page:
    """A page in a browser of its own. What goes wrong on it is as it should be, so nobody takes note."""
    page = browser.visitor(url, **options).context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    return page


def refused(server: Server) -> float:
    """How many requests were answered with 403."""
    return figure(server, "front", 'front_refused_total{status="403"}')


@contextmanager
def counted(server: Server, times: int) -> Iterator[None]:
    """In this block so many requests are refused with 403; so they came, and it was not the browser that kept them back."""
    before = refused(server)
    yield
    wait_until(lambda: refused(server) >= before + times, f"{times} refusals to be counted")


# -- Cross-site WebSocket hijacking --


@pytest.mark.attack("cross-site WebSocket hijacking")
def test_a_page_from_elsewhere_gets_no_socket(browser: Browser, server: Server, elsewhere: int) -> None:
    """Whichever name it calls this machine by."""
    page = page_of(browser, f"http://{EVIL}:{elsewhere}/")
    with counted(server, 4):
        for host in ("localhost", "127.0.0.1", "[::1]", EVIL):
            assert page.evaluate(CONNECT, f"ws://{host}:{server.port}/ws") == "closed 1006"


@pytest.mark.attack("cross-site WebSocket hijacking")
def test_a_page_without_an_origin_gets_no_socket(browser: Browser, server: Server, elsewhere: int) -> None:
    """As in a frame with `sandbox`, or out of a `data:` URL: its Origin is `null`."""
    page = page_of(browser, f"http://{EVIL}:{elsewhere}/")
    sandboxed = """url => new Promise(resolve => {
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.srcdoc = `<script>parent.postMessage(origin, "*")</script>`;
        addEventListener("message", event => resolve(event.data));
        document.body.append(frame);
    })"""
    assert page.evaluate(sandboxed, "") == "null"
    (frame,) = (frame for frame in page.frames if frame != page.main_frame)
    with counted(server, 1):
        assert frame.evaluate(CONNECT, f"ws://localhost:{server.port}/ws") == "closed 1006"


@pytest.mark.attack("cross-site WebSocket hijacking")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_page_of_this_machine_may_connect(
    browser: Browser, server: Server, elsewhere: int, host: str
) -> None:
    """From any port, by D6: what developers use. So the refusals above are the server's, and not Chromium's."""
    page = browser.visitor("").context.new_page()
    page.goto(f"http://{host}:{elsewhere}/")
    browser.problems.clear()  # that 127.0.0.1 is this machine is not known to who takes notes
    assert page.evaluate(CONNECT, f"ws://localhost:{server.port}/ws") == "open"


# -- DNS rebinding --


@pytest.mark.attack("DNS rebinding")
def test_a_name_that_was_bound_here_gets_no_socket(browser: Browser, server: Server) -> None:
    """Origin and Host agree, and both are the attacker's. What it can have is what anybody can have: the page, without what is in it."""
    with counted(server, 2):
        page = page_of(browser, f"http://{EVIL}:{server.port}/", **OWN_PAGE)
        assert page.title() == "FastChat"
        for host in (EVIL, "localhost"):
            assert page.evaluate(CONNECT, f"ws://{host}:{server.port}/ws") == "closed 1006"


@pytest.mark.attack("DNS rebinding", "a page that asks the admin port")
def test_a_name_that_was_bound_to_the_admin_port(browser: Browser, server: Server) -> None:
    """It could read everything there, being of the same origin; so it is told nothing."""
    port = urlsplit(server.admin_url).port
    page = browser.visitor("", **OWN_PAGE).context.new_page()
    for path in ADMIN_PATHS:
        answer = page.goto(f"http://{EVIL}:{port}{path}")
        assert answer is not None
        assert answer.status == 403
        for options in (
            {},
            {"method": "POST", "body": "x"},
            {"method": "PUT"},
            {"headers": {"X-Host": "localhost"}},
        ):
            came = page.evaluate(FETCH, [path, options])
            assert came[:2] == ["basic", 403]
            assert came[2].startswith(
                "This port answers to localhost, to its own address, and to the names in "
            )
    assert page.evaluate(CONNECT, f"ws://{EVIL}:{port}/") == "closed 1006"


# -- The admin port --


@pytest.mark.attack("a page that asks the admin port")
@pytest.mark.parametrize("host", [EVIL, "localhost"])
def test_a_page_can_read_nothing_on_the_admin_port(
    browser: Browser, server: Server, elsewhere: int, host: str
) -> None:
    """By no kind of request, from a page of another site or of this machine; the same page can read from its own server."""
    page = page_of(browser, f"http://{host}:{elsewhere}/")
    assert page.evaluate(FETCH, ["/", {}])[:2] == ["basic", 200]
    reasons: list[str | None] = []
    page.on("requestfailed", lambda request: reasons.append(request.failure))
    for path in ADMIN_PATHS:
        url = server.admin_url + path
        for options in (
            {},
            {"mode": "no-cors"},
            {"credentials": "include"},
            {"headers": {"X-Asks-First": "1"}},
            {"method": "POST", "body": "x"},
            {"method": "POST", "body": "x", "mode": "no-cors"},
            {"method": "DELETE"},
        ):
            assert page.evaluate(FETCH, [url, options]) == ["TypeError"], (path, options)
        for tag, attribute in (("script", "src"), ("img", "src"), ("link", "href")):
            assert page.evaluate(EMBED, [tag, attribute, url]) == "failed", (path, tag)
    # It was what the answers said, or did not say, for which Chromium kept them back, and nothing before.
    assert set(reasons) == {"net::ERR_BLOCKED_BY_RESPONSE.NotSameOrigin", "net::ERR_FAILED"}
    assert page.evaluate(CONNECT, server.admin_url.replace("http", "ws") + "/status") == "closed 1006"


@pytest.mark.attack("a page that asks the admin port")
def test_a_page_can_change_nothing_on_the_admin_port(
    browser: Browser, server: Server, elsewhere: int
) -> None:
    """Forms are sent without asking first, and whoever sends a request by hand need not ask either: there is nothing that listens."""
    page = page_of(browser, f"http://{EVIL}:{elsewhere}/")
    before = [(each["pid"], each["restarts"]) for each in status(server)["processes"]]
    for path in ADMIN_PATHS:
        page.evaluate(
            "url => { document.body.innerHTML = `<form method=post action='${url}'><input name=level value=debug></form>` }",
            server.admin_url + path,
        )
        with page.expect_navigation() as navigation:
            page.evaluate("document.forms[0].submit()")
        assert navigation.value.status in (404, 405)
        page.goto(f"http://{EVIL}:{elsewhere}/")
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
            connection = http.client.HTTPConnection(urlsplit(server.admin_url).netloc, timeout=10)
            connection.request(method, path, headers={"Origin": f"http://{EVIL}"})
            answer = connection.getresponse()
            # What OPTIONS is told is which methods there are, as it is by GET.
            assert answer.status in (404, 405) or (method == "OPTIONS" and answer.status in (200, 204))
            assert answer.getheader("Access-Control-Allow-Origin") is None
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
            connection.close()
    assert [(each["pid"], each["restarts"]) for each in status(server)["processes"]] == before


# -- Frames --


@pytest.mark.attack("a page that asks the admin port", "cross-site WebSocket hijacking")
@pytest.mark.parametrize("host", [EVIL, "localhost"])
def test_nothing_is_shown_in_the_frame_of_another_page(
    browser: Browser, server: Server, elsewhere: int, host: str
) -> None:
    """Neither the chat page nor the dashboard, nor anything beside them: what can't be seen can't be clicked on by mistake."""
    page = page_of(browser, f"http://{host}:{elsewhere}/")
    chat = f"http://localhost:{server.port}"
    urls = [chat + path for path in ("/", "/fastchat.js", "/healthz", "/nothing")]
    urls += [server.admin_url + path for path in ADMIN_PATHS]
    for url in urls:
        assert page.evaluate(EMBED, ["iframe", "src", url]) == "loaded"
        (frame,) = (frame for frame in page.frames if frame != page.main_frame)
        assert frame.evaluate("location.href") == "chrome-error://chromewebdata/", url
        page.evaluate("document.querySelector('iframe').remove()")
    # Others may be shown there.
    page.evaluate(EMBED, ["iframe", "src", f"http://127.0.0.1:{elsewhere}/"])
    browser.problems.clear()
    expect(page.frame_locator("iframe").locator("h1")).to_have_text("Good morning")
