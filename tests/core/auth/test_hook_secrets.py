"""core.auth.hook_secrets: what is taken for a hook, and how calls are signed (D33)."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from core.auth.hook_secrets import load_secrets, signatures
from core.process.settings import ConfigurationError, Settings

_PATH = Path("/secret")


def line(size: int) -> bytes:
    """A secret of so many bytes, as a line."""
    return b"whsec_" + b64encode(bytes(size))


def loaded(content: bytes, url: str = "https://push.example.com/fastchat") -> tuple[bytes, ...]:
    """The secrets of a file."""
    return load_secrets(Settings(hook_url=url, hook_secret_file=_PATH), lambda path: content)


def test_one_or_two_lines_are_taken() -> None:
    assert loaded(line(24) + b"\n") == (bytes(24),)
    assert loaded(b"\n" + line(64) + b"\r\n" + line(32)) == (bytes(64), bytes(32))


def test_without_a_hook_there_is_nothing_to_load() -> None:
    assert load_secrets(Settings(), lambda path: b"") == ()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "/secret has 0 lines with text"),
        (line(32) + b"\n" + line(32) + b"\n" + line(32), "/secret has 3 lines with text"),
        (line(23), "the secret in line 1 has 23 bytes"),
        (line(65), "the secret in line 1 has 65 bytes"),
        (line(32) + b"\n" + line(32)[6:], "line 2 does not begin with `whsec_`"),
        (b"whsec_no*base64", "line 1 is not base64"),
        (b"whsec_AAA", "line 1 is not base64"),
        (b"\xff\x00", "line 1 does not begin with `whsec_`"),
    ],
)
def test_what_is_in_the_file_is_refused_without_a_word_of_it(content: bytes, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match="FASTCHAT_HOOK_SECRET_FILE: ") as refused:
        loaded(content)
    assert sentence in str(refused.value)
    assert "base64" in str(refused.value)
    assert "AAAA" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://x", "http://127.0.0.1:9000", "http://[::1]/a?b=c"])
def test_addresses_of_web_servers_are_taken(url: str) -> None:
    assert loaded(line(32), url)


@pytest.mark.parametrize(
    "url",
    [
        *("push.example.com", "ftp://x/", "http://", "http:///x", "http://x:99999", "http://x:0"),
        *(
            "http://x/a b",
            "http://x/\n",
            "http://\u00e4.example/",
            "http://[::1",
            "http://user:word@x/",
            "http://x/#a",
        ),
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FASTCHAT_HOOK_URL: .*expected an address such as"):
        loaded(line(32), url)


def test_one_setting_without_the_other_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="FASTCHAT_HOOK_URL is set, but calls can't be signed"):
        load_secrets(Settings(hook_url="https://x"), lambda path: b"")
    with pytest.raises(ConfigurationError, match="FASTCHAT_HOOK_SECRET_FILE is set, but no hook is called"):
        load_secrets(Settings(hook_secret_file=_PATH), lambda path: b"")


def test_a_file_that_cannot_be_read_is_named() -> None:
    def read(path: Path) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(ConfigurationError, match="can't read /secret: No such file or directory"):
        load_secrets(Settings(hook_url="https://x", hook_secret_file=_PATH), read)


def test_the_example_of_the_convention_is_signed_as_it_says() -> None:
    """From the documentation of Standard Webhooks and of its libraries."""
    from base64 import b64decode

    secret = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signatures((secret,), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
