"""Family 5: fragmentation."""

from __future__ import annotations

from typing import Final

from tests.rfc6455.case import (
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Await,
    Case,
    case,
    chopped,
    fails,
    frame,
    pong,
    text,
)

_NOTHING: Final = "continuation of nothing"
#: In how many pieces the same bytes are sent.
_WAYS: Final = ("in one segment", "frame by frame", "byte by byte")


def _first(payload: bytes, opcode: int = TEXT) -> bytes:
    return frame(opcode, payload, fin=False)


def _middle(payload: bytes) -> bytes:
    return frame(CONTINUATION, payload, fin=False)


def _last(payload: bytes) -> bytes:
    return frame(CONTINUATION, payload)


def _steps(way: str, *frames: bytes) -> list[bytes | Await]:
    match way:
        case "in one segment":
            return [b"".join(frames)]
        case "frame by frame":
            return [*frames]
    return chopped(b"".join(frames), 1)


def _control_frames() -> list[Case]:
    return [
        case(
            f"5.{index}",
            f"{name} in two fragments",
            [_first(b"one", opcode), _last(b"two")],
            ending=fails(1002),
        )
        for index, (name, opcode) in enumerate((("ping", PING), ("pong", PONG)), 1)
    ]


def _two_fragments() -> list[Case]:
    whole, payload = b"fragment1fragment2", b"ping payload"
    one, two = _first(b"fragment1"), _last(b"fragment2")
    cases = []
    for index, way in enumerate(_WAYS):
        title = f"text in two fragments, {way}"
        cases.append(case(f"5.{3 + index}", title, _steps(way, one, two), text(whole)))
        title = f"text in two fragments around a ping, {way}"
        steps = _steps(way, one, frame(PING, payload), two)
        cases.append(case(f"5.{6 + index}", title, steps, pong(payload), text(whole)))
    return cases


def _continuations_of_nothing() -> list[Case]:
    cases = []
    for start, fin, name in ((9, True, "last"), (12, False, "not the last")):
        for index, way in enumerate(_WAYS):
            title = f"{_NOTHING}, {name}; text; {way}"
            steps = _steps(way, frame(CONTINUATION, b"nothing", fin=fin), frame(TEXT, b"Hello, world!"))
            cases.append(case(f"5.{start + index}", title, steps, ending=fails(1002)))
    message = [_first(b"fragment1"), _last(b"fragment2")]
    cases.append(
        case(
            "5.15",
            f"text in two fragments; {_NOTHING}; text; in one segment",
            [b"".join([*message, _middle(b"fragment3"), frame(TEXT, b"fragment4")])],
            text(b"fragment1fragment2"),
            ending=fails(1002),
        )
    )
    for number, fin, name in (("5.16", False, "not the last"), ("5.17", True, "last")):
        frames = [frame(CONTINUATION, b"fragment0", fin=fin), *message] * 2
        title = f"twice: {_NOTHING}, {name}; text in two fragments"
        cases.append(case(number, title, [*frames], ending=fails(1002)))
    return cases


def _rest() -> list[Case]:
    both = _first(b"fragment1") + frame(TEXT, b"fragment2")
    parts = [
        [_first(b"fragment1"), _middle(b"fragment2"), frame(PING, b"pong me 1!")],
        [_middle(b"fragment3"), _middle(b"fragment4"), frame(PING, b"pong me 2!"), _last(b"fragment5")],
    ]
    events = (
        pong(b"pong me 1!"),
        pong(b"pong me 2!"),
        text(b"".join(b"fragment%d" % n for n in range(1, 6))),
    )
    story = "text in five fragments with two pings between; the second half only after the first pong"
    whole: list[bytes | Await] = [b"".join(parts[0]), Await(1), b"".join(parts[1])]
    single: list[bytes | Await] = [*parts[0], Await(1), *parts[1]]
    return [
        case("5.18", "text in two fragments, both with the opcode of text", [both], ending=fails(1002)),
        case("5.19", story, whole, *events),
        case("5.20", f"{story}; frame by frame", single, *events),
    ]


CASES: Final = sorted(
    [*_control_frames(), *_two_fragments(), *_continuations_of_nothing(), *_rest()],
    key=lambda each: int(each.number.removeprefix("5.")),
)
