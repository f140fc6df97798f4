"""Node for the tests of the JavaScript client: where it is, the client as it can be imported there, and packages from npm.

All of them skip the test, with the reason, when this machine can't provide what they are for.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).resolve().parent / "javascript"
WEB: Final = Path(__file__).resolve().parents[2] / "router" / "web"
#: The JavaScript client: a package of npm, which the server serves as it is.
CLIENT: Final = WEB / "client"
#: The client uses private methods and `?.`; Debian's 18 has them, and so has everything that is still maintained.
OLDEST: Final = 18
_INSTALL_TIMEOUT: Final = 150.0


def node() -> str:
    """The command; skips without Node, or with one that is too old."""
    command = shutil.which("node")
    if command is None:
        pytest.skip("needs Node")
    if _version(command) < OLDEST:
        pytest.skip(f"needs Node {OLDEST} or newer")
    return command


@cache
def _version(command: str) -> int:
    said = subprocess.run(
        [command, "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    major = re.match(r"v(\d+)\.", said)
    return int(major[1]) if major else 0


def client_module(directory: Path) -> Path:
    """The entry of a copy of the client, whose package.json tells every Node that it is ES modules."""
    return Path(shutil.copytree(CLIENT, directory / "client", dirs_exist_ok=True)) / "fastchat.js"


def packages() -> Path:
    """`node_modules` with what the lock file beside package.json says; skips when npm can't install it."""
    stamp = HERE / "node_modules" / ".package-lock.json"  # npm writes it last
    wanted = max((HERE / name).stat().st_mtime for name in ("package.json", "package-lock.json"))
    with _locked():
        if not stamp.exists() or stamp.stat().st_mtime < wanted:
            npm = shutil.which("npm")
            if npm is None:
                pytest.skip("needs npm, to install what package.json names")
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
            try:
                subprocess.run(
                    command, cwd=HERE, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT
                )
            except subprocess.TimeoutExpired:
                pytest.skip(f"npm ci took longer than {_INSTALL_TIMEOUT:g} s")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"npm ci failed: {error.stderr.strip()[-300:]}")
    return stamp.parent


class _locked:  # noqa: N801 - reads as what it does
    """One process at a time installs; the others wait, look again, and find it done."""

    def __enter__(self) -> None:
        self._directory = os.open(HERE, os.O_RDONLY)
        fcntl.flock(self._directory, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)
