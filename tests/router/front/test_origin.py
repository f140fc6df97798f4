"""Tests of router.front.origin: D6."""

from __future__ import annotations

import pytest

from core.process.settings import ConfigurationError
from router.front.origin import Origin, OriginPolicy, is_loopback, parse_origin, split_host

LISTED = "https://chat.example.com"
WILDCARD = "https://*.example.com"


@pytest.mark.parametrize(
    ("allowed", "origin", "host", "expected"),
    [
        # This machine, any port, http and https, whatever the request's Host is.
        ("", "http://localhost", "chat.example.com", True),
        ("", "http://localhost:5173", "localhost:8000", True),
        ("", "https://localhost:8443", "localhost:8000", True),
        ("", "http://LOCALHOST:3000", "localhost:8000", True),
        ("", "http://127.0.0.1:3000", "localhost:8000", True),
        ("", "http://127.8.9.10", "localhost:8000", True),
        ("", "http://[::1]:3000", "localhost:8000", True),
        ("", "ftp://localhost", "localhost:8000", False),
        ("", "http://localhost.evil.example", "localhost:8000", False),
        ("", "http://127.0.0.1.evil.example", "localhost:8000", False),
        ("", "http://evil.example", "localhost:8000", False),
        # The request's own host, when it is an address.
        ("", "http://192.0.2.7:8000", "192.0.2.7:8000", True),
        ("", "http://192.0.2.7", "192.0.2.7", True),
        ("", "http://192.0.2.7", "192.0.2.7:80", True),
        ("", "https://192.0.2.7", "192.0.2.7", True),
        ("", "http://192.0.2.7:9000", "192.0.2.7:8000", False),
        ("", "http://192.0.2.8:8000", "192.0.2.7:8000", False),
        ("", "http://[2001:db8::1]:8000", "[2001:db8::1]:8000", True),
        # The request's own host, when it is a name: DNS rebinding, unless it is listed.
        ("", "http://evil.example:8000", "evil.example:8000", False),
        (LISTED, "https://chat.example.com:8000", "chat.example.com:8000", True),
        (LISTED, "https://CHAT.example.com:8000", "chat.EXAMPLE.com:8000", True),
        (LISTED, "https://chat.example.com:8001", "chat.example.com:8000", False),
        (WILDCARD, "https://a.example.com:8000", "a.example.com:8000", True),
        ("http://chat.example.com", "http://chat.example.com:8000", "chat.example.com:8000", True),
        (f"{LISTED},http://chat.example.com", "http://chat.example.com:1", "chat.example.com:1", True),
        # With a scheme that is not listed it is not the operator's page: anybody on the way can write one of http.
        (LISTED, "http://chat.example.com", "chat.example.com", False),
        (LISTED, "http://chat.example.com:443", "chat.example.com:443", False),
        (LISTED, "http://chat.example.com:8000", "chat.example.com:8000", False),
        ("http://chat.example.com", "https://chat.example.com", "chat.example.com", False),
        (f"{LISTED},http://a.example", "http://chat.example.com", "chat.example.com", False),
        (WILDCARD, "http://a.example.com", "a.example.com", False),
        (WILDCARD, "http://a.example.com:8000", "a.example.com:8000", False),
        ("app://mobile", "http://mobile", "mobile", False),
        # Listed origins: scheme, host and port.
        (LISTED, "https://chat.example.com", "backend:8000", True),
        (LISTED, "https://chat.example.com:443", "backend:8000", True),
        (LISTED, "HTTPS://Chat.Example.COM", "backend:8000", True),
        (LISTED, "http://chat.example.com", "backend:8000", False),
        (LISTED, "https://chat.example.com:8443", "backend:8000", False),
        (LISTED, "https://a.chat.example.com", "backend:8000", False),
        (f"https://other.example, {LISTED}", "https://chat.example.com", "backend:8000", True),
        ("https://chat.example.com:8443", "https://chat.example.com:8443", "backend", True),
        ("app://mobile", "app://mobile", "backend", True),
        # Subdomains.
        (WILDCARD, "https://a.example.com", "backend:8000", True),
        (WILDCARD, "https://a.b.example.com", "backend:8000", True),
        (WILDCARD, "https://example.com", "backend:8000", False),
        (WILDCARD, "https://evilexample.com", "backend:8000", False),
        (WILDCARD, "http://a.example.com", "backend:8000", False),
        (WILDCARD, "https://a.example.com:8443", "backend:8000", False),
        (WILDCARD, "https://a.example.com.evil.example", "backend:8000", False),
        # Pages without an origin, and what is none.
        ("", "null", "localhost:8000", False),
        (LISTED, "null", "localhost:8000", False),
        ("", "", "localhost:8000", False),
        ("", "localhost", "localhost:8000", False),
        ("", "http://", "localhost:8000", False),
        ("", "http://localhost/", "localhost:8000", False),
        ("", "http://user@localhost", "localhost:8000", False),
        ("", "http://localhost:99999", "localhost:8000", False),
        ("", "http://localhost:", "localhost:8000", False),
        ("", "http://localhost http://evil.example", "localhost:8000", False),
        ("", "http://l\u00f6calhost", "localhost:8000", False),
        ("", "http://[::1", "localhost:8000", False),
        ("", "http://192.0.2.7:8000", "not a host", False),
        # Everything.
        ("*", "null", "localhost:8000", True),
        ("null", "null", "localhost:8000", True),
        ("null", "file://", "localhost:8000", False),
        ("https://chat.example.com, file://", "file://", "localhost:8000", True),
        ("file://", "null", "localhost:8000", False),
        ("null", "https://evil.example", "localhost:8000", False),
        ("capacitor://localhost", "capacitor://localhost", "localhost:8000", True),
        ("chrome-extension://abcdef", "chrome-extension://abcdef", "localhost:8000", True),
        ("*", "http://evil.example", "localhost:8000", True),
        (f"{LISTED}, *", "https://evil.example", "backend", True),
    ],
)
def test_d6_which_pages_may_connect(allowed: str, origin: str, host: str, expected: bool) -> None:
    assert OriginPolicy(allowed).allows(origin, host) is expected


@pytest.mark.parametrize(
    "entry",
    [
        "example.com",
        "https://",
        "https://example.com/",
        "https://example.com/chat",
        "https://a b",
        "file:///",
        "*.example.com",
        "https://*",
        "https://a.*.com",
        "https://*.127.0.0.1",
        "https://example.com:99999",
        "https://user@example.com",
    ],
)
def test_an_entry_that_is_no_origin_is_refused_with_a_sentence(entry: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"FASTCHAT_ALLOWED_ORIGINS.*is not an origin; expected scheme://host"
    ):
        OriginPolicy(f"https://fine.example,{entry}")


@pytest.mark.parametrize("allowed", ["", " ", ",", "https://a.example, ,https://b.example,"])
def test_empty_entries_mean_nothing(allowed: str) -> None:
    assert not OriginPolicy(allowed).allows("https://evil.example", "evil.example")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Example.COM", ("example.com", None)),
        ("example.com:8000", ("example.com", 8000)),
        ("[2001:DB8::1]:80", ("2001:db8::1", 80)),
        ("", None),
        (":8000", None),
        ("a:b", None),
        ("a:65536", None),
        ("[zz]", None),
        ("a/b", None),
        ("a@b", None),
        ("::1", None),
    ],
)
def test_hosts_are_taken_apart(value: str, expected: tuple[str, int | None] | None) -> None:
    assert split_host(value) == expected


def test_origins_are_taken_apart() -> None:
    assert parse_origin("HTTPS://Example.com") == Origin("https", "example.com", 443)
    assert parse_origin("app://x") == Origin("app", "x", None)
    assert parse_origin("null") is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.1.2.3", True), ("::1", True), ("192.0.2.1", False), ("a", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
