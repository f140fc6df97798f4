"""core.process.configuration: where settings come from; and that what is secret stays it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from core.process.configuration import HIDDEN, explain_settings, load_settings
from core.process.settings import FIELDS, PREFIX, RULES, ConfigurationError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


def explain(*arguments: str) -> dict[str, tuple[Any, str]]:
    """Variable -> value and origin."""
    return {each.name: (each.value, each.origin) for each in explain_settings(os.environ, arguments, "test")}


def test_every_setting_is_there_with_its_default() -> None:
    found = explain()
    assert list(found) == [PREFIX + name.upper() for name in FIELDS]
    assert {origin for _, origin in found.values()} == {"default"}
    assert found["FASTCHAT_PORT"] == (8000, "default")
    assert found["FASTCHAT_RUN_DIR"] == (None, "default")
    assert found["FASTCHAT_DATA_DIR"] == ("data", "default")


def test_who_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCHAT_PORT", "9000")
    monkeypatch.setenv("FASTCHAT_WORKERS", "3")
    monkeypatch.setenv("FASTCHAT_HOST", "")
    found = explain("--port", "9100", "--user-ids=uuid4")
    assert found["FASTCHAT_PORT"] == (9100, "flag")
    assert found["FASTCHAT_WORKERS"] == (3, "environment")
    assert found["FASTCHAT_HOST"] == ("localhost", "default"), "an empty variable is as good as none"
    assert found["FASTCHAT_USER_IDS"] == ("uuid4", "flag"), "also if it is the default"


def test_what_would_stop_the_server_is_the_same_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTCHAT_PROT", "9000")
    with pytest.raises(ConfigurationError, match=r"did you mean FASTCHAT_PORT"):
        explain()


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name, rule in RULES.items() if rule.secret] == ["jwt_key"]
    assert explain("--jwt-key", "4711")["FASTCHAT_JWT_KEY"] == (HIDDEN, "flag")
    assert "4711" not in repr(load_settings({}, ["--jwt-key", "4711"]))
    monkeypatch.setitem(RULES, "worker_memory_mib", RULES["worker_memory_mib"]._replace(secret=True))
    monkeypatch.setenv("FASTCHAT_WORKER_MEMORY_MIB", "hunter2")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(os.environ)
    assert "hunter2" not in str(caught.value)
    assert HIDDEN in str(caught.value)
