"""`/metrics` of a real server says exactly what real clients did, and has everything that the table of ``core.process.metrics`` has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.measures import split_series
from core.process.metrics import METRICS, PREFIX, Kind, Source
from tests.exposition import Exposition
from tests.system import exact_load
from tests.system.exact_load import ExactLoad, metrics
from tests.system.harness import Server, wait_until
from tests.system.status import status


@pytest.fixture(scope="module")
def server(own_server: Server) -> Server:
    """Of its own, since it counts."""
    return own_server


@pytest.fixture(scope="module")
def load(server: Server) -> tuple[ExactLoad, Exposition]:
    """The load, and the page when it is over."""
    load = ExactLoad(server)
    return load, asyncio.run(load.run())


@pytest.fixture(scope="module")
def page(load: tuple[ExactLoad, Exposition]) -> Exposition:
    """When the load is over."""
    return load[1]


#: MSG that Alice sends; those for somebody on the other worker which are refused there; and those that Bob gets.
ALICE = exact_load.LOCAL + 2 + exact_load.THERE + exact_load.EMPTY + exact_load.NOBODY + exact_load.NO_CHAT
REFUSED_ELSEWHERE = exact_load.NOBODY + exact_load.NO_CHAT
FIRST = exact_load.LOCAL + 1

EXPECTED: list[tuple[str, dict[str, str], int]] = [
    # What clients said, by the worker of the one who said it.
    ("received_total", {"worker": "0", "type": "HELLO"}, 2),
    ("received_total", {"worker": "1", "type": "HELLO"}, 2),
    ("received_total", {"worker": "0", "type": "OPEN_CHAT"}, 2),
    ("received_total", {"worker": "1", "type": "OPEN_CHAT"}, 0),
    ("received_total", {"worker": "0", "type": "MSG"}, ALICE),
    ("received_total", {"worker": "1", "type": "MSG"}, exact_load.BACK),
    ("received_total", {"worker": "0", "type": "TYPING"}, exact_load.TYPING),
    ("received_total", {"worker": "0", "type": "PING"}, exact_load.PINGS),
    ("received_total", {"worker": "1", "type": "PING"}, 0),
    ("received_total", {"type": "MSG_ACK"}, 0),
    ("received_total", {"type": "HISTORY"}, 0),
    ("received_total", {"type": "READ"}, 0),
    # Which way it took.
    ("routed_total", {"worker": "0", "type": "MSG", "route": "local"}, FIRST + 1),
    ("routed_total", {"worker": "0", "type": "MSG", "route": "bus"}, exact_load.THERE + REFUSED_ELSEWHERE),
    ("routed_total", {"worker": "1", "type": "MSG", "route": "local"}, 0),
    ("routed_total", {"worker": "1", "type": "MSG", "route": "bus"}, exact_load.BACK),
    ("routed_total", {"worker": "0", "type": "TYPING", "route": "bus"}, exact_load.TYPING),
    ("routed_total", {"type": "TYPING", "route": "local"}, 0),
    # What was delivered and stored, by the worker of the recipient.
    ("deliveries_total", {"worker": "0"}, FIRST + exact_load.BACK),
    ("deliveries_total", {"worker": "1"}, exact_load.THERE),
    ("delivery_seconds_count", {"worker": "0", "route": "local"}, FIRST),
    ("delivery_seconds_count", {"worker": "0", "route": "bus"}, exact_load.BACK),
    ("delivery_seconds_count", {"worker": "1", "route": "local"}, 0),
    ("delivery_seconds_count", {"worker": "1", "route": "bus"}, exact_load.THERE),
    ("store_rows_total", {"worker": "0"}, FIRST + exact_load.BACK),
    ("store_rows_total", {"worker": "1"}, exact_load.THERE),
    # The repeat was recognised in memory.
    ("store_repeats_total", {}, 0),
    ("commit_rows_sum", {"worker": "0"}, FIRST + exact_load.BACK),
    ("commit_rows_sum", {"worker": "1"}, exact_load.THERE),
    # What went wrong.
    ("errors_total", {"worker": "0", "type": "MSG", "code": "VALIDATION"}, exact_load.EMPTY),
    ("errors_total", {"worker": "0", "type": "MSG", "code": "USER_NOT_FOUND"}, exact_load.NOBODY),
    ("errors_total", {"worker": "0", "type": "MSG", "code": "CHAT_NOT_OPENED"}, exact_load.NO_CHAT),
    ("errors_total", {"worker": "1", "type": "other", "code": "VALIDATION"}, exact_load.NONSENSE),
    ("errors_total", {"worker": "0"}, exact_load.EMPTY + exact_load.NOBODY + exact_load.NO_CHAT),
    ("errors_total", {"worker": "1"}, exact_load.NONSENSE),
    # How they left.
    ("closes_total", {"worker": "0", "by": "client", "code": "1001"}, 1),
    ("closes_total", {"worker": "0", "by": "nobody", "code": "1006"}, 1),
    ("closes_total", {"worker": "1", "by": "client", "code": "1000"}, 1),
    ("closes_total", {"worker": "1", "by": "server", "code": "1003"}, 1),
    ("closes_total", {}, 4),
    # What the front saw: the four, and five more that it did not hand over.
    ("front_accepted_total", {"front": "0"}, 9),
    ("front_page_requests_total", {"front": "0"}, 1),
    ("front_refused_total", {"front": "0", "status": "403"}, 1),
    ("front_refused_total", {}, 1),
    ("front_upgrades_total", {"front": "0"}, exact_load.UPGRADED),
    ("front_errors_total", {"front": "0", "code": "UNAUTHORIZED"}, 1),
    ("front_closed_total", {"front": "0", "code": "1003"}, 1),
    ("front_closed_total", {}, 1),
    ("front_closes_received_total", {"front": "0"}, 1),
    ("front_handed_over_total", {"front": "0"}, 4),
    ("front_adopted_total", {"front": "0"}, 4),
    ("front_handover_seconds_count", {"front": "0"}, 4),
    ("adopted_total", {"worker": "0"}, 2),
    ("adopted_total", {"worker": "1"}, 2),
    # Nobody is left, and nothing went wrong that should not.
    ("connections", {}, 0),
    ("sessions", {}, 0),
    *((name, {}, 0) for name in ("requests", "unconfirmed_total", "late_results_total", "expired_total")),
    *((name, {}, 0) for name in ("shed_total", "memory_full", "memory_refused_total", "outbox_bytes")),
    *((name, {}, 0) for name in ("bus_refused_total", "bus_undeliverable_total", "bus_errors_total")),
    *((name, {}, 0) for name in ("bus_unheard", "handover_truncated_total", "store_failures_total")),
    *(
        (name, {}, 0)
        for name in ("store_failing", "store_waiting", "store_expired_total", "store_purged_total")
    ),
    *((name, {}, 0) for name in ("front_bugs_total", "front_accept_pauses_total", "front_not_read_total")),
    *((name, {}, 0) for name in ("front_returned_total", "front_handover_shortages_total")),
    *((name, {}, 0) for name in ("front_waiting", "front_in_flight", "front_lobby", "front_handshakes")),
    ("process_up", {}, 4),
    ("process_restarts_total", {}, 0),
    ("process_hangs_total", {}, 0),
    ("process_replaced_total", {}, 0),
    ("slots", {}, 1024),
    ("ready", {}, 1),
    ("build_info", {}, 1),
]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    EXPECTED,
    ids=["-".join((name, *labels.values())) for name, labels, _ in EXPECTED],
)
def test_counts_are_exact(page: Exposition, name: str, labels: dict[str, str], expected: int) -> None:
    assert page.total(name, **labels) == expected


def test_states_while_all_are_there(load: tuple[ExactLoad, Exposition]) -> None:
    together = load[0].together
    for worker in ("0", "1"):
        assert together.value("connections", worker=worker) == 2
        assert together.value("sessions", worker=worker) == 2
        assert together.value("users", worker=worker) == 2
        assert together.value("slots", worker=worker) == 512


def test_what_is_sent_over_the_bus_arrives(server: Server, page: Exposition) -> None:
    """Reports of two processes are of two moments, so this holds as soon as it is quiet."""

    def agree() -> bool:
        now = metrics(server)
        return now.total("bus_sent_total") == now.total("bus_received_total")

    wait_until(agree, "as many envelopes to be received as were sent")
    assert page.total("bus_received_total") > 0


def test_figures_agree_with_each_other(page: Exposition) -> None:
    assert page.total("bus_seconds_count") == page.total("bus_received_total")
    assert page.total("bus_records_total") >= page.total("bus_sent_total")
    assert page.total("frames_total") >= page.total("writes_total") > page.total("deliveries_total")
    assert 0 < page.total("commit_rows_count") <= page.total("store_commits_total")
    assert page.total("commit_seconds_count") == page.total("store_commits_total")


def test_latencies_are_what_clients_can_have_seen(load: tuple[ExactLoad, Exposition]) -> None:
    """The server's part of each is no longer than the whole, and none is nothing: they are committed to disk."""
    driven, page = load
    assert 0 < page.total("delivery_seconds_sum") <= sum(driven.latencies) + max(driven.latencies)
    assert page.total("delivery_seconds_sum") >= page.total("delivery_seconds_count") * 10e-6


# -- The table, and what there is --


def reports(server: Server) -> list[tuple[str, str, dict[str, Any]]]:
    """Kind, name and report of each child."""
    return [
        (each["kind"], f"{each['kind']} {each['index']}", each["stats"])
        for each in status(server)["processes"]
    ]


def test_every_reported_series_is_in_the_table(server: Server, page: Exposition) -> None:
    for kind, name, stats in reports(server):
        for series, value in stats.items():
            family, labels = split_series(series)
            assert family in METRICS, f"{name} reports {series}"
            row = METRICS[family]
            assert (row.source, set(labels)) == (kind, set(row.labels)), f"{name} reports {series}"
            assert isinstance(value, dict) == (row.kind is Kind.HISTOGRAM), f"{name} reports {series}"
    assert "bug:" not in server.output()


@pytest.mark.parametrize("name", METRICS)
def test_every_row_of_the_table_is_there(page: Exposition, name: str) -> None:
    """And has values, for each process that it is about; the load has done everything that there is a counter with labels for."""
    row = METRICS[name]
    sample = name + "_count" if row.kind is Kind.HISTOGRAM else name
    samples = [dict(labels) for each, labels in page.samples if each == sample]
    expected = {
        Source.WORKER: {"0", "1"},
        Source.FRONT: {"0"},
        Source.PROCESS: {"worker 0", "worker 1", "front 0", "supervisor"},
    }
    for labels in samples:
        assert set(labels) == {*row.labels, *([row.source.value] if row.source else [])}
    if row.source in expected:
        assert {labels[row.source.value] for labels in samples} == expected[row.source]
    else:
        assert len(samples) == 1
    assert f"# HELP {PREFIX}{name} {row.help}\n" in page.text


def test_openmetrics_says_the_same(server: Server, page: Exposition) -> None:
    other = metrics(server, accept="application/openmetrics-text; version=1.0.0")
    assert other.headers["Content-Type"].startswith("application/openmetrics-text")
    assert other.samples.keys() == page.samples.keys()
    for (name, labels), value in page.samples.items():
        if name.startswith(("received", "routed", "closes", "delivery", "errors")):
            assert other.samples[name, labels] == value
