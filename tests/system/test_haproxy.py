"""haproxy takes the server for UP by each of its usual checks of the admin port, and for DOWN when there is none."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.system.harness import StartServer, wait_until

pytestmark = pytest.mark.slow

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")

#: `{check}` is what haproxy asks; `status.sock` tells what it thinks of the server.
CONFIGURATION = """
global
    stats socket {directory}/status.sock mode 600
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
backend chat
    {check}
    server one 127.0.0.1:{port} check inter 100ms rise 1 fall 1
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="fastchat-") as name:
        yield Path(name)


def opinions(directory: Path) -> list[str]:
    """What haproxy tells of the server: its status, and the code of the last check."""
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(10)
            asked.connect(str(directory / "status.sock"))
            asked.sendall(b"show stat\n")
            rows = asked.makefile().read().splitlines()
    except OSError:
        return []  # it is not there yet
    names = rows[0].lstrip("# ").split(",")
    (row,) = [dict(zip(names, row.split(","), strict=False)) for row in rows if row.startswith("chat,one,")]
    return [row["status"], row["check_code"]]


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed (apt-get install haproxy)")
@pytest.mark.parametrize(
    ("check", "code"),
    [
        ("option httpchk GET /readyz", "200"),
        ("option httpchk", "204"),
        ("option httpchk /readyz", "200"),
        ("option httpchk\n    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host fastchat", "200"),
    ],
)
def test_a_check_by_haproxy(start_server: StartServer, directory: Path, check: str, code: str) -> None:
    server = start_server(workers=1, admin_hosts="fastchat")
    (directory / "haproxy.cfg").write_text(
        CONFIGURATION.format(directory=directory, check=check, port=urlsplit(server.admin_url).port)
    )
    assert HAPROXY is not None
    haproxy = subprocess.Popen(
        [HAPROXY, "-db", "-f", str(directory / "haproxy.cfg")],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: opinions(directory) == ["UP", code], f"haproxy to find the server up by {check!r}")
        server.stop()
        wait_until(lambda: opinions(directory)[:1] == ["DOWN"], "haproxy to find that it has gone")
    finally:
        haproxy.kill()
        haproxy.wait()
