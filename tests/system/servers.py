"""Servers that a whole module shares, in the shape that it needs, and where users live in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.system.conftest import SERVERS
from tests.system.harness import Server, user_on_worker


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
