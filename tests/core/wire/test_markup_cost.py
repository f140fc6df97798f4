"""What sanitising costs in instructions, which valgrind counts: in proportion to the length, for the worst texts too (D16).

``tests.core.wire.test_markup`` counts lines of Python, which takes no time; here is what the expressions do as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from core.wire.sanitize import sanitize_name, sanitize_text
from tests.core.markup_floods import FLOODS, repeated
from tests.started_processes import python_path

_ROOT: Final = Path(__file__).resolve().parents[3]
_SUMMARY: Final = re.compile(r"^summary: (\d+)", re.MULTILINE)
_SIZES: Final = (8192, 16384)
#: What is taken out of names only: floods of marks, of joiners, and of what is invisible.
_NAMES: Final = [
    ("a", unit)
    for unit in (
        "\u0301\u0327",
        "\u0344",
        "\u202e<",
        "\u212a",
        "  \u3000",
        "\u2764\u200d",
        "a\u200c",
        "\u3164",
    )
]


def _count_all() -> None:
    """Runs under valgrind: each text in a fork of its own, and before each a fork that does nothing. Prints the process ids."""
    for function, floods in ((sanitize_text, FLOODS), (sanitize_name, [*FLOODS, *_NAMES])):
        for opening, unit in floods:
            make = repeated(opening, unit)
            function(make(512))  # so that the interpreter has specialised the code
            numbers = [_fork(function, make(size)) for size in (0, *_SIZES)]
            print(json.dumps([f"{function.__name__} {opening}{unit}", numbers]), flush=True)


def _fork(function: Callable[[str], object], text: str) -> int:
    child = os.fork()
    if child == 0:
        if text:
            function(text)
        os._exit(0)
    os.waitpid(child, 0)
    return child


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.timeout(900)
def test_d16_twice_the_text_takes_at_most_2_3_times_the_instructions(tmp_path: Path) -> None:
    """For every flood, as content and as a name."""
    run = subprocess.run(
        [
            *("valgrind", "--quiet", "--tool=cachegrind", "--cache-sim=no"),
            f"--cachegrind-out-file={tmp_path}/%p",
            *(sys.executable, "-c", "from tests.core.wire.test_markup_cost import _count_all; _count_all()"),
        ],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": python_path(), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(lines) == 2 * len(FLOODS) + len(_NAMES)
    too_much = []
    for name, processes in lines:
        nothing, short, long = (_instructions(tmp_path / str(process)) for process in processes)
        ratio = (long - nothing) / (short - nothing)
        print(f"{name!r:60} {long - nothing:12,} {ratio:6.3f}")
        if ratio > 2.3:
            too_much.append((name, ratio))
    assert too_much == []


def _instructions(path: Path) -> int:
    summary = _SUMMARY.search(path.read_text())
    assert summary is not None
    return int(summary[1])
