"""Clients' addresses, as text: how they are written, and what limits take for one source."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

#: How much of an IPv6 address says whose it is: a provider gives each customer a /64 at least, who may use any address in it.
_PREFIX_BITS: Final = 64
_REST_BITS: Final = 128 - _PREFIX_BITS


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address, an IPv4 one that is written as IPv6 (``::ffff:192.0.2.1``) too. None when it is none, or has a scope."""
    if "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def format_address(host: str, port: int) -> str:
    """Return ``192.0.2.1:40000`` or ``[2001:db8::1]:40000``; without the port when it is 0, which is to say not known."""
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown


def host_of(address: str) -> str:
    """Return the address that `format_address` has written, without port and brackets."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, colon, port = address.rpartition(":")
    return host if colon and port.isdecimal() and ":" not in host else address


def source_of(host: str) -> str:
    """Return the source of `host`: an IPv4 address, or the first 64 bits of an IPv6 address. What is no address stands for itself."""
    if ":" not in host:
        return host
    address = parse_address(host.partition("%")[0])
    if address is None:
        return host
    if isinstance(address, IPv4Address):
        return str(address)
    return f"{IPv6Address(int(address) >> _REST_BITS << _REST_BITS)}/{_PREFIX_BITS}"


def is_this_machine(host: str) -> bool:
    """Return whether it is an address of loopback: somebody on this machine, such as a proxy."""
    address = parse_address(host)
    return address is not None and address.is_loopback
