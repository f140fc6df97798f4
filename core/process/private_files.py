"""Files with secrets, which nobody but the server's user may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from core.process.settings import ConfigurationError

#: Bytes of such a file; one with more is another file.
_MAX_BYTES: Final = 64 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_private(path: Path) -> bytes:
    """Return what is in a file. Raises OSError, and ConfigurationError if others than its owner may use it."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _OTHERS:
            raise ConfigurationError(
                f"{path} has the mode {mode:04o}, so other users may read the secret; expected a file for its owner alone: chmod 600 {path}"
            )
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(
            f"{path} has more than {_MAX_BYTES} bytes; expected a small file with secrets"
        )
    return content
