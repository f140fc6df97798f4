"""Tests of router.preflight; the limit of file descriptors is tested with a whole server, since it is the process's own."""

from __future__ import annotations

import pytest

from core.settings import ConfigurationError
from router.preflight import check_exposure


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
