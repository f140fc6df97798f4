"""The sockets on which the server listens, opened so that no second server can share a port by accident.

Several fronts listen on one port, each on a socket of its own with SO_REUSEPORT, and the kernel spreads the connections. But whoever
opens a socket with that option joins everybody else who did: a second server of the same user would silently get half of the first
one's clients. So the first socket of each address is bound and put to listening *without* the option, which the kernel grants to
nobody while anyone else listens there, and gets the option only then. There is no moment between probing and opening in which
another server could come in between.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from ipaddress import ip_address
from typing import Final

from core.process.settings import PREFIX, ConfigurationError
from router.front.origin import is_ip_literal

#: Connections that the kernel completes for a listener before anybody accepts them: a reconnect storm has to fit. The kernel
#: takes the lesser of this and net.core.somaxconn.
BACKLOG: Final = 4096
#: Seconds in which a taken port may become free: the children of a server that was killed need up to one to notice and go.
PATIENCE: Final = 1.5
_RETRY: Final = 0.05
#: How often a free port is looked for that is free on all addresses.
_FREE_PORT_TRIES: Final = 50
#: What the machine says when it has no such family, or not this address of it.
_ABSENT: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

LOCALHOST: Final = "localhost"
#: docs/protocol.md and the README say localhost, which some clients take to be the one, some the other.
_LOCALHOST_ADDRESSES: Final = ("127.0.0.1", "::1")


def addresses_of(setting: str, host: str) -> list[str]:
    """Return the addresses that `host`, the value of a setting, stands for. Raises ConfigurationError when there are none."""
    if host == LOCALHOST:
        return list(_LOCALHOST_ADDRESSES)
    if is_ip_literal(host):
        return [host]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConfigurationError(
            f"{PREFIX}{setting}: {host!r} is neither an IP address nor a host name that this machine can resolve"
        ) from None
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def are_loopback(addresses: list[str]) -> bool:
    """Return whether only this machine itself can connect to these."""
    return all(ip_address(address).is_loopback for address in addresses)


async def open_listeners(setting: str, addresses: list[str], port: int) -> list[socket.socket]:
    """Return one listening socket for each address, all on `port`, shared with nobody; port 0 is one that is free on all of them.

    A family that the machine lacks is left out as long as another address is there. Raises ConfigurationError, for ``{setting}PORT`` and
    ``{setting}HOST``, when the port stays taken or an address is not this machine's.
    """
    deadline = time.monotonic() + PATIENCE
    tries = 0
    while True:
        try:
            return _open_all(addresses, port)
        except _CanNotListen as problem:
            tries += 1
            if problem.error.errno == errno.EADDRINUSE:
                if port == 0 and tries < _FREE_PORT_TRIES:
                    continue
                if port and time.monotonic() < deadline:
                    await asyncio.sleep(_RETRY)
                    continue
            raise ConfigurationError(_sentence(setting, problem, port)) from None


def share(listener: socket.socket) -> socket.socket:
    """Return another listening socket on the same address and port, whose connections are its own."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    address, port = listener.getsockname()[:2]
    return _listen(address, port, shared=True)


def port_of(listeners: list[socket.socket]) -> int:
    """Return the port on which all of them listen."""
    port: int = listeners[0].getsockname()[1]
    return port


class _CanNotListen(Exception):
    def __init__(self, address: str, error: OSError) -> None:
        super().__init__(address, error)
        self.address = address
        self.error = error


def _open_all(addresses: list[str], port: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    absent: _CanNotListen | None = None
    try:
        for address in addresses:
            try:
                listeners.append(_listen(address, port or (port_of(listeners) if listeners else 0)))
            except OSError as error:
                problem = _CanNotListen(address, error)
                if error.errno not in _ABSENT:
                    raise problem from None
                absent = problem
        if absent is not None and not listeners:
            raise absent
    except _CanNotListen:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen(address: str, port: int, shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Connections of a server that has ended keep the port for a minute (TIME_WAIT); this says that they need not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # `::` means everything, as operators expect; any other address is what it says.
            listener.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not ip_address(address).is_unspecified)
            )
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _sentence(setting: str, problem: _CanNotListen, port: int) -> str:
    match problem.error.errno:
        case errno.EADDRINUSE:
            return (
                f"port {port} on {problem.address} is taken: stop the other server, or choose another port with"
                f" {PREFIX}{setting}PORT"
            )
        case errno.EACCES:
            return (
                f"port {port} on {problem.address} needs root or CAP_NET_BIND_SERVICE: choose a port above 1023 with"
                f" {PREFIX}{setting}PORT"
            )
        case error_number if error_number in _ABSENT:
            return (
                f"{PREFIX}{setting}HOST: {problem.address} is not an address of this machine; set an address of a network"
                " interface of this machine, or localhost"
            )
    return (
        f"can't listen on {problem.address}, port {port}: {problem.error.strerror}; choose another address or port with"
        f" {PREFIX}{setting}HOST or {PREFIX}{setting}PORT"
    )
