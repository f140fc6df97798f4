"""Family 7: how connections are closed."""

from __future__ import annotations

from typing import Final

from core.wire.protocol import MESSAGE_MAX_BYTES
from tests.rfc6455.case import (
    CLOSE,
    CONTINUATION,
    NO_CODE,
    PING,
    TEXT,
    Case,
    answers,
    case,
    close,
    frame,
    text,
)
from tests.rfc6455.cases_framing import HELLO
from tests.rfc6455.cases_utf8 import SURROGATE

#: Codes that a Close frame may carry; and some that it may not (RFC 6455, 7.4).
_MAY: Final = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
_MAY_NOT: Final = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
#: Codes of which the list asks nothing; here they are as wrong as the others.
_UNDEFINED: Final = (5000, 65535)

_LONG: Final = (b"BAsd7&jh23" * (256 * 1024 // 10 + 1))[: 256 * 1024]

CASES: Final[list[Case]] = [
    case("7.1.1", "text, then Close", [frame(TEXT, HELLO)], text(HELLO)),
    case("7.1.2", "two Close frames", [close(1000) + frame(CLOSE)], ending=answers(1000)),
    case("7.1.3", "Close, then ping", [close(1000) + frame(PING)], ending=answers(1000)),
    case("7.1.4", "Close, then text", [close(1000) + frame(TEXT, HELLO)], ending=answers(1000)),
    case(
        "7.1.5",
        "a fragment of a text, Close, the other fragment",
        [frame(TEXT, b"fragment1", fin=False) + close(1000) + frame(CONTINUATION, b"fragment2")],
        ending=answers(1000),
    ),
    case(
        "7.1.6",
        "text of 262,144 bytes, text, Close, ping",
        [frame(TEXT, _LONG) + frame(TEXT, HELLO) + close(1000) + frame(PING)],
        text(_LONG),
        text(HELLO),
        ending=answers(1000),
    ),
    case("7.3.1", "Close without a body", [frame(CLOSE)], ending=answers(1000, NO_CODE)),
    case("7.3.2", "Close with a body of one byte", [frame(CLOSE, b"a")], ending=answers(1002)),
    case("7.3.3", "Close with a code", [close(1000)], ending=answers(1000)),
    case("7.3.4", "Close with a code and a reason", [close(1000, HELLO)], ending=answers(1000)),
    case(
        "7.3.5", "Close with the longest reason, 123 bytes", [close(1000, b"*" * 123)], ending=answers(1000)
    ),
    case("7.3.6", "Close with a reason of 124 bytes", [close(1000, b"*" * 124)], ending=answers(1002)),
    case("7.5.1", "Close whose reason is no UTF-8", [close(1000, SURROGATE)], ending=answers(1007)),
    *(
        case(f"7.7.{index}", f"Close with code {code}", [close(code)], ending=answers(code))
        for index, code in enumerate(_MAY, 1)
    ),
    *(
        case(
            f"7.9.{index}",
            f"Close with code {code}, which may not be sent",
            [close(code)],
            ending=answers(1002),
        )
        for index, code in enumerate(_MAY_NOT, 1)
    ),
    *(
        case(
            f"7.13.{index}",
            f"Close with code {code}, which nobody has defined",
            [close(code)],
            ending=answers(1002),
        )
        for index, code in enumerate(_UNDEFINED, 1)
    ),
]
assert len(_LONG) > MESSAGE_MAX_BYTES, "before HELLO this is a message that is too long"
