"""docs/decisions.md: it has each decision that is cited anywhere; each one that is built has a test that names it, in `make test`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = PROJECT / "docs" / "decisions.md"
#: Where decisions are cited: these, and the Markdown files beside them. Not what tools make, and not what others have written.
FOLDERS: Final = [
    "bench",
    "clients",
    "core",
    "deploy",
    "docs",
    "fuzz",
    "router",
    "scripts",
    "tests",
    "workers",
]
SUFFIXES: Final = frozenset(
    {".css", ".html", ".js", ".json", ".md", ".mjs", ".py", ".toml", ".ts", ".yaml", ".yml"}
)
SKIPPED: Final = frozenset({"__pycache__", ".venv", "axe", "build", "dist", "node_modules", "results"})

_CITATION: Final = re.compile(r"\bD([1-9][0-9]*)\b", re.ASCII)
_HEADING: Final = re.compile(r"^### D([1-9][0-9]*) \S.*\n", re.ASCII | re.MULTILINE)
_NAMED: Final = re.compile(r"_d([1-9][0-9]*)(?=_)", re.ASCII)
_LINK: Final = re.compile(r"\]\(#([^)]*)\)")
_LINK_FROM_OUTSIDE: Final = re.compile(r"decisions\.md#([^)]*)\)")
_UNBUILT: Final = "**Not built.**"
_REASON: Final = "\n> *Why:* "


def sections(page: str) -> dict[int, str]:
    """The text of each decision, by number, in the order of the page."""
    found = list(_HEADING.finditer(page))
    ends = [following.start() for following in found[1:]] + [len(page)]
    return {int(heading[1]): page[heading.end() : end] for heading, end in zip(found, ends, strict=True)}


def files() -> Iterator[Path]:
    """Everything in which a decision may be cited."""
    yield from PROJECT.glob("*.md")
    for folder in FOLDERS:
        for path in (PROJECT / folder).rglob("*"):
            if path.suffix in SUFFIXES and SKIPPED.isdisjoint(path.relative_to(PROJECT).parts):
                yield path


def cited(text: str) -> set[int]:
    """The decisions that a text cites: `D7`, `D27-D29`, and the names of tests."""
    return {int(number) for number in _CITATION.findall(text) + _NAMED.findall(text)}


def is_slow(node: ast.AST) -> bool:
    """Whether a decorator, or what is assigned to `pytestmark`, is the mark with which `make test` leaves a test out."""
    return any(isinstance(part, ast.Attribute) and part.attr == "slow" for part in ast.walk(node))


def named(source: str) -> set[int]:
    """The decisions that the tests in a module name: by their own name, in their docstring, or in that of the module.

    Those that are marked slow do not count.
    """
    module = ast.parse(source)
    if any(isinstance(node, ast.Assign) and is_slow(node) for node in module.body):
        return set()
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    tests = [
        node
        for node in chain(module.body, *(node.body for node in classes))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if not any(map(is_slow, node.decorator_list))
    ]
    if not tests:
        return set()
    texts = [
        ast.get_docstring(module) or "",
        *(f"{test.name} {ast.get_docstring(test) or ''}" for test in tests),
    ]
    return cited("\n".join(texts))


SECTIONS: Final = sections(PAGE.read_text())


def test_the_page_has_all_decisions_in_order() -> None:
    """No number is left out, and none stands twice."""
    assert [int(number) for number in _HEADING.findall(PAGE.read_text())] == list(range(1, len(SECTIONS) + 1))


def test_each_decision_has_a_reason() -> None:
    assert not [f"D{number}" for number, text in SECTIONS.items() if text.count(_REASON) != 1]


def test_each_decision_that_is_cited_is_on_the_page() -> None:
    """In code, tests and documents, this page included."""
    unknown = {
        f"{path.relative_to(PROJECT)} cites D{number}"
        for path in files()
        for number in cited(path.read_text(errors="replace")) - SECTIONS.keys()
    }
    assert not unknown


def test_each_decision_that_is_built_has_a_test_that_names_it() -> None:
    """And one that is not has none: whoever builds it takes the mark away."""
    tested: set[int] = set()
    for path in (PROJECT / "tests").rglob("test_*.py"):
        if path != Path(__file__):
            tested |= named(path.read_text())
    built = {number for number, text in SECTIONS.items() if not text.lstrip().startswith(_UNBUILT)}
    assert not [f"D{number} has no test" for number in sorted(built - tested)]
    assert not [
        f"D{number} is marked as not built, but has a test"
        for number in sorted(tested & SECTIONS.keys() - built)
    ]


def test_links_to_decisions_lead_somewhere() -> None:
    """An anchor is a heading in lower case, without punctuation and with hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", PAGE.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for path in (PAGE, *(path for path in files() if path.suffix == ".md")):
        links = _LINK if path == PAGE else _LINK_FROM_OUTSIDE
        assert set(links.findall(path.read_text())) <= anchors, path


def test_citations_are_found() -> None:
    """In ranges and in the names of tests; other words that only look alike are none."""
    assert cited("(D1, D12), D27-D29; test_d11_d20_read, 3D2, #D9D9D9, D07") == {1, 11, 12, 20, 27, 29}
    assert named(
        '"""Of D1."""\n\ndef test_d2_x() -> None:\n    """D3."""\n\n\ndef helper() -> None:\n    """D4."""\n'
    ) == {1, 2, 3}
    assert named('"""Helpers for D1."""\n') == set()
    assert named("@pytest.mark.slow\ndef test_d2_x() -> None: ...\n\n\ndef test_d3_x() -> None: ...\n") == {3}
    assert named("pytestmark = pytest.mark.slow\n\n\ndef test_d2_x() -> None: ...\n") == set()
