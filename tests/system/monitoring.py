"""What `deploy/` has for Prometheus and Grafana, taken apart for the tests; and the real Prometheus, if it is installed."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from tests.system.harness import PROJECT, Server, clean_environment, wait_until

DIRECTORY: Final = PROJECT / "deploy" / "prometheus"
CONFIGURATION: Final = DIRECTORY / "prometheus.yml"
RULES: Final = DIRECTORY / "fastchat.rules.yml"
RULES_TEST: Final = DIRECTORY / "fastchat.rules.test.yml"
DASHBOARD: Final = PROJECT / "deploy" / "grafana" / "fastchat.json"

#: Someone else may take the free port between the look and Prometheus's bind.
ATTEMPTS: Final = 5
#: What Grafana puts in place of its variables.
VARIABLES: Final = {"$instance": ".*", "$__rate_interval": "1m", "$__range": "1h"}


class Rule(NamedTuple):
    """An alert or a recording."""

    name: str
    expression: str
    alerts: bool
    texts: dict[str, str]


class Panel(NamedTuple):
    """A panel of the dashboard; `expressions` with the legend of each."""

    title: str
    kind: str
    unit: str
    description: str
    expressions: list[tuple[str, str]]
    place: tuple[int, int, int, int]


@functools.cache
def rules() -> list[Rule]:
    """All that stand in the file of rules."""
    found = yaml.safe_load(RULES.read_text())
    return [
        Rule(
            rule.get("alert") or rule["record"],
            rule["expr"],
            "alert" in rule,
            rule.get("annotations", {}) | rule.get("labels", {}),
        )
        for group in found["groups"]
        for rule in group["rules"]
    ]


@functools.cache
def rule_tests() -> list[dict[str, Any]]:
    """What stands in the file of their tests."""
    found: list[dict[str, Any]] = yaml.safe_load(RULES_TEST.read_text())["tests"]
    return found


@functools.cache
def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


@functools.cache
def panels() -> list[Panel]:
    """Those that show something."""
    return [
        Panel(
            panel["title"],
            panel["type"],
            panel["fieldConfig"]["defaults"].get("unit", ""),
            panel["description"],
            [(target["expr"], target["legendFormat"]) for target in panel["targets"]],
            tuple(panel["gridPos"][name] for name in ("x", "y", "w", "h")),
        )
        for panel in dashboard()["panels"]
        if panel["type"] != "row"
    ]


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the expression: all that Prometheus is ever asked, the variables of Grafana left as they are."""
    for rule in rules():
        yield rule.name, rule.expression
    for panel in panels():
        for number, (expression, _) in enumerate(panel.expressions):
            yield f"{panel.title} {number}", expression
    for annotation in dashboard()["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


class Selector(NamedTuple):
    """A metric in an expression, with the labels by which it is selected."""

    name: str
    labels: dict[str, str]


_SELECTOR: Final = re.compile(r"(?<![\w:])fastchat_(\w+)(?![\w:])(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RECORDING: Final = re.compile(r"\w+:fastchat_\w+:\w+")


def selectors(expression: str) -> list[Selector]:
    """The metrics of ours in an expression, without their prefix."""
    return [Selector(name, dict(_MATCHER.findall(labels))) for name, labels in _SELECTOR.findall(expression)]


def grouping(expression: str) -> set[str]:
    """The labels by which an expression groups or joins."""
    return {
        label.strip()
        for found in _GROUPING.findall(expression)
        for label in found.split(",")
        if label.strip()
    }


def recordings(expression: str) -> list[str]:
    """The recordings that an expression uses."""
    return _RECORDING.findall(expression)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Prometheus:
    """The real one, with the configuration as it is shipped but for the server's port; a context manager."""

    def __init__(self, directory: Path, server: Server) -> None:
        self._directory = directory
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        text, shipped = CONFIGURATION.read_text(), '"localhost:8001"'
        assert text.count(shipped) == 1, f"{shipped} expected once in {CONFIGURATION}"
        ours = self._server.admin_url.removeprefix("http://")
        (self._directory / "prometheus.yml").write_text(text.replace(shipped, f'"{ours}"'))
        shutil.copy(RULES, self._directory)
        for _ in range(ATTEMPTS):
            self.port = free_port()
            if self._start():
                return self
        raise AssertionError(f"no free port for prometheus in {ATTEMPTS} attempts")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> bool:
        """False when somebody else was faster to take the port."""
        log = self._directory / "log.txt"
        with log.open("wb") as output:
            self._process = process = subprocess.Popen(
                [*self._documented(), "--log.level=warn"],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(lambda: process.poll() is not None or self._is_ready(), "prometheus to be ready", 30.0)
        if process.poll() is None:
            return True
        assert "address already in use" in log.read_text(), log.read_text()
        return False

    def _documented(self) -> list[str]:
        """The command of deploy/README.md, with files and a port of its own."""
        match = re.search(
            r"^    (prometheus --.+)$", (DIRECTORY.parent / "README.md").read_text(), re.MULTILINE
        )
        assert match is not None
        ours = {
            "--config.file=deploy/prometheus/prometheus.yml": f"--config.file={self._directory / 'prometheus.yml'}",
            "--storage.tsdb.path=/tmp/prometheus": f"--storage.tsdb.path={self._directory / 'data'}",
            "--web.listen-address=127.0.0.1:9090": f"--web.listen-address=127.0.0.1:{self.port}",
        }
        program, *flags = shlex.split(match[1])
        assert sorted(flags) == sorted(ours)
        return [program, *(ours[flag] for flag in flags)]

    def _is_ready(self) -> bool:
        try:
            self._open("/-/ready").close()
        except OSError:
            return False
        return True

    def _open(self, path: str) -> Any:
        return build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{self.port}{path}", timeout=10.0)

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of the HTTP API."""
        with self._open(f"/api/v1/{path}?{urlencode(parameters)}") as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series in the result."""
        data = self.get("query", query=expression)
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    def value(self, expression: str) -> float | None:
        """Of an expression with one result, or none."""
        result = self.query(expression)
        assert len(result) <= 1, f"{expression} has {len(result)} results"
        return result[0][1] if result else None

    def scrapes(self) -> int:
        """How often it has asked the server."""
        data = self.get("query", query='count_over_time(up{job="fastchat"}[10m])', time=str(time.time()))
        return int(data["result"][0]["value"][1]) if data["result"] else 0
