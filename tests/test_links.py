"""Every link on a page of the documentation leads to a file that exists, and to a heading in it if the link names one."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = sorted(
    path.relative_to(PROJECT)
    for pattern in (
        "*.md",
        "bench/*.md",
        "clients/python/*.md",
        "deploy/*.md",
        "docs/*.md",
        "tests/clients/*.md",
    )
    for path in PROJECT.glob(pattern)
)

FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", (PROJECT / page).read_text())


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    found: Counter[str] = Counter()
    names = set()
    for heading in _HEADING.findall(prose(page)):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return frozenset(names)


def problem_of(target: str, page: Path) -> str | None:
    """Why a link on a page leads nowhere; None if it does not, or leads to another site."""
    if re.match(r"[a-z]+:", target):
        return None
    name, _, anchor = target.partition("#")
    path = (PROJECT / page).parent / name if name else PROJECT / page
    if not path.exists():
        return f"there is no {target}"
    if anchor and anchor not in anchors(path.resolve().relative_to(PROJECT)):
        return f"no heading makes the anchor of {target}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    problems = [problem_of(target, page) for target in _LINK.findall(prose(page))]
    assert [problem for problem in problems if problem is not None] == []


@pytest.mark.parametrize(
    "target", ["nowhere.md", "README.md#nowhere", "#nowhere", "docs/protocol.md#nowhere"]
)
def test_a_link_that_leads_nowhere_is_found(target: str) -> None:
    assert problem_of(target, Path("README.md")) is not None


@pytest.mark.parametrize(
    "target",
    [
        "docs/protocol.md",
        "docs/protocol.md#error-codes",
        "#chat-from-python",
        "docs/",
        "https://example.com/nowhere.md",
    ],
)
def test_a_link_that_leads_somewhere_is_fine(target: str) -> None:
    assert problem_of(target, Path("README.md")) is None


def test_the_readme_is_a_landing_page() -> None:
    """It is at most 130 lines long, and leads to every page of ``docs/`` that is not reached through another one."""
    text = (PROJECT / "README.md").read_text()
    assert len(text.splitlines()) <= 130
    reached, waiting = set(), [Path("README.md")]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in _LINK.findall(prose(page)):
            path = ((PROJECT / page).parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.exists() and (known := path.relative_to(PROJECT)) not in reached:
                waiting.append(known)
    assert {page for page in PAGES if page.parent == Path("docs")} <= reached
