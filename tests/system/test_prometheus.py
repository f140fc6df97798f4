"""What `deploy/` has for Prometheus and Grafana: it names only what there is, and it works with the real Prometheus."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import subprocess
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from core.measures import SECONDS, quantile
from core.process.metrics import METRICS, Kind
from core.wire.protocol import CloseCode, ErrorCode, MessageType
from tests.exposition import Exposition
from tests.system.exact_load import ExactLoad
from tests.system.harness import PROJECT, Server, wait_until
from tests.system.monitoring import (
    CONFIGURATION,
    RULES,
    RULES_TEST,
    VARIABLES,
    Panel,
    Prometheus,
    Rule,
    dashboard,
    expressions,
    grouping,
    panels,
    recordings,
    rule_tests,
    rules,
    selectors,
)
from tests.system.test_metrics import EXPECTED

needs_prometheus: Final = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus is not installed (apt-get install prometheus)",
)

#: Labels that Prometheus adds.
TARGET: Final = {"job", "instance"}
#: Values that a label may have in a selector, where they are known.
VALUES: Final = {
    "type": {name for name in vars(MessageType) if name.isupper()},
    "code": {name for name in vars(ErrorCode) if name.isupper()} | {str(int(code)) for code in CloseCode},
    "by": {"client", "server", "nobody"},
    "process": {"supervisor"},
}
HISTOGRAM_SUFFIXES: Final = ("_bucket", "_sum", "_count")
ALERTS: Final = [rule for rule in rules() if rule.alerts]


def row_of(name: str) -> tuple[str, set[str]]:
    """The row of the table that a name in an expression means, and the labels that its series have. KeyError if there is none."""
    for suffix in HISTOGRAM_SUFFIXES:
        base = name.removesuffix(suffix)
        if base != name and base in METRICS and METRICS[base].kind is Kind.HISTOGRAM:
            return base, {*METRICS[base].labels, METRICS[base].source} | (
                {"le"} if suffix == "_bucket" else set()
            )
    if METRICS[name].kind is Kind.HISTOGRAM:
        raise KeyError(f"{name} is a histogram: its series are {HISTOGRAM_SUFFIXES}")
    return name, {*METRICS[name].labels, METRICS[name].source}


# -- What the files say --


@pytest.mark.parametrize(("where", "expression"), [pytest.param(*each, id=each[0]) for each in expressions()])
def test_every_metric_and_label_exists(where: str, expression: str) -> None:
    recorded = {rule.name: rule for rule in rules() if not rule.alerts}
    grouped = set(TARGET)
    for name in recordings(expression):
        grouped |= grouping(recorded[name].expression)
    for selector in selectors(expression):
        _, labels = row_of(selector.name)
        assert selector.labels.keys() <= labels | TARGET, f"{where}: {selector}"
        for label, value in selector.labels.items():
            if label in VALUES:
                assert value in VALUES[label], f"{where}: {selector}"
        grouped |= labels
    assert grouping(expression) <= grouped
    assert selectors(expression) or recordings(expression) or expression.startswith("up"), (
        "it asks for nothing"
    )


def test_a_reason_that_an_alert_looks_for_is_one_that_the_server_gives() -> None:
    sources = "".join(path.read_text() for path in (PROJECT / "workers").glob("*.py"))
    reasons = [
        selector.labels["reason"]
        for _, expression in expressions()
        for selector in selectors(expression)
        if "reason" in selector.labels
    ]
    assert reasons
    for reason in reasons:
        assert re.search('"' + reason, sources)


@pytest.mark.parametrize("rule", ALERTS, ids=[rule.name for rule in ALERTS])
def test_every_alert_says_what_to_do_and_is_tested(rule: Rule) -> None:
    assert rule.texts["severity"] in ("critical", "warning")
    assert rule.texts["summary"]
    assert len(rule.texts["description"]) > 100
    fired, silent = False, False
    for test in rule_tests():
        for expected in test["promql_expr_test"]:
            if test["name"].split(" ")[0] == rule.name:
                labels = [each["labels"] for each in expected["exp_samples"]]
                fired |= any(f'alertname="{rule.name}"' in each for each in labels)
                silent |= not labels
    assert fired, "no test in which it fires"
    assert silent, "no test in which it does not fire"


@pytest.mark.parametrize("panel", panels(), ids=[panel.title for panel in panels()])
def test_every_panel_explains_itself(panel: Panel) -> None:
    assert panel.unit
    assert panel.description.endswith(".")
    for expression, legend in panel.expressions:
        used = set(re.findall(r"\{\{(\w+)\}\}", legend))
        available = set.union(*(row_of(selector.name)[1] for selector in selectors(expression))) | TARGET
        assert used <= (grouping(expression) or available), f"{legend} of {expression}"
        # Several servers or workers are added up, or told apart in the legend.
        assert used or re.match(r"(\(?(sum|max|min|count|histogram_quantile)\b)", expression), expression


def test_the_dashboard_shows_every_metric() -> None:
    shown = {
        row_of(selector.name)[0] for _, expression in expressions() for selector in selectors(expression)
    }
    assert shown == METRICS.keys()


def test_the_dashboard_is_sound() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= 38
    variables = {variable["name"]: variable for variable in found["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    numbers = [panel["id"] for panel in found["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in found["panels"]:
        for part in (panel, *panel.get("targets", ())):
            assert panel["type"] == "row" or part["datasource"]["uid"] == "${datasource}"
    for _, expression in expressions():
        for variable in re.findall(r"\$\w+", expression):
            assert variable in VARIABLES
    occupied: set[tuple[int, int]] = set()
    for found_panel in panels():
        x, y, width, height = found_panel.place
        cells = {(x + right, y + down) for right in range(width) for down in range(height)}
        assert x + width <= 24
        assert not cells & occupied, f"{found_panel.title} covers another panel"
        occupied |= cells


def promtool(*arguments: str | Path) -> str:
    """Its output. AssertionError when it finds something."""
    result = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=RULES.parent
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_prometheus
def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)
    assert "SUCCESS" in promtool("check", "config", CONFIGURATION)


@pytest.mark.slow
@needs_prometheus
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", RULES_TEST)


@pytest.mark.slow
@needs_prometheus
def test_promtool_finds_nothing_to_object_to_in_the_page(page: Exposition) -> None:
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=page.text, capture_output=True, text=True, timeout=60
    )
    complaints = [line for line in result.stdout.splitlines() + result.stderr.splitlines() if line]
    assert complaints == []
    assert result.returncode == 0


# -- With the real one --


@pytest.fixture(scope="module")
def server(own_server: Server) -> Server:
    """Of its own, since it counts."""
    return own_server


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped the server before anything happened there."""
    with Prometheus(tmp_path_factory.mktemp("prometheus"), server) as prometheus:
        wait_until(lambda: prometheus.value("fastchat_ready") == 1, "the first scrape", 30.0)
        yield prometheus


@pytest.fixture(scope="module")
def driven(server: Server, prometheus: Prometheus) -> tuple[ExactLoad, Exposition]:
    """The load, after Prometheus had a look."""
    load = ExactLoad(server)
    return load, asyncio.run(load.run())


@pytest.fixture(scope="module")
def page(driven: tuple[ExactLoad, Exposition]) -> Exposition:
    """What the server says when the load is over."""
    return driven[1]


@pytest.fixture(scope="module")
def informed(prometheus: Prometheus, page: Exposition) -> Prometheus:
    """It has scraped the server after everything had happened, twice."""
    before = prometheus.scrapes()
    wait_until(lambda: prometheus.scrapes() >= before + 2, "two more scrapes", 30.0)
    return prometheus


@pytest.mark.slow
@needs_prometheus
def test_it_counts_exactly_what_happened(informed: Prometheus) -> None:
    for name, labels, expected in EXPECTED:
        selector = ",".join(f'{label}="{value}"' for label, value in labels.items())
        found = informed.value(f"sum(fastchat_{name}{{{selector}}})")
        assert (found or 0) == expected, f"{name} {labels}"


def counts_of(page: Exposition, name: str) -> list[int]:
    """How many values fell into each range of a histogram, over all its series."""
    cumulative: dict[float, float] = {}
    for (each, labels), value in page.samples.items():
        if each == name + "_bucket":
            bound = float(dict(labels)["le"])
            cumulative[bound] = cumulative.get(bound, 0) + value
    values = [0, *(int(value) for _, value in sorted(cumulative.items()))]
    return [high - low for low, high in pairwise(values)]


@pytest.mark.slow
@needs_prometheus
def test_its_percentiles_are_right_within_a_range(
    informed: Prometheus, driven: tuple[ExactLoad, Exposition]
) -> None:
    load, page = driven
    counts = counts_of(page, "delivery_seconds")
    assert sum(counts) == len(load.latencies) + 1
    for share in (0.5, 0.9, 0.99):
        found = informed.value(f"histogram_quantile({share}, sum by (le) (fastchat_delivery_seconds_bucket))")
        assert found is not None
        assert found == pytest.approx(quantile(SECONDS, counts, share), rel=1e-6)
        # Clients measure the server's part, and the ways to and from it; the rank may lie between two of them.
        ordered = sorted(load.latencies)
        measured = ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)))]
        assert bisect_left(SECONDS, found) <= bisect_left(SECONDS, measured) + 1


@pytest.mark.slow
@needs_prometheus
def test_the_recordings_agree(informed: Prometheus, page: Exposition) -> None:
    """They are of the last minute, in which the whole load happened."""
    name = "instance:fastchat_delivery_seconds:p99_1m"
    found = informed.value(name)
    assert found is not None
    expected = quantile(SECONDS, counts_of(page, "delivery_seconds"), 0.99)
    assert abs(bisect_left(SECONDS, found) - bisect_left(SECONDS, expected)) <= 1
    messages = informed.value("instance:fastchat_messages:rate1m")
    assert messages is not None
    assert messages > 0


@pytest.mark.slow
@needs_prometheus
def test_the_rules_are_loaded_and_a_healthy_server_alerts_nobody(informed: Prometheus) -> None:
    def evaluated() -> bool:
        return all(rule["health"] == "ok" for rule in loaded())

    def loaded() -> list[dict[str, str]]:
        return [rule for group in informed.get("rules")["groups"] for rule in group["rules"]]

    wait_until(evaluated, "all rules to be evaluated", 20.0)
    assert {rule["name"] for rule in loaded()} == {rule.name for rule in rules()}
    alerts = informed.get("alerts")["alerts"]
    # On a machine that is busy with other tests some may be about to, minutes from now.
    assert [alert for alert in alerts if alert["state"] == "firing"] == []


@pytest.mark.slow
@needs_prometheus
def test_every_panel_of_the_dashboard_has_data(informed: Prometheus) -> None:
    """The load has done everything, so each query finds something; some are of what must not happen, and are 0."""
    for panel in panels():
        for expression, legend in panel.expressions:
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            result = informed.query(expression)
            assert result, f"{panel.title}: {expression}"
            for labels, _ in result:
                assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= labels.keys(), panel.title
