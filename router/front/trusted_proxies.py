"""Whose word about a client's address is believed: FASTCHAT_TRUSTED_PROXIES, as plain functions of strings.

Each proxy on the way appends to X-Forwarded-For the address that it was called from. So the last entry is the word of the proxy that is
connected to us, the one before it that of the proxy before, and whatever a client has written itself stands left of them. Hence the list is
walked from the right, for as long as the one who speaks is trusted: the first address that is not a trusted proxy's is the client's.
Nobody is trusted by default, and then the header means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from core.process.addresses import host_of, parse_address
from core.process.settings import PREFIX, ConfigurationError

_SETTING: Final = f"{PREFIX}TRUSTED_PROXIES"
#: Proxies on one way; what is left of them is not looked at.
_HOPS_MAX: Final = 16


class TrustedProxies:
    """What FASTCHAT_TRUSTED_PROXIES means. Raises ConfigurationError for an entry that is neither an address nor a network."""

    __slots__ = ("_addresses", "_networks")

    def __init__(self, trusted_proxies: str = "") -> None:
        self._addresses: set[IPv4Address | IPv6Address] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in filter(None, map(str.strip, trusted_proxies.split(","))):
            self._add(entry)

    def __bool__(self) -> bool:
        return bool(self._addresses or self._networks)

    def trusts(self, host: str) -> bool:
        """Return whether the word of whoever has this address is believed."""
        if not self:
            return False
        address = parse_address(host)
        return address is not None and self._trusts(address)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address of the client, as text.

        `peer` is who is connected to us, `forwarded` all X-Forwarded-For of the request, in their order. When a proxy's word makes no
        sense, the client is somewhere behind that proxy, and the proxy's address is the answer: nobody gains anything by writing nonsense.
        """
        believed = parse_address(peer)
        if believed is None:
            return peer
        for entry in _from_the_right(forwarded):
            if not self._trusts(believed):
                break
            before = _parse(entry)
            if before is None:
                break
            believed = before
        return str(believed)

    def _add(self, entry: str) -> None:
        address = parse_address(entry)
        if address is not None:
            self._addresses.add(address)
            return
        try:
            if "%" in entry:
                raise ValueError("a scope means nothing here")
            self._networks.append(ip_network(entry))
        except ValueError:
            raise ConfigurationError(
                f"{_SETTING}: {entry!r} is neither an address nor a network; expected is for instance 127.0.0.1,10.1.0.0/16"
            ) from None

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return address in self._addresses or any(address in network for network in self._networks)


def _from_the_right(forwarded: Sequence[str]) -> list[str]:
    entries: list[str] = []
    for header in reversed(forwarded):
        entries += reversed(header.rsplit(",", _HOPS_MAX))
        if len(entries) >= _HOPS_MAX:
            break
    return entries[:_HOPS_MAX]


def _parse(entry: str) -> IPv4Address | IPv6Address | None:
    """Parse an entry of X-Forwarded-For; some proxies add a port."""
    entry = entry.strip(" \t")
    address = parse_address(entry)
    return parse_address(host_of(entry)) if address is None else address
