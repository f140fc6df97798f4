"""Fixtures for servers, and their output in the report of a test that failed."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.system.bystanders import Bystanders
from tests.system.harness import Server, StartServer

if TYPE_CHECKING:
    from tests.system.browser import Browser

#: The servers that fixtures have started in this test process and not stopped yet.
SERVERS: Final = pytest.StashKey[list[Server]]()

#: Characters of a server's output that a report shows, counted from the end.
OUTPUT_SHOWN: Final = 8000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this directory, so that ``-m 'not system'`` leaves it out. pytest hands over the items of all."""
    here = f"{Path(__file__).parent}{os.sep}"
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.system)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for server in item.config.stash.get(SERVERS, []):
            report.sections.append((f"output of {server}", server.output()[-OUTPUT_SHOWN:]))
    return report


@contextmanager
def _running(config: pytest.Config, server: Server) -> Iterator[Server]:
    """A started server which is known to the reports until it has stopped."""
    servers = config.stash.setdefault(SERVERS, [])
    servers.append(server)
    try:
        with server:
            yield server
    finally:
        servers.remove(server)


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The ordinary server, with two workers and without limits: shared by all tests of this process that need no more.

    They leave it as it was: its processes run, nobody is online a few seconds later, and users are new in each test.
    """
    with _running(pytestconfig, Server(tmp_path_factory.mktemp("server"))) as server:
        yield server


@pytest.fixture(scope="module")
def own_server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same for one module, which counts what happens there, or does it harm."""
    with _running(pytestconfig, Server(tmp_path_factory.mktemp("server"))) as server:
        yield server


def _is_attack(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("attack") is not None


@pytest.fixture
def start_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers of this test's own: takes what `Server` takes after the directory; they are stopped at the end.

    Raises ServerFailed, with the exit code and the output, when a server does not start.
    """
    number = count()
    with ExitStack() as started:

        def start(**parameters: Any) -> Server:
            server = Server(tmp_path / f"server-{next(number)}", **parameters)
            started.enter_context(_running(request.config, server))
            if _is_attack(request):
                started.enter_context(Bystanders(server))
            return server

        yield start


@pytest.fixture(autouse=True)
def bystanders(request: pytest.FixtureRequest) -> Iterator[None]:
    """Beside each attack: people who chat on the servers that the module shares, and must not notice it."""
    with ExitStack() as pairs:
        if _is_attack(request):
            for server in request.config.stash.get(SERVERS, []):
                pairs.enter_context(Bystanders(server))
        yield


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the module; for longer it can't be, since no event loop can run in this thread as long as there is one."""
    # Only here, since it takes a while, and few tests need it.
    from tests.system.browser import running_browser

    with running_browser() as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser, without anybody in it; nothing may have gone wrong on any page at the end."""
    try:
        yield chromium
        chromium.assert_well()
    finally:
        chromium.close_visitors()
