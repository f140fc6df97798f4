"""core.auth.tokens: only what the issuer has signed for this user, this server and this time proves anything (D5)."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.auth.keys import load_keys
from core.auth.proof import Proof
from core.auth.tokens import REASONS, TOKEN_MAX, TokenVerifier, load_verifier, make_token
from core.process.settings import Settings
from core.wire.protocol import ErrorCode, Refusal
from tests.core.token_forge import (
    ALGORITHMS,
    SECRET,
    decode,
    encode,
    forge,
    jwk,
    private_key,
    private_pem,
    public_pem,
)

ANN: Final = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
BOB: Final = "1b2c3d4e-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
NOW: Final = 1_700_000_000.0
CLAIMS: Final = {"sub": ANN, "exp": int(NOW) + 600}


def nothing(path: Path) -> bytes:
    raise AssertionError(f"nothing is to be read, not even {path}")


def verifier(**settings: Any) -> TokenVerifier:
    """One with the secret, unless the settings say otherwise; no leeway."""
    # With a number of workers, so that the default need not be worked out.
    given: dict[str, Any] = {"auth": "jwt", "jwt_leeway": 0.0, "workers": 1} | settings
    if not {"jwt_key", "jwt_key_file", "jwt_jwks_file"} & given.keys():
        given["jwt_key"] = SECRET
    made = load_verifier(Settings(**given), Path.read_bytes if "tmp" in str(given) else nothing)
    assert made is not None
    return made


def keyed(algorithm: str, **settings: Any) -> TokenVerifier:
    """One for an algorithm, with its first key."""
    key = SECRET if algorithm == "HS256" else public_pem(private_key(algorithm))
    return verifier(jwt_algorithm=algorithm, jwt_key=key, **settings)


def signed(algorithm: str, claims: Any = CLAIMS, which: int = 0, **header: Any) -> str:
    """A token signed with an algorithm's first key, or another one."""
    if algorithm == "HS256":
        return forge(claims, SECRET if which == 0 else SECRET + "!", **header)
    return forge(claims, private_key(algorithm, which), algorithm, **header)


def refusal(tokens: TokenVerifier, token: Any, user: str = ANN, now: float = NOW) -> Refusal:
    with pytest.raises(Refusal) as caught:
        tokens.prove(token, user, now)
    return caught.value


def reason(tokens: TokenVerifier, token: Any, user: str = ANN, now: float = NOW) -> str:
    """Why it is refused; whatever it is, nothing of the token is said."""
    refused = refusal(tokens, token, user, now)
    assert refused.code == ErrorCode.UNAUTHORIZED
    assert refused.details["reason"] in REASONS
    if isinstance(token, str) and len(token) > 8:
        assert token[:40] not in str(refused)
        assert token not in json.dumps(refused.details)
    return str(refused.details["reason"])


# -- What is right --


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_the_issuer_signed_proves_it_until_it_expires(algorithm: str) -> None:
    assert keyed(algorithm).prove(signed(algorithm), ANN, NOW).expires == NOW + 600
    assert keyed(algorithm, jwt_leeway=5.0).prove(signed(algorithm), ANN, NOW).expires == NOW + 605


def test_a_subject_in_capitals_is_the_same_user() -> None:
    """As it is in HELLO (D1)."""
    assert verifier().prove(forge(CLAIMS | {"sub": ANN.upper()}), ANN, NOW)
    tokens = verifier(user_ids="any")
    assert tokens.prove(forge(CLAIMS | {"sub": "test-123"}), "test-123", NOW)
    assert reason(tokens, forge(CLAIMS | {"sub": "TEST-123"}), "test-123") == "subject"


def test_nothing_is_asked_for_without_jwt() -> None:
    assert load_verifier(Settings(auth="none"), nothing) is None
    assert load_verifier(Settings(), nothing) is None


# -- What was changed --


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(data=st.data())
def test_any_change_of_one_character_is_refused(algorithm: str, data: st.DataObject) -> None:
    """Also one that base64 would decode to the same bytes."""
    token = signed(algorithm)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_.=+/ \n\0é") | st.characters())
    changed = token[:place] + other + token[place + 1 :]
    if changed != token:
        reason(keyed(algorithm), changed)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(data=st.data())
def test_any_cut_and_any_addition_is_refused(algorithm: str, data: st.DataObject) -> None:
    token = signed(algorithm)
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, len(token)))
    more = data.draw(st.text("ABCxyz019-_.= ", max_size=4))
    changed = token[:start] + more + token[end:]
    if changed != token:
        reason(keyed(algorithm), changed)


def test_the_last_character_has_one_spelling() -> None:
    """Its lower bits are not part of the signature, and must not make other tokens of one."""
    for algorithm in ALGORITHMS:
        token = signed(algorithm)
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        same = [
            c
            for c in alphabet
            if decode(token[:-1].rpartition(".")[2] + c) == decode(token.rpartition(".")[2])
        ]
        assert len(same) > 1
        for other in set(same) - {token[-1]}:
            assert reason(keyed(algorithm), token[:-1] + other) == "signature"


def test_padding_is_not_part_of_a_token() -> None:
    """RFC 7515, 2: without it; with it there would be another spelling."""
    for algorithm in ALGORITHMS:
        parts = signed(algorithm).split(".")
        for index, part in enumerate(parts):
            padded = [*parts]
            padded[index] = part + "=" * (-len(part) % 4 or 4)
            assert reason(keyed(algorithm), ".".join(padded)) == "malformed"


@given(st.text() | st.text("AZaz09-_.=", max_size=300) | st.integers() | st.lists(st.text()) | st.booleans())
@example("")
@example("..")
@example("...")
@example(None)
def test_whatever_is_no_token_is_refused(token: Any) -> None:
    refused = refusal(verifier(), token)
    assert refused.code == (
        ErrorCode.UNAUTHORIZED if token is None or isinstance(token, str) else ErrorCode.VALIDATION
    )


@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name != "sign"),
        st.none() | st.integers() | st.text(max_size=8) | st.lists(st.text()),
    )
)
def test_whatever_else_was_signed_with_another_key_is_refused(header: dict[str, Any]) -> None:
    reason(verifier(), forge(CLAIMS, SECRET + "!", **header))


# -- Algorithms and keys --


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "hs256", "RS256"])
@pytest.mark.parametrize("made", [b"", b"\0" * 32])
def test_no_algorithm_but_the_pinned_one(name: str, made: bytes) -> None:
    assert reason(verifier(), forge(CLAIMS, alg=name, sign=lambda _: made)) in ("algorithm", "malformed")
    assert reason(verifier(), forge(CLAIMS, alg=name)) == "algorithm"


@pytest.mark.parametrize("value", [None, 1, ["HS256"], {"a": "HS256"}, True])
def test_an_algorithm_is_a_string(value: Any) -> None:
    assert reason(verifier(), forge(CLAIMS, alg=value)) == "algorithm"


def test_a_token_without_a_signature_is_none() -> None:
    head, body, _ = forge(CLAIMS).split(".")
    for token in (f"{head}.{body}.", f"{head}.{body}", f"{head}.{body}.x.", f".{body}."):
        assert reason(verifier(), token) == "malformed"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_the_public_key_is_no_secret(algorithm: str) -> None:
    """The classic confusion: HS256 with the public key, which everybody knows, as the secret."""
    pem = public_pem(private_key(algorithm))
    for secret in (pem, pem.strip(), pem.replace("\n", "\r\n")):
        token = forge(CLAIMS, secret, "HS256")
        assert reason(keyed(algorithm), token) == "algorithm"
        # And with a header that lies about it.
        lying = forge(CLAIMS, secret, "HS256", alg=algorithm)
        assert reason(keyed(algorithm), lying) == "signature"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("other", ALGORITHMS)
def test_a_signature_of_another_algorithm_is_refused(algorithm: str, other: str) -> None:
    if other != algorithm:
        assert reason(keyed(algorithm), signed(other)) == "algorithm"
        assert reason(keyed(algorithm), signed(other, alg=algorithm)) == "signature"
    assert reason(keyed(algorithm), signed(algorithm, which=1)) == "signature"


@pytest.mark.parametrize("members", [{}, {"jku": "https://evil.example/k"}, {"x5u": "file:///etc/passwd"}])
def test_a_key_that_comes_with_the_token_is_not_looked_at(members: dict[str, Any]) -> None:
    own = private_key("RS256", 7)
    token = forge(CLAIMS, own, "RS256", jwk=jwk(own), **members)
    assert reason(keyed("RS256"), token) == "signature"
    assert keyed("RS256").prove(signed("RS256", **members), ANN, NOW)


@pytest.mark.parametrize("crit", [["exp"], [], "exp", ["b64"], [1]])
def test_what_must_be_understood_and_is_not_is_refused(crit: Any) -> None:
    """RFC 7515, 4.1.11."""
    assert reason(verifier(), forge(CLAIMS, crit=crit)) == "signature"
    assert reason(verifier(), forge(CLAIMS, b64=False, crit=["b64"])) == "signature"


def key_set(tmp_path: Path, *keys: dict[str, Any]) -> TokenVerifier:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": keys}))
    given = Settings(auth="jwt", jwt_algorithm="ES256", jwt_jwks_file=path, jwt_leeway=0.0)
    made = load_verifier(given, Path.read_bytes)
    assert made is not None
    return made


def test_the_kid_says_which_key_of_a_set(tmp_path: Path) -> None:
    """And only that: another key of the same set does not do."""
    old, new = private_key("ES256", 1), private_key("ES256", 2)
    others = [
        jwk(private_key("RS256"), kid="r"),
        jwk(private_key("ES256", 3), kid="e", use="enc"),
        {"kty": "oct", "k": "QQ", "kid": "s"},
        {"kty": "EC", "crv": "P-521", "kid": "p"},
        "nonsense",
    ]
    tokens = key_set(tmp_path, jwk(old, kid="old"), jwk(new, kid="new"), *others)  # type: ignore[arg-type]
    assert tokens.prove(forge(CLAIMS, old, "ES256", kid="old"), ANN, NOW)
    assert tokens.prove(forge(CLAIMS, new, "ES256", kid="new"), ANN, NOW)
    assert reason(tokens, forge(CLAIMS, old, "ES256", kid="new")) == "signature"
    assert reason(tokens, forge(CLAIMS, private_key("ES256", 3), "ES256", kid="e")) == "key"
    assert reason(tokens, forge(CLAIMS, old, "ES256")) == "key"
    single = key_set(tmp_path, jwk(old, kid="old"))
    assert single.prove(forge(CLAIMS, old, "ES256"), ANN, NOW), "with one key there is nothing to say"


@pytest.mark.parametrize(
    "kid",
    [
        "../../etc/passwd",
        "/dev/null",
        "old\0",
        "old ",
        "' OR 1=1 --",
        "OLD",
        "",
        0,
        None,
        ["old"],
        {"a": 1},
        True,
        "__class__",
        "x" * 1000,
        "file:///dev/null",
    ],
)
def test_a_kid_is_a_name_and_nothing_else(tmp_path: Path, kid: Any) -> None:
    key = private_key("ES256", 1)
    tokens = key_set(tmp_path, jwk(key, kid="old"), jwk(private_key("ES256", 2), kid="new"))
    assert reason(tokens, forge(CLAIMS, key, "ES256", kid=kid)) == "key"
    assert reason(tokens, forge(CLAIMS, "", "HS256", kid=kid)) == "algorithm", "an empty file as the secret"


# -- Times --


@pytest.mark.parametrize("leeway", [0.0, 10.0, 300.0])
def test_exp_and_nbf_hold_to_the_second(leeway: float) -> None:
    tokens = verifier(jwt_leeway=leeway)
    end, start = NOW + 100 + leeway, NOW - 100 - leeway
    token = forge({"sub": ANN, "exp": NOW + 100, "nbf": NOW - 100})
    for now in (start, start + 1, NOW, end - 0.001):
        assert tokens.prove(token, ANN, now).expires == end
    assert reason(tokens, token, now=start - 0.001) == "early"
    assert reason(tokens, token, now=end) == "expired"
    assert reason(tokens, token, now=end + 1e9) == "expired"


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["1900000000", "", True, False, [1_900_000_000], {}, "soon"])
def test_a_time_is_a_number(claim: str, value: Any) -> None:
    assert reason(verifier(), forge(CLAIMS | {claim: value})) == "claims"


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 400, b"-" + b"9" * 30])
def test_a_time_is_a_number_that_there_is(value: bytes) -> None:
    body = b'{"sub":"%s","exp":%s}' % (ANN.encode(), value)
    assert reason(verifier(), forge(body)) in ("claims", "expired")


def test_a_token_must_expire() -> None:
    assert reason(verifier(), forge({"sub": ANN})) == "claims"
    assert reason(verifier(), forge({"sub": ANN, "exp": None})) == "claims"
    assert reason(verifier(), forge({"sub": ANN, "exp": 0})) == "expired"
    assert reason(verifier(), forge({"sub": ANN, "exp": -1e300})) == "expired"


# -- Who and for whom --


@pytest.mark.parametrize(
    "subject", [None, "", 1, True, [ANN], {"id": ANN}, ANN + " ", ANN[:-1], "*", "\0" + ANN]
)
def test_a_subject_is_a_user_id(subject: Any) -> None:
    assert reason(verifier(), forge(CLAIMS | {"sub": subject})) == "claims"


def test_another_users_token_proves_nothing() -> None:
    assert reason(verifier(), forge(CLAIMS), user=BOB) == "subject"
    assert refusal(verifier(), forge(CLAIMS), user=BOB).details["field"] == "user_id"


@pytest.mark.parametrize(
    ("audience", "fine"),
    [
        ("chat", True),
        (["chat"], True),
        (["shop", "talk"], True),
        ([], False),
        ("shop", False),
        (["shop"], False),
        (None, False),
        ("chat,talk", False),
        ("Chat", False),
    ],
)
def test_one_of_the_audiences_has_to_be_named(audience: Any, fine: bool) -> None:
    tokens = verifier(jwt_audience="chat, talk")
    token = forge(CLAIMS | ({} if audience is None else {"aud": audience}))
    if fine:
        assert tokens.prove(token, ANN, NOW)
    else:
        assert reason(tokens, token) == "audience"


def test_a_token_for_somebody_else_is_not_for_us() -> None:
    """RFC 7519, 4.1.3: who is not named must refuse it, also when nobody has told this server its name."""
    assert reason(verifier(), forge(CLAIMS | {"aud": "shop"})) == "audience"
    assert verifier().prove(forge(CLAIMS | {"aud": []}), ANN, NOW)


@pytest.mark.parametrize("audience", [1, {"chat": 1}, ["chat", 1], [["chat"]], True])
def test_an_audience_is_made_of_strings(audience: Any) -> None:
    assert reason(verifier(jwt_audience="chat"), forge(CLAIMS | {"aud": audience})) == "claims"


@pytest.mark.parametrize(
    "issuer", [None, "", "https://evil.example", "https://id.example/", "https://id.example,b"]
)
def test_the_issuer_has_to_be_one_of_ours(issuer: Any) -> None:
    tokens = verifier(jwt_issuer="https://id.example, b")
    assert tokens.prove(forge(CLAIMS | {"iss": "b"}), ANN, NOW)
    assert tokens.prove(forge(CLAIMS | {"iss": "https://id.example"}), ANN, NOW)
    assert reason(tokens, forge(CLAIMS | ({} if issuer is None else {"iss": issuer}))) == "issuer"


@pytest.mark.parametrize("issuer", [1, ["b"], {"b": 1}, False])
def test_an_issuer_is_a_string(issuer: Any) -> None:
    assert reason(verifier(jwt_issuer="b"), forge(CLAIMS | {"iss": issuer})) == "claims"
    assert reason(verifier(), forge(CLAIMS | {"iss": issuer})) == "claims"


@pytest.mark.parametrize("claims", [b"", b"[]", b'"x"', b"1", b"null", b"{", b"\xff", b"{}" * 2, b"[" * 2000])
def test_claims_are_an_object(claims: bytes) -> None:
    assert reason(verifier(), forge(claims)) in ("claims", "malformed")


# -- Size --


def test_a_token_may_be_large_but_not_huge() -> None:
    least = len(forge(CLAIMS | {"more": ""}))
    fits = forge(CLAIMS | {"more": "x" * ((TOKEN_MAX - least) * 3 // 4 - 4)})
    assert TOKEN_MAX - 16 < len(fits) <= TOKEN_MAX
    assert verifier().prove(fits, ANN, NOW)
    assert reason(verifier(), forge(CLAIMS | {"more": "x" * TOKEN_MAX})) == "malformed"
    assert reason(verifier(), "a" * 10_000_000) == "malformed"
    assert reason(verifier(), "a." * 1_000_000) == "malformed"


@pytest.mark.parametrize("depth", [300, 700, 1500, 5000])
def test_a_deeply_nested_header_is_harmless(depth: int) -> None:
    """It is parsed before anything is proven."""
    nested = b'{"alg":"HS256","x":' + b"[" * depth + b"]" * depth + b"}"
    token = f"{encode(nested)}.{encode(json.dumps(CLAIMS).encode())}.{encode(b'x' * 32)}"
    assert reason(verifier(), token) in ("malformed", "signature")


# -- Tokens for development --


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_ours_is_a_good_one(algorithm: str) -> None:
    key = SECRET if algorithm == "HS256" else private_pem(private_key(algorithm))
    settings = Settings(
        auth="jwt", jwt_key=key, jwt_algorithm=cast(Any, algorithm), jwt_audience="chat,talk", jwt_issuer="me"
    )
    keys = load_keys(settings, nothing)
    token = make_token(keys, settings, ANN, {"name": "Ann Lee"}, NOW, 60.0)
    assert token is not None
    assert TokenVerifier(keys, settings).prove(token, ANN, NOW) == Proof(
        NOW + 60 + settings.jwt_leeway, "Ann Lee"
    )
    claims = json.loads(decode(token.split(".")[1]))
    assert claims == {"sub": ANN, "iat": NOW, "exp": NOW + 60, "aud": "chat", "iss": "me", "name": "Ann Lee"}
    if algorithm != "HS256":
        public = dataclasses.replace(settings, jwt_key=public_pem(private_key(algorithm)))
        assert make_token(load_keys(public, nothing), public, ANN, {}, NOW, 60.0) is None
        assert TokenVerifier(load_keys(public, nothing), public).prove(token, ANN, NOW)


def test_checking_warns_of_nothing() -> None:
    """What a library warns of is logged, and what it has to do with a token must not be."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verifier(jwt_key="k" * 32).prove(forge(CLAIMS, "k" * 32), ANN, NOW)
