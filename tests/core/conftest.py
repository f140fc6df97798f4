"""Fixtures of the core's tests."""

from __future__ import annotations

import pytest

from tests.core.pair import Pair


@pytest.fixture(params=[False, True], ids=["same-shard", "other-shard"])
def far(request: pytest.FixtureRequest) -> bool:
    """Whether the two users of a test live on different shards; a test that asks runs for both."""
    return bool(request.param)


@pytest.fixture
def pair(far: bool) -> Pair:
    """Two users, on one shard and on two, with the default settings."""
    return Pair(far)
