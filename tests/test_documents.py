"""The documents below name files, names in these files, and settings: each of them exists.

A reference is a piece of code in backticks: a path from the root of the project, such as ``core/chat/messages.py`` or ``deploy/grafana/``,
or the path of a Python file and a name in it, such as ``core/chat/messages.py: Messages.send``. Code that moves takes its references along:
replace the old path by the new one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from core.process.settings import FIELDS, PREFIX

PROJECT: Final = Path(__file__).resolve().parents[1]
DOCUMENTS: Final = (
    "docs/architecture.md",
    "docs/clients.md",
    "docs/development.md",
    "docs/integrate.md",
    "docs/operations.md",
    "docs/settings.md",
    "CONTRIBUTING.md",
    "README.md",
)

#: Paths that a running server or a task makes.
MADE: Final = ("bench/results/", "build/", "data/", "layout.json", "shards-2/")

_FENCED: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"`([^`\n]+)`")
#: A path without a directory is one only if it ends like a file of ours; one that begins with a slash is that of a URL.
_REFERENCE: Final = re.compile(
    r"((?:[\w.-]+/)+[\w.-]*|[\w.-]+\.(?:css|js|json|lock|md|py|toml)|Makefile)(?:: ([\w.]+))?"
)
_SETTING: Final = re.compile(rf"\b{PREFIX}([A-Z0-9_]+)")


def problems(text: str) -> Iterator[str]:
    """Yield a sentence for each reference and each setting in `text` that does not exist."""
    text = _FENCED.sub("", text)
    for code in _CODE.findall(text):
        reference = _REFERENCE.fullmatch(code)
        if reference is not None:
            yield from _missing(*reference.groups())
    for name in sorted({name.lower() for name in _SETTING.findall(text)} - FIELDS.keys()):
        yield f"there is no setting {PREFIX}{name.upper()}"


def _missing(path: str, name: str | None) -> Iterator[str]:
    if path.startswith(MADE):
        return
    if not (PROJECT / path).exists():
        yield f"there is no {path}"
    elif name is not None and name not in _names(path):
        yield f"{path} has no {name}"


@cache
def _names(path: str) -> frozenset[str]:
    """List the functions, classes and variables of a Python file; those of a class as ``Class.name``."""
    return frozenset(_defined(ast.parse((PROJECT / path).read_text()).body, ""))


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name
            case ast.ClassDef(name=name):
                yield prefix + name
                yield from _defined(statement.body, f"{prefix}{name}.")
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name
            case ast.Assign(targets=targets):
                yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_everything_that_a_document_names_exists(document: str) -> None:
    assert list(problems((PROJECT / document).read_text())) == []


def test_the_architecture_is_full_of_references() -> None:
    """Guard the test above: with another notation it would find nothing to check."""
    found = [_REFERENCE.fullmatch(code) for code in _CODE.findall((PROJECT / DOCUMENTS[0]).read_text())]
    assert sum(reference is not None and reference[2] is not None for reference in found) > 100


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("in `core/nowhere.py`", "there is no core/nowhere.py"),
        ("in `nowhere.md`", "there is no nowhere.md"),
        ("below `nowhere/`", "there is no nowhere/"),
        ("`core/nowhere.py: Messages.send`", "there is no core/nowhere.py"),
        ("`core/chat/messages.py: Messages.sned`", "core/chat/messages.py has no Messages.sned"),
        ("`core/chat/messages.py: send`", "core/chat/messages.py has no send"),
        ("`core/chat/envelope.py: Outcome.NOTHING`", "core/chat/envelope.py has no Outcome.NOTHING"),
        ("with FASTCHAT_PROT=1", "there is no setting FASTCHAT_PROT"),
    ],
)
def test_a_missing_thing_is_reported(text: str, problem: str) -> None:
    assert list(problems(text)) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "`core/chat/messages.py`, `core/chat/messages.py: Messages.send`, `core/chat/messages.py: Messages`, `deploy/grafana/`",
        "`core/chat/envelope.py: Outcome.STORED`, `core/process/handover.py: IN_FLIGHT_MAX`, `core/chat/store.py: Done`, `Makefile`",
        "`tests/test_documents.py: test_a_missing_thing_is_reported`",
        "`/readyz`, `python -m workers`, `a < b`, `Connection: close`, `seq`",
        "`make test ARGS=-x`, FASTCHAT_WORKERS, `FASTCHAT_STORE=memory`",
        "```\ncore/nowhere.py `core/nowhere.py`\n```",
    ],
)
def test_other_text_is_accepted(text: str) -> None:
    assert list(problems(text)) == []
