"""Proxies with TLS in front of a server, each with the least configuration that its own documentation gives for WebSocket."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.system.harness import wait_until
from tests.system.nginx_process import NAME, find_nginx, free_ports, make_certificate, running_nginx


def find(program: str) -> str | None:
    """Debian installs some where only root's PATH leads."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin")


_HAPROXY: Final = """
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
    timeout tunnel 1h
frontend tls
    bind 127.0.0.1:{port} ssl crt {directory}/both.pem
    default_backend chat
backend chat
    server one 127.0.0.1:{upstream}
"""

_CADDY: Final = """
{{
    admin off
    auto_https off
}}
https://{name}:{port} {{
    bind 127.0.0.1
    tls {directory}/certificate.pem {directory}/key.pem
    reverse_proxy 127.0.0.1:{upstream}
}}
"""


@contextmanager
def _nginx(directory: Path, upstream: int) -> Iterator[int]:
    # All clients of a test have one address.
    changes = {"zone=fastchat_new_chats:10m rate=10r/s": "zone=fastchat_new_chats:10m rate=1000r/s"}
    with running_nginx(directory, upstream, changes) as nginx:
        yield nginx.port


@contextmanager
def _running(directory: Path, command: Callable[[int], list[str]]) -> Iterator[int]:
    port, _ = free_ports()
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            command(port), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory
        )
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), "the proxy to listen or to end")
        assert process.poll() is None, (directory / "output").read_text()
        yield port
    finally:
        process.kill()
        process.wait(20)


def _listens(port: int) -> bool:
    line = f" 0100007F:{port:04X} 00000000:0000 0A "
    return line in Path("/proc/net/tcp").read_text()


@contextmanager
def _haproxy(directory: Path, upstream: int) -> Iterator[int]:
    directory.mkdir()
    make_certificate(directory)
    both = (directory / "certificate.pem").read_text() + (directory / "key.pem").read_text()
    (directory / "both.pem").write_text(both)

    def command(port: int) -> list[str]:
        text = _HAPROXY.format(port=port, directory=directory, upstream=upstream)
        (directory / "haproxy.cfg").write_text(text)
        return [find("haproxy") or "haproxy", "-db", "-f", "haproxy.cfg"]

    with _running(directory, command) as port:
        yield port


@contextmanager
def _caddy(directory: Path, upstream: int) -> Iterator[int]:
    directory.mkdir()
    make_certificate(directory)

    def command(port: int) -> list[str]:
        text = _CADDY.format(name=NAME, port=port, directory=directory, upstream=upstream)
        (directory / "Caddyfile").write_text(text)
        return [find("caddy") or "caddy", "run", "--config", "Caddyfile"]

    with _running(directory, command) as port:
        yield port


#: What runs each in a directory that does not exist yet, in front of a port, and gives the port of its TLS.
PROXIES: Final = {"nginx": _nginx, "haproxy": _haproxy, "caddy": _caddy}


def is_installed(proxy: str) -> bool:
    """Whether this machine has it."""
    return (find_nginx() if proxy == "nginx" else find(proxy)) is not None
