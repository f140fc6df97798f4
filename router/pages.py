"""Everything on the public port that is not the chat: a page that says what this is, and ``/healthz``.

Served by aiohttp from sockets that a front has accepted and only peeked at. Every answer ends its connection: otherwise a proxy's next
request on the same connection, one for the chat perhaps, would come here instead of to the front.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from core.logs import fields

_log = logging.getLogger("fastchat.front")

#: Seconds that a client has to send the rest of a body that nobody reads.
_LINGER_SECONDS: Final = 2.0
#: Seconds that requests have to end when the front stops.
_STOP_SECONDS: Final = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STYLE: Final = """
:root { color-scheme: light dark; font: 100%/1.6 system-ui, sans-serif; }
body { max-width: 40rem; margin: 0 auto; padding: 2rem 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
code, pre { font: .9rem/1.5 ui-monospace, monospace; }
pre { white-space: pre-wrap; margin: .5rem 0; padding: .75rem 1rem; border: 1px solid #8886; border-radius: .5rem; }
"""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FastChat</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>FastChat</h1>
<p>A chat server for two people at a time: JSON messages over WebSocket. It is running.</p>
<h2>Connect</h2>
<p>The WebSocket is at</p>
<pre>{url}</pre>
<p>The first message says who you are; the user id is a UUID v4 of your own.</p>
<pre>{{"type": "HELLO", "data": {{"user_id": "0b5a1f0e-6a5c-4f0e-9d5e-0d6f3c1a7b42", "display_name": "Ada"}}}}</pre>
<p>The answer is <code>HELLO_ACK</code>, then <code>PRESENCE</code> with everybody who is online. Then open a chat with
<code>OPEN_CHAT</code> and write with <code>MSG</code>.</p>
<h2>Operate</h2>
<p><a href="/healthz">/healthz</a> answers while this server takes connections.</p>
</main>
</body>
</html>
"""
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


async def _index(request: web.Request) -> web.Response:
    # The client's own word for this server, since only the client knows how it got here.
    url = f"ws://{request.host}/ws"
    text = _PAGE.format(style=_STYLE, url=html.escape(url))
    return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": _POLICY})


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


@web.middleware
async def _say_where(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.Response(status=404, text="There is nothing at this path. The chat is at /ws.\n")


async def _last_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Called for every answer before it is written."""
    response.force_close()
    response.headers["Connection"] = "close"
    response.headers["Server"] = "FastChat"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"


class PageServer:
    """Answers on sockets that someone else accepted. `start` it first, `stop` it last."""

    def __init__(self) -> None:
        application = web.Application(middlewares=[_say_where])
        application.router.add_get("/", _index)
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

    def serve(self, client: socket.socket) -> None:
        """Answer the request that waits in `client`; the socket is the page server's from now on."""
        task = asyncio.get_running_loop().create_task(self._serve(client))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    @property
    def open(self) -> int:
        """Connections that are being served."""
        server = self._runner.server
        return len(self._starting) + (len(server.connections) if server is not None else 0)

    async def _serve(self, client: socket.socket) -> None:
        server = self._runner.server
        assert server is not None, "not started"
        try:
            await asyncio.get_running_loop().connect_accepted_socket(server, client)
        except OSError as error:
            _log.debug(
                "a client was gone before its page could be served", extra=fields(reason=error.strerror)
            )
            client.close()
