"""Whether a token proves who somebody is, said a second time: RFC 7515 and 7519 and the table of ``core.auth.tokens``, without PyJWT.

Signatures are checked by ``cryptography`` and ``hmac`` themselves. The judge names all rules that a token breaks; ``core.auth.tokens``
names the first that it finds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from core.auth.proof import NO_PROOF, Proof
from core.auth.tokens import TOKEN_MAX, TokenVerifier, load_verifier
from core.process.settings import Settings
from core.wire.codec import from_json
from core.wire.sanitize import sanitize_name
from tests.core.token_forge import ALGORITHMS, SECRET, encode, jwk, private_key, public_pem

#: Characters of the first part of a token.
_HEADER_MAX: Final = 2048
#: Levels of nesting in a header that PyJWT's own decoder may give up on.
_DEEP: Final = 150
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_UUID4: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)

SigningKey = str | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Issuer(NamedTuple):
    """Who signs tokens, and the verifier that trusts him."""

    algorithm: str
    #: `kid` -> key; None is the name of a key that has none. A set of one key needs no `kid`.
    keys: dict[str | None, SigningKey]
    #: Whether tokens choose by `kid` among the keys.
    from_set: bool
    settings: Settings
    verifier: TokenVerifier


class Verdict(NamedTuple):
    """What the judge says."""

    #: The reasons for which the token may be refused; none for a token that proves its bearer.
    broken: frozenset[str]
    #: What it claims; None when the signature is wrong, or what is signed is not a JSON object.
    claims: dict[str, Any] | None
    #: What it proves, if nothing is broken.
    proof: Proof
    #: Whether a library may give up on it, though nothing is broken.
    too_deep: bool = False


def _issuer(algorithm: str, names: tuple[str | None, ...], **settings: Any) -> Issuer:
    """Make a verifier and its keys; with names it is a Key Set, which has keys for other things beside them."""
    content: dict[Path, bytes] = {}
    keys: dict[str | None, SigningKey] = {
        name: SECRET + str(which) if algorithm == "HS256" else private_key(algorithm, which)
        for which, name in enumerate(names or (None,))
    }
    if not names:
        (key,) = keys.values()
        settings["jwt_key"] = key if isinstance(key, str) else public_pem(key)
    else:
        members = [_member(key, kid=name) for name, key in keys.items()]
        members.append(jwk(private_key("RS256", 9), kid="else", use="enc"))
        members += [{"kty": "unknown", "kid": "strange"}]
        settings["jwt_jwks_file"] = Path("set")
        content[Path("set")] = json.dumps({"keys": members}).encode()
    made = Settings(auth="jwt", jwt_algorithm=cast(Any, algorithm), **settings)
    verifier = load_verifier(made, content.__getitem__)
    assert verifier is not None
    return Issuer(algorithm, keys, bool(names), made, verifier)


def _member(key: SigningKey, kid: str | None) -> dict[str, Any]:
    named = {} if kid is None else {"kid": kid}
    return {"kty": "oct", "k": encode(key.encode())} | named if isinstance(key, str) else jwk(key, **named)


@cache
def issuers() -> dict[str, Issuer]:
    """By name: each algorithm with one key and with a set, other rules for the parties, and sets of one key."""
    parties = {"jwt_issuer": "https://id.example, other", "jwt_audience": "chat, https://chat.example"}
    plain = {name: _issuer(name, (), jwt_leeway=0.0) for name in ALGORITHMS}
    sets = {
        f"{name}-set": _issuer(name, ("one", "two"), **parties, jwt_leeway=10.0, user_ids="any")
        for name in ALGORITHMS
    }
    one = {
        "EdDSA-only": _issuer("EdDSA", ("only",), jwt_leeway=0.5),
        "HS256-unnamed": _issuer("HS256", (None,), jwt_audience="chat"),
    }
    return plain | sets | one


# -- The judge --


def judge(issuer: Issuer, token: str, user_id: str, now: float) -> Verdict:
    """All rules that `token` breaks as a proof that its bearer is `user_id`."""
    parts = token.split(".")
    if (
        len(token) > TOKEN_MAX
        or len(parts) != 3
        or len(parts[0]) > _HEADER_MAX
        or not all(map(_BASE64URL.fullmatch, parts))
    ):
        return _refused("malformed")
    header = _object(_decoded(parts[0], canonical=False))
    if header is None:
        return _refused("malformed")
    if header.get("alg") != issuer.algorithm:
        return _refused("algorithm")
    key = _find(issuer, header)
    if key is None:
        return _refused("key")
    payload, signature = _decoded(parts[1]), _decoded(parts[2])
    signed = f"{parts[0]}.{parts[1]}".encode()
    if payload is None or signature is None or _decoded(parts[0]) is None or not _understood(header):
        return _refused("signature")
    if not is_signed(key, signed, signature):
        return _refused("signature")
    claims = _object(payload)
    if claims is None:
        return _refused("claims")
    broken = _broken_claims(issuer.settings, claims, user_id, now)
    proof = NO_PROOF
    if not broken:
        name = sanitize_name(claims["name"]) if "name" in claims else None
        proof = Proof(
            float(claims["exp"]) + issuer.settings.jwt_leeway, name, claims.get("role") == "service"
        )
    return Verdict(broken, claims, proof, _depth(header) > _DEEP)


def _refused(reason: str) -> Verdict:
    return Verdict(frozenset({reason}), None, NO_PROOF)


def _decoded(part: str, canonical: bool = True) -> bytes | None:
    """Decode a part of a token; None when it is not base64url, or, of a `canonical` one, when there is another way to write the same."""
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        return None
    return None if canonical and encode(decoded) != part else decoded


def _object(data: bytes | None) -> dict[str, Any] | None:
    try:
        value = from_json(data or b"")
    except ValueError:
        return None
    return value if type(value) is dict else None


def _find(issuer: Issuer, header: dict[str, Any]) -> SigningKey | None:
    kid = header.get("kid")
    keys = list(issuer.keys.values())
    if not issuer.from_set or (kid is None and len(keys) == 1):
        return keys[0]
    return issuer.keys.get(kid) if isinstance(kid, str) else None


def _understood(header: dict[str, Any]) -> bool:
    """RFC 7515, 4.1.4 and 4.1.11: `kid` is a string; what is critical has to be known, which `b64` is, and it has to be true."""
    if "kid" in header and type(header["kid"]) is not str:
        return False
    if header.get("b64", True) is False:
        return False
    if "crit" not in header:
        return True
    critical = header["crit"]
    return (
        type(critical) is list and bool(critical) and "b64" in header and set(map(str, critical)) == {"b64"}
    )


def is_signed(key: SigningKey, signed: bytes, signature: bytes) -> bool:
    """RFC 7518, 3.2 to 3.4, and RFC 8037."""
    if isinstance(key, str):
        return hmac.compare_digest(hmac.digest(key.encode(), signed, hashlib.sha256), signature)
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            key.public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            if len(signature) != 64:
                return False
            numbers = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.public_key().verify(encode_dss_signature(*numbers), signed, ec.ECDSA(hashes.SHA256()))
        else:
            key.public_key().verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _broken_claims(settings: Settings, claims: dict[str, Any], user_id: str, now: float) -> frozenset[str]:
    broken = set()
    times = {name: claims.get(name) for name in ("exp", "nbf", "iat")}
    if times["exp"] is None or not all(value is None or _is_number(value) for value in times.values()):
        broken.add("claims")
    if _is_number(times["exp"]) and not now < float(times["exp"]) + settings.jwt_leeway:
        broken.add("expired")
    if _is_number(times["nbf"]) and not now >= float(times["nbf"]) - settings.jwt_leeway:
        broken.add("early")
    issuer, audience = claims.get("iss"), claims.get("aud")
    if issuer is not None and type(issuer) is not str:
        broken.add("claims")
    elif settings.jwt_issuer and issuer not in _listed(settings.jwt_issuer):
        broken.add("issuer")
    named = [] if audience is None else audience if type(audience) is list else [audience]
    if not all(type(name) is str for name in named):
        broken.add("claims")
    elif (settings.jwt_audience or named) and not set(named) & _listed(settings.jwt_audience):
        broken.add("audience")
    subject = claims.get("sub")
    canonical = _canonical(settings, subject)
    if canonical is None:
        broken.add("claims")
    elif canonical != user_id:
        broken.add("subject")
    if "name" in claims and not _is_name(claims["name"]):
        broken.add("name")
    return frozenset(broken)


def _is_name(value: Any) -> bool:
    return type(value) is str and 1 <= len(sanitize_name(value)) <= 50


def _listed(setting: str) -> set[str]:
    return set(setting.split(", ")) - {""}


def _is_number(value: Any) -> TypeGuard[int | float]:
    return type(value) in (int, float) and math.isfinite(value)


def _canonical(settings: Settings, subject: Any) -> str | None:
    if type(subject) is not str:
        return None
    if settings.user_ids == "any":
        said = re.fullmatch("[A-Za-z0-9._|@:+=-]{1,128}", subject, re.ASCII) and re.search(
            "[A-Za-z0-9]", subject
        )
        return subject if said else None
    return subject.lower() if subject.isascii() and _UUID4.fullmatch(subject.lower()) else None


def _depth(value: Any) -> int:
    """Levels of nesting."""
    level, deepest = [value], 0
    while level:
        deepest += 1
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
    return deepest
