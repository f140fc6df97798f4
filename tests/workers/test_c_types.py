"""The C types of the compiled core: each attribute of the classes that Cython compiles has one, and each has its attribute."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workers.connection import Connection
from workers.turn import Turn

_WORKERS = Path(__file__).resolve().parents[2] / "workers"


@pytest.mark.parametrize(("name", "compiled"), [("connection", Connection), ("turn", Turn)])
def test_attributes(name: str, compiled: type[Connection] | type[Turn]) -> None:
    """One without would be an AttributeError, and on the compiled core only."""
    typed = re.findall(r"^    cdef public \w+ (\w+)$", (_WORKERS / f"{name}.pxd").read_text(), re.MULTILINE)
    assert sorted(typed) == sorted(compiled.__slots__)
