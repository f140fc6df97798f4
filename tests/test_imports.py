"""No module of core or workers imports itself by way of others, for types either: each can be read, and tested, before those that use it.

The circle that router still has is listed here. It may lose modules, or go; a new one fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

import grimp
import pytest

#: Circles that there are. None of them may grow.
CIRCLES: Final = (
    frozenset(
        {
            "router.front.handover_queue",
            "router.front.handshake",
            "router.front.lingering",
            "router.front.lobby_socket",
            "router.front.peeked_socket",
            "router.front.reception",
        }
    ),
)


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


def test_core_has_no_circle() -> None:
    assert [sorted(circle) for circle in found() if any(name.startswith("core.") for name in circle)] == []


def test_the_others_have_no_new_circle() -> None:
    assert [sorted(circle) for circle in found() if not any(circle <= known for known in CIRCLES)] == []


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
