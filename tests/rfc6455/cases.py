"""All cases, in the order of their numbers."""

from __future__ import annotations

from typing import Final

from tests.rfc6455 import cases_close, cases_fragments, cases_framing, cases_limits, cases_utf8
from tests.rfc6455.case import Case

#: Those that run before HELLO too: the others are about sizes that no lobby takes.
IN_LOBBY: Final[list[Case]] = [
    *cases_framing.CASES,
    *cases_fragments.CASES,
    *cases_utf8.CASES,
    *cases_close.CASES,
]
ALL: Final[list[Case]] = [*IN_LOBBY, *cases_limits.CASES]

#: Family -> what it is about.
FAMILIES: Final = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Close",
    "9": "Sizes and round trips",
    "10": "Automatic fragmentation",
}


def family(case: Case) -> str:
    """The first part of its number."""
    return case.number.partition(".")[0]
