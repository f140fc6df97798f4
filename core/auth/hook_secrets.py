"""The secrets with which calls of the hook are signed (D33), by the convention of Standard Webhooks (standardwebhooks.com).

The file has one line, or two while the secret is changed: ``whsec_`` and 24 to 64 bytes in base64. Calls carry a signature by each, so a
receiver that knows one of them takes the call. What is refused is refused with a sentence that never repeats any of a secret.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from core.process.settings import PREFIX, ConfigurationError, Settings

_SECRET_PREFIX: Final = b"whsec_"
#: Bytes of a secret, as the convention says; and lines of the file.
_MIN_BYTES: Final = 24
_MAX_BYTES: Final = 64
_LINES_MAX: Final = 2
_EXPECTED: Final = f"expected one or two lines of `whsec_` and {_MIN_BYTES} to {_MAX_BYTES} bytes in base64"


def load_secrets(settings: Settings, read: Callable[[Path], bytes]) -> tuple[bytes, ...]:
    """Return the secrets of the hook; none when no hook is set. `read` gives the content of a file.

    Raises ConfigurationError when the URL is none, or the file is missing or has something else in it.
    """
    if not settings.hook_url:
        if settings.hook_secret_file is not None:
            raise ConfigurationError(
                f"{PREFIX}HOOK_SECRET_FILE is set, but no hook is called: set {PREFIX}HOOK_URL, or remove the file"
            )
        return ()
    _check_url(settings.hook_url)
    path = settings.hook_secret_file
    if path is None:
        raise ConfigurationError(
            f"{PREFIX}HOOK_URL is set, but calls can't be signed: set {PREFIX}HOOK_SECRET_FILE to a file with a secret"
        )
    setting = f"{PREFIX}HOOK_SECRET_FILE"
    try:
        lines = read(path).split()
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: can't read {path}: {error.strerror}; expected a file that the server's user can read"
        ) from None
    if not 1 <= len(lines) <= _LINES_MAX:
        raise ConfigurationError(f"{setting}: {path} has {len(lines)} lines with text; {_EXPECTED}")
    return tuple(_secret(line, number, f"{setting}: {path}") for number, line in enumerate(lines, 1))


def signatures(secrets: tuple[bytes, ...], call_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that say which call this is, when it is sent, in seconds since 1970, and that it is ours."""
    signed = b"%b.%d.%b" % (call_id.encode(), timestamp, body)
    each = (b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in secrets)
    return {
        "webhook-id": call_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in each),
    }


def _check_url(url: str) -> None:
    expected = "expected an address such as https://push.example.com/fastchat"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{PREFIX}HOOK_URL: {url!r} is no address of a web server; {expected}")
    if "@" in parts.netloc or parts.fragment:
        raise ConfigurationError(
            f"{PREFIX}HOOK_URL: the address must have neither a user name nor a fragment; {expected}"
        )


def _secret(line: bytes, number: int, where: str) -> bytes:
    if not line.startswith(_SECRET_PREFIX):
        raise ConfigurationError(f"{where}: line {number} does not begin with `whsec_`; {_EXPECTED}")
    try:
        secret = b64decode(line.removeprefix(_SECRET_PREFIX), validate=True)
    except Error:
        raise ConfigurationError(f"{where}: line {number} is not base64; {_EXPECTED}") from None
    if not _MIN_BYTES <= len(secret) <= _MAX_BYTES:
        raise ConfigurationError(f"{where}: the secret in line {number} has {len(secret)} bytes; {_EXPECTED}")
    return secret
