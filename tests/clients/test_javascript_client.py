"""The JavaScript client under Node: the shared scenarios, the spread of its reconnections, and its size."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.clients.misbehaving import SCENARIOS
from tests.clients.node import CLIENT, HERE, client_module, node

NAMES: Final[list[str]] = [
    scenario["name"]
    for scenario in json.loads(SCENARIOS.read_text())["scenarios"]
    if "javascript" in scenario.get("only", ["javascript"])
]
CLIENTS: Final = 1000


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, as Node can import it."""
    return client_module(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def played(client: Path) -> dict[str, str | None]:
    """Scenario -> how it failed. All are played by one Node: starting one takes longer than all of them."""
    lines = run("play.mjs", client, SCENARIOS).splitlines()
    return {line["name"]: line["failure"] for line in map(json.loads, lines)}


def run(script: str, *arguments: object) -> str:
    """What a script in `javascript/` prints; AssertionError when it fails."""
    command = [node(), str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_scenario(name: str, played: dict[str, str | None]) -> None:
    assert name in played, "Node ended before it came to this scenario"
    assert played[name] is None, played[name]


def test_nothing_is_sent_on_a_connection_that_is_closing(client: Path) -> None:
    """It would be lost anyhow, and a browser complains of it in its console."""
    assert json.loads(run("closing.mjs", client)) == ["open"]


# -- How the clients of a restarted server come back --


def delays(
    client: Path, code: int, failures: int, random: object = "real", count: int = CLIENTS
) -> list[float]:
    """Seconds until each of `count` clients tries again, after a close with `code` and so many failed attempts."""
    found: list[float] = json.loads(run("back_off.mjs", client, count, code, failures, random))
    assert len(found) == count
    return found


@pytest.mark.parametrize(
    ("code", "failures", "begin", "end"),
    [
        pytest.param(1012, 0, 0, 3, marks=pytest.mark.slow),
        pytest.param(1001, 0, 0, 3, marks=pytest.mark.slow),
        pytest.param(1012, 4, 0, 8, marks=pytest.mark.slow),
        (1013, 0, 1, 5),
        pytest.param(4002, 0, 0, 1, marks=pytest.mark.slow),
        pytest.param(4002, 4, 0, 8, marks=pytest.mark.slow),
        pytest.param(1006, 0, 0, 0.5, marks=pytest.mark.slow),
        pytest.param(1006, 3, 0, 4, marks=pytest.mark.slow),
        (1006, 7, 0, 30),
    ],
)
def test_a_thousand_clients_spread_over_the_whole_interval(
    client: Path, code: int, failures: int, begin: float, end: float
) -> None:
    """Each tenth of the interval gets 5 to 15 % of the clients, and nobody comes outside of it."""
    spread = delays(client, code, failures)
    assert begin <= min(spread)
    assert max(spread) <= end
    tenths = Counter(int((delay - begin) / (end - begin) * 10) for delay in spread)
    assert sorted(tenths) == list(range(10))
    assert all(0.05 * CLIENTS <= tenth <= 0.15 * CLIENTS for tenth in tenths.values()), tenths


@pytest.mark.parametrize(
    ("random", "code", "failures", "delay"),
    [
        (0, 1006, 0, 0),
        (0, 1012, 0, 0),
        (0, 1013, 0, 1),
        (0, 1006, 12, 0),
        (0.9999999, 1006, 0, 0.5),
        (0.9999999, 1006, 12, 30),
        (0.9999999, 1012, 0, 3),
        (0.9999999, 1012, 12, 30),
        (0.9999999, 1013, 0, 5),
        (0.9999999, 1013, 12, 30),
    ],
)
def test_the_extremes_of_random(client: Path, random: float, code: int, failures: int, delay: float) -> None:
    assert delays(client, code, failures, random, count=1) == [pytest.approx(delay, abs=1e-3)]


# -- Tokens --


def test_what_can_be_no_token(client: Path) -> None:
    """Neither as the option nor later; why is said without showing it."""
    script = (
        f"const {{ FastChat }} = await import({json.dumps(client.as_uri())});"
        "const make = (token) => new FastChat({ url: 'ws://x/', userId: 'me', displayName: 'Me Myself', token, WebSocket: class {} });"
        "const told = (run) => { try { run(); return ''; } catch (error) { return `${error.name}: ${error.message}`; } };"
        "const wrong = ['', ' ', 'a b', 'secret\\n', 'secr\u00e9t', 'x'.repeat(8193), 7, {}];"
        "const said = wrong.flatMap((token) => [told(() => make(token)), told(() => make(null).renew(token))]);"
        "const right = [null, undefined, 'a.b.c', 'x'.repeat(8192), () => 7].map((token) => told(() => make(token)));"
        "console.log(JSON.stringify({ said, right }));"
    )
    command = [node(), "--input-type=module", "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    came = json.loads(done.stdout)
    problem = "TypeError: `token` must be 1 to 8192 visible ASCII characters, or a function"
    assert came == {"said": [problem] * 16, "right": [""] * 5}


# -- Listeners --


def test_whatever_a_listener_does_node_goes_on(client: Path) -> None:
    """Each failure is an `error` event, or with `error` itself a line on the console; and the last listener is called in any case."""
    oddities = [
        "() => { throw new Error('thrown'); }",
        "() => { throw undefined; }",
        "() => { throw Object.create(null); }",
        "() => { throw Symbol('thrown'); }",
        "async () => { throw new Error('rejected'); }",
        "async () => { throw Object.create(null); }",
        "() => Promise.reject()",
        "() => ({ get then() { throw new Error('no then'); } })",
        "() => ({ then: (resolve, reject) => reject(new Error('of a thenable')) })",
    ]
    events = ["state", "presence", "chat", "message", "typing", "receipt"]
    script = (
        f"const {{ FastChat }} = await import({json.dumps(client.as_uri())});"
        f"const {{ Network, settle }} = await import({json.dumps((HERE / 'virtual.mjs').as_uri())});"
        "const network = new Network();"
        "const chat = new FastChat({ url: 'ws://x/', userId: 'me', displayName: 'Me Myself', WebSocket: network.WebSocket });"
        "const called = {}, codes = []; let consoled = 0; console.error = () => (consoled += 1);"
        f"const odd = [{', '.join(oddities)}];"
        f"for (const event of {json.dumps([*events, 'error'])}) {{"
        "  for (const listener of odd) chat.on(event, listener);"
        "  chat.on(event, (value) => { called[event] = (called[event] ?? 0) + 1; if (event === 'error') codes.push(value.code); });"
        "}"
        "chat.connect(); const [link] = network.links; link.accept();"
        "const tell = (type, data) => link.tell(JSON.stringify({ type, data }));"
        "tell('HELLO_ACK', { user_id: 'me', status: 'connected', capabilities: [] });"
        "tell('PRESENCE', { users: [] });"
        "tell('CHAT_OPENED', { chat_id: 'c', target_user_id: 'bob', target_display_name: 'Bobby' });"
        "tell('TYPING', { user_id: 'bob', is_typing: true });"
        "tell('MSG', { from: 'bob', to: 'me', content: 'Hi', message_id: 'b1', timestamp: '2024-01-01T12:00:00.000Z' });"
        "await settle(); chat.send('bob', 'Hello'); await settle(); await settle(); chat.close(); await settle();"
        "console.log(JSON.stringify({ called, codes: [...new Set(codes)], errors: codes.length, consoled }));"
    )
    command = [node(), "--input-type=module", "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    came = json.loads(done.stdout)
    assert sorted(came["called"]) == sorted([*events, "error"])
    assert came["codes"] == ["LISTENER"]
    assert came["errors"] == len(oddities) * sum(came["called"][event] for event in events)
    assert came["consoled"] == len(oddities) * came["errors"]


# -- What it is --


def test_it_depends_on_nothing_and_is_small() -> None:
    modules = {path.name: path.read_text() for path in CLIENT.glob("*.js")}
    text = "".join(modules.values())
    imported = re.findall(r'^(?:import|export) .* from "(.+)";$', text, re.MULTILINE)
    assert imported
    assert {name.removeprefix("./") for name in imported} <= modules.keys()
    assert "require(" not in text
    assert len(text.encode()) < 115_000


def test_the_lock_file_names_no_registry() -> None:
    """The packages come from whatever registry npm is set to; what they contain is held by their checksums."""
    lock = (HERE / "package-lock.json").read_text()
    found = [package for path, package in json.loads(lock)["packages"].items() if path]
    assert found
    assert all(package["integrity"] for package in found)
    assert "://" not in lock
