"""``make audit``: ask PyPI for known vulnerabilities of the packages in requirements.lock, those for development included.

pip-audit asks PyPI about each of them. It needs the network, and some forty packages of its own, so it gets a virtual environment to
itself and is no dependency of FastChat. Exit codes: 0 none is known, 1 some are, each told in a line, 2 it can't be found out about all of
them, and a sentence says why.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).resolve().parents[1]
#: Its own environment; `make clean` removes it.
ENVIRONMENT: Final = PROJECT / "build" / "audit"
TOOL: Final = "pip-audit>=2.7,<3"

EXIT_WEAKNESSES: Final = 1
EXIT_UNKNOWN: Final = 2
#: Seconds for a connection, and for everything.
_PATIENCE: Final = 15
_TOTAL_PATIENCE: Final = 600.0
#: Of what a program says when it fails, that much is told.
_LAST_WORDS: Final = 300


class Unknown(Exception):
    """It can't be found out; the message is a sentence."""


def install() -> Path:
    """Install the program, if it is not yet. Raises Unknown."""
    program = ENVIRONMENT / "bin" / "pip-audit"
    if not program.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        words = ["install", "--quiet", "--disable-pip-version-check", "--retries", "0"]
        pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", *words, "--timeout", str(_PATIENCE), TOOL]
        done = _run(pip)
        if done.returncode != 0:
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            raise Unknown(
                f"pip-audit can't be installed; does this machine reach PyPI? {_end_of(done.stderr)}"
            )
    return program


def ask(program: Path, lock: Path) -> list[dict[str, Any]]:
    """Ask pip-audit about each package. Raises Unknown."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        words = ["--requirement", str(lock), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        words += ["--timeout", str(_PATIENCE), "--format", "json", "--output", str(report)]
        done = _run([str(program), *words])
        # Its exit code is the same for weaknesses and for a network that is not there.
        if not report.is_file():
            raise Unknown(f"pip-audit got no answer; does this machine reach PyPI? {_end_of(done.stderr)}")
        packages: list[dict[str, Any]] = json.loads(report.read_text())["dependencies"]
    return packages


def weaknesses(packages: list[dict[str, Any]]) -> list[str]:
    """List the weaknesses that are known, a line for each."""
    return [
        f"{package['name']} {package['version']}: {found['id']}"
        + (f", mended in {', '.join(found['fix_versions'])}" if found["fix_versions"] else ", not mended yet")
        for package in packages
        for found in package.get("vulns", ())
    ]


def check_all_known(packages: list[dict[str, Any]]) -> None:
    """Check that all could be asked about: some mirrors of PyPI have the packages, but not what is known of them. Raises Unknown."""
    skipped = [package for package in packages if "skip_reason" in package]
    if skipped:
        raise Unknown(
            f"nothing could be found out about {len(skipped)} of {len(packages)} packages, the first being"
            f" {skipped[0]['name']}; does this machine reach PyPI itself? {skipped[0]['skip_reason']}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--lock",
        type=Path,
        default=PROJECT / "requirements.lock",
        help="file with the packages and their versions",
    )
    parser.add_argument("--tool", type=Path, help="path of an installed pip-audit; default: install one")
    options = parser.parse_args()
    try:
        packages = ask(options.tool or install(), options.lock)
        lines = weaknesses(packages)
        for line in lines:
            print(line)
        check_all_known(packages)
    except Unknown as reason:
        print(f"audit: {reason}", file=sys.stderr)
        return EXIT_UNKNOWN
    print(f"{len(packages)} packages, {len(lines) or 'no'} known weaknesses")
    return EXIT_WEAKNESSES if lines else 0


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TOTAL_PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise Unknown(f"it took more than {_TOTAL_PATIENCE:g} s") from None


def _end_of(said: str) -> str:
    """Return the last words of a program."""
    return " ".join(said.split())[-_LAST_WORDS:]


if __name__ == "__main__":
    sys.exit(main())
