"""What the chat page and the JavaScript client do when clocks are put back, or when much happens in one millisecond."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.node import HERE, WEB, node


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's modules, which every Node takes for ES modules here."""
    directory = Path(shutil.copytree(WEB, tmp_path_factory.mktemp("page") / "web"))
    (directory / "package.json").write_text(json.dumps({"type": "module"}))
    return directory


def run(script: str, argument: str) -> None:
    done = subprocess.run(
        [node(), str(HERE / script), argument], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_unread_messages_are_counted_one_by_one(modules: Path) -> None:
    """By their ids and positions: neither the millisecond that they share nor a clock that is put back matters."""
    run("unread.mjs", f"{modules.as_uri()}/")


def test_what_waits_is_sent_in_the_order_in_which_it_was_written(modules: Path) -> None:
    """After a reload too, and though the clock was put back in between."""
    run("unsent.mjs", f"{modules.as_uri()}/")


def test_typing_is_repeated_by_a_clock_that_is_never_put_back(modules: Path) -> None:
    run("clock_back.mjs", (modules / "fastchat.js").as_uri())
