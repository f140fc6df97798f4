"""Servers that a whole module shares, in the shape that it needs; where users live in them, and whom they see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.system.conftest import SERVERS
from tests.system.harness import ChatClient, Server, user_on_worker


@contextmanager
def shared_server(
    config: pytest.Config, directories: pytest.TempPathFactory, **parameters: Any
) -> Iterator[Server]:
    """A started server for a fixture of a wider scope than `start_server`; takes what `Server` takes after the directory."""
    server = Server(directories.mktemp("server"), **parameters)
    servers = config.stash.setdefault(SERVERS, [])
    servers.append(server)
    try:
        with server:
            yield server
    finally:
        servers.remove(server)


def two_users(server: Server, where: str) -> tuple[str, str]:
    """Two new user ids: on the ``same shard``, or the second on an ``other shard``."""
    index = {"same shard": 0, "other shard": server.workers - 1}[where]
    return user_on_worker(0, server.workers), user_on_worker(index, server.workers)


#: user id -> display name.
Online = dict[str, str]


def online(data: dict[str, list[dict[str, object]]]) -> Online:
    """Who is online by a full PRESENCE."""
    assert data.keys() == {"users"}
    assert all(user.keys() == {"user_id", "display_name", "online"} for user in data["users"])
    assert all(user["online"] is True for user in data["users"])
    return {str(user["user_id"]): str(user["display_name"]) for user in data["users"]}


async def sees(client: ChatClient, condition: Callable[[Online], bool], timeout: float = 10.0) -> Online:
    """Wait until the last PRESENCE that `client` got satisfies the condition; PRESENCE is taken from the inbox by this."""
    deadline = time.monotonic() + timeout
    told = [online(message.data) for message in client.inbox if message.type == "PRESENCE"]
    client.inbox = [message for message in client.inbox if message.type != "PRESENCE"]
    while not told or not condition(told[-1]):
        told.append(online(await client.receive("PRESENCE", timeout=max(0.1, deadline - time.monotonic()))))
    return told[-1]
