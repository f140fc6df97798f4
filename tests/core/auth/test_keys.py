"""core.auth.keys: a key that is not for the algorithm in force stops the start, with a sentence that says nothing of the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from core.auth.keys import FILE_MAX_BYTES, Keys, load_keys
from core.process.settings import ConfigurationError, Settings
from tests.core.token_forge import ALGORITHMS, SECRET, jwk, private_key, private_pem, public_pem


def load(**settings: Any) -> Keys:
    return load_keys(Settings(auth="jwt", **settings), Path.read_bytes)


def refused(**settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(**settings)
    sentence = str(caught.value)
    assert "\n" not in sentence
    key = settings.get("jwt_key")
    if key is not None and len(key) > 4:
        assert not any(line in sentence for line in key.splitlines() if line)
    return sentence


def test_one_key_is_needed_and_no_more() -> None:
    assert "set FASTCHAT_JWT_KEY_FILE" in refused()
    assert "only one of" in refused(jwt_key=SECRET, jwt_key_file=Path("x"))
    assert "only one of" in refused(jwt_jwks_file=Path("y"), jwt_key_file=Path("x"))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_key_in_pem_public_or_private_from_a_variable_or_a_file(algorithm: str, tmp_path: Path) -> None:
    key = private_key(algorithm)
    for pem, signs in ((public_pem(key), False), (private_pem(key), True)):
        (tmp_path / "key.pem").write_text(pem)
        for given in ({"jwt_key": pem}, {"jwt_key_file": tmp_path / "key.pem"}):
            (loaded,) = load(jwt_algorithm=algorithm, **given).all
            assert (loaded.sign is not None) is signs
            public = loaded.check.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            assert public == public_pem(key)


def test_a_secret_in_a_file_may_end_with_a_line_feed(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for ending in ("", "\n", "\r\n"):
        path.write_bytes((SECRET + ending).encode())
        assert load(jwt_key_file=path).all[0].check == SECRET.encode()
    path.write_bytes(bytes(range(1, 41)))
    assert load(jwt_key_file=path).all[0].check == bytes(range(1, 41)), "any bytes are a secret"


def test_a_secret_of_31_bytes_is_too_short() -> None:
    assert load(jwt_key="x" * 32).all
    assert "has 31 bytes" in refused(jwt_key="x" * 31)
    assert "at least 32 bytes" in refused(jwt_key="hunter2")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("other", ALGORITHMS)
def test_a_key_for_another_algorithm_is_refused(algorithm: str, other: str) -> None:
    """Also the public key as a secret, with which anybody could sign."""
    if algorithm == other:
        return
    keys = [SECRET] if other == "HS256" else [public_pem(private_key(other)), private_pem(private_key(other))]
    for key in keys:
        assert f"FASTCHAT_JWT_ALGORITHM {algorithm} needs" in refused(jwt_key=key, jwt_algorithm=algorithm)


def test_keys_that_are_too_weak_or_of_another_curve_are_refused() -> None:
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is to be refused
    curve = ec.generate_private_key(ec.SECP384R1())
    for algorithm, key in (("RS256", short), ("ES256", curve), ("EdDSA", ed448.Ed448PrivateKey.generate())):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        assert "the key is of another kind, or too short" in refused(
            jwt_key=pem.decode(), jwt_algorithm=algorithm
        )


def test_what_can_not_be_read_is_said(tmp_path: Path) -> None:
    assert "No such file" in refused(jwt_key_file=tmp_path / "absent")
    assert "Is a directory" in refused(jwt_jwks_file=tmp_path)
    (tmp_path / "large").write_bytes(b"x" * (FILE_MAX_BYTES + 1))
    assert f"at most {FILE_MAX_BYTES}" in refused(jwt_key_file=tmp_path / "large")
    pem = private_key("RS256").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    assert "passphrase" in refused(jwt_key=pem.decode(), jwt_algorithm="RS256")
    nonsense = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    assert "can't be read" in refused(jwt_key=nonsense, jwt_algorithm="RS256")
    certificate = nonsense.replace("PUBLIC KEY", "CERTIFICATE")
    assert "no certificate" in refused(jwt_key=certificate, jwt_algorithm="RS256")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not a JSON Web Key Set"),
        ("{", "not a JSON Web Key Set"),
        ("[]", "not a JSON Web Key Set"),
        ('{"keys": {}}', "not a JSON Web Key Set"),
        ('{"keys": []}', "none of the 0 keys"),
        ('{"keys": [{"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"}]}', "none of the 1 keys"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "x": "AA", "y": "AA"}]}', "'a' can't be read"),
        ('{"keys": [{"kty": "EC", "crv": "P-256"}]}', "a key can't be read"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "kid": 7}]}', "`kid` of each key must be a string"),
    ],
)
def test_a_key_set_that_is_none_is_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    assert says in refused(jwt_jwks_file=path, jwt_algorithm="ES256")


def test_each_key_of_a_set_can_be_told_from_the_others(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    one, two = private_key("ES256", 1), private_key("ES256", 2)
    path.write_text(json.dumps({"keys": [jwk(one, kid="a"), jwk(two, kid="a")]}))
    assert "the same kid" in refused(jwt_jwks_file=path, jwt_algorithm="ES256")
    path.write_text(json.dumps({"keys": [jwk(one, kid="a"), jwk(two)]}))
    assert "has no kid" in refused(jwt_jwks_file=path, jwt_algorithm="ES256")
    path.write_text(json.dumps({"keys": [jwk(one, kid="a"), jwk(two, kid="b", alg="ES384")]}))
    assert [key.name for key in load(jwt_jwks_file=path, jwt_algorithm="ES256").all] == ["a"]


def test_a_secret_in_a_set_is_as_long_as_any(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text('{"keys": [{"kty": "oct", "kid": "a", "k": "c2hvcnQ"}]}')
    sentence = refused(jwt_jwks_file=path)
    assert "has 5 bytes" in sentence
    assert "c2hvcnQ" not in sentence
