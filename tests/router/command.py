"""The command `fastchat` in the tests: in their own process, and as a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from typing import Final, NamedTuple
from unittest.mock import patch

from router.operator import cli
from tests.router.front_process import PROJECT
from tests.started_processes import python_path

#: Seconds that a command may take on a machine that is busy with other tests.
TIMEOUT: Final = 30.0


def environment(**settings: object) -> dict[str, str]:
    """Without settings of whoever runs the tests, and without servers of theirs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FASTCHAT_")}
    inherited |= {
        "PYTHONPATH": python_path(),
        "TMPDIR": str(PROJECT / "tests"),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "80",
    }
    return inherited | {f"FASTCHAT_{name.upper()}": str(value) for name, value in settings.items()}


class Done(NamedTuple):
    """What became of a command."""

    returncode: int
    stdout: str
    stderr: str


def fastchat(*words: str, **settings: object) -> Done:
    """Run a command to its end, in this process: loading it anew would take most of the time of a test. No stack trace may come of it."""
    output, errors = io.StringIO(), io.StringIO()
    variables = environment(**settings)
    with (
        patch.dict(os.environ, variables, clear=True),
        patch.object(tempfile, "tempdir", variables["TMPDIR"]),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        code = cli.run(words)
    assert "Traceback" not in errors.getvalue()
    return Done(code, output.getvalue(), errors.getvalue())


def process(*words: str, **settings: object) -> Done:
    """Run a command as its users do."""
    done = subprocess.run(
        [sys.executable, "-m", "router", *words],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)
