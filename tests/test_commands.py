"""Every command on a page of the documentation exists, with the parameters and settings that it is given there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
from typer.core import TyperGroup
from typer.main import get_group

from core.process.configuration import load_settings
from core.process.settings import FIELDS, PREFIX
from router.operator.cli import app
from tests.test_links import FENCED, PAGES, PROJECT, prose

#: A command in backticks, or one line of an indented block.
_COMMAND: Final = re.compile(r"`([^`\n]+)`|^ {4}(\S.*)$", re.MULTILINE)
_ASSIGNMENT: Final = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)
_MAKEFILE: Final = (PROJECT / "Makefile").read_text()
_TASKS: Final = frozenset(re.findall(r"^([a-z][a-z-]*):", _MAKEFILE, re.MULTILINE))
_PARAMETERS: Final = dict(re.findall(r"^parameters_of_([\w-]+) := (.*)$", _MAKEFILE, re.MULTILINE))


def commands(page: Path) -> Iterator[list[str]]:
    """The words of everything on a page that may be a command, behind its variables for the environment."""
    for quoted, line in _COMMAND.findall(prose(page)):
        try:
            words = shlex.split(quoted or line, comments=True)
        except ValueError:
            continue  # prose, or JSON
        # Where there are several commands on one line, or in one pipe, each is looked at.
        command: list[str] = []
        for word in [*words, ";"]:
            if word in ("|", "&&") or word.endswith(";"):
                yield command
                command = []
            else:
                command.append(word)


def parameters(task: str) -> set[str]:
    """What a task takes, as the Makefile says."""
    listed = re.sub(
        r"\$\(parameters_of_([\w-]+)\)", lambda match: _PARAMETERS[match[1]], _PARAMETERS.get(task, "")
    )
    taken = set(listed.split())
    if task in ("run", "status", "who", "kick", "drain"):
        taken |= {name.upper() for name in FIELDS} | {"DATA"}
    return taken


def wrong(words: list[str]) -> str | None:
    """What is wrong with a command of ours; None if nothing is, or if it is not ours."""
    environment = {}
    while words and (assignment := _ASSIGNMENT.fullmatch(words[0])) is not None:
        environment[assignment[1]] = assignment[2]
        words = words[1:]
    if not words:
        return None
    program, rest = words[0], words[1:]
    for name in environment:
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in FIELDS:
            return f"{name} is not a setting"
    if program == "make":
        return _wrong_task(rest)
    if program.rpartition("/")[2] == "fastchat" and rest:
        return _wrong_command(rest)
    if program.rpartition("/")[2] == "python" and rest[:1] == ["-m"] and find_spec(rest[1]) is None:
        return f"there is no module {rest[1]}"
    return None


def _wrong_task(words: list[str]) -> str | None:
    tasks = [word for word in words if "=" not in word and not word.startswith("-")]
    for task in tasks:
        if task not in _TASKS:
            return f"there is no task {task}"
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and not any(name in parameters(task) for task in tasks):
            return f"make {' '.join(tasks)} does not take {name}"
    return None


def _wrong_command(words: list[str]) -> str | None:
    known, given = get_group(app), []
    for word in words:
        if word.startswith("-"):
            return None
        given.append(word)
        if word not in known.commands:
            return f"there is no command {' '.join(given)}"
        command = known.commands[word]
        if not isinstance(command, TyperGroup):
            return None
        known = command
    return None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_is_there(page: Path) -> None:
    """Tasks with the parameters that they take, commands of ``fastchat``, modules, and settings."""
    problems = [wrong(words) for words in commands(page)]
    assert [problem for problem in problems if problem is not None] == []


def test_the_operators_pages_are_full_of_commands() -> None:
    """Else the test above would find nothing."""
    found = [words for words in commands(Path("docs/operations.md")) if words]
    assert sum(words[0].endswith(("fastchat", "make", "python")) for words in found) > 15


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("make nothing", "there is no task nothing"),
        ("make run PROT=1", "make run does not take PROT"),
        ("make test USERS=1", "make test does not take USERS"),
        (".venv/bin/fastchat sattus", "there is no command sattus"),
        ("fastchat config chekc", "there is no command config chekc"),
        ("FASTCHAT_PROT=1 make run", "FASTCHAT_PROT is not a setting"),
        ("python -m workers.stroe check data", "there is no module workers.stroe"),
    ],
)
def test_a_command_that_is_not_there_is_found(line: str, problem: str) -> None:
    assert wrong(shlex.split(line)) == problem


@pytest.mark.parametrize(
    "line",
    [
        "make",
        "make run WORKERS=8 DATA=./data ARGS=--help",
        "make load-ui URL=ws://x UI_PORT=0",
        "fastchat --version",
        "ls",
    ],
)
def test_a_command_that_is_there_is_fine(line: str) -> None:
    assert wrong(shlex.split(line)) is None


def settings_on_the_pages() -> list[tuple[str, str]]:
    """Each setting that a page gives a value, and the value, but for those that stand for something."""
    found = set()
    for page in PAGES:
        for words in commands(page):
            for word in words:
                match = re.fullmatch(rf"{PREFIX}([A-Z_]+)=(\S+)", word)
                if match is None or match[1].lower() not in FIELDS:
                    continue  # docs/decisions.md has settings that are not built yet
                if "..." not in match[2] and "://10." not in match[2]:
                    found.add((match[1], match[2]))
    return sorted(found)


def test_the_values_of_settings_are_valid() -> None:
    """All in one test: looking for them takes too long for each start of the tests."""
    found = settings_on_the_pages()
    assert len(found) > 10
    for name, value in found:
        load_settings({PREFIX + name: value})


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_examples_in_python_can_be_read(page: Path) -> None:
    """Those of the README also run (``tests/system/test_readme_clients.py``)."""
    for language, code in FENCED.findall((PROJECT / page).read_text()):
        if language == "python":
            compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
