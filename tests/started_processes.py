"""What the programs that tests start have in common with the process of the tests: above all, the core, which may be the compiled one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from core.wire import codec
from workers import connection

_PROJECT: Final = Path(__file__).resolve().parents[1]


def python_path(*first: Path) -> str:
    """PYTHONPATH for a program: these directories, then what this process was given, such as a compiled core, then the project."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, first), *([given] if given else []), str(_PROJECT)])


def has_the_core_of_the_tests(pid: int) -> bool:
    """Whether a worker that was started has the compiled core if this process has it, and the sources if not."""
    mapped = Path(f"/proc/{pid}/maps").read_text()
    return all((file in mapped) is file.endswith(".so") for file in (codec.__file__, connection.__file__))
