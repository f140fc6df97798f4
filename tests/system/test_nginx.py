"""The real nginx with ``deploy/nginx/fastchat.conf`` in front of a real server."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from websockets.exceptions import InvalidStatus

from tests.system.harness import PROJECT, ChatClient, Server, run_async, user_on_worker, wait_until

CONFIGURATION: Final = PROJECT / "deploy" / "nginx" / "fastchat.conf"

#: What surrounds the included file: everything that nginx writes stays in the prefix directory, so nothing needs root.
SURROUNDINGS: Final = """
daemon off;
master_process on;
pid nginx.pid;
error_log error.log info;
events {}
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    include fastchat.conf;
}
"""

#: Someone else may take the free port between the look and nginx's bind.
ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Nginx:
    """A running nginx; `prefix` has its logs."""

    port: int
    prefix: Path

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"


def find_nginx() -> str | None:
    """Debian installs it where only root's PATH leads."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


pytestmark = pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rewritten(port: int, upstream: int) -> str:
    """The configuration as it is shipped, but for the two addresses."""
    text = CONFIGURATION.read_text()
    for shipped, ours in (
        ("listen 80;", f"listen 127.0.0.1:{port};"),
        ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
    ):
        assert text.count(shipped) == 1, f"{shipped!r} expected once in {CONFIGURATION}"
        text = text.replace(shipped, ours)
    return text


def start_nginx(prefix: Path, upstream: int) -> tuple[subprocess.Popen[bytes], int]:
    """nginx in `prefix` in front of the port `upstream`; its process and its port."""
    prefix.mkdir(parents=True)
    (prefix / "nginx.conf").write_text(SURROUNDINGS)
    log = prefix / "error.log"
    for _ in range(ATTEMPTS):
        port = free_port()
        (prefix / "fastchat.conf").write_text(rewritten(port, upstream))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [find_nginx() or "nginx", "-p", str(prefix), "-e", "error.log", "-c", "nginx.conf"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(lambda: process.poll() is not None or accepts(port), "nginx to accept or to end")  # noqa: B023
        if process.poll() is None:
            return process, port
        assert "Address already in use" in log.read_text(), log.read_text()
    raise AssertionError(f"no free port for nginx in {ATTEMPTS} attempts")


@pytest.fixture(scope="module")
def nginx(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    prefix = tmp_path_factory.mktemp("nginx") / "prefix"
    process, port = start_nginx(prefix, server.port)
    yield Nginx(port, prefix)
    process.terminate()
    process.wait(10)


@run_async
async def test_chat_through_nginx(nginx: Nginx) -> None:
    """Two users on different workers, so that the connection goes through nginx, front and both workers."""
    async with (
        ChatClient(nginx.url, user_on_worker(0, 2), "Alice") as alice,
        ChatClient(nginx.url, user_on_worker(1, 2), "Bobby") as bob,
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
    async with ChatClient(nginx.url, name="Alice") as alice:
        await alice.hello()
        await alice.send_raw(b"binary is not part of the protocol")
        code, reason = await alice.expect_close()
        assert (code, bool(reason)) == (1003, True)
    async with ChatClient(nginx.url, name="Alice") as alice:
        await alice.hello()
        await alice.websocket.close()
        assert alice.websocket.close_code == 1000


@run_async
async def test_origins_are_checked_behind_nginx(nginx: Nginx) -> None:
    """D6: nginx passes Origin and Host, so a foreign page gets 403, and the page that nginx serves gets in."""
    with pytest.raises(InvalidStatus) as refused:
        async with ChatClient(nginx.url, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    async with ChatClient(nginx.url, origin=f"http://127.0.0.1:{nginx.port}") as alice:
        await alice.hello()


def test_page_through_nginx(nginx: Nginx) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=10)
    for path in ("/", "/healthz"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (200, True), path
    connection.close()
