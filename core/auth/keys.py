"""The keys that tokens are checked with (D5), from what the operator gave: a secret, a key in PEM, or a JSON Web Key Set (RFC 7517).

One algorithm is in force, `FASTCHAT_JWT_ALGORITHM`, and a key that is not for it is refused when it is read: so no token can choose how it
is checked. What is refused is refused with a sentence that never repeats any of the key.

To sign, which only ``fastchat token`` does, a secret or a private key is needed; to check, the public part is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from core.process.settings import PREFIX, ConfigurationError, Settings
from core.wire.codec import from_json

#: Bytes of a secret for HS256: fewer than the hash has can be guessed from one token (RFC 7518, 3.2).
SECRET_MIN_BYTES: Final = 32
#: Bits of an RSA key (RFC 7518, 3.3).
RSA_MIN_BITS: Final = 2048
#: Bytes of a file with keys; a Key Set with that many is none.
FILE_MAX_BYTES: Final = 256 * 1024

#: algorithm -> the key that it needs, in words; and how a Key Set calls that: `kty` and, where there are several, `crv`.
_NEEDS: Final = {
    "HS256": f"a secret of at least {SECRET_MIN_BYTES} bytes",
    "RS256": f"an RSA key of at least {RSA_MIN_BITS} bits",
    "ES256": "an elliptic curve key on P-256",
    "EdDSA": "an Ed25519 key",
}
_KINDS: Final = {
    "HS256": ("oct", None),
    "RS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
}
_PEM: Final = b"-----BEGIN "


class Key(NamedTuple):
    """A key for the algorithm in force."""

    #: Its name in a Key Set; None when it has none there, or comes from elsewhere.
    name: str | None
    #: What PyJWT checks signatures with.
    check: Any
    #: What it signs with; None when only the public part is known.
    sign: Any


class Keys:
    """The keys of one algorithm; there is at least one."""

    def __init__(self, algorithm: str, keys: list[Key], *, from_set: bool) -> None:
        self.algorithm = algorithm
        self.all = keys
        #: Whether tokens say by `kid` which of them is meant.
        self._from_set = from_set
        self._by_name = {key.name: key for key in keys if key.name is not None}

    def find(self, name: Any) -> Key | None:
        """Return the key that a token means whose header has this `kid`, of whatever type; None when that is none of ours."""
        if not self._from_set:
            return self.all[0]
        if name is None:
            return self.all[0] if len(self.all) == 1 else None
        if type(name) is not str:
            return None
        return self._by_name.get(name)


def load_keys(settings: Settings, read: Callable[[Path], bytes]) -> Keys:
    """Load the keys that the settings name. `read` gives the content of a file.

    Raises ConfigurationError when there is none, more than one source, or what is there is not a key for the algorithm.
    """
    given = [
        name for name in ("jwt_key", "jwt_key_file", "jwt_jwks_file") if getattr(settings, name) is not None
    ]
    if len(given) != 1:
        sources = f"{PREFIX}JWT_KEY_FILE, {PREFIX}JWT_JWKS_FILE or {PREFIX}JWT_KEY"
        if given:
            found = " and ".join(PREFIX + name.upper() for name in given)
            raise ConfigurationError(f"{found} are set; set only one of {sources}")
        raise ConfigurationError(f"tokens need a key: set {sources}")
    algorithm = settings.jwt_algorithm
    setting = PREFIX + given[0].upper()
    if settings.jwt_key is not None:
        return Keys(algorithm, [_one_key(algorithm, settings.jwt_key.encode(), setting)], from_set=False)
    if settings.jwt_key_file is not None:
        content = _content(settings.jwt_key_file, setting, read)
        return Keys(algorithm, [_one_key(algorithm, content.rstrip(b"\r\n"), setting)], from_set=False)
    assert settings.jwt_jwks_file is not None, "it is the one that is left"
    content = _content(settings.jwt_jwks_file, setting, read)
    return Keys(algorithm, _key_set(algorithm, content, setting), from_set=True)


def _content(path: Path, setting: str, read: Callable[[Path], bytes]) -> bytes:
    try:
        content = read(path)
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: can't read {path}: {error.strerror}; expected a file that the server's user can read"
        ) from None
    if len(content) > FILE_MAX_BYTES:
        raise ConfigurationError(
            f"{setting}: {path} has {len(content)} bytes; expected a file with keys, of at most {FILE_MAX_BYTES} bytes"
        )
    return content


# -- One key --


def _one_key(algorithm: str, content: bytes, setting: str) -> Key:
    needs = f"{PREFIX}JWT_ALGORITHM {algorithm} needs {_NEEDS[algorithm]}"
    if algorithm == "HS256":
        if _PEM in content:
            raise ConfigurationError(f"{setting}: the key is in PEM; {needs}")
        return Key(None, *_secret(content, setting, needs))
    if _PEM not in content:
        raise ConfigurationError(f"{setting}: the value is not a key in PEM; {needs} in PEM")
    return Key(None, *_pair(algorithm, _from_pem(content, setting), setting, needs))


def _secret(content: bytes, setting: str, needs: str) -> tuple[bytes, bytes]:
    if len(content) < SECRET_MIN_BYTES:
        raise ConfigurationError(f"{setting}: the secret has {len(content)} bytes; {needs}")
    from jwt import PyJWS, PyJWTError

    try:
        PyJWS().encode(b"{}", content, "HS256")
    except PyJWTError:
        raise ConfigurationError(
            f"{setting}: the value is a key of another kind, not a secret; {needs}"
        ) from None
    return content, content


def _from_pem(content: bytes, setting: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    try:
        if b"PRIVATE KEY-----" in content:
            return load_pem_private_key(content, None)
        return load_pem_public_key(content)
    except TypeError:
        raise ConfigurationError(
            f"{setting}: the key is encrypted with a passphrase; expected a key without a passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"{setting}: the key in PEM can't be read; expected a PUBLIC KEY or a PRIVATE KEY, and no certificate"
        ) from None


def _pair(algorithm: str, key: Any, setting: str, needs: str) -> tuple[Any, Any]:
    """Return the public key and, if it is there, the private one."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    public = key.public_key() if hasattr(key, "private_bytes") else key
    match algorithm:
        case "RS256":
            fits = isinstance(public, rsa.RSAPublicKey) and public.key_size >= RSA_MIN_BITS
        case "ES256":
            fits = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
        case _:
            fits = isinstance(public, ed25519.Ed25519PublicKey)
    if not fits:
        raise ConfigurationError(f"{setting}: the key is of another kind, or too short; {needs}")
    return public, None if public is key else key


# -- A Key Set --


def _key_set(algorithm: str, content: bytes, setting: str) -> list[Key]:
    try:
        decoded = from_json(content)
    except ValueError:
        decoded = None
    listed = decoded.get("keys") if isinstance(decoded, dict) else None
    if not isinstance(listed, list):
        raise ConfigurationError(f'{setting}: the file is not a JSON Web Key Set; expected {{"keys": [...]}}')
    keys = [_from_set(algorithm, member, setting) for member in listed if _is_meant(algorithm, member)]
    if not keys:
        raise ConfigurationError(
            f"{setting}: none of the {len(listed)} keys in the file is for {PREFIX}JWT_ALGORITHM {algorithm}, which needs"
            f" {_NEEDS[algorithm]}"
        )
    names = [key.name for key in keys if key.name is not None]
    if len(set(names)) != len(names):
        raise ConfigurationError(
            f"{setting}: two keys in the file have the same kid; give each key its own kid"
        )
    if len(keys) > 1 and len(names) != len(keys):
        raise ConfigurationError(
            f"{setting}: one key in the file has no kid, so no token can name this key; give each key a kid"
        )
    return keys


def _is_meant(algorithm: str, member: Any) -> bool:
    """Return whether this key of a set is for signatures of this algorithm; providers list others beside it."""
    if not isinstance(member, dict):
        return False
    kind, curve = _KINDS[algorithm]
    return (
        member.get("kty") == kind
        and (curve is None or member.get("crv") == curve)
        and member.get("use", "sig") == "sig"
        and member.get("alg", algorithm) == algorithm
    )


def _from_set(algorithm: str, member: dict[str, Any], setting: str) -> Key:
    import jwt

    name = member.get("kid")
    if name is not None and type(name) is not str:
        raise ConfigurationError(f"{setting}: the `kid` of each key must be a string")
    which = f"the key {name!r}" if name is not None else "a key"
    try:
        key = jwt.PyJWK(member, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        raise ConfigurationError(
            f"{setting}: {which} can't be read; expected a key as RFC 7517 defines it"
        ) from None
    needs = f"{PREFIX}JWT_ALGORITHM {algorithm} needs {_NEEDS[algorithm]}"
    if algorithm == "HS256":
        return Key(name, *_secret(key, f"{setting}, {which}", needs))
    return Key(name, *_pair(algorithm, key, f"{setting}, {which}", needs))
