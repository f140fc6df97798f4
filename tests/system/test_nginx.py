"""The real nginx with what ``deploy/nginx`` ships, in front of a real server: what clients get, and what they can't."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Final

import pytest
from websockets.exceptions import InvalidStatus

from core.wire.protocol import HEARTBEAT_IDLE, HEARTBEAT_REPLY
from tests.router.command import fastchat
from tests.system.harness import Server, run_async, user_on_worker, wait_until
from tests.system.nginx_process import NAME, SHIPPED, Nginx, find_nginx, running_nginx
from tests.system.servers import shared_server

pytestmark = pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed (apt-get install nginx)")

#: More than nginx lets one address open at once, even when this takes five seconds.
FLOOD: Final = 100
FLOOD_BURST: Final = 40
UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
#: Lets one address tell nginx what address it would like to have, as another proxy would.
ANY_ADDRESS: Final = "set_real_ip_from 127.0.0.9; real_ip_header X-Test-Address;"
PROXY: Final = "127.0.0.9"


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the settings that the configuration asks for."""
    settings = {"allowed_origins": f"https://{NAME}", "trusted_proxies": "127.0.0.1"}
    with shared_server(pytestconfig, tmp_path_factory, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with running_nginx(tmp_path_factory.mktemp("nginx") / "prefix", server.port) as nginx:
        yield nginx


def address_of(server: Server, user_id: str) -> str:
    """What an operator sees as the address of a user's only device, without the port."""
    (device,) = json.loads(fastchat("who", user_id, "--json", "--admin", server.admin_url).stdout)["devices"]
    return re.sub(r":\d+$", "", device["address"])


# -- The chat --


@run_async
async def test_chat_through_nginx(nginx: Nginx) -> None:
    """Two users on different workers, so that the connection goes through nginx, front and both workers."""
    async with (
        nginx.client("Alice", user_on_worker(0, 2)) as alice,
        nginx.client("Bobby", user_on_worker(1, 2)) as bob,
    ):
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        await bob.receive("CHAT_OPENED", target_user_id=alice.user_id)
        acknowledged = await alice.message(bob, "through nginx")
        delivered = await bob.receive("MSG", message_id=acknowledged["message_id"])
        assert acknowledged["status"] == "delivered"
        assert delivered["content"] == "through nginx"
        assert delivered["from"] == alice.user_id


@run_async
async def test_closing_goes_through_in_both_directions(nginx: Nginx) -> None:
    """The close code of the server reaches the client, and the close of the client reaches the server."""
    async with nginx.client("Alice") as alice:
        await alice.hello()
        await alice.send_raw(b"binary is not part of the protocol")
        code, reason = await alice.expect_close()
        assert (code, bool(reason)) == (1003, True)
    async with nginx.client("Alice") as alice:
        await alice.hello()
        await alice.websocket.close()
        assert alice.websocket.close_code == 1000


@run_async
async def test_a_reload_loses_nothing(nginx: Nginx) -> None:
    """Connections stay, also while nobody is refused; the old processes go when their last connection has."""
    before = nginx.workers()
    async with nginx.client("Alice") as alice, nginx.client("Bobby") as bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        sent = [await alice.message(bob, "before")]
        nginx.reload()
        newcomers = 0
        while not (nginx.workers() - before and "gracefully shutting down" in nginx.log()):
            sent.append(await alice.message(bob, f"while it reloads {newcomers}"))
            async with nginx.client("Carol", address=f"127.0.2.{newcomers % 250 + 1}") as carol:
                await carol.hello()
            newcomers += 1
        assert nginx.workers() & before, "who was connected still is, by an old process"
        async with nginx.client("Carol") as carol:
            await carol.hello()
            await carol.open_chat(bob)
            await carol.message(bob, "by a new process")
        sent.append(await alice.message(bob, "afterwards"))
        for message in sent:
            await bob.receive("MSG", message_id=message["message_id"])
        await bob.receive("MSG", content="by a new process")
    await asyncio.to_thread(wait_until, lambda: not nginx.workers() & before, "the old processes to go")


def test_nginx_is_more_patient_than_fastchat() -> None:
    """A connection that FastChat takes to be alive is never ended by nginx: it pings and closes long before."""
    site = (SHIPPED / "fastchat.conf").read_text()
    chat = site.partition("location = /ws {")[2].partition("}")[0]
    for name in ("proxy_read_timeout", "proxy_send_timeout"):
        found = re.search(rf"^ +{name} (\d+)s;$", chat, re.MULTILINE)
        assert found is not None
        assert int(found[1]) >= 2 * (HEARTBEAT_IDLE + HEARTBEAT_REPLY)


# -- Who is there --


@pytest.mark.attack("spoofed forwarded headers")
@run_async
async def test_fastchat_sees_the_addresses_of_clients(nginx: Nginx, server: Server) -> None:
    """Each its own; and what a client says of itself changes nothing."""
    lies = {
        "X-Forwarded-For": "203.0.113.9, 127.0.0.1",
        "Forwarded": "for=203.0.113.9",
        "X-Real-IP": "203.0.113.9",
        "X-Test-Address": "203.0.113.9",
    }
    async with (
        nginx.client("Alice", address="127.0.0.3") as alice,
        nginx.client("Mallory", address="127.0.0.4", headers=lies) as mallory,
    ):
        await alice.hello()
        await mallory.hello()
        assert await asyncio.to_thread(address_of, server, alice.user_id) == "127.0.0.3"
        assert await asyncio.to_thread(address_of, server, mallory.user_id) == "127.0.0.4"


@run_async
async def test_origins_are_checked_behind_nginx(nginx: Nginx) -> None:
    """D6: nginx passes Origin and Host, so a foreign page gets 403, and the page that nginx serves gets in."""
    for origin in ("https://evil.example", f"https://{NAME}:1", f"https://{NAME}.evil.example"):
        with pytest.raises(InvalidStatus) as refused:
            async with nginx.client(origin=origin):
                pass
        assert refused.value.response.status_code == 403
    for origin in (f"https://{NAME}:{nginx.port}", f"https://{NAME}"):
        async with nginx.client("Alice", origin=origin) as alice:
            await alice.hello()


# -- TLS and names --


def test_tls_is_1_2_or_newer_with_forward_secrecy(nginx: Nginx) -> None:
    with nginx.connect() as connection:
        assert connection.version() == "TLSv1.3"
    older = ssl.create_default_context(cafile=nginx.directory / "certificate.pem")
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with nginx.connect(tls=older) as connection:
        cipher = connection.cipher()
        assert cipher is not None
        assert cipher[0].startswith("ECDHE-")
    older.set_ciphers("AES128-SHA:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        nginx.connect(tls=older)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused(nginx: Nginx) -> None:
    oldest = ssl.create_default_context(cafile=nginx.directory / "certificate.pem")
    oldest.set_ciphers("ALL:@SECLEVEL=0")
    oldest.minimum_version = ssl.TLSVersion.TLSv1
    oldest.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        nginx.connect(tls=oldest)


def test_other_names_are_not_answered(nginx: Nginx) -> None:
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        nginx.connect(name="other.example")
    with socket.create_connection(("127.0.0.1", nginx.plain_port), 20.0) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
        assert connection.recv(1) == b""


def test_plain_http_is_sent_to_tls(nginx: Nginx) -> None:
    (nginx.directory / "html/.well-known/acme-challenge").mkdir(parents=True)
    (nginx.directory / "html/.well-known/acme-challenge/token").write_text("proof")
    connection = http.client.HTTPConnection("127.0.0.1", nginx.plain_port, timeout=20.0)
    for path in ("/", "/ws?a=b"):
        connection.request("GET", path, headers={"Host": NAME})
        response = connection.getresponse()
        response.read()
        assert (response.status, response.headers["Location"]) == (301, f"https://{NAME}{path}")
    # But what proves to a certificate authority that the name is ours.
    connection.request("GET", "/.well-known/acme-challenge/token", headers={"Host": NAME})
    assert connection.getresponse().read() == b"proof"
    connection.close()


# -- Pages --


def test_page_through_nginx(nginx: Nginx) -> None:
    status, head, body = nginx.ask("/")
    assert status == 200
    assert b"<title>" in body
    # The page may connect to the address by which the client knows this server.
    assert f" wss://{NAME}:{nginx.port};" in head
    for field in (
        "Strict-Transport-Security: max-age=31536000",
        "Server: nginx",
        "X-Content-Type-Options: nosniff",
    ):
        assert field in head.split("\r\n")
    status, _, body = nginx.ask("/healthz")
    assert (status, body) == (200, b'{"status": "ok"}')


def test_page_by_http_2(nginx: Nginx) -> None:
    tls = ssl.create_default_context(cafile=nginx.directory / "certificate.pem")
    tls.set_alpn_protocols(["h2", "http/1.1"])
    with nginx.connect(tls=tls) as connection:
        assert connection.selected_alpn_protocol() == "h2"
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed (apt-get install curl)")
    done = subprocess.run(
        [
            *(curl, "--silent", "--show-error", "--http2", "--noproxy", "*", "--max-time", "30"),
            *("--cacert", str(nginx.directory / "certificate.pem")),
            *("--resolve", f"{NAME}:{nginx.port}:127.0.0.1"),
            *("--write-out", "\n%{http_version} %{http_code}", f"https://{NAME}:{nginx.port}/"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60.0,
    )
    page, _, how = done.stdout.rpartition("\n")
    assert how == "2 200"
    assert "<title>" in page


def test_browsers_ask_whether_a_file_has_changed(nginx: Nginx) -> None:
    status, head, body = nginx.ask("/client/fastchat.js")
    assert (status, b"export class FastChat" in body) == (200, True)
    etag = next(line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("etag: "))
    assert nginx.ask("/client/fastchat.js", {"If-None-Match": etag})[0] == 304


@pytest.mark.parametrize("path", ["/status", "/metrics", "/readyz", "/dashboard", "/ws/", "/../status"])
def test_nothing_of_the_admin_port_is_to_be_had(nginx: Nginx, path: str) -> None:
    status, _, body = nginx.ask(path)
    assert status in (400, 404)
    assert b"fastchat_" not in body
    assert b"processes" not in body


# -- Limits --


@pytest.mark.attack("header flood", "oversized header")
def test_what_is_too_large_is_refused(nginx: Nginx) -> None:
    assert nginx.ask("/ws", UPGRADE | {"X-Large": "a" * 9000})[0] == 400
    assert nginx.ask("/ws", UPGRADE | {f"X-{number}": "a" * 4000 for number in range(6)})[0] == 400
    assert nginx.ask("/" + "a" * 9000)[0] == 414
    assert nginx.ask("/", {"Content-Length": "1025"}, method="POST")[0] == 413
    assert nginx.ask("/", {"Content-Length": "0"}, method="POST")[0] == 403


@run_async
async def test_a_flood_of_new_connections_from_one_address(nginx: Nginx) -> None:
    """They get 429, and others do not notice."""

    def flood() -> list[tuple[int, str]]:
        with ExitStack() as opened:
            connections = [opened.enter_context(nginx.connect(address="127.0.0.5")) for _ in range(FLOOD)]
            for connection in connections:
                connection.sendall(nginx.request("/ws", UPGRADE))
            heads = [connection.recv(65536).decode() for connection in connections]
        return [(int(head.split(" ", 2)[1]), head) for head in heads]

    async with nginx.client("Alice", address="127.0.0.6") as alice:
        await alice.hello()
        answers = await asyncio.to_thread(flood)
        async with nginx.client("Bobby", address="127.0.0.7") as bob:
            await bob.hello()
            await alice.open_chat(bob)
            await alice.message(bob, "what flood?")
    statuses = [status for status, _ in answers]
    assert set(statuses) == {101, 429}
    assert statuses.count(101) >= FLOOD_BURST
    assert all("Retry-After: 5\r\n" in head for status, head in answers if status == 429)


@run_async
async def test_connections_at_once_are_limited_by_address_and_by_ipv6_network(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With three in place of a hundred."""
    changes = {
        "limit_conn fastchat_chats 100;": "limit_conn fastchat_chats 3;",
        "map $binary_remote_addr $fastchat_client {": f"{ANY_ADDRESS}\nmap $binary_remote_addr $fastchat_client {{",
    }
    with running_nginx(tmp_path_factory.mktemp("nginx") / "prefix", server.port, changes) as nginx:

        async def status_from(address: str) -> int:
            """Connect from there, and stay; the status."""
            client = nginx.client(address=PROXY, headers={"X-Test-Address": address})
            try:
                await held.enter_async_context(client)
            except InvalidStatus as refused:
                return refused.response.status_code
            await client.hello()
            return 101

        async with AsyncExitStack() as held:
            for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1"):
                assert await status_from(address) == 101
            # With 0 and line feeds among their bytes.
            for address in (
                "2001:db8:a0a:a::1",
                "2001:db8:a0a:a:2:3::",
                "2001:db8:a0a:a:ffff:ffff:ffff:ffff",
            ):
                assert await status_from(address) == 101
            assert await status_from("192.0.2.1") == 429
            assert await status_from("2001:db8:a0a:a:9::") == 429
            assert await status_from("192.0.2.2") == 101
            assert await status_from("2001:db8:a0a:b::1") == 101
        assert "fastchat_chats" in nginx.log()
        async with AsyncExitStack() as held:
            deadline = asyncio.get_running_loop().time() + 20.0
            while await status_from("192.0.2.1") == 429:
                assert asyncio.get_running_loop().time() < deadline, "who has left is still counted"


def test_the_log_has_no_queries(nginx: Nginx) -> None:
    nginx.ask("/healthz?token=secret", {"User-Agent": "curious"})
    log = nginx.directory / "access.log"
    wait_until(lambda: '"GET /healthz HTTP/1.1" 200 ' in log.read_text(), "the line of the request")
    assert '"curious"' in log.read_text()
    assert "secret" not in log.read_text()
