"""No module imports itself by way of others, for types either: each can be read, and tested, before those that use it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import grimp
import pytest


def circles(imports: dict[str, set[str]]) -> list[frozenset[str]]:
    """List the sets of modules that all import each other, directly or by way of others; `imports` is module -> what it imports."""
    reached = {module: _reached(imports, module) for module in imports}
    return sorted(
        {
            frozenset(other for other in reached[module] if module in reached[other])
            for module in imports
            if module in reached[module]
        },
        key=sorted,
    )


def _reached(imports: dict[str, set[str]], module: str) -> set[str]:
    found: set[str] = set()
    waiting = list(imports[module])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += imports[other]
    return found


@cache
def found() -> Iterable[frozenset[str]]:
    """List the circles of the three packages; imports for types count, and those within functions."""
    graph = grimp.build_graph("core", "router", "workers", cache_dir=None)
    return circles({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})


def test_there_is_no_circle() -> None:
    assert [sorted(circle) for circle in found()] == []


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [{"a", "b"}]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e", "a"}, "e": {"d"}}, [{"a", "b", "c"}, {"d", "e"}]),
    ],
)
def test_circles_are_found(imports: dict[str, set[str]], expected: list[set[str]]) -> None:
    assert circles(imports) == expected
