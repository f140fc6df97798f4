"""Files of docs/ that are made of tables in the code: how their tables look, and writing them or checking that they are up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def write(contents: Mapping[Path, str], description: str | None, arguments: Sequence[str] | None) -> int:
    """Write the files that are out of date, or say which are with ``--check``; return the exit code."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and fail when something is out of date"
    )
    check: bool = parser.parse_args(arguments).check
    stale = [path for path, text in contents.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        name = f"{path.parent.name}/{path.name}"
        if check:
            print(f"{name} is out of date: make docs", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(contents[path])
            print(f"wrote {name}")
    return 1 if check and stale else 0
