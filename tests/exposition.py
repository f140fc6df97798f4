"""``/metrics``, read back by the parsers of prometheus_client."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPMessage
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from core.process.metrics import PREFIX


class Exposition:
    """An answer of the admin port to ``GET /metrics``. Names are without ``fastchat_``."""

    def __init__(self, status: int, headers: HTTPMessage, text: str) -> None:
        self.status = status
        self.headers = headers
        self.text = text
        #: Name, and labels -> value. Empty unless it is a page of metrics.
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        if status == 200:
            parse: Any = parse_openmetrics if "openmetrics" in headers["Content-Type"] else parse_text
            for family in parse(text):
                for sample in family.samples:
                    key = sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())
                    assert key not in self.samples, f"{key} is there twice"
                    self.samples[key] = sample.value

    def value(self, name: str, **labels: str) -> float | None:
        """Of the sample with exactly these labels; None if there is none."""
        return self.samples.get((name, frozenset(labels.items())))

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples that have these labels, perhaps among others."""
        return sum(
            value for (each, found), value in self.samples.items() if each == name and labels.items() <= found
        )

    def having(self, **labels: str) -> set[str]:
        """Names of the samples that have these labels, perhaps among others."""
        return {name for name, found in self.samples if labels.items() <= found}


def ask(port: int, *, accept: str = "", host: str = "localhost", method: str = "GET") -> Exposition:
    """What an admin port on 127.0.0.1 answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, "/metrics", headers={"Host": host, "Accept": accept})
    response = connection.getresponse()
    answer = Exposition(response.status, response.headers, response.read().decode())
    connection.close()
    return answer
