"""The tools of ``python -m workers.store`` as tests run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.workers.process import PROJECT
from tests.workers.store_files import connect, shards
from workers.store.__main__ import main
from workers.store.check import check

#: Does something to a data directory.
Damage = Callable[[Path], object]


class Result(NamedTuple):
    """Of a tool."""

    returncode: int
    stdout: str
    stderr: str


def process(*arguments: object, **environment: str) -> Result:
    """Run one of the tools as an operator does."""
    result = subprocess.run(
        [sys.executable, "-m", "workers.store", *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return Result(result.returncode, result.stdout, result.stderr)


def tool(*arguments: object) -> Result:
    """The same without the time that a process takes to start; not for `prepare`, which sets up a process."""
    with (
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as err,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SQLITE_TMPDIR", "")  # put back at the end
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def change(path: Path, statement: str, *parameters: Any) -> None:
    """Change a file behind everybody's back."""
    with closing(connect(path)) as connection:
        assert connection.execute(statement, parameters).rowcount


def checked(directory: Path) -> list[str]:
    """The problems that are found, after the name of the file."""
    out = StringIO()
    problems = check(directory, out)
    lines = out.getvalue().splitlines()
    summary = next(line for line in lines if line.startswith(f"{directory}: "))
    assert summary.endswith(f"{problems} problems" if problems else "no problem")
    assert lines.index(summary) == problems
    return lines[:problems]


def truncate(directory: Path) -> None:
    path = shards(directory)[0]
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def overwrite(directory: Path) -> None:
    with shards(directory)[0].open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xaa" * 4096 * 3)
