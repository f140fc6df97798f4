"""Tests of router.supervisor.upgrade: the check, and an exec that fails. The rest is in ``tests/system/test_supervisor_upgrade.py``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from router.supervisor import upgrade
from router.supervisor.reload import UpgradeFailed
from router.supervisor.upgrade import Resume, become, check, parse_resume, signals_blocked
from tests.router.supervisor.test_handed_on import STATE
from tests.system.harness import run_async


@pytest.mark.parametrize(
    ("arguments", "resume"),
    [
        ([], None),
        (["--workers", "3"], None),
        (["--workers", "3", "--resume", "7"], Resume(7, False)),
        (["--resume", "7", "--check"], Resume(7, True)),
    ],
)
def test_the_flags_of_a_program_that_goes_on(arguments: Sequence[str], resume: Resume | None) -> None:
    assert parse_resume(arguments) == resume


def as_server(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """From now on this process was started like this."""
    monkeypatch.setattr(sys, "orig_argv", ["python", *arguments])


@run_async
async def test_the_real_program_understands_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    as_server(monkeypatch, "-m", "router", "serve", "--resume", "99")
    await check(STATE.to_json(), os.environ)


@pytest.mark.slow
@run_async
async def test_a_state_that_it_does_not_understand_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    as_server(monkeypatch, "-m", "router", "serve")
    with pytest.raises(UpgradeFailed, match="fastchat: the state has version None"):
        await check(b"{}", os.environ)


@run_async
async def test_a_program_that_says_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    as_server(monkeypatch, "-c", "import sys; sys.exit(7)")
    with pytest.raises(UpgradeFailed, match="it ended with 7 and said nothing"):
        await check(STATE.to_json(), os.environ)


@run_async
async def test_a_program_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upgrade, "_CHECK_PATIENCE", 0.1)
    as_server(monkeypatch, "-c", "import time; time.sleep(1000)")
    with pytest.raises(UpgradeFailed, match=r"did not start within 0\.1 s"):
        await check(STATE.to_json(), os.environ)


def test_an_exec_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then what goes along is inheritable."""
    as_server(monkeypatch, "-m", "router", "serve", "--resume", "3")
    reading, writing = os.pipe()
    seen: list[Sequence[str]] = []

    def fail(program: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        assert program == sys.executable
        assert os.get_inheritable(reading)
        assert not os.get_inheritable(writing)
        assert os.get_inheritable(int(command[-1]))
        assert environment == {"A": "B"}
        seen.append(command)
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(os, "execve", fail)
    try:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="Exec format error"):
            become(STATE.to_json(), [reading], {"A": "B"})
        assert seen[0][:-1] == [sys.executable, "-m", "router", "serve", "--resume"]
        assert not os.get_inheritable(reading)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(reading)
        os.close(writing)


def test_signals_wait_while_they_are_blocked() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: came.append(number))
    try:
        with signals_blocked():
            signal.raise_signal(signal.SIGHUP)  # for this thread: what runs tests has others
            assert came == []
        assert came == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)
