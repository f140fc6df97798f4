"""Tests of router.supervisor.takeover: which settings go on with which processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from core.process.settings import Settings
from router.supervisor.takeover import differences

#: As a supervisor has them that runs: ports and paths are known.
GIVEN = Settings(
    port=8123,
    admin_port=8124,
    workers=2,
    data_dir=Path.cwd() / "data",
    run_dir=Path("/run/fastchat/run-12ab"),
)


@pytest.mark.parametrize(
    ("wanted", "differ"),
    [
        ({}, []),
        ({"port": 0, "admin_port": 0}, []),
        ({"port": 8000}, ["port"]),
        ({"data_dir": Path("data")}, []),
        ({"data_dir": Path("other")}, ["data_dir"]),
        ({"run_dir": None}, []),
        ({"run_dir": Path("/run/fastchat")}, []),
        ({"run_dir": Path("/run/other")}, ["run_dir"]),
        ({"log_level": "debug"}, []),
        ({"workers": 3, "retention_days": 1.0}, ["workers", "retention_days"]),
    ],
)
def test_what_keeps_a_start_from_going_on(wanted: dict[str, Any], differ: list[str]) -> None:
    assert differences(dataclasses.replace(GIVEN, **{"run_dir": None, **wanted}), GIVEN) == differ
