"""Tests of workers.backlog: the bytes that the transport still has, whatever has gone out meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.backlog import Backlog


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 40))))
def test_what_waits_is_always_known(steps: list[tuple[bytes, int]]) -> None:
    """Each step gives some bytes to the transport, and then some go out."""
    backlog, waiting = Backlog(), b""
    for data, gone in steps:
        backlog.trim(len(waiting))
        backlog.add(data)
        waiting = (waiting + data)[gone:]
        assert backlog.last(len(waiting)) == waiting


def test_what_another_process_could_not_write_is_taken_once() -> None:
    backlog = Backlog(b"the rest")
    assert backlog.take() == b"the rest"
    assert backlog.take() == b""
    backlog.add(b"and more")
    assert backlog.last(4) == b"more"


def test_what_has_gone_out_takes_no_memory() -> None:
    backlog = Backlog()
    for _ in range(1000):
        backlog.trim(3)
        backlog.add(b"0123456789")
    assert len(backlog._parts) <= 2
