"""``python -m fuzz.replay NAME FILE...``: try these inputs again, without atheris; an error comes with its traceback."""

from __future__ import annotations

import sys
from pathlib import Path

from fuzz.target import load


def main() -> None:
    """Replay the inputs; the first that fails ends it."""
    name, *paths = sys.argv[1:]
    target = load(name)
    for path in map(Path, paths):
        past = target.check(path.read_bytes())
        print(f"{path}: {'' if past else 'not '}past {target.past}")


if __name__ == "__main__":
    main()
