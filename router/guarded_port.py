"""A port for operators and backends on a network that is not the public one: who may ask it, and how it begins and ends.

A web page that somebody on that network has open could ask the port too, by way of a domain that points here (DNS rebinding). Such a
request names that domain in Host, so only names that are this machine's own are answered. And no page of another origin may take in what
is answered, as a frame, an image, a script or otherwise.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Final

from aiohttp import HttpVersion11, web

from core.process.settings import PREFIX, ConfigurationError
from router.accepting import Accepting
from router.front.origin import is_ip_literal, is_loopback, split_host
from router.security_headers import ADMIN, add_missing
from router.supervisor.listeners import LOCALHOST

#: Seconds that requests have to end when the server stops.
_STOP_SECONDS: Final = 0.5

#: Looks in that time whether they have ended.
_LOOKS: Final = 50
#: Seconds that who has connected last has for a request.
_FIRST_REQUEST_SECONDS: Final = 0.05

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def parse_hosts(setting: str, value: str) -> frozenset[str]:
    """Parse the names in a setting, separated by commas. Raises ConfigurationError for what is not the name of a host."""
    names = set()
    for entry in filter(None, map(str.strip, value.split(","))):
        split = split_host(entry)
        if split is None or split[1] is not None:
            raise ConfigurationError(
                f"{PREFIX}{setting}: {entry!r} is not the name of a host; expected names without a port, by commas, such as"
                " fastchat,fastchat.chat.svc.cluster.local"
            )
        names.add(split[0])
    return frozenset(names)


class GuardedPort:
    """Serves an application on sockets that listen already."""

    def __init__(
        self,
        host: str,
        listeners: list[socket.socket],
        application: web.Application,
        setting: str,
        names: Collection[str] = (),
    ) -> None:
        """`names` are those that Host may have besides `host` and addresses, from this `setting`."""
        self._host = host.lower()
        self._names = names
        self._wrong_host = (
            "This port answers to localhost, to its own address, and to the names in"
            f" {PREFIX}{setting}: the request's Host is another.\n"
        )
        self._listeners = listeners
        self._accepting: Accepting | None = None
        self._begun: set[asyncio.Task[None]] = set()
        #: Requests that are being answered.
        self._requests = 0
        application.middlewares.insert(0, self._check_host)
        application.on_response_prepare.append(_set_headers)
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, shutdown_timeout=_STOP_SECONDS
        )

    async def start(self) -> None:
        """Begin to answer."""
        await self._runner.setup()
        self._accepting = Accepting(self._listeners, self._connected)
        self._accepting.start()

    async def go_quiet(self) -> None:
        """Accept nobody, and wait for a moment at most until all who are connected have their answers."""
        assert self._accepting is not None, "it was started"
        self._accepting.pause()
        await asyncio.sleep(_FIRST_REQUEST_SECONDS)
        for _ in range(_LOOKS):
            if not self._is_busy():
                return
            await asyncio.sleep(_STOP_SECONDS / _LOOKS)

    def go_on(self) -> None:
        """Accept again after `go_quiet`."""
        assert self._accepting is not None, "it was started"
        self._accepting.start()

    async def stop(self) -> None:
        """Close the port and all connections to it."""
        if self._accepting is not None:
            self._accepting.close()
        await self._runner.cleanup()

    def _connected(self, connection: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._begin(connection))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _begin(self, connection: socket.socket) -> None:
        server = self._runner.server
        assert server is not None, "it is set up"
        with suppress(OSError):  # the client may have gone already
            await asyncio.get_running_loop().connect_accepted_socket(server, connection)

    def _is_busy(self) -> bool:
        """Return whether a request is being answered, or an answer waits for its client."""
        server = self._runner.server
        transports = [each.transport for each in server.connections] if server is not None else []
        return self._requests > 0 or any(
            transport.get_write_buffer_size() for transport in transports if transport is not None
        )

    def is_own_host(self, header: str) -> bool:
        """Return whether a Host header names this machine and not a domain that somebody pointed at it."""
        split = split_host(header)
        if split is None:
            return False
        host, _ = split
        if is_loopback(host) or host == self._host or host in self._names:
            return True
        # Who opened the port to other machines is asked by address; an address can't be rebound.
        return self._host != LOCALHOST and not is_loopback(self._host) and is_ip_literal(host)

    @web.middleware
    async def _check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) > 1 or (not hosts and request.version >= HttpVersion11):
            return web.Response(status=400, text="A request of HTTP/1.1 has exactly one Host header.\n")
        # HTTP/1.0 without Host is a health check of a load balancer, such as haproxy's; every browser sends Host.
        if hosts and not self.is_own_host(hosts[0]):
            return web.Response(status=403, text=self._wrong_host)
        self._requests += 1
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as refused:
            if request.method != "OPTIONS":
                raise
            # The question of a load balancer that was not told what to ask; haproxy's is "OPTIONS / HTTP/1.0".
            return web.Response(status=204, headers={"Allow": ", ".join(sorted(refused.allowed_methods))})
        finally:
            self._requests -= 1


async def _set_headers(request: web.Request, response: web.StreamResponse) -> None:
    add_missing(response, ADMIN)
