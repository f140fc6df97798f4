"""Tests of `make check-web`, the part of `make check` that looks at JavaScript and CSS, and of what it is installed from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]


def test_a_machine_without_npm_skips_the_checks_and_says_why(tmp_path: Path) -> None:
    for tool in ("make", "cat"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    done = subprocess.run(
        ["make", "--no-print-directory", "check-web"],
        cwd=PROJECT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "skipped: the checks of JavaScript and CSS need Node and npm, and there is no npm\n"


def test_the_tools_are_pinned_and_the_lock_file_names_no_registry() -> None:
    """The packages come from whatever registry npm is set to; what they contain is held by their checksums."""
    versions = json.loads((PROJECT / "package.json").read_text())["devDependencies"].values()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions)
    packages = json.loads((PROJECT / "package-lock.json").read_text())["packages"]
    found = [package for path, package in packages.items() if path]
    assert found
    assert all(package["integrity"] and "resolved" not in package for package in found)
