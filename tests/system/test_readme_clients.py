"""The examples of README.md for the two clients run as they are written, but for the address of the server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.clients.node import CLIENT, node, packages
from tests.system.harness import PROJECT, Server

#: What the examples connect to.
ADDRESS: Final = "ws://localhost:8000/ws"
TIMEOUT: Final = 60.0


def example(language: str, heading: str) -> str:
    """The one fenced block of a language below a heading of README.md."""
    _, found, section = (PROJECT / "README.md").read_text().partition(f"\n## {heading}\n")
    assert found, f"README.md has no heading {heading!r}"
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"{len(blocks)} blocks of {language} below {heading!r}"
    code: str = blocks[0]
    assert code.count(ADDRESS) == 1
    return code


def output(command: list[str], directory: Path, **environment: str) -> list[str]:
    """The lines that a program prints; it must succeed and say nothing else."""
    done = subprocess.run(
        command, cwd=directory, env=os.environ | environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


EXPECTED: Final = ["Alice writes: Hello!", "the message is read"]


@pytest.mark.slow
def test_chat_from_python(server: Server, tmp_path: Path) -> None:
    """With the package installed as the section says, into a directory of its own."""
    code = example("python", "Chat from Python").replace(ADDRESS, server.url)
    (tmp_path / "example.py").write_text(code)
    installed = tmp_path / "installed"
    # What the package needs is here already, and pip may not be able to get it.
    left_out = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    source = shutil.copytree(PROJECT / "clients" / "python", tmp_path / "source", ignore=left_out)
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    if find_spec("setuptools") is not None:  # else pip has to get one
        pip.append("--no-build-isolation")
    subprocess.run([*pip, "--target", str(installed), str(source)], check=True, timeout=TIMEOUT)
    assert (installed / "fastchat_client" / "py.typed").exists()
    command = [sys.executable, "-W", "error", "example.py"]
    assert output(command, tmp_path, PYTHONPATH=str(installed)) == EXPECTED


def test_chat_from_javascript(server: Server, tmp_path: Path) -> None:
    """With the package where npm installs it, and with ws, which Node before 22 needs."""
    command = node()
    code = example("javascript", "Chat from JavaScript").replace(ADDRESS, server.url)
    (tmp_path / "example.mjs").write_text(code)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "ws").symlink_to(packages() / "ws")
    (tmp_path / "node_modules" / "fastchat-client").symlink_to(CLIENT)
    assert output([command, "example.mjs"], tmp_path) == EXPECTED
