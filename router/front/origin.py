"""Which web pages may connect (D6): the rules about the Origin header, as plain functions of strings.

A browser tells with Origin which page opens the connection; other clients send none. By default a page may connect when it comes from
this machine (localhost, a loopback address), or from the very host that it connects to. The latter only where the host can't be
a name under somebody else's control: an attacker may point a domain of his at this server (DNS rebinding), and then Origin and Host
agree. So names count only when the operator listed them, and with the scheme that he listed: a page of http://chat.example.com may be the
work of anybody on the way to its reader, whatever https://chat.example.com is.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final, NamedTuple

from core.process.settings import PREFIX, ConfigurationError

_SETTING: Final = f"{PREFIX}ALLOWED_ORIGINS"
_HOST_AND_PORT: Final = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII | re.IGNORECASE
)
_ORIGIN: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.+)", re.ASCII | re.IGNORECASE)
#: Where the port is the scheme's own it is not written.
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_EVERYTHING: Final = "*"
#: What browsers write for a page that has no origin, such as a local file, a sandboxed frame, or a redirect between sites; and what some
#: others write for a local file (RFC 6454, 6 and 7).
NO_ORIGIN: Final = "null"
_FILE: Final = "file://"
_ANY_SUBDOMAIN: Final = "*."


class Origin(NamedTuple):
    """Scheme, host and port of a page, in lower case and without brackets; `port` is None where the scheme has no default."""

    scheme: str
    host: str
    port: int | None


def split_host(value: str) -> tuple[str, int | None] | None:
    """Split a Host header or an authority in host and port: lower case, no brackets. None when it is not one."""
    match = _HOST_AND_PORT.fullmatch(value)
    if match is None:
        return None
    host = match["host"].lower()
    if host.startswith("["):
        host = host[1:-1]
        if not is_ip_literal(host):
            return None
    port = None if match["port"] is None else int(match["port"])
    return None if port is not None and port > 65535 else (host, port)


def is_ip_literal(host: str) -> bool:
    """Return whether `host`, without brackets, is an address and not a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine by its own name or address: localhost, 127.0.0.0/8, ::1."""
    return host == "localhost" or (is_ip_literal(host) and ip_address(host).is_loopback)


def parse_origin(value: str) -> Origin | None:
    """Parse an origin as a browser writes it; None for ``null`` and for what is not an origin."""
    match = _ORIGIN.fullmatch(value)
    split = None if match is None else split_host(match["rest"])
    if match is None or split is None:
        return None
    scheme = match["scheme"].lower()
    host, port = split
    return Origin(scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else port)


class OriginPolicy:
    """What FASTCHAT_ALLOWED_ORIGINS means. Raises ConfigurationError for an entry that is not an origin."""

    __slots__ = ("_any", "_exact", "_own", "_subdomains", "_without_host")

    def __init__(self, allowed_origins: str = "") -> None:
        self._any = False
        #: `NO_ORIGIN` and `_FILE`, if they are listed: neither has a host.
        self._without_host: set[str] = set()
        self._exact: set[Origin] = set()
        #: (scheme, ``.example.com``, port) of entries such as ``https://*.example.com``.
        self._subdomains: set[Origin] = set()
        #: Scheme and host of the exact entries: pages of the request's own Host are trusted with any port.
        self._own: set[tuple[str, str]] = set()
        for entry in filter(None, map(str.strip, allowed_origins.split(","))):
            self._add(entry)

    def allows(self, origin: str, host: str) -> bool:
        """Return whether a request with this Origin header, sent to this Host, may connect."""
        if self._any:
            return True
        if origin in self._without_host:
            return True
        page = parse_origin(origin)
        if page is None:
            return False
        if is_loopback(page.host) and page.scheme in ("http", "https"):
            return True
        return page in self._exact or self._is_subdomain(page) or self._is_own(page, host)

    @property
    def allows_pages_without_origin(self) -> bool:
        """Whether `NO_ORIGIN` is listed, which any page of any site can put on by a sandboxed frame."""
        return NO_ORIGIN in self._without_host

    def _add(self, entry: str) -> None:
        if entry == _EVERYTHING:
            self._any = True
            return
        if entry in (NO_ORIGIN, _FILE):
            self._without_host.add(entry)
            return
        scheme, separator, rest = entry.partition("://")
        any_subdomain = rest.startswith(_ANY_SUBDOMAIN)
        origin = parse_origin(scheme + separator + rest.removeprefix(_ANY_SUBDOMAIN))
        if origin is None or (any_subdomain and is_ip_literal(origin.host)):
            raise ConfigurationError(
                f"{_SETTING}: {entry!r} is not an origin; expected scheme://host[:port] without a path, such as"
                " https://chat.example.com or https://*.example.com, file:// or null for pages without an origin, or * for all"
            )
        if any_subdomain:
            self._subdomains.add(origin._replace(host=f".{origin.host}"))
        else:
            self._exact.add(origin)
            self._own.add((origin.scheme, origin.host))

    def _is_subdomain(self, page: Origin) -> bool:
        return any(page.port == suffix.port and _is_below(page, suffix) for suffix in self._subdomains)

    def _is_own(self, page: Origin, host_header: str) -> bool:
        """Return whether the page comes from where the request goes, and that is a host which can't be someone else's."""
        split = split_host(host_header)
        if split is None:
            return False
        host, port = split
        if host != page.host or page.port != (_DEFAULT_PORTS.get(page.scheme) if port is None else port):
            return False
        if host == "localhost" or is_ip_literal(host):
            return True
        return (page.scheme, host) in self._own or any(_is_below(page, suffix) for suffix in self._subdomains)


def _is_below(page: Origin, suffix: Origin) -> bool:
    """Return whether `page` is of a subdomain, with the scheme of the entry; its port is not looked at."""
    return page.scheme == suffix.scheme and page.host.endswith(suffix.host)
