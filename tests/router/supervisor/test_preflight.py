"""Tests of router.supervisor.preflight."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

import pytest

from core.process.settings import ConfigurationError, Settings
from router.supervisor.preflight import (
    DESCRIPTORS_MIN,
    check_exposure,
    check_memory,
    check_settings,
    raise_descriptor_limit,
)
from tests.hook_receiver import new_secret, secret_file


@pytest.mark.parametrize(("loopback", "auth"), [(True, None), (True, "none"), (False, "jwt")])
def test_d5_what_is_not_exposed_needs_no_word(loopback: bool, auth: str | None) -> None:
    assert check_exposure("host", loopback, auth) is None


def test_d5_exposure_without_proof_has_to_be_asked_for() -> None:
    with pytest.raises(
        ConfigurationError, match=r"FASTCHAT_HOST: '0.0.0.0' lets other machines connect.*FASTCHAT_AUTH=none"
    ):
        check_exposure("0.0.0.0", False, None)
    warning = check_exposure("0.0.0.0", False, "none")
    assert warning is not None
    assert "any user" in warning


def settings(**values: Any) -> Settings:
    return Settings(port=0, admin_port=0, workers=1, **values)


def test_d5_tokens_with_a_key_need_no_word_about_exposure() -> None:
    checked = check_settings(settings(host="0.0.0.0", auth="jwt", jwt_key="k" * 32))
    assert checked.warnings == []


@pytest.mark.parametrize("auth", [None, "none"])
@pytest.mark.parametrize("name", ["jwt_key", "jwt_key_file", "jwt_jwks_file"])
def test_d5_a_key_without_tokens_is_a_mistake(auth: str | None, name: str) -> None:
    """Who sets a key believes that tokens are asked for."""
    with pytest.raises(ConfigurationError, match=f"FASTCHAT_{name.upper()} is set.*FASTCHAT_AUTH=jwt"):
        check_settings(settings(auth=auth, **{name: "x" * 40}))


@pytest.mark.parametrize(
    "url",
    ["https://app.example.com/login?next=%2Fchat", "http://localhost:3000", "https://[::1]:8443/#login"],
)
def test_d5_a_login_page_is_linked_to_where_tokens_are_asked_for(url: str) -> None:
    assert check_settings(settings(auth="jwt", jwt_key="k" * 32, login_url=url)).warnings == []
    for auth in (None, "none"):
        with pytest.raises(ConfigurationError, match=r"FASTCHAT_LOGIN_URL is set.*FASTCHAT_AUTH=jwt"):
            check_settings(settings(auth=auth, login_url=url))


@pytest.mark.parametrize(
    "url",
    [
        "app.example.com/login",
        "/login",
        "https:",
        "https:///login",
        "javascript:alert(1)//https://app.example.com",
        "ftp://app.example.com",
        "https://app.example.com:99999",
        "https://app.example.com/a b",
        'https://app.example.com/"><script>',
        "https://app.example.com/\n",
        "https://[::g]/",
    ],
)
def test_d5_a_login_page_that_can_not_be_linked_to_stops_the_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"FASTCHAT_LOGIN_URL: .* is no http or https URL"):
        check_settings(settings(auth="jwt", jwt_key="k" * 32, login_url=url))


def test_d5_tokens_without_a_key_and_proxies_that_are_none_stop_the_start() -> None:
    with pytest.raises(ConfigurationError, match="tokens need a key"):
        check_settings(settings(auth="jwt"))
    with pytest.raises(ConfigurationError, match="FASTCHAT_TRUSTED_PROXIES"):
        check_settings(settings(trusted_proxies="proxy.example"))


@pytest.mark.parametrize(
    ("values", "mib", "expected"),
    [
        ({}, 256, None),
        ({"workers": 2}, 256, None),
        ({"workers": 3}, 256, "FASTCHAT_WORKERS: 256 MiB of memory are little for 3 workers"),
        (
            {"workers": 2, "worker_memory_mib": 200},
            256,
            "2 workers of 200 MiB are more than the 256 MiB of memory",
        ),
        (
            {"worker_memory_mib": 40},
            4000,
            "FASTCHAT_WORKER_MEMORY_MIB: 40 MiB leave a worker almost no memory",
        ),
        ({"workers": 8}, 4000, None),
    ],
)
def test_the_operator_is_told_what_memory_is_not_enough_for(
    values: dict[str, Any], mib: int, expected: str | None
) -> None:
    warning = check_memory(Settings(**{"workers": 1, **values}), mib * 2**20)
    assert (warning is None) if expected is None else (warning is not None and expected in warning)


@pytest.mark.parametrize("soft", [64, DESCRIPTORS_MIN - 1])
def test_too_few_file_descriptors_are_refused(monkeypatch: pytest.MonkeyPatch, soft: int) -> None:
    hard = DESCRIPTORS_MIN - 1
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    with pytest.raises(ConfigurationError, match=rf"too few file descriptors: {hard} are allowed"):
        raise_descriptor_limit()
    assert raised == ([] if soft == hard else [(hard, hard)])


def test_as_many_descriptors_are_allowed_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, DESCRIPTORS_MIN))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    raise_descriptor_limit()
    assert raised == [(DESCRIPTORS_MIN, DESCRIPTORS_MIN)]


def test_workers_that_would_not_even_start_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"FASTCHAT_WORKERS: 8 workers do not even start in 256 MiB"):
        check_memory(Settings(workers=8), 256 * 2**20)


@pytest.mark.parametrize(
    ("mode", "content", "sentence"),
    [
        (0o600, "nonsense", "line 1 does not begin with `whsec_`"),
        (0o644, f"whsec_{'A' * 44}", "other users may read the secret"),
        (None, "", "No such file or directory"),
    ],
)
def test_d33_a_hook_whose_calls_cannot_be_signed_stops_the_start(
    tmp_path: Path, mode: int | None, content: str, sentence: str
) -> None:
    path = tmp_path / "secret"
    if mode is not None:
        secret_file(path, content).chmod(mode)
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        check_settings(settings(hook_url="https://push.example.com/", hook_secret_file=path))
    with pytest.raises(ConfigurationError, match="calls can't be signed"):
        check_settings(settings(hook_url="https://push.example.com/"))
    check_settings(
        settings(hook_url="https://push.example.com/", hook_secret_file=secret_file(path, new_secret()))
    )
