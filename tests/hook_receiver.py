"""A web server that is told of waiting messages (D33): a real one, in a thread of its own, made with the standard library."""

from __future__ import annotations

import json
import os
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Call(NamedTuple):
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        """The body, decoded."""
        said: dict[str, Any] = json.loads(self.body)
        return said


class Receiver:
    """A context manager. `calls` are those that have come, oldest first."""

    def __init__(self, port: int = 0) -> None:
        #: The status and the headers of all answers.
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b""
        #: While it is not set, no call is answered.
        self.answers = threading.Event()
        self.answers.set()
        self.calls: list[Call] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.calls.append(Call(self.path, dict(self.headers.items()), body))
                receiver.answers.wait(60)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(receiver.body)))
                self.end_headers()
                self.wfile.write(receiver.body)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            # A client that has given up is none of our business.
            handle_error = staticmethod(lambda *arguments: None)  # type: ignore[assignment]

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?from=fastchat"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def said(self) -> list[dict[str, Any]]:
        """What all calls say."""
        return [call.said for call in list(self.calls)]


def new_secret() -> str:
    """As a provider of webhooks shows it."""
    return f"whsec_{b64encode(os.urandom(32)).decode()}"


def secret_file(path: Path, *secrets: str) -> Path:
    """A file that only its owner may read."""
    path.write_text("".join(f"{secret}\n" for secret in secrets))
    path.chmod(0o600)
    return path
