"""Where the servers of these tests write."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def directory(run_dir: Path) -> Path:
    """A place with a short name for everything that a server writes."""
    return run_dir
