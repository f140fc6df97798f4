"""A backend that calls the server API, as any program would that can speak HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.system.harness import Server
from tests.system.status import status

KEY = "a-key-of-the-tests-with-40-characters-xxx"


def key_file(directory: Path, *keys: str) -> Path:
    """A file with keys that only its owner may use."""
    path = directory / "api-keys"
    path.touch(0o600)
    path.write_text("\n".join(keys or (KEY,)) + "\n")
    return path


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any


class Backend:
    """Calls the API of a server with a key."""

    def __init__(self, server: Server, key: str | None = KEY) -> None:
        self.port: int = status(server)["settings"]["api_port"]
        self.key = key

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call it; `body` is JSON to be, or bytes."""
        sent = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        try:
            encoded = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, encoded, {**sent, **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        found = dict(answer.getheaders())
        is_json = "json" in found.get("Content-Type", "") and "ndjson" not in found["Content-Type"]
        return Answer(answer.status, found, json.loads(text) if is_json else text.decode())

    async def acall(self, method: str, path: str, body: Any = None) -> Answer:
        """The same, while connections are kept alive."""
        return await asyncio.to_thread(self.call, method, path, body)

    def user(self, user_id: str, rest: str = "") -> str:
        """The path of a user."""
        return f"/v1/users/{quote(user_id, safe='')}{rest}"

    async def create(self, *users: tuple[str, str]) -> None:
        """Create users, each an id and a name."""
        body = {"users": [{"user_id": user_id, "display_name": name} for user_id, name in users]}
        answer = await self.acall("POST", "/v1/users", body)
        assert answer.status == 200, answer
