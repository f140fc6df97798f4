"""The guard: its workloads do what they say, it compares as it should, and under valgrind more work counts as more."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import counted, guard
from bench.cast import MESSAGES_A_TURN, Cast
from bench.guard import Budget, NotMeasured
from bench.hot_path import SCENARIOS, Rows, Workload
from bench.reference import UNITS_A_TURN, Reference
from tests.core.world import payload_of
from workers import __main__ as worker_main

TURNS = 3
MESSAGES = TURNS * MESSAGES_A_TURN


def cast_of(workload: Workload) -> Cast:
    """The clients of a scenario that has some."""
    cast = getattr(workload, "cast", None)
    assert isinstance(cast, Cast)
    return cast


def run(name: str) -> tuple[Workload, list[tuple[str, dict[str, Any]]]]:
    """A scenario after some turns, and (user, message) of all that was written."""
    workload = SCENARIOS[name](TURNS)
    clients = cast_of(workload).clients
    for client in clients:
        client.wire.kept = []
    for _ in range(TURNS):
        workload.turn()
    said = [
        (client.user_id, json.loads(payload_of(frame)))
        for client in clients
        for frame in client.wire.kept or ()
    ]
    assert len(said) == workload.written
    return workload, said


def kinds(said: list[tuple[str, dict[str, Any]]]) -> Counter[str]:
    return Counter(message["type"] for _, message in said)


# -- The workloads --


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_writes_what_it_promises(name: str) -> None:
    workload = SCENARIOS[name](TURNS)
    assert workload.written == 0
    for turn in range(1, TURNS + 1):
        workload.turn()
        assert workload.written == turn * MESSAGES_A_TURN * workload.written_each


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_can_go_on_for_as_long_as_it_is_measured(name: str) -> None:
    turns = counted.WARM_UP + guard.TURNS
    workload = SCENARIOS[name](turns)
    for _ in range(turns):
        workload.turn()
    assert workload.written == turns * MESSAGES_A_TURN * workload.written_each


@pytest.mark.parametrize(("name", "shards"), [("same shard", 1), ("other shard", 2)])
def test_each_message_is_delivered_and_acknowledged(name: str, shards: int) -> None:
    workload, said = run(name)
    cast = cast_of(workload)
    assert len(cast.shards) == shards
    assert kinds(said) == {"MSG": MESSAGES, "MSG_ACK": MESSAGES}
    senders = {first.user_id for first, _ in cast.pairs}
    delivered = {message["data"]["message_id"] for user, message in said if user not in senders}
    acknowledged = {
        message["data"]["message_id"]
        for user, message in said
        if user in senders and message["data"]["status"] == "delivered"
    }
    assert len(delivered) == MESSAGES
    assert delivered == acknowledged


def test_recipients_acknowledge_what_came_in_the_turn_before() -> None:
    workload, _ = run("same shard")
    cast = cast_of(workload)
    users = [cast.shard_of(second.user_id).users[second.user_id] for _, second in cast.pairs]
    each = MESSAGES // len(cast.pairs)
    assert [user.mailbox.head for user in users] == [each] * len(users)
    assert [user.mailbox.acknowledged_through for user in users] == [each // TURNS * (TURNS - 1)] * len(users)


def test_other_shard_goes_through_the_bus_and_same_shard_does_not() -> None:
    for name, crossing in (("same shard", False), ("other shard", True)):
        cast = cast_of(SCENARIOS[name](1))
        for first, second in cast.pairs:
            assert (cast.shard_of(first.user_id) is not cast.shard_of(second.user_id)) is crossing


def test_typing_is_shown_to_the_peer() -> None:
    workload, said = run("typing")
    pairs = cast_of(workload).pairs
    peers = {one.user_id: other.user_id for pair in pairs for one, other in (pair, pair[::-1])}
    assert kinds(said) == {"TYPING": MESSAGES}
    assert all(message["data"]["user_id"] == peers[user] for user, message in said)
    assert {message["data"]["is_typing"] for _, message in said} == {True, False}


def test_ping_is_answered() -> None:
    assert kinds(run("ping")[1]) == {"PONG": MESSAGES}


def test_refuse_is_told_what_is_wrong() -> None:
    _, said = run("refuse")
    assert kinds(said) == {"ERROR": MESSAGES}
    assert {message["data"]["code"] for _, message in said} == {"VALIDATION"}
    assert {message["data"]["details"]["field"] for _, message in said} == {"to"}


def test_rows_are_what_the_store_inserts() -> None:
    rows = Rows(1)
    rows.turn()
    mailbox, seq, _, _, message_id, content, sent_at, receipts, lamport = json.loads(rows.last)
    assert (mailbox, seq, receipts, lamport) == (1, MESSAGES_A_TURN, 0, 0)
    assert re.fullmatch(r"[0-9a-f-]{36}", message_id)
    assert content.startswith("Hello there")
    assert sent_at == 1_704_110_400_000


def test_two_runs_write_the_same() -> None:
    assert run("other shard")[1] == run("other shard")[1]


def test_the_reference_is_counted_like_a_scenario() -> None:
    assert UNITS_A_TURN == MESSAGES_A_TURN
    reference = Reference(TURNS)
    for turn in range(1, TURNS + 1):
        reference.turn()
        assert reference.written == turn * UNITS_A_TURN


def test_the_garbage_collector_is_set_as_in_the_worker() -> None:
    ours = (counted._YOUNG, counted._OLDER, counted._NEVER)
    assert ours == (worker_main._YOUNG, worker_main._OLDER, worker_main._NEVER)


# -- Comparing --


def test_what_is_within_the_tolerance_is_fine() -> None:
    assert guard.compare({"a": 1.029, "b": 0.971}, {"a": 1.0, "b": 1.0}, 0.03) == ([], [])


def test_what_is_over_budget_is_a_problem_that_says_what_to_do() -> None:
    verdict = guard.compare({"same shard": 1.051, "b": 1.0}, {"same shard": 1.0, "b": 1.0}, 0.03)
    assert verdict.notes == []
    assert verdict.problems == [
        "same shard costs 5.1% more than its budget of 1.0000 units: profile it, or `make bench-guard ARGS=--update` "
        "if that is meant, and say why in the commit"
    ]


def test_what_is_far_under_budget_is_a_note() -> None:
    verdict = guard.compare({"a": 0.9}, {"a": 1.0}, 0.03)
    assert verdict.problems == []
    assert verdict.notes == [
        "a costs 10.0% less than its budget of 1.0000 units: `make bench-guard ARGS=--update` makes sure that it stays so"
    ]


def test_a_scenario_without_a_budget_is_a_problem() -> None:
    (problem,) = guard.compare({"a": 1.0, "new": 1.0}, {"a": 1.0}, 0.03).problems
    assert problem.startswith("new has no budget")


def test_a_budget_without_a_scenario_is_a_problem_unless_only_some_were_measured() -> None:
    (problem,) = guard.compare({"a": 1.0}, {"a": 1.0, "old": 1.0}, 0.03).problems
    assert problem.startswith("the budget has 'old', which is no scenario")
    assert guard.compare({"a": 1.0}, {"a": 1.0, "old": 1.0}, 0.03, complete=False) == ([], [])


def test_a_build_is_known_by_its_version_and_by_what_a_unit_costs() -> None:
    budget = Budget("3.11", 100_000, {})
    assert guard.is_same_build(budget, "3.11", 101_000)
    assert not guard.is_same_build(budget, "3.12", 100_000)
    assert not guard.is_same_build(budget, "3.11", 95_000)


def test_the_table_has_a_line_for_each_scenario_and_the_unit() -> None:
    lines = guard.table({"reference": 1000.0, "a": 1500.0, "b": 500.0}, {"a": 1.25}).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["a", "1,500", "1.5000", "1.2500", "+20.0%"],
        ["b", "500", "0.5000", "none"],
        ["(a", "unit)", "1,000", "1.0000"],
    ]


@pytest.mark.parametrize("path", [guard._BUDGET, guard._COMPILED_BUDGET])
def test_the_committed_budgets_have_every_scenario_and_no_other(path: Path) -> None:
    budget = guard.load_budget(path)
    assert budget is not None
    assert budget.units.keys() == SCENARIOS.keys()


# -- Updating --

ALL = {"reference": 1000.0, **dict.fromkeys(SCENARIOS, 1500.0)}


def test_an_update_takes_what_was_measured() -> None:
    budget = guard.updated(None, ALL, "3.11")
    assert budget == ("3.11", 1000, dict.fromkeys(SCENARIOS, 1.5))


def test_a_budget_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    assert guard.load_budget(path) is None
    budget = guard.updated(None, ALL, "3.11")
    path.write_text(budget.dump())
    assert guard.load_budget(path) == budget


def test_an_update_of_one_scenario_keeps_the_others_and_drops_unknown_ones() -> None:
    before = Budget("3.11", 1000, {**dict.fromkeys(SCENARIOS, 1.5), "old": 1.0})
    after = guard.updated(before, {"reference": 1001.0, "ping": 2002.0}, "3.11")
    assert after == ("3.11", 1000, {**dict.fromkeys(SCENARIOS, 1.5), "ping": 2.0})


def test_one_scenario_is_not_updated_on_another_build() -> None:
    before = Budget("3.11", 1000, dict.fromkeys(SCENARIOS, 1.5))
    for budget, python in ((before, "3.13"), (None, "3.11")):
        with pytest.raises(ValueError, match="all scenarios at once"):
            guard.updated(budget, {"reference": 1000.0, "ping": 2000.0}, python)


# -- The command --


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """What valgrind is made to say, and a budget of 1.5 units for everything, which is not the committed one."""
    says = dict(ALL)
    path = tmp_path / "budget.json"
    path.write_text(guard.updated(None, ALL, guard.python_version()).dump())
    compiled = tmp_path / "compiled.json"
    compiled.write_text(guard.updated(None, ALL, f"{guard.python_version()}, cc 1").dump())
    monkeypatch.setattr(guard, "compiler_version", lambda: "cc 1")
    monkeypatch.setattr(guard, "_BUDGET", path)
    monkeypatch.setattr(guard, "_COMPILED_BUDGET", compiled)
    monkeypatch.setattr(guard, "find_or_build", lambda: tmp_path)
    monkeypatch.setattr(guard, "count", lambda names, core: {name: says[name] for name in names})
    return says


def test_within_the_budget_it_ends_with_0(
    measured: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard.main([]) == 0
    assert "note" not in capsys.readouterr().out


def test_over_the_budget_it_ends_with_1_and_says_so(
    measured: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    measured["typing"] *= 1.05
    assert guard.main([]) == 1
    assert capsys.readouterr().err.startswith("typing costs 5.0% more than its budget")
    assert guard.main(["--scenario", "ping"]) == 0


def test_under_the_budget_it_ends_with_0_and_says_so(
    measured: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    measured["typing"] *= 0.9
    assert guard.main([]) == 0
    assert "note: typing costs 10.0% less" in capsys.readouterr().out


def test_another_build_is_told_so_and_gets_more_room(
    measured: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    measured.update({name: cost * 1.2 for name, cost in measured.items()})
    measured["typing"] *= 1.05
    assert guard.main([]) == 0
    assert "another build of Python" in capsys.readouterr().out
    measured["typing"] *= 1.1
    assert guard.main([]) == 1


def test_update_writes_what_is_then_within_the_budget(measured: dict[str, float]) -> None:
    measured["typing"] *= 1.5
    assert guard.main(["--update"]) == 0
    assert guard.main([]) == 0


def test_without_valgrind_it_ends_with_2_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert guard.main([]) == 2
    assert "apt-get install valgrind" in capsys.readouterr().err


# -- Under valgrind --

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")

#: Two scenarios that are the same, and a third that encodes one more piece of JSON for each message.
WASTEFUL = """
import json
import sys

from bench.counted import serve
from bench.cast import MESSAGES_A_TURN
from bench.hot_path import Ping


class Wasteful(Ping):
    def turn(self):
        super().turn()
        for _ in range(MESSAGES_A_TURN):
            json.dumps({"one": "more"})


serve({"ping": Ping, "same": Ping, "wasteful": Wasteful}, int(sys.argv[1]), sys.argv[2:])
"""


@pytest.mark.slow
@needs_valgrind
def test_one_more_operation_for_each_message_is_counted(tmp_path: Path) -> None:
    program = tmp_path / "wasteful.py"
    program.write_text(WASTEFUL)
    costs = guard.count(["ping", "same", "wasteful"], turns=2, program=[str(program)])
    assert costs["same"] == pytest.approx(costs["ping"], rel=0.01)
    # An encoding costs thousands of instructions, and some of them are Python's own.
    assert costs["wasteful"] > costs["ping"] + 1000


@pytest.mark.slow
@needs_valgrind
def test_a_scenario_that_does_not_write_what_it_promises_is_not_measured(tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text(WASTEFUL.replace("super().turn()", "super().turn(); self.written_each = 2"))
    with pytest.raises(NotMeasured, match="'wasteful' has written 64 frames or rows instead of 128"):
        guard.count(["wasteful"], turns=2, program=[str(program)])
