"""Every input of the corpus, and some thousands made from them in the same way in every run; without atheris (see ``docs/fuzzing.md``).

One that failed once becomes a test of its own beside the code that it is about, and a file of the corpus.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from jwt import PyJWS

from core.auth.tokens import TokenVerifier
from core.chat.envelope import unpack_envelope
from core.chat.session import Session
from core.process.handover import decode_ticket
from core.wire.frames import Frame, parse_frame
from core.wire.protocol import ErrorCode, Refusal
from fuzz.target import CORPUS, NAMES, load, seeds
from fuzz.targets import envelope, frames, handover, upgrade
from router.front.upgrade import Answer, Route

PROJECT = Path(__file__).resolve().parents[2]

#: Inputs of the short run, about two seconds each.
SHORT = {
    "lobby": 15_000,
    "message": 8_000,
    "session": 400,
    "plain": 200,
    "recognise": 15_000,
    "frames": 1_500,
    "upgrade": 4_000,
    "envelope": 15_000,
    "handover": 15_000,
    "sanitize": 4_000,
    "tokens": 5_000,
}
#: Targets that are about messages, or claims: at least half of their inputs have to get past the JSON decoder.
ABOUT_MESSAGES = ("lobby", "message", "session", "tokens")


@pytest.fixture(autouse=True)
def where_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is written below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus(name: str) -> None:
    """Nothing in it fails, some of it gets past what the target says, and some does not."""
    target = load(name)
    past = [target.check(data) for data in seeds(name)]
    assert len(past) >= 5
    assert {True, False} == set(past) or name == "session"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_short_run(name: str) -> None:
    """From a seed that is always the same; each input may be made from any of those before it."""
    target, pool, rng, past = load(name), seeds(name), Random(7), 0
    for _ in range(SHORT[name]):
        data = target.mutate(rng.choice(pool), rng)
        if rng.randrange(50) == 0:
            pool.append(data)
        past += target.check(data)
    assert past > 0
    if name in ABOUT_MESSAGES:
        assert past >= SHORT[name] / 2


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_makes_the_same_inputs(name: str) -> None:
    target, (first, *_) = load(name), seeds(name)
    assert [target.mutate(first, Random(seed)) for seed in range(50)] == [
        target.mutate(first, Random(seed)) for seed in range(50)
    ]


def test_every_target_has_a_corpus_and_nothing_else_has() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(NAMES)


# -- That a target would notice --


@dataclass
class Broken:
    """Something that works as it should but for one thing."""

    name: str
    place: Any
    attribute: str
    instead: Callable[..., Any]


def _drop_last(data: bytes) -> Any:
    worker, generation, sent_at, records = unpack_envelope(data)
    return worker, generation, sent_at, iter(list(records)[:-1])


def _never_final(data: bytes) -> Any:
    outcome = parse_frame(data)
    return outcome._replace(final=False) if isinstance(outcome, Frame) else outcome


def _cut(text: str) -> str:
    return re.sub("<[A-Za-z/!?].*", "", text, flags=re.DOTALL)


def _let_through(text: str) -> str:
    return text


def _repeat(self: TokenVerifier, claims: dict[str, Any], user_id: str) -> None:
    raise Refusal(
        ErrorCode.UNAUTHORIZED, f"{claims.get('sub')} is not {user_id}", field="user_id", reason="subject"
    )


def _crash(*_: object) -> Any:
    raise KeyError("a field that nobody expected")


BROKEN = {
    "the lobby crashes": Broken("lobby", "core.wire.validation", "display_name", _crash),
    "a field rule crashes": Broken("message", "core.wire.validation", "content", _crash),
    "a field rule crashes in the middle of a story": Broken(
        "session", "core.wire.validation", "message_id", _crash
    ),
    "markup gets through": Broken("session", "core.wire.validation", "content", _let_through),
    "texts of any length are recognised": Broken("plain", "core.wire.plain", "is_kept", lambda content: True),
    "nothing is recognised": Broken("recognise", "core.wire.plain", "recognise", lambda payload: None),
    "what is recognised is lost": Broken("plain", Session, "_receive_plain", lambda *_: True),
    "control characters stay": Broken("sanitize", "core.wire.sanitize", "_without_controls", _let_through),
    "what only looks like markup is cut": Broken("sanitize", "core.wire.sanitize", "without_markup", _cut),
    "what looks like markup is left as it is": Broken(
        "sanitize", "core.wire.sanitize", "space_out", _let_through
    ),
    "names keep what is invisible": Broken(
        "sanitize", "core.wire.sanitize", "_without_invisible", _let_through
    ),
    "the last fragment is never seen": Broken("frames", frames, "parse_frame", _never_final),
    "everybody is upgraded": Broken(
        "upgrade", upgrade, "answer", lambda head, policy: Answer(101, b"HTTP/1.1 101 \r\n\r\n")
    ),
    "everything is for the chat": Broken("upgrade", upgrade, "route", lambda data, end: Route.INCOMPLETE),
    "a record is lost": Broken("envelope", envelope, "unpack_envelope", _drop_last),
    "a ticket names somebody else": Broken(
        "handover", handover, "decode_ticket", lambda data: decode_ticket(data)._replace(user_id="x")
    ),
    "no signature is looked at": Broken("tokens", PyJWS, "_verify_signature", lambda *_, **__: None),
    "a token is for ever": Broken("tokens", TokenVerifier, "_check_times", lambda self, claims, now: 2e9),
    "a token is for everybody": Broken("tokens", TokenVerifier, "_check_subject", lambda *_: None),
    "a token is for every server": Broken("tokens", TokenVerifier, "_check_parties", lambda *_: None),
    "what a token claims is told": Broken("tokens", TokenVerifier, "_check_subject", _repeat),
    "the reading of a token's header crashes": Broken("tokens", "core.auth.tokens", "_header", _crash),
}


@pytest.mark.replaces
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_wrong_is_noticed(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an input of the corpus already."""
    place = importlib.import_module(broken.place) if isinstance(broken.place, str) else broken.place
    target = load(broken.name)
    monkeypatch.setattr(place, broken.attribute, broken.instead)
    with pytest.raises((AssertionError, KeyError)):
        for data in seeds(broken.name):
            target.check(data)


# -- The program --


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install -e '.[fuzz]'"
)
def test_make_fuzz(tmp_path: Path) -> None:
    """What ``make fuzz`` starts: it says how many inputs there were, how many got past, and which lines they reached."""
    ended = subprocess.run(
        [sys.executable, "-m", "fuzz", "--target", "handover", "--minutes", "0", "--runs", "3000"],
        cwd=tmp_path,
        # Of the sources: a compiled module has no lines.
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "handover: 3,000 inputs" in ended.stdout
    assert "past the ticket" in ended.stdout
    assert "core.process.handover: " in ended.stdout
    assert list((tmp_path / "build" / "fuzz" / "handover" / "corpus").iterdir())
