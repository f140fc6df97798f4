"""The example of README.md, and other messages, typed by hand into wscat, also with ids that are no UUIDs."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Self

import pytest

from tests.system.harness import PROJECT, Server, clean_environment

#: A published version, so that the test means the same tomorrow.
WSCAT = "wscat@6.1.0"

pytestmark = [pytest.mark.slow, pytest.mark.system]


@pytest.fixture(scope="module")
def wscat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The wscat command, installed by npm into a directory of its own."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, to install wscat")
    prefix = tmp_path_factory.mktemp("wscat")
    install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(prefix), WSCAT]
    subprocess.run(install, check=True, env=clean_environment(), timeout=120)
    return str(prefix / "node_modules" / ".bin" / "wscat")


@pytest.fixture(scope="module")
def any_ids(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes ids such as `test-123`."""
    with Server(tmp_path_factory.mktemp("server"), workers=2, user_ids="any") as server:
        yield server


class Terminal:
    """A terminal with wscat in it. Each line is typed when wscat has shown what came before it, as a person would.

    Without a terminal, wscat says neither that it is connected nor anything else from which one could know when to type.
    """

    def __init__(self, wscat: str, url: str) -> None:
        self.shown = ""
        self._terminal, inner = pty.openpty()
        # So wide that no line is wrapped.
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))
        self._process = subprocess.Popen(
            [wscat, "--no-color", "-c", url], stdin=inner, stdout=inner, stderr=inner, env=clean_environment()
        )
        os.close(inner)

    def __enter__(self) -> Self:
        self.wait_for("Connected (press CTRL+C to quit)")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        os.write(self._terminal, line.encode() + b"\r")

    def wait_for(self, expected: str) -> None:
        """Wait until wscat shows this text. Raises AssertionError with what it shows instead after a minute, or when it ends."""
        deadline = time.monotonic() + 60
        while expected not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, (expected, self.shown)
            if select.select([self._terminal], [], [], left)[0]:
                try:
                    self.shown += os.read(self._terminal, 65536).decode(errors="replace")
                except OSError:  # EIO: wscat has ended.
                    raise AssertionError((expected, self.shown)) from None


def test_the_example_of_the_readme(wscat: str, any_ids: Server) -> None:
    """The command, what the second person types, and then what the first person types."""
    section = (
        (PROJECT / "README.md").read_text().partition("\n## Chat from a terminal\n")[2].partition("\n## ")[0]
    )
    command, second, first = (
        [line.strip() for line in block.split("\n") if line.strip()]
        for block in re.findall(r"(?:^    .+$\n?)+", section, re.MULTILINE)
    )
    assert command[0] == "wscat -c ws://localhost:8000/ws"
    with Terminal(wscat, any_ids.url) as bobby, Terminal(wscat, any_ids.url) as alice:
        for line in second:
            bobby.type(line)
        bobby.wait_for('"HELLO_ACK"')
        for line, answer in zip(first, ('"HELLO_ACK"', '"CHAT_OPENED"', '"MSG_ACK"'), strict=True):
            alice.type(line)
            alice.wait_for(answer)
        bobby.wait_for('< {"type":"MSG"')
        assert '"ERROR"' not in alice.shown + bobby.shown


def test_the_first_example_is_greeted(wscat: str, any_ids: Server) -> None:
    """D1: ``FASTCHAT_USER_IDS=any`` lets in somebody called `test-123`."""
    with Terminal(wscat, any_ids.url) as terminal:
        terminal.type('{"type":"HELLO","data":{"user_id":"test-123","display_name":"Test User"}}')
        terminal.wait_for('"HELLO_ACK","data":{"user_id":"test-123","status":"connected"}')
        terminal.wait_for('< {"type":"PRESENCE","data":{"users":[{"user_id":"test-123"')


def test_the_second_example_needs_hello(wscat: str, any_ids: Server) -> None:
    """D2: a MSG without HELLO before it is refused."""
    with Terminal(wscat, any_ids.url) as terminal:
        terminal.type('{"type":"MSG","data":{"to":"user-456","content":"Hello!"}}')
        terminal.wait_for('"UNAUTHORIZED"')


def test_the_document_s_flows_by_hand(wscat: str, any_ids: Server) -> None:
    """HELLO, OPEN_CHAT, MSG, TYPING and PING, typed by hand to somebody who is here."""
    with Terminal(wscat, any_ids.url) as bob, Terminal(wscat, any_ids.url) as alice:
        bob.type('{"type":"HELLO","data":{"user_id":"bob-1","display_name":"Bob"}}')
        bob.wait_for('"HELLO_ACK"')
        for line, answer in (
            ('{"type":"HELLO","data":{"user_id":"alice-1","display_name":"Alice"}}', '"HELLO_ACK"'),
            (
                '{"type":"OPEN_CHAT","data":{"target_user_id":"bob-1","target_display_name":"Bob"}}',
                '"CHAT_OPENED"',
            ),
            (
                '{"type":"MSG","data":{"to":"bob-1","content":"Hello!","message_id":"m-1"}}',
                '"MSG_ACK","data":{"message_id":"m-1"',
            ),
            ('{"type":"TYPING","data":{"is_typing":true}}', None),
            ('{"type":"PING","data":{}}', '"PONG"'),
        ):
            alice.type(line)
            if answer is not None:
                alice.wait_for(answer)
        bob.wait_for('< {"type":"MSG"')
        bob.wait_for('< {"type":"TYPING"')
        assert '"ERROR"' not in alice.shown + bob.shown
