"""router.front.address_limits: how many connections one source may have, exactly, whatever becomes of them; and in bounded memory."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.process.counting import Counted, decode_counts, encode_counts
from core.process.settings import Settings
from router.front.address_limits import BUCKETS_MAX, HALF_OPEN_DEFAULT, AddressLimits, Denial, Slot
from tests.examples import examples

ADDRESS = "192.0.2.1"


def limits(workers: int = 2, **settings: Any) -> AddressLimits:
    return AddressLimits(Settings(workers=workers, **settings))


def let_in(limits: AddressLimits, host: str = ADDRESS, now: float = 0.0) -> Slot:
    entered = limits.enter(host, now)
    assert isinstance(entered, Slot), entered
    return entered


def denied(limits: AddressLimits, host: str = ADDRESS, now: float = 0.0) -> str:
    """By which limit."""
    entered = limits.enter(host, now)
    assert isinstance(entered, Denial)
    assert entered.retry_after > 0
    return entered.limit


def test_a_place_has_so_many_connections_and_another_place_its_own() -> None:
    per_ip = limits(connections_per_ip=3, half_open_per_ip=0)
    slots = [let_in(per_ip) for _ in range(3)]
    assert denied(per_ip) == "address"
    assert denied(per_ip, "::ffff:192.0.2.1") == "address"
    let_in(per_ip, "192.0.2.2")
    per_ip.leave(slots.pop())
    let_in(per_ip)
    assert denied(per_ip) == "address"


def test_an_ipv6_network_is_one_source() -> None:
    per_ip = limits(connections_per_ip=2)
    let_in(per_ip, "2001:db8::1")
    let_in(per_ip, "2001:db8::2")
    assert denied(per_ip, "2001:db8::ffff:3") == "address"
    let_in(per_ip, "2001:db8:0:1::1")


def test_half_open_ones_are_limited_on_their_own() -> None:
    half_open = limits(half_open_per_ip=2)
    first, _ = let_in(half_open), let_in(half_open)
    assert denied(half_open) == "half_open"
    assert half_open.said_hello(first) is None
    let_in(half_open)
    assert denied(half_open) == "half_open"
    half_open.leave(first)
    assert denied(half_open) == "half_open", "it did not count any more"


def test_by_default_only_half_open_ones_are_limited_and_not_those_of_this_machine() -> None:
    """A proxy on loopback may stand for everybody."""
    default = limits()
    for _ in range(HALF_OPEN_DEFAULT):
        let_in(default)
    assert denied(default) == "half_open"
    for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        for _ in range(3 * HALF_OPEN_DEFAULT):
            let_in(default, host)
    for _ in range(10):
        let_in(limits(half_open_per_ip=10), "127.0.0.1")
    explicit = limits(half_open_per_ip=1)
    let_in(explicit, "127.0.0.1")
    assert denied(explicit, "127.0.0.1") == "half_open"


def test_new_connections_are_limited_by_time() -> None:
    rate = limits(connection_rate_per_ip=10, half_open_per_ip=0)
    for _ in range(30):
        let_in(rate, now=100.0)
    assert denied(rate, now=100.0) == "rate"
    let_in(rate, "192.0.2.2", now=100.0)
    let_in(rate, now=100.11)
    assert denied(rate, now=100.11) == "rate"
    for _ in range(30):
        let_in(rate, now=104.0)
    assert denied(rate, now=104.0) == "rate"


def test_over_any_time_no_more_than_rate_and_burst() -> None:
    rate = limits(connection_rate_per_ip=5, half_open_per_ip=0)
    let = sum(isinstance(rate.enter(ADDRESS, step / 100), Slot) for step in range(6000))
    assert 5 * 60 <= let <= 5 * 60 + 15


@pytest.mark.slow
def test_buckets_are_forgotten_when_they_are_full_again() -> None:
    """A million addresses leave nothing behind, and as many at once no more than a bound."""
    rate = limits(connection_rate_per_ip=1, half_open_per_ip=0)
    most = 0
    for number in range(200_000):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        rate.leave(let_in(rate, address, now=number / 1000))
        most = max(most, rate.sizes()["buckets"])
    assert most <= 3001
    for number in range(BUCKETS_MAX + 1000):
        rate.leave(let_in(rate, f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}", now=1000.0))
    assert rate.sizes()["buckets"] <= BUCKETS_MAX


def test_what_is_handed_over_counts_on_without_a_gap() -> None:
    """From adopted until the worker counts it, it counts here; never twice, never not at all."""
    per_ip = limits(connections_per_ip=2, half_open_per_ip=0)
    per_ip.heard(0, Counted(0, {}, None))
    first, second = let_in(per_ip), let_in(per_ip)
    for number, slot in enumerate((first, second), start=1):
        assert per_ip.said_hello(slot) is None
        per_ip.handed_over(slot, 0, number)
        assert denied(per_ip) == "address"
    per_ip.heard(0, Counted(1, {ADDRESS: 1}, 1))
    assert denied(per_ip) == "address"
    per_ip.heard(0, Counted(2, {ADDRESS: 2}, 2))
    assert denied(per_ip) == "address"
    per_ip.heard(0, Counted(1, {ADDRESS: 1}, 2))
    third = let_in(per_ip)
    assert denied(per_ip) == "address"
    per_ip.leave(third)
    per_ip.worker_gone(0)
    assert not any(per_ip.sizes().values())


def test_numbers_of_tickets_go_round() -> None:
    per_ip = limits(connections_per_ip=2, half_open_per_ip=0)
    per_ip.heard(0, Counted(0, {}, None))
    for number in (2**32 - 1, 0):
        per_ip.handed_over(let_in(per_ip), 0, number)
    per_ip.heard(0, Counted(1, {ADDRESS: 1}, 2**32 - 1))
    assert denied(per_ip) == "address"
    per_ip.heard(0, Counted(0, {ADDRESS: 0}, 0))
    let_in(per_ip)
    let_in(per_ip)
    assert denied(per_ip) == "address"


def test_a_killed_worker_takes_its_connections_along() -> None:
    per_ip = limits(connections_per_ip=2, half_open_per_ip=0)
    per_ip.heard(0, Counted(1, {ADDRESS: 1}, None))
    per_ip.heard(1, Counted(1, {ADDRESS: 1}, None))
    assert denied(per_ip) == "address"
    per_ip.worker_gone(0)
    let_in(per_ip)
    assert denied(per_ip) == "address"
    per_ip.worker_gone(1)
    let_in(per_ip)


def test_two_fronts_may_both_let_somebody_in_but_not_to_a_worker() -> None:
    """What the other one has handed over meanwhile is seen at HELLO."""
    one = limits(connections_per_ip=1, half_open_per_ip=0)
    slot = let_in(one)
    one.heard(0, Counted(1, {ADDRESS: 1}, None))
    denial = one.said_hello(slot)
    assert denial is not None
    assert denial.limit == "address"


def test_the_server_has_so_many_in_all() -> None:
    whole = limits(max_connections=3, half_open_per_ip=0)
    whole.heard(0, Counted(1, {"192.0.2.9": 1}, None))
    whole.heard(1, Counted(1, {"192.0.2.8": 1}, None))
    slot = let_in(whole)
    assert whole.is_full() is None
    let_in(whole, "192.0.2.2")
    denial = whole.is_full()
    assert denial is not None
    assert denial.limit == "server"
    whole.leave(slot)
    assert whole.is_full() is None


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_other_workers_have_told_nothing_yet(workers: int) -> None:
    per_ip = limits(connections_per_ip=2, half_open_per_ip=0, max_connections=2)
    per_ip.heard(0, Counted(1, {ADDRESS: 1}, None))
    per_ip.heard(1, Counted(0, {}, None))
    adopted = let_in(per_ip)
    per_ip.said_hello(adopted)
    per_ip.handed_over(adopted, 1, 7)
    assert denied(per_ip) == "address"
    per_ip.resize(workers)
    assert not any(per_ip.sizes().values())
    per_ip.heard(workers - 1, Counted(1, {ADDRESS: 1}, None))
    slot = let_in(per_ip)
    assert denied(per_ip) == "address"
    assert per_ip.is_full() is None
    per_ip.said_hello(slot)
    per_ip.handed_over(slot, workers - 1, 1)
    per_ip.heard(workers - 1, Counted(2, {ADDRESS: 2}, 1))
    assert denied(per_ip) == "address"


class Bookkeeping(RuleBasedStateMachine):
    """A front and two workers, all that may happen to connections, and a simple count of the truth beside it."""

    HOSTS = ("192.0.2.1", "192.0.2.2", "2001:db8::1")
    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.limits = limits(connections_per_ip=self.LIMIT, half_open_per_ip=0)
        self.numbers = count(2**32 - 10)
        #: In the front, by host.
        self.here: list[tuple[str, Slot]] = []
        #: In a worker: hosts; what it told last, the last ticket, and whether it has told anything.
        self.there: list[Counter[str]] = [Counter(), Counter()]
        self.told: list[Counter[str]] = [Counter(), Counter()]
        #: What it took since then.
        self.fresh: list[Counter[str]] = [Counter(), Counter()]
        self.last: list[int | None] = [None, None]

    @staticmethod
    def source(host: str) -> str:
        return "2001:db8::/64" if ":" in host else host

    def alive(self, host: str) -> int:
        return sum(each == host for each, _ in self.here) + sum(worker[host] for worker in self.there)

    def believed(self, host: str) -> int:
        """What the front can know: a connection counts until its end was told."""
        here = sum(each == host for each, _ in self.here)
        return here + sum(self.told[worker][host] + self.fresh[worker][host] for worker in (0, 1))

    @rule(host=st.sampled_from(HOSTS))
    def connect(self, host: str) -> None:
        entered = self.limits.enter(host, 0.0)
        if isinstance(entered, Slot):
            assert self.alive(host) < self.LIMIT, "one too many was let in"
            self.here.append((host, entered))
        else:
            assert self.believed(host) >= self.LIMIT, "there was room"

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        _, slot = self.here.pop(data.draw(st.integers(0, len(self.here) - 1)))
        self.limits.leave(slot)

    @precondition(lambda self: self.here)
    @rule(data=st.data(), worker=st.integers(0, 1))
    def hand_over(self, data: st.DataObject, worker: int) -> None:
        host, slot = self.here.pop(data.draw(st.integers(0, len(self.here) - 1)))
        assert self.limits.said_hello(slot) is None
        number = next(self.numbers) % 2**32
        self.there[worker][host] += 1
        self.fresh[worker][host] += 1
        self.last[worker] = number
        if not self.limits._workers[worker].counts:
            self.report(worker)  # a worker tells as soon as it is asked
        self.limits.handed_over(slot, worker, number)
        if data.draw(st.booleans()):
            self.report(worker)

    @rule(worker=st.integers(0, 1), data=st.data())
    def end(self, worker: int, data: st.DataObject) -> None:
        hosts = sorted(self.there[worker].elements())
        if hosts:
            self.there[worker][data.draw(st.sampled_from(hosts))] -= 1

    @rule(worker=st.integers(0, 1))
    def report(self, worker: int) -> None:
        there = self.there[worker]
        sources = {self.source(host): there[host] for host in self.HOSTS}
        for line in encode_counts(there.total(), sources, self.last[worker]):
            self.limits.heard(worker, decode_counts(line))
        self.told[worker], self.fresh[worker] = there.copy(), Counter()

    @rule(worker=st.integers(0, 1))
    def kill(self, worker: int) -> None:
        self.there[worker], self.told[worker], self.fresh[worker] = Counter(), Counter(), Counter()
        self.last[worker] = None
        self.limits.worker_gone(worker)

    @invariant()
    def no_more_than_allowed(self) -> None:
        assert all(self.alive(host) <= self.LIMIT for host in self.HOSTS)

    def teardown(self) -> None:
        for _, slot in self.here:
            self.limits.leave(slot)
        for worker in (0, 1):
            self.limits.worker_gone(worker)
        assert not any(self.limits.sizes().values()), "something was left"


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = hypothesis_settings(
    max_examples=examples(60), stateful_step_count=40, deadline=None
)


@pytest.mark.parametrize("limit", ["connections_per_ip", "connection_rate_per_ip", "half_open_per_ip"])
def test_0_turns_a_limit_off(limit: str) -> None:
    off = limits(**{"half_open_per_ip": 0, limit: 0})
    for _ in range(2 * HALF_OPEN_DEFAULT):
        let_in(off)
