"""What strangers send as a token: ``core.auth.tokens``, with each algorithm. ``fuzz.token_judge``, which does not know PyJWT, has to agree.

An input is not the token but how to make it, or nothing would get past the signature. Its first line says which issuer's token it is and
what is done to its signature, the second is the header, the rest the claims, both as any bytes::

    ES256-set right 0
    {"alg":"ES256","kid":"two"}
    {"sub":"00000000-0000-4000-8000-000000000001","exp":1700000600}

With ``text`` the rest of the input is the token itself, and with ``json`` it is what stands in `data.token` of HELLO.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from core.auth.proof import Proof
from core.auth.tokens import REASONS, TOKEN_MAX
from core.wire.codec import from_json
from core.wire.protocol import ErrorCode, Refusal
from fuzz.mutate_bytes import SIZE_MAX, mutate_bytes
from fuzz.mutate_json import ANN, BOB, mutate_json
from fuzz.target import Target
from fuzz.token_judge import Issuer, Verdict, issuers, judge
from tests.core.token_forge import decode, encode, private_key, public_pem, signature

#: Made here, so that no line counts as reached which only reads the operator's keys.
_ISSUERS: Final = issuers()
#: Seconds since 1970 when HELLO comes, which names Ann.
NOW: Final = 1_700_000_000.0
#: Seconds of this process for one token, instrumented, on a busy machine; a signature takes a few thousandths of that.
_SLOW: Final = 0.25
#: Characters of a token, or of a string in it, that an answer can't have by chance.
_PIECE: Final = 12
_TEXT_PIECE: Final = 6
#: Strings that our sentences have, whatever came.
_OURS: Final = frozenset(
    {"user_id", "expired", "malformed", "algorithm", "signature", "issuer", "audience", "visible", "markup"}
)
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


# -- Making the token --


def _flipped(made: bytes, number: int) -> bytes:
    changed = bytearray(made)
    changed[number // 8 % len(changed)] ^= 1 << number % 8
    return bytes(changed)


def _as_der(made: bytes, number: int) -> bytes:
    """As X.509 has it, which is not RFC 7518's form."""
    return encode_dss_signature(int.from_bytes(made[:32], "big"), int.from_bytes(made[32:64], "big"))


def _other_half(made: bytes, number: int) -> bytes:
    """(r, n - s), which is right wherever (r, s) is."""
    left = (_ORDER - int.from_bytes(made[32:64], "big")) % (1 << 256)
    return made[:32] + left.to_bytes(32, "big")


#: What is done to a right signature; the number is that of the first line.
_CHANGES: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "right": lambda made, number: made,
    "flipped": _flipped,
    "cut": lambda made, number: made[: number % len(made)],
    "longer": lambda made, number: made + bytes(1 + number % 600),
    "zeros": lambda made, number: bytes(len(made)),
    "half": _other_half,
    "der": _as_der,
}
#: Ways to make a token; the last two take the rest of the input as it is.
_WAYS: Final = (*_CHANGES, "stranger", "secret", "padded", "text", "json")


def _parts(data: bytes) -> tuple[str, str, int, bytes]:
    """Issuer, way, number and rest of an input; what can't be read is the text of a token."""
    first, _, rest = data.partition(b"\n")
    words = first.decode(errors="replace").split(" ")
    if len(words) != 3 or words[0] not in _ISSUERS or words[1] not in _WAYS or not words[2].isdecimal():
        return "HS256", "text", 0, data
    return words[0], words[1], int(words[2][:6]), rest


def _token(issuer: Issuer, way: str, number: int, rest: bytes) -> Any:
    """Return what a client sends."""
    if way == "text":
        return rest.decode(errors="replace")
    if way == "json":
        try:
            return from_json(rest)
        except ValueError:
            return None
    header, _, payload = rest.partition(b"\n")
    first, second = encode(header), encode(payload)
    if way == "padded":
        first += "=" * (-len(first) % 4)
    signed = f"{first}.{second}".encode()
    keys = list(issuer.keys.values())
    named = issuer.keys.get(_kid(header), keys[number % len(keys)])
    if way == "stranger":
        made = signature(
            issuer.algorithm,
            signed,
            "x" * 32 if isinstance(named, str) else private_key(issuer.algorithm, 7),
        )
    elif way == "secret":  # what everybody knows of the issuer, taken for a secret
        made = signature("HS256", signed, "" if isinstance(named, str) else public_pem(named))
    else:
        made = _CHANGES.get(way, _CHANGES["right"])(signature(issuer.algorithm, signed, named), number)
    return f"{first}.{second}.{encode(made)}"


def _kid(header: bytes) -> Any:
    try:
        decoded = from_json(header)
    except ValueError:
        return None
    kid = decoded.get("kid") if type(decoded) is dict else None
    return kid if type(kid) is str else None


# -- What must hold --


def check(data: bytes) -> bool:
    """Whether its signature is right, and what it signs is a JSON object."""
    name, way, number, rest = _parts(data[:SIZE_MAX])
    issuer = _ISSUERS[name]
    token = _token(issuer, way, number, rest)
    began = time.process_time()
    outcome: Proof | Refusal
    try:
        outcome = issuer.verifier.prove(token, ANN, NOW)
    except Refusal as refusal:
        outcome = refusal
    took = time.process_time() - began
    assert took < _SLOW, f"{took:.3f} s"
    if type(token) is not str or not token:
        _not_a_token(token, outcome)
        return False
    verdict = judge(issuer, token, ANN, NOW)
    if isinstance(outcome, Refusal):
        assert outcome.code == ErrorCode.UNAUTHORIZED, outcome.code
        reason = outcome.details["reason"]
        assert reason in REASONS, reason
        assert reason in verdict.broken or (reason == "signature" and verdict.too_deep), (reason, verdict)
        _tells_nothing(issuer, token, verdict, outcome)
    else:
        assert not verdict.broken, f"accepted, and {sorted(verdict.broken)}"
        assert outcome == verdict.proof, (outcome, verdict.proof)
        assert outcome.expires > NOW
    return verdict.claims is not None


def _not_a_token(token: Any, outcome: Proof | Refusal) -> None:
    assert isinstance(outcome, Refusal), "accepted, and no token"
    if token is None or token == "":
        assert outcome.details["reason"] == "missing"
    else:
        assert outcome.code == ErrorCode.VALIDATION, outcome.code
        assert outcome.details.keys() == {"field", "expected"}


def _tells_nothing(issuer: Issuer, token: str, verdict: Verdict, refusal: Refusal) -> None:
    """Nothing of the token, nor of a string in it, stands in what is answered."""
    said = "\n".join([refusal.message, *map(str, refusal.details.values())])
    assert len(said) < 300, said
    said = said.replace(issuer.algorithm, "...")
    pieces = (token[start : start + _PIECE] for start in range(len(token) - _PIECE + 1))
    assert not any(piece in said for piece in pieces), said
    claims = verdict.claims if verdict.claims is not None else _guess(token)
    for text in _strings(claims):
        assert len(text) < _TEXT_PIECE or text in _OURS or text not in said, (text, said)


def _guess(token: str) -> Any:
    """Guess what a token that is refused may have meant."""
    try:
        return [from_json(decode(part)) for part in token.split(".")[:2]]
    except ValueError:
        return None


def _strings(value: Any) -> Iterator[str]:
    """All keys and values that are strings."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            waiting += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            waiting += node


# -- Making inputs --

_TIMES: Final[tuple[Any, ...]] = (
    *(
        int(NOW) + 600,
        int(NOW),
        int(NOW) - 1,
        int(NOW) + 1,
        int(NOW) - 10,
        int(NOW) - 11,
        NOW - 0.5,
        NOW + 10.5,
    ),
    *(0, -1, 1e308, 2**53, 2**63, 2**64 - 1, -(2**63), 5e-324, -0.0, True, None, "1700000600", "", [], {}),
)
_SUBJECTS: Final[tuple[Any, ...]] = (
    ANN,
    ANN,
    ANN.upper(),
    BOB,
    ANN + " ",
    ANN[:-1],
    ANN.replace("-", ""),
    "ann",
    "",
    1,
    None,
    [ANN],
)
_PARTIES: Final[tuple[Any, ...]] = (
    *(
        "https://id.example",
        "other",
        "https://id.example, other",
        "OTHER",
        "https://chat.example",
        "chat",
        "",
    ),
    *(
        ["chat"],
        ["elsewhere", "chat"],
        ["elsewhere"],
        [],
        ["chat", 1],
        {"chat": 1},
        None,
        7,
        False,
        [["chat"]],
    ),
)
_KIDS: Final[tuple[Any, ...]] = (
    "one",
    "two",
    "else",
    "strange",
    "only",
    "",
    "One",
    "../one",
    None,
    1,
    ["one"],
    {"one": 1},
    True,
)
_NAMES: Final[tuple[Any, ...]] = (
    *(
        "Ann Lee",
        "A",
        "",
        " ",
        "\u2063",
        "<b></b>",
        "<b>A</b>",
        "A\u202eB",
        "e\u0301",
        "\0",
        "x" * 50,
        "x" * 51,
        "<" * 40,
    ),
    *("\r\nx: y", "\U0001f600" * 40, "x" * 3000, None, 1, True, ["Ann Lee"], {"name": "Ann Lee"}),
)
_ALGORITHMS: Final[tuple[Any, ...]] = (
    "HS256",
    "RS256",
    "ES256",
    "EdDSA",
    "none",
    "None",
    "hs256",
    "HS512",
    "PS256",
    "",
    None,
    1,
    [],
)
_MEMBERS: Final[dict[str, tuple[Any, ...]]] = {
    "alg": _ALGORITHMS,
    "kid": _KIDS,
    "typ": ("JWT", "JOSE", "at+jwt", 1, None),
    "cty": ("JWT", "x"),
    "crit": (["b64"], ["exp"], [], "b64", None, [1], ["b64", "b64"]),
    "b64": (True, False, 0, "false", None),
    "jwk": ({"kty": "oct", "k": "AAAA"}, {}),
    "jku": ("https://evil.example/keys",),
    "x5u": ("file:///etc/passwd",),
    "x5c": (["AAAA"],),
    "zip": ("DEF",),
}
_CLAIMS: Final[dict[str, tuple[Any, ...]]] = {
    "sub": _SUBJECTS,
    "exp": _TIMES,
    "nbf": _TIMES,
    "iat": _TIMES,
    "iss": _PARTIES,
    "aud": _PARTIES,
    "jti": ("8e1f2a", 7),
    "scope": ("chat:write", ["a"] * 200),
    "name": _NAMES,
    "role": ("service", "service", "admin", "Service", "", None, 1, ["service"], {"service": True}),
}


def _good(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims that an issuer would sign for Ann."""
    issuer = _ISSUERS[name]
    header: dict[str, Any] = {"alg": issuer.algorithm, "typ": "JWT"}
    kid = next(iter(issuer.keys))
    claims: dict[str, Any] = {"sub": ANN, "exp": int(NOW) + 600}
    for claim, listed in (("iss", issuer.settings.jwt_issuer), ("aud", issuer.settings.jwt_audience)):
        if listed:
            claims[claim] = listed.split(", ")[0]
    return header if kid is None else header | {"kid": kid}, claims


def mutate(data: bytes, rng: Random) -> bytes:
    """Change the way, the header, or, most of the time, the claims, and sign anew."""
    name, way, number, rest = _parts(data)
    dice = rng.randrange(16)
    if dice == 0:
        return mutate_bytes(data, rng)[:SIZE_MAX]
    if dice == 1:
        way = rng.choice(_WAYS)
        number = rng.randrange(3000)
    elif way not in ("text", "json") and dice < 6:
        way = "right"
    if way in ("text", "json"):
        rest = _written_token(rng) if rng.randrange(2) else mutate_bytes(rest, rng)
        return _input(name, way, number, rest)
    if dice == 2:
        name = rng.choice(list(_ISSUERS))
    header, _, payload = rest.partition(b"\n")
    good_header, good_claims = (json.dumps(part).encode() for part in _good(name))
    if rng.randrange(4) or b"{" not in header:
        header = good_header
    if rng.randrange(4) == 0 or b"{" not in payload:
        payload = good_claims
    if rng.randrange(6) == 0:
        header = _changed(header, _MEMBERS, rng).replace(b"\n", b" ")
    else:
        payload = _changed(payload, _CLAIMS, rng)
    return _input(name, way, number, header + b"\n" + payload)


def _input(name: str, way: str, number: int, rest: bytes) -> bytes:
    return (f"{name} {way} {number}\n".encode() + rest)[:SIZE_MAX]


def _written_token(rng: Random) -> bytes:
    """Write a token of the first issuer, which is right or changed a little; or what is none."""
    issuer = _ISSUERS["HS256"]
    header, claims = (json.dumps(part).encode() for part in _good("HS256"))
    made: str = _token(issuer, "right", 0, header + b"\n" + claims)
    match rng.randrange(6):
        case 0:
            return made.encode()
        case 1:
            return json.dumps(rng.choice([made, made + ".", [made], {"token": made}, 1, True, None])).encode()
        case 2:
            return rng.choice([b"", b".", b"..", b"a.b.c", b"A" * TOKEN_MAX, b"A." * 3, made[:-1].encode()])
        case 3:
            parts = made.split(".")
            rng.shuffle(parts)
            return ".".join(parts).encode()
        case 4:
            return made.replace(".", rng.choice(["..", "", ". ", ".\n", "\uff0e"]), 1).encode()
        case _:
            return mutate_bytes(made.encode(), rng)


def _changed(text: bytes, members: dict[str, tuple[Any, ...]], rng: Random) -> bytes:
    """JSON with one to three members anew; one in eight times in odd spellings, or in other types."""
    if rng.randrange(8) == 0:
        return mutate_json(text, rng)[:TOKEN_MAX]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if type(value) is not dict:
        value = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        member = rng.choice(list(members))
        if rng.randrange(8) == 0:
            value.pop(member, None)
        else:
            value[member] = rng.choice(members[member])
    return json.dumps(value, ensure_ascii=bool(rng.randrange(2))).encode(errors="replace")


TARGET: Final = Target(
    check, mutate, "the signature and the JSON decoder", ("core.auth.tokens", "core.auth.keys")
)
