"""A worker that has all the memory it may have: newcomers are told to come back, and operators why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.harness import StartServer, wait_until
from tests.system.raw_client import RawClient
from tests.system.status import status

pytestmark = pytest.mark.slow


def test_d28_newcomers_are_refused_with_1013_when_memory_is_full(start_server: StartServer) -> None:
    """At once and with a reason; a Python process is always larger than 1 MiB."""
    server = start_server(workers=1, worker_memory_mib=1)
    with RawClient.upgraded(server.port) as client:
        client.send(client.hello_bytes())
        code, reason = client.closed()
        assert (code, reason) == (1013, "this server has no memory for more; reconnect later")
        assert client.inbox == [], "nobody is greeted"

    def worker() -> dict[str, Any]:
        found: dict[str, Any] = status(server)["processes"][0]
        return found

    wait_until(lambda: worker()["stats"].get("memory_refused_total") == 1, "the refusal to be counted")
    told = worker()
    assert (told["kind"], told["state"]) == ("worker", "ready")
    assert "FASTCHAT_WORKER_MEMORY_MIB" in told["problem"]
    assert (told["stats"]["users"], told["stats"]["connections"]) == (0, 0)
    assert status(server)["status"] == "degraded"
