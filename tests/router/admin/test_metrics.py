"""Tests of router.admin.metrics: made-up reports, read back with the parsers of prometheus_client; and the page, in a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.measures import SECONDS, Histogram, series
from core.process.metrics import METRICS, PREFIX, Kind, Source
from router.admin.metrics import MetricsCollector, MetricsPage, accepts_openmetrics
from router.admin.port import AdminServer
from router.supervisor.children import Child
from router.supervisor.process_usage import ProcessUsage
from router.supervisor.roles import FRONT, WORKER, Role
from tests.exposition import Exposition, ask
from tests.router.front_process import wait_until
from tests.router.server_process import FAKE_WORKER, ServerProcess

#: What real servers of Prometheus send.
PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
NEW_PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def a_role(
    kind: str, index: int, stats: Mapping[str, Any] | None, *, ready: bool = True, restarts: int = 0
) -> Role:
    """A place; without `stats` nobody fills it, else a process that has reported them."""
    role = Role(kind, index)
    role.restarts = restarts
    if stats is not None:
        role.child = cast(Child, SimpleNamespace(pid=os.getpid(), ready=ready, stats=dict(stats)))
    return role


def a_page(*roles: Role, ready: bool = True) -> MetricsPage:
    build = {"version": "1.2.3", "python": "3.11.7", "core": "pure"}
    return MetricsPage(MetricsCollector(roles, ProcessUsage(), lambda: ready, build))


def get(page: MetricsPage, **request: Any) -> Exposition:
    """What an AdminServer answers that has the page; takes what `ask` takes."""

    async def serve() -> Exposition:
        listener = socket.create_server(("127.0.0.1", 0))
        server = AdminServer("localhost", [listener], dict, page.routes())
        await server.start()
        try:
            return await asyncio.to_thread(ask, listener.getsockname()[1], **request)
        finally:
            await server.stop()

    return asyncio.run(serve())


# -- The page --


@pytest.mark.parametrize("accept", ["", PROMETHEUS_ACCEPT])
def test_every_metric_is_there_with_its_help_and_type(accept: str) -> None:
    """Also those for which nothing has been reported, so that it can be looked up what there is."""
    answer = get(a_page(a_role(WORKER, 0, None)), accept=accept)
    for metric in METRICS.values():
        name = PREFIX + metric.name
        if accept and metric.kind is Kind.COUNTER:
            name = name.removesuffix("_total")
        assert answer.text.count(f"# HELP {name} {metric.help}\n") == 1
        assert answer.text.count(f"# TYPE {name} {metric.kind}\n") == 1
    assert answer.text.count("# TYPE ") == len(METRICS)
    assert answer.text.endswith("# EOF\n") == bool(accept)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("text/plain;version=0.0.4", False),
        (PROMETHEUS_ACCEPT, True),
        (NEW_PROMETHEUS_ACCEPT, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=0.0.1", False),
        ("application/openmetrics-text; version=1.x", False),
        ("application/openmetrics-text; version=" + "9" * 1000, True),
        ("application/openmetrics-text; version=" + "9" * 5000, False),
        ("application/openmetrics-text; version=2\xff", False),
        ("application/openmetrics-text; version=1.0.0; escaping=dots", True),
        (",;=,,;version;;=,", False),
    ],
)
def test_openmetrics_is_for_those_who_ask(accept: str, openmetrics: bool) -> None:
    assert accepts_openmetrics(accept) is openmetrics
    answer = get(a_page(a_role(WORKER, 0, {"writes_total": 3})), accept=accept)
    assert answer.status == 200
    expected = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
    assert answer.headers["Content-Type"] == f"{expected}; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.value("writes_total", worker="0") == 3


@pytest.mark.parametrize(("host", "status"), [("localhost:8001", 200), ("evil.example:8001", 403), ("", 403)])
def test_only_names_of_this_machine_are_answered(host: str, status: int) -> None:
    answer = get(a_page(a_role(WORKER, 0, {})), host=host)
    assert answer.status == status
    assert (PREFIX in answer.text) == (status == 200)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_reads(method: str) -> None:
    assert get(a_page(a_role(WORKER, 0, {})), method=method).status == 405


def test_the_server_as_a_whole() -> None:
    for ready in (True, False):
        answer = get(a_page(a_role(WORKER, 0, {}), ready=ready))
        assert answer.value("ready") == ready
        assert answer.value("build_info", version="1.2.3", python="3.11.7", core="pure") == 1


# -- What children report --


def a_report(kind: str) -> dict[str, Any]:
    """A report with every metric of the kind, in a number of its own, for one or two values of each label."""
    report: dict[str, Any] = {}
    for number, metric in enumerate(METRICS.values(), 1):
        if metric.source != kind:
            continue
        for value in ("1", "2") if metric.labels else ("",):
            name = series(metric.name, **dict.fromkeys(metric.labels, value))
            if metric.kind is Kind.HISTOGRAM:
                histogram = Histogram(metric.bounds)
                for measured in (metric.bounds[0], metric.bounds[number % len(metric.bounds)], 1000.0):
                    histogram.record(measured)
                report[name] = histogram.report()
            else:
                report[name] = number
    return report


@pytest.mark.parametrize("accept", ["", PROMETHEUS_ACCEPT])
def test_every_metric_shows_as_it_was_reported(accept: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = get(
        a_page(
            *(a_role(WORKER, index, a_report(WORKER)) for index in range(3)),
            a_role(FRONT, 0, a_report(FRONT)),
        ),
        accept=accept,
    )
    assert answer.status == 200
    for number, metric in enumerate(METRICS.values(), 1):
        if metric.source not in (Source.WORKER, Source.FRONT):
            continue
        for index in range(3 if metric.source is Source.WORKER else 1):
            for value in ("1", "2") if metric.labels else ("",):
                labels = {**dict.fromkeys(metric.labels, value), metric.source.value: str(index)}
                if metric.kind is Kind.HISTOGRAM:
                    assert answer.value(metric.name + "_count", **labels) == 3
                else:
                    assert answer.value(metric.name, **labels) == number
    assert caplog.records == []


def test_what_has_not_happened_yet_is_zero() -> None:
    """So that Prometheus sees the first time; but not of a process that has not said anything yet."""
    answer = get(
        a_page(
            a_role(WORKER, 0, {"connections": 0}), a_role(WORKER, 1, {}), a_role(FRONT, 0, {"front_pages": 0})
        )
    )
    assert answer.value("bus_errors_total", worker="0") == 0
    assert answer.value("front_bugs_total", front="0") == 0
    assert answer.value("outbox_bytes", worker="0") is None
    assert answer.having(worker="1") == set()
    assert not [name for name in answer.having(worker="0") if name.startswith("front_")]


def test_what_a_front_says_about_workers_keeps_both_numbers() -> None:
    answer = get(a_page(a_role(FRONT, 1, {'front_in_flight{worker="3"}': 5})))
    assert answer.value("front_in_flight", front="1", worker="3") == 5


@given(st.lists(st.floats(0, 20), max_size=50))
def test_histograms_are_cumulative(values: list[float]) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.record(value)
    roles = [a_role(WORKER, 0, {'delivery_seconds{route="bus"}': histogram.report()})]
    collector = MetricsCollector(roles, ProcessUsage(), lambda: True, {})
    (family,) = [each for each in collector.collect() if each.name == PREFIX + "delivery_seconds"]
    samples = {(each.name.removeprefix(family.name), each.labels.get("le")): each for each in family.samples}
    assert all(each.labels.items() >= {"worker": "0", "route": "bus"}.items() for each in family.samples)
    for bound in SECONDS:
        (found,) = [v for (_, le), v in samples.items() if le and le != "+Inf" and float(le) == bound]
        assert found.value == sum(value <= bound for value in values)
    assert samples["_bucket", "+Inf"].value == samples["_count", None].value == len(values)
    assert samples["_sum", None].value == pytest.approx(sum(values))
    assert len(samples) == len(SECONDS) + 3


@pytest.mark.parametrize("accept", ["", PROMETHEUS_ACCEPT])
@pytest.mark.parametrize("value", ["back\\slash", "new\nline", "\\n", "naïve ☃ {a=b,c}", ",", "", "a" * 5000])
def test_any_value_of_a_label_comes_through(value: str, accept: str) -> None:
    """Labels are bounded and never from clients; should one be odd all the same, the page stays whole."""
    report = {series("errors_total", type="MSG", code=value): 7, "writes_total": 1}
    answer = get(a_page(a_role(WORKER, 0, report)), accept=accept)
    assert answer.value("errors_total", type="MSG", code=value, worker="0") == 7
    assert answer.value("writes_total", worker="0") == 1


WRONG: dict[str, Any] = {
    "unheard_of": 1,
    "Not a name": 1,
    "": 1,
    "ready": 0,
    "process_up": 0,
    "front_accepted_total": 1,
    "errors_total": 1,
    'errors_total{type="MSG"}': 1,
    'errors_total{code="VALIDATION",type="MSG",user="alice"}': 1,
    'writes_total{worker="1"}': 1,
    'errors_total{type="MSG",code="VALIDATION"': 1,
    "outbox_bytes": "many",
    "sessions": None,
    "users": [1],
    "connections": {"counts": [], "sum": 0},
    "bus_seconds": 5,
    "commit_rows": {"counts": [1, 2], "sum": 3},
    "turn_seconds": {"counts": ["a"] * (len(SECONDS) + 1), "sum": 0},
    'delivery_seconds{route="bus"}': {"counts": [1] * (len(SECONDS) + 1)},
    'delivery_seconds{route="local"}': {"counts": [None] * (len(SECONDS) + 1), "sum": 0},
    "commit_seconds": {"counts": 3, "sum": 0},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_in_the_table_is_left_out_and_logged_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    page = a_page(a_role(WORKER, 0, {name: WRONG[name], "adopted_total": 4}), a_role(WORKER, 1, {}))
    before = get(a_page(a_role(WORKER, 0, {"adopted_total": 4}), a_role(WORKER, 1, {})))
    for _ in range(3):
        answer = get(page)
        assert answer.status == 200
        assert answer.samples.keys() == before.samples.keys()
        assert answer.value("adopted_total", worker="0") == 4
    (logged,) = [record.getMessage() for record in caplog.records if record.name == "fastchat.supervisor"]
    assert logged.startswith("bug: worker 0 reports ")


def test_a_child_that_makes_up_names_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    page = a_page(a_role(WORKER, 0, {f"made_up_{'x' * number}": 1 for number in range(500)}))
    for _ in range(2):
        assert get(page).status == 200
    assert len([record for record in caplog.records if record.name == "fastchat.supervisor"]) == 100
    assert max(len(record.getMessage()) for record in caplog.records) < 250


# -- What the supervisor sees --


def test_a_child_that_is_gone_shows_as_down_and_nothing_of_it_is_left() -> None:
    report = {"connections": 5, "writes_total": 6}
    answer = get(a_page(a_role(WORKER, 0, report), a_role(WORKER, 1, None, restarts=2)))
    assert answer.value("process_up", process="worker 0") == 1
    assert {"connections", "writes_total"} <= answer.having(worker="0")
    assert answer.value("process_up", process="worker 1") == 0
    assert answer.value("process_restarts_total", process="worker 1") == 2
    assert answer.having(process="worker 1") == {
        "process_up",
        "process_restarts_total",
        "process_hangs_total",
        "process_replaced_total",
    }
    assert answer.having(worker="1") == set()


def test_a_child_that_boots_is_not_up_yet() -> None:
    answer = get(a_page(a_role(WORKER, 0, {}, ready=False)))
    assert answer.value("process_up", process="worker 0") == 0
    assert answer.value("process_resident_memory_bytes", process="worker 0")


def test_a_child_that_has_ended_without_notice_breaks_nothing() -> None:
    """Between its end and the moment in which the supervisor hears of it."""
    role = a_role(WORKER, 0, {"writes_total": 1})
    assert role.child is not None
    role.child.pid = 2**22 + 1
    answer = get(a_page(role))
    assert answer.status == 200
    assert answer.value("writes_total", worker="0") == 1
    assert answer.having(process="worker 0") == {
        "process_up",
        "process_restarts_total",
        "process_hangs_total",
        "process_replaced_total",
    }


def test_processes_show_what_they_use() -> None:
    answer = get(a_page(a_role(WORKER, 0, {}), a_role(FRONT, 0, {})))
    everything = {name for name, metric in METRICS.items() if metric.source is Source.PROCESS}
    for process in ("worker 0", "front 0", "supervisor"):
        assert answer.having(process=process) == everything
        assert answer.value("process_restarts_total", process=process) == 0
        assert answer.value("process_hangs_total", process=process) == 0
        assert answer.value("process_replaced_total", process=process) == 0
    descriptors = answer.value("process_open_fds", process="supervisor")
    assert descriptors == pytest.approx(len(os.listdir("/proc/self/fd")), abs=10)


# -- In a real server --


@pytest.mark.slow
def test_a_real_server_has_it(run_dir: Path) -> None:
    """Its processes, their numbers, and a restart."""
    with ServerProcess(run_dir, workers=2) as server:
        port = server.admin_port
        answer = ask(port)
        assert answer.status == 200
        processes = ["worker 0", "worker 1", "front 0", "supervisor"]
        for process in processes:
            assert answer.value("process_up", process=process) == 1
        wait_until(
            lambda: ask(port).value("connections", worker="1") == 0, "the first report of worker 1 to show"
        )
        wait_until(lambda: ask(port).value("ready") == 1, "the server to be ready")
        started = answer.value("process_start_time_seconds", process="worker 1")
        assert started is not None
        os.kill(server.child("worker 1"), signal.SIGKILL)
        wait_until(lambda: ask(port).value("process_restarts_total", process="worker 1") == 1, "the restart")
        wait_until(lambda: ask(port).value("process_up", process="worker 1") == 1, "the worker to be back")
        again = ask(port).value("process_start_time_seconds", process="worker 1")
        assert again is not None
        assert again > started
        assert ask(port).value("process_start_time_seconds", process="worker 0") == answer.value(
            "process_start_time_seconds", process="worker 0"
        )


@pytest.mark.slow
def test_a_worker_that_reports_nonsense_leaves_the_page_whole(run_dir: Path) -> None:
    report = 'say("stats", stats={{"nonsense": "x", "connections": 3, "bus_seconds": {{"counts": [1]}}}})'
    with ServerProcess(run_dir, worker=FAKE_WORKER.format(boot="", served=report.format())) as server:
        port = server.admin_port
        wait_until(
            lambda: ask(port).value("connections", worker="1") == 3, "what is sound in the report to show"
        )
        wait_until(lambda: "'bus_seconds'" in server.stderr(), "what is wrong with it to be logged")
        for name in ("'nonsense'", "'bus_seconds'"):
            assert server.stderr().count(name) == 1
