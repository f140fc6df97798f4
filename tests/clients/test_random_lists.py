"""The list of chats that both clients keep is the server's, wherever connections are lost (D30, D31, D32)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.clients.misbehaving import SCENARIOS, play, substituted
from tests.clients.network import Data
from tests.clients.node import HERE, client_module, node
from tests.clients.python_subject import PythonSubject
from tests.clients.random_lists import Story

SEEDS: Final = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_d30_the_python_client_has_the_list_of_the_server(seed: int) -> None:
    play(substituted(Story(seed).scenario()), PythonSubject)


def test_d30_the_javascript_client_has_the_list_of_the_server(tmp_path: Path) -> None:
    """All stories in one Node."""
    stories = tmp_path / "stories.json"
    users: Data = json.loads(SCENARIOS.read_text())["users"]
    stories.write_text(json.dumps({"users": users, "scenarios": [Story(seed).scenario() for seed in SEEDS]}))
    command = [node(), str(HERE / "play.mjs"), str(client_module(tmp_path)), str(stories)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    failures = [line for line in map(json.loads, done.stdout.splitlines()) if line["failure"]]
    assert failures == []
