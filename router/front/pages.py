"""Everything on the public port that is not the chat itself: the chat page and its files, and ``/healthz``.

Served by aiohttp from sockets that a front has accepted and only peeked at. Every answer ends its connection: otherwise a proxy's next
request on the same connection, one for the chat perhaps, would come here instead of to the front.

Browsers keep the page's files, and ask each time whether they are still the same (``Cache-Control: no-cache`` and an ETag): a new
version is seen at once, and an old one costs a 304 without a body.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from core.events import fields
from router.front.origin import split_host
from router.security_headers import ALWAYS, PERMISSIONS, add_missing, page_policy
from router.static_files import WEB, StaticFile, read_static_files, without_comments

_log = logging.getLogger("fastchat.front")

#: The file that a browser gets for ``/``.
_INDEX: Final = "index.html"
#: The service worker, and the line of it that the server fills in: which files to keep, and their digests.
_WORKER: Final = "sw.js"
_SHELL: Final = 'const SHELL = { version: "", files: {} };'
#: Suffixes of the files without which the page does not open.
_SHELL_SUFFIXES: Final = frozenset({".html", ".css", ".js", ".svg", ".webmanifest"})
#: A service worker is under a policy of its own. This one fetches the page's files, and no more.
_WORKER_POLICY: Final = "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"
#: The line of the page that tells it where users log in.
_LOGIN: Final = b'<meta name="fastchat-login" content="">'
#: The folder of the JavaScript client belongs to the page; the admin port serves the dashboard's.
_CLIENT: Final = "client"
#: Characters of the version of the page's files.
_VERSION_LENGTH: Final = 20
#: Seconds that a client has to send the rest of a body that nobody reads.
_LINGER_SECONDS: Final = 2.0
#: Seconds that requests have to end when the front stops.
_STOP_SECONDS: Final = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def content_security_policy(host: str) -> str:
    """Say what the chat page may do: load its own files, and talk to the host that it came from, which the client calls `host`.

    Newer browsers take `'self'` for the WebSocket of the same host too; older ones want its URL. A `host` that is none is left out.
    """
    own = f" ws://{host} wss://{host}" if split_host(host) is not None else ""
    return page_policy(connect=f"'self'{own}", form="'self'", is_app=True)


def read_page(login_url: str) -> dict[str, StaticFile]:
    """Read the files of the chat page: path -> file. The page gets `login_url`, and the service worker the digests of the other files.

    So the bytes of the worker change with those of any file, by which a browser knows that the files it keeps are old.
    """

    def served(path: Path, body: bytes) -> bytes:
        if path.name == _INDEX and login_url:
            return body.replace(_LOGIN, _LOGIN.replace(b'""', f'"{html.escape(login_url)}"'.encode()))
        return without_comments(body.decode()).encode() if path.suffix == ".js" else body

    files = {
        "/" if name == _INDEX else f"/{name}": file
        for name, file in read_static_files(WEB, _CLIENT, change=served).items()
    }
    kept = {
        path: file.digest
        for path, file in files.items()
        if path != f"/{_WORKER}" and Path(path if path != "/" else _INDEX).suffix in _SHELL_SUFFIXES
    }
    version = hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:_VERSION_LENGTH]
    shell = f"const SHELL = {json.dumps({'version': version, 'files': kept})};"
    worker = without_comments((WEB / _WORKER).read_text()).replace(_SHELL, shell)
    files[f"/{_WORKER}"] = StaticFile(worker.encode(), ".js")
    return files


def _serve_file(file: StaticFile, headers: Mapping[str, str]) -> Handler:
    """Make a handler that answers with `file` and these `headers`, or with 304 to a client that has it.

    What a page may do is said with the page. Scripts and styles are under its policy, and get that of all other answers, which lets them do
    nothing by themselves: 300 bytes more for each of the 40 files would be a tenth of all that the page loads.
    """

    async def serve(request: web.Request) -> web.Response:
        if not file.is_page:
            return file.answer(request, headers)
        policy = content_security_policy(request.headers.get("Host", ""))
        return file.answer(request, {"Content-Security-Policy": policy, "Permissions-Policy": PERMISSIONS})

    return serve


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


@web.middleware
async def _say_where(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.Response(
            status=404, text="There is nothing at this path. The chat is at /, its WebSocket at /ws.\n"
        )


async def _last_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Change every answer before it is written."""
    response.force_close()
    response.headers["Connection"] = "close"
    add_missing(response, ALWAYS)


class _OneRequest(asyncio.Protocol):
    """Between a connection and aiohttp, which is to see the `size` bytes of one request: what follows is for nobody."""

    def __init__(self, handler: asyncio.Protocol, size: int) -> None:
        self._handler = handler
        self._left = size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._left:
            request = data[: self._left]
            self._left -= len(request)
            self._handler.data_received(request)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connection_lost(exc)


class PageServer:
    """Answers on sockets that someone else accepted. `start` it first, `stop` it last. `login_url` is where users log in, if anywhere."""

    def __init__(self, login_url: str) -> None:
        application = web.Application(middlewares=[_say_where])
        for path, file in read_page(login_url).items():
            headers = {"Content-Security-Policy": _WORKER_POLICY} if path == f"/{_WORKER}" else {}
            application.router.add_get(path, _serve_file(file, headers))
        application.router.add_get("/healthz", _health)
        application.on_response_prepare.append(_last_answer)
        self._runner = web.AppRunner(
            application,
            handle_signals=False,
            access_log=None,
            lingering_time=_LINGER_SECONDS,
            shutdown_timeout=_STOP_SECONDS,
        )
        #: The event loop keeps only weak references to tasks.
        self._starting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make ready to serve."""
        await self._runner.setup()

    async def stop(self) -> None:
        """End all connections."""
        await self._runner.cleanup()

    def serve(self, client: socket.socket, size: int) -> None:
        """Answer the request of `size` bytes that waits in `client`; the socket is the page server's from now on."""
        task = asyncio.get_running_loop().create_task(self._serve(client, size))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    @property
    def open(self) -> int:
        """Connections that are being served."""
        server = self._runner.server
        return len(self._starting) + (len(server.connections) if server is not None else 0)

    async def _serve(self, client: socket.socket, size: int) -> None:
        server = self._runner.server
        assert server is not None, "not started"
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: _OneRequest(server(), size), client)
        except OSError as error:
            _log.debug(
                "a client was gone before its page could be served", extra=fields(reason=error.strerror)
            )
            client.close()
