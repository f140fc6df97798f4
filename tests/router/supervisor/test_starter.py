"""Tests of router.supervisor.starter: which core processes get that are started later."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import pytest

from router.supervisor.build import CORE_COMMAND
from router.supervisor.starter import Starter


def refreshed(environment: dict[str, str]) -> dict[str, str]:
    """The environment of later processes."""
    starter = Starter([], environment, [], Path(), None)
    asyncio.run(starter.refresh())
    return dict(starter.environment)


def program(text: str) -> str:
    """A command that runs this program."""
    return shlex.join([sys.executable, "-c", text])


def test_the_core_of_the_sources_as_they_are_now(tmp_path: Path) -> None:
    """The command does not find the core that this process has."""
    tell = f"import os; assert 'PYTHONPATH' not in os.environ; print({str(tmp_path)!r})"
    before = {"PYTHONPATH": "/old", "PYTHONSAFEPATH": "1", CORE_COMMAND: program(tell), "A": "b"}
    assert refreshed(before) == {**before, "PYTHONPATH": str(tmp_path)}


def test_a_server_without_a_compiled_core_stays_without() -> None:
    assert refreshed({"A": "b"}) == {"A": "b"}


def test_one_that_can_not_be_compiled_says_why() -> None:
    with pytest.raises(OSError, match="can't be compiled: no compiler"):
        refreshed({CORE_COMMAND: program("import sys; sys.exit('no compiler')")})
