"""The page server, loaded when somebody asks for a page: aiohttp takes longer to import than all the rest of a front.

It is imported in a thread, so that those who chat do not wait for it; those who asked for a page do.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.front.pages import PageServer


class PageLoader:
    """Answers requests for pages on sockets that someone else accepted. `stop` it last. `login_url` is where users log in, if anywhere."""

    def __init__(self, login_url: str) -> None:
        self._login_url = login_url
        self._server: PageServer | None = None
        self._loading: asyncio.Task[None] | None = None
        #: Sockets, and the sizes of their requests, until the page server is there.
        self._waiting: list[tuple[socket.socket, int]] = []

    def serve(self, client: socket.socket, size: int) -> None:
        """Answer the request of `size` bytes that waits in `client`; the socket is ours from now on."""
        if self._server is not None:
            self._server.serve(client, size)
            return
        self._waiting.append((client, size))
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load())

    async def stop(self) -> None:
        """End all connections."""
        if self._loading is not None:
            await self._loading
        if self._server is not None:
            await self._server.stop()

    @property
    def open(self) -> int:
        """Connections that are being served, or wait for it."""
        return len(self._waiting) + (self._server.open if self._server is not None else 0)

    async def _load(self) -> None:
        server = await asyncio.to_thread(_import_page_server, self._login_url)
        await server.start()
        # As the front does with all that lives as long as it does: the collector need not look at it again and again.
        gc.freeze()
        self._server = server
        for client, size in self._waiting:
            server.serve(client, size)
        self._waiting.clear()


def _import_page_server(login_url: str) -> PageServer:
    from router.front.pages import PageServer

    return PageServer(login_url)
