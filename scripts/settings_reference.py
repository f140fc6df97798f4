"""The reference of settings, made of ``core.process.settings``: ``make docs``, or ``python scripts/settings_reference.py``.

Writes docs/settings.md. With ``--check`` it writes nothing, and ends with 1 when the file is not what it would write.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).resolve().parents[1]
if str(_PROJECT) not in sys.path:  # it is, unless this runs as a script
    sys.path.insert(0, str(_PROJECT))

from core.process.settings import FIELDS, PREFIX, RULES, describe_default  # noqa: E402
from scripts.written import table, write  # noqa: E402

PAGE: Final = _PROJECT / "docs" / "settings.md"

_INTRODUCTION: Final = """\
# Settings

Made by `make docs` from `core/process/settings.py`. `fastchat serve --help` shows the same texts.

Each setting is an environment variable, a flag of `fastchat serve`, and a parameter of `make run`:

    FASTCHAT_WORKERS=8 .venv/bin/fastchat serve
    .venv/bin/fastchat serve --workers 8
    make run WORKERS=8

`DATA` is short for `DATA_DIR`; `make run` accepts both. A flag wins over the environment, and so does a parameter of `make run`. An empty
variable is not set. An unknown variable that begins with `FASTCHAT_` and an invalid value stop the start with a sentence that says what
was expected; an unknown flag stops it too. The variables that Kubernetes and Docker make for a service named `fastchat` are ignored, with
a warning. The server reads its settings when it starts; a reload reads only the key files again.

    .venv/bin/fastchat config check
    .venv/bin/fastchat config show

`config check` checks the settings without starting a server. `config show` shows the value of each setting and where it comes from: the
default, the environment, or a flag. Both take the flags of `fastchat serve`.
"""


def page() -> str:
    """Make the page as Markdown."""
    head = ("`make run`", "environment", "flag", "default", "meaning")
    return f"{_INTRODUCTION}\n{table(head, map(_cells, FIELDS))}\n"


def _cells(name: str) -> tuple[str, ...]:
    parameter = "DATA" if name == "data_dir" else name.upper()
    default = describe_default(name)
    in_words = default is None or RULES[name].default_in_words is not None
    return (
        f"`{parameter}`",
        f"`{PREFIX}{name.upper()}`",
        f"`--{name.replace('_', '-')}`",
        (default or "not set") if in_words else f"`{default}`",
        RULES[name].description,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check; return the exit code."""
    return write({PAGE: page()}, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
