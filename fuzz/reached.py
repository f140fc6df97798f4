"""Which lines of a target's modules its inputs reach.

Counted are the lines of functions; those of a module's or a class's own body run when it is imported, whatever comes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from fuzz.target import load

#: ``co_flags`` of a function; a class's body has not got it.
_OPTIMIZED: Final = 0x1


class Lines(NamedTuple):
    """Of one module."""

    reached: int
    all: int


def reached(name: str, directories: list[Path]) -> dict[str, Lines]:
    """Try out all inputs in these directories, and count; nothing in modules that are compiled, which have no lines."""
    target = load(name)
    files: dict[str, set[int]] = {}
    there: dict[str, set[int]] = {}
    modules: list[str] = []
    for module in target.modules:
        path = importlib.import_module(module).__file__
        assert path is not None
        if not path.endswith(".py"):
            continue
        modules.append(module)
        files[path] = set()
        there[path] = set(_lines(compile(Path(path).read_text(), path, "exec")))

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        lines = files.get(frame.f_code.co_filename)
        if lines is None:
            return None

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            lines.add(frame.f_lineno)
            return line

        lines.add(frame.f_lineno)
        return line

    inputs = [
        path.read_bytes() for directory in directories if directory.exists() for path in directory.iterdir()
    ]
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for data in inputs:
            target.check(data)
    except Exception:  # noqa: S110 - what fails has been reported; here only lines count
        pass
    finally:
        sys.settrace(before)
    return {
        module: Lines(len(files[path] & there[path]), len(there[path]))
        for module, path in zip(modules, files, strict=True)
    }


def _lines(code: CodeType) -> Iterator[int]:
    if code.co_flags & _OPTIMIZED:
        # The first is that of ``def`` itself, which belongs to whoever defines it.
        yield from {
            number for _, _, number in code.co_lines() if number is not None and number != code.co_firstlineno
        }
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines(constant)
