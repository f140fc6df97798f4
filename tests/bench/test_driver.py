"""bench.driver: each scenario, small, on a real server; what it counts has to be so."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def drive(*arguments: str) -> list[dict[str, Any]]:
    """The results of a run."""
    command = [sys.executable, "-m", "bench.driver", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("where", ["same", "other", "mixed"])
def test_chat(where: str) -> None:
    """With two processes of clients; an open loop sends exactly what it says."""
    arguments = ("--workers", "2", "--processes", "2", "--pairs", "6", "--where", where, "--seconds", "1")
    (result,) = drive("chat", *arguments, "--load", "rate 300", "--store", "fsync")
    assert (result["scenario"], result["messages"], result["where"]) == ("chat", 300, where)
    assert 0.0 < result["cpu_us"] < result["all_cpu_us"]
    assert result["ack_p50_ms"] <= result["ack_p99_ms"] <= result["ack_p999_ms"]


def test_rounds() -> None:
    results = drive("chat", "--rounds", "2", "--pairs", "2", "--seconds", "0.2", "--load", "window 1")
    assert len(results) == 2
    assert all(result["messages"] > 10 for result in results)


def test_idle() -> None:
    (result,) = drive("idle", "--connections", "300")
    assert 2_000 < result["bytes_each"] < 60_000


def test_storm() -> None:
    (result,) = drive("storm", "--connections", "300", "--fronts", "2")
    assert 0.0 < result["reconnect_p50_s"] <= result["reconnect_s"] < 60.0


def test_churn() -> None:
    (result,) = drive("churn", "--users", "100", "--chats", "4", "--changes", "10", "--seconds", "2")
    assert result["moving_4_cores"] > 0.0


def test_fan_in() -> None:
    """Whoever never reads gets everything in the end."""
    (result,) = drive(
        "fan-in", "--senders", "5", "--rate", "300", "--pairs", "2", "--pairs-rate", "100", "--seconds", "2"
    )
    assert result["written"] >= 300
    assert result["redelivered"] == result["written"]


@pytest.mark.slow
def test_reload() -> None:
    """A connection that ended, or a message without its answer, would have ended the run."""
    (result,) = drive("reload", "--pairs", "5", "--load", "rate 50", "--seconds", "12", "--reloads", "1")
    assert (result["replacements"], result["connections"]) == (1, 10)
    assert result["pause_max_ms"] > 0.0
