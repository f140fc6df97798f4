"""Fixtures of the tests of stores and their tools."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from core.chat.user import User
from tests.workers.store_driver import KINDS, Kind, Make, StoreDriver
from tests.workers.store_files import content, fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store on disk has its file."""
    return tmp_path / "shard.db"


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, path: Path) -> Iterator[Make]:
    """Makes a store with some settings, once in a test."""
    made: list[StoreDriver] = []

    def make(**settings: Any) -> StoreDriver:
        made.append(StoreDriver(cast("Kind", request.param), path, **settings))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


@pytest.fixture
def driver(make: Make) -> StoreDriver:
    return make()


@pytest.fixture
def bob(driver: StoreDriver) -> User:
    return driver.user("bob")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with ten users on three workers."""
    directory = tmp_path_factory.mktemp("original")
    fill(directory, 3, users=10, messages=400)
    return directory


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(original, tmp_path / "data")


@pytest.fixture(scope="module")
def users(original: Path) -> list[str]:
    """Its users."""
    return list(content(original).users)
