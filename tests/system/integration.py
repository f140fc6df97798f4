"""The app of docs/integrate.md: its files as they stand there, in a directory, and a server with the settings of the page."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.system.api_client import Backend
from tests.system.harness import PROJECT, Server, StartServer, clean_environment, wait_until

PAGE: Final = PROJECT / "docs" / "integrate.md"
TIMEOUT: Final = 60.0

#: The text before a block, its language, and the block.
_BLOCK: Final = re.compile(r"(.*?)^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: How the text before a block names the file that the block is.
_NAME: Final = re.compile(r"\*\*([\w.]+)\*\*")
_SETTING: Final = re.compile(r"^FASTCHAT_(\w+)=(\S+) \\$", re.MULTILINE)


@cache
def files() -> dict[str, str]:
    """The files of the app: name -> content."""
    return {
        _NAME.findall(before)[-1]: content
        for before, language, content in _BLOCK.findall(PAGE.read_text())
        if language != "sh"
    }


@cache
def commands() -> list[str]:
    """The blocks for a shell, in their order: the variables, the secrets, the server, a message, the page, React."""
    return [content for _, language, content in _BLOCK.findall(PAGE.read_text()) if language == "sh"]


def free_port() -> int:
    """One that nobody has at the moment; what is not started by the tests themselves can't tell which it has taken."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class App(NamedTuple):
    """The directory of the app, and what its programs find in their environment."""

    directory: Path
    server: Server
    environment: dict[str, str]
    hook_port: int

    def backend(self) -> Backend:
        """A backend beside that of the page, with the same key."""
        key = Path(self.environment["CHAT_KEYS"], "api").read_text().strip()
        return Backend(self.server, key)

    def run(self, *command: str) -> str:
        """What a program prints; it must succeed and say nothing else."""
        done = subprocess.run(
            [sys.executable, *command] if command[0].endswith(".py") else command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    @contextmanager
    def running(self, program: str, port: int) -> Iterator[Path]:
        """A program that serves `port`, until the end; the file with what it prints."""
        output = self.directory / f"{program}.txt"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, program],
                cwd=self.directory,
                env=self.environment | {"PORT": str(port)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: _is_served(port) or process.poll() is not None, f"{program} to serve", TIMEOUT)
            assert process.poll() is None, output.read_text()
            yield output
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT)


def _is_served(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def make_app(directory: Path, start_server: StartServer) -> App:
    """Do what the page says up to the start of the server, on free ports."""
    variables, secrets, start, *_ = commands()
    environment = clean_environment() | {"HOME": str(directory)}
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):  # those of a compiled core, which the app does not have
        environment.pop(name, None)
    printed = subprocess.run(
        ["sh", "-e", "-c", f'{variables}{secrets}echo "$CHAT_KEYS"'],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    keys = printed.stdout.strip()
    assert start.endswith("make run\n")
    settings: dict[str, Any] = {
        name.lower(): value.strip('"').replace("$CHAT_KEYS", keys) for name, value in _SETTING.findall(start)
    }
    assert len(settings) == start.count("\n") - 1
    assert (settings["api_port"], settings["hook_url"]) == ("8002", "http://localhost:3001/hook")
    hook_port = free_port()
    server = start_server(
        **settings | {"api_port": 0, "hook_url": settings["hook_url"].replace("3001", str(hook_port))}
    )
    files_of_app = directory / "app"
    files_of_app.mkdir()
    for name, content in files().items():
        (files_of_app / name).write_text(content)
    app = App(files_of_app, server, environment, hook_port)
    environment |= {"CHAT_KEYS": keys, "CHAT_URL": server.url}
    environment["CHAT_API"] = f"http://localhost:{Backend(server).port}"
    assert all(f"export {name}=" in variables for name in environment if name.startswith("CHAT_"))
    return app._replace(environment=environment)


def is_private(path: str) -> bool:
    """Whether only its owner may use a file."""
    return os.stat(path).st_mode & 0o077 == 0
