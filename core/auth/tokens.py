"""Tokens that prove who a client is (D5): JSON Web Tokens (RFC 7519) in their compact form, checked with PyJWT.

A token comes in HELLO, as `data.token`, or with the upgrade, as ``Authorization: Bearer``. `TokenVerifier.prove` says until when it proves
that the client is the user whom HELLO names, and what else it claims (D34), or raises a Refusal. Checked are, in this order: the form, the
algorithm, the key that the token means, the signature, and what it claims:

| claim | rule |
|---|---|
| `sub` | the user id |
| `exp` | there, and not over |
| `nbf` | if there, reached |
| `iss` | one of FASTCHAT_JWT_ISSUER, when that is set |
| `aud` | names one of FASTCHAT_JWT_AUDIENCE, when that is set; else there must be none (RFC 7519, 4.1.3) |
| `name` | if there, a display name of 1 to 50 characters after cleaning (D16) |
| `role` | ``service`` is a backend; anything else gives no rights and is no reason to refuse |

PyJWT checks the signature; the claims are checked here, since the core is told the time, and since a claim of a wrong type is to be refused
and not converted. A token, and what it claims, goes into no log, no ERROR and no exception.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from core.auth.keys import Keys, load_keys
from core.auth.proof import Proof
from core.process.settings import Settings
from core.wire.codec import from_json
from core.wire.protocol import NAME_MAX, PROVEN_NAME_MIN, ErrorCode, Refusal
from core.wire.sanitize import sanitize_name
from core.wire.validation import Validator

#: Characters of a token; more than any has that fits the head of a request with something beside it.
TOKEN_MAX: Final = 8192
#: The same for its header, which names an algorithm and a key. It is parsed before anything is proven, so it has to be small.
_HEADER_MAX: Final = 2048
#: HELLOs without a valid token before the connection is closed.
TRIES: Final = 3
TRIES_REASON: Final = "no valid token in three tries"
#: The close reason when the time is over (1008), and how many seconds before that the client is told: or when half of the time is over
#: that the token still had when it came, if that is later.
EXPIRED_REASON: Final = "token expired"
ANNOUNCE_SECONDS: Final = 60.0

#: Why a token is refused, as `details.reason` of ERROR and the metric say it.
REASONS: Final = (
    *("missing", "malformed", "algorithm", "key", "signature"),
    *("expired", "early", "issuer", "audience", "claims", "subject", "name"),
)

#: The same when nothing is wrong yet, but its time is nearly over.
EXPIRES: Final = "expires"

#: The claim `role` of a backend.
SERVICE: Final = "service"

_FORM: Final = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


class TokenVerifier:
    """Checks tokens with the keys and the rules of the settings."""

    def __init__(self, keys: Keys, settings: Settings) -> None:
        from jwt import PyJWS

        self._keys = keys
        self._signatures = PyJWS(algorithms=[keys.algorithm])
        self._audiences = _listed(settings.jwt_audience)
        self._issuers = _listed(settings.jwt_issuer)
        self._leeway = settings.jwt_leeway
        self._validator = Validator(settings.user_ids)

    def prove(self, token: Any, user_id: str, now: float) -> Proof:
        """Return what this token proves, which is that its bearer is `user_id`; `now` is in seconds since 1970.

        `token` is anything that a client sent, None for nothing. Raises Refusal: VALIDATION for what is not a string, else UNAUTHORIZED
        with one of REASONS.
        """
        if token is None or token == "":
            _refuse(
                "missing", "HELLO needs a token: as data.token, or with the upgrade as Authorization: Bearer"
            )
        if type(token) is not str:
            raise Refusal(
                ErrorCode.VALIDATION, "`token` must be a string", field="token", expected="a JSON Web Token"
            )
        claims = self._claims(token)
        expires = self._check_times(claims, now)
        self._check_parties(claims)
        self._check_subject(claims, user_id)
        return Proof(expires, _name(claims), claims.get("role") == SERVICE)

    def _claims(self, token: str) -> dict[str, Any]:
        """Return what the token claims, its signature being right."""
        form = _FORM.fullmatch(token) if len(token) <= TOKEN_MAX else None
        if form is None or len(form[1]) > _HEADER_MAX:
            _refuse("malformed", f"this is not a JSON Web Token of at most {TOKEN_MAX} characters")
        header = _header(form[1])
        algorithm = self._keys.algorithm
        if header.get("alg") != algorithm:
            _refuse("algorithm", f"the token must be signed with {algorithm}")
        key = self._keys.find(header.get("kid"))
        if key is None:
            _refuse("key", "the token is signed with a key that is not known here")
        try:
            payload = self._signatures.decode(token, key.check, algorithms=[algorithm])
        except Exception:  # whatever it is that a library can't cope with: it is not a valid token
            _refuse("signature", "the signature of the token is not right")
        try:
            claims = from_json(payload)
        except ValueError:
            claims = None
        if type(claims) is not dict:
            _refuse("claims", "the token must be made of claims, a JSON object")
        return claims

    def _check_times(self, claims: dict[str, Any], now: float) -> float:
        expires = _time(claims, "exp")
        if expires is None:
            _refuse("claims", "the token has no `exp`: it must say when it expires")
        if now >= expires + self._leeway:
            _refuse("expired", "the token has expired: get a new one")
        begins = _time(claims, "nbf")
        if begins is not None and now < begins - self._leeway:
            _refuse("early", "the token is not valid yet")
        _time(claims, "iat")
        return expires + self._leeway

    def _check_parties(self, claims: dict[str, Any]) -> None:
        issuer = claims.get("iss")
        if issuer is not None and type(issuer) is not str:
            _refuse("claims", "`iss` of the token must be a string")
        if self._issuers and issuer not in self._issuers:
            _refuse("issuer", "the token is not from an issuer that is accepted here")
        audience = claims.get("aud")
        named = [audience] if type(audience) is str else [] if audience is None else audience
        if type(named) is not list or not all(type(name) is str for name in named):
            _refuse("claims", "`aud` of the token must be a string or a list of strings")
        if (self._audiences or named) and self._audiences.isdisjoint(named):
            _refuse("audience", "the token is not meant for this server: its `aud` says so")

    def _check_subject(self, claims: dict[str, Any], user_id: str) -> None:
        try:
            subject = self._validator.user_id(claims.get("sub"), "sub")
        except Refusal:
            _refuse("claims", "`sub` of the token must be a user id")
        if subject != user_id:
            raise Refusal(
                ErrorCode.UNAUTHORIZED,
                "the token is another user's: its `sub` must be the user_id of HELLO",
                field="user_id",
                reason="subject",
            )


def load_verifier(settings: Settings, read: Callable[[Path], bytes]) -> TokenVerifier | None:
    """Make what checks tokens with these settings; None when nothing proves who a client is. `read` gives the content of a file.

    Raises ConfigurationError for keys that are no good (``core.auth.keys``).
    """
    if settings.auth != "jwt":
        return None
    return TokenVerifier(load_keys(settings, read), settings)


def expiry_notice(seconds: float) -> Refusal:
    """Return what a client is told whose token expires in so many seconds."""
    return Refusal(
        ErrorCode.UNAUTHORIZED,
        "the token expires soon: say HELLO with a new one, or this connection will be closed",
        field="token",
        reason=EXPIRES,
        expires_in=max(0, math.floor(seconds)),
    )


def make_token(
    keys: Keys, settings: Settings, user_id: str, more: dict[str, Any], now: float, seconds: float
) -> str | None:
    """Make a token for development with `more` claims, valid from `now` on for so long; None when none of the keys can sign.

    Raises Refusal for a `name` with which the token would be refused.
    """
    import jwt

    key = next((key for key in keys.all if key.sign is not None), None)
    if key is None:
        return None
    claims: dict[str, Any] = {"sub": user_id, "iat": int(now), "exp": math.ceil(now + seconds)}
    for claim, given in (("iss", settings.jwt_issuer), ("aud", settings.jwt_audience)):
        if _listed(given):
            claims[claim] = given.partition(",")[0].strip()
    _name(more)
    claims |= more
    headers = {} if key.name is None else {"kid": key.name}
    return jwt.encode(claims, key.sign, keys.algorithm, headers)


def _listed(setting: str) -> frozenset[str]:
    return frozenset(filter(None, map(str.strip, setting.split(","))))


def _header(encoded: str) -> dict[str, Any]:
    from jwt.utils import base64url_decode

    try:
        header = from_json(base64url_decode(encoded))
    except ValueError:
        header = None
    if type(header) is not dict:
        _refuse("malformed", "the header of the token can't be read")
    return header


def _time(claims: dict[str, Any], claim: str) -> float | None:
    """Return a claim that is a time, in seconds since 1970."""
    value = claims.get(claim)
    if value is None:
        return None
    # Not a bool, which Python takes for an int.
    if (type(value) is not int and type(value) is not float) or not math.isfinite(value):
        _refuse("claims", f"`{claim}` of the token must be a number of seconds")
    return float(value)


def _name(claims: dict[str, Any]) -> str | None:
    """Return the display name in a token. One that can't be used is never replaced by the name in HELLO, which nobody has proven."""
    if "name" not in claims:
        return None
    given = claims["name"]
    name = sanitize_name(given) if type(given) is str else ""
    if not PROVEN_NAME_MIN <= len(name) <= NAME_MAX:
        _refuse(
            "name",
            f"`name` of the token must be a string of {PROVEN_NAME_MIN} to {NAME_MAX} characters, at least one of them visible,"
            " after markup and invisible characters are removed",
        )
    return name


def _refuse(reason: str, sentence: str) -> NoReturn:
    raise Refusal(ErrorCode.UNAUTHORIZED, sentence, field="token", reason=reason) from None
