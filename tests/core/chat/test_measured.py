"""What a shard counts while people chat: by the names of core.process.metrics, exactly, and bounded whatever clients send."""

from __future__ import annotations

from typing import Any

import pytest

from core.measures import BUS, LOCAL, SECONDS, Histogram, quantile, series, split_series
from core.process.metrics import METRICS, Source
from tests.core.pair import Pair
from tests.core.world import World


def total(world: World, name: str, **labels: str) -> Any:
    """The sum over all shards."""
    return sum(shard.stats().get(series(name, **labels), 0) for shard in world.shards)


def latencies(world: World, route: str) -> list[int]:
    """How often MSG took how long, over all shards."""
    reports = [shard.stats()[series("delivery_seconds", route=route)]["counts"] for shard in world.shards]
    return [sum(counts) for counts in zip(*reports, strict=True)]


def test_all_that_is_counted_stands_in_the_table_with_its_labels(pair: Pair) -> None:
    ann, bob = pair.chatting()
    ann.msg(pair.bob)
    ann.typing()
    ann.say("NONSENSE")
    bob.leave()
    for shard in pair.world.shards:
        for name in shard.stats():
            family, labels = split_series(name)
            assert METRICS[family].source is Source.WORKER
            assert tuple(labels) == METRICS[family].labels


def test_messages_are_counted_by_type_and_by_the_way_they_take(pair: Pair, far: bool) -> None:
    ann, bob = pair.chatting()
    for number in range(3):
        ann.msg(pair.bob, f"Hi {number}.")
    ann.typing()
    ann.say("MSG", to="nobody")
    taken, other = (BUS, LOCAL) if far else (LOCAL, BUS)
    assert total(pair.world, "received_total", type="MSG") == 4
    assert total(pair.world, "received_total", type="HELLO") == 2
    assert total(pair.world, "routed_total", type="MSG", route=taken) == 3
    assert total(pair.world, "routed_total", type="TYPING", route=taken) == 1
    assert total(pair.world, "routed_total", type="MSG", route=other) == 0
    assert total(pair.world, "deliveries_total") == 3
    assert total(pair.world, "errors_total", type="MSG", code="VALIDATION") == 1
    assert bob.contents() == ["Hi 0.", "Hi 1.", "Hi 2."]


def test_each_device_and_each_repetition_is_a_delivery(pair: Pair) -> None:
    ann, _ = pair.chatting()
    pair.online(pair.bob)
    ann.msg(pair.bob)
    assert total(pair.world, "deliveries_total") == 2
    pair.online(pair.bob)
    assert total(pair.world, "deliveries_total") == 3


def test_latency_is_from_the_arrival_at_the_senders_shard_to_the_write(pair: Pair, far: bool) -> None:
    """A store that takes its time is in it; who was away is not."""
    ann, bob = pair.chatting()
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob)
    pair.world.pass_time(0.2)
    store.slow = False
    pair.world.settle()
    counts = latencies(pair.world, BUS if far else LOCAL)
    assert sum(counts) == 1
    assert 0.15 <= quantile(SECONDS, counts, 0.5) <= 0.33
    assert sum(latencies(pair.world, LOCAL if far else BUS)) == 0
    bob.leave()
    ann.msg(pair.bob)
    pair.online(pair.bob)
    assert sum(latencies(pair.world, BUS if far else LOCAL)) == 1


def test_closes_are_counted_by_whom_with_code_and_reason(pair: Pair) -> None:
    (ann,) = pair.online(pair.ann)
    for _ in range(21):
        ann.say("MSG")
    assert not ann.open
    reason = "too many invalid messages in a minute"
    assert total(pair.world, "closes_total", by="server", code="1008", reason=reason) == 1


@pytest.mark.parametrize("reason", ['with "quotes"', "with\nlines", "{}", "x" * 300])
def test_any_reason_has_a_series_that_can_be_read_back(pair: Pair, reason: str) -> None:
    shard = pair.world.shards[0]
    shard.count_close("server", 1002, reason)
    (name,) = (name for name in shard.stats() if name.startswith("closes_total"))
    assert split_series(name)[1]["reason"] == reason.replace('"', "'")


def test_labels_stay_few_whatever_clients_and_libraries_say(pair: Pair) -> None:
    (ann,) = pair.online(pair.ann)
    before = len(pair.world.shards[0].stats())
    for number in range(15):
        ann.say(f"KIND_{number}")
    for number in range(500):
        pair.world.shards[0].count_close("server", 1002, f"reason {number}")
    assert len(pair.world.shards[0].stats()) < before + 70
    assert total(pair.world, "errors_total", type="other", code="VALIDATION") == 15
    assert total(pair.world, "closes_total", by="server", code="1002", reason="other") > 400


def test_requests_are_those_whose_outcome_is_open(pair: Pair) -> None:
    ann, _ = pair.chatting()
    pair.world.store_of(pair.bob).slow = True
    ann.msg(pair.bob)
    assert total(pair.world, "requests") == 1
    pair.world.store_of(pair.bob).slow = False
    pair.world.settle()
    assert total(pair.world, "requests") == 0


def test_a_worker_is_unheard_until_something_came_from_it() -> None:
    world = World(3)
    assert [shard.stats()["bus_unheard"] for shard in world.shards] == [0, 0, 0]
    world.kill(1)
    assert [world.shards[index].stats()["bus_unheard"] for index in (0, 2)] == [1, 1]
    world.boot(1)
    world.settle()
    assert [shard.stats()["bus_unheard"] for shard in world.shards] == [0, 0, 0]


def test_what_a_histogram_reports_is_not_changed_by_what_comes_later() -> None:
    """The report is written down at once; two of them can be compared only if it is."""
    histogram = Histogram(SECONDS)
    first = histogram.report()
    histogram.record(1.0)
    assert sum(first["counts"]) == 0
