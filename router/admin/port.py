"""The admin port: what the server is doing, for operators and their tools. It only reads."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from aiohttp import web

from core.wire.codec import to_json
from router.guarded_port import GuardedPort

HOSTS_SETTING: Final = "ADMIN_HOSTS"


class AdminServer(GuardedPort):
    """`status` returns what `/status` shows."""

    def __init__(
        self,
        host: str,
        listeners: list[socket.socket],
        status: Callable[[], dict[str, Any]],
        routes: Sequence[web.RouteDef] = (),
        names: Collection[str] = (),
    ) -> None:
        """`routes` are answered beside its own. `names` are those that Host may have besides."""
        self._status = status
        application = web.Application()
        application.router.add_get("/status", self._get_status)
        application.router.add_routes(routes)
        super().__init__(host, listeners, application, HOSTS_SETTING, names)

    async def _get_status(self, request: web.Request) -> web.Response:
        return web.Response(body=to_json(self._status()), content_type="application/json")
