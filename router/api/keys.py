"""The keys of backends: who has one of them may call (D36)."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from pathlib import Path
from typing import Final

from core.chat.ratelimit import SlidingWindow
from core.process.private_files import read_private
from core.process.settings import PREFIX, ConfigurationError, Settings

#: Characters of a key: fewer can be guessed.
KEY_MIN: Final = 32
#: Keys in the file: one, and another one while backends change from the one to the other.
KEYS_MAX: Final = 2

#: Wrong keys from one address in a minute that are answered with 401; more are answered with 429.
TRIES_PER_MINUTE: Final = 10
#: Addresses that are remembered. One that is forgotten begins anew.
_ADDRESSES_MAX: Final = 1000

_SETTING: Final = f"{PREFIX}API_KEY_FILE"
#: Names that the port answers to.
HOSTS_SETTING: Final = "API_HOSTS"


def load_keys(path: Path) -> list[bytes]:
    """Read one key or two, one a line. Raises ConfigurationError, with a sentence that repeats nothing of them."""
    try:
        content = read_private(path)
    except OSError as error:
        raise ConfigurationError(
            f"{_SETTING}: can't read {path}: {error.strerror}; expected a file with one key"
        ) from None
    keys = [line for line in map(bytes.strip, content.splitlines()) if line]
    if not 1 <= len(keys) <= KEYS_MAX:
        raise ConfigurationError(
            f"{_SETTING}: {path} has {len(keys)} lines with keys; expected one line, or two while keys are changed"
        )
    for key in keys:
        if len(key) < KEY_MIN or not all(0x21 <= byte <= 0x7E for byte in key):
            raise ConfigurationError(
                f"{_SETTING}: a key in {path} has {len(key)} characters; expected at least {KEY_MIN} visible ASCII characters,"
                " such as those of `openssl rand -hex 32`"
            )
    return keys


class Keys:
    """Knows the keys, and who has tried others."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys
        #: address -> wrong keys of the last minute; who tried last stands last.
        self._tries: OrderedDict[str, SlidingWindow] = OrderedDict()

    def replace(self, keys: list[bytes]) -> None:
        """Take these keys from now on."""
        self._keys = keys

    def is_good(self, given: str) -> bool:
        """Return whether this is one of the keys; takes as long for each of them."""
        as_bytes = given.encode("utf-8", "surrogateescape")
        found = [hmac.compare_digest(as_bytes, key) for key in self._keys]
        return any(found)

    def tried(self, address: str, now: float) -> float:
        """Count a wrong key from an address; the seconds for which no more are looked at, 0.0 while some are."""
        window = self._tries.pop(address, None) or SlidingWindow(TRIES_PER_MINUTE)
        self._tries[address] = window
        if len(self._tries) > _ADDRESSES_MAX:
            self._tries.popitem(last=False)
        wait = window.retry_after(now)
        if not wait:
            window.count(now)
        return wait


def check_api(settings: Settings) -> None:
    """Check what can be checked before anything is opened. Raises ConfigurationError."""
    if settings.api_port is None:
        if settings.api_key_file is not None:
            raise ConfigurationError(
                f"{PREFIX}API_KEY_FILE is set, but there is no server API: set {PREFIX}API_PORT, or remove the file"
            )
        return
    if settings.api_key_file is None:
        raise ConfigurationError(
            f"{PREFIX}API_PORT is set: set {PREFIX}API_KEY_FILE too, to a file with the key of your backend, which only its owner may read"
        )
    load_keys(settings.api_key_file)
    for name in ("port", "admin_port"):
        if settings.api_port and settings.api_port == getattr(settings, name):
            raise ConfigurationError(
                f"{PREFIX}API_PORT and {PREFIX}{name.upper()} are both {settings.api_port}: choose two different ports"
            )
