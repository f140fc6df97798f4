"""How many examples hypothesis makes for a test that needs more or fewer than others."""

from __future__ import annotations

import hypothesis


def examples(number: int) -> int:
    """So many, or with the profile of `make test` (tests/conftest.py) as large a part of them as of the 100 of other tests."""
    return number * hypothesis.settings().max_examples // 100
