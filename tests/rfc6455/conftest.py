"""The server that echoes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rfc6455.echo import echo_server
from tests.router.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with echo_server(tmp_path_factory.mktemp("echo")) as server:
        yield server
