"""RFC 6455 against the real front, hand-over and connection: every case, before HELLO too; and what is said about them."""

from __future__ import annotations

import inspect
from collections import Counter
from functools import partial

import pytest

from tests.rfc6455.case import TEXT, Case, Script, frame
from tests.rfc6455.cases import ALL, FAMILIES, IN_LOBBY, family
from tests.rfc6455.cases_utf8 import VALID
from tests.rfc6455.peer import Peer
from tests.rfc6455.table import DOCUMENT, document, problem
from tests.router.server_process import ServerProcess
from tests.started_processes import has_the_core_of_the_tests
from workers.__main__ import main
from workers.connection import Connection

#: How many cases each family has in the public list.
COUNTS = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}


def number(case: Case) -> str:
    return case.number


def rule(case: Case) -> str:
    """What is the same in the numbers of the cases of one rule: all of a number of two parts, and the first two of one of three."""
    return ".".join(case.number.split(".")[:2])


def one_of_each_rule(cases: list[Case], families: str) -> list[object]:
    """All cases, of which those after the first of a rule in these families are for the second tier."""
    seen: set[str] = set()
    marked: list[object] = []
    for case in cases:
        more = rule(case) in seen and family(case) in families
        marked.append(pytest.param(case, id=number(case), marks=pytest.mark.slow if more else ()))
        seen.add(rule(case))
    return marked


@pytest.mark.parametrize("case", one_of_each_rule(ALL, "69"))
def test_case(server: ServerProcess, case: Case) -> None:
    """D25, D28: exactly what is expected comes, nothing else, and the connection ends as it should."""
    assert problem(server.port, case, lobby=False) is None


@pytest.mark.parametrize("case", one_of_each_rule(IN_LOBBY, "1567"))
def test_case_before_hello(server: ServerProcess, case: Case) -> None:
    """D25: the same rules of framing before HELLO."""
    assert problem(server.port, case, lobby=True) is None


def test_it_is_the_core_of_the_tests_that_echoes(server: ServerProcess) -> None:
    """So `make test-compiled` tries all cases on the compiled one."""
    assert has_the_core_of_the_tests(server.child("worker 0"))


def test_compression_is_not_negotiated(server: ServerProcess) -> None:
    """The peer offers it, as browsers do; without it a frame with RSV1, which is how a compressed one looks, is refused."""
    with Peer(server.port) as peer:
        assert peer.extensions == []
        peer.hello()
        peer.socket.sendall(frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=4))
        peer.wait_for(1)
        assert (peer.events, peer.code) == ([], 1002)


def test_nobody_else_notices(server: ServerProcess) -> None:
    """A connection that echoes goes on through a broken one next to it."""
    broken = next(case for case in ALL if case.number == "6.3.2")
    with Peer(server.port) as healthy:
        healthy.hello()
        for count in range(1, 4):
            assert problem(server.port, broken, lobby=False) is None
            healthy.socket.sendall(frame(TEXT, b"still here"))
            healthy.wait_for(count)
            assert len(healthy.events) == count


def test_a_wrong_expectation_is_noticed(server: ServerProcess) -> None:
    """The checks above can fail: what is expected of one case does not hold for another."""
    cases = {case.number: case for case in ALL}
    steps = cases["1.1.2"].build().steps
    for number in ("1.1.3", "1.2.2", "2.1", "5.3"):
        wrong = cases[number].build()._replace(steps=steps)
        assert problem(server.port, Case("", "", partial(Script, *wrong)), lobby=False) is not None


def test_the_list_is_complete() -> None:
    """As many cases in each family as the public list has, each number once and in order."""
    numbers = [[int(part) for part in case.number.split(".")] for case in ALL]
    assert numbers == sorted(numbers)
    assert len({case.number for case in ALL}) == len(ALL)
    assert Counter(map(family, ALL)) == COUNTS
    assert COUNTS.keys() == FAMILIES.keys()


def test_the_valid_sequences_are_those_of_the_list() -> None:
    """Whether a sequence is UTF-8 is said by Python's decoder; here by the list."""
    for case in ALL:
        first, _, rest = case.number.partition(".")
        part = int(rest.partition(".")[0])
        if first == "6" and part > 4 and part not in (6, 11):
            assert bool(case.build().events) == (part in VALID), case.number
    valid = [case.number for case in ALL if case.number.startswith(("6.6.", "6.11.")) and case.build().events]
    assert valid == ["6.6.2", "6.6.5", "6.6.7", "6.6.9", "6.6.11", "6.11.1", "6.11.2", "6.11.3", "6.11.4"]


@pytest.mark.slow
def test_the_document_is_up_to_date() -> None:
    """It names exactly these cases, with what is expected of them; ``python -m tests.rfc6455.table`` writes it anew."""
    assert DOCUMENT.read_text() == document()


def test_a_real_worker_does_not_echo() -> None:
    """Who starts ``python -m workers`` gets the chat; nothing that it is told changes that."""
    assert inspect.signature(main).parameters["connection_type"].default is Connection
    assert Connection.message_max == 16 * 1024
