"""``python -m fuzz``: try out one target or all, for so many minutes, and say what came of it.

What is new goes to ``build/fuzz/NAME/corpus`` and is used again by the next run; an input that failed to ``build/fuzz/NAME``, and its path
is printed. Exit code 0 when nothing failed, 1 when something did, 2 when atheris is not there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from fuzz.mutate_bytes import SIZE_MAX
from fuzz.reached import reached
from fuzz.target import CORPUS, NAMES, load

_BUILD: Final = Path("build/fuzz")
#: Seconds that one input may take; they take a thousandth of that.
_HANG: Final = 20
_UNITS: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


class Result(NamedTuple):
    """What one run came to."""

    name: str
    inputs: int
    seconds: float
    #: Share of the inputs that got past what the target says.
    past: float
    #: The input that failed.
    failed: Path | None


def run(name: str, seconds: float, runs: int) -> Result:
    """Run one target under atheris; 0 is no limit of `seconds` or `runs`."""
    directory = _BUILD / name
    corpus = directory / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    counts = directory / "counts.json"
    counts.unlink(missing_ok=True)
    known = set(_failures(directory))
    command = [sys.executable, "-m", "fuzz.harness", name, f"-max_len={SIZE_MAX}", f"-timeout={_HANG}"]
    command += [f"-artifact_prefix={directory}/", "-print_final_stats=1", f"-max_total_time={round(seconds)}"]
    command += [f"-runs={runs}"] if runs else []
    began = time.monotonic()
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.run(
            [*command, str(corpus), str(CORPUS / name)],
            env=os.environ | {"FUZZ_COUNTS": str(directory)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    took = time.monotonic() - began
    said = log.read_text(errors="replace")
    noted = json.loads(counts.read_text()) if counts.exists() else {"inputs": 0, "past": 0}
    units = _UNITS.search(said)
    inputs = int(units[1]) if units else noted["inputs"]
    failed = None
    if process.returncode:
        print(said[-6000:], file=sys.stderr)
        failed = next(iter(sorted(set(_failures(directory)) - known)), log)
    return Result(name, inputs, took, noted["past"] / max(1, noted["inputs"]), failed)


def _failures(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]


def _report(result: Result) -> None:
    target = load(result.name)
    rate = result.inputs / max(result.seconds, 0.001)
    print(
        f"{result.name}: {result.inputs:,} inputs in {result.seconds:.0f} s ({rate:,.0f} a second),", end=" "
    )
    print(f"{result.past:.0%} past {target.past}")
    directories = [CORPUS / result.name, _BUILD / result.name / "corpus"]
    for module, lines in reached(result.name, directories).items():
        print(f"    {module}: {lines.reached} of {lines.all} lines")
    if result.failed is not None:
        print(f"    FAILED: python -m fuzz.replay {result.name} {result.failed}")


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Fuzz the code that reads bytes from clients."
    )
    parser.add_argument("--target", choices=("all", *NAMES), default="all")
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="minutes for all targets together; 0: until --runs inputs are done",
    )
    parser.add_argument(
        "--runs", type=int, default=0, help="largest number of inputs for each target; 0: no limit"
    )
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    names = NAMES if options.target == "all" else (options.target,)
    results = []
    for name in names:
        results.append(run(name, options.minutes * 60 / len(names), options.runs))
        _report(results[-1])
    print(f"{sum(result.inputs for result in results):,} inputs in all")
    return int(any(result.failed is not None for result in results))


if __name__ == "__main__":
    sys.exit(main())
