"""Tests of router.api.keys."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from core.process.settings import ConfigurationError
from router.api.keys import TRIES_PER_MINUTE, Keys, check_api, load_keys
from tests.router.supervisor.test_preflight import settings

KEY = "k" * 32
OTHER = "o" * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(0o600)
    return path


@pytest.mark.parametrize("content", [KEY, f"{KEY}\n", f"  {KEY}\r\n\n"])
def test_a_key_is_a_line(file: Path, content: str) -> None:
    file.write_text(content)
    assert load_keys(file) == [KEY.encode()]


def test_there_may_be_two_while_they_are_changed(file: Path) -> None:
    file.write_text(f"{KEY}\n{OTHER}\n")
    keys = Keys(load_keys(file))
    assert [keys.is_good(key) for key in (KEY, OTHER, "", KEY + "x", "\udcff", "ü" * 32)] == [
        True,
        True,
        *[False] * 4,
    ]
    keys.replace([OTHER.encode()])
    assert [keys.is_good(key) for key in (KEY, OTHER)] == [False, True]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has 0 lines with keys; expected one line, or two"),
        (f"{KEY}\n{OTHER}\n{KEY}", "has 3 lines with keys"),
        ("short", "has 5 characters; expected at least 32 visible ASCII characters"),
        ("with a blank in the middle of it, and long enough", "visible ASCII"),
    ],
)
def test_what_is_no_key_is_a_sentence_that_does_not_repeat_it(
    file: Path, content: str, sentence: str
) -> None:
    file.write_text(content)
    with pytest.raises(ConfigurationError) as refused:
        load_keys(file)
    assert sentence in str(refused.value)
    assert not content or content not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_file_that_others_may_use_is_refused(file: Path, mode: int) -> None:
    file.write_text(KEY)
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}.*chmod 600"):
        load_keys(file)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can.t read .*: No such file or directory"):
        load_keys(tmp_path / "none")


def test_wrong_keys_are_limited_by_address() -> None:
    keys = Keys([KEY.encode()])
    assert [keys.tried("192.0.2.1", 0.0) for _ in range(TRIES_PER_MINUTE)] == [0.0] * TRIES_PER_MINUTE
    assert keys.tried("192.0.2.1", 20.0) == 40.0
    assert keys.tried("192.0.2.2", 20.0) == 0.0
    assert keys.tried("192.0.2.1", 61.0) == 0.0


def test_many_addresses_take_no_more_memory() -> None:
    keys = Keys([KEY.encode()])
    for number in range(3000):
        keys.tried(f"192.0.2.{number}", 0.0)
    assert len(keys._tries) <= 1000


def test_the_settings_belong_together(file: Path) -> None:
    file.write_text(KEY)
    check_api(settings())
    check_api(settings(api_port=0, api_key_file=file))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"api_port": 9000}, "set FASTCHAT_API_KEY_FILE too"),
        ({"api_key_file": file}, "there is no server API: set FASTCHAT_API_PORT"),
        (
            {"api_port": 9000, "api_key_file": file, "port": 9000},
            "both 9000: choose two different ports",
        ),
    ]
    for values, sentence in wrong:
        with pytest.raises(ConfigurationError, match=sentence):
            check_api(dataclasses.replace(settings(), **values))
