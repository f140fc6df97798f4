"""One call of the hook (D33), as a worker makes it, for an operator who wants to see whether it works."""

from __future__ import annotations

import http.client
from time import perf_counter, time
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from core.auth.hook_secrets import load_secrets, signatures
from core.process.private_files import read_private
from core.process.settings import PREFIX, ConfigurationError, Settings
from core.wire.codec import to_json

#: Seconds, as in ``workers.hook``.
_TIMEOUT: Final = 10.0


class Answer(NamedTuple):
    """What came back."""

    #: Whether a message would count as told.
    is_good: bool
    text: str


def call_hook(settings: Settings, user: str | None) -> Answer:
    """Call the hook once. Raises ConfigurationError if there is none, or the settings are no good."""
    secrets = load_secrets(settings, read_private)
    if not secrets:
        raise ConfigurationError(f"there is no hook: set {PREFIX}HOOK_URL and {PREFIX}HOOK_SECRET_FILE")
    body = to_json({"type": "hook.test", "to": user})
    headers = signatures(secrets, f"msg_{uuid4().hex}", int(time()), body)
    url = urlsplit(settings.hook_url)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=_TIMEOUT)
    path = url._replace(scheme="", netloc="").geturl() or "/"
    began = perf_counter()
    try:
        connection.request(
            "POST", path, body, {"Content-Type": "application/json", "User-Agent": "FastChat"} | headers
        )
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Answer(False, f"no answer after {_since(began)}: {str(error) or type(error).__name__}")
    finally:
        connection.close()
    told = 200 <= status < 300
    meaning = "a message would count as told" if told else "a message would not count as told"
    return Answer(told, f"status {status} after {_since(began)}: {meaning}")


def _since(began: float) -> str:
    return f"{(perf_counter() - began) * 1000:.0f} ms"
