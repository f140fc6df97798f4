"""The example of README.md, and other messages, typed by hand into wscat, also with ids that are no UUIDs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


def typed(wscat: str, url: str, *lines: str) -> list[str]:
    """What wscat shows when these lines are typed into it, one after the other, and then nothing more for a second."""
    typing = "".join(f"echo '{line}'; sleep 0.5; " for line in lines)
    command = f"(sleep 1; {typing} sleep 1) | {wscat} -c {url}"
    shown = subprocess.run(
        ["bash", "-c", command],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line for line in shown.stdout.splitlines() if line]


def typed_until(wscat: str, url: str, expected: tuple[str, ...], *lines: str) -> list[str]:
    """What wscat shows for these lines; they are typed again if it was not ready for the first ones yet, as on a machine that is busy."""
    shown: list[str] = []
    for _ in range(4):
        shown = typed(wscat, url, *lines)
        if all(any(part in line for line in shown) for part in expected):
            break
    return shown


def test_the_example_of_the_readme(wscat: str, any_ids: Server) -> None:
    """The command, what the second person types, and then what the first person types."""
    section = (
        (PROJECT / "README.md").read_text().partition("\n## Chat from a terminal\n")[2].partition("\n## ")[0]
    )
    command, second, first = (
        block.split("\n") for block in re.findall(r"(?:^    .+$\n?)+", section, re.MULTILINE)
    )
    assert command[0].strip() == "wscat -c ws://localhost:8000/ws"
    bobby = [line.strip() for line in second if line.strip()]
    alice = [line.strip() for line in first if line.strip()]
    shown = typed_until(wscat, any_ids.url, ('"HELLO_ACK"',), *bobby)
    assert any('"HELLO_ACK"' in line for line in shown), shown
    answers = ('"HELLO_ACK"', '"CHAT_OPENED"', '"MSG_ACK"')
    shown = typed_until(wscat, any_ids.url, answers, *alice)
    for expected in answers:
        assert any(expected in line for line in shown), (expected, shown)
    assert not any('"ERROR"' in line for line in shown), shown


def test_the_first_example_is_greeted(wscat: str, any_ids: Server, tmp_path: Path) -> None:
    """D1: ``FASTCHAT_USER_IDS=any`` lets in somebody called `test-123`."""
    shown = typed(
        wscat, any_ids.url, '{"type":"HELLO","data":{"user_id":"test-123","display_name":"Test User"}}'
    )
    assert any('"HELLO_ACK","data":{"user_id":"test-123","status":"connected"}' in line for line in shown), (
        shown
    )
    assert any('"PRESENCE"' in line and '"test-123"' in line for line in shown), shown


def test_the_second_example_needs_hello(wscat: str, any_ids: Server) -> None:
    """D2: a MSG without HELLO before it is refused."""
    shown = typed(wscat, any_ids.url, '{"type":"MSG","data":{"to":"user-456","content":"Hello!"}}')
    assert any('"UNAUTHORIZED"' in line for line in shown), shown


def test_the_document_s_flows_by_hand(wscat: str, any_ids: Server) -> None:
    """HELLO, OPEN_CHAT, MSG, TYPING and PING, typed by hand to somebody who was here before."""
    typed_until(
        wscat,
        any_ids.url,
        ('"HELLO_ACK"',),
        '{"type":"HELLO","data":{"user_id":"bob-1","display_name":"Bob"}}',
    )
    answers = ('"HELLO_ACK"', '"CHAT_OPENED"', '"MSG_ACK","data":{"message_id":"m-1"', '"PONG"')
    shown = typed_until(
        wscat,
        any_ids.url,
        answers,
        '{"type":"HELLO","data":{"user_id":"alice-1","display_name":"Alice"}}',
        '{"type":"OPEN_CHAT","data":{"target_user_id":"bob-1","target_display_name":"Bob"}}',
        '{"type":"MSG","data":{"to":"bob-1","content":"Hello!","message_id":"m-1"}}',
        '{"type":"TYPING","data":{"is_typing":true}}',
        '{"type":"PING","data":{}}',
    )
    for expected in answers:
        assert any(expected in line for line in shown), (expected, shown)
    assert not any('"ERROR"' in line for line in shown), shown
