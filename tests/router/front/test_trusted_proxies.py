"""router.front.trusted_proxies: whose word about a client's address is believed, and that nobody else's is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.process.settings import ConfigurationError
from router.front.trusted_proxies import TrustedProxies

PROXY = "10.0.0.1"
CLIENT = "203.0.113.9"


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        # Nobody is trusted by default, so what a client writes means nothing.
        ("", PROXY, ["1.2.3.4"], PROXY),
        ("10.0.0.2", PROXY, ["1.2.3.4"], PROXY),
        # One proxy: its word is the last entry, and what stands before is the client's own.
        (PROXY, PROXY, [CLIENT], CLIENT),
        (PROXY, PROXY, [f"1.2.3.4, {CLIENT}"], CLIENT),
        (PROXY, PROXY, [f"127.0.0.1,10.0.0.1,{CLIENT}"], CLIENT),
        (PROXY, PROXY, ["1.2.3.4", CLIENT], CLIENT),
        (PROXY, PROXY, ["1.2.3.4, 5.6.7.8", f"9.9.9.9,{CLIENT}"], CLIENT),
        # Several: as long as the one who speaks is trusted.
        ("10.0.0.0/8", PROXY, [f"1.2.3.4, {CLIENT}, 10.0.0.7, 10.1.1.1"], CLIENT),
        ("10.0.0.1,10.1.1.1", PROXY, [f"{CLIENT}, 10.0.0.7, 10.1.1.1"], "10.0.0.7"),
        ("10.0.0.0/8", PROXY, ["10.0.0.5, 10.0.0.6"], "10.0.0.5"),
        # Without a word it is the proxy itself.
        (PROXY, PROXY, [], PROXY),
        (PROXY, PROXY, [""], PROXY),
        # A word that makes no sense is none.
        (PROXY, PROXY, [f"{CLIENT}, unknown"], PROXY),
        (PROXY, PROXY, [f"{CLIENT}, _secret"], PROXY),
        (PROXY, PROXY, [f"{CLIENT},"], PROXY),
        ("10.0.0.0/8", PROXY, [f"{CLIENT}, <script>, 10.0.0.7"], "10.0.0.7"),
        (PROXY, PROXY, ["\0\r\n"], PROXY),
        (PROXY, PROXY, ["1.2.3.4 5.6.7.8"], PROXY),
        # Some proxies add a port; and IPv6.
        (PROXY, PROXY, [f"{CLIENT}:4711"], CLIENT),
        (PROXY, PROXY, ["[2001:db8::9]:4711"], "2001:db8::9"),
        (PROXY, PROXY, ["2001:DB8::9"], "2001:db8::9"),
        ("2001:db8::/32", "2001:db8::1", [CLIENT], CLIENT),
        ("::1", "::1", ["2001:db8::9"], "2001:db8::9"),
        # However an IPv4 address is written, it is the same.
        (PROXY, f"::ffff:{PROXY}", [f"::ffff:{CLIENT}"], CLIENT),
        (f"::ffff:{PROXY}", PROXY, [CLIENT], CLIENT),
        ("0.0.0.0/0,::/0", PROXY, [f"{CLIENT}, 4.4.4.4"], CLIENT),
    ],
)
def test_the_list_is_walked_from_the_right(
    trusted: str, peer: str, forwarded: list[str], client: str
) -> None:
    assert TrustedProxies(trusted).client(peer, forwarded) == client


@given(st.lists(st.text(max_size=50)), st.text("0123456789.:,abcdef[] ", max_size=200))
def test_whatever_a_client_writes_the_proxys_word_counts(spoofed: list[str], more: str) -> None:
    """The proxy appends, to the last header or as another one."""
    proxies = TrustedProxies(PROXY)
    assert proxies.client(PROXY, [*spoofed, f"{more}, {CLIENT}"]) == CLIENT
    assert proxies.client(PROXY, [*spoofed, more, CLIENT]) == CLIENT


@given(st.lists(st.text(max_size=50)))
def test_without_trust_the_header_is_not_looked_at(spoofed: list[str]) -> None:
    assert TrustedProxies().client(CLIENT, spoofed) == CLIENT
    assert TrustedProxies(PROXY).client(CLIENT, spoofed) == CLIENT


def test_an_endless_list_is_cut() -> None:
    """Also when all of it could be believed."""
    proxies = TrustedProxies("10.0.0.0/8")
    assert proxies.client(PROXY, ["10.0.0.9," * 1_000_000 + "10.0.0.2"]) == "10.0.0.9"
    assert proxies.client(PROXY, [CLIENT] + ["10.0.0.2"] * 100) == "10.0.0.2"


@pytest.mark.parametrize(
    "entry",
    [
        "localhost",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0",
        "*",
        "unix:",
        "::1%lo",
        "example.com",
        "10.0.0.1 10.0.0.2",
    ],
)
def test_an_entry_that_is_neither_address_nor_network_stops_the_start(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FASTCHAT_TRUSTED_PROXIES: .* is neither"):
        TrustedProxies(f"127.0.0.1,{entry}")


def test_blanks_between_entries_do_not_matter() -> None:
    proxies = TrustedProxies(" 10.0.0.1 ,, 2001:db8::/32 ,")
    assert proxies
    assert proxies.trusts("10.0.0.1")
    assert proxies.trusts("2001:db8::7")
    assert not proxies.trusts("10.0.0.2")
    assert not TrustedProxies(" , ")
