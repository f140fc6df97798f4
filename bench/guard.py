"""Whether a message has become more expensive: instructions of the core's hot path, beside a committed budget. ``make bench-guard``.

Time depends on who else uses the machine; the number of instructions does not. Valgrind counts them, as any user and in any container, so
a slow-down of a few per cent is found by one short run. What it does not see: waiting, system calls, cache misses, and the socket's side.

Interpreters differ in what the same code costs them. So a budget is no number of instructions but of *units*, each being what
`bench.reference` costs in the same run. A unit itself differs a little in what it is made of: on the build of Python that the budget
was made with, a difference of TOLERANCE counts, on any other one only OTHER_TOLERANCE. The build is known by its version and by what
the unit costs there.

Exit codes: 0 within the budget, or below it; 1 over it, or budget and scenarios do not fit; 2 nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.counted import REFERENCE, Stretch
from bench.hot_path import SCENARIOS
from scripts.compiled_core import Unavailable, find_or_build

#: Of the budget. Two runs differ by less than 0.1 % where addresses can be fixed, and by up to 1 % where they can't: which names share
#: a place in the interpreter's caches depends on addresses.
TOLERANCE: Final = 0.03
#: The same, on another build of Python: what a budget made on one was seen to be off by on others is 4 %, and 7 % for `refuse`.
OTHER_TOLERANCE: Final = 0.1
#: The price of a unit differs by less than this between runs of the same build, and by more between most builds.
_SAME_BUILD: Final = 0.02
#: Turns of each scenario: 2,048 messages, which is enough for the odd collection of garbage to make no difference.
TURNS: Final = 64
#: Of the core in the sources, and of the one that is compiled from them.
_BUDGET: Final = Path(__file__).with_name("guard_budget.json")
_COMPILED_BUDGET: Final = Path(__file__).with_name("guard_budget_compiled.json")
_ROOT: Final = Path(__file__).parent.parent
_SUMMARY: Final = re.compile(r"^summary: (\d+)", re.MULTILINE)
_PROGRAM: Final = ("-m", "bench.counted")
_HOW_TO_UPDATE: Final = "`make bench-guard ARGS=--update`"
PURE: Final = "pure"
COMPILED: Final = "compiled"


class NotMeasured(Exception):
    """Nothing could be counted; the message says why, and what to do."""


class Budget(NamedTuple):
    """What messages may cost."""

    #: What it was made with: the version of Python, such as 3.11, and of the C compiler where there was one; and the instructions of a
    #: unit there.
    python: str
    unit: float
    #: Scenario -> units a message.
    units: dict[str, float]

    def dump(self) -> str:
        """As it is committed."""
        return json.dumps(self._asdict(), indent=4) + "\n"


class Verdict(NamedTuple):
    """What the comparison says."""

    #: Each is a reason to fail.
    problems: list[str]
    #: Worth knowing.
    notes: list[str]


# -- Counting --


def count(
    names: Sequence[str], core: Path | None = None, turns: int = TURNS, program: Sequence[str] = _PROGRAM
) -> dict[str, float]:
    """Scenario -> instructions a message, with the compiled `core` in that directory or with that of the sources.

    `program` is what python runs: something that calls ``bench.counted.serve``. Raises NotMeasured.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise NotMeasured("instructions are counted by valgrind, which is not here: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="fastchat-guard-") as directory:
        command = [
            *_at_fixed_addresses(),
            valgrind,
            "--quiet",
            "--tool=cachegrind",
            "--cache-sim=no",
            # A file for each process: every checkpoint has its own.
            f"--cachegrind-out-file={directory}/%p",
            sys.executable,
            *program,
            str(turns),
            *names,
        ]
        run = subprocess.run(
            command, cwd=_ROOT, env=_environment(core), capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise NotMeasured(
                f"the process under valgrind ended with {run.returncode}:\n{run.stdout}{run.stderr}"
            )
        stretches = [Stretch(*json.loads(line)) for line in run.stdout.splitlines() if line.startswith("[")]
        return {stretch.name: _a_message(stretch, Path(directory)) for stretch in stretches}


def _at_fixed_addresses() -> list[str]:
    """Return what to put before a command so that its addresses are the same in every run; nothing where that is forbidden."""
    prefix = ["setarch", platform.machine(), "--addr-no-randomize"]
    try:
        works = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        works = False
    return prefix if works else []


def _environment(core: Path | None) -> dict[str, str]:
    """Return that of this process, without what may change how Python, valgrind or the server's settings behave."""
    ours = ("PYTHON", "FASTCHAT_", "VALGRIND", "COVERAGE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # The second lets the program be a file elsewhere.
    paths = f"{core}{os.pathsep}{_ROOT}" if core is not None else str(_ROOT)
    return environment | {"PYTHONHASHSEED": "0", "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}


def _a_message(stretch: Stretch, directory: Path) -> float:
    first, second, third = (_counted(directory / str(process)) for process in stretch.checkpoints)
    if not 0 < first < second < third:
        raise NotMeasured(f"this valgrind does not go on counting in a fork: {first}, {second}, {third}")
    return ((third - second) - (second - first)) / stretch.messages


def _counted(path: Path) -> int:
    summary = _SUMMARY.search(path.read_text()) if path.exists() else None
    if summary is None:
        raise NotMeasured("this valgrind writes no summary that can be read; cachegrind of 3.19 does")
    return int(summary[1])


# -- Comparing --


def load_budget(path: Path) -> Budget | None:
    """Load the committed budget; None when there is none."""
    return Budget(**json.loads(path.read_text())) if path.exists() else None


def in_units(counted: Mapping[str, float]) -> dict[str, float]:
    """Scenario -> units a message."""
    return {name: cost / counted[REFERENCE] for name, cost in counted.items() if name != REFERENCE}


def python_version() -> str:
    """Return that of this interpreter, as a budget has it."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def compiler_version() -> str:
    """Return the first line that the C compiler says of itself."""
    compiler = os.environ.get("CC") or "cc"
    try:
        said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        said = ""
    return said.partition("\n")[0]


def is_same_build(budget: Budget, python: str, unit: float) -> bool:
    """Whether the budget was made with a Python like this one, as far as one can see."""
    return budget.python == python and abs(unit / budget.unit - 1) <= _SAME_BUILD


def compare(
    units: Mapping[str, float], budget: Mapping[str, float], tolerance: float, complete: bool = True
) -> Verdict:
    """Look at each scenario; with `complete`, `units` has all that there are, so the budget must have no others."""
    verdict = Verdict([], [])
    for name, cost in units.items():
        if name not in budget:
            verdict.problems.append(f"{name} has no budget: {_HOW_TO_UPDATE} gives it one")
            continue
        difference = cost / budget[name] - 1
        if difference > tolerance:
            verdict.problems.append(
                f"{name} costs {difference:.1%} more than its budget of {budget[name]:.4f} units: profile it, or "
                f"{_HOW_TO_UPDATE} if that is meant, and say why in the commit"
            )
        elif difference < -tolerance:
            verdict.notes.append(
                f"{name} costs {-difference:.1%} less than its budget of {budget[name]:.4f} units: {_HOW_TO_UPDATE} "
                "makes sure that it stays so"
            )
    if complete:
        for name in budget.keys() - units.keys():
            verdict.problems.append(
                f"the budget has {name!r}, which is no scenario: {_HOW_TO_UPDATE} removes it"
            )
    return verdict


def table(counted: Mapping[str, float], budget: Mapping[str, float]) -> str:
    """Return what was measured, a line for each scenario."""
    lines = [f"{'scenario':12} {'instructions/message':>20} {'units':>8} {'budget':>8} {'difference':>10}"]
    for name, cost in in_units(counted).items():
        allowed = budget.get(name)
        beside = ("none", "") if allowed is None else (f"{allowed:.4f}", f"{cost / allowed - 1:+.1%}")
        lines.append(f"{name:12} {counted[name]:20,.0f} {cost:8.4f} {beside[0]:>8} {beside[1]:>10}")
    lines.append(f"{'(a unit)':12} {counted[REFERENCE]:20,.0f} {1:8.4f}")
    return "\n".join(lines)


def updated(budget: Budget | None, counted: Mapping[str, float], python: str) -> Budget:
    """Return the budget to commit. One scenario alone can be updated on the build only that the others were measured with: ValueError."""
    unit, units = counted[REFERENCE], {name: round(cost, 4) for name, cost in in_units(counted).items()}
    if units.keys() < SCENARIOS.keys():
        if budget is None or not is_same_build(budget, python, unit):
            raise ValueError("the budget was made with another build of Python: update all scenarios at once")
        units = {name: cost for name, cost in (budget.units | units).items() if name in SCENARIOS}
        unit = budget.unit
    return Budget(python, round(unit), units)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and compare; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description=__doc__.split(". ``")[0])
    parser.add_argument("--update", action="store_true", help="write what was measured as the new budget")
    parser.add_argument(
        "--scenario", action="append", choices=list(SCENARIOS), help="only this one; may come more than once"
    )
    parser.add_argument(
        "--core", choices=(PURE, COMPILED), help="only this core, and not one after the other"
    )
    options: Any = parser.parse_args(arguments)
    cores = (options.core,) if options.core is not None else (PURE, COMPILED)
    return max(_guard(core, options.scenario, options.update) for core in cores)


def _guard(core: str, chosen: list[str] | None, update: bool) -> int:
    """Measure, print and compare with one core; the exit code."""
    names = chosen or list(SCENARIOS)
    python = python_version() if core == PURE else f"{python_version()}, {compiler_version()}"
    path = _BUDGET if core == PURE else _COMPILED_BUDGET
    budget = load_budget(path)
    print(f"-- the {core} core --")
    try:
        counted = count([REFERENCE, *names], None if core == PURE else find_or_build())
    except (NotMeasured, Unavailable) as problem:
        print(problem, file=sys.stderr)
        return 2
    allowed = {} if budget is None else budget.units
    print(table(counted, allowed))
    if update:
        try:
            path.write_text(updated(budget, counted, python).dump())
        except ValueError as problem:
            print(problem, file=sys.stderr)
            return 1
        print(f"{path.name} is written; the commit must say why")
        return 0
    same = budget is not None and is_same_build(budget, python, counted[REFERENCE])
    tolerance = TOLERANCE if same else OTHER_TOLERANCE
    verdict = compare(in_units(counted), allowed, tolerance, complete=chosen is None)
    if budget is not None and not same:
        print(
            f"note: the budget is that of another build of Python ({budget.python}, a unit of {budget.unit:,.0f} "
            f"instructions), so only a difference of {tolerance:.0%} counts"
        )
    for note in verdict.notes:
        print(f"note: {note}")
    for sentence in verdict.problems:
        print(sentence, file=sys.stderr)
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
