"""Tests of router.supervisor.restart_policy."""

from __future__ import annotations

import pytest

from router.supervisor.restart_policy import (
    FIRST_DELAY,
    JITTER,
    LONGEST_DELAY,
    STABLE,
    GiveUp,
    Restart,
    RestartPolicy,
)


def served(spread: float = 0.5) -> RestartPolicy:
    """The policy of a child that became ready at 0; with a spread of 0.5 there is no jitter."""
    policy = RestartPolicy("worker 3", lambda: spread)
    policy.ready(0.0)
    return policy


def delay(verdict: Restart | GiveUp) -> float:
    assert isinstance(verdict, Restart)
    return verdict.delay


def test_a_crash_is_followed_by_a_restart_almost_at_once() -> None:
    assert delay(served().died(100.0, "signal SIGKILL")) == pytest.approx(FIRST_DELAY)


def test_crash_after_crash_the_delay_doubles_up_to_a_bound() -> None:
    policy = served()
    delays = []
    for crash in range(12):
        delays.append(delay(policy.died(crash + 0.5, "signal SIGSEGV")))
        policy.ready(crash + 1.0)
    assert delays[:4] == pytest.approx([FIRST_DELAY, FIRST_DELAY * 2, FIRST_DELAY * 4, FIRST_DELAY * 8])
    assert delays[-1] == pytest.approx(LONGEST_DELAY)
    assert max(delays) == pytest.approx(LONGEST_DELAY)


def test_a_stable_time_makes_the_next_crash_the_first_again() -> None:
    policy = served()
    for time in (1.0, 2.0, 3.0):
        policy.died(time, "exit code 1")
        policy.ready(time)
    assert delay(policy.died(3.0 + STABLE, "exit code 1")) == pytest.approx(FIRST_DELAY)


@pytest.mark.parametrize(("spread", "factor"), [(0.0, 1 - JITTER), (1.0, 1 + JITTER)])
def test_the_delay_is_spread_to_both_sides(spread: float, factor: float) -> None:
    assert delay(served(spread).died(1.0, "exit code 1")) == pytest.approx(FIRST_DELAY * factor)


def test_the_spread_is_random_by_default() -> None:
    delays = set()
    for _ in range(20):
        policy = RestartPolicy("front 0")
        policy.ready(0.0)
        delays.add(delay(policy.died(1.0, "exit code 1")))
    assert len(delays) > 1


def test_a_boot_failure_at_the_first_start_ends_the_server() -> None:
    verdict = RestartPolicy("worker 3").died(0.4, "exit code 1")
    assert verdict == GiveUp(3, "worker 3 could not start: it ended with exit code 1 before it was ready")


def test_a_refusal_at_the_first_start_ends_the_server_with_its_reason() -> None:
    verdict = RestartPolicy("worker 3").died(0.4, "exit code 2", "the keys are missing", 2)
    assert verdict == GiveUp(2, "worker 3 refused to start: the keys are missing")


def test_a_refusal_that_the_operator_need_not_mend_is_a_boot_failure() -> None:
    verdict = RestartPolicy("worker 3").died(0.4, "exit code 3", "the disk is full", 3)
    assert verdict == GiveUp(3, "worker 3 refused to start: the disk is full")


def test_who_has_served_before_is_never_given_up() -> None:
    """The others do their work: neither crashes nor refusals of one end the server, they only slow the next tries down."""
    policy = served()
    delays = [delay(policy.died(100.0, "signal SIGKILL"))]
    delays += [delay(policy.died(100.0, "exit code 1")) for _ in range(4)]
    assert delays == sorted(set(delays))
    delays = [delay(policy.died(100.0, "exit code 2", "no space")) for _ in range(2000)]
    assert delays[-1] == pytest.approx(LONGEST_DELAY)
