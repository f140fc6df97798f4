"""core.process.addresses: what an address is, and which addresses are one source."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.process.addresses import format_address, host_of, is_this_machine, parse_address, source_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:DB8::1:0:0:0:7", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("2001:db8::1", "192.0.2.1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_an_ipv4_address_or_an_ipv6_64_is_one_source(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_who_changes_the_lower_half_of_an_ipv6_address_stays_where_he_is(
    upper: int, lower: int, other: int
) -> None:
    first, second = (IPv6Address((upper << 64) | rest) for rest in (lower, other))
    if first.ipv4_mapped is None and second.ipv4_mapped is None:
        assert source_of(str(first)) == source_of(str(second)) == f"{IPv6Address(upper << 64)}/64"


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_comes_out_of_its_text_again(address: IPv4Address | IPv6Address, port: int) -> None:
    for text in (format_address(str(address), port), format_address(str(address), 0)):
        assert host_of(text) == str(address)


@given(st.text(max_size=60))
def test_any_text_has_a_host_and_a_source(text: str) -> None:
    """They may make no sense, but nothing breaks."""
    assert isinstance(source_of(host_of(text)), str)
    parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.256",
        "1.2.3.4:80",
        "[::1]",
        "fe80::1%eth0",
        "0x7f000001",
        "127.1",
        "010.0.0.1",
        "1.2.3.4/8",
        " 1.2.3.4",
        "1.2.3.4\n",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


def test_this_machine() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert is_this_machine(host)
    for host in ("192.0.2.1", "10.0.0.1", "::2", "localhost", ""):
        assert not is_this_machine(host)
