"""The real nginx with what ``deploy/nginx`` ships, for tests: only addresses, paths and the certificate are others.

Clients come from addresses of their own, since all of 127.0.0.0/8 is this machine: ``Nginx.client("Alice", address="127.0.0.2")``.
"""

from __future__ import annotations

import datetime
import getpass
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.system.harness import PROJECT, ChatClient, processes, wait_until

SHIPPED: Final = PROJECT / "deploy" / "nginx"
NAME: Final = "chat.example.com"

#: What a user who is not root can't use, and what of Debian's nginx does not matter here.
TEMPORARY: Final = "".join(
    f"{name}_temp_path {name};\n" for name in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
)
MAIN_CHANGES: Final = {
    "user www-data;": f"user {getpass.getuser()};\ndaemon off;",
    "pid /run/nginx.pid;": "pid nginx.pid;",
    "include /etc/nginx/modules-enabled/*.conf;": "",
    "error_log /var/log/nginx/error.log;": "error_log error.log info;",
    "access_log /var/log/nginx/access.log;": f"access_log off;\n{TEMPORARY}",
    "include /etc/nginx/conf.d/*.conf;": "include fastchat.conf;",
    "include /etc/nginx/sites-enabled/*;": "",
}
#: Someone else may take a free port between the look and nginx's bind.
ATTEMPTS: Final = 5


def find_nginx() -> str | None:
    """Debian installs it where only root's PATH leads."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class Nginx:
    """A running nginx; `directory` has its configuration, its logs and the certificate."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], port: int, plain_port: int) -> None:
        self.directory = directory
        self.process = process
        #: Of TLS, and of what redirects there.
        self.port = port
        self.plain_port = plain_port
        #: Trusts the certificate.
        self.tls = ssl.create_default_context(cafile=directory / "certificate.pem")

    def client(
        self, name: str = "Somebody", user_id: str | None = None, *, address: str = "127.0.0.1", **more: Any
    ) -> ChatClient:
        """A user with wss, from one of this machine's addresses."""
        return ChatClient(
            f"wss://{NAME}:{self.port}/ws",
            user_id,
            name,
            ssl=self.tls,
            host="127.0.0.1",
            port=self.port,
            local_addr=(address, 0),
            **more,
        )

    def connect(
        self, *, name: str = NAME, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> ssl.SSLSocket:
        """A connection with TLS that has said nothing yet."""
        plain = socket.create_connection(("127.0.0.1", self.port), 20.0, (address, 0))
        try:
            return (tls or self.tls).wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    def ask(
        self,
        path: str,
        fields: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        address: str = "127.0.0.1",
    ) -> tuple[int, str, bytes]:
        """Status, header fields and body of an answer by HTTP/1.1."""
        with self.connect(address=address) as connection:
            connection.sendall(self.request(path, fields, method))
            return read_answer(connection)

    def request(self, path: str, fields: Mapping[str, str] | None = None, method: str = "GET") -> bytes:
        """The head of a request, which ends its connection unless `fields` say something else."""
        all_fields = {"Host": f"{NAME}:{self.port}", "Connection": "close", **(fields or {})}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in all_fields.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def workers(self) -> set[int]:
        """Its worker processes."""
        return {pid for pid, process in processes().items() if process.parent == self.process.pid}

    def log(self) -> str:
        """What it has logged."""
        return (self.directory / "error.log").read_text()

    def reload(self) -> None:
        """As ``systemctl reload nginx`` does; returns before it is done."""
        self.process.send_signal(signal.SIGHUP)


def read_answer(connection: socket.socket) -> tuple[int, str, bytes]:
    """Status, header fields and body of the one answer that comes before the end of a connection."""
    data = b""
    while part := connection.recv(65536):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), head.decode("latin-1"), body


@contextmanager
def running_nginx(
    directory: Path, upstream: int, changes: Mapping[str, str] | None = None
) -> Iterator[Nginx]:
    """nginx in front of the port `upstream`, in a `directory` that does not exist yet; with more `changes` of what is shipped."""
    directory.mkdir(parents=True)
    (directory / "logs").mkdir()
    make_certificate(directory)
    (directory / "nginx.conf").write_text(changed((SHIPPED / "nginx.conf").read_text(), MAIN_CHANGES))
    for _ in range(ATTEMPTS):
        port, plain_port = free_ports()
        site = changed((SHIPPED / "fastchat.conf").read_text(), changes or {})
        (directory / "fastchat.conf").write_text(adapted(site, directory, upstream, port, plain_port))
        process = start(directory)
        # It writes this when it has all of its ports.
        has_ports = (directory / "nginx.pid").exists
        wait_until(lambda: process.poll() is not None or has_ports(), "nginx to listen or to end")  # noqa: B023
        if process.poll() is None:
            break
        log = (directory / "error.log").read_text()
        assert "Address already in use" in log, log
    else:
        raise AssertionError(f"no free ports for nginx in {ATTEMPTS} attempts")
    try:
        yield Nginx(directory, process, port, plain_port)
    finally:
        process.terminate()
        process.wait(20)


def start(directory: Path) -> subprocess.Popen[bytes]:
    """nginx with the configuration in a directory."""
    with (directory / "error.log").open("ab") as output:
        return subprocess.Popen(
            [find_nginx() or "nginx", "-p", str(directory), "-e", "error.log", "-c", "nginx.conf"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def changed(text: str, changes: Mapping[str, str]) -> str:
    """A shipped text with other words in places that are there once."""
    for shipped, ours in changes.items():
        assert text.count(shipped) == 1, f"{shipped!r} expected once in what is shipped"
        text = text.replace(shipped, ours)
    return text


def adapted(site: str, directory: Path, upstream: int, port: int, plain_port: int) -> str:
    """The site with addresses and paths that a test may use; the name of the server stays."""
    for pattern, ours, times in (
        (r"listen 80\b", f"listen 127.0.0.1:{plain_port}", 2),
        (r"listen 443\b", f"listen 127.0.0.1:{port}", 2),
        # Not every machine has IPv6, so a second address stands in its place.
        (r"listen \[::\]:80\b", f"listen 127.0.0.2:{plain_port}", 2),
        (r"listen \[::\]:443\b", f"listen 127.0.0.2:{port}", 2),
        (r"server 127\.0\.0\.1:8000\b", f"server 127.0.0.1:{upstream}", 1),
        (r"/var/log/nginx/access\.log\b", "access.log", 2),
        (r"/var/www/html\b", str(directory / "html"), 1),
        (rf"/etc/letsencrypt/live/{NAME}/fullchain\.pem", str(directory / "certificate.pem"), 1),
        (rf"/etc/letsencrypt/live/{NAME}/privkey\.pem", str(directory / "key.pem"), 1),
    ):
        # Comments are left as they are.
        site, found = re.subn(rf"(?m)^([^#\n]*){pattern}", lambda match: match[1] + ours, site)  # noqa: B023
        assert found == times, (
            f"{pattern!r} expected {times} times in what is shipped, and is there {found} times"
        )
    return site


def make_certificate(directory: Path) -> None:
    """A certificate for `NAME` that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return int(one.getsockname()[1]), int(other.getsockname()[1])
