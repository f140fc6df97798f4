"""The reference of settings: the file is what the code says, and each row can be read alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.process.settings import FIELDS, PREFIX, RULES, describe_default
from scripts import settings_reference


def rows() -> list[list[str]]:
    """The cells of the table, without its head."""
    lines = [line for line in settings_reference.page().splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_file_is_what_the_settings_say() -> None:
    """Else: make docs."""
    assert settings_reference.PAGE.read_text() == settings_reference.page()


def test_check_tells_that_it_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and the name; written, it is up to date."""
    monkeypatch.setattr(settings_reference, "PAGE", tmp_path / "docs" / "settings.md")
    assert settings_reference.main(["--check"]) == 1
    assert "docs/settings.md is out of date" in capsys.readouterr().err
    assert settings_reference.main([]) == 0
    assert settings_reference.main(["--check"]) == 0


def test_every_setting_has_a_row_with_its_names_and_its_default() -> None:
    names = list(FIELDS)
    assert [row[1] for row in rows()] == [f"`{PREFIX}{name.upper()}`" for name in names]
    assert [row[2] for row in rows()] == [f"`--{name.replace('_', '-')}`" for name in names]
    parameters = {name: f"`{name.upper()}`" for name in names} | {"data_dir": "`DATA`"}
    assert [row[0] for row in rows()] == list(parameters.values())
    assert [row[3].strip("`") for row in rows()] == [describe_default(name) or "not set" for name in names]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1].strip("`"))
def test_a_row_can_be_read_alone(row: list[str]) -> None:
    """It has sentences, and refers to no other row but by the name of its setting."""
    meaning = row[4]
    assert meaning[0].isupper() or meaning[0] == "`"
    assert meaning.endswith(".")
    assert not re.search(r"\b(the same|in place of (it|both)|that key|from there|see above|ditto)\b", meaning)
    for name in re.findall(rf"{PREFIX}[A-Z_]+", meaning):
        assert name.removeprefix(PREFIX).lower() in FIELDS


def test_help_and_page_have_the_same_texts(capsys: pytest.CaptureFixture[str]) -> None:
    from core.process.configuration import load_settings

    with pytest.raises(SystemExit):
        load_settings({}, ["--help"])
    shown = "".join(capsys.readouterr().out.split())
    for name, rule in RULES.items():
        text = f"{rule.description} Default: {describe_default(name) or 'not set'}."
        # argparse may break a line behind any hyphen.
        assert "".join(text.replace("`", "").split()) in shown
