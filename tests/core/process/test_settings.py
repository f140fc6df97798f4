"""core.process.settings: one validated settings object, and a sentence for whatever is wrong with it."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from core.placement import WORKERS_MAX
from core.process.configuration import load_settings
from core.process.settings import FIELDS, PREFIX, ConfigurationError, Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the developer has set is none of these tests' business."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


def refused(*arguments: str) -> str:
    """The sentence that these flags, or the environment, must bring about."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(os.environ, arguments)
    return str(caught.value)


def test_the_defaults_are_the_documents() -> None:
    """ws://localhost:8000/ws, UUID v4, 60 messages and 10 typing indicators a minute."""
    settings = load_settings(os.environ, [])
    assert (settings.host, settings.port) == ("localhost", 8000)
    assert settings.user_ids == "uuid4"
    assert (settings.messages_per_minute, settings.typing_per_minute) == (60, 10)
    assert (settings.open_chats_per_minute, settings.hellos_per_minute) == (20, 30)
    assert settings.pings_per_second == 1.0
    assert settings.presence == "auto"
    assert 1 <= settings.workers <= WORKERS_MAX


def test_a_variable_sets_and_a_flag_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCHAT_PORT", "9000")
    monkeypatch.setenv("FASTCHAT_WORKERS", "3")
    assert load_settings(os.environ).port == 9000
    settings = load_settings(os.environ, ["--port", "9100", "--messages-per-minute=0"])
    assert (settings.port, settings.workers, settings.messages_per_minute) == (9100, 3, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("PORT", "-1"),
        ("WORKERS", "0"),
        ("WORKERS", str(WORKERS_MAX + 1)),
        ("FRONTS", "0"),
        ("USER_IDS", "uuid5"),
        ("PRESENCE", "nobody"),
        ("MESSAGES_PER_MINUTE", "-1"),
        ("DRAIN_SECONDS", "-1"),
        ("DRAIN_SECONDS", "3601"),
        ("TYPING_PER_MINUTE", "many"),
        ("PINGS_PER_SECOND", "-0.5"),
        ("PINGS_PER_SECOND", "nan"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_value_is_a_sentence_with_the_name_the_rule_and_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """One line, no traceback."""
    monkeypatch.setenv(PREFIX + name, value)
    sentence = refused()
    assert sentence.startswith(f"{PREFIX}{name}: ")
    assert repr(value) in sentence or value in ("nan", "")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PORT", "70000", "at most 65535"),
        ("PORT", "-1", "at least 0"),
        ("PORT", "5.5", "a whole number"),
        ("PORT", "1" * 400, "at most 65535"),
        ("RETENTION_DAYS", "long", "a number"),
        ("RETENTION_DAYS", "36501", "at most 36500"),
        ("PINGS_PER_SECOND", "inf", "a finite number"),
        ("HALF_OPEN_PER_IP", "none", "a whole number"),
        ("AUTH", "basic", "none or jwt"),
        ("USER_IDS", "UUID", "uuid4, uuid or any"),
    ],
)
def test_what_is_expected_is_told(name: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({PREFIX + name: value})
    assert str(caught.value) == f"{PREFIX}{name}: expected {expected}; the value is {value!r}"


def test_an_empty_text_is_refused_where_there_must_be_one() -> None:
    """A flag can be empty, unlike a variable."""
    assert refused("--host=") == "FASTCHAT_HOST: expected at least 1 character; the value is ''"
    assert load_settings({}, ["--jwt-issuer="]).jwt_issuer == ""


def test_a_flag_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    """What is short for one setting today could be short for two tomorrow."""
    with pytest.raises(SystemExit):
        load_settings({}, ["--admin-p", "1"])
    assert "--admin-p" in capsys.readouterr().err


def test_values_have_the_types_of_their_settings() -> None:
    settings = load_settings(
        {"FASTCHAT_RETENTION_DAYS": "1", "FASTCHAT_JWT_KEY_FILE": "a b", "FASTCHAT_AUTH": "jwt"}
    )
    assert (settings.retention_days, type(settings.retention_days)) == (1.0, float)
    assert (settings.jwt_key_file, settings.auth) == (Path("a b"), "jwt")


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `FASTCHAT_PORT= make run` means it."""
    monkeypatch.setenv("FASTCHAT_PORT", "")
    monkeypatch.setenv("FASTCHAT_HOST", "")
    settings = load_settings(os.environ, [])
    assert (settings.host, settings.port) == ("localhost", 8000)


def test_every_bad_value_gets_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the operator has to try only once."""
    monkeypatch.setenv("FASTCHAT_PORT", "x")
    monkeypatch.setenv("FASTCHAT_WORKERS", "x")
    lines = refused().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["FASTCHAT_PORT", "FASTCHAT_WORKERS"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("FASTCHAT_PROT", "did you mean FASTCHAT_PORT?"),
        ("FASTCHAT_XYZZY", "--help"),
        ("fastchat_prot", "FASTCHAT_PORT?"),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest_known_one(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    """A typing mistake must not mean the default."""
    monkeypatch.setenv(name, "1")
    sentence = refused()
    assert name in sentence
    assert hint in sentence


def test_an_unknown_flag_ends_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(os.environ, ["--prot", "1"])
    assert caught.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_help_describes_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(os.environ, ["--help"])
    assert not caught.value.code
    text = " ".join(capsys.readouterr().out.split())
    for name in FIELDS:
        assert "--" + name.replace("_", "-") in text


def test_a_child_gets_exactly_the_same_settings(tmp_path: Path) -> None:
    """The supervisor hands them on as environment, whatever it was started with; unset, text, number or path."""
    arguments = [
        "--port=0",
        "--workers=5",
        "--user-ids=any",
        "--pings-per-second=0.5",
        "--data-dir=some where",
        f"--run-dir={tmp_path}",
        '--jwt-key=quite "secret"\n',
        "--allowed-origins=https://*.example.com,*",
    ]
    settings = load_settings({"FASTCHAT_FRONTS": "2"}, arguments)
    environment = settings.environment()
    assert all(name.startswith(PREFIX) for name in environment)
    child = Settings.handed_down(environment)
    assert child == settings
    assert repr(child) == repr(settings), "types too"
    assert (child.data_dir, child.run_dir, child.auth) == (Path("some where"), tmp_path, None)


def test_settings_do_not_change_once_they_are_read() -> None:
    settings = load_settings(os.environ, [])
    with pytest.raises(FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]
