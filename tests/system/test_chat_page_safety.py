"""What the chat page must never do, and what it must be for everybody: scripts from others never run, it is accessible, and it is light."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.system.browser import DESKTOP, PATIENCE, PHONE, Browser, Tab, page_url
from tests.system.harness import PROJECT, Server, clean_environment

pytestmark = pytest.mark.slow

#: All that comes over the wire until the page is there, in bytes, headers and the client included.
PAGE_MAX_BYTES: Final = 100_000

#: Ways to get a script past a filter, as in the cheat sheets, each with an effect that would be noticed: a dialog, a request, or an error.
SCRIPTS: Final = (
    "<script>alert(1)</script>",
    "<SCRIPT SRC=https://evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(2)</scr</script>ipt>",
    "<script/x>alert(3)</script >",
    "<<script>alert(4);//<</script>",
    "<script\n>alert(5)</script\n>",
    "<img src=x onerror=alert(6)>",
    "<img/src=`x`onerror=alert(7)>",
    '<img """><script>alert(8)</script>">',
    "<img src=javascript:alert(9)>",
    "<img src='https://evil.example/pixel.gif'>",
    "<IMG SRC=&#106;&#97;&#118;&#97;&#115;&#99;&#114;&#105;&#112;&#116;:alert(10)>",
    "<svg onload=alert(11)>",
    "<svg><script>alert&#40;12&#41;</script></svg>",
    "<svg><animate onbegin=alert(13) attributeName=x dur=1s>",
    "<svg><use href='data:image/svg+xml,<svg id=x onload=alert(14)>#x'/></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(15)>",
    "<iframe src='javascript:alert(16)'></iframe>",
    "<iframe srcdoc='<script>alert(17)</script>'></iframe>",
    "<object data='data:text/html;base64,PHNjcmlwdD5hbGVydCgxOCk8L3NjcmlwdD4='></object>",
    "<embed src='https://evil.example/x.swf'>",
    "<a href='javascript:alert(19)'>click</a>",
    "<a href='jav\tascript:alert(20)'>click</a>",
    "<body onload=alert(21)>",
    "<input autofocus onfocus=alert(22)>",
    "<details open ontoggle=alert(23)>",
    "<video><source onerror=alert(24)></video>",
    "<marquee onstart=alert(25)>",
    "<form action='https://evil.example/'><button autofocus>x</button></form>",
    "<base href='https://evil.example/'>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<style>@import 'https://evil.example/x.css';</style>",
    "<div style='background:url(https://evil.example/x.png)'>",
    "<template><script>alert(26)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(27)>'>",
    "<textarea></textarea><script>alert(28)</script>",
    "<!--><img src=x onerror=alert(29)>-->",
    "<![CDATA[<script>alert(30)</script>]]>",
    "';alert(31);//",
    '");alert(32);//',
    '"><img src=x onerror=alert(33)><x y="',
    "${alert(34)}",
    "{{constructor.constructor('alert(35)')()}}",
    "%3Cscript%3Ealert(36)%3C/script%3E",
    "\\u003cscript\\u003ealert(37)\\u003c/script\\u003e",
    "&lt;script&gt;alert(38)&lt;/script&gt;",
    "javascript:alert(39)",
    "data:text/html,<script>alert(40)</script>",
    "vbscript:msgbox(41)",
    "http://javascript:alert(42)@evil.example/",
    'https://evil.example/"onmouseover=alert(43)//',
    "https://evil.example/<script>alert(44)</script>",
    "https://evil.example/'><script>alert(45)</script>",
    "__proto__",
    "constructor",
    "\ufeff<script>alert(46)</script>",
    "\uff1cscript\uff1ealert(47)\uff1c/script\uff1e",
)


# -- Scripts --


class EvilServer:
    """A server that cleans nothing: what tests put on the wire goes to the page as it is, between the messages of the real one."""

    def __init__(self) -> None:
        self.routes: list[WebSocketRoute] = []

    def __call__(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        # What the page says about these messages means nothing to the real server.
        route.on_message(
            lambda text: server.send(text) if json.loads(text)["type"] in ("HELLO", "PING") else None
        )
        self.routes.append(route)

    def send(self, kind: str, **data: Any) -> None:
        self.routes[-1].send(json.dumps({"type": kind, "data": data}))


def assert_only_text(tab: Tab) -> None:
    """Nothing but what the page is made of has got into it."""
    foreign = tab.page.evaluate(
        "(selectors) => document.querySelectorAll(selectors).length",
        'script:not([src="/app.js"]), img:not([src="/icon.svg"]), form:not([id]), [style]:not(#text), body link, body meta,'
        " iframe, object, embed, video, math, base, style, template, [onerror], [onload], [onfocus]",
    )
    assert foreign == 0
    hrefs = tab.page.evaluate("[...document.querySelectorAll('#app a')].map((link) => link.protocol)")
    assert set(hrefs) <= {"http:", "https:"}
    assert tab.page.evaluate("({}).polluted === undefined && Object.keys(Object.prototype).length === 0")


@pytest.mark.attack("HTML and scripts")
def test_scripts_in_messages_and_names_stay_text(browser: Browser, server: Server) -> None:
    """From a server that lets everything through: as message, as name, as message id, and as the reason of the end."""
    visitor = browser.visitor(page_url(server))
    evil = EvilServer()
    visitor.context.route_web_socket("**/ws", evil)
    tab = visitor.tab()
    tab.join("Victim")
    me = json.loads(tab.page.evaluate("localStorage.getItem('fastchat::identity')"))["userId"]
    senders = [str(uuid4()) for _ in SCRIPTS]
    evil.send(
        "PRESENCE",
        users=[
            {"user_id": sender, "display_name": script, "online": True}
            for sender, script in zip(senders, SCRIPTS, strict=True)
        ],
    )
    for number, (sender, script) in enumerate(zip(senders, SCRIPTS, strict=True)):
        evil.send(
            "CHAT_OPENED",
            chat_id=script,
            participants=[me, sender],
            target_user_id=sender,
            target_display_name=script,
        )
        for sent_by, message_id in ((sender, f"m{number}"), (senders[0], script)):
            evil.send(
                "MSG",
                **{"from": sent_by},
                to=me,
                content=script,
                message_id=message_id,
                timestamp="2030-01-01T12:00:00.000Z",
            )
        evil.send("TYPING", user_id=script, is_typing=True)
        evil.send("MSG_ACK", message_id=script, status=script, to=script)
    expect(tab.page.locator("#people a")).to_have_count(len(SCRIPTS), timeout=PATIENCE)
    # The list may show what stands between two lines on one.
    shown = sorted(" ".join(name.split()) for name in tab.page.locator("#people .name").all_text_contents())
    assert shown == sorted(" ".join(script.split()) for script in SCRIPTS)
    tab.page.locator(f'#people a[href="#{senders[0]}"]').click()
    expect(tab.page.locator(".message .text")).to_have_count(len(SCRIPTS) + 1, timeout=PATIENCE)
    shown_texts = tab.page.locator(".message .text").all_text_contents()
    assert sorted(shown_texts) == sorted([SCRIPTS[0], *SCRIPTS])
    assert_only_text(tab)
    for sender in senders[1:12]:
        tab.page.locator(f'#people a[href="#{sender}"]').click()
        expect(tab.page.locator(".message .text")).not_to_have_count(0)
        assert_only_text(tab)
    evil.routes[-1].close(code=1008, reason=SCRIPTS[6])
    expect(tab.bar).to_contain_text(SCRIPTS[6])
    assert_only_text(tab)
    tab.page.reload()
    tab.wait_online()
    assert_only_text(tab)


@pytest.mark.attack("HTML and scripts")
def test_scripts_through_the_real_server(browser: Browser, server: Server) -> None:
    """Written on the page itself, to somebody who looks at it; both see the same, and nothing of it runs."""
    ada, bob = browser.join(page_url(server), "Ada"), browser.join(page_url(server), "<i>Bob</i> & co")
    expect(bob.page.locator("#me-name .name")).to_have_text("Bob & co")
    ada.open_chat("Bob & co")
    bob.open_chat("Ada")
    # Who sends many of which nothing is left is thrown out for a while.
    scripts = [*SCRIPTS[:10], *(script for script in SCRIPTS if not script.startswith("<"))]
    ada.write(*scripts)
    expect(bob.message("https://evil.example/'>")).to_be_visible(timeout=PATIENCE)
    expect(bob.message(SCRIPTS[-1])).to_be_visible(timeout=PATIENCE)
    expect(ada.page.locator('.message[data-status="queued"], .message[data-status="sent"]')).to_have_count(
        0, timeout=PATIENCE
    )
    for tab in (ada, bob):
        assert_only_text(tab)
    arrived = ada.page.locator('.message:not([data-status="failed"]) .text')
    expect(arrived).to_have_text(bob.texts(), timeout=PATIENCE)


@pytest.mark.attack("HTML and scripts")
@pytest.mark.parametrize("where", ["?user=", "?person=", "#", "?", "#?"])
def test_scripts_in_the_url(browser: Browser, server: Server, where: str) -> None:
    """Whoever is sent such a link sees the page as ever."""
    visitor = browser.visitor(page_url(server))
    first = visitor.tab()
    first.join("Link Clicker")
    for script in (script for script in SCRIPTS[::5] if not script.isidentifier()):
        first.page.goto("about:blank")
        first.page.goto(page_url(server) + where + quote(script))
        expect(first.page.locator("#me-name .name")).to_have_text("Link Clicker")
        assert_only_text(first)
    stored = first.page.evaluate("Object.keys(localStorage)")
    assert all(key.startswith("fastchat::") for key in stored), stored


# -- Accessibility --


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe, installed by npm into a directory of its own."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, to install axe-core")
    directory = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PROJECT / "tests" / "system" / "axe" / name, directory)
    command = [npm, "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    installed = subprocess.run(
        command, cwd=directory, env=clean_environment(), capture_output=True, timeout=120, check=False
    )
    if installed.returncode:
        pytest.skip("npm could not install axe-core")
    return (directory / "node_modules" / "axe-core" / "axe.min.js").read_text()


def assert_accessible(tab: Tab, axe: str, view: str) -> None:
    """axe finds nothing wrong, by any of its rules."""
    tab.page.evaluate(axe)
    found = tab.page.evaluate("axe.run().then((result) => result.violations)")
    told = [
        f"{each['id']}: {node['html']} {node['failureSummary']}" for each in found for node in each["nodes"]
    ]
    assert told == [], view


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_axe_finds_nothing(browser: Browser, server: Server, axe: str, scheme: str, screen: str) -> None:
    """In each view, with all that may stand in it."""
    size = DESKTOP if screen == "desktop" else PHONE
    options = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
    visitor = browser.visitor(page_url(server), **options)
    tab = visitor.tab()
    expect(tab.page.get_by_label("What is your name?")).to_be_focused()
    assert_accessible(tab, axe, "welcome")
    visitor.url += f"#{uuid4()}&name=Ada"
    invited = visitor.tab()
    expect(invited.page.locator("#welcome-text")).to_have_text("Ada invites you to chat.")
    assert_accessible(invited, axe, "welcome with an invitation")
    invited.page.close()
    visitor.url = page_url(server)
    tab.page.keyboard.press("Enter")
    assert_accessible(tab, axe, "welcome, with a problem")
    tab.join(f"Looking {scheme} {screen}")
    assert_accessible(tab, axe, "list, perhaps empty")
    friends = [browser.join(page_url(server), f"{scheme} {screen} {number}") for number in range(8)]
    friend, name = friends[0], f"{scheme} {screen} 0"
    expect(tab.person(f"{scheme} {screen} 7")).to_be_visible(timeout=PATIENCE)
    assert_accessible(tab, axe, "list")
    friend.open_chat(f"Looking {scheme} {screen}")
    friend.write("Hello", "https://localhost/a link", "🎉")
    tab.wait_unread(name, 3)
    expect(tab.page.locator("#offer")).to_be_visible()
    assert_accessible(tab, axe, "list with unread messages, and the offer of notifications")
    tab.open_chat(name)
    tab.write("An answer", "<b></b>")
    tab.wait_status("An answer", "Read")
    tab.wait_status("<b></b>", "Not delivered")
    friend.field.press_sequentially("abc")
    expect(tab.page.locator("#typing")).to_be_visible()
    tab.field.fill("x" * 1001)
    assert_accessible(tab, axe, "chat")
    tab.field.fill("")
    tab.page.keyboard.press("Escape")
    twin = browser.join(page_url(server), name)
    expect(tab.person(name).locator(".tag").first).to_be_visible(timeout=PATIENCE)
    assert_accessible(tab, axe, "two people of one name")
    twin.page.close()
    tab.page.locator("#me").click()
    assert_accessible(tab, axe, "settings")
    tab.page.keyboard.press("Escape")
    tab.page.evaluate(
        "document.getElementById('connection').hidden = false;"
        " document.getElementById('connection-text').textContent = 'Reconnecting in 3 s…'"
    )
    assert_accessible(tab, axe, "connection bar")
    tab.page.locator("#search").fill("nobody of this name")
    assert_accessible(tab, axe, "search without a result")


# -- Weight --


def test_the_page_is_light(browser: Browser, server: Server) -> None:
    """All that comes over the wire until one can chat is below the limit, from this server only, and kept by the browser."""
    visitor = browser.visitor(page_url(server))
    came: dict[str, Any] = {}
    visitor.context.on("response", lambda response: came.setdefault(response.url, response))
    tab = visitor.tab()
    tab.join("Counting")
    sizes = {}
    for url, response in came.items():
        size = response.request.sizes()
        sizes[url] = size["responseHeadersSize"] + size["responseBodySize"]
    assert set(sizes) >= {
        page_url(server),
        *(page_url(server) + name for name in ("fastchat.js", "client/machine.js", "app.js", "chat.css")),
    }
    assert sum(sizes.values()) < PAGE_MAX_BYTES, sizes
    # Some are too small to be compressed.
    large = [
        response
        for url, response in came.items()
        if url.endswith(".js") and int(response.header_value("Content-Length") or 0) >= 512
    ]
    assert len(large) > 30
    assert all(response.header_value("Content-Encoding") == "gzip" for response in large)
    assert all(response.status == 200 for response in came.values())
    # The service worker is no module of the page, and comes later.
    modules = {url for url in sizes if url.endswith(".js") and url != page_url(server) + "sw.js"}
    preloaded = tab.page.evaluate(
        "[...document.querySelectorAll('link[rel=modulepreload]')].map((link) => link.href)"
    )
    assert modules == {*preloaded, page_url(server) + "app.js"}, (
        "each module is named in the page, so all come at once"
    )
    came.clear()
    tab.page.reload()
    tab.wait_online()
    assert came


def test_the_modules_are_short() -> None:
    web = PROJECT / "router" / "web"
    for path in [*web.glob("*.js"), *web.glob("client/*.js")]:
        assert len(path.read_text().splitlines()) <= 300, path.name


def test_the_lock_file_names_no_registry() -> None:
    lock = Path(PROJECT / "tests" / "system" / "axe" / "package-lock.json").read_text()
    assert "://" not in lock
