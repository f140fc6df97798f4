"""core.process.private_files: secrets that others can read are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.process.private_files import read_private
from core.process.settings import ConfigurationError


def test_a_file_for_its_owner_is_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"text")
    for mode in (0o600, 0o400):
        path.chmod(mode)
        assert read_private(path) == b"text"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_for_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"text")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"has the mode {mode:04o}.*chmod 600"):
        read_private(path)


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(bytes(100_000))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="expected a small file with secrets"):
        read_private(path)
