"""The programs of docs/integrate.md run as they stand there, against a server that is started as the page says."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.clients.node import node
from tests.system.harness import ChatClient, Server, StartServer, run_async, wait_until
from tests.system.integration import TIMEOUT, App, commands, files, is_private, make_app
from tests.system.servers import shared_server


@pytest.fixture(scope="module")
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One for tests that have no users in common."""
    with ExitStack() as started:

        def start(**settings: Any) -> Server:
            return started.enter_context(shared_server(request.config, tmp_path_factory, **settings))

        yield make_app(tmp_path_factory.mktemp("home"), start)


def test_the_page_has_these_files_and_they_are_short() -> None:
    names = [
        "tokens.py",
        "tokens.mjs",
        "backend.py",
        "hook.py",
        "app.py",
        "chat.html",
        "useChat.js",
        "main.jsx",
        "react.html",
    ]
    assert list(files()) == names
    lines = {name: len(content.splitlines()) for name, content in files().items()}
    assert lines["useChat.js"] <= 60
    assert lines["chat.html"] <= 30


async def name_with(token: str, app: App) -> str:
    """The name of Zoe that others see, when she has come with a token."""
    async with ChatClient(app.server.url, "zoe", "Somebody else") as zoe:
        await zoe.hello(token=token)
    facts = (await app.backend().acall("GET", "/v1/users/zoe")).body
    return str(facts["display_name"])


@run_async
async def test_both_programs_make_tokens_that_the_server_takes(app: App) -> None:
    assert is_private(f"{app.environment['CHAT_KEYS']}/jwt")
    assert await name_with(app.run("tokens.py", "zoe", "Zoe Lee").strip(), app) == "Zoe Lee"
    assert await name_with(app.run(node(), "tokens.mjs", "zoe", "Zoë Ölé").strip(), app) == "Zoë Ölé"


@run_async
async def test_the_backend_writes_to_a_user_who_has_never_been_here(app: App) -> None:
    """A second run is a call that is repeated: no user is new, and the message is stored once."""
    created, sent = map(ast.literal_eval, app.run("backend.py").splitlines())
    assert (sorted(created["created"]), created["renamed"]) == (["ann", "bob"], [])
    assert sent == {"message_id": "parcel-4711", "status": "stored"}
    again, _ = map(ast.literal_eval, app.run("backend.py").splitlines())
    assert again == {"created": [], "renamed": []}
    token = app.run("tokens.py", "ann", "Ann Lee").strip()
    async with ChatClient(app.server.url, "ann", "Ann Lee") as ann:
        await ann.hello(token=token)
        message = await ann.receive("MSG")
        assert (message["from"], message["content"]) == ("bob", "Your parcel is here.")
        assert [left for left in await ann.drain() if left.type == "MSG"] == []


def test_the_backend_tells_what_is_wrong_with_a_call(app: App) -> None:
    """It does not repeat what can't succeed."""
    (app.directory / "wrong.py").write_text(
        "from backend import call\n"
        "try:\n"
        "    call('POST', '/v1/messages', {'from': 'bob', 'to': 'nobody', 'content': 'Hi'})\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    assert app.run("wrong.py").startswith("404 USER_NOT_FOUND: ")


@pytest.mark.slow
def test_the_hook_pushes_when_a_message_waits(tmp_path: Path, start_server: StartServer) -> None:
    """As on the page: the first message is sent when there is no hook yet, the other one with the command of the page."""
    app = make_app(tmp_path, start_server)
    app.run("backend.py")
    pushes = ["push to ann: 1 from Bob Ray", "push to bob: 1 from Ann Lee"]
    with app.running("hook.py", app.hook_port) as output:
        app.run("sh", "-e", "-c", commands()[3].replace("python3", sys.executable))
        wait_until(lambda: len(output.read_text().splitlines()) >= len(pushes), "two pushes", TIMEOUT)
    assert sorted(output.read_text().splitlines()) == pushes


@pytest.mark.slow
def test_the_hook_refuses_a_call_that_is_not_signed(app: App) -> None:
    program = (
        "import urllib.error, urllib.request, sys\n"
        "try:\n"
        "    urllib.request.urlopen(sys.argv[1], b'{}')\n"
        "except urllib.error.HTTPError as error:\n"
        "    print(error.code)\n"
    )
    (app.directory / "forge.py").write_text(program)
    with app.running("hook.py", app.hook_port) as output:
        assert app.run("forge.py", f"http://localhost:{app.hook_port}/hook") == "401\n"
    assert output.read_text() == ""
