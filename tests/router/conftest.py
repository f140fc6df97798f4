"""Fronts that several tests share: starting one takes longer than most tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.router.front_process import FrontProcess


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A directory with a name that is short enough for sockets; pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="fastchat-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def shared_front() -> Iterator[FrontProcess]:
    """A front with two workers, neither of which is there."""
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        FrontProcess(Path(name), workers=2) as front,
    ):
        yield front


@pytest.fixture
def front(shared_front: FrontProcess) -> Iterator[FrontProcess]:
    """The shared front; a test that leaves a descriptor behind in it fails."""
    with shared_front.no_leak():
        yield shared_front


@pytest.fixture(scope="module")
def shared_hasty_front() -> Iterator[FrontProcess]:
    """A front that waits for nothing longer than half a second."""
    limits = {"head": 0.5, "hello": 0.5, "wait": 0.5}
    with (
        tempfile.TemporaryDirectory(prefix="fastchat-") as name,
        FrontProcess(Path(name), limits=limits) as front,
    ):
        yield front


@pytest.fixture
def hasty_front(shared_hasty_front: FrontProcess) -> Iterator[FrontProcess]:
    """The shared hasty front, which must not leak either."""
    with shared_hasty_front.no_leak():
        yield shared_hasty_front
