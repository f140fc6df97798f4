"""docs/promises.md names tests and settings that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from core.process.settings import FIELDS, PREFIX

PROJECT: Final = Path(__file__).parents[1]
PAGE: Final = (PROJECT / "docs" / "promises.md").read_text()
_TEST: Final = re.compile(r"`(tests/[a-z0-9_/]+\.py)(?:::Test\w+)?::(test_[a-z0-9_]+)`")


def test_each_promise_can_be_checked() -> None:
    """Every section of one promise names a test."""
    for section in re.split(r"^###? ", PAGE, flags=re.MULTILINE)[1:]:
        if "\n- Not promised" in section:
            check = section.partition("\n- Check:")[2]
            assert _TEST.search(check), section.splitlines()[0]


@pytest.mark.parametrize(("path", "name"), sorted(set(_TEST.findall(PAGE))))
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    source = (PROJECT / path).read_text()
    assert re.search(rf"^ *(?:async )?def {name}\(", source, re.MULTILINE)


def test_a_setting_that_is_named_is_there() -> None:
    names = set(re.findall(rf"`{PREFIX}([A-Z][A-Z0-9_]+)", PAGE))
    assert names
    assert {name.lower() for name in names} <= set(FIELDS)
