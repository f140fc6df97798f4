"""A client in a process of its own, led by lines of JSON: the JavaScript client under Node (`javascript/device.mjs`), or the Python client
(`python_device.py`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import pytest

from tests.clients.node import HERE, WEB, client_module, node, packages
from tests.system.harness import wait_until

#: Seconds that a test waits for what has to happen; a machine that is busy with other tests has to manage it.
PATIENCE: Final = 40.0


class Device:
    """A client in a process of its own; a context manager."""

    def __init__(
        self,
        command: list[str],
        url: str,
        user_id: str,
        name: str,
        token: str | Callable[[], str | None] | None = None,
    ) -> None:
        """`token` is a token, or who is asked for one and answers None when there is none."""
        self.user_id = user_id
        self.name = name
        self._token = token
        asks = {"ask": True} if callable(token) else token
        options = {"url": url, "userId": user_id, "displayName": name, "token": asks}
        self._writing = threading.Lock()
        #: (event, value), in order.
        self.events: list[tuple[str, Any]] = []
        #: Name -> {"value": ...} or {"error": ...}.
        self.promises: dict[str, dict[str, Any]] = {}
        self._process = subprocess.Popen(
            [*command, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        self.call("connect")
        self.resolved("connect")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def call(self, method: str, *arguments: object, name: str | None = None) -> None:
        """Call a method of the client."""
        self._write({"call": method, "args": arguments, "as": name or method})

    def send(self, to: Device, content: str) -> None:
        """Send a message of which the content is also the id and the name."""
        self.call("send", to.user_id, content, {"messageId": content}, name=content)

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def resolved(self, name: str) -> Any:
        """What a promise came to; waits for it."""
        wait_until(lambda: name in self.promises, f"{self.name}'s {name} to settle", PATIENCE)
        assert "error" not in self.promises[name], self.promises[name]
        return self.promises[name]["value"]

    def rejected(self, name: str) -> str:
        """The code with which a promise was rejected; waits for it."""
        wait_until(lambda: name in self.promises, f"{self.name}'s {name} to settle", PATIENCE)
        code: str = self.promises[name]["error"]["code"]
        return code

    def came(self, event: str) -> list[Any]:
        """The values of all events of this name so far."""
        return [value for name, value in list(self.events) if name == event]

    def until(self, condition: Callable[[Device], bool], what: str) -> None:
        """Wait until the condition holds for this client."""
        wait_until(lambda: condition(self), f"{self.name}: {what}", PATIENCE)

    @property
    def contents(self) -> list[str]:
        """What was said to this client, in the order in which it was shown."""
        return [message["content"] for message in self.came("message") if "own" not in message]

    @property
    def states(self) -> list[str]:
        return [change["state"] for change in self.came("state")]

    def _write(self, said: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with self._writing:
            self._process.stdin.write(f"{json.dumps(said)}\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "event" in said:
                self.events.append((said["event"], said["value"]))
            elif "ask" in said:
                assert callable(self._token)
                self._write({"answer": said["ask"], "token": self._token()})
            else:
                self.promises[said["promise"]] = said


def node_command(websocket: str, directory: Path) -> list[str]:
    """How a device under Node is started, with the WebSocket of the package ``ws`` or with Node's own (``native``); skips without it."""
    client = client_module(directory)
    if websocket == "ws":
        return [node(), str(HERE / "device.mjs"), str(client), str(packages() / "ws" / "wrapper.mjs")]
    asks = ["-e", "process.exit(globalThis.WebSocket ? 0 : 1)"]
    for flags in ([], ["--experimental-websocket"]):
        if subprocess.run([node(), *flags, *asks], capture_output=True, timeout=30).returncode == 0:
            return [node(), *flags, str(HERE / "device.mjs"), str(client), "native"]
    pytest.skip("this Node has no WebSocket of its own")


def python_command() -> list[str]:
    """How a device of the Python client is started."""
    path = f"PYTHONPATH={WEB.parents[1] / 'clients' / 'python' / 'src'}"
    return ["env", path, sys.executable, str(HERE.parent / "python_device.py")]
