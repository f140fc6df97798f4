"""Tests of the table of attacks: it is complete, and its document is true."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.system import attacks
from tests.system.bystanders import Bystanders
from tests.system.harness import Server


def test_each_attack_has_a_test_and_each_test_an_attack() -> None:
    assert {name for name, _ in attacks.marked()} == set(attacks.names())


def test_the_document_is_current() -> None:
    assert attacks.DOCUMENT.read_text() == attacks.document(), "say python -m tests.system.attacks"


@pytest.mark.slow
def test_bystanders_notice_when_a_worker_ends(tmp_path: Path) -> None:
    """Else nothing would be proven by their calm."""
    server = Server(tmp_path)
    with server, pytest.raises(AssertionError, match="the bystanders noticed"), Bystanders(server) as pair:
        pair.check()
        os.kill(server.child("worker 1"), signal.SIGKILL)
