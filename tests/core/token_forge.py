"""Makes tokens and keys by hand, right ones and wrong ones: it shares no code with the library that checks them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

SECRET: Final = "correct horse battery staple, twice over"  # noqa: S105 - of the tests
ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The inverse."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def private_key(algorithm: str, which: int = 0) -> PrivateKey:
    """A key for an algorithm; the same one each time for the same `which`."""
    return _make_key(algorithm, which)


@lru_cache
def _make_key(algorithm: str, which: int) -> PrivateKey:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def private_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(key: PrivateKey, **members: Any) -> dict[str, Any]:
    """The public part as a member of a Key Set."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        size = (numbers.n.bit_length() + 7) // 8
        shown = {"kty": "RSA", "n": encode(numbers.n.to_bytes(size, "big")), "e": encode(b"\1\0\1")}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        point = key.public_key().public_numbers()
        shown = {"kty": "EC", "crv": "P-256"}
        shown |= {"x": encode(point.x.to_bytes(32, "big")), "y": encode(point.y.to_bytes(32, "big"))}
    else:
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        shown = {"kty": "OKP", "crv": "Ed25519", "x": encode(raw)}
    return shown | members


def signature(algorithm: str, signed: bytes, key: PrivateKey | str) -> bytes:
    """Sign as RFC 7518 and RFC 8037 have it."""
    if isinstance(key, str):
        return hmac.digest(key.encode(), signed, hashlib.sha256)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return key.sign(signed)


def forge(
    claims: Any,
    key: PrivateKey | str = SECRET,
    algorithm: str = "HS256",
    /,
    *,
    sign: Callable[[bytes], bytes] | None = None,
    **header: Any,
) -> str:
    """A token with any header and any claims; `sign` makes another signature than the right one. Bytes are claims as they are."""
    head = json.dumps({"alg": algorithm, "typ": "JWT"} | header).encode()
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{encode(head)}.{encode(body)}"
    made = sign(signed.encode()) if sign is not None else signature(algorithm, signed.encode(), key)
    return f"{signed}.{encode(made)}"
