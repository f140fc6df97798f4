"""``make audit``, as far as that goes without a network: with a stand-in for pip-audit, and with an index that does not answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.system.harness import PROJECT, clean_environment

#: Does with its arguments what pip-audit would: the report goes where --output says.
STAND_IN: Final = """#!{python}
import sys
assert sys.argv[sys.argv.index("--requirement") + 1].endswith("requirements.lock")
assert "--no-deps" in sys.argv and "--disable-pip" in sys.argv
report = {report!r}
if report is None:
    sys.exit("ERROR: could not connect")
open(sys.argv[sys.argv.index("--output") + 1], "w").write(report)
sys.exit({code})
"""

SOUND: Final = {"name": "aiohttp", "version": "3.14.5", "vulns": []}
WEAK: Final = {
    "name": "pyzmq",
    "version": "27.3.0",
    "vulns": [
        {"id": "PYSEC-2027-1", "fix_versions": ["27.3.1"], "aliases": [], "description": "..."},
        {"id": "PYSEC-2027-2", "fix_versions": [], "aliases": [], "description": "..."},
    ],
}
SKIPPED: Final = {"name": "orjson", "skip_reason": "Dependency not found on PyPI"}


def audit(tmp_path: Path, packages: list[Any] | None, code: int) -> subprocess.CompletedProcess[str]:
    """What the script makes of a report on these packages; None for a pip-audit that could not make one."""
    stand_in = tmp_path / "pip-audit"
    report = None if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    stand_in.write_text(STAND_IN.format(python=sys.executable, report=report, code=code))
    stand_in.chmod(0o755)
    return subprocess.run(
        ["make", "--no-print-directory", "audit", f"ARGS=--tool {stand_in}"],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_nothing_is_known(tmp_path: Path) -> None:
    done = audit(tmp_path, [SOUND], 0)
    assert (done.returncode, done.stdout) == (0, "1 packages, no known weaknesses\n")


def test_each_weakness_is_a_line(tmp_path: Path) -> None:
    done = audit(tmp_path, [SOUND, WEAK], 1)
    assert done.returncode == 2
    assert "Error 1" in done.stderr
    assert done.stdout.splitlines() == [
        "pyzmq 27.3.0: PYSEC-2027-1, mended in 27.3.1",
        "pyzmq 27.3.0: PYSEC-2027-2, not mended yet",
        "2 packages, 2 known weaknesses",
    ]


@pytest.mark.parametrize("packages", [None, [SOUND, SKIPPED]])
def test_what_cannot_be_found_out_is_a_sentence(tmp_path: Path, packages: list[Any] | None) -> None:
    done = audit(tmp_path, packages, 1 if packages is None else 0)
    assert "Error 2" in done.stderr
    assert done.stdout == ""
    sentence = done.stderr.splitlines()[0]
    if packages is None:
        assert sentence.startswith("audit: pip-audit got no answer; does this machine reach PyPI?")
        assert sentence.endswith("ERROR: could not connect")
    else:
        assert sentence.startswith(
            "audit: nothing could be found out about 1 of 2 packages, the first being orjson;"
        )


def test_weaknesses_are_told_also_when_not_all_is_known(tmp_path: Path) -> None:
    done = audit(tmp_path, [SKIPPED, WEAK], 1)
    assert "Error 2" in done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.slow
def test_a_network_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    """Installed into a place of the test's own, from an index that nobody serves."""
    program = (
        "import sys, pathlib; sys.path.insert(0, 'scripts'); import audit;"
        f"audit.ENVIRONMENT = pathlib.Path({str(tmp_path / 'audit')!r});"
        "sys.argv = ['audit']; sys.exit(audit.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env=clean_environment() | {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_EXTRA_INDEX_URL": ""},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("audit: pip-audit can't be installed; does this machine reach PyPI? ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "audit").exists()
